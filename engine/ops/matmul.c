// Linear layers and convolutions: shape checks, one dispatch each, and the plans of their kernels.
// A plan looks at one sample's shape, never at the batch. Called by engine/model while it
// records. Thread: the engine's worker.
#include "walk.h"
#include "winograd.h"

#include <assert.h>
#include <string.h>

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

static uint32_t epilogue_parts(const struct op_epilogue *e)
{
    return (e->mul ? MATMUL_MUL : 0) | (e->residual ? MATMUL_RESIDUAL : 0) |
           (e->scale != 0 && e->scale != 1 ? MATMUL_SCALE : 0);
}

// ---- plans ----------------------------------------------------------------------------------

// Few loads per multiply-add want large tiles; tiles that hang over the end waste lanes. mb must be
// a multiple of the subgroup size.
static struct tile linear_tile(uint32_t tokens, uint32_t sg)
{
    if (tokens <= sg)
        return (struct tile){.mb = 32, .p = 1, .kv = 1};
    if (tokens <= 2 * sg)
        return (struct tile){.mb = 32, .p = 2, .kv = 1};
    if (tokens % (8 * sg) == 0 || tokens >= 32 * sg)
        return (struct tile){.mb = 16, .p = 8, .kv = 1};
    return (struct tile){.mb = 32, .p = 4, .kv = 1};
}

static void lane_call(const struct vk_caps *caps, const struct problem *p, struct tile t,
                      struct ops_call *call)
{
    const uint32_t sg = caps->subgroup_size;
    const uint32_t spec[] = {sg, sg, t.mb, t.p, t.kv, p->act, p->parts};
    call->specs = sizeof spec / sizeof spec[0];
    memcpy(call->spec, spec, sizeof spec);
    call->groups[0] = blocks_of(p->out, t.mb);
}

static double work(const struct problem *p, double outputs)
{
    return 2.0 * p->n * outputs * vec4s(p->in) * 4 * p->taps;
}

bool plan_linear_lane(const struct vk_caps *caps, const struct problem *p, struct ops_call *call)
{
    const uint32_t sg = caps->subgroup_size, tokens = p->h * p->w;
    const struct tile t = linear_tile(tokens, sg);
    lane_call(caps, p, t, call);
    call->groups[1] = blocks_of(p->n * tokens, t.p * sg);
    call->groups[2] = 1;
    call->trips = vec4s(p->in) / t.kv + 2;
    call->work = work(p, (double)call->groups[0] * t.mb * tokens);
    return true;
}

bool plan_conv3_lane(const struct vk_caps *caps, const struct problem *p, struct ops_call *call)
{
    const uint32_t sg = caps->subgroup_size;
    const struct tile t = {
        .mb = sg < 8 ? 8 : sg, .p = p->h % 8 == 0 || p->h >= 32 ? 8 : 4, .kv = 1};
    const uint32_t columns = blocks_of(p->w, sg), lines = blocks_of(p->h, t.p);
    lane_call(caps, p, t, call);
    call->groups[1] = columns * lines;
    call->groups[2] = p->n;
    call->trips = 3 * (vec4s(p->in) + 2);
    call->work = work(p, (double)call->groups[0] * t.mb * columns * sg * lines * t.p);
    return true;
}

// Tiles of 4 x 4 pixels, of all samples in a row; see conv3_winograd.comp. The weights are four
// times as large as the taps: only layers whose weights stay in a cache are worth it, and their
// memory.
bool plan_conv3_winograd(const struct vk_caps *caps, const struct problem *p, struct ops_call *call)
{
    enum { MOST_WEIGHTS = 1 << 15 }; // of one position
    const uint32_t sg = caps->subgroup_size, tiles = blocks_of(p->w, 4) * blocks_of(p->h, 4);
    // Sixteen channels at a time, unless a half of the last ones would be computed for nothing.
    const bool narrow = sg <= 8 && (p->out - 1) % 16 < 8 && p->out > 16;
    const struct tile t = {.mb = narrow ? 8 : 16, .p = narrow ? 4 : sg <= 8 ? 2 : 1, .kv = 1};
    if ((uint64_t)p->in * p->out > MOST_WEIGHTS)
        return false;
    lane_call(caps, p, t, call);
    call->groups[1] = blocks_of(p->n * tiles, sg * t.p);
    call->groups[2] = 1;
    call->trips = 6 * (6 * (vec4s(p->in) + 2) + 2);
    call->work =
        work(p, (double)call->groups[0] * t.mb * blocks_of(tiles, sg * t.p) * sg * t.p * 16);
    return true;
}

