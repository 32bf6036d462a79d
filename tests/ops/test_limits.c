// Devices whose limits are lower than this one's: operands that are too large for texel buffers are
// read from storage buffers with bit-equal results, the limits that the specification guarantees
// suffice, and a limit that does not is named with the operator, its shape and the device.
#include "op_test.h"

enum { H = 10, W = 8, C = 24 };

struct rig {
    struct ops_device *dev;
    struct op_array x, large, table, y; // table: of the other type
    struct op_weight *linear, *conv;
    struct tensor gamma;
};

static struct op_array filled(struct ops_device *dev, enum dtype dtype, struct ref_shape s)
{
    float *v = op_random(dtype, ref_count(s), s.h);
    struct op_array a = op_array(dev, dtype, s, v, false);
    free(v);
    return a;
}

static struct op_weight *weight(struct ops_device *dev, enum dtype dtype, uint32_t kernel)
{
    struct op_weight *w = NULL;
    float *v = op_random(dtype, (size_t)C * C * kernel * kernel, kernel);
    CHECK_INT(
        op_weight_create(dev,
                         &(struct op_weight_params){
                             .weight = v, .out = C, .in = C, .kernel = kernel, .dtype = dtype},
                         &w),
        ERR_OK);
    free(v);
    return w;
}

static void rig_open(struct rig *r, struct ops_device *dev, enum dtype dtype)
{
    r->dev = dev;
    r->x = filled(dev, dtype, (struct ref_shape){2, H, W, C});
    r->large = filled(dev, dtype, (struct ref_shape){1, 16 * H, 16 * W, C});
    r->table = filled(dev, dtype == DT_F16 ? DT_F32 : DT_F16, (struct ref_shape){1, H, W, C});
    r->linear = weight(dev, dtype, 1);
    r->conv = weight(dev, dtype, 3);
    float *v = op_random(DT_F32, C, 3);
    CHECK_INT(tensor_create(dev, DT_F32, 1, 1, 1, C, &r->gamma), ERR_OK);
    CHECK_INT(tensor_upload(&r->gamma, v), ERR_OK);
    free(v);
}

static void rig_close(struct rig *r)
{
    op_weight_destroy(&r->linear);
    op_weight_destroy(&r->conv);
    tensor_destroy(&r->gamma);
    op_array_free(&r->x);
    op_array_free(&r->large);
    op_array_free(&r->table);
}

// ---- what is run -------------------------------------------------------------------------------

static void linear(struct ops *o, struct rig *r, const struct tensor *y)
{
    op_linear(o, &r->x.t, r->linear, &(struct op_epilogue){.act = ACT_SILU, .residual = &r->x.t},
              y);
}

static void linear_flat(struct ops *o, struct rig *r, const struct tensor *y)
{
    const struct tensor x = tensor_reshape(&r->x.t, 2, 1, H * W);
    op_linear(o, &x, r->linear, &(struct op_epilogue){.mul = &x}, y);
}

static void conv(struct ops *o, struct rig *r, const struct tensor *y)
{
    op_conv2d(o, &r->x.t, r->conv, &(struct op_epilogue){.residual = &r->x.t}, y);
}

static void conv_large(struct ops *o, struct rig *r, const struct tensor *y)
{
    op_conv2d(o, &r->large.t, r->conv, NULL, y);
}

static void attention(struct ops *o, struct rig *r, const struct tensor *y)
{
    op_attention(o, &(struct op_attention_params){.q = &r->x.t,
                                                  .segment = {{&r->x.t, &r->x.t, NULL}},
                                                  .segments = 1,
                                                  .heads = 3,
                                                  .scale = .5f,
                                                  .y = y});
}

static void attention_one(struct ops *o, struct rig *r, const struct tensor *y)
{
    const struct tensor x = tensor_samples(&r->x.t, 0, 1);
    op_attention(
        o,
        &(struct op_attention_params){
            .q = &x, .segment = {{&x, &x, NULL}}, .segments = 1, .heads = 3, .scale = .5f, .y = y});
}

static void attention_odd(struct ops *o, struct rig *r, const struct tensor *y)
{
    op_attention(o, &(struct op_attention_params){.q = &r->x.t,
                                                  .segment = {{&r->x.t, &r->x.t, NULL}},
                                                  .segments = 1,
                                                  .heads = 4,
                                                  .scale = .5f,
                                                  .y = y});
}

