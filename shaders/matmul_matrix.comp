// Linear layers and 3x3 convolutions on matrix units: a workgroup computes TILE output channels of
// TILE pixels from tiles of halves in shared memory, a subgroup half of the channels of some of the
// pixels. While one pair of tiles is multiplied, the next comes from memory: it waits in registers
// and goes into the other half of shared memory. Sums are f32 and run over taps, then channels in
// steps of K, wherever an element lies in the tile, and whatever the tile's size. Pixels of all
// samples are one row. docs/architecture.md estimates registers and occupancy.
// Activations that are f32 (of linear layers) are split into two halves each, whose products have one
// sum: scaled by a power of two for each pixel, so that the largest lies in [2^14, 2^15), the two
// together are within 2^-23 of the value, or within 2^-39 of the pixel's largest.
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

layout(local_size_x_id = 0) in;                     // SUBGROUPS subgroups
layout(constant_id = 1) const uint SIDE = 1;        // of the convolution kernel, 1 or 3
layout(constant_id = 2) const uint ACT = 0;
layout(constant_id = 3) const uint PARTS = 0;
layout(constant_id = 4) const uint M = 16;          // the device's matrices: M x K times K x N
layout(constant_id = 5) const uint N = 16;
layout(constant_id = 6) const uint K = 16;
layout(constant_id = 7) const uint TILE = 64;       // channels, and pixels, of a workgroup
layout(constant_id = 8) const uint SUBGROUPS = 4;   // two along the channels
layout(constant_id = 9) const uint DEPTH = 32;      // k at a time
layout(constant_id = 10) const uint EACH = 4;       // vec4s of a tile that an invocation loads
#include "matmul.glsl"

const uint ROW = DEPTH / 4 + 2;                     // vec4s, two of them against bank conflicts
const uint BAND = TILE / 2, STRIP = 2 * TILE / SUBGROUPS;  // channels and pixels of a subgroup
const uint DOWN = BAND / M, ACROSS = STRIP / N;
const uint PATCH = M * STRIP / 2;                   // M channels of a subgroup's pixels, as f32

#if DT_F16
const uint SPLIT = 1;
#else
const uint SPLIT = 2;                               // halves of an activation: high, low
#endif
const uint PAIR = (1 + SPLIT) * TILE;               // rows of a set of tiles

// Four halves each. [which][weights, then pixels][row][k/4], and at the end a patch per subgroup.
shared uvec2 tiles[2 * PAIR * ROW];

uvec2 w_next[EACH], x_next[SPLIT * EACH];           // on their way to shared memory
uint x_row[EACH], x_column[EACH];                   // of the pixels that this invocation loads

uint line_of(uint j)
{
    // Invocations side by side read the channels of one row.
    return (gl_LocalInvocationIndex + j * gl_WorkGroupSize.x) / (DEPTH / 4);
}

void find_pixels(uint pixel_first)
{
    [[unroll]] for (uint j = 0; j < EACH; j++) {
        uint pixel = pixel_first + line_of(j);
        x_row[j] = pixel < p.pixels ? pixel / p.w % p.h : 0x7fffffffu;
        x_column[j] = pixel % p.w;
    }
}

// The index of pixel j's neighbour at this tap; false outside the image.
bool neighbour(uint pixel, uint j, uint tap, out uint at)
{
    at = pixel;
    if (SIDE == 1)
        return at < p.pixels;
    uint dy = tap / 3, dx = tap % 3;
    at += dy * p.w + dx - p.w - 1;
    return x_row[j] + dy - 1 < p.h && x_column[j] + dx - 1 < p.w;
}

#if DT_F16
void fetch_x(uint j, uint at) { x_next[j] = LOAD_HALVES(x, at); }
vec4 unscaled(vec4 v, uint line) { return v; }
#else
shared uint exponents[TILE];                        // of each pixel's factor, as f32 has them
float factor[EACH];                                 // of the pixels that this invocation loads

void fetch_x(uint j, uint at)
{
    vec4 v = LOAD(x, at) * factor[j];
    x_next[j] = pack_half4(v);
    x_next[EACH + j] = pack_half4(v - unpack4(x_next[j]));
}

vec4 unscaled(vec4 v, uint line) { return v * uintBitsToFloat((254 - exponents[line]) << 23); }

// The factor follows from the largest of all k, so that it is the same for every tile of a sum. What
// is not finite keeps a factor of 1, and zeros any.
void find_factors(uint pixel_first)
{
    uint mine = gl_LocalInvocationIndex % (DEPTH / 4);
    for (uint i = gl_LocalInvocationIndex; i < TILE; i += gl_WorkGroupSize.x)
        exponents[i] = 0;
    barrier();
    for (uint j = 0; j < EACH; j++) {
        uint pixel = pixel_first + line_of(j), top = 0;
        for (uint k = mine; k < p.k4 && pixel < p.pixels; k += DEPTH / 4) {
            // Of numbers without a sign, the order is that of their bits.
            uvec4 u = floatBitsToUint(LOAD(x, p.x.base + pixel * p.x.cs + k)) & 0x7fffffffu;
            top = max(max(top, max(u.x, u.y)), max(u.z, u.w));
        }
        atomicMax(exponents[line_of(j)], top);
    }
    barrier();
    for (uint i = gl_LocalInvocationIndex; i < TILE; i += gl_WorkGroupSize.x) {
        uint e = exponents[i] >> 23;
        exponents[i] = e == 255 ? 127 : min(268 - e, 253);
    }
    barrier();
    [[unroll]] for (uint j = 0; j < EACH; j++)
        factor[j] = uintBitsToFloat(exponents[line_of(j)] << 23);
}
#endif

