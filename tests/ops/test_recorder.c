// Tensors, halves, weights and the recorder itself: layouts, memory that is used again, and errors
// that are kept instead of dispatches that would be wrong.
#include "op_test.h"

// ---- halves ---------------------------------------------------------------------------------

// Every finite half survives; numbers between two neighbours go to the nearer, ties to the even.
static void test_halves(void)
{
    int wrong = 0;
    for (uint32_t h = 0; h < 0x7c00; h++) {
        float a = float_from_half((uint16_t)h);
        float b = h == 0x7bff ? 65536 : float_from_half((uint16_t)(h + 1));
        float middle = (float)(((double)a + b) / 2);
        wrong += half_from_float(a) != h;
        wrong += half_from_float(-a) != (h | 0x8000);
        wrong += half_from_float(middle) != (h % 2 ? h + 1 : h);
        wrong += half_from_float(nextafterf(middle, 0)) != h;
        wrong += half_from_float(nextafterf(middle, 1e9f)) != h + 1;
    }
    CHECK_INT(wrong, 0);
    CHECK_INT(half_from_float(INFINITY), 0x7c00);
    CHECK_INT(half_from_float(-1e30f), 0xfc00);
    CHECK(isnan(float_from_half(half_from_float(NAN))));
    CHECK_INT(half_from_float(1e-9f), 0);
}

// Many at once give what one at a time gives, for every class of float: zeros, subnormals, numbers
// that round up into the next exponent or to infinity, infinities, NaN.
static void test_many_halves(void)
{
    enum { COUNT = 1 << 16 };
    float *from = malloc(COUNT * sizeof *from);
    uint16_t *to = malloc(COUNT * sizeof *to);
    int wrong = 0;

    for (uint32_t i = 0; i < COUNT; i++) {
        const uint32_t bits = i << 16 | (i * 40503u & 0xffff);
        memcpy(&from[i], &bits, 4);
    }
    from[0] = INFINITY, from[1] = -INFINITY, from[2] = NAN, from[3] = 65519.996F;
    from[4] = 65520, from[5] = -1e30F, from[6] = 0x1p-24F, from[7] = 0x1p-25F, from[8] = -0.0F;
    halves_from_floats(from, COUNT, to);
    for (uint32_t i = 0; i < COUNT; i++) {
        const uint16_t one = half_from_float(from[i]);
        const bool nan = isnan(from[i]);
        wrong += nan ? (to[i] & 0x7c00) != 0x7c00 || !(to[i] & 0x3ff) : to[i] != one;
    }
    CHECK_INT(wrong, 0);
    CHECK(to[0] == 0x7c00 && to[1] == 0xfc00 && to[3] == 0x7bff && to[4] == 0x7c00);
    CHECK(to[5] == 0xfc00 && to[6] == 1 && to[7] == 0 && to[8] == 0x8000);
    free(from);
    free(to);
}

// ---- tensors --------------------------------------------------------------------------------

static void test_strides(void)
{
    for (uint32_t c = 1; c < 5000; c += 7)
        for (int d = DT_F32; d <= DT_F16; d++) {
            uint32_t cs = tensor_stride((enum dtype)d, c);
            CHECK(cs >= c && cs % 4 == 0 && cs - c < 4 + 32);
            CHECK(cs * tensor_dtype_bytes((enum dtype)d) % 512 != 0);
        }
    CHECK_INT(tensor_stride(DT_U8, 3), 3);
}

static void test_layouts(struct ops_device *dev, enum dtype dtype, bool view)
{
    struct ref_shape s = {2, 3, 5, 6};
    size_t n = ref_count(s), wrong = 0;
    float *v = op_random(dtype, n, 1), *got = calloc(n, sizeof *got);
    struct op_array a = op_array(dev, dtype, s, v, view);
    CHECK_INT(tensor_download(&a.t, got), ERR_OK);
    CHECK(!memcmp(v, got, n * sizeof *v));
    CHECK_INT(tensor_download_nchw(&a.t, got), ERR_OK);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t c = i % s.c, pixel = i / s.c % (s.h * s.w), sample = i / (s.c * s.h * s.w);
        wrong += got[(sample * s.c + c) * s.h * s.w + pixel] != v[i];
    }
    CHECK_INT(wrong, 0);
    struct tensor second = tensor_samples(&a.t, 1, 1);
    CHECK_INT(tensor_upload_nchw(&second, got), ERR_OK);
    CHECK_INT(tensor_download_nchw(&second, got + n / 2), ERR_OK);
    CHECK(!memcmp(got, got + n / 2, n / 2 * sizeof *got));
    CHECK_INT(tensor_download(&a.t, got), ERR_OK);
    CHECK(!memcmp(v, got, n / 2 * sizeof *v)); // the first sample is what it was
    op_array_free(&a);
    free(v), free(got);
}

