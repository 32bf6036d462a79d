// How the operators that treat every vec4 alike cover a map. Neighbouring invocations take
// neighbouring vec4s of one pixel, 1 << walk.lanes of them, then the next pixel. An invocation
// keeps its channels, BLOCKS vec4s that many lanes apart, and walks over `run` pixels: what belongs
// to the channels is read once, no index needs a division, and memory is touched in its own order,
// without which a processor's caches cannot read ahead.
// Grid: x pixel blocks, y channel blocks, z samples.
#extension GL_EXT_control_flow_attributes : require
layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint BLOCKS = 1;

// Pixels whose loads are in flight together.
const uint WALK_UNROLL = BLOCKS == 1 ? 4 : BLOCKS == 2 ? 2 : 1;

uint walk_c4(walk w, uint block)
{
    return ((gl_WorkGroupID.y * BLOCKS + block) << w.lanes) +
           (gl_LocalInvocationID.x & ((1u << w.lanes) - 1u));
}
uint walk_stride(walk w) { return gl_WorkGroupSize.x >> w.lanes; }
uint walk_first(walk w)
{
    return gl_WorkGroupID.x * w.run * walk_stride(w) + (gl_LocalInvocationID.x >> w.lanes);
}
