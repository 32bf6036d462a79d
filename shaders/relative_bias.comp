// T5's relative position bias: bias[q, k] = table[bucket(k - q)]. Near distances have a bucket
// each; the limits of the far ones come from the host, because the logarithm that defines them
// lands exactly on integers. Grid: x key blocks, y queries.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "push.h"

layout(local_size_x_id = 0) in;
layout(push_constant) uniform push_block { push_relative_bias p; };
layout(std430, binding = 0) readonly buffer table_block { vec4 v[]; } table;
layout(std430, binding = 1) writeonly buffer y_block { vec4 v[]; } y;

void main()
{
    uint q = gl_WorkGroupID.y, k = gl_GlobalInvocationID.x;
    uint d = q > k ? q - k : k - q, bucket = min(d, p.exact);

    if (k >= p.tokens)
        return;
    for (uint i = 0; i < p.limits; i++)
        bucket += d >= p.limit[i] ? 1 : 0;
    bucket += k > q ? p.half_buckets : 0;
    for (uint c = 0; c < p.c4; c++)
        y.v[p.y.base + (q * p.tokens + k) * p.y.cs + c] =
            table.v[p.table.base + bucket * p.table.cs + c];
}
