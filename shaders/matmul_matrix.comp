// Linear layers and 3x3 convolutions on matrix units: a workgroup computes CHANNELS output channels of
// PIXELS pixels from tiles of halves in shared memory, a subgroup BAND channels of STRIP pixels. While
// a set of tiles is multiplied, the next comes from memory and waits in registers.
// SHARES parts of a workgroup have tiles and sums of their own and take turns at the steps of DEPTH
// inputs: for maps with too few pixels to keep a GPU busy. Their sums are added in order at the end.
// Sums are f32; within a share they run over taps, then channels in steps of K, wherever an element
// lies in the tile, and whatever the tile's size. Pixels of all samples are one row.
// docs/architecture.md estimates registers and occupancy.
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

layout(local_size_x_id = 0) in;                     // SHARES * SUBGROUPS subgroups
layout(constant_id = 1) const uint SIDE = 1;        // of the convolution kernel, 1 or 3
layout(constant_id = 2) const uint ACT = 0;
layout(constant_id = 3) const uint PARTS = 0;
layout(constant_id = 4) const uint M = 16;          // the device's matrices: M x K times K x N
layout(constant_id = 5) const uint N = 16;
layout(constant_id = 6) const uint K = 16;
layout(constant_id = 7) const uint CHANNELS = 64;   // of a workgroup
layout(constant_id = 8) const uint PIXELS = 64;     // likewise
layout(constant_id = 9) const uint SUBGROUPS = 4;   // of a share
layout(constant_id = 10) const uint ALONG = 2;      // of these, along the channels
layout(constant_id = 11) const uint SHARES = 1;
layout(constant_id = 12) const uint SETS = 2;       // of tiles: 1, or 2 with one barrier per step
layout(constant_id = 13) const uint DEPTH = 32;     // inputs of a step
layout(constant_id = 14) const uint EACH_W = 2;     // uvec4s of weights that an invocation loads
layout(constant_id = 15) const uint EACH_X = 2;     // likewise of pixels
layout(constant_id = 16) const bool EIGHT = false;  // eight halves lie at multiples of 16 bytes
layout(constant_id = 17) const bool WHOLE = false;  // the inputs fill the steps of every share
#include "matmul.glsl"

const uint BAND = CHANNELS / ALONG, STRIP = PIXELS * ALONG / SUBGROUPS; // of a subgroup
const uint DOWN = BAND / M, ACROSS = STRIP / N;
const uint STEP = DEPTH / 4;                        // vec4s of inputs
const uint EIGHTS = DEPTH / 8;                      // of a line of a tile
const uint ROW = EIGHTS + 1;                        // one against bank conflicts
const uint PATCH = M * STRIP / 4;                   // vec4s: M channels of a subgroup's pixels
const uint OUTSIDE = 0xffffffffu;

#if DT_F16
const uint SPLIT = 1;
#else
const uint SPLIT = 2;                               // halves of an activation: high, low
#endif
const uint LINES = CHANNELS + SPLIT * PIXELS;       // of a share's set of tiles

// Eight halves each. [set][share][weights, then pixels][row][k/8]; at the end a patch per subgroup.
const uint TILES = SETS * SHARES * LINES * ROW, PATCHES = SHARES * SUBGROUPS * PATCH;
shared uvec4 tiles[TILES > PATCHES ? TILES : PATCHES];

#if DT_F16
layout(std430, binding = 0) readonly buffer x8_block { uvec4 v[]; } x8;
#endif
#if WT == WT_F16
layout(std430, binding = 1) readonly buffer weight8_block { uvec4 v[]; } weight8;
#endif

uint share, member, members;                        // this invocation among those of its share
uint tap, k0;                                       // of its next step
uint w_at[EACH_W], x_at[EACH_X];                    // where its lines begin in memory
uint x_row[EACH_X], x_column[EACH_X];               // of the pixels that it loads
uvec4 w_next[EACH_W], x_next[SPLIT * EACH_X];       // on their way to shared memory

uint line_of(uint j)
{
    // Invocations side by side read the channels of one row.
    return (member + j * members) / EIGHTS;
}

// Finds the neighbors of the pixels at this tap.
void turn(uint pixel_first)
{
    [[unroll]] for (uint j = 0; j < EACH_X; j++) {
        uint dy = tap / 3, dx = tap % 3, at = pixel_first + line_of(j) + dy * p.w + dx - p.w - 1;
        bool inside = x_row[j] + dy - 1 < p.h && x_column[j] + dx - 1 < p.w;
        x_at[j] = inside ? p.x.base + at * p.x.cs : OUTSIDE;
    }
}

