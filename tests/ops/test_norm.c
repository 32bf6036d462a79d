// GroupNorm, LayerNorm, RMSNorm against the reference: groups that do not end at a multiple of four
// channels, both forms of GroupNorm, large means, views, and a sample's result beside others.
#include "op_test.h"
#include "ref_maps.h"

struct group_row {
    struct ref_shape x;
    uint32_t groups;
    enum op_act act;
    bool scale_shift, view;
    float mean; // of x, whose deviation is about 0.6
    float wild; // added to the first value of every sample
};

static const struct group_row group_rows[] = {
    {{1, 1, 1, 4}, 1},
    {{2, 2, 2, 32}, 32},
    {{1, 2, 2, 64}, 32, ACT_SILU, .scale_shift = true},
    {{3, 7, 9, 15}, 5, ACT_NONE, .scale_shift = true},
    {{2, 5, 3, 20}, 4, ACT_SILU, .view = true},
    {{1, 9, 11, 24}, 4, ACT_GELU, .scale_shift = true, .view = true},
    {{1, 4, 4, 33}, 11, ACT_RELU, .view = true},
    {{2, 1, 77, 96}, 32, ACT_NONE, .view = true},
    {{1, 1, 77, 1024}, 32},
    {{2, 8, 8, 256}, 32, ACT_SILU, .scale_shift = true},
    {{1, 16, 16, 132}, 4},
    {{1, 2, 2, 132}, 1},
    {{2, 16, 16, 8}, 2, .mean = 300},
    {{1, 32, 32, 16}, 4, .wild = 3000},
    {{3, 64, 64, 48}, 8, ACT_SILU, .scale_shift = true, .view = true},
    {{1, 96, 80, 30}, 10, ACT_NONE, .view = true, .mean = 300},
    {{1, 128, 131, 16}, 4, .wild = 3000},
    {{1, 131, 67, 35}, 7, ACT_SILU, .scale_shift = true},
    {{2, 256, 256, 8}, 4, ACT_SILU},
};

// DeepFloyd IF's widths, groups of 15 channels, and a map that takes two bindings
// where they are small.
static const struct group_row full_groups[] = {
    {{2, 8, 8, 5632}, 32, ACT_GELU},
    {{1, 16, 16, 4928}, 32, ACT_GELU, .scale_shift = true},
    {{1, 64, 64, 1408}, 32, ACT_GELU, .view = true},
    {{1, 128, 128, 480}, 32, ACT_GELU},
    {{2, 128, 132, 1024}, 32, ACT_GELU, .scale_shift = true},
};

static bool full; // full_groups: the slow suite

static float storable(enum dtype dtype, float v)
{
    return dtype == DT_F16 ? float_from_half(half_from_float(v)) : v;
}

static void check_same(const char *what, const void *a, const void *b, size_t bytes)
{
    CHECK_MSG(!memcmp(a, b, bytes), "%s: a sample alone and in a batch differ", what);
}

struct group_case {
    struct ops_device *dev;
    enum dtype dtype;
    const struct group_row *r;
    float *x, *gamma, *beta, *ss;
};

// Samples n0 .. n0+n of the case through the device; caller frees.
static float *run_group_norm(const struct group_case *g, uint32_t n0, uint32_t n)
{
    struct ref_shape s = g->r->x, one = {1, 1, 1, s.c};
    size_t sample = (size_t)s.h * s.w * s.c;
    s.n = n;
    struct ref_shape ss = {n, 1, 1, 2 * s.c};
    struct op_array ax = op_array(g->dev, g->dtype, s, g->x + n0 * sample, g->r->view);
    struct op_array ay = op_array(g->dev, g->dtype, s, NULL, g->r->view);
    struct op_array ag = op_array(g->dev, DT_F32, one, g->gamma, false);
    struct op_array ab = op_array(g->dev, DT_F32, one, g->beta, false);
    struct op_array as = op_array(g->dev, g->dtype, ss, g->ss + (size_t)n0 * 2 * s.c, false);
    struct ops *o = op_begin(g->dev, g->dtype);
    struct op_group_norm_params p = {.x = &ax.t,
                                     .y = &ay.t,
                                     .gamma = &ag.t,
                                     .beta = &ab.t,
                                     .groups = g->r->groups,
                                     .eps = 1e-5f,
                                     .scale_shift = g->r->scale_shift ? &as.t : NULL,
                                     .act = g->r->act};
    op_group_norm(o, &p);
    op_finish(o);
    float *y = malloc(ref_count(s) * sizeof *y);
    if (!y)
        abort();
    CHECK_INT(tensor_download(&ay.t, y), ERR_OK);
    op_array_free(&ax);
    op_array_free(&ay);
    op_array_free(&ag);
    op_array_free(&ab);
    op_array_free(&as);
    return y;
}

