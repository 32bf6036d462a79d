// Recordings whose products take turns in memory: results are those of products that stay, bit for
// bit, for every room and whether the CPU sees device memory or not; what they take is what the
// room allows; what cannot be read is an error.
#include "op_test.h"

#include <stdlib.h>

enum { PRODUCTS = 9, TOKENS = 9, WIDTH = 24 };

// A chain of products: each takes the result of the one before. Padded rows, both kernels.
static const struct {
    uint32_t out, in, kernel;
    enum dtype dtype;
    bool bias, seldom;
} chain[PRODUCTS] = {
    {256, WIDTH, 1, DT_F32, true, false}, {256, 256, 1, DT_F16, false, false},
    {256, 256, 1, DT_F32, true, false},   {252, 256, 1, DT_F32, false, false},
    {65, 252, 1, DT_F32, true, true},     {24, 65, 1, DT_F32, false, false},
    {24, 24, 3, DT_F32, true, false},     {256, 24, 1, DT_F32, false, false},
    {WIDTH, 256, 1, DT_Q8, true, false},
};

struct network {
    struct ops_device *dev;
    struct op_weight *w[PRODUCTS];
    struct op_stream *stream;
    float *values[PRODUCTS], *bias[PRODUCTS];
    int fills, fail_at; // 0: never
};

static struct op_weight_params params(struct network *n, int i)
{
    return (struct op_weight_params){
        .weight = n->values[i],
        .bias = chain[i].bias ? n->bias[i] : NULL,
        .out = chain[i].out,
        .in = chain[i].in,
        .kernel = chain[i].kernel,
        .dtype = chain[i].dtype,
        .stream = n->stream,
        .seldom = chain[i].seldom,
    };
}

static enum err fill(void *ctx)
{
    struct network *n = ctx;
    enum err e = ERR_OK;
    if (++n->fills == n->fail_at)
        return ERR_IO;
    for (int i = 0; !e && i < PRODUCTS; i++) {
        const struct op_weight_params p = params(n, i);
        if (op_weight_wanted(n->w[i]))
            e = op_weight_fill(n->w[i], &p);
    }
    return e;
}

static void make(struct ops_device *dev, bool streamed, struct network *n)
{
    *n = (struct network){.dev = dev};
    if (streamed)
        CHECK_INT(op_stream_create(dev, &n->stream), ERR_OK);
    for (int i = 0; i < PRODUCTS; i++) {
        const size_t taps = (size_t)chain[i].kernel * chain[i].kernel;
        n->values[i] = op_random(DT_F32, chain[i].out * chain[i].in * taps, (uint32_t)i + 1);
        n->bias[i] = op_random(DT_F32, chain[i].out, (uint32_t)i + 100);
        const struct op_weight_params p = params(n, i);
        CHECK_INT(op_weight_create(dev, &p, &n->w[i]), ERR_OK);
    }
}

static void unmake(struct network *n)
{
    for (int i = 0; i < PRODUCTS; i++) {
        op_weight_destroy(&n->w[i]);
        free(n->values[i]);
        free(n->bias[i]);
    }
    op_stream_destroy(&n->stream);
}

// The chain twice: the second time begins with what the first left in memory. copies: work before
// the first product.
static struct ops *record(struct network *n, const struct tensor *x, struct tensor *y, bool copies)
{
    struct ops *o = op_begin(n->dev, DT_F32);
    struct tensor at = *x;
    if (copies) {
        at = ops_temp(o, 1, 3, 3, x->c);
        op_copy(o, x, &at);
    }
    for (int k = 0; k < 2 * PRODUCTS; k++) {
        const int i = k % PRODUCTS;
        struct tensor next = ops_temp(o, 1, 3, 3, chain[i].out);
        op_conv2d(o, &at, n->w[i], &(struct op_epilogue){.scale = .1F}, &next);
        at = next;
    }
    *y = at;
    CHECK_INT(ops_end(o), ERR_OK);
    return o;
}

static void expect(struct network *n, const struct tensor *x, bool copies, const float *want,
                   const char *what, size_t room)
{
    enum { RUNS = 3 };
    float got[TOKENS * WIDTH];
    struct tensor y;
    struct ops *o = record(n, x, &y, copies);
    for (int run = 0; run < RUNS; run++) {
        CHECK_INT(ops_run(o), ERR_OK);
        CHECK_INT(tensor_download(&y, got), ERR_OK);
        CHECK_MSG(!memcmp(got, want, sizeof got), "%s, room for %zu bytes, run %d", what, room,
                  run);
    }
    ops_destroy(&o);
}

static size_t used(const struct ops_device *dev)
{
    struct ops_memory m;
    ops_device_memory(dev, &m);
    return m.used;
}

