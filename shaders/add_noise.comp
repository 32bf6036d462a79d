// y[slot] = a x[slot] + b noise[slot], a = lane.cx, b = lane.noise. Grid: x pixel blocks, z lanes.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "push.h"
#include "lanes.glsl"

layout(local_size_x_id = 0) in;
layout(push_constant) uniform push_block { push_sampler p; };
layout(std430, binding = 1) readonly buffer x_block { vec4 v[]; } x;
layout(std430, binding = 2) readonly buffer noise_block { vec4 v[]; } noise;
layout(std430, binding = 3) writeonly buffer y_block { vec4 v[]; } y;

void main()
{
    lane l = lanes.v[gl_WorkGroupID.z];
    uint i = gl_WorkGroupID.x * p.run * gl_WorkGroupSize.x + gl_LocalInvocationID.x;

    for (uint k = 0; k < p.run && i < p.pixels; k++, i += gl_WorkGroupSize.x) {
        uint at = l.slot * p.pixels + i;
        vec3 v = l.cx * x.v[p.x.base + at * p.x.cs].xyz;
        v += l.noise * noise.v[p.noise.base + at * p.noise.cs].xyz;
        y.v[p.h0.base + at * p.h0.cs] = vec4(v, 0);
    }
}
