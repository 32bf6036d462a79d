// Elementwise operators and those that move pixels, against the reference: odd sizes, views,
// in place, both storage types.
#include "op_test.h"
#include "ref_maps.h"

enum kind { ACT, ADD, ADD_PIXEL, COPY, MEAN, POOL, NEAREST, BILINEAR, UNSHUFFLE, SHUFFLE };
enum { PIXELS = 1 }; // BILINEAR's arg: align_corners is false
static const char *const kind_names[] = {"act",  "add",     "add_pixel", "copy",      "mean_pixels",
                                         "pool", "nearest", "bilinear",  "unshuffle", "shuffle"};

struct row {
    enum kind kind;
    struct ref_shape x;
    uint32_t arg; // activation; patch
    bool view, in_place;
    uint32_t oh, ow;
    float scale;
};

static const struct row rows[] = {
    {ACT, {1, 1, 1, 3}, ACT_SILU},
    {ACT, {2, 5, 7, 12}, ACT_SILU, .view = true},
    {ACT, {3, 1, 77, 130}, ACT_GELU, .in_place = true},
    {ACT, {1, 9, 3, 36}, ACT_GELU_TANH, .view = true},
    {ACT, {1, 64, 64, 32}, ACT_RELU},
    {ACT, {1, 2, 3, 5}, ACT_NONE, .view = true},
    {ADD, {1, 1, 1, 1}, .scale = 1},
    {ADD, {3, 7, 5, 20}, .scale = 0.70710678f, .view = true},
    {ADD, {2, 33, 9, 9}, .scale = 0.5f, .in_place = true},
    {ADD, {2, 1, 1, 64}, .scale = 1},
    {ADD_PIXEL, {1, 7, 5, 24}, .scale = 1},
    {ADD_PIXEL, {3, 4, 9, 44}, .scale = 0.5f, .view = true, .in_place = true},
    {COPY, {2, 7, 5, 20}, .view = true},
    {COPY, {1, 1, 3, 7}, .view = true},
    {COPY, {3, 16, 16, 68}},
    {MEAN, {2, 1, 77, 512}},
    {MEAN, {3, 5, 7, 10}, .view = true},
    {MEAN, {1, 1, 1, 4}},
    {MEAN, {1, 256, 301, 4}},
    {POOL, {1, 2, 2, 4}},
    {POOL, {3, 6, 10, 20}, .view = true},
    {POOL, {2, 7, 9, 7}},
    {POOL, {1, 64, 64, 32}},
    {NEAREST, {1, 1, 1, 4}},
    {NEAREST, {3, 3, 5, 20}, .view = true},
    {NEAREST, {2, 7, 9, 7}},
    {NEAREST, {1, 32, 32, 64}},
    {BILINEAR, {1, 1, 1, 3}, .oh = 4, .ow = 3},
    {BILINEAR, {2, 8, 8, 3}, .oh = 32, .ow = 32, .view = true},
    {BILINEAR, {1, 7, 5, 12}, .oh = 13, .ow = 29},
    {BILINEAR, {1, 9, 16, 4}, .oh = 1, .ow = 5},
    {BILINEAR, {1, 1, 1, 3}, .arg = PIXELS, .oh = 4, .ow = 3},
    {BILINEAR, {2, 8, 8, 3}, .arg = PIXELS, .oh = 32, .ow = 32, .view = true},
    {BILINEAR, {1, 7, 5, 12}, .arg = PIXELS, .oh = 13, .ow = 29},
    {BILINEAR, {1, 9, 16, 4}, .arg = PIXELS, .oh = 1, .ow = 5},
    {UNSHUFFLE, {1, 2, 2, 1}, 2},
    {UNSHUFFLE, {3, 6, 10, 3}, 2, .view = true},
    {UNSHUFFLE, {2, 8, 20, 6}, 4},
    {UNSHUFFLE, {1, 9, 6, 5}, 3, .view = true},
    {UNSHUFFLE, {2, 5, 3, 7}, 1},
    {UNSHUFFLE, {1, 16, 8, 3}, 8},
    {SHUFFLE, {1, 1, 1, 4}, 2},
    {SHUFFLE, {3, 3, 5, 12}, 2, .view = true},
    {SHUFFLE, {2, 7, 9, 96}, 4, .view = true},
    {SHUFFLE, {1, 3, 2, 45}, 3},
    {SHUFFLE, {1, 3, 11, 192}, 8},
};

