// Attention with an online softmax on matrix units: a workgroup of four subgroups holds QUERIES
// queries of one head, a subgroup ROWS of them; keys and values go through shared memory, a block at
// a time, and while a block is used the next comes from memory and waits in registers. The scores
// of its queries are a subgroup's own business, which the others do not wait for.
// Scores, their largest, totals and results are f32. The weights of a block are halves, as the units
// take them: SCALE times larger, so that small ones keep their digits, and added up as they were
// rounded, so that they sum to 1. Keys of both segments are one row.
// Grid: x blocks of queries, y heads, z samples.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_shuffle : require
#include "push.h"
#include "types.glsl"
#include "attention.glsl"

layout(local_size_x_id = 0) in;             // four subgroups
layout(constant_id = 1) const uint D4 = 16;     // vec4s of a head
layout(constant_id = 2) const uint D = 64;      // channels of a head, padded to whole matrices
layout(constant_id = 3) const uint KEYS = 32;   // keys at a time
layout(constant_id = 4) const uint PARTS = 0;
layout(constant_id = 5) const uint M = 16;      // the device's matrices: M x K times K x N
layout(constant_id = 6) const uint N = 16;
layout(constant_id = 7) const uint K = 16;
layout(constant_id = 8) const uint ROWS = 16;   // queries of a subgroup
layout(constant_id = 9) const uint LANES = 2;   // invocations that share the scores of a query
layout(constant_id = 10) const uint EACH = 1;   // queries whose scores an invocation has
layout(constant_id = 11) const uint FETCHES = 2;    // uvec4s of keys that it loads
layout(constant_id = 12) const bool EIGHT = false;  // eight halves lie at multiples of 16 bytes

const uint QUERIES = 4 * ROWS;
const uint DOWN = ROWS / M;                     // matrices of a subgroup's queries
const uint EIGHTS = D / 8, LINE = EIGHTS + 1;   // eight halves each, one against bank conflicts
const uint SCORES = KEYS / 4 + 2, WEIGHTS = KEYS / 8 + 1;   // of a query, in uvec4s
const uint HELD = (KEYS / 8 + LANES - 1) / LANES;   // of a query's eights, that an invocation has
const uint TILE = (QUERIES > 2 * KEYS ? QUERIES : 2 * KEYS) * LINE;
const uint PATCH = ROWS * SCORES;               // of a subgroup: first scores, then weights
const uint KEEPS = ROWS * N / 4;
const float SCALE = 4096;

shared uvec4 tile[TILE];                        // first the queries; then KEYS keys, KEYS values
shared uvec4 patches[4 * PATCH];
shared vec4 keeps[4 * KEEPS];                   // a query's factor of earlier sums, N times

layout(std430, binding = 0) readonly buffer q8_block { uvec4 v[]; } q8;
layout(std430, binding = 1) readonly buffer k0_8_block { uvec4 v[]; } k0_8;
layout(std430, binding = 2) readonly buffer v0_8_block { uvec4 v[]; } v0_8;
layout(std430, binding = 3) readonly buffer k1_8_block { uvec4 v[]; } k1_8;
layout(std430, binding = 4) readonly buffer v1_8_block { uvec4 v[]; } v1_8;

// Eight halves from vec4 `at` on; where they do not lie so, the second four only if they count.
#define LOAD_EIGHT(name, wide, at, second)                                                         \
    (EIGHT ? wide.v[(at) / 2]                                                                      \
           : uvec4(LOAD_HALVES(name, at), second ? LOAD_HALVES(name, (at) + 1) : uvec2(0)))

uvec4 k_next[FETCHES], v_next[FETCHES];         // on their way to shared memory
float highest[EACH], total[EACH];               // total: of the columns that this invocation has

// The line of a subgroup's patch whose scores this invocation has.
uint line_of(uint e) { return (gl_SubgroupInvocationID + e * gl_SubgroupSize) / LANES; }

