// y = x W over pixels (or tokens), lane-sliced: see lane.glsl.
// Weights: [out/SG][in/4][SG][4]. Grid: x output blocks (fastest, so that x stays in the cache),
// y pixel blocks.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "push.h"
#define WEIGHT_LANES SG
#include "types.glsl"
#include "act.glsl"
#include "lane.glsl"

void main()
{
    READ_PUSH();
    uint lane = gl_SubgroupInvocationID;
    uint m0 = gl_WorkGroupID.x * (MB / 4);
    uint t0 = gl_WorkGroupID.y * (P * SG) + lane;
    uint xi[P];
    [[unroll]] for (uint j = 0; j < P; j++)
        xi[j] = p.x.base + min(t0 + j * SG, p.pixels - 1) * p.x.cs;
    start_sums(m0);

    uint wi = gl_WorkGroupID.x * (MB / SG) * p.k4 * SG + lane;
    for (uint k = 0; k < p.k4; k += KV) {
        vec4 xv[P * KV];
        [[unroll]] for (uint j = 0; j < P; j++)
            [[unroll]] for (uint i = 0; i < KV; i++)
                xv[j * KV + i] = LOAD(x, xi[j] + k + i);
        // All loads before all arithmetic: a load is a call, around which registers are spilled.
        vec4 wv[MB / SG * KV];
        [[unroll]] for (uint b = 0; b < MB / SG; b++)
            [[unroll]] for (uint i = 0; i < KV; i++)
                wv[b * KV + i] = LOAD_WEIGHT(weight, wi + (b * p.k4 + k + i) * SG);
        [[unroll]] for (uint b = 0; b < MB / SG; b++)
            [[unroll]] for (uint m = 0; m < SG; m += 4)
                [[unroll]] for (uint i = 0; i < KV; i++)
                    [[unroll]] for (uint c = 0; c < 4; c++) {
                        vec4 w = from_lanes(wv[b * KV + i][c], m);
                        [[unroll]] for (uint j = 0; j < P; j++)
                            acc[(b * SG + m) / 4 * P + j] += w * xv[j * KV + i][c];
                    }
    }
    [[unroll]] for (uint j = 0; j < P; j++)
        if (t0 + j * SG < p.pixels)
            finish_pixel(j, m0, t0 + j * SG);
}
