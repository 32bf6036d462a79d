// Shared by the lane-sliced matrix products (linear_lane, conv3_lane). One workgroup is one
// subgroup; a lane owns MB output channels of P pixels in registers. Both operands are loaded per
// lane, four channels at a time; weights then go from one lane to all with a shuffle of constant
// index. No shared memory, no barrier, no load from a uniform address: those are what a software
// rasterizer is slow at. The sum over k runs in channel order for every output element.
#extension GL_EXT_control_flow_attributes : require

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint SG = 8;    // subgroup size, as local_size_x
layout(constant_id = 2) const uint MB = 16;   // output channels per workgroup, multiple of SG
layout(constant_id = 3) const uint P = 4;     // pixel groups per workgroup
layout(constant_id = 4) const uint KV = 1;    // vec4s of k per loop trip
layout(constant_id = 5) const uint ACT = 0;
layout(constant_id = 6) const uint PARTS = 0; // which parts of the epilogue there are
#include "matmul.glsl"
#include "from_lanes.glsl"

const uint OUTSIDE = 0x40000000u;  // a texel index that reads zero

vec4 acc[MB / 4 * P];

// Sums start at the bias: read here, outside all loops, it is one scalar load.
void start_sums(uint m0)
{
    [[unroll]] for (uint m = 0; m < MB / 4; m++) {
        vec4 b = bias.v[m0 + m];
        [[unroll]] for (uint j = 0; j < P; j++)
            acc[m * P + j] = b;
    }
}

void finish_pixel(uint j, uint m0, uint pixel)
{
    [[unroll]] for (uint m = 0; m < MB / 4; m++)
        if (m0 + m < p.m4)
            finish(acc[m * P + j], pixel, m0 + m);
}