static void check_room(struct ops_device *dev, const struct tensor *x, const float *want,
                       size_t room, bool seen)
{
    const char *what = seen ? "the CPU sees the memory" : "copied";
    struct network n;
    vk_unmap_device_memory(dev->vk, !seen);
    const size_t before = used(dev);
    make(dev, true, &n);
    CHECK_INT(op_stream_place(n.stream, &(struct op_stream_params){room, fill, &n}), ERR_OK);
    CHECK_MSG(used(dev) - before <= room, "%s: %zu of %zu", what, used(dev) - before, room);
    vk_unmap_device_memory(dev->vk, false);
    expect(&n, x, false, want, what, room);
    expect(&n, x, true, want, what, room);
    unmake(&n);
    CHECK_INT(used(dev), before);
}

// Products that are seldom needed leave first.
static void check_seldom(struct ops_device *dev, size_t all)
{
    struct network n;
    make(dev, true, &n);
    CHECK_INT(op_stream_place(n.stream, &(struct op_stream_params){all - 1, fill, &n}), ERR_OK);
    for (int i = 0; i < PRODUCTS; i++)
        CHECK_MSG(!chain[i].seldom || !n.w[i]->kept, "product %d is kept", i);
    unmake(&n);
}

static void check_errors(struct ops_device *dev, const struct tensor *x, const float *want,
                         size_t least)
{
    struct network n, other;
    struct tensor y;
    make(dev, true, &n);
    CHECK_INT(op_stream_place(n.stream, &(struct op_stream_params){least - 1, fill, &n}),
              ERR_NO_DEVICE_MEMORY);
    unmake(&n);

    // A product that cannot be read fails this run only.
    make(dev, true, &n);
    CHECK_INT(op_stream_place(n.stream, &(struct op_stream_params){least, fill, &n}), ERR_OK);
    struct ops *o = record(&n, x, &y, false);
    for (int k = 1; k < 4; k++) {
        n.fills = 0;
        n.fail_at = k;
        CHECK_INT(ops_run(o), ERR_IO);
    }
    n.fail_at = 0;
    ops_destroy(&o);
    expect(&n, x, false, want, "after an error", least);

    make(dev, true, &other);
    CHECK_INT(op_stream_place(other.stream, &(struct op_stream_params){least, fill, &other}),
              ERR_OK);
    o = op_begin(dev, DT_F32);
    struct tensor a = ops_temp(o, 1, 3, 3, chain[0].out), b = ops_temp(o, 1, 3, 3, chain[0].out);
    op_linear(o, x, n.w[0], NULL, &a);
    op_linear(o, x, other.w[0], NULL, &b);
    CHECK_INT(ops_end(o), ERR_INVALID);
    ops_destroy(&o);
    unmake(&n);
    unmake(&other);
}

int main(void)
{
    struct ops_device *dev = NULL;
    struct fault why;
    struct network plain;
    struct tensor x, y;
    float want[TOKENS * WIDTH];
    size_t all = 0, largest = 0;

    if (ops_device_open(&(struct ops_open_params){.dtype = "f32"}, &dev, &why))
        return test_skip(why.msg);
    float *in = op_random(DT_F32, TOKENS * WIDTH, 77);
    CHECK_INT(tensor_create(dev, DT_F32, 1, 3, 3, WIDTH, &x), ERR_OK);
    CHECK_INT(tensor_upload(&x, in), ERR_OK);
    for (int i = 0; i < 8; i++) { // all of the ring that copies use
        vk_unmap_device_memory(dev->vk, true);
        make(dev, false, &plain);
        unmake(&plain);
        vk_unmap_device_memory(dev->vk, false);
    }
    make(dev, false, &plain);
    struct ops *o = record(&plain, &x, &y, false);
    CHECK_INT(ops_run(o), ERR_OK);
    CHECK_INT(tensor_download(&y, want), ERR_OK);
    ops_destroy(&o);

    const size_t before = used(dev);
    unmake(&plain);
    all = before - used(dev);
    make(dev, true, &plain);
    for (int i = 0; i < PRODUCTS; i++)
        largest = plain.w[i]->bytes > largest ? plain.w[i]->bytes : largest;
    unmake(&plain);
    // From two of the largest to all but one byte, and everything.
    const size_t least = 2 * vk_buffer_span(dev->vk, largest);
    enum { ROOMS = 12 };
    CHECK_MSG(least < all, "%zu of %zu", least, all);
    for (size_t i = 0; i <= ROOMS; i++)
        for (int seen = 0; seen < 2; seen++)
            check_room(dev, &x, want,
                       i == ROOMS ? all : least + (all - 1 - least) * i / (ROOMS - 1), seen);
    check_seldom(dev, all);
    check_errors(dev, &x, want, least);
    tensor_destroy(&x);
    free(in);
    ops_device_close(&dev);
    return test_end();
}
