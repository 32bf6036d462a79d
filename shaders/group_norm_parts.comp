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
    uint c = walk_c4(p.walk), stride = walk_stride(p.walk), i = walk_first(p.walk), n = gl_WorkGroupID.z;
    uint c4 = (p.c + 3) / 4, at = p.x.base + n * p.pixels * p.x.cs + c, last = p.pixels - 1;
    uint part = gl_WorkGroupID.x * stride + (gl_LocalInvocationID.x >> p.walk.lanes);

    if (c >= c4 || i > last)
        return;
    vec4 origin = LOAD(x, at + i * p.x.cs), sum = vec4(0), squares = vec4(0);
    uint count = min(p.walk.run, (last - i) / stride + 1);
    for (uint k = 0; k < count; k += WALK_UNROLL) {
        vec4 v[WALK_UNROLL];
        [[unroll]] for (uint j = 0; j < WALK_UNROLL; j++)
            v[j] = LOAD(x, at + min(i + (k + j) * stride, last) * p.x.cs) - origin;
        [[unroll]] for (uint j = 0; j < WALK_UNROLL; j++) {
            vec4 d = k + j < count ? v[j] : vec4(0);
            sum += d;
            squares += d * d;
        }
    }
    vec4 m = sum / float(count);
    uint yt = (n * p.parts + part) * 2 * c4 + c;
    parts.v[yt] = origin + m;
    parts.v[yt + c4] = max(squares - sum * m, vec4(0));
}
