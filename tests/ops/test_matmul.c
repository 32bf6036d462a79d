// Linear layers and convolutions against the reference, over odd shapes, views and epilogues.
#include "op_test.h"

struct row {
    struct ref_shape x;
    uint32_t out, kernel;
    enum op_act act;
    bool bias, mul, residual, view, in_place;
    float scale;
};

static const struct row rows[] = {
    {{1, 1, 1, 4}, 4, 1},
    {{3, 1, 1, 40}, 24, 1, ACT_SILU, .bias = true},
    {{1, 3, 5, 8}, 12, 1, .bias = true},
    {{2, 7, 9, 12}, 40, 1, ACT_GELU, .bias = true, .view = true},
    {{1, 1, 77, 176}, 24, 1, ACT_GELU_TANH, .mul = true},
    {{2, 1, 13, 6}, 3, 1, ACT_NONE, .bias = true, .view = true},
    {{2, 16, 16, 24}, 8, 1, .residual = true, .scale = 0.70710678f},
    {{1, 7, 9, 40}, 40, 1, ACT_RELU, .residual = true, .view = true, .in_place = true},
    {{1, 1, 33, 1408}, 36, 1, .bias = true},
    {{1, 1, 1, 4}, 4, 3},
    {{1, 3, 5, 8}, 12, 3, .bias = true},
    {{3, 7, 9, 12}, 24, 3, ACT_SILU, .bias = true, .view = true},
    {{2, 16, 16, 40}, 8, 3, .bias = true, .residual = true, .scale = 0.5f},
    {{1, 1, 17, 176}, 40, 3, .view = true},
    {{2, 5, 3, 3}, 5, 3, .bias = true},
    {{1, 7, 9, 24}, 24, 3, .bias = true, .residual = true, .view = true, .in_place = true},
    {{1, 9, 23, 6}, 6, 3, .bias = true, .mul = true},
};

// Inputs that formats with scales divide: one block and several, few and many outputs, both
// kernels. A software driver compiles each for seconds: the widest tile is for one way and storage
// only.
static const struct row packed_rows[] = {
    {{1, 1, 5, 32}, 4, 1},
    {{2, 7, 9, 96}, 36, 3, .bias = true, .residual = true, .scale = 0.5f},
    {{2, 7, 9, 64}, 40, 1, ACT_GELU, .bias = true, .view = true},
};

// The widest of DeepFloyd IF: convolutions at the bottom of I-XL, T5-XXL's second feed-forward
// matrix, the text's way into the U-Net; a map that takes two bindings where they are small.
static const struct row full_rows[] = {
    {{2, 4, 4, 5632}, 64, 3, .bias = true},
    {{1, 2, 2, 5632}, 2816, 3, .bias = true},
    {{1, 3, 5, 4928}, 36, 1, .bias = true, .view = true},
    {{1, 1, 9, 10240}, 4096, 1, .residual = true},
    {{1, 1, 77, 4096}, 192, 1, ACT_GELU_TANH, .mul = true},
    {{2, 128, 132, 1024}, 4, 3, .bias = true},
};

static bool full; // full_rows: the slow suite

static struct op_weight *make_weight(struct ops_device *dev, enum dtype dtype, const struct row *r,
                                     const float *weight, const float *bias)
{
    struct op_weight *w = NULL;
    struct op_weight_params p = {.weight = weight,
                                 .bias = bias,
                                 .out = r->out,
                                 .in = r->x.c,
                                 .kernel = r->kernel,
                                 .dtype = dtype};
    CHECK_INT(op_weight_create(dev, &p, &w), ERR_OK);
    return w;
}

// Rounding errors of a sum of k products in any order: at most k * eps * (sum of |products|). Long
// sums of both signs come nowhere near: their partial sums are a random walk of about sqrt(j)
// steps, which makes eps * (sum of |products|) / 2 of deviation; 16 of it hold for any number of
// elements. split: f32 activations on matrix units, as two halves within 2^-23. activations: slope
// at most 1.13 (GELU) and a few ulps of their own; then one store.
static void tolerances(const struct row *r, enum dtype dtype, bool split, const float *mul,
                       const double *want, double *magnitude, size_t n)
{
    double k = (full ? 8 : (double)r->x.c * r->kernel * r->kernel + 2) + (split ? 4 : 0);
    for (size_t i = 0; i < n; i++) {
        double sum = 1.13 * k * OP_EPS * magnitude[i];
        double own = r->act ? 16 * OP_EPS * (1 + magnitude[i]) : 0;
        double t = (sum + own) * (mul ? fabs(mul[i]) : 1) + 4 * OP_EPS * (1 + fabs(want[i]));
        magnitude[i] = t + op_store_error(dtype, want[i]) + 1e-30;
    }
}

