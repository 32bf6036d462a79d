// Bilinear resize: y's pixel j samples x at j * sx + first_x, or at the border beyond it. Rows and
// columns walked are y's; p.h, p.w: of x.
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
    precise float fy = max(float(row) * p.sy + p.first_y, 0);
    uint y0 = min(uint(fy), p.h - 1), y1 = min(y0 + 1, p.h - 1);
    float ty = fy - float(y0);
    uint top = p.x.base + (n * p.h + y0) * p.w * p.x.cs + c;
    uint bottom = p.x.base + (n * p.h + y1) * p.w * p.x.cs + c;
    uint yt = p.y.base + (n * p.oh + row) * p.ow * p.y.cs + c;

    if (4 * c >= p.c)
        return;
    for (uint k = 0; k < p.walk.run && j < p.ow; k++, j += rows_stride()) {
        precise float fx = max(float(j) * p.sx + p.first_x, 0);
        uint x0 = min(uint(fx), p.w - 1), x1 = min(x0 + 1, p.w - 1);
        float tx = fx - float(x0);
        vec4 a = LOAD(x, top + x0 * p.x.cs), b = LOAD(x, top + x1 * p.x.cs);
        vec4 d = LOAD(x, bottom + x0 * p.x.cs), e = LOAD(x, bottom + x1 * p.x.cs);
        vec4 v = (a * (1 - tx) + b * tx) * (1 - ty) + (d * (1 - tx) + e * tx) * ty;
        STORE(y, yt + j * p.y.cs, mask_channels(v, c, p.c));
    }
}
