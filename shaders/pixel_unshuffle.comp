// P x P pixels of x become the channels of one pixel of y: channel (c * P + dy) * P + dx. For even
// P, four channels of four pixels are transposed at a time; odd P gathers value by value.
// Grid: x column blocks, y rows, z samples. p.h, p.w: of y; p.c: of x.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "push.h"
#include "types.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint P = 2;
const uint SUB = P * P / 4;  // vec4s of one channel's block

PUSH(push_shape);
INPUT(0, x);
OUTPUT(1, y);

uint x_pixel(uint at, uint k) { return at + (k / P * p.w * P + k % P) * p.x.cs; }

void transpose_blocks(uint at, uint to)
{
    for (uint k = 0; k < SUB; k++) {
        for (uint c = 0; c < p.c; c += 4) {
            vec4 v[4];
            [[unroll]] for (uint i = 0; i < 4; i++)
                v[i] = LOAD(x, x_pixel(at, 4 * k + i) + c / 4);
            [[unroll]] for (uint i = 0; i < 4; i++)
                if (c + i < p.c)
                    STORE(y, to + (c + i) * SUB + k, vec4(v[0][i], v[1][i], v[2][i], v[3][i]));
        }
    }
}

void gather_values(uint at, uint to)
{
    for (uint q = 0; 4 * q < p.c * P * P; q++) {
        vec4 v = vec4(0);
        for (uint i = 0; i < 4; i++) {
            uint c = (4 * q + i) / (P * P), k = (4 * q + i) % (P * P);
            if (c < p.c)
                v[i] = LOAD(x, x_pixel(at, k) + c / 4)[c % 4];
        }
        STORE(y, to + q, v);
    }
}

void main()
{
    READ_PUSH();
    uint n = gl_WorkGroupID.z, row = gl_WorkGroupID.y;
    uint j = gl_GlobalInvocationID.x;
    uint at = p.x.base + ((n * p.h + row) * P * p.w * P + j * P) * p.x.cs;
    uint to = p.y.base + ((n * p.h + row) * p.w + j) * p.y.cs;

    if (j >= p.w)
        return;
    if (P % 2 == 0)
        transpose_blocks(at, to);
    else
        gather_values(at, to);
}