static void group_norm(struct ops *o, struct rig *r, uint32_t groups, const struct tensor *x,
                       const struct tensor *y)
{
    op_group_norm(o, &(struct op_group_norm_params){.x = x,
                                                    .y = y,
                                                    .gamma = &r->gamma,
                                                    .beta = &r->gamma,
                                                    .groups = groups,
                                                    .eps = 1e-5f,
                                                    .act = ACT_SILU});
}

static void norm(struct ops *o, struct rig *r, const struct tensor *y)
{
    group_norm(o, r, 6, &r->x.t, y);
}

static void norm_large(struct ops *o, struct rig *r, const struct tensor *y)
{
    group_norm(o, r, 6, &r->large.t, y);
}

// Too much for one workgroup of a GPU, too.
static void norm_group(struct ops *o, struct rig *r, const struct tensor *y)
{
    group_norm(o, r, 1, &r->large.t, y);
}

static void layer_norm(struct ops *o, struct rig *r, const struct tensor *y)
{
    op_layer_norm(o, &r->x.t, &r->gamma, &r->gamma, 1e-5f, y);
}

// From another type.
static void copy(struct ops *o, struct rig *r, const struct tensor *y)
{
    op_copy(o, &r->table.t, y);
}

static void act(struct ops *o, struct rig *r, const struct tensor *y)
{
    op_act(o, ACT_GELU, &r->x.t, y);
}

static void add(struct ops *o, struct rig *r, const struct tensor *y)
{
    op_add(o, &r->x.t, &r->x.t, .25f, y);
}

static void mean(struct ops *o, struct rig *r, const struct tensor *y)
{
    op_mean_pixels(o, &r->x.t, y);
}

static void pool(struct ops *o, struct rig *r, const struct tensor *y)
{
    op_avg_pool2(o, &r->x.t, y);
}

static void nearest(struct ops *o, struct rig *r, const struct tensor *y)
{
    op_upsample_nearest2(o, &r->x.t, y);
}

static void bilinear(struct ops *o, struct rig *r, const struct tensor *y)
{
    op_upsample_bilinear(o, false, &r->x.t, y);
}

static void unshuffle(struct ops *o, struct rig *r, const struct tensor *y)
{
    op_pixel_unshuffle(o, 2, &r->x.t, y);
}

static const struct {
    const char *name;
    void (*record)(struct ops *o, struct rig *r, const struct tensor *y);
    struct ref_shape y;
} rows[] = {
    {"linear", linear, {2, H, W, C}},
    {"linear, one row", linear_flat, {2, 1, H *W, C}},
    {"conv2d", conv, {2, H, W, C}},
    {"conv2d, large", conv_large, {1, 16 * H, 16 * W, C}},
    {"attention", attention, {2, H, W, C}},
    {"attention, one sample", attention_one, {1, H, W, C}},
    {"attention, odd heads", attention_odd, {2, H, W, C}},
    {"group_norm", norm, {2, H, W, C}},
    {"group_norm, large", norm_large, {1, 16 * H, 16 * W, C}},
    {"group_norm, one large group", norm_group, {1, 16 * H, 16 * W, C}},
    {"layer_norm", layer_norm, {2, H, W, C}},
    {"copy", copy, {1, H, W, C}},
    {"act", act, {2, H, W, C}},
    {"add", add, {2, H, W, C}},
    {"mean_pixels", mean, {2, 1, 1, C}},
    {"avg_pool2", pool, {2, H / 2, W / 2, C}},
    {"upsample_nearest2", nearest, {2, 2 * H, 2 * W, C}},
    {"upsample_bilinear", bilinear, {2, 3 * H, 3 * W, C}},
    {"pixel_unshuffle", unshuffle, {2, H / 2, W / 2, 4 * C}},
};
enum { ROWS = sizeof rows / sizeof rows[0] };