// Results outside the map are not stored: any line will do in place of one that is not there.
void find_lines(uint m_first, uint pixel_first)
{
    [[unroll]] for (uint j = 0; j < EACH_W; j++)
        w_at[j] = min(m_first + line_of(j), 4 * p.m4 - 1) * SIDE * SIDE * p.k4;
    [[unroll]] for (uint j = 0; j < EACH_X; j++) {
        uint pixel = pixel_first + line_of(j);
        x_at[j] = p.x.base + min(pixel, p.pixels - 1) * p.x.cs;
        x_row[j] = pixel < p.pixels ? pixel / p.w % p.h : 0x7fffffffu;
        x_column[j] = pixel % p.w;
    }
}

uvec4 load_weights(uint at, bool second)
{
#if WT == WT_F16
    if (EIGHT)
        return weight8.v[at / 2];
#endif
    return uvec4(LOAD_WEIGHT_HALVES(weight, at),
                 second ? LOAD_WEIGHT_HALVES(weight, at + 1) : uvec2(0));
}

#if DT_F16
void fetch_x(uint j, uint at, bool second)
{
    x_next[j] = EIGHT ? x8.v[at / 2]
                      : uvec4(LOAD_HALVES(x, at), second ? LOAD_HALVES(x, at + 1) : uvec2(0));
}
vec4 unscaled(vec4 v, uint line) { return v; }
#else
shared uint exponents[PIXELS];                      // of each pixel's factor, as f32 has them
float factor[EACH_X];                               // of the pixels that this invocation loads

void fetch_x(uint j, uint at, bool second)
{
    vec4 a = LOAD(x, at) * factor[j], b = second ? LOAD(x, at + 1) * factor[j] : vec4(0);
    uvec4 high = uvec4(pack_half4(a), pack_half4(b));
    x_next[j] = high;
    x_next[EACH_X + j] = uvec4(pack_half4(a - unpack4(high.xy)), pack_half4(b - unpack4(high.zw)));
}

vec4 unscaled(vec4 v, uint line) { return v * uintBitsToFloat((254 - exponents[line]) << 23); }

// The factor follows from the largest of all k, so that it is the same for every tile of a sum. What
// is not finite keeps a factor of 1, and zeros any.
void find_factors(uint pixel_first)
{
    for (uint i = gl_LocalInvocationIndex; i < PIXELS; i += gl_WorkGroupSize.x)
        exponents[i] = 0;
    barrier();
    for (uint i = gl_LocalInvocationIndex; i < PIXELS * EIGHTS; i += gl_WorkGroupSize.x) {
        uint pixel = pixel_first + i / EIGHTS, top = 0;
        for (uint k = i % EIGHTS; k < p.k4 && pixel < p.pixels; k += EIGHTS) {
            // Of numbers without a sign, the order is that of their bits.
            uvec4 u = floatBitsToUint(LOAD(x, p.x.base + pixel * p.x.cs + k)) & 0x7fffffffu;
            top = max(max(top, max(u.x, u.y)), max(u.z, u.w));
        }
        atomicMax(exponents[i / EIGHTS], top);
    }
    barrier();
    for (uint i = gl_LocalInvocationIndex; i < PIXELS; i += gl_WorkGroupSize.x) {
        uint e = exponents[i] >> 23;
        exponents[i] = e == 255 ? 127 : min(268 - e, 253);
    }
    barrier();
    [[unroll]] for (uint j = 0; j < EACH_X; j++)
        factor[j] = uintBitsToFloat(exponents[line_of(j)] << 23);
}
#endif

void fetch()
{
    uint k = k0 + member % EIGHTS * 2;
    bool first = WHOLE || (tap < SIDE * SIDE && k < p.k4), second = WHOLE || k + 1 < p.k4;
    [[unroll]] for (uint j = 0; j < EACH_W; j++) {
        w_next[j] = uvec4(0);
        if (first)
            w_next[j] = load_weights(w_at[j] + tap * p.k4 + k, second);
    }
    [[unroll]] for (uint j = 0; j < EACH_X; j++) {
        [[unroll]] for (uint s = 0; s < SPLIT; s++)
            x_next[s * EACH_X + j] = uvec4(0);
        if (first && x_at[j] != OUTSIDE)
            fetch_x(j, x_at[j] + k, second);
    }
}

// Moves on by that many steps of the whole sum, of which a share takes every SHARES-th.
void advance(uint by, uint pixel_first)
{
    uint end = (p.k4 + STEP - 1) / STEP * STEP, before = tap;
    k0 += by * STEP;
    while (k0 >= end) {
        k0 -= end;
        tap++;
    }
    if (SIDE > 1 && tap != before)
        turn(pixel_first);
}

