// y[i] = table[ids[i]]. A table larger than one binding may be comes in up to four parts of
// part_rows rows; an id outside the table gives zeros. The table's storage is the weights' dtype.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "push.h"
#include "types.glsl"
#include "walk.glsl"

layout(push_constant) uniform push_block { push_embed p; };
INPUT_U32(0, ids);
INPUT_WEIGHT(1, table0);
INPUT_WEIGHT(2, table1);
INPUT_WEIGHT(3, table2);
INPUT_WEIGHT(4, table3);
OUTPUT(5, y);

vec4 row(uint id, uint c)
{
    uint part = id / p.part_rows, at = id % p.part_rows * p.cs + c;

    if (id >= p.rows)
        return vec4(0);
    switch (part) {
    case 0: return LOAD_WEIGHT(table0, p.base[0] + at);
    case 1: return LOAD_WEIGHT(table1, p.base[1] + at);
    case 2: return LOAD_WEIGHT(table2, p.base[2] + at);
    default: return LOAD_WEIGHT(table3, p.base[3] + at);
    }
}

void main()
{
    uint stride = walk_stride(p.walk), i = walk_first(p.walk);

    for (uint k = 0; k < p.walk.run && i < p.pixels; k++, i += stride) {
        uint id = ids.v[4 * (p.ids.base + i * p.ids.cs)];
        [[unroll]] for (uint b = 0; b < BLOCKS; b++) {
            uint c = walk_c4(p.walk, b);
            if (4 * c < p.c)
                STORE(y, p.y.base + i * p.y.cs + c, mask_channels(row(id, c), c, p.c));
        }
    }
}