// A sample alone gives the same bits as in a batch.
static void check_alone(struct ops_device *dev, enum dtype dtype, const struct tensor *x,
                        const struct op_weight *w, const struct op_epilogue *e,
                        const struct tensor *y)
{
    struct ref_shape s = {1, y->h, y->w, y->c};
    struct op_array alone = op_array(dev, dtype, s, NULL, false);
    uint32_t last = x->n - 1;
    struct tensor xs = tensor_samples(x, last, 1), ys = tensor_samples(y, last, 1), mul, residual;
    struct op_epilogue es = *e;
    if (e->mul) {
        mul = tensor_samples(e->mul, last, 1);
        es.mul = &mul;
    }
    if (e->residual) {
        residual = tensor_samples(e->residual, last, 1);
        es.residual = &residual;
    }
    struct ops *o = op_begin(dev, dtype);
    op_conv2d(o, &xs, w, &es, &alone.t);
    float *a = calloc(ref_count(s), sizeof *a), *b = calloc(ref_count(s), sizeof *b);
    if (op_finish(o)) {
        CHECK_INT(tensor_download(&ys, a), ERR_OK);
        CHECK_INT(tensor_download(&alone.t, b), ERR_OK);
        CHECK_MSG(!memcmp(a, b, ref_count(s) * sizeof *a), "%s k%u n%u: differs alone",
                  op_test_variant(dev, dtype), w->kernel, x->n);
    }
    op_array_free(&alone);
    free(a), free(b);
}

static int bits_of(enum dtype weights)
{
    return weights == DT_Q4 ? 4 : weights == DT_Q8 ? 8 : 16;
}

static const char *name_of(enum dtype weights)
{
    static const char *const names[] = {
        [DT_F32] = "f32", [DT_F16] = "f16", [DT_BF16] = "bf16", [DT_Q8] = "q8", [DT_Q4] = "q4"};
    return names[weights];
}

