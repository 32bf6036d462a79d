// Attention with an online softmax on matrix units: a workgroup of four subgroups holds 64 queries
// of one head, a subgroup 16 of them; keys and values go through shared memory, a block at a time.
// Scores, their largest, totals and results are f32. The weights of a block are halves, as the units
// take them: SCALE times larger, so that small ones keep their digits, and rounded before they are
// added up, so that they sum to 1. Keys of both segments are one row.
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
layout(constant_id = 8) const uint LANES = 2;   // invocations that share the scores of a query
layout(constant_id = 9) const uint EACH = 1;    // queries whose scores an invocation has

const uint QUERIES = 64, ROWS = 16;             // of a workgroup, of a subgroup
const uint DOWN = ROWS / M;                     // matrices of a subgroup's queries
const uint LINE = D / 4 + 2;                    // four halves each, two against bank conflicts
const uint SCORES = KEYS + 4, WEIGHTS = KEYS + 8;
const float SCALE = 4096;

shared uvec2 tile[QUERIES * LINE];              // first the queries; then KEYS keys, KEYS values
shared float scores[QUERIES * SCORES];
shared float16_t weights[QUERIES * WEIGHTS];
shared float keeps[QUERIES * N];                // a query's factor of earlier sums, N times
float highest[EACH], total[EACH];               // total: of the columns that this invocation has

void load_queries(uint n, uint query_first)
{
    for (uint i = gl_LocalInvocationIndex; i < QUERIES * (D / 4); i += gl_WorkGroupSize.x) {
        uint line = i / (D / 4), c = i % (D / 4), query = query_first + line;
        uvec2 v = uvec2(0);
        if (query < p.queries && c < D4)
            v = LOAD_HALVES(q, p.q.base + (n * p.queries + query) * p.q.cs +
                                   gl_WorkGroupID.y * D4 + c);
        tile[line * LINE + c] = v;
    }
}

