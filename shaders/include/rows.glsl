// How the operators that move pixels cover a map: invocations side by side take neighbouring vec4s
// of a pixel, 1 << walk.lanes of them, then the next pixel of the same row; an invocation walks
// along its row. Grid: x column blocks, y rows, z samples and channel blocks. Needs push_shape p.
layout(local_size_x_id = 0) in;

uint rows_blocks() { return (((p.c + 3) / 4) + (1u << p.walk.lanes) - 1) >> p.walk.lanes; }
uint rows_sample() { return gl_WorkGroupID.z / rows_blocks(); }
uint rows_c4()
{
    return ((gl_WorkGroupID.z % rows_blocks()) << p.walk.lanes) +
           (gl_LocalInvocationID.x & ((1u << p.walk.lanes) - 1u));
}
uint rows_stride() { return gl_WorkGroupSize.x >> p.walk.lanes; }
uint rows_first()
{
    return gl_WorkGroupID.x * p.walk.run * rows_stride() +
           (gl_LocalInvocationID.x >> p.walk.lanes);
}
