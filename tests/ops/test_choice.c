// Which row of the kernel table a call runs: wishes, costs by the kind of device, what the proof of
// a driver's loads excludes, and the environment. No kernel runs, so once is enough.
#include "op_test.h"

// A wish must be possible and its name known, and every operator must be possible with it.
static void test_wishes(struct ops_device *dev)
{
    const struct vk_caps *own = dev->caps;
    const struct kernel_wish wish = dev->wish;
    const bool lanes = own->subgroup_size >= 4 && own->subgroup_size <= 16;
    static const char *const all[] = {"lane,texel", "lane,buffer", "tile,buffer"};
    struct vk_caps low = *own;
    dev->caps = &low;
    low.max_storage_bindings = 4;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        CHECK_INT(ops_device_prefer(dev, all[i]), ERR_UNSUPPORTED);
        const char *why = ops_device_why(dev, ERR_UNSUPPORTED);
        CHECK_MSG(strstr(why, "storage buffers, but the device allows only 4") || !lanes, "%s",
                  why);
    }
    low = *own;
    low.texel_f16 = false;
    CHECK_INT(ops_device_prefer(dev, "texel"), ERR_UNSUPPORTED);
    CHECK_INT(ops_device_prefer(dev, "linear_lane,texel"), ERR_UNSUPPORTED);
    CHECK_INT(ops_device_prefer(dev, "linear_lane"), lanes ? ERR_OK : ERR_UNSUPPORTED);
    low.subgroup_size = 32;
    CHECK_INT(ops_device_prefer(dev, "lane"), ERR_UNSUPPORTED);
    CHECK(strstr(ops_device_why(dev, ERR_UNSUPPORTED), "needs subgroups of 4 to 16 lanes"));
    low.subgroup_size = own->subgroup_size;
    low.subgroup_shuffle = false;
    CHECK_INT(ops_device_prefer(dev, "lane,buffer"), ERR_UNSUPPORTED);
    CHECK_INT(ops_device_prefer(dev, "tile,buffer"), ERR_OK);
    CHECK_INT(ops_device_prefer(dev, "matmul_tile,fast"), ERR_INVALID);
    CHECK_STR(ops_device_why(dev, ERR_INVALID), "\"fast\" is not the name of a kernel");
    dev->caps = own;
    dev->wish = wish;
}

// Every row must be complete, and every operator must have rows, all planned or a single one that
// is not.
static void test_table(void)
{
    int planned[OP_COUNT] = {0}, plain[OP_COUNT] = {0};
    for (int row = 0; row < kernel_count(); row++) {
        const struct kernel *k = kernel_at(row);
        CHECK_MSG(k->name && k->builds > 0 && k->ops, "row %d is incomplete", row);
        CHECK_MSG(strlen(k->bindings) <= VK_MAX_BINDINGS && strpbrk(k->bindings, "wu"),
                  "%s: bindings \"%s\"", k->name, k->bindings);
        CHECK_MSG(strspn(k->bindings, "xmsrwu") == strlen(k->bindings), "%s: unknown letter",
                  k->name);
        CHECK_MSG(k->push_bytes && k->push_bytes <= 128 && k->push_bytes % 4 == 0, "%s: push",
                  k->name);
        CHECK_MSG(!k->plan || (k->rate.cpu > 0 && k->rate.gpu > 0), "%s: no rate", k->name);
        CHECK_MSG(!strchr(k->bindings, 'm') == !k->layout, "%s: order of weights", k->name);
        for (int i = 0; i < k->builds; i++)
            CHECK_MSG(k->build[i].bytes >= 20 && k->build[i].words[0] == 0x07230203 &&
                          k->build[i].act && k->build[i].weight,
                      "%s is no SPIR-V", k->build[i].name);
        for (int op = 0; op < OP_COUNT; op++)
            *(k->plan ? &planned[op] : &plain[op]) += k->ops >> op & 1;
    }
    for (int op = 0; op < OP_COUNT; op++)
        CHECK_MSG((planned[op] > 0 && !plain[op]) || (!planned[op] && plain[op] == 1),
                  "operator %d has %d planned rows and %d others", op, planned[op], plain[op]);
}

// The row that this call would run.
static const char *chosen(struct ops_device *dev, struct ops_call *call)
{
    struct kernel_choice c;
    char why[KERNEL_WHY];
    return kernel_choose(dev, call, &c, why) ? c.kernel->name : "";
}

