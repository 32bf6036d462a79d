// The U-Net's input: the state of each lane's slot, 3 or 4 channels, then the 3 of its low-res
// image, in blocks of P x P pixels per pixel of y; P is 1 with 4 channels. Guided: lane i is sample
// i and sample lanes + i.
// Grid: x column blocks, y rows, z lanes. p.h, p.w: of y.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "push.h"
#include "types.glsl"
#include "lanes.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint P = 1;    // 1 or even
layout(constant_id = 2) const uint LOW = 0;  // there is a low-res image
layout(constant_id = 3) const uint GUIDED = 0;
layout(constant_id = 4) const uint CHANNELS = 3;  // of the state
const uint SUB = P * P / 4;

PUSH(push_gather);
INPUT_STATE(1, x);
INPUT_STATE(2, low);
OUTPUT(3, y);

void store(uint to, vec4 v)
{
    STORE(y, to, v);
    if (GUIDED != 0)
        STORE(y, to + p.count * p.h * p.w * p.y.cs, v);
}

void whole_pixel(uint pixel, uint to)
{
    vec4 a = LOAD_STATE(x, p.x.base + pixel * p.x.cs);
    if (CHANNELS == 4) {
        store(to, a);
        if (LOW != 0)
            store(to + 1, vec4(LOAD_STATE(low, p.low.base + pixel * p.low.cs).xyz, 0));
    } else if (LOW != 0) {
        vec4 b = LOAD_STATE(low, p.low.base + pixel * p.low.cs);
        store(to, vec4(a.xyz, b.x));
        store(to + 1, vec4(b.yz, 0, 0));
    } else {
        store(to, vec4(a.xyz, 0));
    }
}

// Channels c0 .. c0+2 of y's pixel: three channels of P x P pixels, four pixels at a time.
void store_block(vec4 v[4], uint to, uint k, uint c0)
{
    [[unroll]] for (uint c = 0; c < 3; c++)
        store(to + (c0 + c) * SUB + k, vec4(v[0][c], v[1][c], v[2][c], v[3][c]));
}

void blocks(uint pixel, uint to)
{
    for (uint k = 0; k < SUB; k++) {
        vec4 v[4];
        uint at[4];
        [[unroll]] for (uint i = 0; i < 4; i++) {
            uint j = 4 * k + i;
            at[i] = pixel + j / P * p.w * P + j % P;
            v[i] = LOAD_STATE(x, p.x.base + at[i] * p.x.cs);
        }
        store_block(v, to, k, 0);
        if (LOW != 0) {
            [[unroll]] for (uint i = 0; i < 4; i++)
                v[i] = LOAD_STATE(low, p.low.base + at[i] * p.low.cs);
            store_block(v, to, k, 3);
        }
    }
}

void main()
{
    READ_PUSH();
    uint i = gl_WorkGroupID.z, row = gl_WorkGroupID.y, j = gl_GlobalInvocationID.x;
    uint slot = lanes.v[i].slot;
    uint pixel = ((slot * p.h + row) * P * p.w + j) * P;
    uint to = p.y.base + ((i * p.h + row) * p.w + j) * p.y.cs;

    if (j >= p.w)
        return;
    if (P == 1)
        whole_pixel(pixel, to);
    else
        blocks(pixel, to);
}
