// Attention with an online softmax for GPUs: an invocation holds one query of one head, a workgroup
// reads blocks of keys and values into shared memory. Memory is linear in the sequence.
// Grid: x blocks of queries, y heads, z samples.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "push.h"
#include "types.glsl"
#include "attention.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint D4 = 8;  // vec4s of a head
layout(constant_id = 2) const uint BLOCK = 16;  // keys at a time
layout(constant_id = 3) const uint PARTS = 0;

shared vec4 k_tile[BLOCK * D4], v_tile[BLOCK * D4];
vec4 qv[D4], sum[D4];
float highest = NEVER, total = 0;

void main()
{
    READ_PUSH();
    uint n = gl_WorkGroupID.z;
    uint query = gl_WorkGroupID.x * gl_WorkGroupSize.x + gl_LocalInvocationIndex;
    uint first0 = first_key0(n, PARTS), first1 = 0;
    if ((PARTS & ATTENTION_SECOND) != 0)
        first1 = first_key1(n, PARTS);
    uint mine = n * p.queries + min(query, p.queries - 1);
    [[unroll]] for (uint d = 0; d < D4; d++) {
        qv[d] = LOAD(q, p.q.base + mine * p.q.cs + gl_WorkGroupID.y * D4 + d);
        sum[d] = vec4(0);
    }
#define KEYS k0
#define VALUES v0
#define K_VIEW p.k0
#define V_VIEW p.v0
#define KEY_COUNT p.keys0
#define FIRST first0
#define KEY0 0
#define MASKED ((PARTS & ATTENTION_VALID) != 0)
#include "attention_tile.glsl"
#undef KEYS
#undef VALUES
#undef K_VIEW
#undef V_VIEW
#undef KEY_COUNT
#undef FIRST
#undef KEY0
#undef MASKED
#define KEYS k1
#define VALUES v1
#define K_VIEW p.k1
#define V_VIEW p.v1
#define KEY_COUNT p.keys1
#define FIRST first1
#define KEY0 p.keys0
#define MASKED false
    if ((PARTS & ATTENTION_SECOND) != 0) {
#include "attention_tile.glsl"
    }
    if (query >= p.queries)
        return;
    float r = total > 0 ? 1 / total : 0;
    [[unroll]] for (uint d = 0; d < D4; d++)
        STORE(y, p.y.base + mine * p.y.cs + gl_WorkGroupID.y * D4 + d, sum[d] * r);
}
