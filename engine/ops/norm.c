// GroupNorm, LayerNorm, RMSNorm. GroupNorm has two forms: one dispatch where a sample stays in a
// cache, three (statistics of pixel runs, fold, apply) where it does not. Which one, and the order
// of every sum, follows from one sample's shape. Called by engine/model while it records. Thread:
// the engine's worker.
#include "walk.h"

#include <stdlib.h>

enum {
    CPU_CACHED = 512 << 10, // bytes of a sample that are normalized in one dispatch
    GPU_TRIPS = 256,
    CPU_PART_WALKS = 4, // pixels of a run of statistics, in runs of the walk
    GPU_PART_WALKS = 16,
    GPU_LOCAL = 256,
    FOLD_LOCAL = 256,
    ROW_LOCAL = 64
};

static bool group_norm_fits(const struct op_group_norm_params *p)
{
    const struct tensor *x = p->x, *y = p->y, *ss = p->scale_shift;
    bool ok = same_shape(x, y) && x->dtype == y->dtype && is_activation(x) && x->buf != NULL;
    ok = ok && p->groups && x->c % p->groups == 0;
    ok = ok && is_vector(p->gamma, x->c) && is_vector(p->beta, x->c);
    return ok && (!ss || (ss->n == x->n && ss->h * ss->w == 1 && ss->c == 2 * x->c &&
                          ss->dtype == x->dtype));
}

// vec4s of the smallest block that starts and ends with a group, repeated while that leaves enough
// blocks: a block as wide as a cache line wastes no part of one.
static uint32_t block_c4(uint32_t c, uint32_t group, bool cpu)
{
    uint32_t unit = group % 4 == 0 ? group / 4 : group % 2 == 0 ? group / 2 : group;
    uint32_t block = unit, most = cpu ? 8 : 4, blocks = cpu ? 2 : 8;
    while (block + unit <= most && blocks * (block + unit) <= vec4s(c))
        block += unit;
    return block;
}

// The block that a pipeline has room for: one pipeline for many widths.
static uint32_t block_room(uint32_t block)
{
    uint32_t room = 8;

    while (room < block)
        room *= 2;
    return room;
}

// Sums of one invocation; larger: the workgroup whose order of sums is kept, over this one's size.
// Vulkan promises 128 invocations, so it is 2 at most. A software device has its own order.
static uint32_t sums_of(const struct ops *o, uint32_t larger)
{
    return larger == 2 && !ops_recorder_device(o)->caps->cpu ? 2 : 1;
}

// The form with one dispatch. False: the sample is too large for it.
static bool group_norm_once(struct ops *o, const struct op_group_norm_params *p)
{
    const struct tensor *x = p->x;
    const struct vk_caps *caps = ops_recorder_device(o)->caps;
    uint32_t group = x->c / p->groups, block = block_c4(x->c, group, caps->cpu);
    uint32_t local = walk_local(o, GPU_LOCAL), lanes = walk_lanes(block, local);
    size_t pixels = (size_t)x->h * x->w;
    size_t trips = (pixels / (local >> lanes) + 2) * blocks_of(block, 1u << lanes);
    // The limit of a device's workgroups changes neither the form nor the order of sums.
    uint32_t most_lanes = walk_lanes(block, GPU_LOCAL), most_stride = GPU_LOCAL >> most_lanes;
    size_t least_trips = (pixels / most_stride + 2) * blocks_of(block, 1u << most_lanes);
    size_t bytes = pixels * vec4s(x->c) * 4 * tensor_dtype_bytes(x->dtype);
    if (local & (local - 1) || 3 * trips + group > QUIRK_MAX_TRIPS ||
        (caps->cpu ? bytes > CPU_CACHED : least_trips > GPU_TRIPS) ||
        16 * local + 64 * block_room(block) > caps->max_shared_bytes)
        return false;
    struct push_group_norm push = {
        .x = ops_view(o, x),
        .y = ops_view(o, p->y),
        .gamma = ops_view(o, p->gamma),
        .beta = ops_view(o, p->beta),
        .ss = ops_view(o, p->scale_shift),
        .walk.lanes = lanes,
        .pixels = (uint32_t)pixels,
        .c = x->c,
        .group = group,
        .c4 = block,
        .eps = p->eps,
    };
    struct ops_call call = {
        .op = OP_GROUP_NORM,
        .dtype = x->dtype,
        .specs = 5,
        .spec = {local, block_room(block), p->act, p->scale_shift != NULL,
                 sums_of(o, most_stride / (local >> lanes))},
        .arg = {x, p->gamma, p->beta, p->scale_shift, p->y},
        .push = &push,
        .groups = {blocks_of(vec4s(x->c), block), 1, x->n},
    };
    ops_dispatch(o, &call);
    return true;
}

// The three dispatches share their push constants.
struct large {
    struct push_group_norm_parts push;
    struct walk_plan walk;
    uint32_t run; // of the statistics, in place of push.walk.run
    uint32_t blocks, c;
};