// The effect of a rounding error in the statistics: y = (x - mean) / deviation * gain. Independent
// roundings of a sum along m of n values grow like sqrt(m) eps of their mean size; the sums here
// run along n / 16 values at most before they are folded. Then a few operations and one store.
static void group_tolerance(const struct group_case *g, const double *want, double *tolerance)
{
    const struct group_row *r = g->r;
    size_t pixels = (size_t)r->x.h * r->x.w, n = ref_count(r->x);
    double values = (double)pixels * (r->x.c / r->groups);
    for (size_t i = 0; i < n; i++) {
        size_t c = i % r->x.c, sample = i / (pixels * r->x.c);
        double size = fabs(g->x[i]) + fabs(r->mean) + r->wild / values + 1;
        double deviation = r->wild ? r->wild / sqrt(values) : 0.57;
        if (values < 16)
            deviation = sqrt(1e-5); // few values may be nearly equal: eps is all that is left
        double gain = fabs(g->gamma[c]), t = sqrt(values) / 4 + 8;
        if (r->scale_shift)
            gain *= 1 + fabs(g->ss[sample * 2 * r->x.c + c]);
        double line = gain * size / deviation + 2 * fabs(want[i]) + 4;
        tolerance[i] = 1.13 * t * OP_EPS * line + op_store_error(g->dtype, want[i]);
    }
}

// ---- in pieces ----------------------------------------------------------------------------------

static struct tensor rows_of(const struct tensor *x, uint32_t first, uint32_t rows)
{
    struct tensor y = *x;

    y.offset += (size_t)first * x->w * x->cs;
    y.h = rows;
    return y;
}

// The lines of a map whose statistics were measured in two pieces.
static void merge_lines(const struct group_case *g, const struct op_moments m[2], float *lines)
{
    const uint32_t c = g->r->x.c, c4 = (c + 3) / 4 * 4, size = c / g->r->groups;
    double *mean[2], *square[2];

    for (int i = 0; i < 2; i++) {
        mean[i] = malloc(c * sizeof *mean[i]);
        square[i] = malloc(c * sizeof *square[i]);
        CHECK_INT(op_moments_read(&m[i], mean[i], square[i]), ERR_OK);
    }
    for (uint32_t k = 0; k < c; k += size) {
        double sum = 0, about = 0, n = 0;
        for (int i = 0; i < 2; i++)
            for (uint32_t j = k; j < k + size; j++) {
                sum += mean[i][j] * m[i].pixels;
                n += m[i].pixels;
            }
        for (int i = 0; i < 2; i++)
            for (uint32_t j = k; j < k + size; j++) {
                const double d = mean[i][j] - sum / n;
                about += square[i][j] + d * d * m[i].pixels;
            }
        for (uint32_t j = k; j < k + size; j++) {
            lines[j] = (float)(sum / n);
            lines[c4 + j] = (float)(g->gamma[j] / sqrt(about / n + 1e-5));
            lines[2 * c4 + j] = g->beta[j];
        }
    }
    for (int i = 0; i < 2; i++) {
        free(mean[i]);
        free(square[i]);
    }
}

static void check_pieces(const struct group_case *g, const char *what, const double *want,
                         const double *tolerance)
{
    const struct ref_shape s = g->r->x, line = {1, 1, 1, 3 * ((s.c + 3) / 4 * 4)};
    struct op_array x = op_array(g->dev, g->dtype, s, g->x, g->r->view);
    struct op_array y = op_array(g->dev, g->dtype, s, NULL, g->r->view);
    float *lines = calloc(line.c, sizeof *lines);
    struct tensor piece[2] = {rows_of(&x.t, 0, s.h / 3), rows_of(&x.t, s.h / 3, s.h - s.h / 3)};
    struct op_moments m[2];
    struct ops *o = op_begin(g->dev, g->dtype);

    for (int i = 0; i < 2; i++)
        m[i] = op_measure(o, &piece[i]);
    CHECK_INT(ops_end(o), ERR_OK);
    CHECK_INT(ops_run(o), ERR_OK);
    merge_lines(g, m, lines);
    ops_destroy(&o);
    struct op_array l = op_array(g->dev, DT_F32, line, lines, false);
    o = op_begin(g->dev, g->dtype);
    op_group_norm_lines(o, &x.t, &l.t, g->r->act, &y.t);
    op_finish(o);
    op_compare_tensor(what, &y.t, want, tolerance);
    op_array_free(&x);
    op_array_free(&y);
    op_array_free(&l);
    free(lines);
}

