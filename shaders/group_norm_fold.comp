// GroupNorm of large maps, second of three: one workgroup folds the runs of one group and sample
// into its mean and variance, again in two passes, and writes each channel's line
// y = (x - mean) * gain + offset. lines [N, 3, C]. Grid: x groups, z samples.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "push.h"
#include "types.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint SCALE_SHIFT = 0;
// Sums of one invocation. Two of them in half a workgroup make the same sum as one in a whole: the
// first step by halves adds them.
layout(constant_id = 2) const uint SUMS = 1;

PUSH(push_group_norm_parts);
INPUT_F32(0, parts);
INPUT_F32(1, gamma);
INPUT_F32(2, beta);
BUFFER(3, ss);
OUTPUT_F32(4, lines);

shared float part[gl_WorkGroupSize.x];

// Of part[] over all invocations, each of which has written its own.
float sum_all()
{
    uint lane = gl_LocalInvocationID.x;
    barrier();
    for (uint half_size = gl_WorkGroupSize.x / 2; half_size >= 1; half_size /= 2) {
        if (lane < half_size)
            part[lane] += part[lane + half_size];
        barrier();
    }
    float sum = part[0];
    barrier();
    return sum;
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
    float values = float(p.group) * float(p.pixels);
    uint lane = gl_LocalInvocationID.x, stride = SUMS * gl_WorkGroupSize.x;

    for (uint k = 0; k < SUMS; k++) {
        float sum = 0;
        for (uint i = k * gl_WorkGroupSize.x + lane; i < p.parts; i += stride) {
            float weight = run_length(i);
            for (uint c = 0; c < p.group; c++)
                sum += parts.v[at + i * 2 * cs + c] * weight;
        }
        part[lane] = k == 0 ? sum : part[lane] + sum;
    }
    float mean = sum_all() / values;
    for (uint k = 0; k < SUMS; k++) {
        float squares = 0;
        for (uint i = k * gl_WorkGroupSize.x + lane; i < p.parts; i += stride) {
            float weight = run_length(i);
            for (uint c = 0; c < p.group; c++) {
                float d = parts.v[at + i * 2 * cs + c] - mean;
                squares += parts.v[at + (i * 2 + 1) * cs + c] + d * d * weight;
            }
        }
        part[lane] = k == 0 ? squares : part[lane] + squares;
    }
    float rstd = 1 / sqrt(sum_all() / values + p.eps);
    for (uint c = lane; c < p.group; c += gl_WorkGroupSize.x) {
        uint j = c0 + c, to = n * 3 * cs + j;
        float s = SCALE_SHIFT != 0 ? 1 + scale_shift(j) : 1;
        float t = SCALE_SHIFT != 0 ? scale_shift(p.c + j) : 0;
        lines.v[to] = mean;
        lines.v[to + cs] = gamma.v[4 * p.gamma.base + j] * rstd * s;
        lines.v[to + 2 * cs] = beta.v[4 * p.beta.base + j] * s + t;
    }
}