static void run_row(struct ops_device *dev, enum dtype dtype, enum dtype weights,
                    const struct row *r)
{
    struct ref_shape ys = r->x;
    ys.c = r->out;
    size_t n = ref_count(ys), taps = (size_t)r->kernel * r->kernel;
    float *x = op_random(dtype, ref_count(r->x), 1);
    float *weight = op_random(weights, r->out * r->x.c * taps, 2);
    float *bias = r->bias ? op_random(DT_F32, r->out, 3) : NULL;
    float *mul = r->mul ? op_random(dtype, n, 4) : NULL;
    float *residual = r->residual ? op_random(dtype, n, 5) : NULL;
    double *want = calloc(n, sizeof *want), *tolerance = calloc(n, sizeof *tolerance);
    float *whole = weight;
    const struct problem p = {
        .n = 1, .h = r->x.h, .w = r->x.w, .in = r->x.c, .out = r->out, .taps = (uint32_t)taps};
    const bool matrix =
        op_test_on_matrix_units(dev, r->kernel == 1 ? OP_LINEAR : OP_CONV3, dtype, weights, &p);
    if (weights != DT_F32 && weights != DT_F16) {
        whole = malloc(r->out * r->x.c * taps * sizeof *whole);
        for (size_t i = 0; i < r->out * r->x.c * taps; i++)
            whole[i] = i % 97 ? weight[i] * (float)(1 + i % 7) / 5 : 0; // blocks of various scales
        memcpy(weight, whole, r->out * r->x.c * taps * sizeof *whole);
        ref_quantize(weight, r->out, r->x.c, (uint32_t)taps, bits_of(weights));
        // Matrix units take halves.
        for (size_t i = 0; matrix && i < r->out * r->x.c * taps; i++)
            weight[i] = float_from_half(half_from_float(weight[i]));
    }
    struct ref_matmul ref = {r->x,     x,      weight,    bias,        mul,
                             residual, r->out, r->kernel, (int)r->act, r->scale};
    ref_matmul(&ref, want, tolerance);
    tolerances(r, dtype, matrix && dtype == DT_F32, mul, want, tolerance, n);

    struct op_weight *w = make_weight(dev, weights, r, whole, bias);
    struct op_array ax = op_array(dev, dtype, r->x, x, r->view), am = {0}, ar = {0};
    struct op_array ay = op_array(dev, dtype, ys, r->in_place ? residual : NULL, r->view);
    struct op_epilogue e = {.act = r->act, .scale = r->scale};
    if (mul) {
        am = op_array(dev, dtype, ys, mul, r->view);
        e.mul = &am.t;
    }
    if (residual && !r->in_place) {
        ar = op_array(dev, dtype, ys, residual, r->view);
        e.residual = &ar.t;
    } else if (residual) {
        e.residual = &ay.t;
    }
    struct ops *o = op_begin(dev, dtype);
    op_conv2d(o, &ax.t, w, &e, &ay.t);
    if (op_finish(o)) {
        char what[128];
        snprintf(what, sizeof what, "%s/%s k%u %ux%ux%ux%u -> %u", op_test_variant(dev, dtype),
                 name_of(weights), r->kernel, r->x.n, r->x.h, r->x.w, r->x.c, r->out);
        op_compare_tensor(what, &ay.t, want, tolerance);
        if (r->x.n > 1 && !r->in_place)
            check_alone(dev, dtype, &ax.t, w, &e, &ay.t);
    }
    op_weight_destroy(&w);
    op_array_free(&ax);
    op_array_free(&ay);
    if (am.t.buf)
        op_array_free(&am);
    if (ar.t.buf)
        op_array_free(&ar);
    if (whole != weight)
        free(whole);
    free(x), free(weight), free(bias), free(mul), free(residual), free(want), free(tolerance);
}

// A matrix that one binding cannot span is for devices and paths with larger ones.
static bool possible(const struct ops_device *dev, enum dtype dtype, const struct row *r)
{
    size_t bytes = (size_t)r->out * r->x.c * r->kernel * r->kernel * tensor_dtype_bytes(dtype);
    return strstr(op_test_way(), "texel") || bytes <= dev->caps->max_storage_range;
}

// The bytes that each format takes, and that inputs which do not divide into blocks stay halves.
static void test_bytes(struct ops_device *dev)
{
    static const struct {
        enum dtype format;
        uint32_t in;
        double bits; // of a weight
    } cases[] = {{DT_F32, 64, 32}, {DT_F16, 64, 16}, {DT_BF16, 64, 16}, {DT_Q8, 64, 8.5},
                 {DT_Q4, 64, 4.5}, {DT_Q8, 48, 16},  {DT_Q4, 36, 16},   {DT_BF16, 36, 16}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct row r = {.x = {.c = cases[i].in}, .out = 32, .kernel = 1};
        float *v = op_random(DT_F32, (size_t)32 * cases[i].in, 1);
        struct op_weight *w = make_weight(dev, cases[i].format, &r, v, NULL);
        CHECK_NEAR(op_weight_bytes(w), 32 * cases[i].in * cases[i].bits / 8 + 32 * sizeof(float),
                   0);
        op_weight_destroy(&w);
        free(v);
    }
}

// The proof of matrix units succeeds on a software device that has them, and fails on one that has
// none.
static void test_proof(struct ops_device *dev)
{
    bool good, has = dev->caps->matrix.m && kernels_have_matrix_units();
    CHECK_INT(ops_prove_matrix(dev, &good), ERR_OK);
    CHECK_INT(good, has);
}