static void test_mapped(struct ops_device *dev)
{
    uint32_t ids[5] = {1, 2, 3, 0xffffffff, 5}, got[5];
    struct tensor t;
    CHECK_INT(tensor_create_mapped(dev, DT_U32, 1, 1, 5, 1, &t), ERR_OK);
    CHECK_INT(tensor_upload(&t, ids), ERR_OK);
    CHECK_INT(tensor_download(&t, got), ERR_OK);
    CHECK(!memcmp(ids, got, sizeof ids));
    const uint32_t *mapped = tensor_map(&t);
    CHECK(mapped && mapped[3 * t.cs] == 0xffffffff && mapped[3 * t.cs + 1] == 0);
    tensor_destroy(&t);
    CHECK_INT(tensor_create(dev, DT_F32, 0, 1, 1, 1, &t), ERR_INVALID);
}

// ---- activation memory ------------------------------------------------------------------------

static bool overlap(const struct tensor *a, const struct tensor *b)
{
    size_t sa = tensor_dtype_bytes(a->dtype), sb = tensor_dtype_bytes(b->dtype);
    size_t a0 = a->offset * sa, a1 = a0 + tensor_span(a) * sa;
    size_t b0 = b->offset * sb, b1 = b0 + tensor_span(b) * sb;
    return a->buf == b->buf && a0 < b1 && b0 < a1;
}

// Live tensors never share memory, whatever the order of takes and releases; a view frees nothing.
static void test_memory(struct ops_device *dev)
{
    enum { MANY = 40 };
    struct tensor live[MANY];
    bool used[MANY] = {false};
    struct ops *o = op_begin(dev, DT_F32);
    uint32_t state = 1;
    for (int i = 0; i < 2000; i++) {
        state = state * 1664525 + 1013904223;
        uint32_t slot = (state >> 16) % MANY;
        if (used[slot]) {
            struct tensor view = tensor_channels(&live[slot], 0, 1);
            ops_release(o, &view);
            ops_release(o, &live[slot]);
            used[slot] = false;
            continue;
        }
        enum dtype dtype = state & 256 ? DT_F16 : DT_F32;
        live[slot] = ops_temp_dtype(o, dtype, 1 + slot % 3, 1, 1 + (state >> 8) % 500, 2 + slot);
        used[slot] = true;
        for (uint32_t j = 0; j < MANY; j++)
            if (used[j] && j != slot)
                CHECK(!overlap(&live[j], &live[slot]));
    }
    CHECK_INT(ops_error(o), ERR_OK);
    ops_destroy(&o);

    o = op_begin(dev, DT_F32);
    struct tensor a = ops_temp(o, 1, 64, 64, 64), b;
    struct tensor part = tensor_channels(&a, 0, 32);
    ops_release(o, &part);
    b = ops_temp(o, 1, 64, 64, 64);
    CHECK(!overlap(&a, &b));
    ops_release(o, &a);
    struct tensor c = ops_temp(o, 1, 64, 64, 64);
    CHECK(c.buf == a.buf && c.offset == a.offset);
    ops_destroy(&o);
}

// ---- errors -------------------------------------------------------------------------------------

static struct op_weight *weight(struct ops_device *dev, uint32_t out, uint32_t in, uint32_t kernel)
{
    float *v = op_random(DT_F32, (size_t)out * in * kernel * kernel, 1);
    struct op_weight *w = NULL;
    struct op_weight_params p = {.weight = v, .out = out, .in = in, .kernel = kernel};
    CHECK_INT(op_weight_create(dev, &p, &w), ERR_OK);
    free(v);
    return w;
}

