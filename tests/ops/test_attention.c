// Attention against the reference: one and two segments, bias, masks, shared keys, head sizes for
// the vector kernels and for the general one.
#include "op_test.h"

struct row {
    uint32_t n, queries, keys[2], heads, d;
    bool bias, valid, view, index[2];
    float magnitude; // of q; 0 means 1
};

static const struct row rows[] = {
    {1, 1, {1}, 1, 4},
    {2, 13, {5}, 2, 8, .bias = true},
    {3, 17, {7, 9}, 3, 16, .view = true},
    {2, 16, {8, 16}, 4, 32, .valid = true},
    {2, 9, {77}, 2, 64, .bias = true, .valid = true},
    {1, 20, {32, 64}, 1, 64, .magnitude = 30, .view = true},
    {3, 35, {11, 35}, 2, 12, .valid = true, .view = true, .index = {true}},
    {2, 70, {3, 70}, 2, 40, .index = {true, true}},
    {1, 8, {19}, 1, 128},
    {2, 1, {78}, 12, 6, .valid = true},
    {2, 5, {9, 5}, 3, 7, .bias = true, .view = true, .index = {true}},
    // Blocks of queries and of keys that both segments share; a head of several matrices.
    {2, 66, {37, 45}, 2, 24, .bias = true, .valid = true, .view = true, .index = {false, true}},
    {2, 65, {33}, 1, 128, .valid = true, .magnitude = 8},
    {1, 11, {37}, 1, 132, .view = true}, // wide
};

// DeepFloyd IF's: 44 heads over text and image, many keys, T5-XXL's heads.
static const struct row full_rows[] = {
    {1, 5, {77, 1024}, 44, 64, .index = {true}},
    {1, 33, {77, 4096}, 3, 64, .view = true},
    {1, 20, {77}, 64, 64, .bias = true, .valid = true},
};

static bool full; // full_rows: the slow suite

// Everything one row needs, on both sides.
struct job {
    const struct row *r;
    struct ref_attention ref;
    float *q, *k[2], *v[2], *bias;
    uint32_t *index[2], *valid;
    struct op_array aq, ak[2], av[2], abias, aindex[2], avalid, ay;
};

static struct op_array u32_array(struct ops_device *dev, struct ref_shape s, const uint32_t *v)
{
    struct op_array a = {0};
    CHECK_INT(tensor_create_mapped(dev, DT_U32, s.n, s.h, s.w, s.c, &a.t), ERR_OK);
    CHECK_INT(tensor_upload(&a.t, v), ERR_OK);
    a.whole = a.t;
    return a;
}

static void make_segment(struct ops_device *dev, enum dtype dtype, struct job *b, int s)
{
    const struct row *r = b->r;
    uint32_t stored = r->index[s] ? r->n + 2 : r->n;
    struct ref_shape shape = {stored, 1, r->keys[s], r->heads * r->d};
    b->k[s] = op_random(dtype, ref_count(shape), 10 + (uint32_t)s);
    b->v[s] = op_random(dtype, ref_count(shape), 20 + (uint32_t)s);
    b->ak[s] = op_array(dev, dtype, shape, b->k[s], r->view);
    b->av[s] = op_array(dev, dtype, shape, b->v[s], r->view);
    b->ref.k[s] = b->k[s];
    b->ref.v[s] = b->v[s];
    if (!r->index[s])
        return;
    b->index[s] = calloc(r->n, sizeof(uint32_t));
    for (uint32_t n = 0; n < r->n; n++)
        b->index[s][n] = (n * 7 + 1) % stored;
    b->aindex[s] = u32_array(dev, (struct ref_shape){r->n, 1, 1, 1}, b->index[s]);
    b->ref.index[s] = b->index[s];
}