void load_keys(uint key_first, uint keys, uint first0, uint first1)
{
    for (uint i = gl_LocalInvocationIndex; i < KEYS * (D / 4); i += gl_WorkGroupSize.x) {
        uint line = i / (D / 4), c = i % (D / 4), key = key_first + line;
        uint at = gl_WorkGroupID.y * D4 + c;
        uvec2 kv = uvec2(0), vv = uvec2(0);
        if (key < keys && c < D4) {
            if ((PARTS & ATTENTION_SECOND) != 0 && key >= p.keys0) {
                uint pixel = first1 + key - p.keys0;
                kv = LOAD_HALVES(k1, p.k1.base + pixel * p.k1.cs + at);
                vv = LOAD_HALVES(v1, p.v1.base + pixel * p.v1.cs + at);
            } else {
                uint pixel = first0 + key;
                kv = LOAD_HALVES(k0, p.k0.base + pixel * p.k0.cs + at);
                vv = LOAD_HALVES(v0, p.v0.base + pixel * p.v0.cs + at);
            }
        }
        tile[line * LINE + c] = kv;
        tile[(KEYS + line) * LINE + c] = vv;
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

// Scores of a block become weights; highest and total follow.
void weigh(uint n, uint query_first, uint key_first, uint keys)
{
    uint lane = gl_LocalInvocationIndex % LANES;
    [[unroll]] for (uint e = 0; e < EACH; e++) {
        uint line = (gl_LocalInvocationIndex + e * gl_WorkGroupSize.x) / LANES;
        float top = highest[e];
        for (uint c = lane; c < KEYS; c += LANES) {
            float s = score_of(scores[line * SCORES + c], n, query_first + line, key_first + c,
                               keys);
            scores[line * SCORES + c] = s;
            top = max(top, s);
        }
        [[unroll]] for (uint i = 1; i < LANES; i *= 2)
            top = max(top, subgroupShuffleXor(top, i));
        float keep = exp(highest[e] - top), sum = total[e] * keep;
        highest[e] = top;
        for (uint c = lane; c < KEYS; c += LANES) {
            float s = scores[line * SCORES + c];
            float w = s > NEVER ? exp(s - top) * SCALE : 0;
            w = uintBitsToFloat(round_half_bits(floatBitsToUint(w)));
            weights[line * WEIGHTS + c] = float16_t(w);
            sum += w;
        }
        total[e] = sum;
        for (uint c = lane; c < N; c += LANES)
            keeps[line * N + c] = keep;
    }
}

// What its results are to be multiplied by, for every query.
void share_totals()
{
    [[unroll]] for (uint e = 0; e < EACH; e++) {
        uint line = (gl_LocalInvocationIndex + e * gl_WorkGroupSize.x) / LANES;
        float sum = total[e];
        [[unroll]] for (uint i = 1; i < LANES; i *= 2)
            sum += subgroupShuffleXor(sum, i);
        if (gl_LocalInvocationIndex % LANES == 0)
            keeps[line * N] = sum > 0 ? 1 / sum : 0;
    }
}

// KEYS channels of all queries, which lie in scores, from channel `first` of the head.
void store(uint n, uint query_first, uint first)
{
    for (uint i = gl_LocalInvocationIndex; i < QUERIES * (KEYS / 4); i += gl_WorkGroupSize.x) {
        uint line = i / (KEYS / 4), c = i % (KEYS / 4), query = query_first + line;
        uint at = line * SCORES + 4 * c;
        if (query < p.queries && first / 4 + c < D4)
            STORE(y, p.y.base + (n * p.queries + query) * p.y.cs + gl_WorkGroupID.y * D4 +
                         first / 4 + c,
                  vec4(scores[at], scores[at + 1], scores[at + 2], scores[at + 3]) *
                      keeps[line * N]);
    }
}

void main()
{
    READ_PUSH();
    uint n = gl_WorkGroupID.z, query_first = gl_WorkGroupID.x * QUERIES;
    uint mine = gl_SubgroupID * ROWS, keys = p.keys0, first0 = first_key0(n, PARTS), first1 = 0;
    if ((PARTS & ATTENTION_SECOND) != 0) {
        first1 = first_key1(n, PARTS);
        keys += p.keys1;
    }
    coopmat<float16_t, gl_ScopeSubgroup, M, K, gl_MatrixUseA> qs[DOWN * (D / K)];
    coopmat<float, gl_ScopeSubgroup, M, N, gl_MatrixUseAccumulator> sum[DOWN * (D / N)];
    load_queries(n, query_first);
    barrier();
    [[unroll]] for (uint i = 0; i < DOWN; i++)
        [[unroll]] for (uint d = 0; d < D / K; d++)
            coopMatLoad(qs[i * (D / K) + d], tile, (mine + i * M) * LINE + d * K / 4, LINE,
                        gl_CooperativeMatrixLayoutRowMajor);
    [[unroll]] for (uint i = 0; i < DOWN * (D / N); i++)
        sum[i] = coopmat<float, gl_ScopeSubgroup, M, N, gl_MatrixUseAccumulator>(0);
    [[unroll]] for (uint e = 0; e < EACH; e++) {
        highest[e] = NEVER;
        total[e] = 0;
    }

    for (uint j = 0; j < keys; j += KEYS) {
        barrier();
        load_keys(j, keys, first0, first1);
        barrier();
        for (uint k = 0; k < KEYS / N; k++) {
            coopmat<float, gl_ScopeSubgroup, M, N, gl_MatrixUseAccumulator> s[DOWN];
            [[unroll]] for (uint i = 0; i < DOWN; i++)
                s[i] = coopmat<float, gl_ScopeSubgroup, M, N, gl_MatrixUseAccumulator>(0);
            [[unroll]] for (uint d = 0; d < D / K; d++) {
                coopmat<float16_t, gl_ScopeSubgroup, K, N, gl_MatrixUseB> b;
                coopMatLoad(b, tile, k * N * LINE + d * K / 4, LINE,
                            gl_CooperativeMatrixLayoutColumnMajor);
                [[unroll]] for (uint i = 0; i < DOWN; i++)
                    s[i] = coopMatMulAdd(qs[i * (D / K) + d], b, s[i]);
            }
            [[unroll]] for (uint i = 0; i < DOWN; i++)
                coopMatStore(s[i], scores, (mine + i * M) * SCORES + k * N, SCORES,
                             gl_CooperativeMatrixLayoutRowMajor);
        }
        barrier();
        weigh(n, query_first, j, keys);
        barrier();
        [[unroll]] for (uint i = 0; i < DOWN; i++) {
            coopmat<float, gl_ScopeSubgroup, M, N, gl_MatrixUseAccumulator> keep;
            coopMatLoad(keep, keeps, (mine + i * M) * N, N, gl_CooperativeMatrixLayoutRowMajor);
            [[unroll]] for (uint d = 0; d < D / N; d++)
                sum[i * (D / N) + d] = sum[i * (D / N) + d] * keep;
        }
        for (uint k = 0; k < KEYS / K; k++) {
            coopmat<float16_t, gl_ScopeSubgroup, M, K, gl_MatrixUseA> a[DOWN];
            [[unroll]] for (uint i = 0; i < DOWN; i++)
                coopMatLoad(a[i], weights, (mine + i * M) * WEIGHTS + k * K, WEIGHTS,
                            gl_CooperativeMatrixLayoutRowMajor);
            [[unroll]] for (uint d = 0; d < D / N; d++) {
                coopmat<float16_t, gl_ScopeSubgroup, K, N, gl_MatrixUseB> b;
                coopMatLoad(b, tile, (KEYS + k * K) * LINE + d * N / 4, LINE,
                            gl_CooperativeMatrixLayoutRowMajor);
                [[unroll]] for (uint i = 0; i < DOWN; i++)
                    sum[i * (D / N) + d] = coopMatMulAdd(a[i], b, sum[i * (D / N) + d]);
            }
        }
    }

    barrier();
    share_totals();
    for (uint first = 0; first < D; first += KEYS) {
        barrier();
        [[unroll]] for (uint d = 0; d < D / N; d++)
            if (d * N >= first && d * N < first + KEYS)
                [[unroll]] for (uint i = 0; i < DOWN; i++)
                    coopMatStore(sum[i * (D / N) + d], scores,
                                 (mine + i * M) * SCORES + d * N - first, SCORES,
                                 gl_CooperativeMatrixLayoutRowMajor);
        barrier();
        store(n, query_first, first);
    }
}