void load_queries(uint n, uint query_first)
{
    for (uint i = gl_LocalInvocationIndex; i < QUERIES * EIGHTS; i += gl_WorkGroupSize.x) {
        uint line = i / EIGHTS, c = i % EIGHTS * 2, query = query_first + line;
        uint at = p.q.base + (n * p.queries + query) * p.q.cs + gl_WorkGroupID.y * D4 + c;
        uvec4 v = uvec4(0);
        if (query < p.queries && c < D4)
            v = LOAD_EIGHT(q, q8, at, c + 1 < D4);
        tile[line * LINE + i % EIGHTS] = v;
    }
}

void fetch(uint key_first, uint keys, uint first0, uint first1)
{
    [[unroll]] for (uint j = 0; j < FETCHES; j++) {
        uint i = gl_LocalInvocationIndex + j * gl_WorkGroupSize.x;
        uint c = i % EIGHTS * 2, key = key_first + i / EIGHTS, at = gl_WorkGroupID.y * D4 + c;
        k_next[j] = v_next[j] = uvec4(0);
        if (i < KEYS * EIGHTS && key < keys && c < D4) {
            bool second = c + 1 < D4;
            if ((PARTS & ATTENTION_SECOND) != 0 && key >= p.keys0) {
                uint pixel = first1 + key - p.keys0;
                uint k_at = p.k1.base + pixel * p.k1.cs + at, v_at = p.v1.base + pixel * p.v1.cs + at;
                k_next[j] = LOAD_EIGHT(k1, k1_8, k_at, second);
                v_next[j] = LOAD_EIGHT(v1, v1_8, v_at, second);
            } else {
                uint pixel = first0 + key;
                uint k_at = p.k0.base + pixel * p.k0.cs + at, v_at = p.v0.base + pixel * p.v0.cs + at;
                k_next[j] = LOAD_EIGHT(k0, k0_8, k_at, second);
                v_next[j] = LOAD_EIGHT(v0, v0_8, v_at, second);
            }
        }
    }
}

void put()
{
    [[unroll]] for (uint j = 0; j < FETCHES; j++) {
        uint i = gl_LocalInvocationIndex + j * gl_WorkGroupSize.x;
        if (i < KEYS * EIGHTS) {
            tile[i / EIGHTS * LINE + i % EIGHTS] = k_next[j];
            tile[(KEYS + i / EIGHTS) * LINE + i % EIGHTS] = v_next[j];
        }
    }
}

// A score as the softmax takes it; NEVER where the key does not count.
float score_of(float product, uint n, uint query, uint key, uint keys)
{
    bool on = key < keys;
    if ((PARTS & ATTENTION_VALID) != 0 && key < p.keys0)
        on = on && is_valid(n, key);
    float s = product * p.scale;
    if ((PARTS & ATTENTION_BIAS) != 0 && on)
        s += bias_at(min(query, p.queries - 1), key, gl_WorkGroupID.y);
    return on ? s : NEVER;
}

// Four halves and, in sum, what they are.
uvec2 weights_of(vec4 s, float top, inout float sum)
{
    vec4 w = mix(vec4(0), exp(s - top) * SCALE, greaterThan(s, vec4(NEVER)));
    uvec2 halves = uvec2(packHalf2x16(w.xy), packHalf2x16(w.zw));
    w = unpack4(halves);
    sum += (w.x + w.y) + (w.z + w.w);
    return halves;
}