static struct large large_plan(struct ops *o, const struct tensor *x, uint32_t group)
{
    struct large l = {.walk = walk_plan(o, x->c, x->h * x->w, x->n), .c = 4 * vec4s(x->c)};
    struct push_group_norm_parts *push = &l.push;

    push->x = ops_view(o, x);
    push->walk = l.walk.walk;
    push->stride = l.walk.stride;
    push->pixels = x->h * x->w;
    push->c = x->c;
    push->group = group;
    // Longer runs than the walk's: what folds them reads every one of them in few workgroups.
    l.run = push->walk.run *
            (ops_recorder_device(o)->caps->cpu ? (uint32_t)CPU_PART_WALKS : GPU_PART_WALKS);
    l.blocks = blocks_of(push->pixels, push->stride * l.run);
    const uint32_t before = (l.blocks - 1) * push->stride, left = push->pixels - before * l.run;
    push->parts = before + (left < push->stride ? left : push->stride);
    return l;
}

// Samples of parts and lines follow each other without the gap that keeps strides off the cache's
// period.
static struct tensor packed_temp(struct ops *o, uint32_t n, uint32_t c)
{
    struct tensor t = ops_temp_dtype(o, DT_F32, n, 1, 1, c);

    t.cs = t.c;
    return t;
}

static void packed_release(struct ops *o, struct tensor t)
{
    t.cs = tensor_stride(DT_F32, t.c);
    ops_release(o, &t);
}

static struct tensor record_parts(struct ops *o, const struct large *l, const struct tensor *x)
{
    struct tensor parts = packed_temp(o, x->n, l->push.parts * 2 * l->c);
    struct push_group_norm_parts push = l->push;
    struct ops_call call = {
        .op = OP_GROUP_NORM_PARTS,
        .dtype = x->dtype,
        .specs = 2,
        .spec = {l->walk.local, l->walk.blocks},
        .arg = {x, &parts},
        .push = &push,
        .groups = {l->blocks, l->walk.groups[1], l->walk.groups[2]},
    };

    push.walk.run = l->run;
    ops_dispatch(o, &call);
    return parts;
}

static void record_lines(struct ops *o, const struct large *l, const struct op_group_norm_params *p,
                         const struct tensor *parts, const struct tensor *lines)
{
    const uint32_t fold = walk_local(o, FOLD_LOCAL);
    struct push_group_norm_parts push = l->push;
    struct ops_call call = {
        .op = OP_GROUP_NORM_FOLD,
        .dtype = p->x->dtype,
        .specs = 3,
        .spec = {fold, p->scale_shift != NULL, sums_of(o, FOLD_LOCAL / fold)},
        .arg = {parts, p->gamma, p->beta, p->scale_shift, lines},
        .push = &push,
        .groups = {p->groups, 1, p->x->n},
    };

    push.walk.run = l->run;
    push.gamma = ops_view(o, p->gamma);
    push.beta = ops_view(o, p->beta);
    push.ss = ops_view(o, p->scale_shift);
    push.eps = p->eps;
    ops_require_trips(o, "group_norm", p->x, (size_t)push.parts / fold * (push.group + 1) * 2);
    ops_dispatch(o, &call);
}

struct apply_params {
    enum op_act act;
    const struct tensor *lines;
};

static void record_apply(struct ops *o, const struct large *l, const struct apply_params *p,
                         const struct tensor *x, const struct tensor *y);

static void apply_part(struct ops *o, const struct tensor *const t[], const void *params)
{
    const struct apply_params *p = params;
    const struct large l = large_plan(o, t[0], t[0]->c); // groups are in the lines
    if (!ops_error(o))
        record_apply(o, &l, p, t[0], t[1]);
}

static void record_apply(struct ops *o, const struct large *l, const struct apply_params *p,
                         const struct tensor *x, const struct tensor *y)
{
    const struct tensor *split[] = {x, y};
    if (ops_by_rows(o, split, 2, apply_part, p))
        return;
    struct push_group_norm_parts push = l->push;
    struct ops_call call = {
        .op = OP_GROUP_NORM_APPLY,
        .dtype = x->dtype,
        .specs = 3,
        .spec = {l->walk.local, l->walk.blocks, p->act},
        .arg = {x, p->lines, y},
        .push = &push,
        .groups = {l->walk.groups[0], l->walk.groups[1], l->walk.groups[2]},
    };

    push.y = ops_view(o, y);
    ops_dispatch(o, &call);
}

static void group_norm_parts(struct ops *o, const struct op_group_norm_params *p)
{
    const struct tensor *x = p->x;
    const struct large l = large_plan(o, x, x->c / p->groups);
    struct tensor parts, lines;

    if (ops_error(o))
        return;
    parts = record_parts(o, &l, x);
    lines = packed_temp(o, x->n, 3 * l.c);
    record_lines(o, &l, p, &parts, &lines);
    record_apply(o, &l, &(struct apply_params){p->act, &lines}, x, p->y);
    packed_release(o, parts);
    packed_release(o, lines);
}