static void check_group_norm(struct ops_device *dev, enum dtype dtype, const struct group_row *r)
{
    size_t n = ref_count(r->x), sample = n / r->x.n;
    struct group_case g = {dev,
                           dtype,
                           r,
                           op_random(dtype, n, 1),
                           op_random(DT_F32, r->x.c, 2),
                           op_random(DT_F32, r->x.c, 3),
                           op_random(dtype, (size_t)r->x.n * 2 * r->x.c, 4)};
    double *want = calloc(n, sizeof *want), *tolerance = calloc(n, sizeof *tolerance);
    char what[128];
    for (size_t i = 0; i < n; i++)
        g.x[i] = storable(dtype, g.x[i] + r->mean + (i % sample ? 0 : r->wild));
    struct ref_group_norm_params ref = {.x = g.x,
                                        .gamma = g.gamma,
                                        .beta = g.beta,
                                        .scale_shift = r->scale_shift ? g.ss : NULL,
                                        .s = r->x,
                                        .groups = r->groups,
                                        .eps = 1e-5f,
                                        .act = (int)r->act};
    ref_group_norm(&ref, want);
    group_tolerance(&g, want, tolerance);
    snprintf(what, sizeof what, "group_norm %ux%ux%ux%u / %u %s", r->x.n, r->x.h, r->x.w, r->x.c,
             r->groups, op_test_variant(dev, dtype));
    if (r->x.n == 1 && r->x.h > 2 && !r->scale_shift)
        check_pieces(&g, what, want, tolerance);
    float *y = run_group_norm(&g, 0, r->x.n);
    op_compare(what, y, want, tolerance, n);
    for (uint32_t i = 0; r->x.n > 1 && i < r->x.n; i++) {
        float *alone = run_group_norm(&g, i, 1);
        check_same(what, alone, y + i * sample, sample * sizeof *alone);
        free(alone);
    }
    free(y);
    free(g.x);
    free(g.gamma);
    free(g.beta);
    free(g.ss);
    free(want);
    free(tolerance);
}

// With the workgroups and runs of a GPU, also on a software device.
static void check_as_gpu(struct ops_device *dev, enum dtype dtype, const struct group_row *r)
{
    const struct vk_caps *own = dev->caps;
    struct vk_caps gpu = *own;
    gpu.cpu = false;
    dev->caps = &gpu;
    check_group_norm(dev, dtype, r);
    dev->caps = own;
}

struct row_row {
    struct ref_shape x;
    bool beta, rms, view;
    float mean;
    float size; // of x around its mean; 0: 1
};

static const struct row_row row_rows[] = {
    {{1, 1, 1, 4}, .rms = true},
    {{2, 1, 77, 512}, .rms = true},
    {{1, 1, 13, 4096}, .rms = true, .view = true},
    {{3, 1, 5, 6}, .rms = true, .view = true},
    {{2, 1, 77, 768}, .beta = true, .view = true},
    {{3, 5, 7, 30}, .beta = true},
    {{1, 1, 9, 21}, .view = true},
    {{2, 1, 5, 1000}, .beta = true, .mean = 300},
    {{2, 1, 3, 40}, .rms = true, .size = 0x1p-10f}, // epsilon is larger than the variance
    {{2, 1, 3, 40}, .beta = true, .size = 0x1p-10f},
};