static void make_job(struct ops_device *dev, enum dtype dtype, const struct row *r, struct job *b)
{
    *b = (struct job){.r = r};
    uint32_t keys = r->keys[0] + r->keys[1];
    struct ref_shape shape = {r->n, 1, r->queries, r->heads * r->d};
    b->ref = (struct ref_attention){.n = r->n,
                                    .queries = r->queries,
                                    .keys = {r->keys[0], r->keys[1]},
                                    .heads = r->heads,
                                    .d = r->d,
                                    .scale = (float)(1 / sqrt(r->d))};
    b->q = op_random(dtype, ref_count(shape), 3);
    for (size_t i = 0; r->magnitude > 0 && i < ref_count(shape); i++)
        b->q[i] = float_from_half(half_from_float(b->q[i] * r->magnitude));
    b->aq = op_array(dev, dtype, shape, b->q, r->view);
    b->ay = op_array(dev, dtype, shape, NULL, r->view);
    b->ref.q = b->q;
    make_segment(dev, dtype, b, 0);
    if (r->keys[1])
        make_segment(dev, dtype, b, 1);
    if (r->bias) {
        struct ref_shape bs = {1, r->queries, keys, r->heads};
        b->bias = op_random(DT_F32, ref_count(bs), 4);
        b->abias = op_array(dev, DT_F32, bs, b->bias, false);
        b->ref.bias = b->bias;
    }
    if (r->valid) {
        b->valid = calloc((size_t)r->n * r->keys[0], sizeof *b->valid);
        for (uint32_t i = 0; i < r->n * r->keys[0]; i++)
            b->valid[i] = i % r->keys[0] < 3 + i / r->keys[0] * 2;
        // Both layouts that the operator takes.
        struct ref_shape vs = {r->n, 1, r->view ? 1 : r->keys[0], r->view ? r->keys[0] : 1};
        b->avalid = u32_array(dev, vs, b->valid);
        b->ref.valid = b->valid;
    }
}

static void free_array(struct op_array *a)
{
    if (a->t.buf)
        op_array_free(a);
}

static void free_job(struct job *b)
{
    free_array(&b->aq);
    free_array(&b->ay);
    free_array(&b->abias);
    tensor_destroy(&b->avalid.whole);
    free(b->q), free(b->bias), free(b->valid);
    for (int s = 0; s < 2; s++) {
        free_array(&b->ak[s]);
        free_array(&b->av[s]);
        tensor_destroy(&b->aindex[s].whole);
        free(b->k[s]), free(b->v[s]), free(b->index[s]);
    }
}

// An error of a score is a relative error of its weight, in the numerator and the denominator: the
// scores' sums have d + 4 roundings, the argument of exp is rounded again, exp itself is good to
// 2^-20 on the software device; then as many sums as there are keys, whose roundings for thousands
// of them are taken as independent. |v| <= 1.
//
// Matrix units take weights as halves, whose rounding is 2^-11 of each; rounded weights sum to 1,
// so the error is 2^-11 of the mean distance of the values from their mean, at most 1.
static void tolerances(struct ops_device *dev, const struct row *r, enum dtype dtype,
                       const double *want, const double *spread, double *tolerance)
{
    const struct problem p = {.n = 1,
                              .h = 1,
                              .w = r->queries,
                              .keys = r->keys[0] + r->keys[1],
                              .heads = r->heads,
                              .d = r->d};
    const bool matrix = op_test_on_matrix_units(dev, OP_ATTENTION, dtype, dtype, &p);
    size_t per_query = (size_t)r->heads * r->d;
    double keys = r->keys[0] + r->keys[1], sums = full ? 4 * sqrt(keys) : keys + 4;
    for (size_t i = 0; i < r->n * r->queries * per_query; i++) {
        double score = (r->d + 8.0) * OP_EPS * spread[i / per_query];
        tolerance[i] = 2 * score + 2 * 0x1p-20 + 2 * sums * OP_EPS;
        tolerance[i] += op_store_error(dtype, want[i]) + (matrix ? 0x1p-11 : 0);
    }
}

