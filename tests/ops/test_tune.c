// The tuner, with a timer of this test: the fastest kernel is taken, kept in a file and read back;
// a file of another driver or a damaged one is ignored with a notice; time is limited; wishes win.
// At the end its own timer, on each operator that has several kernels.
#include "op_test.h"
#include "tune.h"

#include <dirent.h>
#include <unistd.h>

enum { QUERIES = 64, HEADS = 2, D = 16, BATCH = 3 };

static char dir[] = "/tmp/imagend-tune-XXXXXX";

static struct {
    const char *fast; // the build that takes the least time
    int calls, failed;
    double spent;
    tune_measure *real;
} timer;

static struct tune_time fake(struct ops_device *dev, const struct ops_call *call, int row,
                             int build)
{
    timer.calls++;
    bool fast = !strcmp(kernel_at(row)->build[build].name, timer.fast);
    return (struct tune_time){fast ? 1 : 2, timer.spent};
}

static struct tune_time watched(struct ops_device *dev, const struct ops_call *call, int row,
                                int build)
{
    struct tune_time t = timer.real(dev, call, row, build);
    timer.calls++;
    timer.failed += !(t.seconds > 0 && t.spent >= t.seconds);
    return (struct tune_time){t.seconds, 0};
}

static struct ops_device *open_with(const char *tune)
{
    struct fault why = {0};
    struct ops_device *dev = NULL;
    CHECK_INT(
        ops_device_open(&(struct ops_open_params){.cache_dir = dir, .dtype = "f32", .tune = tune},
                        &dev, &why),
        ERR_OK);
    return dev;
}

static struct ops_device *open_fake(const char *fast)
{
    struct ops_device *dev = open_with("on");
    timer.calls = 0;
    timer.fast = fast;
    timer.spent = 0;
    if (dev)
        dev->tuner->measure = fake;
    return dev;
}

// Self-attention of the last n of BATCH samples; out: [n, QUERIES, HEADS * D].
static void attend(struct ops_device *dev, uint32_t n, uint32_t queries, float *out)
{
    const struct ref_shape s = {BATCH, 1, queries, HEADS * D}, part = {n, 1, queries, HEADS * D};
    float *v = op_random(DT_F32, ref_count(s), 1);
    struct op_array x = op_array(dev, DT_F32, part, v + ref_count(s) - ref_count(part), false);
    struct op_array y = op_array(dev, DT_F32, part, NULL, false);
    struct ops *o = NULL;
    CHECK_INT(ops_begin(dev, DT_F32, &o), ERR_OK);
    op_attention(o, &(struct op_attention_params){.q = &x.t,
                                                  .segment = {{&x.t, &x.t, NULL}},
                                                  .segments = 1,
                                                  .heads = HEADS,
                                                  .scale = .25f,
                                                  .y = &y.t});
    CHECK_INT(ops_end(o), ERR_OK);
    CHECK_INT(ops_run(o), ERR_OK);
    ops_destroy(&o);
    if (out)
        CHECK_INT(tensor_download(&y.t, out), ERR_OK);
    op_array_free(&x);
    op_array_free(&y);
    free(v);
}

static const char *chosen(struct ops_device *dev)
{
    const struct problem p = {
        .n = BATCH, .h = 1, .w = QUERIES, .keys = QUERIES, .heads = HEADS, .d = D};
    struct ops_call call = {.op = OP_ATTENTION, .problem = &p};
    struct kernel_choice c;
    char why[KERNEL_WHY];
    return kernel_choose(dev, &call, &c, why) ? c.build->name : "none";
}

static int files(void)
{
    int n = 0;
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));)
        n += !strncmp(e->d_name, "kernels-", 8);
    if (d)
        closedir(d);
    return n;
}

// Measured once, whatever the batch; a sample alone then gives the same bits as in a batch.
static void test_fastest(void)
{
    enum { EACH = QUERIES * HEADS * D };
    static float batch[BATCH * EACH], alone[EACH], lane[BATCH * EACH];
    struct ops_device *dev = open_fake("attention_tile_f32");
    CHECK_STR(dev->info.notice, "");
    const char *estimated = chosen(dev);
    CHECK(strcmp(estimated, "attention_tile_f32") != 0);
    attend(dev, BATCH, QUERIES, batch);
    const int measured = timer.calls;
    CHECK_MSG(measured >= 2, "%d kernels were measured", measured);
    CHECK_STR(chosen(dev), "attention_tile_f32");
    attend(dev, 1, QUERIES, alone);
    CHECK_INT(timer.calls, measured);
    CHECK(!memcmp(alone, batch + (BATCH - 1) * EACH, sizeof alone));
    CHECK_INT(files(), 1);

    // Wishes win, and need no measurement. Both kernels are right.
    CHECK_INT(ops_device_prefer(dev, "attention_lane"), ERR_OK);
    attend(dev, BATCH, QUERIES, lane);
    attend(dev, BATCH, 3 * QUERIES, NULL);
    CHECK_INT(timer.calls, measured);
    CHECK_MSG(!strncmp(chosen(dev), "attention_lane", 14), "%s", chosen(dev));
    for (int i = 0; i < BATCH * EACH; i++)
        CHECK_NEAR(lane[i], batch[i], 1e-5);
    ops_device_close(&dev);
}

