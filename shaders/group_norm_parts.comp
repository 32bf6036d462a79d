// GroupNorm of large maps, first of three: for a run of pixels, each channel's mean and sum of
// squares about it. A run is summed in pieces, each about the mean so far (the first about its
// first pixel), and the pieces merged: neither a large mean nor a wild value costs digits beyond
// its own piece. Source of the merge: Chan, Golub, LeVeque 1979. parts [N, part, 2, C4].
#version 450
#extension GL_GOOGLE_include_directive : require
#include "push.h"
#include "types.glsl"
#include "walk.glsl"

// Pixels, a multiple of WALK_UNROLL. If the first pixel of a run is a wild value, the squares of its
// piece are the difference of two sums that are PIECE times as large: those of 64 pixels lost 3e-5
// of a variance.
const uint PIECE = 16;

PUSH(push_group_norm_parts);
INPUT(0, x);
layout(std430, binding = 1) writeonly buffer parts_block { vec4 v[]; } parts;

vec4 mean[BLOCKS], squares[BLOCKS];  // of the pixels so far
uint stride, first, last, at;

// Adds pixels k .. k + count of the run to the k so far.
void add_piece(uint k, uint count)
{
    vec4 sum[BLOCKS], about[BLOCKS];
    [[unroll]] for (uint b = 0; b < BLOCKS; b++)
        sum[b] = about[b] = vec4(0);
    for (uint i = 0; i < count; i += WALK_UNROLL) {
        vec4 v[WALK_UNROLL * BLOCKS];
        [[unroll]] for (uint j = 0; j < WALK_UNROLL * BLOCKS; j++) {
            uint s = min(first + (k + i + j / BLOCKS) * stride, last);
            v[j] = LOAD(x, at + s * p.x.cs + walk_c4(p.walk, j % BLOCKS)) - mean[j % BLOCKS];
        }
        [[unroll]] for (uint j = 0; j < WALK_UNROLL * BLOCKS; j++) {
            vec4 d = i + j / BLOCKS < count ? v[j] : vec4(0);
            sum[j % BLOCKS] += d;
            about[j % BLOCKS] += d * d;
        }
    }
    float n = float(count), before = float(k);
    [[unroll]] for (uint b = 0; b < BLOCKS; b++) {
        vec4 d = sum[b] / n;
        squares[b] += max(about[b] - sum[b] * d, vec4(0)) + d * d * (before * n / (before + n));
        mean[b] += d * (n / (before + n));
    }
}

void main()
{
    READ_PUSH();
    uint n = gl_WorkGroupID.z, c4 = (p.c + 3) / 4;
    uint part = gl_WorkGroupID.x * walk_stride(p.walk) +
                (gl_LocalInvocationID.x >> p.walk.lanes);

    stride = walk_stride(p.walk);
    first = walk_first(p.walk);
    last = p.pixels - 1;
    at = p.x.base + n * p.pixels * p.x.cs;
    if (first > last)
        return;
    [[unroll]] for (uint b = 0; b < BLOCKS; b++) {
        mean[b] = LOAD(x, at + first * p.x.cs + walk_c4(p.walk, b));
        squares[b] = vec4(0);
    }
    uint count = min(p.walk.run, (last - first) / stride + 1);
    for (uint k = 0; k < count; k += PIECE)
        add_piece(k, min(PIECE, count - k));
    [[unroll]] for (uint b = 0; b < BLOCKS; b++) {
        uint c = walk_c4(p.walk, b), to = (n * p.parts + part) * 2 * c4 + c;
        if (c < c4) {
            parts.v[to] = mean[b];
            parts.v[to + c4] = squares[b];
        }
    }
}