// Tiles of 64 output channels by 64 pixels, of all samples in a row; see matmul_tile.comp.
bool plan_matmul_tile(const struct vk_caps *caps, const struct problem *p, struct ops_call *call)
{
    enum { LOCAL = 64, SIDE = 64 };
    const uint32_t pixels = p->h * p->w;
    const uint32_t spec[] = {LOCAL, p->taps == 1 ? 1 : 3, p->act, p->parts};
    call->specs = sizeof spec / sizeof spec[0];
    memcpy(call->spec, spec, sizeof spec);
    call->groups[0] = blocks_of(p->out, SIDE);
    call->groups[1] = blocks_of(p->n * pixels, SIDE);
    call->groups[2] = 1;
    call->shared_bytes = 2 * 16 * 17 * 16; // w_tile and x_tile
    // Per tap and 16 channels: the loops over tiles, over the quarters of one, and its end.
    call->trips = p->taps * (blocks_of(vec4s(p->in), 4) * 6 + 2);
    call->work = work(p, (double)call->groups[0] * SIDE * pixels);
    return true;
}

// The tile of a workgroup of matmul_matrix.comp, and who computes it.
struct matrix_tile {
    uint32_t channels, pixels;
    uint32_t subgroups, along; // of a share; of these, along the channels
    uint32_t shares;
    uint32_t sets, depth; // of tiles in shared memory; inputs of a step
};

// split: halves of an activation.
static size_t matrix_bytes(const struct vk_caps *caps, const struct matrix_tile *t, uint32_t split)
{
    const size_t row = (t->depth / 8 + 1) * 16, lines = t->channels + split * t->pixels;
    const size_t tiles = t->sets * t->shares * lines * row;
    const size_t patches = (size_t)t->shares * t->along * t->pixels * caps->matrix.m * 4;
    return tiles > patches ? tiles : patches;
}

// How much longer a GPU takes because a sample's workgroups leave part of it idle. A guess: an H100
// computed the convolutions of 8 x 8 pixels at a quarter of the speed of those of larger maps.
static double idle_factor(const struct vk_caps *caps, double workgroups)
{
    enum { FULL = 96, MOST = 4 };
    const double factor = FULL / workgroups;
    return caps->cpu || factor < 1 ? 1 : factor < MOST ? factor : MOST;
}

// The tile's sides, sets and depth change no bit of a result; its shares do.
static bool plan_matrix(const struct vk_caps *caps, const struct problem *p, struct matrix_tile t,
                        uint32_t split, struct ops_call *call)
{
    const uint32_t m = caps->matrix.m, n = caps->matrix.n, k = caps->matrix.k;
    const uint32_t members = t.subgroups * caps->subgroup_size, pixels = p->h * p->w;
    if (t.shares == 1 && matrix_bytes(caps, &t, split) > caps->max_shared_bytes)
        t.depth = 16;
    const uint32_t eights = t.depth / 8, band = t.channels / t.along;
    const uint32_t strip = t.pixels * t.along / t.subgroups;
    const uint32_t each_w = members ? t.channels * eights / members : 0;
    const uint32_t each_x = members ? t.pixels * eights / members : 0;
    // Every invocation loads as many vectors as the others.
    if (!m || m % 4 || !n || !k || k % 8 || band % m || strip % n || t.depth % k ||
        members % eights || !each_w || each_w * members != t.channels * eights || !each_x ||
        each_x * members != t.pixels * eights)
        return false;
    const uint32_t chunks = p->taps * blocks_of(p->in, t.depth);
    const uint32_t steps = blocks_of(chunks, t.shares);
    const bool whole = p->in % t.depth == 0 && chunks % t.shares == 0;
    const uint32_t spec[] = {t.shares * members,
                             p->taps == 1 ? 1 : 3,
                             p->act,
                             p->parts,
                             m,
                             n,
                             k,
                             t.channels,
                             t.pixels,
                             t.subgroups,
                             t.along,
                             t.shares,
                             t.sets,
                             t.depth,
                             each_w,
                             each_x,
                             p->eights,
                             whole};
    call->specs = sizeof spec / sizeof spec[0];
    memcpy(call->spec, spec, sizeof spec);
    call->groups[0] = blocks_of(p->out, t.channels);
    call->groups[1] = blocks_of(p->n * pixels, t.pixels);
    call->groups[2] = 1;
    call->shared_bytes = matrix_bytes(caps, &t, split);
    call->trips = (size_t)steps * (t.depth / k * 2 + 2 * (each_w + each_x) + 4) +
                  band / m * (m * strip / 4 / caps->subgroup_size + 2);
    const double blocks = (double)call->groups[0] * blocks_of(pixels, t.pixels);
    call->work = work(p, blocks * t.channels * t.pixels) *
                 (split == 1 ? idle_factor(caps, blocks * t.shares) : 1);
    return true;
}

