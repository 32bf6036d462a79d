// y = a, from one storage dtype (the weights' variant axis) to another.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "push.h"
#include "types.glsl"
#include "walk.glsl"

PUSH(push_map);
INPUT_WEIGHT(0, a);
OUTPUT(1, y);

void main()
{
    READ_PUSH();
    uint stride = walk_stride(p.walk), i = walk_first(p.walk);
    uint start = gl_WorkGroupID.z * p.pixels;
    uint at = p.a.base + start * p.a.cs, yt = p.y.base + start * p.y.cs;

    for (uint k = 0; k < p.walk.run && i < p.pixels; k++, i += stride) {
        [[unroll]] for (uint b = 0; b < BLOCKS; b++) {
            uint c = walk_c4(p.walk, b);
            vec4 v = LOAD_WEIGHT(a, at + i * p.a.cs + c);
            if (4 * c < p.c)
                STORE(y, yt + i * p.y.cs + c, mask_channels(v, c, p.c));
        }
    }
}
