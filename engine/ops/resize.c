// Operators that move or combine pixels: mean, pooling, upsampling, pixel (un)shuffle. Called by
// engine/model and engine/pipeline while they record. Thread: the engine's worker.
#include "walk.h"

enum { LOCAL = 64 };

static bool maps_fit(const struct tensor *x, const struct tensor *y)
{
    return x->n == y->n && x->dtype == y->dtype && is_activation(x) && y->h && y->w;
}

void op_mean_pixels(struct ops *o, const struct tensor *x, const struct tensor *y)
{
    if (!ops_require(o, maps_fit(x, y) && x->c == y->c && y->h * y->w == 1, x, y))
        return;
    uint32_t local = walk_local(o, LOCAL), lanes = walk_lanes(vec4s(x->c), local);
    while (lanes && x->h * x->w / (local >> lanes) > QUIRK_MAX_TRIPS / 2)
        lanes--;
    ops_require_trips(o, "mean_pixels", x, (size_t)x->h * x->w / (local >> lanes));
    if (local & (local - 1))
        ops_fail(o, ERR_UNSUPPORTED);
    struct push_shape push = {
        .x = ops_view(o, x),
        .y = ops_view(o, y),
        .walk.lanes = lanes,
        .h = x->h,
        .w = x->w,
        .c = x->c,
    };
    struct ops_call call = {
        .op = OP_MEAN_PIXELS,
        .dtype = x->dtype,
        .specs = 1,
        .spec = {local},
        .arg = {x, y},
        .push = &push,
        .groups = {blocks_of(vec4s(x->c), 1u << lanes), 1, x->n},
    };
    ops_dispatch(o, &call);
}

struct size {
    uint32_t h, w;
};

struct rows_params {
    enum op op;
    const struct tensor *x, *y;
    struct size walked, other; // the map whose rows are walked; push's oh and ow
    struct size push;          // push's h and w
    float sy, sx, first_y, first_x;
};

static void rows(struct ops *o, const struct rows_params *r);

static void rows_part(struct ops *o, const struct tensor *const t[], const void *params)
{
    struct rows_params one = *(const struct rows_params *)params;
    one.x = t[0];
    one.y = t[1];
    rows(o, &one);
}

// As ops_by_rows, where each row of low is as many as `scale` of high. t: low, high.
static bool by_low_rows(struct ops *o, const struct tensor *low, const struct tensor *high,
                        uint32_t scale, ops_part_fn *one, const void *params)
{
    const struct tensor flat = tensor_reshape(high, high->n, low->h, high->w * scale);
    const uint32_t rows = ops_piece_rows(o, (const struct tensor *[]){low, &flat}, 2);
    for (uint32_t first = 0; rows && first < low->h; first += rows) {
        const uint32_t count = low->h - first < rows ? low->h - first : rows;
        const struct tensor a = ops_rows(low, first, count);
        const struct tensor b = ops_rows(high, first * scale, count * scale);
        one(o, (const struct tensor *[]){&a, &b}, params);
    }
    return rows > 0;
}

static void rows(struct ops *o, const struct rows_params *r)
{
    const struct tensor *x = r->x, *split[] = {x, r->y};
    if (ops_by_sample(o, split, 2, rows_part, r))
        return;
    uint32_t local = walk_local(o, LOCAL), lanes = walk_lanes(vec4s(x->c), local);
    uint32_t stride = local >> lanes, blocks = blocks_of(vec4s(x->c), 1u << lanes);
    struct push_shape push = {
        .x = ops_view(o, x),
        .y = ops_view(o, r->y),
        .walk = {lanes, walk_run(o, (size_t)r->walked.w * r->walked.h, blocks, stride)},
        .h = r->push.h,
        .w = r->push.w,
        .c = x->c,
        .oh = r->other.h,
        .ow = r->other.w,
        .sy = r->sy,
        .sx = r->sx,
        .first_y = r->first_y,
        .first_x = r->first_x,
    };
    struct ops_call call = {
        .op = r->op,
        .dtype = x->dtype,
        .specs = 1,
        .spec = {local},
        .arg = {x, r->y},
        .push = &push,
        .groups = {blocks_of(r->walked.w, stride * push.walk.run), r->walked.h, x->n * blocks},
    };
    ops_dispatch(o, &call);
}

void op_avg_pool2(struct ops *o, const struct tensor *x, const struct tensor *y)
{
    bool ok = maps_fit(x, y) && x->c == y->c && y->h == x->h / 2 && y->w == x->w / 2;
    if (!ops_require(o, ok, x, y))
        return;
    struct size small = {y->h, y->w}, large = {x->h, x->w};
    rows(o,
         &(struct rows_params){
             .op = OP_AVG_POOL2, .x = x, .y = y, .walked = small, .push = small, .other = large});
}