// Scores of a block become weights in the same place; highest and total follow.
void weigh(uint n, uint query_first, uint key_first, uint keys)
{
    uint lane = gl_SubgroupInvocationID % LANES, patch_first = gl_SubgroupID * PATCH;
    vec4 s[EACH * 2 * HELD];
    [[unroll]] for (uint e = 0; e < EACH; e++) {
        [[unroll]] for (uint h = 0; h < 2 * HELD; h++) {
            uint c = (lane + h / 2 * LANES) * 2 + h % 2;
            vec4 v = vec4(NEVER);
            if (c < KEYS / 4)
                v = uintBitsToFloat(patches[patch_first + line_of(e) * SCORES + c]);
            uint query = query_first + gl_SubgroupID * ROWS + line_of(e), key = key_first + 4 * c;
            [[unroll]] for (uint i = 0; i < 4; i++)
                v[i] = c < KEYS / 4 ? score_of(v[i], n, query, key + i, keys) : NEVER;
            s[e * 2 * HELD + h] = v;
        }
    }
    subgroupBarrier();
    [[unroll]] for (uint e = 0; e < EACH; e++) {
        float top = highest[e];
        [[unroll]] for (uint h = 0; h < 2 * HELD; h++) {
            vec4 v = s[e * 2 * HELD + h];
            top = max(top, max(max(v.x, v.y), max(v.z, v.w)));
        }
        [[unroll]] for (uint i = 1; i < LANES; i *= 2)
            top = max(top, subgroupShuffleXor(top, i));
        float keep = exp(highest[e] - top), sum = total[e] * keep;
        highest[e] = top;
        [[unroll]] for (uint h = 0; h < HELD; h++) {
            uint c = lane + h * LANES;
            uvec2 low = weights_of(s[(e * HELD + h) * 2], top, sum);
            uvec2 high = weights_of(s[(e * HELD + h) * 2 + 1], top, sum);
            if (c < KEYS / 8)
                patches[patch_first + line_of(e) * WEIGHTS + c] = uvec4(low, high);
        }
        total[e] = sum;
        for (uint c = lane; c < N / 4; c += LANES)
            keeps[gl_SubgroupID * KEEPS + line_of(e) * (N / 4) + c] = vec4(keep);
    }
}

// What its results are to be multiplied by, for every query.
void share_totals()
{
    [[unroll]] for (uint e = 0; e < EACH; e++) {
        float sum = total[e];
        [[unroll]] for (uint i = 1; i < LANES; i *= 2)
            sum += subgroupShuffleXor(sum, i);
        if (gl_SubgroupInvocationID % LANES == 0)
            keeps[gl_SubgroupID * KEEPS + line_of(e) * (N / 4)] = vec4(sum > 0 ? 1 / sum : 0);
    }
}

// KEYS channels of the subgroup's queries, which lie in its patch, from channel `first` of the head.
void store(uint n, uint query_first, uint first)
{
    for (uint i = gl_SubgroupInvocationID; i < ROWS * (KEYS / 4); i += gl_SubgroupSize) {
        uint line = i / (KEYS / 4), c = i % (KEYS / 4);
        uint query = query_first + gl_SubgroupID * ROWS + line;
        if (query < p.queries && first / 4 + c < D4)
            STORE(y, p.y.base + (n * p.queries + query) * p.y.cs + gl_WorkGroupID.y * D4 +
                         first / 4 + c,
                  uintBitsToFloat(patches[gl_SubgroupID * PATCH + line * SCORES + c]) *
                      keeps[gl_SubgroupID * KEEPS + line * (N / 4)]);
    }
}

