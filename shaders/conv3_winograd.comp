// 3x3 convolution, stride 1, zero padding, by Winograd's F(4x4, 3x3): 36 products for 16 pixels
// instead of 144. Lane-sliced as lane.glsl describes: a lane has a stack of P tiles of 4 x 4 pixels,
// and MB output channels of them in registers, as 36 sums over the input channels; the weights are
// transformed when they are packed (engine/ops/winograd.c). Stacks are counted through all samples,
// rows, columns; what a lane computes does not depend on its neighbours.
// Weights: [out/SG][in/4][36][SG][4], position 6 * column + row. Grid: x output blocks, y stacks.
// Source of the matrices: Lavin and Gray 2016.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "push.h"
#include "types.glsl"
#include "act.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint SG = 8;    // subgroup size, as local_size_x
layout(constant_id = 2) const uint MB = 8;    // output channels per workgroup, multiple of SG
layout(constant_id = 3) const uint P = 2;     // tiles of a stack
layout(constant_id = 5) const uint ACT = 0;
layout(constant_id = 6) const uint PARTS = 0; // which parts of the epilogue there are
#include "matmul.glsl"
#include "from_lanes.glsl"

const uint ROWS = 4 * P + 2; // of a stack's input
const uint OUTSIDE = 0x40000000u; // a texel index that reads zero, also if another is added to it

vec4 acc[36 * MB / 4 * P]; // [position][MB / 4][P]
uint sample_of, top, left;
uint row[ROWS], column[6]; // where the rows and columns of a stack's input begin

vec4 load(uint at)
{
#if LOAD_TEXEL
    return LOAD(x, at);
#else
    return at >= OUTSIDE ? vec4(0) : LOAD(x, at);
#endif
}

// Six values of the input, in one direction.
void to_positions(inout vec4 d[6])
{
    vec4 a = d[4] - 4 * d[2], b = d[3] - 4 * d[1], c = d[4] - d[2], e = 2 * (d[3] - d[1]);
    d[0] = 4 * d[0] - 5 * d[2] + d[4];
    d[5] = 4 * d[1] - 5 * d[3] + d[5];
    d[1] = a + b;
    d[2] = a - b;
    d[3] = c + e;
    d[4] = c - e;
}

// Six sums become four values of the result, in one direction.
void to_pixels(inout vec4 s[6])
{
    vec4 a = s[1] + s[2], b = s[1] - s[2], c = s[3] + s[4], d = s[3] - s[4];
    s[0] += a + c;
    s[1] = b + 2 * d;
    s[2] = a + 4 * c;
    s[3] = b + 8 * d + s[5];
}

void find_stack()
{
    uint across = (p.w + 3) / 4, down = (p.h + 4 * P - 1) / (4 * P);
    uint stack = gl_WorkGroupID.y * SG + gl_SubgroupInvocationID;
    sample_of = stack / (across * down);
    top = stack / across % down * (4 * P);
    left = stack % across * 4;
    [[unroll]] for (uint i = 0; i < ROWS; i++) {
        uint y = top + i - 1; // wraps to a large number outside
        row[i] = y < p.h && sample_of < p.n
                     ? p.x.base + (sample_of * p.h + y) * p.w * p.x.cs
                     : OUTSIDE;
    }
    [[unroll]] for (uint i = 0; i < 6; i++) {
        uint x = left + i - 1;
        column[i] = x < p.w ? x * p.x.cs : OUTSIDE;
    }
}

// Adds four channels of the input, number k, to all sums.
void add_channels(uint k, uint wi)
{
    vec4 v[6 * ROWS];
    [[unroll]] for (uint i = 0; i < ROWS; i++) {
        vec4 d[6];
        [[unroll]] for (uint c = 0; c < 6; c++)
            d[c] = load(row[i] + column[c] + k);
        to_positions(d);
        [[unroll]] for (uint c = 0; c < 6; c++)
            v[i * 6 + c] = d[c];
    }
    [[unroll]] for (uint c = 0; c < 6; c++) {
        vec4 d[6 * P];
        [[unroll]] for (uint j = 0; j < P; j++) {
            vec4 one[6];
            [[unroll]] for (uint r = 0; r < 6; r++)
                one[r] = v[(j * 4 + r) * 6 + c];
            to_positions(one);
            [[unroll]] for (uint r = 0; r < 6; r++)
                d[j * 6 + r] = one[r];
        }
        // A load of weights among the arithmetic of the last: both keep the processor busy together.
        [[unroll]] for (uint i = 0; i < 6 * (MB / SG); i++) {
            uint r = i % 6, block = i / 6;
            vec4 w = LOAD_WEIGHT(weight, wi + ((block * p.k4 + k) * 36 + c * 6 + r) * SG);
            [[unroll]] for (uint m = 0; m < SG; m += 4)
                [[unroll]] for (uint l = 0; l < 4; l++) {
                    vec4 four = from_lanes(w[l], m);
                    [[unroll]] for (uint j = 0; j < P; j++)
                        acc[((c * 6 + r) * (MB / 4) + (block * SG + m) / 4) * P + j] +=
                            four * d[j * 6 + r][l];
                }
        }
    }
}

// Four output channels of tile j, number m of the workgroup's and m0 + m of all.
void finish_tile(uint j, uint m, uint m0, vec4 b)
{
    vec4 part[24];
    [[unroll]] for (uint c = 0; c < 6; c++) {
        vec4 s[6];
        [[unroll]] for (uint r = 0; r < 6; r++)
            s[r] = acc[((c * 6 + r) * (MB / 4) + m) * P + j];
        to_pixels(s);
        [[unroll]] for (uint r = 0; r < 4; r++)
            part[r * 6 + c] = s[r];
    }
    [[unroll]] for (uint r = 0; r < 4; r++) {
        vec4 s[6];
        [[unroll]] for (uint c = 0; c < 6; c++)
            s[c] = part[r * 6 + c];
        to_pixels(s);
        uint y = top + j * 4 + r, pixel = (sample_of * p.h + y) * p.w + left;
        [[unroll]] for (uint c = 0; c < 4; c++)
            if (y < p.h && left + c < p.w)
                finish(s[c] + b, pixel + c, m0 + m);
    }
}

void main()
{
    READ_PUSH();
    uint m0 = gl_WorkGroupID.x * (MB / 4);
    vec4 b[MB / 4];
    find_stack();
    [[unroll]] for (uint m = 0; m < MB / 4; m++)
        b[m] = bias.v[m0 + m];
    [[unroll]] for (uint i = 0; i < 36 * MB / 4 * P; i++)
        acc[i] = vec4(0);
    uint wi = gl_WorkGroupID.x * (MB / SG) * 36 * p.k4 * SG + gl_SubgroupInvocationID;
    for (uint k = 0; k < p.k4; k++)
        add_channels(k, wi);
    [[unroll]] for (uint j = 0; j < P; j++)
        [[unroll]] for (uint m = 0; m < MB / 4; m++)
            if (sample_of < p.n && m0 + m < p.m4)
                finish_tile(j, m, m0, b[m]);
}