// f32 activations of any magnitude on matrix units: pixels far apart, channels of a pixel far
// apart, and a pixel of zeros. Those below 2^-39 of a pixel's largest may be lost.
static void test_split(struct ops_device *dev)
{
    enum { PIXELS = 70, IN = 68, OUT = 40 };
    const struct problem p = {.n = 1, .h = 1, .w = PIXELS, .in = IN, .out = OUT, .taps = 1};
    const struct row r = {.x = {1, 1, PIXELS, IN}, .out = OUT, .kernel = 1};
    const struct ref_shape s = {1, 1, PIXELS, OUT};
    if (!op_test_on_matrix_units(dev, OP_LINEAR, DT_F32, DT_F16, &p))
        return;
    float *x = op_random(DT_F32, PIXELS * IN, 1), *wv = op_random(DT_F16, OUT * IN, 2);
    double want[PIXELS * OUT], tolerance[PIXELS * OUT];
    for (uint32_t i = 0; i < PIXELS * IN; i++) {
        const uint32_t pixel = i / IN, k = i % IN;
        x[i] = pixel % 7 == 6 ? 0 : ldexpf(x[i], (int)(pixel * 37 % 180) - 90 - (int)(k % 20));
    }
    for (uint32_t i = 0; i < PIXELS * OUT; i++) {
        const float *xs = x + i / OUT * IN, *ws = wv + i % OUT * IN;
        double magnitude = 0, most = 0;
        want[i] = 0;
        for (uint32_t k = 0; k < IN; k++) {
            want[i] += (double)xs[k] * ws[k];
            magnitude += fabs((double)xs[k] * ws[k]);
            most = fmax(most, fabs((double)xs[k]));
        }
        tolerance[i] = (IN + 6) * OP_EPS * magnitude + IN * 0x1p-39 * most + 1e-40;
    }
    struct op_weight *w = make_weight(dev, DT_F16, &r, wv, NULL);
    struct op_array ax = op_array(dev, DT_F32, r.x, x, true);
    struct op_array ay = op_array(dev, DT_F32, s, NULL, false);
    struct ops *o = op_begin(dev, DT_F32);
    op_linear(o, &ax.t, w, NULL, &ay.t);
    if (op_finish(o))
        op_compare_tensor("split activations", &ay.t, want, tolerance);
    op_weight_destroy(&w);
    op_array_free(&ax);
    op_array_free(&ay);
    free(x), free(wv);
}

// y of a 3x3 convolution as one kernel computes it, on a device with so much shared memory.
static float *convolved(struct ops_device *dev, const char *kernel, size_t shared_bytes,
                        const struct op_array *x, const struct op_weight *w, struct ref_shape s)
{
    const struct kernel_wish wish = dev->wish;
    const struct vk_caps *own = dev->caps;
    struct vk_caps caps = *own;
    float *got = calloc(ref_count(s), sizeof *got);
    caps.max_shared_bytes = (uint32_t)shared_bytes;
    CHECK_INT(ops_device_prefer(dev, kernel), ERR_OK);
    dev->caps = &caps;
    struct op_array y = op_array(dev, DT_F16, s, NULL, false);
    struct ops *o = op_begin(dev, DT_F16);
    op_conv2d(o, &x->t, w, &(struct op_epilogue){.act = ACT_SILU}, &y.t);
    if (op_finish(o))
        CHECK_INT(tensor_download(&y.t, got), ERR_OK);
    op_array_free(&y);
    dev->caps = own;
    dev->wish = wish;
    return got;
}

// The order of an element's sum is that of its channels: no tile changes a bit, nor does how much
// an invocation loads at a time.
static void check_tiles(struct ops_device *dev, uint32_t in)
{
    const struct row r = {.x = {1, 9, 17, in}, .out = 140, .kernel = 3};
    const struct ref_shape s = {1, 9, 17, 140};
    const size_t shared = dev->caps->max_shared_bytes;
    float *xv = op_random(DT_F16, ref_count(r.x), 1), *wv = op_random(DT_F16, 9 * in * 140, 2);
    struct op_weight *w = make_weight(dev, DT_F16, &r, wv, NULL);
    struct op_array x = op_array(dev, DT_F16, r.x, xv, false);
    float *want = convolved(dev, "matmul_matrix", shared, &x, w, s);
    float *less = convolved(dev, "matmul_matrix", 16384, &x, w, s);
    float *wide = convolved(dev, "matmul_matrix_wide", shared, &x, w, s);
    float *large = convolved(dev, "matmul_matrix_large", shared, &x, w, s);
    struct op_array view = op_array(dev, DT_F16, r.x, xv, true);
    float *moved = convolved(dev, "matmul_matrix", shared, &view, w, s);
    CHECK(!memcmp(want, less, ref_count(s) * sizeof *want));
    CHECK(!memcmp(want, wide, ref_count(s) * sizeof *want));
    CHECK(!memcmp(want, large, ref_count(s) * sizeof *want));
    CHECK(!memcmp(want, moved, ref_count(s) * sizeof *want));
    op_weight_destroy(&w);
    op_array_free(&x);
    op_array_free(&view);
    free(xv), free(wv), free(want), free(less), free(wide), free(large), free(moved);
}

