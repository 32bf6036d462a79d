// The sampling operators: they read the lane table, which the CPU fills before each run, so that
// one recording serves whatever images share a step. Called by engine/pipeline while it records.
// Thread: the engine's worker.
#include "walk.h"

enum { LOCAL = 64, SELECT_LOCAL = 1024, CPU_SELECT_LOCAL = 64, SELECT_BYTES = 16 << 10 };

_Static_assert(sizeof(struct op_lane) == 128, "a lane is 32 words of the table");

// A shader indexes the table from the start of its binding.
static bool is_lane_table(const struct ops *o, const struct tensor *t)
{
    return t->dtype == DT_U32 && t->h * t->w == 1 && t->c == 32 && t->cs == 32 && t->n &&
           ops_view(o, t).base == 0;
}

static bool is_state(const struct tensor *t, const struct tensor *like)
{
    return t && t->dtype == DT_F32 && (t->c == 3 || t->c == 4) && same_shape(t, like);
}

static uint32_t pixels_of(const struct tensor *t)
{
    return t->h * t->w;
}

void op_noise(struct ops *o, const struct tensor *lanes, const struct tensor *dst)
{
    if (!ops_require(o, is_lane_table(o, lanes) && is_state(dst, dst), lanes, dst))
        return;
    uint32_t local = walk_local(o, LOCAL), quads = blocks_of(pixels_of(dst), 4);
    struct push_noise push = {
        .lanes = ops_view(o, lanes),
        .y = ops_view(o, dst),
        .pixels = pixels_of(dst),
        .run = walk_run(o, quads, 1, local),
    };
    struct ops_call call = {
        .op = OP_NOISE,
        .specs = 2,
        .spec = {local, dst->c},
        .arg = {lanes, dst},
        .push = &push,
        .groups = {blocks_of(quads, local * push.run), 1, lanes->n},
    };
    ops_dispatch(o, &call);
}

static bool gather_fits(const struct tensor *lanes, const struct tensor *x,
                        const struct tensor *low, uint32_t patch, const struct tensor *y)
{
    const uint32_t channels = x->c + (low ? 3 : 0);
    const struct tensor pixels = x->c == 4 ? tensor_channels(x, 0, 3) : *x;
    bool ok = is_state(x, x) && (!low || is_state(low, &pixels)) && is_activation(y);
    ok = ok && patch && (x->c == 3 || patch == 1);
    ok = ok && x->h == y->h * patch && x->w == y->w * patch;
    return ok && y->c == channels * patch * patch && lanes->n <= y->n;
}

void op_gather_input(struct ops *o, const struct tensor *lanes, const struct tensor *x,
                     const struct tensor *low, uint32_t patch, bool guided, const struct tensor *y)
{
    bool ok = is_lane_table(o, lanes) && gather_fits(lanes, x, low, patch, y);
    if (!ops_require(o, ok && y->n == lanes->n * (guided ? 2 : 1), lanes, x, low, y))
        return;
    if (patch % 2 && patch != 1) {
        struct tensor whole = ops_temp_dtype(o, y->dtype, y->n, x->h, x->w, low ? 6 : 3);
        op_gather_input(o, lanes, x, low, 1, guided, &whole);
        op_pixel_unshuffle(o, patch, &whole, y);
        ops_release(o, &whole);
        return;
    }
    uint32_t local = walk_local(o, LOCAL);
    struct push_gather push = {
        .lanes = ops_view(o, lanes),
        .x = ops_view(o, x),
        .low = ops_view(o, low),
        .y = ops_view(o, y),
        .count = lanes->n,
        .h = y->h,
        .w = y->w,
    };
    struct ops_call call = {
        .op = OP_GATHER_INPUT,
        .dtype = y->dtype,
        .specs = 5,
        .spec = {local, patch, low != NULL, guided, x->c},
        .arg = {lanes, x, low, y},
        .push = &push,
        .groups = {blocks_of(y->w, local), y->h, lanes->n},
    };
    ops_dispatch(o, &call);
}

static bool sampler_fits(const struct ops *o, const struct op_sampler_params *p)
{
    bool ok = is_lane_table(o, p->lanes) && is_state(p->x, p->x) && is_state(p->noise, p->x);
    for (int i = 0; i < 3; i++)
        ok = ok && is_state(p->history[i], p->x);
    ok = ok && is_activation(p->m) && p->m->h == p->x->h && p->m->w == p->x->w;
    ok = ok && (p->x->c == 3 || !p->dynamic);
    return ok && (p->m->c == p->x->c || (p->m->c == 6 && p->x->c == 3)) &&
           p->m->n == p->lanes->n * (p->guided ? 2 : 1);
}

static struct push_sampler sampler_push(const struct ops *o, const struct op_sampler_params *p,
                                        const struct tensor *limit)
{
    return (struct push_sampler){
        .lanes = ops_view(o, p->lanes),
        .m = ops_view(o, p->m),
        .x = ops_view(o, p->x),
        .h0 = ops_view(o, p->history[0]),
        .h1 = ops_view(o, p->history[1]),
        .h2 = ops_view(o, p->history[2]),
        .noise = ops_view(o, p->noise),
        .limit = ops_view(o, limit),
        .count = p->lanes->n,
        .pixels = pixels_of(p->x),
    };
}

