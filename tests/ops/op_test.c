// See op_test.h.
#include "op_test.h"

static struct ops_device *device;

struct ops_device *op_test_device(void)
{
    struct fault why = {0};
    bool validate = getenv("IMAGEND_TEST_VALIDATION") != NULL;
    struct ops_open_params p = {.validation = validate, .tune = "off"};
    if (!device && ops_device_open(&p, &device, &why) != ERR_OK) {
        printf("%s\n", why.msg);
        return NULL;
    }
    return device;
}

// Ways to run matrix products and attention, and how their operands are read.
static const char *const ways[] = {
    "lane,texel",
    "lane,buffer",
    "tile,buffer",
    "matmul_matrix,matmul_matrix_split,attention_matrix,buffer",
    "matmul_matrix_wide,attention_matrix_wide,attention_any,buffer",
    "matmul_matrix_large,attention_any,buffer",
    "matmul_matrix_shares,attention_any,buffer",
};
static const char *way = "own";

const char *op_test_way(void)
{
    return way;
}

bool op_test_runs(const struct ops_device *dev, enum dtype dtype, size_t number)
{
    const char *cases = getenv("TEST_CASES");
    if (!dev->caps->cpu || getenv("IMAGEND_TEST_WAY") || (cases && !strcmp(cases, "all")))
        return true;
    size_t turn = 0;
    while (way != ways[turn])
        turn++;
    return number % 3 == (2 * turn + (dtype == DT_F16)) % 3;
}

int op_test_run(void (*body)(struct ops_device *dev, enum dtype dtype))
{
    struct ops_device *dev = op_test_device();
    if (!dev)
        return test_skip("no Vulkan device");
    const char *only = getenv("IMAGEND_TEST_WAY");
    if (only && !strcmp(only, "own")) {
        body(dev, DT_F32);
        body(dev, DT_F16);
        return op_test_close();
    }
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        way = ways[i];
        if ((only && strcmp(only, way) != 0) || ops_device_prefer(dev, way) != ERR_OK)
            continue;
        for (int dtype = DT_F32; dtype <= DT_F16; dtype++) {
            dev->info.dtype = (enum dtype)dtype; // weights are packed for kernels that read it
            body(dev, (enum dtype)dtype);
        }
    }
    return op_test_close();
}

bool op_test_on_matrix_units(struct ops_device *dev, enum op op, enum dtype dtype,
                             enum dtype weights, const struct problem *p)
{
    struct ops_call call = {.op = op, .dtype = dtype, .weight_dtype = weights, .problem = p};
    struct kernel_choice c;
    char why[KERNEL_WHY];
    return kernel_choose(dev, &call, &c, why) && c.kernel->matrix;
}

// Which builds this test has run: the coverage of the kernel table.
static void print_kernels(void)
{
    printf("kernels:");
    for (int row = 0; row < kernel_count(); row++)
        for (int b = 0; b < kernel_at(row)->builds; b++) {
            const struct kernel_build *build = &kernel_at(row)->build[b];
            bool ran = false;
            for (int i = 0; i < device->pipeline_count; i++)
                ran = ran || (device->pipelines[i].key.choice.build == build &&
                              device->pipelines[i].key.choice.kernel == kernel_at(row));
            const char *name = kernel_at(row)->name;
            if (ran && strncmp(name, build->name, strlen(name)) != 0)
                printf(" %s:%s", name, build->name); // rows that share builds
            else if (ran)
                printf(" %s", build->name);
        }
    printf("\n");
}

int op_test_close(void)
{
    CHECK_INT(ops_device_validation_messages(device), 0);
    print_kernels();
    ops_device_close(&device);
    return test_end();
}

const char *op_test_variant(const struct ops_device *dev, enum dtype dtype)
{
    static char name[64];
    snprintf(name, sizeof name, "%s %s", dtype == DT_F16 ? "f16" : "f32", way);
    return name;
}

float *op_random(enum dtype dtype, size_t n, uint32_t seed)
{
    float *v = malloc((n ? n : 1) * sizeof *v);
    if (!v)
        abort();
    uint64_t state = seed * 0x9e3779b97f4a7c15u + 1;
    for (size_t i = 0; i < n; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        v[i] = (float)((int32_t)(state >> 32) >> 8) * 0x1p-23f;
        if (dtype == DT_F16)
            v[i] = float_from_half(half_from_float(v[i]));
    }
    return v;
}