// The row's result under these limits; NULL when it failed. Freed by the caller.
static float *run(struct rig *r, int row, enum dtype dtype, const struct vk_caps *caps)
{
    const struct vk_caps *own = r->dev->caps;
    float *got = calloc(ref_count(rows[row].y), sizeof *got);
    r->dev->caps = caps;
    struct op_array y = op_array(r->dev, dtype, rows[row].y, NULL, false);
    struct ops *o = op_begin(r->dev, dtype);
    rows[row].record(o, r, &y.t);
    bool ok = op_finish(o) && got;
    if (ok)
        CHECK_INT(tensor_download(&y.t, got), ERR_OK);
    op_array_free(&y);
    r->dev->caps = own;
    if (!ok) {
        free(got);
        got = NULL;
    }
    return got;
}

// Attention on matrix units needs more than the least shared memory: another kernel takes its
// place, whose results differ by what rounding weights to halves makes; see test_attention.c.
static double allowed(const struct rig *r, int row, enum dtype dtype)
{
    const struct problem p = {.n = 1, .h = H, .w = W, .keys = H * W, .heads = 3, .d = C / 3};
    const bool vectors = rows[row].record == attention || rows[row].record == attention_one;
    return vectors && op_test_on_matrix_units(r->dev, OP_ATTENTION, dtype, dtype, &p) ? 0x1p-9 : 0;
}

// The large tiles need more than the least limits. What takes their place is the estimate's choice,
// on a CPU another kernel with another order of sums; the narrow tiles have the same one.
static float *run_low(struct rig *r, int row, enum dtype dtype, const struct vk_caps *low)
{
    const bool wide =
        strstr(op_test_way(), "matmul_matrix_wide") || strstr(op_test_way(), "matmul_matrix_large");
    if (wide)
        CHECK_INT(ops_device_prefer(r->dev, "matmul_matrix,attention_any,buffer"), ERR_OK);
    float *got = run(r, row, dtype, low);
    if (wide)
        CHECK_INT(ops_device_prefer(r->dev, op_test_way()), ERR_OK);
    return got;
}

// Kernels whose order of sums no other one has, and which do not fit into the least limits.
static bool order_is_its_own(int row, enum dtype dtype)
{
    const bool product = rows[row].record == linear || rows[row].record == linear_flat ||
                         rows[row].record == conv || rows[row].record == conv_large;
    return product && dtype == DT_F16 && strstr(op_test_way(), "matmul_matrix_shares");
}

static void compare_rows(struct rig *r, enum dtype dtype, const struct vk_caps *low)
{
    for (int i = 0; i < ROWS; i++) {
        if (order_is_its_own(i, dtype))
            continue;
        float *want = run(r, i, dtype, r->dev->caps), *got = run_low(r, i, dtype, low);
        const size_t n = ref_count(rows[i].y);
        double farthest = 0;
        for (size_t k = 0; want && got && k < n; k++)
            farthest = fmax(farthest, fabs((double)want[k] - got[k]));
        CHECK_MSG(want && got &&
                      (!memcmp(want, got, n * sizeof *want) || farthest < allowed(r, i, dtype)),
                  "%s %s: lower limits change the result by %g", rows[i].name,
                  op_test_variant(r->dev, dtype), farthest);
        free(want), free(got);
    }
}

// Pipelines that read operands from storage buffers.
static int buffer_pipelines(const struct ops_device *dev)
{
    int n = 0;
    for (int i = 0; i < dev->pipeline_count; i++)
        n += dev->pipelines[i].key.choice.build->load == LOAD_BUFFER;
    return n;
}

// No operand fits into a texel buffer, whatever its size.
static void test_texels(struct ops_device *dev, enum dtype dtype)
{
    struct vk_caps low = *dev->caps;
    struct rig r;
    if (!strstr(op_test_way(), "texel"))
        return;
    low.max_texel_elements = 1;
    rig_open(&r, dev, dtype);
    int before = buffer_pipelines(dev);
    compare_rows(&r, dtype, &low);
    CHECK(buffer_pipelines(dev) >= before + ROWS - 3); // three rows share kernels with others
    rig_close(&r);
}

// Vulkan 1.3, "Required Limits"; of the storage buffers in one shader it guarantees 4, which no
// network of ours can do with: that one is left.
static struct vk_caps required_limits(const struct vk_caps *own)
{
    struct vk_caps low = *own;
    low.max_texel_elements = 65536;
    low.max_storage_range = (size_t)1 << 27;
    low.max_workgroup_invocations = 128;
    low.max_shared_bytes = 16384;
    low.max_push_bytes = 128;
    low.max_groups[0] = low.max_groups[1] = low.max_groups[2] = 65535;
    low.max_texel_bindings = 16;
    low.max_bindings = 128;
    low.offset_alignment = 256;
    return low;
}