static void test_tiles(struct ops_device *dev)
{
    if (!strstr(op_test_way(), "matmul_matrix_wide"))
        return;
    check_tiles(dev, 72); // the last step is not full
    check_tiles(dev, 64);
}

// Tiles that hang over every edge, of several samples, alone in their group of lanes, and without
// one idle lane; with a scale, because it is applied last. The last two are computed in pieces:
// samples, of which the last piece has one row of tiles, and rows of tiles that are too long.
static const struct row winograd_rows[] = {
    {{3, 7, 9, 12}, 24, 3, ACT_SILU, .bias = true, .view = true},
    {{1, 5, 70, 24}, 20, 3, .bias = true, .residual = true, .view = true, .in_place = true},
    {{2, 16, 16, 40}, 8, 3, .bias = true, .residual = true, .scale = 0.5f},
    {{1, 9, 23, 6}, 6, 3, .bias = true, .mul = true},
    {{2, 76, 40, 40}, 24, 3, .bias = true, .mul = true, .residual = true, .scale = 0.5f},
    {{1, 6, 117, 256}, 8, 3, .residual = true, .in_place = true},
};

static enum weight_layout layout_of(struct ops_device *dev, uint32_t in, uint32_t out,
                                    uint32_t side)
{
    float *v = op_random(DT_F32, (size_t)9 * in * out, 1);
    struct op_weight *w = NULL;
    struct op_weight_params p = {
        .weight = v, .out = out, .in = in, .kernel = 3, .side = side, .dtype = DT_F32};
    CHECK_INT(op_weight_create(dev, &p, &w), ERR_OK);
    const enum weight_layout layout = w ? w->layout : LAYOUT_ANY;
    op_weight_destroy(&w);
    free(v);
    return layout;
}

// Weights that the file has in 16 bits are transformed as f32 ones of the same values.
static void test_winograd_from(struct ops_device *dev)
{
    enum { IN = 6, OUT = 5, N = 9 * IN * OUT };
    float *v = op_random(DT_F16, N, 1), *got[2];
    uint16_t halves[N];
    for (size_t i = 0; i < N; i++)
        halves[i] = half_from_float(v[i]);
    size_t n = 0;
    for (int i = 0; i < 2; i++) {
        struct op_weight *w = NULL;
        struct op_weight_params p = {.weight = i ? (const void *)halves : v,
                                     .from = i ? DT_F16 : DT_F32,
                                     .out = OUT,
                                     .in = IN,
                                     .kernel = 3,
                                     .dtype = DT_F32};
        CHECK_INT(op_weight_create(dev, &p, &w), ERR_OK);
        CHECK_INT(w->layout, LAYOUT_WINOGRAD);
        n = (size_t)tensor_pixels(&w->packed) * w->packed.c;
        got[i] = calloc(n, sizeof(float));
        CHECK_INT(tensor_download(&w->packed, got[i]), ERR_OK);
        op_weight_destroy(&w);
    }
    CHECK(!memcmp(got[0], got[1], n * sizeof(float)));
    free(got[0]), free(got[1]), free(v);
}