static const float beside = NAN;

struct op_array op_array(struct ops_device *dev, enum dtype dtype, struct ref_shape s,
                         const float *values, bool view)
{
    struct op_array a = {0};
    uint32_t c = view ? (s.c + 3) / 4 * 4 + 8 : s.c;
    CHECK_INT(tensor_create(dev, dtype, s.n, s.h, s.w, c, &a.whole), ERR_OK);
    a.t = a.whole;
    if (view) {
        size_t n = ref_count((struct ref_shape){s.n, s.h, s.w, c});
        float *nan = malloc(n * sizeof *nan);
        for (size_t i = 0; nan && i < n; i++)
            nan[i] = beside;
        CHECK_INT(tensor_upload(&a.whole, nan), ERR_OK);
        free(nan);
        a.t = tensor_channels(&a.whole, 4, s.c);
    }
    float *zero = values ? NULL : calloc(ref_count(s), sizeof *zero);
    CHECK_INT(tensor_upload(&a.t, values ? values : zero), ERR_OK);
    free(zero);
    return a;
}

void op_array_free(struct op_array *a)
{
    struct tensor t = a->whole;
    t.c = (t.c + 3) / 4 * 4; // with its padding
    size_t pixels = tensor_pixels(&t), changed = 0, dirty = 0;
    float *v = malloc(pixels * t.c * sizeof *v);
    uint32_t first = (uint32_t)(a->t.offset - t.offset), last = first + a->t.c;
    if (v)
        CHECK_INT(tensor_download(&t, v), ERR_OK);
    for (size_t i = 0; v && i < pixels * t.c; i++) {
        uint32_t c = (uint32_t)(i % t.c);
        if (c < first || c >= (last + 3) / 4 * 4)
            changed += !isnan(v[i]);
        else if (c >= last)
            dirty += v[i] != 0;
    }
    CHECK_MSG(!changed, "%zu elements beside the view were written", changed);
    CHECK_MSG(!dirty, "%zu elements of the channel padding are not zero", dirty);
    free(v);
    tensor_destroy(&a->whole);
}

struct ops *op_begin(struct ops_device *dev, enum dtype dtype)
{
    struct ops *o = NULL;
    CHECK_INT(ops_begin(dev, dtype, &o), ERR_OK);
    return o;
}

bool op_finish(struct ops *o)
{
    enum err e = ops_end(o);
    CHECK_MSG(e == ERR_OK, "recording: %s", ops_device_why(device, e));
    if (!e) {
        e = ops_run(o);
        CHECK_MSG(e == ERR_OK, "running: %s", ops_device_why(device, e));
    }
    ops_destroy(&o);
    return !e;
}

void op_compare(const char *what, const float *got, const double *want, const double *tolerance,
                size_t n)
{
    double worst = 0;
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        double ratio = fabs(got[i] - want[i]) / tolerance[i];
        if (!(ratio <= worst)) { // NaN counts as worst
            worst = isnan(ratio) ? INFINITY : ratio;
            at = i;
        }
    }
    CHECK_MSG(worst <= 1, "%s: element %zu of %zu is %.9g, expected %.9g within %.3g", what, at, n,
              (double)got[at], want[at], tolerance[at]);
    if (getenv("IMAGEND_TEST_VERBOSE"))
        printf("%-60s max error / tolerance %.3f\n", what, worst);
}

void op_compare_tensor(const char *what, const struct tensor *t, const double *want,
                       const double *tolerance)
{
    size_t n = (size_t)tensor_pixels(t) * t->c;
    float *got = malloc((n ? n : 1) * sizeof *got);
    if (!got)
        abort();
    CHECK_INT(tensor_download(t, got), ERR_OK);
    op_compare(what, got, want, tolerance, n);
    free(got);
}

double op_store_error(enum dtype dtype, double v)
{
    if (dtype == DT_F16)
        return fmax(fabs(v) * 0x1p-11, 0x1p-25);
    return fabs(v) * 0x1p-24;
}