static void find_limits(struct ops *o, const struct op_sampler_params *p,
                        const struct tensor *limit)
{
    const struct vk_caps *caps = ops_recorder_device(o)->caps;
    struct push_sampler push = sampler_push(o, p, limit);
    uint32_t local = caps->cpu ? CPU_SELECT_LOCAL : SELECT_LOCAL;
    while (local > caps->max_workgroup_invocations)
        local /= 2;
    struct ops_call call = {
        .op = OP_QUANTILE,
        .dtype = p->m->dtype,
        .specs = 2,
        .spec = {local, p->guided},
        .arg = {p->lanes, p->m, p->x, limit},
        .push = &push,
        .groups = {p->lanes->n, 1, 1},
        .shared_bytes = SELECT_BYTES,
    };
    ops_require_trips(o, "quantile", p->x, 3 * (size_t)(push.pixels / local + 2) + 3072);
    ops_dispatch(o, &call);
}

void op_sampler_step(struct ops *o, const struct op_sampler_params *p)
{
    if (!ops_require(o, sampler_fits(o, p), p->lanes, p->m, p->x, p->noise))
        return;
    struct tensor limit = {0};
    if (p->dynamic) {
        limit = ops_temp_dtype(o, DT_F32, 1, 1, 1, p->lanes->n);
        find_limits(o, p, &limit);
    }
    uint32_t local = walk_local(o, LOCAL);
    struct push_sampler push = sampler_push(o, p, p->dynamic ? &limit : NULL);
    push.run = walk_run(o, push.pixels, 1, local);
    struct ops_call call = {
        .op = OP_SAMPLER_STEP,
        .dtype = p->m->dtype,
        .specs = 4,
        .spec = {local, p->guided, p->m->c == 6, p->x->c},
        .arg = {p->lanes, p->m, p->x, p->x, p->history[0], p->history[1], p->history[2], p->noise,
                p->dynamic ? &limit : NULL},
        .push = &push,
        .groups = {blocks_of(push.pixels, local * push.run), 1, p->lanes->n},
    };
    ops_dispatch(o, &call);
    if (p->dynamic)
        ops_release(o, &limit);
}

void op_add_noise(struct ops *o, const struct tensor *lanes, const struct tensor *x,
                  const struct tensor *noise, const struct tensor *y)
{
    bool ok = is_lane_table(o, lanes) && is_state(x, x) && is_state(noise, x) && is_state(y, x);
    if (!ops_require(o, ok, lanes, x, noise, y))
        return;
    uint32_t local = walk_local(o, LOCAL), pixels = pixels_of(x);
    struct push_sampler push = {
        .x = ops_view(o, x),
        .noise = ops_view(o, noise),
        .h0 = ops_view(o, y),
        .pixels = pixels,
        .run = walk_run(o, pixels, 1, local),
    };
    struct ops_call call = {
        .op = OP_ADD_NOISE,
        .specs = 2,
        .spec = {local, x->c},
        .arg = {lanes, x, noise, y},
        .push = &push,
        .groups = {blocks_of(pixels, local * push.run), 1, lanes->n},
    };
    ops_dispatch(o, &call);
}

void op_keep(struct ops *o, const struct tensor *lanes, const struct tensor *original,
             const struct tensor *x)
{
    if (!ops_require(
            o, is_lane_table(o, lanes) && is_state(x, x) && is_state(original, x) && x->c == 3,
            lanes, x, original))
        return;
    uint32_t local = walk_local(o, LOCAL), pixels = pixels_of(x);
    struct push_sampler push = {
        .x = ops_view(o, x),
        .noise = ops_view(o, original),
        .pixels = pixels,
        .run = walk_run(o, pixels, 1, local),
    };
    struct ops_call call = {
        .op = OP_KEEP,
        .specs = 1,
        .spec = {local},
        .arg = {lanes, original, x},
        .push = &push,
        .groups = {blocks_of(pixels, local * push.run), 1, lanes->n},
    };
    ops_dispatch(o, &call);
}

void op_to_rgb8(struct ops *o, const struct tensor *x, const struct tensor *y)
{
    bool ok = y->dtype == DT_U8 && y->cs == 3 && y->c == 3 && is_activation(x) && x->c >= 3 &&
              x->n == y->n && x->h == y->h && x->w == y->w;
    if (!ops_require(o, ok && y->offset % 4 == 0, x, y))
        return;
    uint32_t local = walk_local(o, LOCAL), pixels = tensor_pixels(x), quads = blocks_of(pixels, 4);
    struct push_rgb8 push = {
        .x = ops_view(o, x),
        .y = ops_view(o, y).base,
        .pixels = pixels,
        .run = walk_run(o, quads, 1, local),
    };
    struct ops_call call = {
        .op = OP_TO_RGB8,
        .dtype = x->dtype,
        .specs = 1,
        .spec = {local},
        .arg = {x, y},
        .push = &push,
        .groups = {blocks_of(quads, local * push.run), 1, 1},
    };
    ops_dispatch(o, &call);
}
