// y[n] = mean of x[n] over all pixels. One workgroup per block of vec4s and sample: invocations
// sum pixels apart, then by halves. Grid: x channel blocks, z samples.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "push.h"
#include "types.glsl"

layout(local_size_x_id = 0) in;

PUSH(push_shape);
INPUT(0, x);
OUTPUT(1, y);

shared vec4 part[gl_WorkGroupSize.x];

void main()
{
    READ_PUSH();
    uint lanes = 1u << p.walk.lanes, me = gl_LocalInvocationID.x, n = gl_WorkGroupID.z;
    uint c = gl_WorkGroupID.x * lanes + (me & (lanes - 1)), pixels = p.h * p.w;
    uint stride = gl_WorkGroupSize.x >> p.walk.lanes;
    vec4 sum = vec4(0);

    if (4 * c < p.c)
        for (uint i = me >> p.walk.lanes; i < pixels; i += stride)
            sum += LOAD(x, p.x.base + (n * pixels + i) * p.x.cs + c);
    part[me] = sum;
    barrier();
    for (uint half_size = gl_WorkGroupSize.x / 2; half_size >= lanes; half_size /= 2) {
        if (me < half_size)
            part[me] += part[me + half_size];
        barrier();
    }
    if (me < lanes && 4 * c < p.c)
        STORE(y, p.y.base + n * p.y.cs + c, mask_channels(part[me] / float(pixels), c, p.c));
}