// DeepFloyd IF's widest maps; two samples of the last ones take two bindings where they are small.
static const struct row full_rows[] = {
    {MEAN, {2, 1, 77, 4096}},
    {NEAREST, {1, 8, 8, 5632}},
    {POOL, {2, 64, 64, 704}, .view = true},
    {NEAREST, {2, 64, 66, 1024}},
    {POOL, {2, 128, 132, 1024}},
    {ADD, {2, 128, 132, 1024}, .scale = 0.5f},
    {ADD_PIXEL, {2, 128, 132, 1024}, .scale = 1, .in_place = true},
};

static bool full; // full_rows: the slow suite

static struct ref_shape result_shape(const struct row *r)
{
    struct ref_shape s = r->x;
    uint32_t p = r->arg;
    switch (r->kind) {
    case MEAN: return (struct ref_shape){s.n, 1, 1, s.c};
    case POOL: return (struct ref_shape){s.n, s.h / 2, s.w / 2, s.c};
    case NEAREST: return (struct ref_shape){s.n, s.h * 2, s.w * 2, s.c};
    case BILINEAR: return (struct ref_shape){s.n, r->oh, r->ow, s.c};
    case UNSHUFFLE: return (struct ref_shape){s.n, s.h / p, s.w / p, s.c * p * p};
    case SHUFFLE: return (struct ref_shape){s.n, s.h * p, s.w * p, s.c / (p * p)};
    default: return s;
    }
}

static void reference(const struct row *r, const float *x, const float *b, double *y)
{
    struct ref_shape s = r->x;
    size_t sample = (size_t)s.h * s.w * s.c;
    switch (r->kind) {
    case MEAN: ref_mean_pixels(x, s, y); break;
    case POOL: ref_avg_pool2(x, s, y); break;
    case NEAREST: ref_upsample_nearest2(x, s, y); break;
    case BILINEAR: ref_upsample_bilinear(x, s, !r->arg, r->oh, r->ow, y); break;
    case UNSHUFFLE: ref_pixel_unshuffle(x, s, r->arg, y); break;
    case SHUFFLE: ref_pixel_shuffle(x, s, r->arg, y); break;
    default:
        for (size_t i = 0; i < ref_count(s); i++) {
            size_t j = r->kind == ADD_PIXEL ? i / sample * s.c + i % s.c : i;
            if (r->kind == ACT)
                y[i] = ref_act((int)r->arg, x[i]);
            else
                y[i] = r->kind == COPY ? x[i] : ((double)x[i] + b[j]) * r->scale;
        }
    }
}

static void record(struct ops *o, const struct row *r, const struct tensor *x,
                   const struct tensor *b, const struct tensor *y)
{
    switch (r->kind) {
    case ACT: op_act(o, (enum op_act)r->arg, x, y); break;
    case ADD:
    case ADD_PIXEL: op_add(o, x, b, r->scale, y); break;
    case COPY: op_copy(o, x, y); break;
    case MEAN: op_mean_pixels(o, x, y); break;
    case POOL: op_avg_pool2(o, x, y); break;
    case NEAREST: op_upsample_nearest2(o, x, y); break;
    case BILINEAR: op_upsample_bilinear(o, !r->arg, x, y); break;
    case UNSHUFFLE: op_pixel_unshuffle(o, r->arg, x, y); break;
    case SHUFFLE: op_pixel_shuffle(o, r->arg, x, y); break;
    }
}

