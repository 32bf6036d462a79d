// Linear layers and convolutions: shape checks, the choice of kernel and tile, one dispatch each.
// The choice looks at one sample's shape, never at the batch. Called by engine/model while it
// records. Thread: the engine's worker.
#include "walk.h"

struct tile {
    uint32_t mb, p, kv;
};

static bool shapes_fit(const struct tensor *x, const struct op_weight *w,
                       const struct op_epilogue *e, const struct tensor *y)
{
    bool ok = x->c == w->in && y->c == w->out && x->n == y->n && x->h == y->h && x->w == y->w;
    ok = ok && x->dtype == y->dtype && (x->dtype == DT_F32 || x->dtype == DT_F16);
    for (int i = 0; e && i < 2; i++) {
        const struct tensor *t = i ? e->residual : e->mul;
        ok = ok && (!t || (same_shape(t, y) && t->dtype == y->dtype));
    }
    return ok;
}

static struct push_matmul make_push(const struct ops *o, const struct tensor *x,
                                    const struct op_weight *w, const struct op_epilogue *e,
                                    const struct tensor *y)
{
    return (struct push_matmul){
        .x = ops_view(o, x),
        .mul = ops_view(o, e ? e->mul : NULL),
        .residual = ops_view(o, e ? e->residual : NULL),
        .y = ops_view(o, y),
        .pixels = tensor_pixels(x),
        .n = x->n,
        .h = x->h,
        .w = x->w,
        .k4 = vec4s(w->in),
        .m4 = vec4s(w->out),
        .scale = e && e->scale != 0 ? e->scale : 1,
    };
}

static uint32_t epilogue_parts(const struct op_epilogue *e)
{
    if (!e)
        return 0;
    return (e->mul ? MATMUL_MUL : 0) | (e->residual ? MATMUL_RESIDUAL : 0) |
           (e->scale != 0 && e->scale != 1 ? MATMUL_SCALE : 0);
}

static double matmul_flops(const struct tensor *x, const struct op_weight *w)
{
    return 2.0 * tensor_pixels(x) * w->in * w->out * w->kernel * w->kernel;
}

// Few loads per multiply-add want large tiles; tiles that hang over the end waste lanes. mb must be
// a multiple of the subgroup size.
static struct tile linear_tile(const struct tensor *x, uint32_t sg)
{
    uint32_t tokens = x->h * x->w;
    if (tokens <= sg)
        return (struct tile){.mb = 32, .p = 1, .kv = 1};
    if (tokens <= 2 * sg)
        return (struct tile){.mb = 32, .p = 2, .kv = 1};
    if (tokens % (8 * sg) == 0 || tokens >= 32 * sg)
        return (struct tile){.mb = sg > 16 ? sg : 16, .p = 8, .kv = 1};
    return (struct tile){.mb = 32, .p = 4, .kv = 1};
}

static struct tile conv_tile(const struct tensor *x, uint32_t sg)
{
    return (struct tile){.mb = sg < 8 ? 8 : sg, .p = x->h % 8 == 0 || x->h >= 32 ? 8 : 4, .kv = 1};
}

struct product {
    const struct op_weight *w;
    struct op_epilogue epilogue;
};

static void product_of_sample(struct ops *o, const struct tensor *const t[], const void *params)
{
    const struct product *p = params;
    struct op_epilogue e = p->epilogue;
    e.mul = t[2];
    e.residual = t[3];
    op_conv2d(o, t[0], p->w, &e, t[1]);
}

static bool by_sample(struct ops *o, const struct tensor *x, const struct op_weight *w,
                      const struct op_epilogue *e, const struct tensor *y)
{
    const struct product p = {w, e ? *e : (struct op_epilogue){0}};
    const struct tensor *split[] = {x, y, p.epilogue.mul, p.epilogue.residual};
    return ops_by_sample(o, split, 4, product_of_sample, &p);
}