static void test_read_back(void)
{
    struct ops_device *dev = open_fake("attention_lane_f32_buffer");
    CHECK_STR(dev->info.notice, "");
    CHECK_STR(chosen(dev), "attention_tile_f32");
    attend(dev, 1, QUERIES, NULL);
    CHECK_INT(timer.calls, 0);
    ops_device_close(&dev);
}

// The file of another driver is no error, and is replaced.
static void test_other_driver(void)
{
    struct ops_device *dev = open_fake("attention_lane_f32_buffer");
    const struct vk_caps *own = dev->caps;
    struct vk_caps other = *own;
    tune_close(dev);
    dev->caps = &other;
    other.driver_version++;
    CHECK_INT(tune_open(dev, true), ERR_OK);
    dev->tuner->measure = fake;
    CHECK_MSG(strstr(dev->info.notice, "another device, driver or version"), "%s",
              dev->info.notice);
    CHECK(strcmp(chosen(dev), "attention_tile_f32") != 0);
    attend(dev, 1, QUERIES, NULL);
    CHECK_MSG(timer.calls >= 2, "%d kernels were measured", timer.calls);
    CHECK_STR(chosen(dev), "attention_lane_f32_buffer");
    tune_close(dev);
    CHECK_INT(files(), 1);
    CHECK_INT(tune_open(dev, true), ERR_OK);
    CHECK_STR(dev->info.notice, "");
    CHECK_STR(chosen(dev), "attention_lane_f32_buffer");
    dev->caps = own;
    ops_device_close(&dev);
}

// No byte can change and no end be missing unnoticed.
static void test_damage(void)
{
    struct ops_device *dev = open_fake("attention_tile_f32");
    struct tune_id id = tune_id_of(dev);
    struct tune_table *t = calloc(1, sizeof *t), *back = calloc(1, sizeof *back);
    struct buf text = {0}, again = {0};
    CHECK(*dev->info.notice); // the other driver's
    attend(dev, 1, QUERIES, NULL);
    attend(dev, 1, 3 * QUERIES, NULL);
    *t = dev->tuner->table;
    CHECK_INT(t->count, 2);
    t->choice[1].row = -1, t->choice[1].build = 0;
    tune_write(t, &id, &text);
    CHECK_INT(tune_parse(text.data, text.len, &id, back), ERR_OK);
    CHECK_INT(back->count, 2);
    CHECK(!memcmp(back->choice, t->choice, 2 * sizeof t->choice[0]));
    tune_write(back, &id, &again);
    CHECK_STR(again.data, text.data);
    for (size_t i = 0; i < text.len; i++) {
        text.data[i] ^= 1;
        CHECK_MSG(tune_parse(text.data, text.len, &id, back) && !back->count, "byte %zu may be any",
                  i);
        text.data[i] ^= 1;
        CHECK_MSG(tune_parse(text.data, i, &id, back) == ERR_FORMAT, "%zu bytes suffice", i);
    }
    id.uuid[3] ^= 1;
    CHECK_INT(tune_parse(text.data, text.len, &id, back), ERR_UNSUPPORTED);
    id = tune_id_of(dev);
    id.program = "0.0.0";
    CHECK_INT(tune_parse(text.data, text.len, &id, back), ERR_UNSUPPORTED);
    id = tune_id_of(dev);
    id.kernels.lo ^= 1;
    CHECK_INT(tune_parse(text.data, text.len, &id, back), ERR_UNSUPPORTED);

    CHECK_INT(vk_cache_write(dev->vk, "kernels", text.data, text.len - 1), ERR_OK);
    ops_device_close(&dev);
    dev = open_fake("attention_tile_f32");
    CHECK_MSG(strstr(dev->info.notice, "is damaged"), "%s", dev->info.notice);
    ops_device_close(&dev);
    buf_deinit(&text);
    buf_deinit(&again);
    free(t), free(back);
}

// Devices that are open at once keep each other's choices, and of two for a class the first.
static void test_join(void)
{
    struct ops_device *a = open_fake("attention_tile_f32");
    struct ops_device *b = open_fake("attention_tile_f32");
    attend(a, 1, 5 * QUERIES, NULL);
    attend(b, 1, 7 * QUERIES, NULL);
    timer.fast = "attention_lane_f32_buffer";
    attend(b, 1, 5 * QUERIES, NULL);
    ops_device_close(&b);
    ops_device_close(&a);
    a = open_fake("attention_lane_f32_buffer");
    CHECK_STR(a->info.notice, "");
    CHECK(a->tuner->table.count >= 2);
    for (int i = 0; i < a->tuner->table.count; i++)
        CHECK_STR(kernel_at(a->tuner->table.choice[i].row)->name, "attention_tile");
    attend(a, 1, 5 * QUERIES, NULL);
    attend(a, 1, 7 * QUERIES, NULL);
    CHECK_INT(timer.calls, 0);
    ops_device_close(&a);
}

