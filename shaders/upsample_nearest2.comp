// Each pixel of x becomes a 2x2 block of y. p.h, p.w: of x.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "push.h"
#include "types.glsl"

PUSH(push_shape);
INPUT(0, x);
OUTPUT(1, y);
#include "rows.glsl"

void main()
{
    READ_PUSH();
    uint c = rows_c4(), n = rows_sample(), row = gl_WorkGroupID.y, j = rows_first();
    uint xt = p.x.base + (n * p.h + row) * p.w * p.x.cs + c;
    uint yt = p.y.base + (n * p.h + row) * 4 * p.w * p.y.cs + c;

    if (4 * c >= p.c)
        return;
    for (uint k = 0; k < p.walk.run && j < p.w; k++, j += rows_stride()) {
        uint at = yt + 2 * j * p.y.cs, below = at + 2 * p.w * p.y.cs;
        vec4 v = mask_channels(LOAD(x, xt + j * p.x.cs), c, p.c);
        STORE(y, at, v);
        STORE(y, at + p.y.cs, v);
        STORE(y, below, v);
        STORE(y, below + p.y.cs, v);
    }
}