static void lane_call(struct ops *o, enum kernel_id kernel, const struct tensor *x,
                      const struct op_weight *w, const struct op_epilogue *e,
                      const struct tensor *y, struct tile tile)
{
    const struct ops_device *dev = ops_recorder_device(o);
    uint32_t sg = dev->caps->subgroup_size;
    struct push_matmul push = make_push(o, x, w, e, y);
    struct ops_call call = {
        .kernel = kernel,
        .dtype = y->dtype,
        .weight_dtype = w->packed.dtype,
        .specs = 7,
        .spec = {sg, sg, tile.mb, tile.p, tile.kv, e ? e->act : ACT_NONE, epilogue_parts(e)},
        .arg = {x, &w->packed, &w->bias, e ? e->mul : NULL, e ? e->residual : NULL, y},
        .push = &push,
        .flops = matmul_flops(x, w),
    };
    call.groups[0] = blocks_of(w->out, tile.mb);
    if (kernel == K_CONV3_LANE) {
        call.groups[1] = blocks_of(x->w, sg) * blocks_of(x->h, tile.p);
        call.groups[2] = x->n;
    } else {
        call.groups[1] = blocks_of(push.pixels, tile.p * sg);
        call.groups[2] = 1;
    }
    ops_dispatch(o, &call);
}

// Tiles of 64 output channels by 64 pixels, of all samples in a row; see matmul_tile.comp.
static void tile_call(struct ops *o, const struct tensor *x, const struct op_weight *w,
                      const struct op_epilogue *e, const struct tensor *y)
{
    enum { LOCAL = 64, SIDE = 64 };
    struct push_matmul push = make_push(o, x, w, e, y);
    // Per tap and 16 channels: the loops over tiles, over the quarters of one, and its end.
    if (ops_recorder_device(o)->caps->cpu)
        ops_require_trips(o, "matmul_tile", x,
                          w->kernel * w->kernel * (blocks_of(push.k4, 4) * 6 + 2));
    ops_dispatch(o,
                 &(struct ops_call){
                     .kernel = K_MATMUL_TILE,
                     .dtype = y->dtype,
                     .weight_dtype = w->packed.dtype,
                     .specs = 4,
                     .spec = {LOCAL, w->kernel, e ? e->act : ACT_NONE, epilogue_parts(e)},
                     .arg = {x, &w->packed, &w->bias, e ? e->mul : NULL, e ? e->residual : NULL, y},
                     .push = &push,
                     .groups = {blocks_of(w->out, SIDE), blocks_of(push.pixels, SIDE), 1},
                     .shared_bytes = 2 * 16 * 17 * 16, // w_tile and x_tile
                     .flops = matmul_flops(x, w),
                 });
}

void op_linear(struct ops *o, const struct tensor *x, const struct op_weight *w,
               const struct op_epilogue *e, const struct tensor *y)
{
    const struct ops_device *dev = ops_recorder_device(o);
    if (!ops_require(o, w->kernel == 1 && w->path == dev->path && shapes_fit(x, w, e, y)))
        return;
    if (by_sample(o, x, w, e, y))
        return;
    if (w->path == PATH_TILE) {
        tile_call(o, x, w, e, y);
        return;
    }
    struct tile t = linear_tile(x, dev->caps->subgroup_size);
    ops_require_trips(o, "linear", x, vec4s(w->in) / t.kv + 2);
    lane_call(o, K_LINEAR_LANE, x, w, e, y, t);
}

void op_conv2d(struct ops *o, const struct tensor *x, const struct op_weight *w,
               const struct op_epilogue *e, const struct tensor *y)
{
    const struct ops_device *dev = ops_recorder_device(o);
    if (w->kernel == 1) {
        op_linear(o, x, w, e, y);
        return;
    }
    if (!ops_require(o, w->path == dev->path && shapes_fit(x, w, e, y)))
        return;
    if (by_sample(o, x, w, e, y))
        return;
    if (w->path == PATH_TILE) {
        tile_call(o, x, w, e, y);
        return;
    }
    ops_require_trips(o, "conv2d", x, 3 * (vec4s(w->in) + 2));
    lane_call(o, K_CONV3_LANE, x, w, e, y, conv_tile(x, dev->caps->subgroup_size));
}
