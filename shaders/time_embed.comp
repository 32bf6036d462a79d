// Sinusoidal features of one number per sample: y[k] = sin(t f), y[dim / 2 + k] = cos(t f), f =
// exp(exponent * k / divisor); cosines first when flip. Grid: x vec4s, z samples.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "push.h"
#include "types.glsl"
#include "math.glsl"

layout(local_size_x_id = 0) in;
layout(push_constant) uniform push_block { push_time_embed p; };
INPUT_F32(0, t);
OUTPUT(1, y);

float feature(float time, uint i)
{
    uint half_dim = p.dim / 2;
    bool second = i >= half_dim;
    float k = float(second ? i - half_dim : i);
    precise float e = p.exponent * k, angle;

    if (i >= 2 * half_dim)
        return 0;
    e = e / p.divisor;
    angle = time * exact_exp(e);
    vec2 v = exact_cos_sin(angle);
    return second != (p.flip != 0) ? v.x : v.y;
}

void main()
{
    uint q = gl_GlobalInvocationID.x, n = gl_WorkGroupID.z;
    float time = t.v[4 * (p.t.base + n * p.t.cs)];
    vec4 v;

    if (4 * q >= p.dim)
        return;
    for (uint i = 0; i < 4; i++)
        v[i] = feature(time, 4 * q + i);
    STORE(y, p.y.base + n * p.y.cs + q, v);
}
