// How the operators outside matrix products are spread over a device: shaders/include/walk.glsl and
// rows.glsl hold the other half. Not for other layers. Thread: the engine's worker.
#ifndef IMAGEND_WALK_H
#define IMAGEND_WALK_H

#include "ops_internal.h"

// One subgroup on a software device, where a workgroup is a loop over its subgroups anyway.
uint32_t walk_local(const struct ops *o, uint32_t on_gpu);

// log2 of the invocations side by side along c4 vec4s, of `local`: as many as leave few idle.
uint32_t walk_lanes(uint32_t c4, uint32_t local);

// Pixels for each invocation: enough workgroups for every core, and few enough that starting them
// is cheap. A multiple of 4 from 4 to 64.
uint32_t walk_run(const struct ops *o, size_t pixels, uint32_t blocks, uint32_t pixel_lanes);

struct walk_plan {
    struct walk walk;
    uint32_t local, blocks; // spec constants 0 and 1 of walk.glsl
    uint32_t stride;        // pixels side by side in a workgroup
    uint32_t groups[3];     // x pixel blocks, y channel blocks, z samples
};
// Cover `pixels` of each of `samples` maps of c channels. The plan depends on samples in z alone.
struct walk_plan walk_plan(const struct ops *o, uint32_t c, uint32_t pixels, uint32_t samples);

static inline uint32_t blocks_of(uint32_t count, uint32_t size)
{
    return (count + size - 1) / size;
}

static inline bool is_activation(const struct tensor *t)
{
    return t->dtype == DT_F32 || t->dtype == DT_F16;
}

static inline bool same_shape(const struct tensor *a, const struct tensor *b)
{
    return a->n == b->n && a->h == b->h && a->w == b->w && a->c == b->c;
}

// An f32 vector of c values: a norm's gain or shift.
static inline bool is_vector(const struct tensor *t, uint32_t c)
{
    return t && t->dtype == DT_F32 && tensor_pixels(t) == 1 && t->c == c;
}

#endif
