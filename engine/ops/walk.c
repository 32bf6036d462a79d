// Spreading maps over workgroups. Called by the operators outside matrix products. Knows sizes
// only. Thread: the engine's worker.
#include "walk.h"

enum { CPU_WORKGROUPS = 32, CPU_RUN = 64, GPU_RUN = 4, MAX_BLOCKS = 6 };

uint32_t walk_local(const struct ops *o, uint32_t on_gpu)
{
    const struct vk_caps *caps = ops_recorder_device(o)->caps;
    if (caps->cpu)
        return caps->subgroup_size ? caps->subgroup_size : 8;
    return on_gpu < caps->max_workgroup_invocations ? on_gpu : caps->max_workgroup_invocations;
}

uint32_t walk_lanes(uint32_t c4, uint32_t local)
{
    uint32_t best = 0;
    for (uint32_t lanes = 1; 1u << lanes <= local; lanes++) {
        uint32_t padded = blocks_of(c4, 1u << lanes) << lanes;
        if (padded * 8 <= c4 * 9)
            best = lanes;
    }
    return best;
}

uint32_t walk_run(const struct ops *o, size_t pixels, uint32_t blocks, uint32_t pixel_lanes)
{
    size_t most = GPU_RUN, run;
    if (ops_recorder_device(o)->caps->cpu)
        most = CPU_RUN;
    run = pixels * blocks / pixel_lanes / CPU_WORKGROUPS / 4 * 4;
    return (uint32_t)(run < 4 ? 4 : run < most ? run : most);
}

struct walk_plan walk_plan(const struct ops *o, uint32_t c, uint32_t pixels, uint32_t samples)
{
    uint32_t local = walk_local(o, 64), lanes = walk_lanes(vec4s(c), local);
    uint32_t all = blocks_of(vec4s(c), 1u << lanes), parts = blocks_of(all, MAX_BLOCKS);
    struct walk_plan p = {
        .walk.lanes = lanes,
        .local = local,
        .blocks = blocks_of(all, parts),
        .stride = local >> lanes,
    };
    p.walk.run = walk_run(o, pixels, parts, p.stride);
    p.groups[0] = blocks_of(pixels, p.stride * p.walk.run);
    p.groups[1] = parts;
    p.groups[2] = samples;
    return p;
}
