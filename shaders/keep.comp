// Pixels that an edit keeps, as noisy as the rest: where the original's fourth channel is not 0,
//   x = kept_signal original + kept_noise z
// with z ~ N(0, 1), the same in every step. Lanes with a kept_signal of 0 are left alone. Grid: x
// pixel blocks, z lanes.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "push.h"
#include "types.glsl"
#include "lanes.glsl"
#include "math.glsl"
#include "philox.glsl"

layout(local_size_x_id = 0) in;
layout(push_constant) uniform push_block { push_sampler p; };
INPUT_STATE(1, original);
layout(std430, binding = 2) buffer x_block { vec4 v[]; } x;

void main()
{
    op_lane l = lanes.v[gl_WorkGroupID.z];
    uvec2 key = uvec2(l.seed_lo, l.seed_hi);
    uint i = gl_WorkGroupID.x * p.run * gl_WorkGroupSize.x + gl_LocalInvocationID.x;

    for (uint k = 0; k < p.run && i < p.pixels; k++, i += gl_WorkGroupSize.x) {
        uint at = l.slot * p.pixels + i;
        vec4 from = LOAD_STATE(original, p.noise.base + at * p.noise.cs);
        if (from.w != 0 && l.kept_signal != 0) {
            vec4 z = philox_normals(uvec4(i, LANE_STEP_KEPT, l.stage, l.picture), key);
            precise vec3 v = l.kept_signal * from.xyz + l.kept_noise * z.xyz;
            x.v[p.x.base + at * p.x.cs] = vec4(v, 0);
        }
    }
}
