// y[slot] = a x[slot] + b noise[slot], a = lane.cx, b = lane.noise; pixels that x marks as kept are
// copied, with their mark. Grid: x pixel blocks, z lanes.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "push.h"
#include "types.glsl"
#include "lanes.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint CHANNELS = 3;  // 3, then the mark; or 4
layout(push_constant) uniform push_block { push_sampler p; };
INPUT_STATE(1, x);
INPUT_STATE(2, noise);
layout(std430, binding = 3) writeonly buffer y_block { vec4 v[]; } y;

void main()
{
    op_lane l = lanes.v[gl_WorkGroupID.z];
    uint i = gl_WorkGroupID.x * p.run * gl_WorkGroupSize.x + gl_LocalInvocationID.x;

    for (uint k = 0; k < p.run && i < p.pixels; k++, i += gl_WorkGroupSize.x) {
        uint at = l.slot * p.pixels + i;
        vec4 old = LOAD_STATE(x, p.x.base + at * p.x.cs);
        vec4 v = l.cx * old;
        v += l.noise * LOAD_STATE(noise, p.noise.base + at * p.noise.cs);
        if (CHANNELS == 3)
            v = old.w != 0 ? old : vec4(v.xyz, 0);
        y.v[p.h0.base + at * p.h0.cs] = v;
    }
}