static void test_weights(struct ops_device *dev)
{
    float v[64] = {0};
    struct op_weight *w = NULL;
    struct op_weight_params p = {.weight = v, .out = 1, .in = 1, .kernel = 5};
    CHECK_INT(op_weight_create(dev, &p, &w), ERR_INVALID);
    CHECK(!w);
    p.kernel = 1;
    p.in = 0;
    CHECK_INT(op_weight_create(dev, &p, &w), ERR_INVALID);
    w = weight(dev, 8, 8, 1);
    CHECK(w && op_weight_bytes(w) >= sizeof v);
    op_weight_destroy(&w);
    CHECK(!w);
    op_weight_destroy(&w);
}

// Memory that the CPU cannot see gets the same weights in either order, in few submissions and one
// wait.
static void test_unmapped(struct ops_device *dev, const char *kernels)
{
    enum { IN = 40, OUT = 1000 };
    const struct kernel_wish wish = dev->wish;
    struct vk_memory_stats before, after;
    struct op_weight *seen, *unseen;
    if (ops_device_prefer(dev, kernels))
        return;
    seen = weight(dev, OUT, IN, 3);
    vk_unmap_device_memory(dev->vk, true);
    vk_memory_stats(dev->vk, &before);
    unseen = weight(dev, OUT, IN, 3);
    CHECK_INT(ops_device_settle(dev), ERR_OK);
    vk_memory_stats(dev->vk, &after);
    vk_unmap_device_memory(dev->vk, false);
    size_t n = tensor_span(&seen->packed), bytes = n * sizeof(float);
    float *a = malloc(bytes), *b = malloc(bytes);
    CHECK(bytes > 1 << 20 && !vk_buffer_map(unseen->packed.buf));
    CHECK_INT(vk_download(seen->packed.buf, 0, a, bytes), ERR_OK);
    CHECK_INT(vk_download(unseen->packed.buf, 0, b, bytes), ERR_OK);
    CHECK(!memcmp(a, b, bytes));
    CHECK_MSG(after.transfers - before.transfers <= 2 &&
                  after.transfer_waits - before.transfer_waits <= 2,
              "%u submissions, %u waits", after.transfers - before.transfers,
              after.transfer_waits - before.transfer_waits);
    op_weight_destroy(&seen);
    op_weight_destroy(&unseen);
    dev->wish = wish;
    free(a), free(b);
}

// The result of recording y = conv(x) with these shapes.
static enum err record(struct ops_device *dev, struct ref_shape x, struct ref_shape y,
                       const struct op_weight *w)
{
    struct ops *o = op_begin(dev, DT_F32);
    struct tensor tx = ops_temp(o, x.n, x.h, x.w, x.c), ty = ops_temp(o, y.n, y.h, y.w, y.c);
    op_conv2d(o, &tx, w, NULL, &ty);
    op_conv2d(o, &tx, w, NULL, &ty); // does nothing after an error
    enum err e = ops_error(o);
    CHECK_INT(ops_dispatches(o), e ? 0 : 2);
    CHECK_NEAR(ops_flops(o), e ? 0 : 4.0 * y.n * y.h * y.w * y.c * x.c * w->kernel * w->kernel, 0);
    CHECK_INT(ops_end(o), e);
    if (e)
        CHECK_INT(ops_run(o), e);
    ops_destroy(&o);
    return e;
}

static void test_errors(struct ops_device *dev)
{
    struct op_weight *w = weight(dev, 12, 8, 3);
    struct ref_shape x = {2, 4, 4, 8}, y = {2, 4, 4, 12};
    CHECK_INT(record(dev, x, y, w), ERR_OK);
    CHECK_INT(record(dev, x, (struct ref_shape){2, 4, 4, 8}, w), ERR_INVALID);
    CHECK_STR(ops_device_why(dev, ERR_INVALID),
              "op_conv2d: the operands do not match: f32 [2, 4, 4, 8], f32 [12, 3, 3, 8], "
              "f32 [2, 4, 4, 8], absent, absent");
    CHECK_INT(record(dev, x, (struct ref_shape){1, 4, 4, 12}, w), ERR_INVALID);
    CHECK_INT(record(dev, (struct ref_shape){2, 4, 4, 4}, y, w), ERR_INVALID);
    CHECK_INT(record(dev, x, (struct ref_shape){2, 4, 5, 12}, w), ERR_INVALID);

    struct ops *o = op_begin(dev, DT_F32);
    ops_fail(o, ERR_FORMAT);
    ops_fail(o, ERR_IO);
    CHECK_INT(ops_end(o), ERR_FORMAT);
    ops_destroy(&o);
    ops_destroy(&o);
    op_weight_destroy(&w);
}

