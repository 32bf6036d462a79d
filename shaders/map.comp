// y = (a + b) * scale, b of one pixel or of all, or y = act(a).
#version 450
#extension GL_GOOGLE_include_directive : require
#include "push.h"
#include "types.glsl"
#include "act.glsl"
#include "walk.glsl"

layout(constant_id = 2) const uint ACT = 0;
layout(constant_id = 3) const uint ADD = 0;  // 1: b like a, 2: b [N, 1, 1, C]

PUSH(push_map);
INPUT(0, a);
INPUT(1, b);
OUTPUT(2, y);

void main()
{
    READ_PUSH();
    uint stride = walk_stride(p.walk), i = walk_first(p.walk);
    uint start = gl_WorkGroupID.z * p.pixels;
    uint at = p.a.base + start * p.a.cs, bt = p.b.base + start * p.b.cs;
    uint yt = p.y.base + start * p.y.cs;
    vec4 one[BLOCKS];

    if (ADD == 2)
        [[unroll]] for (uint k = 0; k < BLOCKS; k++)
            one[k] = LOAD(b, p.b.base + gl_WorkGroupID.z * p.b.cs + walk_c4(p.walk, k));
    for (uint k = 0; k < p.walk.run; k += WALK_UNROLL, i += WALK_UNROLL * stride) {
        vec4 v[WALK_UNROLL * BLOCKS];
        [[unroll]] for (uint j = 0; j < WALK_UNROLL * BLOCKS; j++) {
            uint s = min(i + j / BLOCKS * stride, p.pixels - 1);
            uint c = walk_c4(p.walk, j % BLOCKS);
            v[j] = LOAD(a, at + s * p.a.cs + c);
            if (ADD == 1)
                v[j] += LOAD(b, bt + s * p.b.cs + c);
            if (ADD == 2)
                v[j] += one[j % BLOCKS];
            if (ADD != 0)
                v[j] *= p.scale;
        }
        [[unroll]] for (uint j = 0; j < WALK_UNROLL * BLOCKS; j++) {
            uint s = i + j / BLOCKS * stride, c = walk_c4(p.walk, j % BLOCKS);
            if (s < p.pixels && 4 * c < p.c)
                STORE(y, yt + s * p.y.cs + c, mask_channels(act4(ACT, v[j]), c, p.c));
        }
    }
}
