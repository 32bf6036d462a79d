// Weights and tables that come as f16 or bf16 are stored as if the same numbers had come as f32,
// byte for byte, in every layout and format, for widths with and without padding.
#include "op_test.h"

#include <stdlib.h>

enum { MOST = 1 << 16 };

static const enum dtype sources[] = {DT_F16, DT_BF16};
static const char *const names[] = {
    [DT_F32] = "f32",   [DT_F16] = "f16", [DT_U32] = "u32", [DT_U8] = "u8",
    [DT_BF16] = "bf16", [DT_Q8] = "q8",   [DT_Q4] = "q4"};

// n random numbers of the type: every finite half, small and large, and both zeros.
static void fill(enum dtype dtype, size_t n, uint16_t *to, float *wide)
{
    uint64_t state = 7;
    for (size_t i = 0; i < n; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        to[i] = (uint16_t)(state >> 40);
        if (dtype == DT_F16 && (to[i] & 0x7c00) == 0x7c00)
            to[i] &= 0xbfff;
        if (dtype == DT_BF16)
            to[i] = (uint16_t)((to[i] & 0x83ff) | 0x3c00); // of halves' size
    }
    floats_from(to, dtype, n, wide);
}

// Owner: the caller frees it.
static uint8_t *download(const struct tensor *t, size_t *bytes)
{
    *bytes = tensor_span(t) * tensor_dtype_bytes(t->dtype);
    uint8_t *data = malloc(*bytes);
    CHECK(data && !vk_download(t->buf, 0, data, *bytes));
    return data;
}

static void expect_equal(const struct tensor *a, const struct tensor *b, const char *what)
{
    size_t n, m;
    uint8_t *x = download(a, &n), *y = download(b, &m);
    CHECK_MSG(x && y && n == m && !memcmp(x, y, n), "%s", what);
    free(x);
    free(y);
}

struct row {
    uint32_t out, in, kernel;
};

static void check_weight(struct ops_device *dev, const struct row *r, enum dtype from,
                         enum dtype stored)
{
    const size_t n = (size_t)r->out * r->in * r->kernel * r->kernel;
    static uint16_t narrow[MOST + 1];
    static float wide[MOST];
    char what[160];
    snprintf(what, sizeof what, "[%u, %u, %u, %u] of %s stored as %s, %s", r->out, r->in, r->kernel,
             r->kernel, names[from], names[stored], op_test_way());
    CHECK(n <= MOST);
    fill(from, n, narrow, wide);
    struct op_weight_params p = {.out = r->out, .in = r->in, .kernel = r->kernel, .dtype = stored};
    struct op_weight *a = NULL, *b = NULL;
    p.weight = wide;
    enum err e = op_weight_create(dev, &p, &a);
    p.weight = narrow;
    p.from = from;
    e = e ? e : op_weight_create(dev, &p, &b);
    if (e != ERR_UNSUPPORTED) // no kernel of this way reads the format
        CHECK_MSG(!e, "%s: %s", what, err_text(e));
    if (!e)
        expect_equal(&a->packed, &b->packed, what);
    op_weight_destroy(&a);
    op_weight_destroy(&b);
}

static void check_weights(struct ops_device *dev, enum dtype dtype)
{
    static const struct row rows[] = {
        {64, 32, 1}, {33, 64, 1}, {5, 6, 1}, {40, 8, 3}, {7, 3, 3}, {32, 32, 3}, {96, 128, 1},
    };
    static const enum dtype stored[] = {DT_F32, DT_F16, DT_BF16, DT_Q8, DT_Q4};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        for (size_t f = 0; f < sizeof sources / sizeof sources[0]; f++)
            for (size_t s = 0; s < sizeof stored / sizeof stored[0]; s++)
                check_weight(dev, &rows[i], sources[f], stored[s]);
}

static void check_table(struct ops_device *dev, uint32_t rows, uint32_t c, enum dtype from,
                        enum dtype stored)
{
    static uint16_t narrow[MOST];
    static float wide[MOST];
    struct tensor a, b;
    char what[96];
    snprintf(what, sizeof what, "[%u, %u] of %s stored as %s", rows, c, names[from], names[stored]);
    CHECK((size_t)rows * c <= MOST);
    fill(from == DT_F32 ? DT_F16 : from, (size_t)rows * c, narrow, wide);
    CHECK_INT(tensor_create(dev, stored, 1, 1, rows, c, &a), ERR_OK);
    CHECK_INT(tensor_create(dev, stored, 1, 1, rows, c, &b), ERR_OK);
    CHECK_INT(tensor_upload(&a, wide), ERR_OK);
    CHECK_INT(tensor_upload_from(&b, from == DT_F32 ? (const void *)wide : narrow, from), ERR_OK);
    expect_equal(&a, &b, what);
    tensor_destroy(&a);
    tensor_destroy(&b);
}

// Widths with padded rows (of 512 bytes), with a padded last group of four, and dense ones; the
// last in several pieces.
static void check_tables(struct ops_device *dev)
{
    static const uint32_t widths[] = {4, 6, 128, 256, 260};
    static const enum dtype all[] = {DT_F32, DT_F16, DT_BF16};
    for (size_t w = 0; w < sizeof widths / sizeof widths[0]; w++)
        for (size_t f = 0; f < sizeof all / sizeof all[0]; f++)
            for (int stored = DT_F32; stored <= DT_F16; stored++)
                check_table(dev, widths[w] == 6 ? 10000 : 7, widths[w], all[f], (enum dtype)stored);
}

static void check_refused(struct ops_device *dev)
{
    static const float weight[16];
    struct op_weight *w = NULL;
    struct op_weight_params p = {
        .weight = weight, .from = DT_U32, .out = 4, .in = 4, .kernel = 1, .dtype = DT_F32};
    CHECK_INT(op_weight_create(dev, &p, &w), ERR_INVALID);
    CHECK(!w);
}

static void body(struct ops_device *dev, enum dtype dtype)
{
    check_weights(dev, dtype);
    if (dtype == DT_F32) {
        check_tables(dev);
        check_refused(dev);
    }
}

int main(void)
{
    return op_test_run(body);
}