// Channels and pixels, subgroups and those along the channels, shares, sets, depth.
static const struct matrix_tile narrow = {64, 64, 4, 2, 1, 2, 32};
static const struct matrix_tile wide = {128, 128, 8, 2, 1, 2, 32};
static const struct matrix_tile large = {128, 128, 4, 2, 1, 2, 32};
static const struct matrix_tile shared = {32, 64, 2, 1, 4, 1, 32};

bool plan_matmul_matrix(const struct vk_caps *caps, const struct problem *p, struct ops_call *call)
{
    return plan_matrix(caps, p, narrow, 1, call);
}

bool plan_matmul_matrix_wide(const struct vk_caps *caps, const struct problem *p,
                             struct ops_call *call)
{
    return plan_matrix(caps, p, wide, 1, call);
}

bool plan_matmul_matrix_large(const struct vk_caps *caps, const struct problem *p,
                              struct ops_call *call)
{
    return plan_matrix(caps, p, large, 1, call);
}

bool plan_matmul_matrix_shares(const struct vk_caps *caps, const struct problem *p,
                               struct ops_call *call)
{
    return plan_matrix(caps, p, shared, 1, call);
}

// Three tiles: weights, and the high and low halves of pixels. Their common factors take a pass
// over the inputs, and a word each.
bool plan_matmul_matrix_split(const struct vk_caps *caps, const struct problem *p,
                              struct ops_call *call)
{
    if (p->taps != 1 || !plan_matrix(caps, p, narrow, 2, call))
        return false;
    call->shared_bytes += narrow.pixels * sizeof(uint32_t);
    call->trips += call->trips + narrow.pixels;
    return true;
}

// ---- operators ------------------------------------------------------------------------------

struct product_params {
    const struct op_weight *w;
    struct op_epilogue epilogue;
};

static void product_of_part(struct ops *o, const struct tensor *const t[], const void *params)
{
    const struct product_params *p = params;
    struct op_epilogue e = p->epilogue;
    e.mul = t[2];
    e.residual = t[3];
    op_conv2d(o, t[0], p->w, &e, t[1]);
}

// e for rows of its maps t[2] and t[3], which are cut into `maps`.
static struct op_epilogue epilogue_rows(const struct op_epilogue *e, const struct tensor *const t[],
                                        uint32_t first, uint32_t rows, struct tensor maps[2])
{
    struct op_epilogue cut = *e;
    const struct tensor **const to[] = {&cut.mul, &cut.residual};
    for (int i = 0; i < 2; i++) {
        if (t[2 + i])
            maps[i] = ops_rows(t[2 + i], first, rows);
        *to[i] = t[2 + i] ? &maps[i] : NULL;
    }
    return cut;
}