static void test_required(struct ops_device *dev, enum dtype dtype)
{
    const struct vk_caps low = required_limits(dev->caps);
    struct rig r;
    rig_open(&r, dev, dtype);
    compare_rows(&r, dtype, &low);
    rig_close(&r);
}

// Workgroups of GroupNorm as on a GPU, whose size is limited: the order of its sums stays.
static void test_norms(struct ops_device *dev, enum dtype dtype)
{
    struct vk_caps gpu = *dev->caps;
    struct rig r;
    gpu.cpu = false;
    const struct vk_caps low = required_limits(&gpu);
    CHECK(gpu.max_workgroup_invocations > low.max_workgroup_invocations);
    rig_open(&r, dev, dtype);
    for (int i = 0; i < ROWS; i++) {
        if (strncmp(rows[i].name, "group_norm", 10) != 0)
            continue;
        float *want = run(&r, i, dtype, &gpu), *got = run(&r, i, dtype, &low);
        CHECK_MSG(want && got && !memcmp(want, got, ref_count(rows[i].y) * sizeof *want),
                  "%s %s: smaller workgroups change the result", rows[i].name,
                  op_test_variant(dev, dtype));
        free(want), free(got);
    }
    rig_close(&r);
}

// Two samples need more than one binding may hold, one does not: the samples go one by one.
static void test_samples(struct ops_device *dev, enum dtype dtype)
{
    static const char *const by_sample[] = {"linear", "act", "add", "avg_pool2",
                                            "upsample_nearest2"};
    struct rig r;
    rig_open(&r, dev, dtype);
    for (int i = 0; i < ROWS; i++) {
        bool wanted = false;
        for (size_t k = 0; k < sizeof by_sample / sizeof by_sample[0]; k++)
            wanted = wanted || !strcmp(rows[i].name, by_sample[k]);
        if (!wanted)
            continue;
        const size_t x = (size_t)H * W * C, y = ref_count(rows[i].y) / 2;
        struct vk_caps low = *dev->caps;
        low.max_storage_range = (x > y ? x : y) * tensor_dtype_bytes(dtype);
        float *want = run(&r, i, dtype, dev->caps), *got = run(&r, i, dtype, &low);
        CHECK_MSG(want && got && !memcmp(want, got, ref_count(rows[i].y) * sizeof *want),
                  "%s %s: sample by sample differs", rows[i].name, op_test_variant(dev, dtype));
        free(want), free(got);
    }
    rig_close(&r);
}

// One sample needs more than one binding may hold: pieces of two of its rows. Winograd's tiles lie
// elsewhere then.
static void test_rows(struct ops_device *dev, enum dtype dtype)
{
    static const struct {
        const char *name;
        bool texels; // one of its operands, or the weights, would not fit into a buffer
        double off;
    } pieces[] = {
        {"linear", false, 0},
        {"linear, one row", false, 0},
        {"conv2d", true, 1e-2},
        {"conv2d, large", false, 1e-2},
        {"attention, one sample", true, 0},
        {"group_norm, large", true, 0},
        {"copy", false, 0},
        {"act", false, 0},
        {"add", false, 0},
        {"upsample_nearest2", false, 0},
        {"pixel_unshuffle", false, 0},
    };
    struct rig r;
    rig_open(&r, dev, dtype);
    for (size_t k = 0; k < sizeof pieces / sizeof pieces[0]; k++) {
        int i = 0;
        while (i < ROWS && strcmp(rows[i].name, pieces[k].name) != 0)
            i++;
        CHECK_MSG(i < ROWS, "no row %s", pieces[k].name);
        if (i == ROWS || (pieces[k].texels && !strstr(op_test_way(), "texel")))
            continue;
        const size_t y = ref_count(rows[i].y) / rows[i].y.n;
        struct vk_caps low = *dev->caps;
        low.max_storage_range = y * tensor_dtype_bytes(dtype) - 4;
        float *want = run(&r, i, dtype, dev->caps), *got = run(&r, i, dtype, &low);
        double farthest = 0;
        for (size_t n = 0; want && got && n < ref_count(rows[i].y); n++)
            farthest = fmax(farthest, fabs((double)want[n] - got[n]));
        CHECK_MSG(want && got && farthest <= pieces[k].off + allowed(&r, i, dtype),
                  "%s %s: row by row differs by %g", rows[i].name, op_test_variant(dev, dtype),
                  farthest);
        free(want), free(got);
    }
    rig_close(&r);
}

