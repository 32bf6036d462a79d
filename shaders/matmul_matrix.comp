// Linear layers and 3x3 convolutions on matrix units: a workgroup of four subgroups computes 64
// output channels of 64 pixels from tiles of halves in shared memory, each subgroup a quarter of
// the channels. Sums are f32 and run over taps, then channels in steps of K, wherever an element
// lies in the tile. Pixels of all samples are one row.
// Weights: [out][tap][in/4][4]. Grid: x output blocks, y pixel blocks.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_basic : require
#include "push.h"
#include "types.glsl"
#include "act.glsl"

layout(local_size_x_id = 0) in;                 // four subgroups
layout(constant_id = 1) const uint SIDE = 1;    // of the convolution kernel, 1 or 3
layout(constant_id = 2) const uint ACT = 0;
layout(constant_id = 3) const uint PARTS = 0;
layout(constant_id = 4) const uint M = 16;      // the device's matrices: M x K times K x N
layout(constant_id = 5) const uint N = 16;
layout(constant_id = 6) const uint K = 16;
#include "matmul.glsl"

const uint SUBGROUPS = 4, TILE = 64, DEPTH = 32;  // channels, pixels; k at a time
const uint ROW = DEPTH / 4 + 2;                   // vec4s, two of them against bank conflicts
const uint DOWN = TILE / SUBGROUPS / M, ACROSS = TILE / N;

shared f16vec4 w_tile[TILE * ROW], x_tile[TILE * ROW];
shared vec4 patches[SUBGROUPS * M * N / 4];       // [subgroup][pixel][channel/4]

// The index of pixel's neighbour at this tap; false outside the image.
bool neighbour(uint pixel, uint tap, out uint at)
{
    at = pixel;
    if (SIDE == 1)
        return true;
    uint row = pixel / p.w % p.h + tap / 3 - 1, column = pixel % p.w + tap % 3 - 1;
    at = pixel / (p.w * p.h) * p.w * p.h + row * p.w + column;
    return row < p.h && column < p.w;
}

void load_tiles(uint m_first, uint pixel_first, uint tap, uint k0)
{
    // Eight invocations side by side read 32 channels of one row.
    for (uint i = gl_LocalInvocationIndex; i < TILE * DEPTH / 4; i += gl_WorkGroupSize.x) {
        uint line = i / (DEPTH / 4), k4 = i % (DEPTH / 4), k = k0 + k4;
        uint m = m_first + line, pixel = pixel_first + line, at;
        vec4 wv = vec4(0), xv = vec4(0);
        if (k < p.k4 && m < 4 * p.m4)
            wv = LOAD_WEIGHT(weight, (m * SIDE * SIDE + tap) * p.k4 + k);
#if WT != WT_F16
        wv = round_half4(wv);
#endif
        if (k < p.k4 && pixel < p.pixels && neighbour(pixel, tap, at))
            xv = LOAD(x, p.x.base + at * p.x.cs + k);
        w_tile[line * ROW + k4] = f16vec4(wv);
        x_tile[line * ROW + k4] = f16vec4(xv);
    }
}

void main()
{
    uint m_first = gl_WorkGroupID.x * TILE, pixel_first = gl_WorkGroupID.y * TILE;
    uint m_mine = gl_SubgroupID * (TILE / SUBGROUPS);
    coopmat<float, gl_ScopeSubgroup, M, N, gl_MatrixUseAccumulator> acc[DOWN * ACROSS];
    [[unroll]] for (uint i = 0; i < DOWN * ACROSS; i++)
        acc[i] = coopmat<float, gl_ScopeSubgroup, M, N, gl_MatrixUseAccumulator>(0);

    for (uint tap = 0; tap < SIDE * SIDE; tap++)
        for (uint k0 = 0; k0 < p.k4; k0 += DEPTH / 4) {
            barrier();
            load_tiles(m_first, pixel_first, tap, k0);
            barrier();
            for (uint k = 0; k < DEPTH; k += K) {
                coopmat<float16_t, gl_ScopeSubgroup, M, K, gl_MatrixUseA> a[DOWN];
                [[unroll]] for (uint i = 0; i < DOWN; i++)
                    coopMatLoad(a[i], w_tile, (m_mine + i * M) * ROW + k / 4, ROW,
                                gl_CooperativeMatrixLayoutRowMajor);
                [[unroll]] for (uint j = 0; j < ACROSS; j++) {
                    coopmat<float16_t, gl_ScopeSubgroup, K, N, gl_MatrixUseB> b;
                    coopMatLoad(b, x_tile, j * N * ROW + k / 4, ROW,
                                gl_CooperativeMatrixLayoutColumnMajor);
                    [[unroll]] for (uint i = 0; i < DOWN; i++)
                        acc[i * ACROSS + j] = coopMatMulAdd(a[i], b, acc[i * ACROSS + j]);
                }
            }
        }

    // Where an invocation's elements of a matrix lie is the driver's secret: each goes through
    // shared memory, four channels of a pixel side by side.
    const uint patch4 = M * N / 4;
    [[unroll]] for (uint i = 0; i < DOWN; i++)
        [[unroll]] for (uint j = 0; j < ACROSS; j++) {
            barrier();
            coopMatStore(acc[i * ACROSS + j], patches, gl_SubgroupID * patch4, M / 4,
                         gl_CooperativeMatrixLayoutColumnMajor);
            barrier();
            for (uint e = gl_SubgroupInvocationID; e < patch4; e += gl_SubgroupSize) {
                uint pixel = pixel_first + j * N + e / (M / 4);
                uint m = (m_first + m_mine + i * M) / 4 + e % (M / 4);
                if (pixel < p.pixels && m < p.m4)
                    finish(bias.v[m] + patches[gl_SubgroupID * patch4 + e], pixel, m);
            }
        }
}