static void check_row_norm(struct ops_device *dev, enum dtype dtype, const struct row_row *r)
{
    size_t n = ref_count(r->x);
    struct ref_shape one = {1, 1, 1, r->x.c};
    float *x = op_random(dtype, n, 1), *gamma = op_random(DT_F32, r->x.c, 2);
    float *beta = op_random(DT_F32, r->x.c, 3);
    double *want = calloc(n, sizeof *want), *tolerance = calloc(n, sizeof *tolerance);
    char what[128];
    for (size_t i = 0; i < n; i++)
        x[i] = storable(dtype, x[i] * (r->size ? r->size : 1) + r->mean);
    if (r->rms)
        ref_rms_norm(x, r->x, gamma, 1e-6f, want);
    else
        ref_layer_norm(x, r->x, gamma, r->beta ? beta : NULL, 1e-6f, want);
    // As for GroupNorm; rows of at least four values of deviation .57 are never nearly constant,
    // and small ones are divided by no less than the root of epsilon.
    for (size_t i = 0; i < n; i++)
        tolerance[i] =
            (sqrt(r->x.c) / 4 + 8) * OP_EPS *
                (fabs(gamma[i % r->x.c]) * (fabs(r->mean) + 2) / 0.2 + fabs(want[i]) + 1) +
            op_store_error(dtype, want[i]);
    struct op_array ax = op_array(dev, dtype, r->x, x, r->view);
    struct op_array ay = op_array(dev, dtype, r->x, NULL, r->view);
    struct op_array ag = op_array(dev, DT_F32, one, gamma, false);
    struct op_array ab = op_array(dev, DT_F32, one, beta, false);
    struct ops *o = op_begin(dev, dtype);
    if (r->rms)
        op_rms_norm(o, &ax.t, &ag.t, 1e-6f, &ay.t);
    else
        op_layer_norm(o, &ax.t, &ag.t, r->beta ? &ab.t : NULL, 1e-6f, &ay.t);
    op_finish(o);
    snprintf(what, sizeof what, "%s %ux%ux%u %s", r->rms ? "rms_norm" : "layer_norm", r->x.n,
             r->x.h * r->x.w, r->x.c, op_test_variant(dev, dtype));
    op_compare_tensor(what, &ay.t, want, tolerance);
    op_array_free(&ax);
    op_array_free(&ay);
    op_array_free(&ag);
    op_array_free(&ab);
    free(x);
    free(gamma);
    free(beta);
    free(want);
    free(tolerance);
}

static void refuses(struct ops_device *dev)
{
    struct op_array x = op_array(dev, DT_F32, (struct ref_shape){1, 2, 2, 10}, NULL, false);
    struct op_array g = op_array(dev, DT_F32, (struct ref_shape){1, 1, 1, 10}, NULL, false);
    struct ops *o = op_begin(dev, DT_F32);
    struct op_group_norm_params p = {
        .x = &x.t, .y = &x.t, .gamma = &g.t, .beta = &g.t, .groups = 3, .eps = 1e-5f};
    op_group_norm(o, &p);
    CHECK_INT(ops_end(o), ERR_INVALID);
    ops_destroy(&o);
    o = op_begin(dev, DT_F32);
    op_group_norm_lines(o, &x.t, &g.t, ACT_NONE, &x.t); // lines of 36 channels are needed
    CHECK_INT(ops_end(o), ERR_INVALID);
    ops_destroy(&o);
    op_array_free(&x);
    op_array_free(&g);
}

// One pipeline has room for blocks of several widths: here of groups of one, two and three vec4s.
static void shares_pipelines(struct ops_device *dev)
{
    int first = 0;
    for (uint32_t c = 16; c <= 48; c += 16) {
        struct op_array x = op_array(dev, DT_F32, (struct ref_shape){1, 2, 2, c}, NULL, false);
        struct op_array g = op_array(dev, DT_F32, (struct ref_shape){1, 1, 1, c}, NULL, false);
        struct ops *o = op_begin(dev, DT_F32);
        op_group_norm(
            o, &(struct op_group_norm_params){
                   .x = &x.t, .y = &x.t, .gamma = &g.t, .beta = &g.t, .groups = 4, .eps = 1e-5f});
        CHECK_INT(ops_end(o), ERR_OK);
        ops_destroy(&o);
        first = first ? first : dev->pipeline_count;
        CHECK_INT(dev->pipeline_count, first);
        op_array_free(&x);
        op_array_free(&g);
    }
}

static void body(struct ops_device *dev, enum dtype dtype)
{
    for (size_t i = 0; full && i < sizeof full_groups / sizeof full_groups[0]; i++)
        check_group_norm(dev, dtype, &full_groups[i]);
    if (full)
        return;
    shares_pipelines(dev); // first: the rows create the same ones
    for (size_t i = 0; i < sizeof group_rows / sizeof group_rows[0]; i++)
        check_group_norm(dev, dtype, &group_rows[i]);
    for (size_t i = 0; dev->caps->cpu && i < sizeof group_rows / sizeof group_rows[0]; i++)
        if (group_rows[i].wild || group_rows[i].mean)
            check_as_gpu(dev, dtype, &group_rows[i]);
    for (size_t i = 0; i < sizeof row_rows / sizeof row_rows[0]; i++)
        check_row_norm(dev, dtype, &row_rows[i]);
    refuses(dev);
}

int main(int argc, char **argv)
{
    full = argc > 1 && !strcmp(argv[1], "full");
    return op_test_run(body);
}
