// y = mean of each 2x2 block of x. p.h, p.w: of y; p.oh, p.ow: of x.
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
    uint xt = p.x.base + (n * p.oh + 2 * row) * p.ow * p.x.cs + c;
    uint yt = p.y.base + (n * p.h + row) * p.w * p.y.cs + c;

    if (4 * c >= p.c)
        return;
    for (uint k = 0; k < p.walk.run && j < p.w; k++, j += rows_stride()) {
        uint at = xt + 2 * j * p.x.cs, below = at + p.ow * p.x.cs;
        vec4 v = LOAD(x, at) + LOAD(x, at + p.x.cs) + LOAD(x, below) + LOAD(x, below + p.x.cs);
        STORE(y, yt + j * p.y.cs, mask_channels(0.25 * v, c, p.c));
    }
}
