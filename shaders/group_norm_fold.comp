// GroupNorm of large maps, second of three: one workgroup folds the runs of one group and sample
// into its mean and variance, again in two passes, and writes each channel's line
// y = (x - mean) * gain + offset. lines [N, 3, C]. Grid: x groups, z samples.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "push.h"
#include "types.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint SCALE_SHIFT = 0;

PUSH(push_group_norm_parts);
INPUT_F32(0, parts);
INPUT_F32(1, gamma);
INPUT_F32(2, beta);
BUFFER(3, ss);
OUTPUT_F32(4, lines);

shared float part[gl_WorkGroupSize.x];

float sum_all(float v)
{
    uint lane = gl_LocalInvocationID.x;
    barrier();
    part[lane] = v;
    barrier();
    for (uint half_size = gl_WorkGroupSize.x / 2; half_size >= 1; half_size /= 2) {
        if (lane < half_size)
            part[lane] += part[lane + half_size];
        barrier();
    }
    return part[0];
}

// Pixels of run number i. walk.glsl deals them out.
float run_length(uint i)
{
    uint first = i / p.stride * p.stride * p.walk.run + i % p.stride;
    return float(min(p.walk.run, (p.pixels - 1 - first) / p.stride + 1));
}

float scale_shift(uint i)
{
    return BUFFER_LOAD(ss, p.ss.base + gl_WorkGroupID.z * p.ss.cs + i / 4)[i % 4];
}

void main()
{
    READ_PUSH();
    uint c0 = gl_WorkGroupID.x * p.group, n = gl_WorkGroupID.z, cs = (p.c + 3) / 4 * 4;
    uint at = n * p.parts * 2 * cs + c0;
    float values = float(p.group) * float(p.pixels), sum = 0, squares = 0;

    for (uint i = gl_LocalInvocationID.x; i < p.parts; i += gl_WorkGroupSize.x) {
        float weight = run_length(i);
        for (uint c = 0; c < p.group; c++)
            sum += parts.v[at + i * 2 * cs + c] * weight;
    }
    float mean = sum_all(sum) / values;
    for (uint i = gl_LocalInvocationID.x; i < p.parts; i += gl_WorkGroupSize.x) {
        float weight = run_length(i);
        for (uint c = 0; c < p.group; c++) {
            float d = parts.v[at + i * 2 * cs + c] - mean;
            squares += parts.v[at + (i * 2 + 1) * cs + c] + d * d * weight;
        }
    }
    float rstd = 1 / sqrt(sum_all(squares) / values + p.eps);
    for (uint c = gl_LocalInvocationID.x; c < p.group; c += gl_WorkGroupSize.x) {
        uint j = c0 + c, to = n * 3 * cs + j;
        float s = SCALE_SHIFT != 0 ? 1 + scale_shift(j) : 1;
        float t = SCALE_SHIFT != 0 ? scale_shift(p.c + j) : 0;
        lines.v[to] = mean;
        lines.v[to + cs] = gamma.v[4 * p.gamma.base + j] * rstd * s;
        lines.v[to + 2 * cs] = beta.v[4 * p.beta.base + j] * s + t;
    }
}
