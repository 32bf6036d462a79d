// GroupNorm of maps that stay in a cache: one workgroup normalizes a block of whole groups of one
// sample. Three passes over x, mean, squares about the mean, result, so that a large mean costs no
// digits. Sums run along the pixels of an invocation, then by halves over the invocations.
// Grid: x blocks, z samples.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "push.h"
#include "types.glsl"
#include "act.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint BLOCK = 4;       // vec4s of a block, at least p.c4
layout(constant_id = 2) const uint ACT = 0;
layout(constant_id = 3) const uint SCALE_SHIFT = 0;
// Sums of one invocation. Two of them in half a workgroup make the same sum as one in a whole: the
// first step by halves adds them.
layout(constant_id = 4) const uint SUMS = 1;
const uint UNROLL = 4;  // pixels whose loads are in flight together

PUSH(push_group_norm);
INPUT(0, x);
INPUT_F32(1, gamma);
INPUT_F32(2, beta);
BUFFER(3, ss);
OUTPUT(4, y);

shared vec4 part[gl_WorkGroupSize.x];
shared float sums[4 * BLOCK];    // per channel
shared float mean[4 * BLOCK];
shared float gain[4 * BLOCK], offset[4 * BLOCK];

uint lanes, me, lane_c, lane_pixel, stride, first_c4, channels, x_at;

vec4 four(uint c, const bool from_mean)
{
    return from_mean ? vec4(mean[4 * c], mean[4 * c + 1], mean[4 * c + 2], mean[4 * c + 3])
                     : vec4(0);
}

// sums[c] = sum over the sample's pixels of x, or of (x - mean)^2.
void sum_channels(const bool squares)
{
    for (uint k = 0; k < p.c4; k += lanes) {
        uint c = k + lane_c;
        vec4 m = four(min(c, p.c4 - 1), squares);
        uint at = x_at + min(c, p.c4 - 1), hop = SUMS * stride;
        for (uint n = 0; n < SUMS; n++) {
            vec4 sum = vec4(0);
            for (uint i = n * stride + lane_pixel; i < p.pixels; i += UNROLL * hop) {
                vec4 v[UNROLL];
                [[unroll]] for (uint j = 0; j < UNROLL; j++)
                    v[j] = LOAD(x, at + min(i + j * hop, p.pixels - 1) * p.x.cs) - m;
                [[unroll]] for (uint j = 0; j < UNROLL; j++)
                    if (i + j * hop < p.pixels)
                        sum += squares ? v[j] * v[j] : v[j];
            }
            part[me] = n == 0 ? sum : part[me] + sum;
        }
        barrier();
        for (uint half_size = gl_WorkGroupSize.x / 2; half_size >= lanes; half_size /= 2) {
            if (me < half_size)
                part[me] += part[me + half_size];
            barrier();
        }
        if (me < lanes && c < p.c4)
            [[unroll]] for (uint j = 0; j < 4; j++)
                sums[4 * c + j] = part[me][j];
        barrier();
    }
}

// Turns each channel's sum into the mean over its group.
void fold_groups()
{
    for (uint g = me; g * p.group < channels; g += gl_WorkGroupSize.x) {
        float sum = 0;
        for (uint i = 0; i < p.group; i++)
            sum += sums[g * p.group + i];
        sum /= float(p.group) * float(p.pixels);
        for (uint i = 0; i < p.group; i++)
            sums[g * p.group + i] = sum;
    }
    barrier();
}

float scale_shift(uint i)
{
    return BUFFER_LOAD(ss, p.ss.base + gl_WorkGroupID.z * p.ss.cs + i / 4)[i % 4];
}

void main()
{
    READ_PUSH();
    lanes = 1u << p.walk.lanes;
    me = gl_LocalInvocationID.x;
    lane_c = me & (lanes - 1);
    lane_pixel = me >> p.walk.lanes;
    stride = gl_WorkGroupSize.x >> p.walk.lanes;
    first_c4 = gl_WorkGroupID.x * p.c4;
    x_at = p.x.base + gl_WorkGroupID.z * p.pixels * p.x.cs + first_c4;
    uint y_at = p.y.base + gl_WorkGroupID.z * p.pixels * p.y.cs + first_c4;
    channels = min(4 * p.c4, p.c - 4 * first_c4);

    sum_channels(false);
    fold_groups();
    for (uint c = me; c < 4 * p.c4; c += gl_WorkGroupSize.x)
        mean[c] = c < channels ? sums[c] : 0;
    barrier();
    sum_channels(true);
    fold_groups();
    for (uint c = me; c < 4 * p.c4; c += gl_WorkGroupSize.x) {
        gain[c] = offset[c] = 0;
        if (c < channels) {
            uint at = 4 * first_c4 + c;
            float s = SCALE_SHIFT != 0 ? 1 + scale_shift(at) : 1;
            float t = SCALE_SHIFT != 0 ? scale_shift(p.c + at) : 0;
            gain[c] = gamma.v[4 * p.gamma.base + at] / sqrt(sums[c] + p.eps) * s;
            offset[c] = beta.v[4 * p.beta.base + at] * s + t;
        }
    }
    barrier();
    for (uint c = lane_c; c < p.c4; c += lanes) {
        if (4 * (first_c4 + c) >= p.c)
            break;
        vec4 m = four(c, true);
        vec4 g = vec4(gain[4 * c], gain[4 * c + 1], gain[4 * c + 2], gain[4 * c + 3]);
        vec4 o = vec4(offset[4 * c], offset[4 * c + 1], offset[4 * c + 2], offset[4 * c + 3]);
        for (uint i = lane_pixel; i < p.pixels; i += UNROLL * stride) {
            vec4 v[UNROLL];
            [[unroll]] for (uint j = 0; j < UNROLL; j++)
                v[j] = LOAD(x, x_at + min(i + j * stride, p.pixels - 1) * p.x.cs + c);
            [[unroll]] for (uint j = 0; j < UNROLL; j++) {
                uint s = i + j * stride;
                if (s < p.pixels)
                    STORE(y, y_at + s * p.y.cs + c, act4(ACT, (v[j] - m) * g + o));
            }
        }
    }
}
