// z ~ N(0, 1) for every pixel of each lane's slot. An invocation makes four pixels at a time: their
// values are three Philox blocks, or four blocks for latents. Grid: x pixel blocks, z lanes.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "push.h"
#include "lanes.glsl"
#include "math.glsl"
#include "philox.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint CHANNELS = 3;  // 3 or 4
layout(push_constant) uniform push_block { push_noise p; };
layout(std430, binding = 1) writeonly buffer y_block { vec4 v[]; } y;

// One block for each of up to four pixels, the first of which is `first`.
void latents(op_lane l, uvec2 key, uint first, uint to)
{
    uint end = min(first + 4, p.pixels);

    for (uint i = first; i < end; i++)
        y.v[to + i * p.y.cs] = philox_normals(uvec4(i, l.step, l.stage, l.picture), key);
}

void main()
{
    op_lane l = lanes.v[gl_WorkGroupID.z];
    uvec2 key = uvec2(l.seed_lo, l.seed_hi);
    uint i = gl_WorkGroupID.x * p.run * gl_WorkGroupSize.x + gl_LocalInvocationID.x;
    uint quads = (p.pixels + 3) / 4, to = p.y.base + l.slot * p.pixels * p.y.cs;

    for (uint k = 0; k < p.run && i < quads; k++, i += gl_WorkGroupSize.x) {
        if (CHANNELS == 4) {
            latents(l, key, 4 * i, to);
            continue;
        }
        vec4 a = philox_normals(uvec4(3 * i, l.step, l.stage, l.picture), key);
        vec4 b = philox_normals(uvec4(3 * i + 1, l.step, l.stage, l.picture), key);
        vec4 c = philox_normals(uvec4(3 * i + 2, l.step, l.stage, l.picture), key);
        uint at = to + 4 * i * p.y.cs;
        y.v[at] = vec4(a.xyz, 0);
        if (4 * i + 1 < p.pixels)
            y.v[at + p.y.cs] = vec4(a.w, b.xy, 0);
        if (4 * i + 2 < p.pixels)
            y.v[at + 2 * p.y.cs] = vec4(b.zw, c.x, 0);
        if (4 * i + 3 < p.pixels)
            y.v[at + 3 * p.y.cs] = vec4(c.yzw, 0);
    }
}