// Rows of a convolution's piece: computed with their neighbors above and below, whose own results
// are wrong, in other memory.
static void conv_piece(struct ops *o, const struct tensor *const t[],
                       const struct product_params *p, uint32_t first, uint32_t rows)
{
    const uint32_t above = first ? 1 : 0, left = t[0]->h - first - rows;
    const uint32_t top = first - above, height = above + rows + (left ? 1 : 0);
    const struct tensor x = ops_rows(t[0], top, height), y = ops_rows(t[1], first, rows);
    struct tensor maps[2], out = ops_temp_dtype(o, y.dtype, 1, height, y.w, y.c);
    const struct op_epilogue e = epilogue_rows(&p->epilogue, t, top, height, maps);
    op_conv2d(o, &x, p->w, &e, &out);
    const struct tensor inner = ops_rows(&out, above, rows);
    op_copy(o, &inner, &y);
    ops_release(o, &out);
}

static bool conv_by_rows(struct ops *o, const struct tensor *const t[],
                         const struct product_params *p)
{
    enum { HALO = 2, BLOCK = 8 }; // kernels compute so many rows at a time
    uint32_t rows = ops_piece_rows(o, t, 4);
    if (rows > HALO + BLOCK)
        rows = rows / BLOCK * BLOCK - HALO;
    for (uint32_t first = 0; rows && first < t[0]->h; first += rows)
        conv_piece(o, t, p, first, t[0]->h - first < rows ? t[0]->h - first : rows);
    return rows > 0;
}

static bool in_parts(struct ops *o, const struct tensor *x, const struct op_weight *w,
                     const struct op_epilogue *e, const struct tensor *y)
{
    const struct product_params p = {w, e ? *e : (struct op_epilogue){0}};
    const struct tensor *split[] = {x, y, p.epilogue.mul, p.epilogue.residual};
    if (ops_by_sample(o, split, 4, product_of_part, &p))
        return true;
    return w->kernel == 1 ? ops_by_rows(o, split, 4, product_of_part, &p)
                          : conv_by_rows(o, split, &p);
}

// x: the map, or its tiles for conv3_winograd; operands: how many pixels, or tiles.
static void dispatch_product(struct ops *o, const struct tensor *x, uint32_t operands,
                             const struct product_params *p, const struct tensor *y)
{
    const struct op_weight *w = p->w;
    const struct op_epilogue *e = &p->epilogue;
    struct tensor packed, bias;
    const struct push_matmul push = {
        .x = ops_view(o, x),
        .mul = ops_view(o, e->mul),
        .residual = ops_view(o, e->residual),
        .y = ops_view(o, y),
        .pixels = operands,
        .n = y->n,
        .h = y->h,
        .w = y->w,
        .k4 = vec4s(w->in),
        .m4 = vec4s(w->out),
        .scale = e->scale != 0 ? e->scale : 1,
        .scales = w->scales,
    };
    const struct problem problem = {
        .n = y->n,
        .h = y->h,
        .w = y->w,
        .in = w->in,
        .out = w->out,
        .taps = w->kernel * w->kernel,
        .act = e->act,
        .parts = epilogue_parts(e),
        .layout = w->layout,
        .eights = tensor_in_eights(x) && vec4s(w->in) % 2 == 0,
    };
    ops_place(o, w, &packed, &bias);
    assert(packed.offset * tensor_dtype_bytes(packed.dtype) % 16 == 0); // problem.eights
    ops_dispatch(o, &(struct ops_call){
                        .op = w->kernel == 1 ? OP_LINEAR : OP_CONV3,
                        .dtype = y->dtype,
                        .weight_dtype = w->format,
                        .problem = &problem,
                        .arg = {x, &packed, &bias, e->mul, e->residual, y},
                        .push = &push,
                        .flops = 2.0 * tensor_pixels(y) * w->in * w->out * problem.taps,
                    });
}

