// The input of conv3_winograd: six by six pixels, which overlap those of the neighbouring tiles,
// become the 36 positions of a tile of 4 x 4 pixels, and zeros outside of the map. One invocation
// transforms four channels of one tile. Tiles are counted through all samples, rows, columns.
// y: [tile][36][channels / 4], position 6 * column + row. Source of the matrix: Lavin and Gray 2016.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "push.h"
#include "types.glsl"

layout(local_size_x_id = 0) in;

const uint OUTSIDE = 0x40000000u; // a texel index that reads zero, also if another is added to it

PUSH(push_winograd);
INPUT(0, x);
OUTPUT_F32X4(1, y);

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

void main()
{
    READ_PUSH();
    uint id = linear_id(), tile = id / p.k4, k = id % p.k4;
    uint across = (p.w + 3) / 4, down = (p.rows + 3) / 4;
    uint first = tile / across / down * p.h, top = p.top + tile / across % down * 4;
    uint left = tile % across * 4;
    uint column[6];
    vec4 v[36];

    if (tile >= p.tiles)
        return;
    [[unroll]] for (uint i = 0; i < 6; i++) {
        uint at = left + i - 1; // wraps to a large number outside
        column[i] = at < p.w ? at * p.x.cs + k : OUTSIDE;
    }
    [[unroll]] for (uint i = 0; i < 6; i++) {
        uint at = top + i - 1;
        uint row = at < p.h ? p.x.base + (first + at) * p.w * p.x.cs : OUTSIDE;
        vec4 d[6];
        [[unroll]] for (uint c = 0; c < 6; c++)
            d[c] = load(row + column[c]);
        to_positions(d);
        [[unroll]] for (uint c = 0; c < 6; c++)
            v[c * 6 + i] = d[c];
    }
    [[unroll]] for (uint c = 0; c < 6; c++) {
        vec4 d[6];
        [[unroll]] for (uint i = 0; i < 6; i++)
            d[i] = v[c * 6 + i];
        to_positions(d);
        [[unroll]] for (uint i = 0; i < 6; i++)
            y.v[tile * p.y.cs + (c * 6 + i) * p.k4 + k] = d[i];
    }
}