// A sample alone gives the same bits as in a batch.
static void check_alone(struct ops_device *dev, enum dtype dtype, const struct job *b,
                        const struct op_attention_params *p)
{
    uint32_t last = b->r->n - 1;
    struct ref_shape s = {1, 1, b->r->queries, b->r->heads * b->r->d};
    struct op_array alone = op_array(dev, dtype, s, NULL, false);
    struct tensor q = tensor_samples(p->q, last, 1), y = tensor_samples(p->y, last, 1), valid;
    struct tensor part[2][2];
    struct op_attention_params ps = *p;
    ps.q = &q;
    ps.y = &alone.t;
    if (p->valid) {
        valid = tensor_samples(p->valid, last, 1);
        ps.valid = &valid;
    }
    for (int i = 0; i < p->segments; i++) {
        const struct tensor *index = p->segment[i].index;
        uint32_t from = index ? b->index[i][last] : last;
        part[i][0] = tensor_samples(p->segment[i].k, from, 1);
        part[i][1] = tensor_samples(p->segment[i].v, from, 1);
        ps.segment[i].k = &part[i][0];
        ps.segment[i].v = &part[i][1];
        ps.segment[i].index = NULL;
    }
    struct ops *o = op_begin(dev, dtype);
    op_attention(o, &ps);
    float *got = calloc(ref_count(s), sizeof *got), *want = calloc(ref_count(s), sizeof *want);
    if (op_finish(o)) {
        CHECK_INT(tensor_download(&y, want), ERR_OK);
        CHECK_INT(tensor_download(&alone.t, got), ERR_OK);
        CHECK_MSG(!memcmp(got, want, ref_count(s) * sizeof *got), "%s d%u: differs alone",
                  op_test_variant(dev, dtype), b->r->d);
    }
    op_array_free(&alone);
    free(got), free(want);
}

static void run_row(struct ops_device *dev, enum dtype dtype, const struct row *r)
{
    struct job b;
    make_job(dev, dtype, r, &b);
    size_t count = (size_t)r->n * r->queries * r->heads * r->d;
    double *want = calloc(count, sizeof *want), *tolerance = calloc(count, sizeof *tolerance);
    double *spread = calloc((size_t)r->n * r->queries, sizeof *spread);
    ref_attention(&b.ref, want, spread);
    tolerances(dev, r, dtype, want, spread, tolerance);
    struct op_attention_params p = {.q = &b.aq.t,
                                    .segments = r->keys[1] ? 2 : 1,
                                    .heads = r->heads,
                                    .scale = (float)b.ref.scale,
                                    .bias = r->bias ? &b.abias.t : NULL,
                                    .valid = r->valid ? &b.avalid.t : NULL,
                                    .y = &b.ay.t};
    for (int s = 0; s < p.segments; s++) {
        p.segment[s].k = &b.ak[s].t;
        p.segment[s].v = &b.av[s].t;
        p.segment[s].index = r->index[s] ? &b.aindex[s].t : NULL;
    }
    struct ops *o = op_begin(dev, dtype);
    op_attention(o, &p);
    if (op_finish(o)) {
        char what[128];
        snprintf(what, sizeof what, "%s n%u q%u k%u+%u h%u d%u", op_test_variant(dev, dtype), r->n,
                 r->queries, r->keys[0], r->keys[1], r->heads, r->d);
        op_compare_tensor(what, &b.ay.t, want, tolerance);
        if (r->n > 1)
            check_alone(dev, dtype, &b, &p);
    }
    free(want), free(tolerance), free(spread);
    free_job(&b);
}

static void body(struct ops_device *dev, enum dtype dtype)
{
    const struct row *table = full ? full_rows : rows;
    size_t count = full ? sizeof full_rows / sizeof full_rows[0] : sizeof rows / sizeof rows[0];
    for (size_t i = 0; i < count; i++)
        if (full || op_test_runs(dev, dtype, i))
            run_row(dev, dtype, &table[i]);
}

int main(int argc, char **argv)
{
    full = argc > 1 && !strcmp(argv[1], "full");
    return op_test_run(body);
}
