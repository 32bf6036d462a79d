// What the lane kernels rely on: fetches in range, zero outside the range (far above, just above
// and negative), and a broadcast from each lane. y[i] = 1 where all hold.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_shader_subgroup_shuffle : require
#include "push.h"
#include "types.glsl"

layout(local_size_x_id = 0) in;
layout(push_constant) uniform push_block { push_probe p; };
INPUT(0, x);  // x[i] = (4i+1, 4i+2, 4i+3, 4i+4)
OUTPUT_F32(1, y);

bool is(vec4 v, float first) { return all(equal(v, vec4(first) + vec4(0, 1, 2, 3))); }

void main()
{
    uint i = gl_SubgroupInvocationID;
    vec4 v = LOAD(x, i);
    bool ok = is(v, 4 * i + 1);
#if LOAD_TEXEL
    ok = ok && LOAD(x, p.count + i) == vec4(0);
    ok = ok && LOAD(x, 0x40000000u + i) == vec4(0);
    ok = ok && LOAD(x, 0xffffffffu - i) == vec4(0);
#endif
    ok = ok && subgroupShuffle(v.x, 0) == 1 && subgroupShuffle(v.w, 2) == 12 &&
         subgroupShuffle(v.y, gl_WorkGroupSize.x - 1) == 4 * (gl_WorkGroupSize.x - 1) + 2;
    y.v[i] = ok ? 1 : 0;
}
