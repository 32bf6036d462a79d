// GroupNorm of large maps, last of three: y = act((x - mean) * gain + offset).
#version 450
#extension GL_GOOGLE_include_directive : require
#include "push.h"
#include "types.glsl"
#include "act.glsl"
#include "walk.glsl"

layout(constant_id = 2) const uint ACT = 0;

PUSH(push_group_norm_parts);
INPUT(0, x);
INPUT_F32X4(1, lines);
OUTPUT(2, y);

void main()
{
    READ_PUSH();
    uint stride = walk_stride(p.walk), i = walk_first(p.walk);
    uint c4 = (p.c + 3) / 4, start = gl_WorkGroupID.z * p.pixels;
    uint line = gl_WorkGroupID.z * 3 * c4;
    uint xt = p.x.base + start * p.x.cs, yt = p.y.base + start * p.y.cs;
    vec4 mean[BLOCKS], gain[BLOCKS], offset[BLOCKS];

    [[unroll]] for (uint b = 0; b < BLOCKS; b++) {
        uint c = walk_c4(p.walk, b);
        mean[b] = mask_channels(lines.v[line + c], c, p.c);
        gain[b] = mask_channels(lines.v[line + c4 + c], c, p.c);
        offset[b] = mask_channels(lines.v[line + 2 * c4 + c], c, p.c);
    }
    for (uint k = 0; k < p.walk.run; k += WALK_UNROLL, i += WALK_UNROLL * stride) {
        vec4 v[WALK_UNROLL * BLOCKS];
        [[unroll]] for (uint j = 0; j < WALK_UNROLL * BLOCKS; j++) {
            uint s = min(i + j / BLOCKS * stride, p.pixels - 1);
            v[j] = LOAD(x, xt + s * p.x.cs + walk_c4(p.walk, j % BLOCKS));
        }
        [[unroll]] for (uint j = 0; j < WALK_UNROLL * BLOCKS; j++) {
            uint s = i + j / BLOCKS * stride, b = j % BLOCKS, c = walk_c4(p.walk, b);
            if (s < p.pixels && c < c4)
                STORE(y, yt + s * p.y.cs + c, act4(ACT, (v[j] - mean[b]) * gain[b] + offset[b]));
        }
    }
}
