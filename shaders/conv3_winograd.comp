// 3x3 convolution, stride 1, zero padding, by Winograd's F(4x4, 3x3): 36 products for 16 pixels
// instead of 144. winograd_tiles has transformed the input, and engine/ops/winograd.c the weights:
// what is left is a matrix product for each of the 36 positions of a tile, whose sums become
// pixels. Lane-sliced as lane.glsl describes: a lane has P tiles, and MB output channels of them.
// Weights: [out/SG][36][in/4][SG][4], position 6 * column + row. Grid: x output blocks, y tiles.
// Source of the matrix: Lavin and Gray 2016.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "push.h"
#include "types.glsl"
#include "act.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint SG = 8;    // subgroup size, as local_size_x
layout(constant_id = 2) const uint MB = 16;   // output channels per workgroup, multiple of SG
layout(constant_id = 3) const uint P = 2;     // tiles of a lane
layout(constant_id = 5) const uint ACT = 0;
layout(constant_id = 6) const uint PARTS = 0; // which parts of the epilogue there are
#define OPERAND INPUT_STATE
#include "matmul.glsl"
#include "from_lanes.glsl"

const uint SUMS = MB / 4 * P;

vec4 start[MB / 4];     // the bias
vec4 result[16 * SUMS]; // [pixel of a tile][MB / 4][P]
uint at[P];             // where the tiles begin

// The sums of one position over the input channels.
void add_up(uint position, uint wi, out vec4 sum[SUMS])
{
    [[unroll]] for (uint i = 0; i < SUMS; i++)
        sum[i] = vec4(0);
    for (uint k = 0; k < p.k4; k++) {
        vec4 d[P], w[MB / SG];
        [[unroll]] for (uint j = 0; j < P; j++)
            d[j] = LOAD_STATE(x, at[j] + position * p.k4 + k);
        [[unroll]] for (uint b = 0; b < MB / SG; b++)
            w[b] = LOAD_WEIGHT(weight, wi + ((b * 36 + position) * p.k4 + k) * SG);
        [[unroll]] for (uint m = 0; m < MB; m += 4)
            [[unroll]] for (uint c = 0; c < 4; c++) {
                vec4 four = from_lanes(w[m / SG][c], m % SG);
                [[unroll]] for (uint j = 0; j < P; j++)
                    sum[m / 4 * P + j] += four * d[j][c];
            }
    }
}

// Six sums of a column become four.
void to_rows(inout vec4 s[6])
{
    vec4 a = s[1] + s[2], b = s[1] - s[2], c = s[3] + s[4], d = s[3] - s[4];
    s[0] += a + c;
    s[1] = b + 2 * d;
    s[2] = a + 4 * c;
    s[3] = b + 8 * d + s[5];
}

// The column's share of the four pixels of a row: powers of the point that it stands for.
vec4 to_columns(uint column)
{
    float q = column == 1 ? 1.0 : column == 2 ? -1.0 : column == 3 ? 2.0 : column == 4 ? -2.0 : 0.0;
    return column == 5 ? vec4(0, 0, 0, 1) : vec4(1, q, q * q, q * q * q);
}

// The six positions are six calls, because Mesa does not unroll a loop around a loop, and does not
// keep in registers what has an index that it does not know.
void add_column(uint column, uint wi)
{
    vec4 sum[6][SUMS], share = to_columns(column);
    add_up(6 * column, wi, sum[0]);
    add_up(6 * column + 1, wi, sum[1]);
    add_up(6 * column + 2, wi, sum[2]);
    add_up(6 * column + 3, wi, sum[3]);
    add_up(6 * column + 4, wi, sum[4]);
    add_up(6 * column + 5, wi, sum[5]);
    [[unroll]] for (uint i = 0; i < SUMS; i++) {
        vec4 s[6] = {sum[0][i], sum[1][i], sum[2][i], sum[3][i], sum[4][i], sum[5][i]};
        to_rows(s);
        [[unroll]] for (uint pixel = 0; pixel < 16; pixel++)
            result[pixel * SUMS + i] += vec4(share[pixel % 4]) * s[pixel / 4];
    }
}

void finish_tile(uint tile, uint j, uint m0)
{
    uint across = (p.w + 3) / 4, down = (p.h + 3) / 4;
    uint top = tile / across % down * 4, left = tile % across * 4;
    uint row = tile / across / down * p.h + top;
    [[unroll]] for (uint i = 0; i < 16; i++)
        if (top + i / 4 < p.h && left + i % 4 < p.w)
            [[unroll]] for (uint m = 0; m < MB / 4; m++)
                if (m0 + m < p.m4)
                    finish(result[i * SUMS + m * P + j] + start[m],
                           (row + i / 4) * p.w + left + i % 4, m0 + m);
}

void main()
{
    READ_PUSH();
    uint m0 = gl_WorkGroupID.x * (MB / 4);
    uint tile = gl_WorkGroupID.y * SG * P + gl_SubgroupInvocationID;
    uint wi = gl_WorkGroupID.x * (MB / SG) * 36 * p.k4 * SG + gl_SubgroupInvocationID;
    [[unroll]] for (uint m = 0; m < MB / 4; m++)
        start[m] = bias.v[m0 + m];
    [[unroll]] for (uint j = 0; j < P; j++)
        at[j] = p.x.base + min(tile + j * SG, p.pixels - 1) * p.x.cs;
    [[unroll]] for (uint i = 0; i < 16 * SUMS; i++)
        result[i] = vec4(0);
    for (uint column = 0; column < 6; column++)
        add_column(column, wi);
    [[unroll]] for (uint j = 0; j < P; j++)
        if (tile + j * SG < p.pixels)
            finish_tile(tile + j * SG, j, m0);
}
