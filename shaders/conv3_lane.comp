// 3x3 convolution, stride 1, zero padding, lane-sliced: see lane.glsl. Lanes are neighbours in a
// row, P rows per workgroup; P + 2 rows of input serve the three taps of a column.
// Weights: [out/SG][dx][in/4][dy][SG][4]. Grid: x output blocks, y tiles of SG x P pixels, z sample.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "push.h"
#define WEIGHT_LANES SG
#define WEIGHT_ROWS 3
#include "types.glsl"
#include "act.glsl"
#include "lane.glsl"

void main()
{
    READ_PUSH();
    uint lane = gl_SubgroupInvocationID;
    uint m0 = gl_WorkGroupID.x * (MB / 4);
    uint tiles = (p.w + SG - 1) / SG;
    uint column = gl_WorkGroupID.y % tiles * SG + lane;
    uint row = gl_WorkGroupID.y / tiles * P;
    uint first = gl_WorkGroupID.z * p.h;
    start_sums(m0);

    uint wi = gl_WorkGroupID.x * (MB / SG) * 9 * p.k4 * SG + lane;
    for (uint dx = 0; dx < 3; dx++) {
        uint from = column + dx - 1;  // wraps to a large number left of the image
        uint xi[P + 2];
        [[unroll]] for (uint j = 0; j < P + 2; j++) {
            bool inside = from < p.w && row + j - 1 < p.h;
            xi[j] = inside ? p.x.base + ((first + row + j - 1) * p.w + from) * p.x.cs : OUTSIDE;
        }
        for (uint k = 0; k < p.k4; k++) {
            vec4 xv[P + 2];
            [[unroll]] for (uint j = 0; j < P + 2; j++)
#if LOAD_TEXEL
                xv[j] = LOAD(x, xi[j] + k);
#else
                xv[j] = xi[j] == OUTSIDE ? vec4(0) : LOAD(x, xi[j] + k);
#endif
            // All loads before all arithmetic: a load is a call, around which registers are spilled.
            vec4 wv[MB / SG * 3];
            [[unroll]] for (uint b = 0; b < MB / SG; b++)
                [[unroll]] for (uint dy = 0; dy < 3; dy++)
                    wv[b * 3 + dy] =
                        LOAD_WEIGHT(weight, wi + (((b * 3 + dx) * p.k4 + k) * 3 + dy) * SG);
            [[unroll]] for (uint b = 0; b < MB / SG; b++)
                [[unroll]] for (uint dy = 0; dy < 3; dy++)
                    [[unroll]] for (uint m = 0; m < SG; m += 4)
                        [[unroll]] for (uint c = 0; c < 4; c++) {
                            vec4 w = from_lanes(wv[b * 3 + dy][c], m);
                            [[unroll]] for (uint j = 0; j < P; j++)
                                acc[(b * SG + m) / 4 * P + j] += w * xv[j + dy][c];
                        }
        }
    }
    [[unroll]] for (uint j = 0; j < P; j++)
        if (column < p.w && row + j < p.h)
            finish_pixel(j, m0, (first + row + j) * p.w + column);
}