// Transformed input never takes more than a cache has, however large the map (9.4 MB here). Memory
// of activations grows by 4 MiB.
static void test_winograd_room(struct ops_device *dev)
{
    enum { SIDE = 256, CHANNELS = 8, ROOM = 4 << 20 };
    const struct row r = {.x = {2, SIDE, SIDE, CHANNELS}, .out = CHANNELS, .kernel = 3};
    struct ops_counted before, after;
    float *v = op_random(DT_F32, 9 * CHANNELS * CHANNELS, 1);
    struct ops *o = NULL;
    CHECK_INT(ops_device_count(dev, true), ERR_OK);
    struct op_weight *w = make_weight(dev, DT_F32, &r, v, NULL);
    CHECK_INT(w->layout, LAYOUT_WINOGRAD);
    CHECK_INT(ops_begin(dev, DT_F32, &o), ERR_OK);
    const struct tensor x = ops_temp(o, 2, SIDE, SIDE, CHANNELS);
    const struct tensor y = ops_temp(o, 2, SIDE, SIDE, CHANNELS);
    ops_device_counted(dev, &before);
    op_conv2d(o, &x, w, NULL, &y);
    ops_device_counted(dev, &after);
    CHECK_INT(ops_end(o), ERR_OK);
    CHECK_MSG(after.activations - before.activations <= ROOM, "%zu bytes",
              after.activations - before.activations);
    ops_destroy(&o);
    op_weight_destroy(&w);
    CHECK_INT(ops_device_count(dev, false), ERR_OK);
    free(v);
}

// conv3_winograd, with both loads and both types of activations, and the layers that prefer it.
static void test_winograd(struct ops_device *dev, enum dtype dtype)
{
    const struct kernel_wish wish = dev->wish;
    const bool texel = strstr(op_test_way(), "texel") != NULL;
    if (!strstr(op_test_way(), "lane"))
        return;
    CHECK_INT(ops_device_prefer(dev, texel ? "conv3_winograd,texel" : "conv3_winograd,buffer"),
              ERR_OK);
    CHECK_INT(layout_of(dev, 40, 24, 8), LAYOUT_WINOGRAD);
    for (size_t i = 0; i < sizeof winograd_rows / sizeof winograd_rows[0]; i++)
        if ((dtype == DT_F32 || i % 2 == 0) && (texel || op_test_runs(dev, dtype, i)))
            run_row(dev, dtype, DT_F32, &winograd_rows[i]);
    if (texel && dtype == DT_F32)
        test_winograd_from(dev), test_winograd_room(dev);
    CHECK_INT(ops_device_prefer(dev, NULL), ERR_OK);
    if (dev->caps->cpu) {
        CHECK_INT(layout_of(dev, 64, 64, 0), LAYOUT_WINOGRAD);
        CHECK_INT(layout_of(dev, 64, 64, 16), LAYOUT_WINOGRAD);
        CHECK_INT(layout_of(dev, 64, 64, 4), LAYOUT_LANES);    // most lanes would be idle
        CHECK_INT(layout_of(dev, 24, 24, 16), LAYOUT_LANES);   // too little for a pipeline
        CHECK_INT(layout_of(dev, 192, 192, 64), LAYOUT_LANES); // too large
    }
    dev->wish = wish;
}

static void body(struct ops_device *dev, enum dtype dtype)
{
    static const enum dtype formats[] = {DT_BF16, DT_Q8, DT_Q4};
    const size_t packed = dtype == DT_F32 && !strstr(op_test_way(), "lane,buffer") ? 3 : 2;
    for (size_t i = 0; !full && i < packed; i++)
        for (size_t f = 0; f < sizeof formats / sizeof formats[0]; f++)
            if (op_test_runs(dev, dtype, i + f))
                run_row(dev, dtype, formats[f], &packed_rows[i]);
    test_bytes(dev);
    if (!full)
        test_proof(dev), test_tiles(dev), test_split(dev), test_winograd(dev, dtype);
    for (size_t i = 0; full && i < sizeof full_rows / sizeof full_rows[0]; i++)
        if (possible(dev, dtype, &full_rows[i]))
            run_row(dev, dtype, dtype, &full_rows[i]);
    for (size_t i = 0; !full && i < sizeof rows / sizeof rows[0]; i++) {
        if (!op_test_runs(dev, dtype, i))
            continue;
        run_row(dev, dtype, dtype, &rows[i]);
        if (i % 4 == 2) // weights stored in the other dtype
            run_row(dev, dtype, dtype == DT_F16 ? DT_F32 : DT_F16, &rows[i]);
    }
}

int main(int argc, char **argv)
{
    full = argc > 1 && !strcmp(argv[1], "full");
    return op_test_run(body);
}
