// LayerNorm and RMSNorm over the channels of each pixel or token: one workgroup per pixel. Sums run
// along the vec4s of an invocation, then by halves over the invocations. Grid: ops_groups.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "push.h"
#include "types.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint RMS = 0;
layout(constant_id = 2) const uint BETA = 0;

PUSH(push_row_norm);
INPUT(0, x);
INPUT_F32X4(1, gamma);
INPUT_F32X4(2, beta);
OUTPUT(3, y);

shared float part[gl_WorkGroupSize.x];

float sum_all(vec4 v)
{
    uint me = gl_LocalInvocationID.x;
    barrier();
    part[me] = (v.x + v.y) + (v.z + v.w);
    barrier();
    for (uint half_size = gl_WorkGroupSize.x / 2; half_size >= 1; half_size /= 2) {
        if (me < half_size)
            part[me] += part[me + half_size];
        barrier();
    }
    return part[0];
}

void main()
{
    READ_PUSH();
    uint i = gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x;
    uint c4 = (p.c + 3) / 4, me = gl_LocalInvocationID.x;
    uint xt = p.x.base + min(i, p.pixels - 1) * p.x.cs, yt = p.y.base + i * p.y.cs;
    vec4 sum = vec4(0), squares = vec4(0);
    float mean = 0;

    if (RMS == 0) {
        for (uint c = me; c < c4; c += gl_WorkGroupSize.x)
            sum += mask_channels(LOAD(x, xt + c), c, p.c);
        mean = sum_all(sum) / float(p.c);
    }
    for (uint c = me; c < c4; c += gl_WorkGroupSize.x) {
        vec4 v = mask_channels(LOAD(x, xt + c) - mean, c, p.c);
        squares += v * v;
    }
    float rstd = 1 / sqrt(sum_all(squares) / float(p.c) + p.eps);
    if (i >= p.pixels)
        return;
    for (uint c = me; c < c4; c += gl_WorkGroupSize.x) {
        vec4 v = (LOAD(x, xt + c) - mean) * rstd * gamma.v[p.gamma.base + c];
        if (BETA != 0)
            v += beta.v[p.beta.base + c];
        STORE(y, yt + c, mask_channels(v, c, p.c));
    }
}