// ---- statistics of a map in pieces --------------------------------------------------------------

struct op_moments op_measure(struct ops *o, const struct tensor *x)
{
    struct op_moments m = {0};

    if (!ops_require(o, is_activation(x) && x->n == 1 && x->buf, x))
        return m;
    const struct large l = large_plan(o, x, x->c);
    m.runs = l.push.parts;
    m.stride = l.push.stride;
    m.run = l.run;
    m.pixels = l.push.pixels;
    m.c = x->c;
    m.parts = record_parts(o, &l, x);
    return m;
}

enum err op_moments_read(const struct op_moments *m, double *mean, double *squares)
{
    const size_t c4 = 4 * vec4s(m->c);
    float *parts = malloc(sizeof *parts * m->runs * 2 * c4);
    enum err e = parts ? tensor_download(&m->parts, parts) : ERR_NO_MEMORY;

    for (uint32_t c = 0; !e && c < m->c; c++) {
        double count = 0;
        mean[c] = squares[c] = 0;
        // The pixels of a run as in group_norm_fold.comp.
        for (uint32_t i = 0; i < m->runs; i++) {
            const uint32_t first = i / m->stride * m->stride * m->run + i % m->stride;
            const uint32_t left = (m->pixels - 1 - first) / m->stride + 1;
            const double n = left < m->run ? left : m->run;
            const double d = (double)parts[i * 2 * c4 + c] - mean[c];
            squares[c] += (double)parts[(i * 2 + 1) * c4 + c] + d * d * count * n / (count + n);
            mean[c] += d * n / (count + n);
            count += n;
        }
    }
    free(parts);
    return e;
}

void op_group_norm_lines(struct ops *o, const struct tensor *x, const struct tensor *lines,
                         enum op_act act, const struct tensor *y)
{
    bool ok = same_shape(x, y) && x->dtype == y->dtype && is_activation(x) && x->n == 1;

    ok = ok && lines->dtype == DT_F32 && lines->c == 3 * 4 * vec4s(x->c) && lines->n == 1;
    if (!ops_require(o, ok, x, lines, y))
        return;
    const struct large l = large_plan(o, x, x->c);
    if (!ops_error(o))
        record_apply(o, &l, &(struct apply_params){act, lines}, x, y);
}

static void group_norm_sample(struct ops *o, const struct tensor *const t[], const void *params)
{
    struct op_group_norm_params one = *(const struct op_group_norm_params *)params;
    one.x = t[0];
    one.y = t[1];
    one.scale_shift = t[2];
    op_group_norm(o, &one);
}

void op_group_norm(struct ops *o, const struct op_group_norm_params *p)
{
    const struct tensor *split[] = {p->x, p->y, p->scale_shift};
    if (!ops_require(o, group_norm_fits(p), p->x, p->gamma, p->beta, p->scale_shift, p->y) ||
        ops_by_sample(o, split, 3, group_norm_sample, p))
        return;
    if (!group_norm_once(o, p))
        group_norm_parts(o, p);
}

struct row_norm_params {
    const struct tensor *x, *gamma, *beta, *y;
    float eps;
    bool rms;
};

static void row_norm(struct ops *o, const struct row_norm_params *p)
{
    const struct tensor *x = p->x;
    bool ok = same_shape(x, p->y) && x->dtype == p->y->dtype && is_activation(x);
    if (!ops_require(o, ok && is_vector(p->gamma, x->c) && (!p->beta || is_vector(p->beta, x->c)),
                     x, p->gamma, p->beta, p->y))
        return;
    struct push_row_norm push = {
        .x = ops_view(o, x),
        .y = ops_view(o, p->y),
        .gamma = ops_view(o, p->gamma),
        .beta = ops_view(o, p->beta),
        .pixels = tensor_pixels(x),
        .c = x->c,
        .eps = p->eps,
    };
    uint32_t local = walk_local(o, ROW_LOCAL);
    struct ops_call call = {
        .op = OP_ROW_NORM,
        .dtype = x->dtype,
        .specs = 3,
        .spec = {local, p->rms, p->beta != NULL},
        .arg = {x, p->gamma, p->beta, p->y},
        .push = &push,
    };
    ops_groups(ops_recorder_device(o)->caps, push.pixels, 1, call.groups);
    ops_require_trips(o, p->rms ? "rms_norm" : "layer_norm", x,
                      3 * (size_t)(vec4s(x->c) / local + 2));
    ops_dispatch(o, &call);
}

void op_layer_norm(struct ops *o, const struct tensor *x, const struct tensor *gamma,
                   const struct tensor *beta, float eps, const struct tensor *y)
{
    row_norm(o, &(struct row_norm_params){x, gamma, beta, y, eps, false});
}

void op_rms_norm(struct ops *o, const struct tensor *x, const struct tensor *gamma, float eps,
                 const struct tensor *y)
{
    row_norm(o, &(struct row_norm_params){x, gamma, NULL, y, eps, true});
}