// Rows of all samples, or of one. t: as conv_piece.
static void winograd_piece(struct ops *o, const struct tensor *const t[],
                           const struct product_params *p, uint32_t first, uint32_t rows)
{
    const uint32_t k4 = vec4s(p->w->in), local = walk_local(o, 64);
    const uint32_t tiles = t[1]->n * blocks_of(rows, 4) * blocks_of(t[1]->w, 4);
    const struct tensor y = ops_rows(t[1], first, rows);
    const struct tensor tiled = ops_temp_dtype(o, DT_F32, 1, 1, tiles, WINOGRAD_POSITIONS * 4 * k4);
    struct tensor maps[2];
    const struct product_params piece = {p->w, epilogue_rows(&p->epilogue, t, first, rows, maps)};
    const struct push_winograd push = {
        .x = ops_view(o, t[0]),
        .y = ops_view(o, &tiled),
        .w = t[0]->w,
        .h = t[0]->h,
        .k4 = k4,
        .top = first,
        .rows = rows,
        .tiles = tiles,
    };
    struct ops_call call = {
        .op = OP_WINOGRAD_TILES,
        .dtype = t[0]->dtype,
        .specs = 1,
        .spec = {local},
        .arg = {t[0], &tiled},
        .push = &push,
    };
    ops_groups(ops_recorder_device(o)->caps, (size_t)tiles * k4, local, call.groups);
    ops_dispatch(o, &call);
    dispatch_product(o, &tiled, tiles, &piece, &y);
    ops_release(o, &tiled);
}

// In pieces whose tiles stay in a cache: all samples, or rows of one.
static void winograd(struct ops *o, const struct tensor *x, const struct product_params *p,
                     const struct tensor *y)
{
    enum { CACHED = 1 << 20, SIDE = 4 }; // bytes
    const struct tensor *all[] = {x, y, p->epilogue.mul, p->epilogue.residual};
    const size_t tile = (size_t)WINOGRAD_POSITIONS * vec4s(p->w->in) * 4 * sizeof(float);
    const size_t lines = CACHED / (tile * blocks_of(x->w, SIDE));
    const uint32_t rows = lines > 1 ? (uint32_t)lines * SIDE : SIDE;
    if (tile * blocks_of(x->w, SIDE) * blocks_of(x->h, SIDE) * x->n <= CACHED) {
        winograd_piece(o, all, p, 0, x->h);
        return;
    }
    for (uint32_t n = 0; n < x->n; n++) {
        struct tensor one[4];
        const struct tensor *t[4] = {0};
        for (int i = 0; i < 4; i++)
            if (all[i]) {
                one[i] = tensor_samples(all[i], n, 1);
                t[i] = &one[i];
            }
        for (uint32_t first = 0; first < x->h; first += rows)
            winograd_piece(o, t, p, first, x->h - first < rows ? x->h - first : rows);
    }
}

static void product(struct ops *o, const struct tensor *x, const struct op_weight *w,
                    const struct op_epilogue *e, const struct tensor *y)
{
    const struct product_params p = {w, e ? *e : (struct op_epilogue){0}};
    if (w->layout == LAYOUT_WINOGRAD)
        winograd(o, x, &p, y);
    else
        dispatch_product(o, x, tensor_pixels(x), &p, y);
}

// The weights' shape, for messages.
static struct tensor weights_shape(const struct op_weight *w)
{
    return (struct tensor){
        .dtype = w->format, .n = w->out, .h = w->kernel, .w = w->kernel, .c = w->in};
}

void op_linear(struct ops *o, const struct tensor *x, const struct op_weight *w,
               const struct op_epilogue *e, const struct tensor *y)
{
    const struct tensor shape = weights_shape(w);
    if (ops_require(o, w->kernel == 1 && shapes_fit(x, w, e, y), x, &shape, y, e ? e->mul : NULL,
                    e ? e->residual : NULL) &&
        !in_parts(o, x, w, e, y))
        product(o, x, w, e, y);
}

void op_conv2d(struct ops *o, const struct tensor *x, const struct op_weight *w,
               const struct op_epilogue *e, const struct tensor *y)
{
    const struct tensor shape = weights_shape(w);
    if (w->kernel == 1)
        op_linear(o, x, w, e, y);
    else if (ops_require(o, shapes_fit(x, w, e, y), x, &shape, y, e ? e->mul : NULL,
                         e ? e->residual : NULL) &&
             !in_parts(o, x, w, e, y))
        product(o, x, w, e, y);
}
