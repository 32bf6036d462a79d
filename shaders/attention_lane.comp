// Attention with an online softmax, lane-sliced: one workgroup is one subgroup, a lane holds P
// queries of one head, their scores and their sums in registers; keys and values are loaded one row
// per lane and broadcast by shuffles. Memory is linear in the sequence.
// Grid: x blocks of P * SG queries, y heads, z samples.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_KHR_shader_subgroup_shuffle : require
#include "push.h"
#include "types.glsl"
#include "attention.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint SG = 8;
layout(constant_id = 2) const uint D4 = 8;  // vec4s of a head
layout(constant_id = 3) const uint P = 1;
layout(constant_id = 4) const uint PARTS = 0;

vec4 qv[D4 * P], sum[D4 * P];
float highest[P], total[P];

void main()
{
    READ_PUSH();
    uint lane = gl_SubgroupInvocationID, n = gl_WorkGroupID.z;
    uint query = gl_WorkGroupID.x * (P * SG) + lane;
    uint first0 = first_key0(n, PARTS), first1 = 0;
    if ((PARTS & ATTENTION_SECOND) != 0)
        first1 = first_key1(n, PARTS);
    [[unroll]] for (uint g = 0; g < P; g++) {
        uint pixel = n * p.queries + min(query + g * SG, p.queries - 1);
        [[unroll]] for (uint d = 0; d < D4; d++) {
            qv[d * P + g] = LOAD(q, p.q.base + pixel * p.q.cs + gl_WorkGroupID.y * D4 + d);
            sum[d * P + g] = vec4(0);
        }
        highest[g] = NEVER;
        total[g] = 0;
    }
#define KEYS k0
#define VALUES v0
#define K_VIEW p.k0
#define V_VIEW p.v0
#define KEY_COUNT p.keys0
#define FIRST first0
#define KEY0 0
#define MASKED ((PARTS & ATTENTION_VALID) != 0)
#include "attention_lane.glsl"
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
#include "attention_lane.glsl"
    }
    [[unroll]] for (uint g = 0; g < P; g++)
        if (query + g * SG < p.queries) {
            uint pixel = n * p.queries + query + g * SG;
            float r = total[g] > 0 ? 1 / total[g] : 0;
            [[unroll]] for (uint d = 0; d < D4; d++)
                STORE(y, p.y.base + pixel * p.y.cs + gl_WorkGroupID.y * D4 + d,
                      sum[d * P + g] * r);
        }
}