// A call must describe its operands correctly: storage, outputs, workgroups.
static void test_calls(struct ops_device *dev)
{
    for (int k = 0; k < 5; k++) {
        struct ops *o = op_begin(dev, DT_F32);
        struct tensor x = ops_temp_dtype(o, k == 1 ? DT_F16 : DT_F32, 1, 1, 4, 4);
        struct tensor y = ops_temp_dtype(o, k == 2 ? DT_F16 : DT_F32, 1, 1, 4, 4), none = y;
        struct push_map push = {.pixels = 4, .c = 4};
        struct ops_call call = {.op = OP_MAP,
                                .dtype = DT_F32,
                                .specs = 1,
                                .spec = {8},
                                .arg = {&x, NULL, &y},
                                .push = &push,
                                .groups = {1, 1, 1}};
        none.buf = NULL;
        if (k == 3)
            call.arg[2] = NULL;
        if (k == 4)
            call.groups[1] = 0;
        ops_dispatch(o, &call);
        CHECK_MSG(ops_error(o) == (k == 0 || k == 2 ? ERR_OK : ERR_INVALID), "call %d", k);
        CHECK_INT(ops_dispatches(o), ops_error(o) ? 0 : 1);
        if (!ops_error(o)) {
            call.arg[0] = &none;
            ops_dispatch(o, &call);
            CHECK_INT(ops_error(o), ERR_INVALID);
        }
        ops_destroy(&o);
    }
}

// A bias has a number for each head, query and key, whatever its size.
static void test_attention_fits(struct ops_device *dev)
{
    enum { HEADS = 2, QUERIES = 3, KEYS = 5, C = 8 };
    static const uint32_t shapes[][4] = {
        {1, QUERIES, KEYS, HEADS},     {1, QUERIES, KEYS - 1, HEADS}, {1, QUERIES - 1, KEYS, HEADS},
        {1, QUERIES, KEYS, HEADS + 1}, {2, QUERIES, KEYS, HEADS},     {1, KEYS, QUERIES, HEADS}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct ops *o = op_begin(dev, DT_F32);
        struct tensor q = ops_temp(o, 1, 1, QUERIES, C), y = ops_temp(o, 1, 1, QUERIES, C);
        struct tensor k = ops_temp(o, 1, 1, KEYS, C), v = ops_temp(o, 1, 1, KEYS, C);
        const uint32_t *s = shapes[i];
        struct tensor bias = ops_temp(o, s[0], s[1], s[2], s[3]);
        op_attention(o, &(struct op_attention_params){.q = &q,
                                                      .segment = {{.k = &k, .v = &v}},
                                                      .segments = 1,
                                                      .heads = HEADS,
                                                      .scale = 1,
                                                      .bias = &bias,
                                                      .y = &y});
        CHECK_MSG(ops_error(o) == (i ? ERR_INVALID : ERR_OK), "bias %zu", i);
        ops_destroy(&o);
    }
}

// More loop trips than a software device of Mesa 22.3 would run: refused, not silently cut short.
static void test_trips(struct ops_device *dev)
{
    enum { LONG = 240004 };
    float *v = calloc(LONG, sizeof *v);
    struct op_weight *w = NULL;
    struct op_weight_params p = {.weight = v, .out = 1, .in = LONG, .kernel = 1};
    CHECK_INT(op_weight_create(dev, &p, &w), ERR_UNSUPPORTED);
    CHECK(!w && strstr(ops_device_why(dev, ERR_UNSUPPORTED), "loop trips in one invocation"));
    free(v);
}

int main(void)
{
    struct ops_device *dev = op_test_device();
    test_halves();
    test_many_halves();
    test_strides();
    if (!dev)
        return test_skip("no Vulkan device");
    for (int d = DT_F32; d <= DT_F16; d++) {
        test_layouts(dev, (enum dtype)d, false);
        test_layouts(dev, (enum dtype)d, true);
    }
    test_mapped(dev);
    test_memory(dev);
    test_weights(dev);
    test_unmapped(dev, "tile");
    test_unmapped(dev, "lane");
    test_errors(dev);
    test_calls(dev);
    test_attention_fits(dev);
    if (ops_device_info(dev)->cpu)
        test_trips(dev);
    struct ops_memory before;
    ops_device_memory(dev, &before);
    CHECK(before.peak >= before.used && before.limit >= before.used);
    return op_test_close();
}
