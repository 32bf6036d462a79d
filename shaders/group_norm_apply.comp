// GroupNorm of large maps, last of three: y = act((x - mean) * gain + offset).
#version 450
#extension GL_GOOGLE_include_directive : require
#include "push.h"
#include "types.glsl"
#include "act.glsl"
#include "walk.glsl"

layout(constant_id = 1) const uint ACT = 0;

layout(push_constant) uniform push_block { push_group_norm_parts p; };
INPUT(0, x);
INPUT_F32X4(1, lines);
OUTPUT(2, y);

void main()
{
    uint c = walk_c4(p.walk), stride = walk_stride(p.walk), i = walk_first(p.walk);
    uint c4 = (p.c + 3) / 4, start = gl_WorkGroupID.z * p.pixels;
    uint line = gl_WorkGroupID.z * 3 * c4 + c;
    uint xt = p.x.base + start * p.x.cs + c, yt = p.y.base + start * p.y.cs + c;

    if (c >= c4)
        return;
    vec4 mean = mask_channels(lines.v[line], c, p.c);
    vec4 gain = mask_channels(lines.v[line + c4], c, p.c);
    vec4 offset = mask_channels(lines.v[line + 2 * c4], c, p.c);
    for (uint k = 0; k < p.walk.run; k += WALK_UNROLL, i += WALK_UNROLL * stride) {
        vec4 v[WALK_UNROLL];
        [[unroll]] for (uint j = 0; j < WALK_UNROLL; j++)
            v[j] = LOAD(x, xt + min(i + j * stride, p.pixels - 1) * p.x.cs);
        [[unroll]] for (uint j = 0; j < WALK_UNROLL; j++) {
            uint s = i + j * stride;
            if (s < p.pixels)
                STORE(y, yt + s * p.y.cs, act4(ACT, (v[j] - mean) * gain + offset));
        }
    }
}