void put(uint set)
{
    uint first = (set * SHARES + share) * LINES * ROW + member % EIGHTS;
    [[unroll]] for (uint j = 0; j < EACH_W; j++)
        tiles[first + line_of(j) * ROW] = w_next[j];
    [[unroll]] for (uint s = 0; s < SPLIT; s++)
        [[unroll]] for (uint j = 0; j < EACH_X; j++)
            tiles[first + (CHANNELS + s * PIXELS + line_of(j)) * ROW] = x_next[s * EACH_X + j];
}

void main()
{
    READ_PUSH();
    uint m_first = gl_WorkGroupID.x * CHANNELS, pixel_first = gl_WorkGroupID.y * PIXELS;
    uint mine = gl_SubgroupID % SUBGROUPS, lines = gl_SubgroupID / SUBGROUPS * LINES;
    uint m_mine = mine % ALONG * BAND, pixel_mine = mine / ALONG * STRIP;
    members = gl_WorkGroupSize.x / SHARES;
    share = gl_LocalInvocationIndex / members;
    member = gl_LocalInvocationIndex % members;
    coopmat<float, gl_ScopeSubgroup, M, N, gl_MatrixUseAccumulator> acc[DOWN * ACROSS];
    [[unroll]] for (uint i = 0; i < DOWN * ACROSS; i++)
        acc[i] = coopmat<float, gl_ScopeSubgroup, M, N, gl_MatrixUseAccumulator>(0);

    uint set = 0, steps = (SIDE * SIDE * ((p.k4 + STEP - 1) / STEP) + SHARES - 1) / SHARES;
    find_lines(m_first, pixel_first);
#if !DT_F16
    find_factors(pixel_first);
#endif
    tap = k0 = 0;
    if (SIDE > 1)
        turn(pixel_first);
    advance(share, pixel_first);
    fetch();
    put(0);
    barrier();
    for (uint step = 1; step <= steps; step++) {
        if (step < steps) {
            advance(SHARES, pixel_first);
            fetch();
        }
        uint w_first = (set * SHARES * LINES + lines + m_mine) * ROW;
        uint x_first = (set * SHARES * LINES + lines + CHANNELS + pixel_mine) * ROW;
        for (uint k = 0; k < EIGHTS; k += K / 8) {
            coopmat<float16_t, gl_ScopeSubgroup, M, K, gl_MatrixUseA> a[DOWN];
            [[unroll]] for (uint i = 0; i < DOWN; i++)
                coopMatLoad(a[i], tiles, w_first + i * M * ROW + k, ROW,
                            gl_CooperativeMatrixLayoutRowMajor);
            [[unroll]] for (uint s = 0; s < SPLIT; s++)
                [[unroll]] for (uint j = 0; j < ACROSS; j++) {
                    coopmat<float16_t, gl_ScopeSubgroup, K, N, gl_MatrixUseB> b;
                    coopMatLoad(b, tiles, x_first + (s * PIXELS + j * N) * ROW + k, ROW,
                                gl_CooperativeMatrixLayoutColumnMajor);
                    [[unroll]] for (uint i = 0; i < DOWN; i++)
                        acc[i * ACROSS + j] = coopMatMulAdd(a[i], b, acc[i * ACROSS + j]);
                }
        }
        if (SETS == 1)
            barrier();
        set = SETS - 1 - set;
        if (step < steps)
            put(set);
        barrier();
    }

    // Where an invocation's elements of a matrix lie is the driver's secret: each goes through
    // shared memory, four channels of a pixel side by side.
    [[unroll]] for (uint i = 0; i < DOWN; i++) {
        [[unroll]] for (uint j = 0; j < ACROSS; j++)
            coopMatStore(acc[i * ACROSS + j], tiles, gl_SubgroupID * PATCH + j * N * M / 4, M / 4,
                         gl_CooperativeMatrixLayoutColumnMajor);
        barrier();
        uint first = gl_SubgroupID / SUBGROUPS * gl_SubgroupSize + gl_SubgroupInvocationID;
        for (uint e = first; e < PATCH; e += SHARES * gl_SubgroupSize) {
            uint line = pixel_mine + e / (M / 4), pixel = pixel_first + line;
            uint m = (m_first + m_mine + i * M) / 4 + e % (M / 4);
            vec4 v = vec4(0);
            [[unroll]] for (uint s = 0; s < SHARES; s++)
                v += uintBitsToFloat(tiles[(s * SUBGROUPS + mine) * PATCH + e]);
            if (pixel < p.pixels && m < p.m4)
                finish(bias.v[m] + unscaled(v, line), pixel, m);
        }
        barrier();
    }
}