// The cheapest row that takes the problem, by the kind of device; a wished one where it can; the
// same whatever the batch.
static void test_choice(struct ops_device *dev)
{
    const struct vk_caps *own = dev->caps;
    const struct kernel_wish wish = dev->wish;
    const struct kernel_broken broken = dev->broken;
    struct vk_caps caps = *own;
    struct problem linear = {.n = 1, .h = 8, .w = 8, .in = 64, .out = 64, .taps = 1};
    struct problem attention = {.n = 1, .h = 8, .w = 8, .keys = 64, .heads = 2, .d = 32};
    dev->caps = &caps;
    caps.subgroup_size = 8;
    for (uint32_t n = 1; n <= 64; n *= 8) {
        linear.n = attention.n = n;
        struct ops_call l = {.op = OP_LINEAR, .problem = &linear};
        struct ops_call a = {.op = OP_ATTENTION, .problem = &attention};
        caps.cpu = true;
        dev->wish = (struct kernel_wish){0};
        dev->broken = (struct kernel_broken){0};
        CHECK_STR(chosen(dev, &l), "linear_lane");
        CHECK_STR(chosen(dev, &a), "attention_lane");
        attention.d = 6;
        CHECK_STR(chosen(dev, &a), "attention_any");
        attention.d = 32;
        dev->broken.shuffles = true;
        CHECK_STR(chosen(dev, &l), "matmul_tile");
        caps.cpu = dev->broken.shuffles = false;
        CHECK_STR(chosen(dev, &l), "matmul_tile");
        CHECK_STR(chosen(dev, &a), "attention_tile");
        caps.matrix.m = caps.matrix.n = caps.matrix.k = 16;
        CHECK_STR(chosen(dev, &l), "matmul_tile"); // not with f32
        l.dtype = l.weight_dtype = DT_F16;
        const bool matrix = kernels_have_matrix_units();
        CHECK_STR(chosen(dev, &l), matrix ? "matmul_matrix" : "matmul_tile");
        struct problem large = {.n = n, .h = 64, .w = 64, .in = 64, .out = 512, .taps = 9};
        struct ops_call c = {
            .op = OP_CONV3, .dtype = DT_F16, .weight_dtype = DT_F16, .problem = &large};
        struct ops_call t = {.op = OP_LINEAR, .weight_dtype = DT_F16, .problem = &linear};
        caps.max_shared_bytes = 32768;
        CHECK_STR(chosen(dev, &t), matrix ? "matmul_matrix_split" : "matmul_tile");
        t.weight_dtype = DT_F32;
        CHECK_STR(chosen(dev, &t), "matmul_tile");
        caps.max_shared_bytes = 49152;
        caps.max_workgroup_invocations = 1024;
        struct problem few = {.n = n, .h = 8, .w = 8, .in = 64, .out = 2816, .taps = 9};
        struct ops_call f = {
            .op = OP_CONV3, .dtype = DT_F16, .weight_dtype = DT_F16, .problem = &few};
        CHECK_STR(chosen(dev, &f), matrix ? "matmul_matrix_shares" : "matmul_tile");
        CHECK_STR(chosen(dev, &c), matrix ? "matmul_matrix_wide" : "matmul_tile");
        caps.max_shared_bytes = 16384; // too few for the wide tiles
        CHECK_STR(chosen(dev, &c), matrix ? "matmul_matrix" : "matmul_tile");
        caps.max_shared_bytes = 49152;
        a.dtype = DT_F16;
        CHECK_STR(chosen(dev, &a), matrix ? "attention_matrix" : "attention_tile");
        dev->broken.matrix = true;
        CHECK_STR(chosen(dev, &l), "matmul_tile");
        CHECK_STR(chosen(dev, &a), "attention_tile");
        dev->broken.matrix = false;
        static const uint32_t odd[][3] = {{12, 16, 16}, {2, 16, 16}, {16, 12, 16}, {16, 16, 2}};
        for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++) { // no tile divides into these
            caps.matrix.m = odd[i][0];
            caps.matrix.n = odd[i][1];
            caps.matrix.k = odd[i][2];
            // Whether they are built or not.
            CHECK(!plan_matmul_matrix(&caps, &linear, &(struct ops_call){0}));
            CHECK(!plan_matmul_matrix_wide(&caps, &linear, &(struct ops_call){0}));
            CHECK(!plan_attention_matrix(&caps, &attention, &(struct ops_call){0}));
            CHECK_STR(chosen(dev, &l), "matmul_tile");
        }
        CHECK_INT(ops_device_prefer(dev, "attention_any,linear_lane"), ERR_OK);
        CHECK_STR(chosen(dev, &l), "linear_lane");
        CHECK_STR(chosen(dev, &a), "attention_any");
        linear.layout = LAYOUT_ROWS; // packed before the wish
        CHECK_STR(chosen(dev, &l), "matmul_tile");
        linear.layout = LAYOUT_ANY;
    }
    dev->caps = own;
    dev->wish = wish;
    dev->broken = broken;
}

