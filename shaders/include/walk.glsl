// How the operators that treat every vec4 alike cover a map. Neighbouring invocations take
// neighbouring vec4s of one pixel, 1 << walk.lanes of them, then the next pixel; an invocation keeps
// its channels and walks over `run` pixels, so that what belongs to the channels is read once and no
// index needs a division. Grid: x pixel blocks, y channel blocks, z samples.
#extension GL_EXT_control_flow_attributes : require
layout(local_size_x_id = 0) in;

const uint WALK_UNROLL = 4;

uint walk_c4(walk w)
{
    return (gl_WorkGroupID.y << w.lanes) + (gl_LocalInvocationID.x & ((1u << w.lanes) - 1u));
}
uint walk_stride(walk w) { return gl_WorkGroupSize.x >> w.lanes; }
uint walk_first(walk w)
{
    return gl_WorkGroupID.x * w.run * walk_stride(w) + (gl_LocalInvocationID.x >> w.lanes);
}