static void nearest2_part(struct ops *o, const struct tensor *const t[], const void *params)
{
    (void)params;
    op_upsample_nearest2(o, t[0], t[1]);
}

void op_upsample_nearest2(struct ops *o, const struct tensor *x, const struct tensor *y)
{
    const struct tensor *const split[] = {x, y};
    bool ok = maps_fit(x, y) && x->c == y->c && y->h == x->h * 2 && y->w == x->w * 2;
    if (!ops_require(o, ok, x, y) || ops_by_sample(o, split, 2, nearest2_part, NULL) ||
        by_low_rows(o, x, y, 2, nearest2_part, NULL))
        return;
    struct size small = {x->h, x->w}, large = {y->h, y->w};
    rows(o, &(struct rows_params){.op = OP_UPSAMPLE_NEAREST2,
                                  .x = x,
                                  .y = y,
                                  .walked = small,
                                  .push = small,
                                  .other = large});
}

static float sampling_step(uint32_t from, uint32_t to, bool corners)
{
    if (!corners)
        return (float)from / (float)to;
    return to > 1 ? (float)(from - 1) / (float)(to - 1) : 0;
}

void op_upsample_bilinear(struct ops *o, bool align_corners, const struct tensor *x,
                          const struct tensor *y)
{
    const float sy = sampling_step(x->h, y->h, align_corners);
    const float sx = sampling_step(x->w, y->w, align_corners);

    if (!ops_require(o, maps_fit(x, y) && x->c == y->c && x->h && x->w, x, y))
        return;
    struct size small = {x->h, x->w}, large = {y->h, y->w};
    rows(o, &(struct rows_params){.op = OP_UPSAMPLE_BILINEAR,
                                  .x = x,
                                  .y = y,
                                  .walked = large,
                                  .push = small,
                                  .other = large,
                                  .sy = sy,
                                  .sx = sx,
                                  .first_y = align_corners ? 0 : sy / 2 - .5f,
                                  .first_x = align_corners ? 0 : sx / 2 - .5f});
}

struct shuffle_params {
    enum op op;
    uint32_t p;
};

static void shuffle(struct ops *o, enum op op, uint32_t p, const struct tensor *x,
                    const struct tensor *y);

static void shuffle_sample(struct ops *o, const struct tensor *const t[], const void *params)
{
    const struct shuffle_params *s = params;
    shuffle(o, s->op, s->p, t[0], t[1]);
}

// t: low, high.
static void shuffle_rows(struct ops *o, const struct tensor *const t[], const void *params)
{
    const struct shuffle_params *s = params;
    const bool down = s->op == OP_PIXEL_UNSHUFFLE;
    shuffle(o, s->op, s->p, t[down ? 1 : 0], t[down ? 0 : 1]);
}

// low: the map with few pixels and many channels, c: channels of the other one.
static void shuffle(struct ops *o, enum op op, uint32_t p, const struct tensor *x,
                    const struct tensor *y)
{
    const struct tensor *const split[] = {x, y};
    const struct shuffle_params params = {op, p};
    const struct tensor *low = op == OP_PIXEL_UNSHUFFLE ? y : x;
    const struct tensor *high = op == OP_PIXEL_UNSHUFFLE ? x : y;
    bool ok = maps_fit(x, y) && p && high->h == low->h * p && high->w == low->w * p;
    if (!ops_require(o, ok && low->c == high->c * p * p, x, y))
        return;
    if (p == 1) {
        op_copy(o, x, y);
        return;
    }
    if (ops_by_sample(o, split, 2, shuffle_sample, &params) ||
        by_low_rows(o, low, high, p, shuffle_rows, &params))
        return;
    uint32_t local = walk_local(o, LOCAL);
    struct push_shape push = {
        .x = ops_view(o, x), .y = ops_view(o, y), .h = low->h, .w = low->w, .c = high->c};
    struct ops_call call = {
        .op = op,
        .dtype = x->dtype,
        .specs = 2,
        .spec = {local, p},
        .arg = {x, y},
        .push = &push,
        .groups = {blocks_of(low->w, local), low->h, low->n},
    };
    ops_require_trips(o, op == OP_PIXEL_UNSHUFFLE ? "pixel_unshuffle" : "pixel_shuffle", low,
                      (size_t)low->c * 6);
    ops_dispatch(o, &call);
}

void op_pixel_unshuffle(struct ops *o, uint32_t p, const struct tensor *x, const struct tensor *y)
{
    shuffle(o, OP_PIXEL_UNSHUFFLE, p, x, y);
}

void op_pixel_shuffle(struct ops *o, uint32_t p, const struct tensor *x, const struct tensor *y)
{
    shuffle(o, OP_PIXEL_SHUFFLE, p, x, y);
}
