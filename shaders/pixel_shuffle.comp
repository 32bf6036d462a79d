// The inverse of pixel_unshuffle: channel (c * P + dy) * P + dx of a pixel of x becomes channel c
// of pixel (dy, dx) of a P x P block of y. Grid: x column blocks, y rows, z samples.
// p.h, p.w: of x; p.c: of y.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "push.h"
#include "types.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint P = 2;
const uint SUB = P * P / 4;

PUSH(push_shape);
INPUT(0, x);
OUTPUT(1, y);

uint y_pixel(uint to, uint k) { return to + (k / P * p.w * P + k % P) * p.y.cs; }

void transpose_blocks(uint at, uint to)
{
    for (uint k = 0; k < SUB; k++) {
        for (uint c = 0; c < p.c; c += 4) {
            vec4 v[4];
            [[unroll]] for (uint i = 0; i < 4; i++)
                v[i] = c + i < p.c ? LOAD(x, at + (c + i) * SUB + k) : vec4(0);
            [[unroll]] for (uint i = 0; i < 4; i++)
                STORE(y, y_pixel(to, 4 * k + i) + c / 4, vec4(v[0][i], v[1][i], v[2][i], v[3][i]));
        }
    }
}

void gather_values(uint at, uint to)
{
    for (uint k = 0; k < P * P; k++) {
        for (uint c = 0; c < p.c; c += 4) {
            vec4 v = vec4(0);
            for (uint i = 0; i < 4; i++) {
                uint from = (c + i) * P * P + k;
                if (c + i < p.c)
                    v[i] = LOAD(x, at + from / 4)[from % 4];
            }
            STORE(y, y_pixel(to, k) + c / 4, v);
        }
    }
}

void main()
{
    READ_PUSH();
    uint n = gl_WorkGroupID.z, row = gl_WorkGroupID.y;
    uint j = gl_GlobalInvocationID.x;
    uint at = p.x.base + ((n * p.h + row) * p.w + j) * p.x.cs;
    uint to = p.y.base + ((n * p.h + row) * P * p.w * P + j * P) * p.y.cs;

    if (j >= p.w)
        return;
    if (P % 2 == 0)
        transpose_blocks(at, to);
    else
        gather_values(at, to);
}