// A driver as probes find it: the loads that are right, or an error of every try.
static struct {
    unsigned right, tried; // 1 << enum operand_load
    enum err error;
} driver;

static enum err try_load(struct ops_device *dev, enum operand_load load, bool *good)
{
    driver.tried |= 1u << load;
    *good = !driver.error && (driver.right >> load & 1);
    return driver.error;
}

// The choice that follows from each result of the proof on a software device; GPUs are not tried.
static void test_proof(struct ops_device *dev)
{
    enum { BUFFER = 1 << LOAD_BUFFER, TEXEL = 1 << LOAD_TEXEL };
    static const struct {
        bool cpu, texels;
        unsigned right, tried;
        enum err error;
        const char *kernel;
        enum operand_load load;
    } proofs[] = {
        {true, true, TEXEL | BUFFER, TEXEL, ERR_OK, "linear_lane", LOAD_TEXEL},
        {true, true, BUFFER, TEXEL | BUFFER, ERR_OK, "linear_lane", LOAD_BUFFER},
        {true, false, BUFFER, BUFFER, ERR_OK, "linear_lane", LOAD_BUFFER},
        {true, true, 0, TEXEL | BUFFER, ERR_OK, "matmul_tile", LOAD_BUFFER},
        {true, false, 0, BUFFER, ERR_OK, "matmul_tile", LOAD_BUFFER},
        {true, true, 0, TEXEL, ERR_DEVICE_LOST, NULL, 0},
        {false, true, 0, 0, ERR_OK, "matmul_tile", LOAD_BUFFER},
    };
    const struct vk_caps *own = dev->caps;
    const struct kernel_wish wish = dev->wish;
    const struct kernel_broken broken = dev->broken;
    const struct problem p = {.n = 1, .h = 8, .w = 8, .in = 64, .out = 64, .taps = 1};
    dev->wish = (struct kernel_wish){0};
    for (size_t i = 0; i < sizeof proofs / sizeof proofs[0]; i++) {
        struct vk_caps caps = *own;
        struct ops_call call = {.op = OP_LINEAR, .problem = &p};
        struct kernel_choice c;
        char why[KERNEL_WHY];
        caps.cpu = proofs[i].cpu;
        caps.subgroup_size = 8;
        caps.subgroup_shuffle = true;
        caps.texel_f32 = caps.texel_f16 = proofs[i].texels;
        dev->caps = &caps;
        dev->broken = (struct kernel_broken){0};
        driver.right = proofs[i].right;
        driver.error = proofs[i].error;
        driver.tried = 0;
        CHECK_INT(ops_prove_loads(dev, try_load), proofs[i].error);
        CHECK_MSG(driver.tried == proofs[i].tried, "row %zu tries %x", i, driver.tried);
        if (proofs[i].kernel && kernel_choose(dev, &call, &c, why))
            CHECK_MSG(!strcmp(c.kernel->name, proofs[i].kernel) && c.build->load == proofs[i].load,
                      "row %zu: %s, load %d", i, c.kernel->name, (int)c.build->load);
        else
            CHECK_MSG(!proofs[i].kernel, "row %zu: %s", i, why);
    }
    dev->caps = own;
    dev->wish = wish;
    dev->broken = broken;
}

// The environment's wish holds from the start, and a name that is none opens nothing.
static void test_environment(void)
{
    struct fault why = {0};
    struct ops_device *dev = NULL;
    struct problem p = {.n = 1, .h = 8, .w = 8, .keys = 64, .heads = 2, .d = 32};
    struct ops_call call = {.op = OP_ATTENTION, .problem = &p};
    setenv("IMAGEND_KERNEL", "attention_any", 1);
    CHECK_INT(ops_device_open(&(struct ops_open_params){0}, &dev, &why), ERR_OK);
    if (dev)
        CHECK_STR(chosen(dev, &call), "attention_any");
    ops_device_close(&dev);
    setenv("IMAGEND_KERNEL", "attention_all", 1);
    CHECK_INT(ops_device_open(&(struct ops_open_params){0}, &dev, &why), ERR_INVALID);
    CHECK_STR(why.msg, "IMAGEND_KERNEL: \"attention_all\" is not the name of a kernel");
    unsetenv("IMAGEND_KERNEL");
}

int main(void)
{
    struct ops_device *dev = op_test_device();
    if (!dev)
        return test_skip("no Vulkan device");
    test_table();
    test_wishes(dev);
    test_choice(dev);
    test_proof(dev);
    test_environment();
    return op_test_close();
}
