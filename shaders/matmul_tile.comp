// Linear layers and 3x3 convolutions for GPUs: a workgroup computes 64 output channels of 64 pixels
// from tiles in shared memory, an invocation 8 channels of 8 pixels. Pixels of all samples are one
// row; the sum of an element runs over taps, then channels, wherever it lies in the tile.
// Weights: [out][tap][in/4][4]. Grid: x output blocks, y pixel blocks.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "push.h"
#include "types.glsl"
#include "act.glsl"

layout(local_size_x_id = 0) in;  // 64
layout(constant_id = 1) const uint SIDE = 1;  // of the convolution kernel, 1 or 3
layout(constant_id = 2) const uint ACT = 0;
layout(constant_id = 3) const uint PARTS = 0;
#include "matmul.glsl"

const uint ROWS = 17;  // vec4s of one k: 64 channels or pixels, and one against bank conflicts
shared vec4 w_tile[16 * ROWS], x_tile[16 * ROWS];

vec4 acc[16];  // [pixel][which half of the channels]

// The index of pixel's neighbour at this tap; false outside the image.
bool neighbour(uint pixel, uint tap, out uint at)
{
    at = pixel;
    if (SIDE == 1)
        return true;
    uint row = pixel / p.w % p.h + tap / 3 - 1, column = pixel % p.w + tap % 3 - 1;
    at = pixel / (p.w * p.h) * p.w * p.h + row * p.w + column;
    return row < p.h && column < p.w;
}

// Four k of one channel or pixel become one element each of four k rows.
#define SPREAD(tile, k4, i, v)                                                                     \
    [[unroll]] for (uint c = 0; c < 4; c++)                                                        \
        tile[(4 * (k4) + c) * ROWS + (i) / 4][(i) % 4] = (v)[c]

void load_tiles(uint m_first, uint pixel_first, uint tap, uint k0)
{
    // Four invocations side by side read 16 channels of one row.
    uint k4 = gl_LocalInvocationIndex % 4;
    uint k = k0 + k4;
    [[unroll]] for (uint j = 0; j < 4; j++) {
        uint i = gl_LocalInvocationIndex / 4 + 16 * j;
        uint m = m_first + i, pixel = pixel_first + i, at;
        vec4 wv = vec4(0), xv = vec4(0);
        if (k < p.k4 && m < 4 * p.m4)
            wv = LOAD_WEIGHT(weight, (m * SIDE * SIDE + tap) * p.k4 + k);
        if (k < p.k4 && pixel < p.pixels && neighbour(pixel, tap, at))
            xv = LOAD(x, p.x.base + at * p.x.cs + k);
        SPREAD(w_tile, k4, i, wv);
        SPREAD(x_tile, k4, i, xv);
    }
}

void add_products(uint at, uint mi, uint pi)
{
    vec4 w0 = w_tile[at + mi], w1 = w_tile[at + 8 + mi];
    vec4 x0 = x_tile[at + pi], x1 = x_tile[at + 8 + pi];
    [[unroll]] for (uint j = 0; j < 4; j++) {
        acc[2 * j] += w0 * x0[j];
        acc[2 * j + 1] += w1 * x0[j];
        acc[2 * j + 8] += w0 * x1[j];
        acc[2 * j + 9] += w1 * x1[j];
    }
}

void main()
{
    READ_PUSH();
    uint m_first = gl_WorkGroupID.x * 64, pixel_first = gl_WorkGroupID.y * 64;
    uint mi = gl_LocalInvocationIndex % 8, pi = gl_LocalInvocationIndex / 8;
    // Channels 4mi.. and 32 + 4mi.., pixels 4pi.. and 32 + 4pi..
    uint m0 = m_first / 4 + mi, m1 = m0 + 8;
    [[unroll]] for (uint j = 0; j < 8; j++) {
        acc[2 * j] = m0 < p.m4 ? bias.v[m0] : vec4(0);
        acc[2 * j + 1] = m1 < p.m4 ? bias.v[m1] : vec4(0);
    }
    for (uint tap = 0; tap < SIDE * SIDE; tap++)
        for (uint k0 = 0; k0 < p.k4; k0 += 4) {
            barrier();
            load_tiles(m_first, pixel_first, tap, k0);
            barrier();
            // Unrolled by the driver if it likes: a longer body takes long to compile.
            for (uint k1 = 0; k1 < 16; k1 += 4)
                [[unroll]] for (uint k2 = 0; k2 < 4; k2++)
                    add_products((k1 + k2) * ROWS, mi, pi);
        }
    [[unroll]] for (uint j = 0; j < 8; j++) {
        uint pixel = pixel_first + j / 4 * 32 + 4 * pi + j % 4;
        if (pixel < p.pixels && m0 < p.m4)
            finish(acc[2 * j], pixel, m0);
        if (pixel < p.pixels && m1 < p.m4)
            finish(acc[2 * j + 1], pixel, m1);
    }
}