void main()
{
    READ_PUSH();
    uint n = gl_WorkGroupID.z, query_first = gl_WorkGroupID.x * QUERIES;
    uint mine = gl_SubgroupID * ROWS, patch_first = gl_SubgroupID * PATCH;
    uint keys = p.keys0, first0 = first_key0(n, PARTS), first1 = 0;
    if ((PARTS & ATTENTION_SECOND) != 0) {
        first1 = first_key1(n, PARTS);
        keys += p.keys1;
    }
    coopmat<float16_t, gl_ScopeSubgroup, M, K, gl_MatrixUseA> qs[DOWN * (D / K)];
    coopmat<float, gl_ScopeSubgroup, M, N, gl_MatrixUseAccumulator> sum[DOWN * (D / N)];
    fetch(0, keys, first0, first1);
    load_queries(n, query_first);
    barrier();
    [[unroll]] for (uint i = 0; i < DOWN; i++)
        [[unroll]] for (uint d = 0; d < D / K; d++)
            coopMatLoad(qs[i * (D / K) + d], tile, (mine + i * M) * LINE + d * K / 8, LINE,
                        gl_CooperativeMatrixLayoutRowMajor);
    [[unroll]] for (uint i = 0; i < DOWN * (D / N); i++)
        sum[i] = coopmat<float, gl_ScopeSubgroup, M, N, gl_MatrixUseAccumulator>(0);
    [[unroll]] for (uint e = 0; e < EACH; e++) {
        highest[e] = NEVER;
        total[e] = 0;
    }

    for (uint j = 0; j < keys; j += KEYS) {
        barrier();
        put();
        barrier();
        if (j + KEYS < keys)
            fetch(j + KEYS, keys, first0, first1);
        for (uint k = 0; k < KEYS / N; k++) {
            coopmat<float, gl_ScopeSubgroup, M, N, gl_MatrixUseAccumulator> s[DOWN];
            [[unroll]] for (uint i = 0; i < DOWN; i++)
                s[i] = coopmat<float, gl_ScopeSubgroup, M, N, gl_MatrixUseAccumulator>(0);
            [[unroll]] for (uint d = 0; d < D / K; d++) {
                coopmat<float16_t, gl_ScopeSubgroup, K, N, gl_MatrixUseB> b;
                coopMatLoad(b, tile, k * N * LINE + d * K / 8, LINE,
                            gl_CooperativeMatrixLayoutColumnMajor);
                [[unroll]] for (uint i = 0; i < DOWN; i++)
                    s[i] = coopMatMulAdd(qs[i * (D / K) + d], b, s[i]);
            }
            [[unroll]] for (uint i = 0; i < DOWN; i++)
                coopMatStore(s[i], patches, patch_first + i * M * SCORES + k * N / 4, SCORES,
                             gl_CooperativeMatrixLayoutRowMajor);
        }
        subgroupBarrier();
        weigh(n, query_first, j, keys);
        subgroupBarrier();
        [[unroll]] for (uint i = 0; i < DOWN; i++) {
            coopmat<float, gl_ScopeSubgroup, M, N, gl_MatrixUseAccumulator> keep;
            coopMatLoad(keep, keeps, gl_SubgroupID * KEEPS + i * M * N / 4, N / 4,
                        gl_CooperativeMatrixLayoutRowMajor);
            [[unroll]] for (uint d = 0; d < D / N; d++)
                sum[i * (D / N) + d] = sum[i * (D / N) + d] * keep;
        }
        for (uint k = 0; k < KEYS / K; k++) {
            coopmat<float16_t, gl_ScopeSubgroup, M, K, gl_MatrixUseA> a[DOWN];
            [[unroll]] for (uint i = 0; i < DOWN; i++)
                coopMatLoad(a[i], patches, patch_first + i * M * WEIGHTS + k * K / 8, WEIGHTS,
                            gl_CooperativeMatrixLayoutRowMajor);
            [[unroll]] for (uint d = 0; d < D / N; d++) {
                coopmat<float16_t, gl_ScopeSubgroup, K, N, gl_MatrixUseB> b;
                coopMatLoad(b, tile, (KEYS + k * K) * LINE + d * N / 8, LINE,
                            gl_CooperativeMatrixLayoutRowMajor);
                [[unroll]] for (uint i = 0; i < DOWN; i++)
                    sum[i * (D / N) + d] = coopMatMulAdd(a[i], b, sum[i * (D / N) + d]);
            }
        }
    }

    subgroupBarrier(); // keeps has been read
    share_totals();
    for (uint first = 0; first < D; first += KEYS) {
        subgroupBarrier();
        [[unroll]] for (uint d = 0; d < D / N; d++)
            if (d * N >= first && d * N < first + KEYS)
                [[unroll]] for (uint i = 0; i < DOWN; i++)
                    coopMatStore(sum[i * (D / N) + d], patches,
                                 patch_first + i * M * SCORES + (d * N - first) / 4, SCORES,
                                 gl_CooperativeMatrixLayoutRowMajor);
        subgroupBarrier();
        store(n, query_first, first);
    }
}
