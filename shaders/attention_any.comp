// Attention for head sizes that fit no vec4: one invocation computes four output channels, each
// for whatever head it belongs to, one after the other. For short sequences.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "push.h"
#include "types.glsl"
#include "attention.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint PARTS = 0;

uint n, query;

float q_at(uint channel)
{
    uint pixel = n * p.queries + query;
    return LOAD(q, p.q.base + pixel * p.q.cs + channel / 4)[channel % 4];
}

float k_at(bool second, uint pixel, uint channel)
{
    if (second)
        return LOAD(k1, p.k1.base + pixel * p.k1.cs + channel / 4)[channel % 4];
    return LOAD(k0, p.k0.base + pixel * p.k0.cs + channel / 4)[channel % 4];
}

float v_at(bool second, uint pixel, uint channel)
{
    if (second)
        return LOAD(v1, p.v1.base + pixel * p.v1.cs + channel / 4)[channel % 4];
    return LOAD(v0, p.v0.base + pixel * p.v0.cs + channel / 4)[channel % 4];
}

float attend(uint channel, uint first0, uint first1)
{
    uint head = channel / p.d, keys = p.keys0 + p.keys1;
    float top = NEVER, total = 0, sum = 0;
    for (uint key = 0; key < keys; key++) {
        bool second = key >= p.keys0;
        uint pixel = second ? first1 + key - p.keys0 : first0 + key;
        bool on = true;
        if ((PARTS & ATTENTION_VALID) != 0)
            on = second || is_valid(n, second ? 0 : key);
        float s = 0;
        for (uint d = head * p.d; d < (head + 1) * p.d; d++)
            s += q_at(d) * k_at(second, pixel, d);
        s *= p.scale;
        if ((PARTS & ATTENTION_BIAS) != 0)
            s += bias_at(query, key, head);
        s = on ? s : NEVER;
        float higher = max(top, s), keep = exp(top - higher);
        float e = on ? exp(s - higher) : 0;
        total = total * keep + e;
        sum = sum * keep + e * v_at(second, pixel, channel);
        top = higher;
    }
    return total > 0 ? sum / total : 0;
}

void main()
{
    READ_PUSH();
    uint id = linear_id(), c4 = (p.heads * p.d + 3) / 4;
    if (id >= p.n * p.queries * c4)
        return;
    uint pixel = id / c4, c = id % c4;
    n = pixel / p.queries;
    query = pixel % p.queries;
    uint first0 = first_key0(n, PARTS), first1 = 0;
    if ((PARTS & ATTENTION_SECOND) != 0)
        first1 = first_key1(n, PARTS);
    vec4 v = vec4(0);
    for (uint i = 0; i < 4; i++)
        if (4 * c + i < p.heads * p.d)
            v[i] = attend(4 * c + i, first0, first1);
    STORE(y, p.y.base + pixel * p.y.cs + c, v);
}
