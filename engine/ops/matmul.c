// Linear layers and convolutions: shape checks, the choice of kernel and tile, one dispatch each.
// The choice looks at one sample's shape, never at the batch. Called by engine/model while it
// records. Thread: the engine's worker.
#include "ops_internal.h"

// Software rasterizers of Mesa 22.3 silently end all loops of an invocation after 65535 trips.
enum { MAX_TRIPS = 60000 };

struct tile {
    uint32_t mb, p, kv;
};

// Parts of the epilogue, as in lane.glsl.
enum { PART_MUL = 1, PART_RESIDUAL = 2, PART_SCALE = 4 };

static void require_trips(struct ops *o, const char *op, const struct tensor *x, uint32_t trips)
{
    if (trips > MAX_TRIPS)
        ops_exceeds(o, op, x, "loop trips in one invocation", trips, MAX_TRIPS);
}

static bool same_shape(const struct tensor *a, const struct tensor *b)
{
    return a->n == b->n && a->h == b->h && a->w == b->w && a->c == b->c;
}

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
    return (e->mul ? PART_MUL : 0) | (e->residual ? PART_RESIDUAL : 0) |
           (e->scale != 0 && e->scale != 1 ? PART_SCALE : 0);
}

static uint32_t blocks(uint32_t count, uint32_t size)
{
    return (count + size - 1) / size;
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

// The product of each sample by itself.
static void each_sample(struct ops *o, const struct tensor *x, const struct op_weight *w,
                        const struct op_epilogue *e, const struct tensor *y)
{
    for (uint32_t n = 0; n < x->n; n++) {
        struct tensor xs = tensor_samples(x, n, 1), ys = tensor_samples(y, n, 1), mul, residual;
        struct op_epilogue es = e ? *e : (struct op_epilogue){0};
        if (es.mul) {
            mul = tensor_samples(es.mul, n, 1);
            es.mul = &mul;
        }
        if (es.residual) {
            residual = tensor_samples(es.residual, n, 1);
            es.residual = &residual;
        }
        op_conv2d(o, &xs, w, &es, &ys);
    }
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
    call.groups[0] = blocks(w->out, tile.mb);
    if (kernel == K_CONV3_LANE) {
        call.groups[1] = blocks(x->w, sg) * blocks(x->h, tile.p);
        call.groups[2] = x->n;
    } else {
        call.groups[1] = blocks(push.pixels, tile.p * sg);
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
        require_trips(o, "matmul_tile", x, w->kernel * w->kernel * (blocks(push.k4, 4) * 6 + 2));
    ops_dispatch(o,
                 &(struct ops_call){
                     .kernel = K_MATMUL_TILE,
                     .dtype = y->dtype,
                     .weight_dtype = w->packed.dtype,
                     .specs = 4,
                     .spec = {LOCAL, w->kernel, e ? e->act : ACT_NONE, epilogue_parts(e)},
                     .arg = {x, &w->packed, &w->bias, e ? e->mul : NULL, e ? e->residual : NULL, y},
                     .push = &push,
                     .groups = {blocks(w->out, SIDE), blocks(push.pixels, SIDE), 1},
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
    if (ops_too_large(o, x) || ops_too_large(o, y)) {
        each_sample(o, x, w, e, y);
        return;
    }
    if (w->path == PATH_TILE) {
        tile_call(o, x, w, e, y);
        return;
    }
    struct tile t = linear_tile(x, dev->caps->subgroup_size);
    require_trips(o, "linear", x, vec4s(w->in) / t.kv + 2);
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
    if (ops_too_large(o, x) || ops_too_large(o, y)) {
        each_sample(o, x, w, e, y);
        return;
    }
    if (w->path == PATH_TILE) {
        tile_call(o, x, w, e, y);
        return;
    }
    require_trips(o, "conv2d", x, 3 * (vec4s(w->in) + 2));
    lane_call(o, K_CONV3_LANE, x, w, e, y, conv_tile(x, dev->caps->subgroup_size));
}
