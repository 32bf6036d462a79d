// GroupNorm of large maps, first of three: for a run of pixels, each channel's mean and sum of
// squares about it. Sums are taken about the run's first pixel, so that neither a large mean nor
// anything outside the run costs digits. parts [N, part, 2, C4].
#version 450
#extension GL_GOOGLE_include_directive : require
#include "push.h"
#include "types.glsl"
#include "walk.glsl"

layout(push_constant) uniform push_block { push_group_norm_parts p; };
INPUT(0, x);
layout(std430, binding = 1) writeonly buffer parts_block { vec4 v[]; } parts;

void main()
{
    uint stride = walk_stride(p.walk), i = walk_first(p.walk), n = gl_WorkGroupID.z;
    uint c4 = (p.c + 3) / 4, at = p.x.base + n * p.pixels * p.x.cs, last = p.pixels - 1;
    uint part = gl_WorkGroupID.x * stride + (gl_LocalInvocationID.x >> p.walk.lanes);
    vec4 origin[BLOCKS], sum[BLOCKS], squares[BLOCKS];

    if (i > last)
        return;
    [[unroll]] for (uint b = 0; b < BLOCKS; b++) {
        origin[b] = LOAD(x, at + i * p.x.cs + walk_c4(p.walk, b));
        sum[b] = squares[b] = vec4(0);
    }
    uint count = min(p.walk.run, (last - i) / stride + 1);
    for (uint k = 0; k < count; k += WALK_UNROLL) {
        vec4 v[WALK_UNROLL * BLOCKS];
        [[unroll]] for (uint j = 0; j < WALK_UNROLL * BLOCKS; j++) {
            uint s = min(i + (k + j / BLOCKS) * stride, last);
            v[j] = LOAD(x, at + s * p.x.cs + walk_c4(p.walk, j % BLOCKS)) - origin[j % BLOCKS];
        }
        [[unroll]] for (uint j = 0; j < WALK_UNROLL * BLOCKS; j++) {
            vec4 d = k + j / BLOCKS < count ? v[j] : vec4(0);
            sum[j % BLOCKS] += d;
            squares[j % BLOCKS] += d * d;
        }
    }
    [[unroll]] for (uint b = 0; b < BLOCKS; b++) {
        uint c = walk_c4(p.walk, b), to = (n * p.parts + part) * 2 * c4 + c;
        vec4 m = sum[b] / float(count);
        if (c < c4) {
            parts.v[to] = origin[b] + m;
            parts.v[to + c4] = max(squares[b] - sum[b] * m, vec4(0));
        }
    }
}