void fetch(uint m_first, uint pixel_first, uint tap, uint k0)
{
    uint k = k0 + gl_LocalInvocationIndex % (DEPTH / 4);
    [[unroll]] for (uint j = 0; j < EACH; j++) {
        uint m = m_first + line_of(j), at;
        w_next[j] = uvec2(0);
        [[unroll]] for (uint s = 0; s < SPLIT; s++)
            x_next[s * EACH + j] = uvec2(0);
        if (k < p.k4 && m < 4 * p.m4)
            w_next[j] = LOAD_WEIGHT_HALVES(weight, (m * SIDE * SIDE + tap) * p.k4 + k);
        if (k < p.k4 && neighbour(pixel_first + line_of(j), j, tap, at))
            fetch_x(j, p.x.base + at * p.x.cs + k);
    }
}

void put(uint which)
{
    uint k = gl_LocalInvocationIndex % (DEPTH / 4), first = which * (PAIR * ROW) + k;
    [[unroll]] for (uint j = 0; j < EACH; j++) {
        tiles[first + line_of(j) * ROW] = w_next[j];
        [[unroll]] for (uint s = 0; s < SPLIT; s++)
            tiles[first + ((1 + s) * TILE + line_of(j)) * ROW] = x_next[s * EACH + j];
    }
}

void main()
{
    READ_PUSH();
    uint m_first = gl_WorkGroupID.x * TILE, pixel_first = gl_WorkGroupID.y * TILE;
    uint m_mine = gl_SubgroupID % 2 * BAND, pixel_mine = gl_SubgroupID / 2 * STRIP;
    coopmat<float, gl_ScopeSubgroup, M, N, gl_MatrixUseAccumulator> acc[DOWN * ACROSS];
    [[unroll]] for (uint i = 0; i < DOWN * ACROSS; i++)
        acc[i] = coopmat<float, gl_ScopeSubgroup, M, N, gl_MatrixUseAccumulator>(0);

    uint which = 0, tap = 0, k0 = 0;
    find_pixels(pixel_first);
#if !DT_F16
    find_factors(pixel_first);
#endif
    fetch(m_first, pixel_first, 0, 0);
    put(0);
    barrier();
    while (tap < SIDE * SIDE) {
        k0 += DEPTH / 4;
        if (k0 >= p.k4) {
            k0 = 0;
            tap++;
        }
        if (tap < SIDE * SIDE)
            fetch(m_first, pixel_first, tap, k0);
        uint w_first = (which * PAIR + m_mine) * ROW;
        uint x_first = (which * PAIR + TILE + pixel_mine) * ROW;
        for (uint k = 0; k < DEPTH; k += K) {
            coopmat<float16_t, gl_ScopeSubgroup, M, K, gl_MatrixUseA> a[DOWN];
            [[unroll]] for (uint i = 0; i < DOWN; i++)
                coopMatLoad(a[i], tiles, w_first + i * M * ROW + k / 4, ROW,
                            gl_CooperativeMatrixLayoutRowMajor);
            [[unroll]] for (uint s = 0; s < SPLIT; s++)
                [[unroll]] for (uint j = 0; j < ACROSS; j++) {
                    coopmat<float16_t, gl_ScopeSubgroup, K, N, gl_MatrixUseB> b;
                    coopMatLoad(b, tiles, x_first + (s * TILE + j * N) * ROW + k / 4, ROW,
                                gl_CooperativeMatrixLayoutColumnMajor);
                    [[unroll]] for (uint i = 0; i < DOWN; i++)
                        acc[i * ACROSS + j] = coopMatMulAdd(a[i], b, acc[i * ACROSS + j]);
                }
        }
        which ^= 1;
        if (tap < SIDE * SIDE)
            put(which);
        barrier();
    }

    // Where an invocation's elements of a matrix lie is the driver's secret: each goes through
    // shared memory, four channels of a pixel side by side.
    [[unroll]] for (uint i = 0; i < DOWN; i++) {
        [[unroll]] for (uint j = 0; j < ACROSS; j++)
            coopMatStore(acc[i * ACROSS + j], tiles, gl_SubgroupID * PATCH + j * N * M / 2, M / 2,
                         gl_CooperativeMatrixLayoutColumnMajor);
        barrier();
        for (uint e = gl_SubgroupInvocationID; e < PATCH / 2; e += gl_SubgroupSize) {
            uint at = gl_SubgroupID * PATCH + 2 * e;
            uint line = pixel_mine + e / (M / 4), pixel = pixel_first + line;
            uint m = (m_first + m_mine + i * M) / 4 + e % (M / 4);
            vec4 v = uintBitsToFloat(uvec4(tiles[at], tiles[at + 1]));
            if (pixel < p.pixels && m < p.m4)
                finish(bias.v[m] + unscaled(v, line), pixel, m);
        }
        barrier();
    }
}
