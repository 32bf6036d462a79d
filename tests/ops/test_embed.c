// Token table, relative position bias and timestep features against the reference.
#include "op_test.h"
#include "ref_maps.h"

struct embed_row {
    uint32_t n, l, rows, c;
};

static bool full; // T5-XXL's table, which takes several small bindings: the slow suite

static void check_embed(struct ops_device *dev, enum dtype dtype, enum dtype table,
                        const struct embed_row *r)
{
    struct ref_shape ys = {r->n, 1, r->l, r->c};
    size_t tokens = (size_t)r->n * r->l;
    float *values = op_random(table, (size_t)r->rows * r->c, 1);
    uint32_t *ids = calloc(tokens, sizeof *ids);
    double *want = calloc(ref_count(ys), sizeof *want),
           *bound = calloc(ref_count(ys), sizeof *bound);
    for (size_t i = 0; i < tokens; i++) {
        ids[i] = i == tokens - 1 ? r->rows : (uint32_t)(i * 7919 % r->rows);
        for (uint32_t c = 0; c < r->c; c++) {
            double v = ids[i] < r->rows ? values[(size_t)ids[i] * r->c + c] : 0;
            want[i * r->c + c] = v;
            bound[i * r->c + c] = op_store_error(dtype, v) + 1e-30;
        }
    }
    struct tensor it;
    CHECK_INT(tensor_create_mapped(dev, DT_U32, r->n, 1, r->l, 1, &it), ERR_OK);
    CHECK_INT(tensor_upload(&it, ids), ERR_OK);
    struct op_array at =
        op_array(dev, table, (struct ref_shape){1, 1, r->rows, r->c}, values, false);
    struct op_array ay = op_array(dev, dtype, ys, NULL, false);
    struct ops *o = op_begin(dev, dtype);
    op_embed(o, &it, &at.t, &ay.t);
    op_finish(o);
    char what[128];
    snprintf(what, sizeof what, "embed %ux%ux%u of %u %s %s", r->n, r->l, r->c, r->rows,
             table == DT_F16 ? "f16" : "f32", op_test_variant(dev, dtype));
    op_compare_tensor(what, &ay.t, want, bound);
    op_array_free(&at);
    op_array_free(&ay);
    tensor_destroy(&it);
    free(values);
    free(ids);
    free(want);
    free(bound);
}

static void check_bias(struct ops_device *dev, uint32_t buckets, uint32_t heads, uint32_t length,
                       uint32_t max_distance)
{
    struct ref_shape ts = {1, 1, buckets, heads}, ys = {1, length, length, heads};
    float *table = op_random(DT_F32, ref_count(ts), 1);
    double *want = calloc(ref_count(ys), sizeof *want),
           *bound = calloc(ref_count(ys), sizeof *bound);
    ref_relative_bias(table, buckets, heads, length, max_distance, want);
    for (size_t i = 0; i < ref_count(ys); i++)
        bound[i] = 1e-30; // a copy
    struct op_array at = op_array(dev, DT_F32, ts, table, false);
    struct op_array ay = op_array(dev, DT_F32, ys, NULL, false);
    struct ops *o = op_begin(dev, DT_F32);
    op_relative_bias(o, &at.t, max_distance, &ay.t);
    op_finish(o);
    char what[64];
    snprintf(what, sizeof what, "relative_bias %u of %u buckets", length, buckets);
    op_compare_tensor(what, &ay.t, want, bound);
    op_array_free(&at);
    op_array_free(&ay);
    free(table);
    free(want);
    free(bound);
}

struct time_row {
    uint32_t n, dim;
    bool flip;
    float freq_shift;
};

static void check_time(struct ops_device *dev, enum dtype dtype, const struct time_row *r)
{
    static const float times[] = {999, 0, 0.25f, 37, 998.5f};
    struct ref_shape ys = {r->n, 1, 1, r->dim};
    float t[5];
    double *want = calloc(ref_count(ys), sizeof *want),
           *bound = calloc(ref_count(ys), sizeof *bound);
    for (uint32_t i = 0; i < r->n; i++)
        t[i] = times[i % 5];
    ref_time_embed(t, r->n, r->dim, r->flip, r->freq_shift, want);
    // The frequency is exp of a number down to -9.2 that was divided (3 ulp) and is itself rounded:
    // its relative error is 4 ulp times that number, times the angle. e^-a * a is at most 1/e.
    for (size_t i = 0; i < ref_count(ys); i++)
        bound[i] = (4 * t[i / r->dim] * 0.37 + 2 * t[i / r->dim] + 4) * 2 * OP_EPS +
                   op_store_error(dtype, want[i]);
    struct op_array at = op_array(dev, DT_F32, (struct ref_shape){r->n, 1, 1, 1}, t, false);
    struct op_array ay = op_array(dev, dtype, ys, NULL, false);
    struct ops *o = op_begin(dev, dtype);
    op_time_embed(o, &at.t, r->flip, r->freq_shift, &ay.t);
    op_finish(o);
    char what[64];
    snprintf(what, sizeof what, "time_embed %ux%u %s", r->n, r->dim, op_test_variant(dev, dtype));
    op_compare_tensor(what, &ay.t, want, bound);
    op_array_free(&at);
    op_array_free(&ay);
    free(want);
    free(bound);
}

static void body(struct ops_device *dev, enum dtype dtype)
{
    static const struct embed_row embeds[] = {
        {1, 1, 5, 4}, {2, 77, 1000, 64}, {3, 9, 33, 30}, {1, 300, 257, 128}};
    static const struct time_row times[] = {
        {1, 32, true, 0}, {3, 64, false, 1}, {2, 50, true, 0}, {5, 13, true, 0}, {1, 2, true, 0}};
    static const struct embed_row xxl = {1, 77, 32128, 4096};
    if (full) {
        check_embed(dev, dtype, DT_F32, &xxl);
        check_embed(dev, dtype, DT_F16, &xxl);
        return;
    }
    for (size_t i = 0; i < sizeof embeds / sizeof embeds[0]; i++) {
        check_embed(dev, dtype, DT_F32, &embeds[i]);
        check_embed(dev, dtype, DT_F16, &embeds[i]);
    }
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++)
        check_time(dev, dtype, &times[i]);
    if (dtype == DT_F16)
        return;
    check_bias(dev, 32, 64, 77, 128);
    check_bias(dev, 32, 6, 300, 128);
    check_bias(dev, 8, 3, 40, 20);
    check_bias(dev, 64, 8, 20, 256);
}

int main(int argc, char **argv)
{
    full = argc > 1 && !strcmp(argv[1], "full");
    return op_test_run(body);
}
