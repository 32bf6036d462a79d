// The dynamic threshold of each lane: the quantile of |x0| over a sample, clamped to
// [1, max_value]. Exact, by radix selection on the bits of |x0| (which sort as integers): three
// rounds of counting, 11, 10 and 10 bits, find the value of one rank; the next larger value is
// found beside it, for linear interpolation between ranks. One workgroup per lane.
// Source: torch.quantile, linear.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "push.h"
#include "types.glsl"
#include "lanes.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint GUIDED = 0;

PUSH(push_sampler);
INPUT(1, m);
INPUT_STATE(2, x);
OUTPUT_F32(3, limit);

const uint BINS = 2048;
shared uint bins[BINS];
shared uint block_sums[gl_WorkGroupSize.x];
shared uint found_bin, found_before, above;

uint me;

// The bits of |x0|.
uvec3 keys(op_lane l, uint i)
{
    uint at = p.m.base + (gl_WorkGroupID.x * p.pixels + i) * p.m.cs;
    vec3 old = LOAD_STATE(x, p.x.base + (l.slot * p.pixels + i) * p.x.cs).xyz;
    vec3 v = LOAD(m, at).xyz;
    if (GUIDED != 0)
        v = guide(v, LOAD(m, at + p.count * p.pixels * p.m.cs).xyz, l.guidance);
    return floatBitsToUint(abs(predict(l, old, v)));
}

void clear_bins()
{
    for (uint i = me; i < BINS; i += gl_WorkGroupSize.x)
        bins[i] = 0;
    barrier();
}

void count_first(op_lane l)
{
    for (uint i = me; i < p.pixels; i += gl_WorkGroupSize.x) {
        uvec3 key = keys(l, i);
        atomicAdd(bins[key.x >> 20], 1);
        atomicAdd(bins[key.y >> 20], 1);
        atomicAdd(bins[key.z >> 20], 1);
    }
    barrier();
}

void count_key(uint key, uint prefix, uint shift, bool last)
{
    uint high = key >> (shift + 10);
    if (high == prefix)
        atomicAdd(bins[(key >> shift) & 1023u], 1);
    else if (last && high > prefix)
        atomicMin(above, key);
}

void count_next(op_lane l, uint prefix, uint shift)
{
    for (uint i = me; i < p.pixels; i += gl_WorkGroupSize.x) {
        uvec3 key = keys(l, i);
        count_key(key.x, prefix, shift, shift == 0);
        count_key(key.y, prefix, shift, shift == 0);
        count_key(key.z, prefix, shift, shift == 0);
    }
    barrier();
}

// found_bin: the bin that the rank-th value (from 0) is in; found_before: how many are below it.
void find_rank(uint rank)
{
    uint width = BINS / gl_WorkGroupSize.x, sum = 0;
    for (uint i = 0; i < width; i++)
        sum += bins[me * width + i];
    block_sums[me] = sum;
    barrier();
    if (me == 0) {
        uint before = 0, block = 0, bin;
        while (block < gl_WorkGroupSize.x - 1 && before + block_sums[block] <= rank)
            before += block_sums[block++];
        bin = block * width;
        while (bin < BINS - 1 && before + bins[bin] <= rank)
            before += bins[bin++];
        found_bin = bin;
        found_before = before;
    }
    barrier();
}

// The smallest value above the one in bin `bin` of the last round.
uint next_larger(uint prefix, uint bin)
{
    for (uint i = bin + 1; i < 1024; i++)
        if (bins[i] != 0)
            return prefix << 10 | i;
    return above;
}

void main()
{
    READ_PUSH();
    op_lane l = lanes.v[gl_WorkGroupID.x];
    precise float rank = l.quantile * float(3 * p.pixels - 1), t, s;
    uint low = uint(rank), left = low, prefix;

    me = gl_LocalInvocationID.x;
    if (l.threshold != THRESHOLD_DYNAMIC)
        return;
    if (me == 0)
        above = 0x7f800000u;
    clear_bins();
    count_first(l);
    find_rank(left);
    prefix = found_bin;
    left -= found_before;
    clear_bins();
    count_next(l, prefix, 10);
    find_rank(left);
    prefix = prefix << 10 | found_bin;
    left -= found_before;
    clear_bins();
    count_next(l, prefix, 0);
    find_rank(left);
    if (me != 0)
        return;
    float a = uintBitsToFloat(prefix << 10 | found_bin), b = a;
    t = rank - float(low);
    if (t > 0 && left - found_before + 1 >= bins[found_bin])
        b = uintBitsToFloat(next_larger(prefix, found_bin));
    s = t < 0.5 ? a + t * (b - a) : b - (b - a) * (1 - t);
    limit.v[gl_WorkGroupID.x] = min(max(s, 1.0), l.max_value);
}