// Values are in [-1, 1). Moving pixels is exact. A sum of two or four: one rounding each. The mean:
// sums along n / 4 values at most, independent roundings. Bilinear: positions up to the width with
// one rounding each move weights of a slope of at most 2 per pixel. Activations: a few ulps of
// their own. Then one store.
static double tolerance(const struct row *r, enum dtype dtype, double want)
{
    double t = 0, position = r->x.w > r->x.h ? r->x.w : r->x.h;
    switch (r->kind) {
    case ACT: t = r->arg == ACT_NONE || r->arg == ACT_RELU ? 0 : 16; break;
    case ADD:
    case ADD_PIXEL:
    case POOL: t = 4; break;
    case MEAN: t = 2 + sqrt((double)r->x.h * r->x.w) / 2; break;
    case BILINEAR: t = 8 + 8 * position; break;
    default: break;
    }
    return t * OP_EPS + op_store_error(dtype, want);
}

static void check(struct ops_device *dev, enum dtype dtype, enum dtype to, const struct row *r)
{
    struct ref_shape ys = result_shape(r), bs = r->x;
    if (r->kind == ADD_PIXEL)
        bs.h = bs.w = 1;
    size_t n = ref_count(ys);
    float *x = op_random(dtype, ref_count(r->x), 1), *b = op_random(dtype, ref_count(bs), 2);
    double *want = calloc(n, sizeof *want), *bound = calloc(n, sizeof *bound);
    reference(r, x, b, want);
    for (size_t i = 0; i < n; i++)
        bound[i] = tolerance(r, to, want[i]) + 1e-30;
    struct op_array ax = op_array(dev, dtype, r->x, x, r->view);
    struct op_array ab = op_array(dev, dtype, bs, b, r->view);
    struct op_array ay = {0};
    if (!r->in_place)
        ay = op_array(dev, to, ys, NULL, r->view);
    const struct tensor *y = r->in_place ? &ax.t : &ay.t;
    struct ops *o = op_begin(dev, dtype);
    record(o, r, &ax.t, &ab.t, y);
    op_finish(o);
    char what[128];
    snprintf(what, sizeof what, "%s %ux%ux%ux%u %s", kind_names[r->kind], r->x.n, r->x.h, r->x.w,
             r->x.c, op_test_variant(dev, dtype));
    op_compare_tensor(what, y, want, bound);
    op_array_free(&ax);
    op_array_free(&ab);
    if (!r->in_place)
        op_array_free(&ay);
    free(x);
    free(b);
    free(want);
    free(bound);
}

// Shapes that do not fit are refused while recording.
static void refuses(struct ops_device *dev, enum dtype dtype)
{
    struct op_array x = op_array(dev, dtype, (struct ref_shape){1, 4, 6, 8}, NULL, false);
    struct op_array y = op_array(dev, dtype, (struct ref_shape){1, 2, 4, 8}, NULL, false);
    static const enum kind kinds[] = {ACT, ADD, COPY, MEAN, POOL, NEAREST, UNSHUFFLE, SHUFFLE};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        struct row r = {.kind = kinds[i], .arg = 2};
        struct ops *o = op_begin(dev, dtype);
        record(o, &r, &x.t, &x.t, &y.t);
        CHECK_MSG(ops_end(o) == ERR_INVALID, "%s", kind_names[r.kind]);
        ops_destroy(&o);
    }
    op_array_free(&x);
    op_array_free(&y);
}

static void body(struct ops_device *dev, enum dtype dtype)
{
    for (size_t i = 0; full && i < sizeof full_rows / sizeof full_rows[0]; i++)
        check(dev, dtype, dtype, &full_rows[i]);
    for (size_t i = 0; !full && i < sizeof rows / sizeof rows[0]; i++) {
        check(dev, dtype, dtype, &rows[i]);
        if (rows[i].kind == COPY)
            check(dev, dtype, dtype == DT_F16 ? DT_F32 : DT_F16, &rows[i]);
    }
    refuses(dev, dtype);
}

int main(int argc, char **argv)
{
    full = argc > 1 && !strcmp(argv[1], "full");
    return op_test_run(body);
}