// ---- errors ------------------------------------------------------------------------------------

static void range(struct vk_caps *c)
{
    c->max_texel_elements = 1;
    c->max_storage_range = 256;
}

static void groups(struct vk_caps *c)
{
    c->max_groups[0] = c->max_groups[1] = c->max_groups[2] = 1;
}

static void invocations(struct vk_caps *c)
{
    c->max_workgroup_invocations = 1;
}

static void push(struct vk_caps *c)
{
    c->max_push_bytes = 16;
}

static void shared(struct vk_caps *c)
{
    c->max_shared_bytes = 256;
}

// linear on every path; what a path does not use cannot be too small.
static const struct {
    void (*lower)(struct vk_caps *c);
    bool lane, tile; // which kernels must fail
    const char *says;
} errors[] = {
    {range, true, true, "bytes in one storage buffer (maxStorageBufferRange)"},
    {groups, true, true, "workgroups along one axis"},
    {invocations, true, true, "invocations in a workgroup"},
    {push, true, true, "bytes of push constants"},
    {shared, false, true, "bytes of shared memory"},
};

static void test_errors(struct ops_device *dev, enum dtype dtype)
{
    const struct vk_caps *own = dev->caps;
    struct rig r;
    rig_open(&r, dev, dtype);
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        struct op_array y = op_array(dev, dtype, (struct ref_shape){2, H, W, C}, NULL, false);
        struct vk_caps low = *own;
        errors[i].lower(&low);
        dev->caps = &low;
        struct ops *o = op_begin(dev, dtype);
        linear(o, &r, &y.t);
        enum err e = ops_end(o);
        dev->caps = own;
        bool tile = r.linear->layout == LAYOUT_ROWS;
        if (tile ? errors[i].tile : errors[i].lane) {
            const char *why = ops_device_why(dev, e);
            CHECK_INT(e, ERR_UNSUPPORTED);
            CHECK_MSG(strstr(why, errors[i].says) && strstr(why, tile ? "matmul_" : "linear_lane"),
                      "expected \"%s\": %s", errors[i].says, why);
            CHECK_MSG(strstr(why, own->name), "no device: %s", why);
            CHECK_MSG(errors[i].lower == push || strstr(why, ", 10, 8, 24] needs "), "no shape: %s",
                      why);
        } else {
            CHECK_INT(e, ERR_OK);
        }
        ops_destroy(&o);
        op_array_free(&y);
    }
    rig_close(&r);
}

// Rows that are longer than the loops of Mesa 22.3.
static void test_trips(struct ops_device *dev, enum dtype dtype)
{
    enum { LONG = 8 << 20 };
    struct tensor x = {0}, gamma = {0};
    struct ops *o = op_begin(dev, dtype);
    CHECK_INT(tensor_create(dev, dtype, 1, 1, 1, LONG, &x), ERR_OK);
    CHECK_INT(tensor_create(dev, DT_F32, 1, 1, 1, LONG, &gamma), ERR_OK);
    op_rms_norm(o, &x, &gamma, 1e-5f, &x);
    CHECK_INT(ops_end(o), ERR_UNSUPPORTED);
    const char *why = ops_device_why(dev, ERR_UNSUPPORTED);
    CHECK_MSG(strstr(why, "rms_norm on ") && strstr(why, "[1, 1, 1, 8388608] needs ") &&
                  strstr(why, "loop trips in one invocation"),
              "%s", why);
    ops_destroy(&o);
    tensor_destroy(&x);
    tensor_destroy(&gamma);
}

static void body(struct ops_device *dev, enum dtype dtype)
{
    test_texels(dev, dtype);
    test_required(dev, dtype);
    test_norms(dev, dtype);
    test_samples(dev, dtype);
    test_rows(dev, dtype);
    test_errors(dev, dtype);
    test_trips(dev, dtype);
}

int main(void)
{
    return op_test_run(body);
}