static void reopen(struct ops_device *dev, bool thorough)
{
    tune_close(dev);
    CHECK_INT(tune_open(dev, thorough), ERR_OK);
    dev->tuner->measure = fake;
}

// A class that time did not suffice for is left to the estimates, in later processes too, until a
// thorough one measures it.
static void test_budget(void)
{
    struct ops_device *dev = open_fake("attention_tile_f32");
    const char *estimated = chosen(dev);
    CHECK(strcmp(estimated, "attention_tile_f32") != 0);
    reopen(dev, false);
    timer.spent = TUNE_BUDGET;
    attend(dev, 1, QUERIES, NULL);
    CHECK_INT(timer.calls, 1);
    CHECK_STR(chosen(dev), estimated);
    attend(dev, 1, 3 * QUERIES, NULL);
    CHECK_INT(timer.calls, 1);

    reopen(dev, false);
    attend(dev, 1, QUERIES, NULL);
    attend(dev, 1, 3 * QUERIES, NULL);
    CHECK_INT(timer.calls, 1);
    CHECK_STR(chosen(dev), estimated);

    reopen(dev, true);
    attend(dev, 1, QUERIES, NULL);
    attend(dev, 1, 3 * QUERIES, NULL);
    const int measured = timer.calls;
    CHECK_MSG(measured >= 1 + 4, "%d kernels were measured", measured);
    CHECK_STR(chosen(dev), "attention_tile_f32");

    reopen(dev, false);
    attend(dev, 1, QUERIES, NULL);
    attend(dev, 1, 3 * QUERIES, NULL);
    CHECK_INT(timer.calls, measured);
    CHECK_STR(chosen(dev), "attention_tile_f32");
    ops_device_close(&dev);
}

// By default on GPUs alone.
static void test_default(void)
{
    struct fault why = {0};
    struct ops_device *dev = NULL;
    for (int i = 0; i < 3; i++) {
        static const char *const tune[] = {NULL, "auto", "off"};
        dev = open_with(tune[i]);
        CHECK_INT(dev->tuner != NULL, !dev->info.cpu && i < 2);
        ops_device_close(&dev);
    }
    CHECK_INT(ops_device_open(&(struct ops_open_params){.tune = "often"}, &dev, &why), ERR_INVALID);
    CHECK_STR(why.msg, "\"often\" is not auto, on or off");
}

// The engine's own timer, on weights in blocks with scales, too.
static void test_measurements(void)
{
    static const uint32_t kernels[] = {1, 3};
    struct ops_device *dev = open_with("on");
    timer.real = dev->tuner->measure;
    timer.calls = timer.failed = 0;
    dev->tuner->measure = watched;
    attend(dev, 1, 2 * QUERIES, NULL);
    for (int i = 0; i < 4; i++) {
        const uint32_t kernel = kernels[i % 2];
        float *v = op_random(DT_F32, (size_t)32 * 32 * 9, 5); // for the weight and for x
        struct op_array x = op_array(dev, DT_F32, (struct ref_shape){1, 8, 8, 32}, v, false);
        struct op_array y = op_array(dev, DT_F32, (struct ref_shape){1, 8, 8, 32}, NULL, false);
        struct op_weight *w = NULL;
        struct ops *o = NULL;
        CHECK_INT(op_weight_create(dev,
                                   &(struct op_weight_params){.weight = v,
                                                              .out = 32,
                                                              .in = 32,
                                                              .kernel = kernel,
                                                              .dtype = i < 2 ? DT_F32 : DT_Q8},
                                   &w),
                  ERR_OK);
        CHECK_INT(ops_begin(dev, DT_F32, &o), ERR_OK);
        op_conv2d(o, &x.t, w, NULL, &y.t);
        CHECK_INT(ops_end(o), ERR_OK);
        CHECK_INT(ops_run(o), ERR_OK);
        ops_destroy(&o);
        op_weight_destroy(&w);
        op_array_free(&x);
        op_array_free(&y);
        free(v);
    }
    CHECK_INT(timer.failed, 0);
    CHECK_MSG(timer.calls >= 2 + 4 * 2 || !dev->info.cpu, "%d measurements", timer.calls);
    CHECK_INT(ops_device_validation_messages(dev), 0);
    ops_device_close(&dev);
}

int main(void)
{
    struct ops_device *dev = op_test_device();
    if (!dev)
        return test_skip("no Vulkan device");
    if (!dev->info.cpu || dev->caps->subgroup_size > 16)
        return op_test_close(), test_skip("the kernels that it names are for software devices");
    op_test_close();
    if (!mkdtemp(dir))
        return test_skip("no folder in /tmp");
    test_fastest();
    test_read_back();
    test_other_driver();
    test_damage();
    test_join();
    test_budget();
    test_default();
    test_measurements();
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", dir);
    CHECK_INT(system(command), 0);
    return test_end();
}
