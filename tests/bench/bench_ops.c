// Speed of the matrix products at the shapes of the default cascade and of IF: GFLOP/s, the share
// of the machine's multiply-add peak measured in the same minute, and the ratio to OpenBLAS where
// the shape is a plain product. Best of several runs: the machine may be shared. "busy" counts
// processor time instead of wall time, which other programs disturb less.
// Usage: bench_ops [name part ...]; BENCH_SECONDS per shape (default 0.5), BENCH_DTYPE=f16;
// BENCH_JSON=1 for one JSON object per shape, with the large shapes of IF, and without the peak and
// OpenBLAS; BENCH_ROWS=1 adds the time with every row of the kernel table that reads these weights;
// IMAGEND_KERNEL=name for another kernel.
#include "bench.h"
#include "ops_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef HAVE_CBLAS
#include <cblas.h>
#endif

enum kind { CONV3, LINEAR, ATTENTION };
enum { IN_A_ROW = 8 };

struct shape {
    const char *net;
    enum kind kind;
    uint32_t n, h, w, in, out; // attention: h*w queries, `keys` text keys, in = heads * d
    uint32_t heads, keys;
};

static const struct shape shapes[] = {
    {"base 32", CONV3, 2, 32, 32, 64, 64},
    {"base 32", CONV3, 2, 32, 32, 48, 48},
    {"base 16", CONV3, 2, 16, 16, 128, 128},
    {"base 8", CONV3, 2, 8, 8, 256, 256},
    {"base 8", CONV3, 2, 8, 8, 192, 192},
    {"sr256 64", CONV3, 1, 64, 64, 64, 64},
    {"sr256 32", CONV3, 1, 32, 32, 96, 96},
    {"sr256 16", CONV3, 1, 16, 16, 128, 128},
    {"sr1024 256", CONV3, 1, 256, 256, 32, 32},
    {"sr1024 128", CONV3, 1, 128, 128, 48, 48},
    {"sr1024 64", CONV3, 1, 64, 64, 64, 64},
    {"if 64", CONV3, 1, 64, 64, 192, 192},
    {"if 32", CONV3, 1, 32, 32, 384, 384},
    {"base 16", LINEAR, 2, 16, 16, 128, 384},
    {"base 8", LINEAR, 2, 8, 8, 256, 256},
    {"base 8", LINEAR, 2, 8, 8, 192, 768},
    {"sr1024 256", LINEAR, 1, 256, 256, 64, 32},
    {"time", LINEAR, 2, 1, 1, 256, 1024},
    {"t5 small", LINEAR, 1, 1, 32, 512, 1024},
    {"gemm", LINEAR, 1, 1, 4096, 576, 64},
    {"gemm", LINEAR, 1, 1, 1024, 1024, 256},
    {"gemm", LINEAR, 1, 1, 256, 256, 256},
    {"t5 xxl", LINEAR, 1, 1, 77, 4096, 1024},
    {"base 16", ATTENTION, 2, 16, 16, 128, 0, 4, 32},
    {"base 8", ATTENTION, 2, 8, 8, 256, 0, 4, 32},
    {"base 8", ATTENTION, 2, 8, 8, 192, 0, 6, 32},
    {"if 32", ATTENTION, 1, 32, 32, 256, 0, 4, 77},
};

// A CPU takes seconds for one of these; bench/gpu.py compares them with PyTorch.
static const struct shape large[] = {
    {"if-xl 64", CONV3, 2, 64, 64, 704, 704},
    {"if-xl 32", CONV3, 2, 32, 32, 1408, 1408},
    {"if-xl 16", CONV3, 2, 16, 16, 2112, 2112},
    {"if-xl 8", CONV3, 2, 8, 8, 2816, 2816},
    {"if-ii-l 256", CONV3, 1, 256, 256, 160, 160},
    {"if-ii-l 128", CONV3, 1, 128, 128, 320, 320},
    {"if-ii-l 64", CONV3, 1, 64, 64, 640, 640},
    {"if-xl 32", LINEAR, 2, 32, 32, 1408, 1408},
    {"if-xl 16", LINEAR, 2, 16, 16, 2112, 6336},
    {"t5 xxl", LINEAR, 1, 1, 77, 4096, 20480},
    {"gemm", LINEAR, 1, 1, 4096, 4096, 4096},
    {"if-xl 32", ATTENTION, 2, 32, 32, 1408, 0, 22, 77},
    {"if-xl 16", ATTENTION, 2, 16, 16, 2112, 0, 33, 77},
    {"if-ii-l 32", ATTENTION, 1, 32, 32, 960, 0, 15, 77},
};

static double budget = 0.5;
static bool json, rows;
static enum dtype dtype;
static int threads;

static float *values(size_t n)
{
    float *v = malloc(n * sizeof *v);
    for (size_t i = 0; v && i < n; i++)
        v[i] = (float)(i * 2654435761u % 2048) / 1024 - 1;
    if (!v)
        exit(1);
    return v;
}

static void must(enum err e, const char *what)
{
    if (!e)
        return;
    fprintf(stderr, "bench_ops: %s: %s\n", what, err_text(e));
    exit(1);
}

struct speed {
    double wall, busy; // best seconds of one run
};

// run is called until the budget is spent, at least three times.
static struct speed best(enum err (*run)(void *), void *arg)
{
    struct speed s = {1e9, 1e9};
    double start = bench_now();
    for (int i = 0; i < 3 || (bench_now() - start < budget && i < 2000); i++) {
        double wall = bench_now(), busy = bench_cpu();
        must(run(arg), "run");
        wall = bench_now() - wall;
        busy = bench_cpu() - busy;
        s.wall = wall < s.wall ? wall : s.wall;
        s.busy = busy < s.busy ? busy : s.busy;
    }
    return s;
}

static enum err run_ops(void *o)
{
    return ops_run(o);
}

static void fill(struct ops_device *dev, struct tensor *t, const uint32_t s[4])
{
    must(tensor_create(dev, dtype, s[0], s[1], s[2], s[3], t), "tensor");
    float *v = values((size_t)tensor_pixels(t) * t->c);
    must(tensor_upload(t, v), "upload");
    free(v);
}

// A shape with its operands; record records it once.
struct task {
    void (*record)(struct ops *o, const struct task *t);
    const struct shape *s;
    struct tensor x[6]; // input, result; of attention: q, y, text k and v, image k and v
    struct op_weight *w;
};

static void record_product(struct ops *o, const struct task *t)
{
    op_conv2d(o, &t->x[0], t->w, NULL, &t->x[1]);
}

static void record_attention(struct ops *o, const struct task *t)
{
    const struct tensor *x = t->x;
    op_attention(o, &(struct op_attention_params){
                        .q = &x[0],
                        .segment = {{.k = &x[2], .v = &x[3]}, {.k = &x[4], .v = &x[5]}},
                        .segments = 2,
                        .heads = t->s->heads,
                        .scale = 0.125f,
                        .y = &x[1]});
}

static void make_product(struct ops_device *dev, struct task *t)
{
    const struct shape *s = t->s;
    const uint32_t kernel = s->kind == CONV3 ? 3 : 1;
    float *weight = values((size_t)s->out * s->in * kernel * kernel);
    const struct op_weight_params p = {
        .weight = weight, .out = s->out, .in = s->in, .kernel = kernel, .dtype = dtype};
    fill(dev, &t->x[0], (uint32_t[]){s->n, s->h, s->w, s->in});
    fill(dev, &t->x[1], (uint32_t[]){s->n, s->h, s->w, s->out});
    must(op_weight_create(dev, &p, &t->w), "weights");
    t->record = record_product;
    free(weight);
}

static void make_task(struct ops_device *dev, const struct shape *s, struct task *t)
{
    *t = (struct task){.s = s, .record = record_attention};
    if (s->kind != ATTENTION) {
        make_product(dev, t);
        return;
    }
    for (int i = 0; i < 6; i++) {
        const bool text = i == 2 || i == 3;
        fill(dev, &t->x[i], (uint32_t[]){s->n, 1, text ? s->keys : s->h * s->w, s->in});
    }
}

static void free_task(struct task *t)
{
    op_weight_destroy(&t->w);
    for (int i = 0; i < 6; i++)
        tensor_destroy(&t->x[i]);
}

// One after the other, in one run: the time of each.
static struct speed time_task(struct ops_device *dev, const struct task *t, int repeats,
                              double *flops)
{
    struct ops *o = NULL;
    must(ops_begin(dev, dtype, &o), "begin");
    for (int i = 0; i < repeats; i++)
        t->record(o, t);
    must(ops_end(o), "record");
    *flops = ops_flops(o) / repeats;
    struct speed best_of = best(run_ops, o);
    ops_destroy(&o);
    return (struct speed){best_of.wall / repeats, best_of.busy / repeats};
}

#ifdef HAVE_CBLAS
struct gemm {
    int m, n, k;
    float *a, *b, *c;
};

static enum err run_gemm(void *arg)
{
    struct gemm *g = arg;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, g->m, g->n, g->k, 1, g->a, g->k, g->b,
                g->k, 0, g->c, g->n);
    return ERR_OK;
}

// OpenBLAS on the same product; a convolution counts as the product that im2col would make of it.
static double blas_flops(const struct shape *s, double flops)
{
    int k = (int)(s->in * (s->kind == CONV3 ? 9 : 1)), m = (int)(s->n * s->h * s->w);
    struct gemm g = {m, (int)s->out, k, NULL, NULL, NULL};
    g.a = values((size_t)m * (size_t)k);
    g.b = values((size_t)k * s->out);
    g.c = values((size_t)m * s->out);
    openblas_set_num_threads(threads);
    struct speed speed = best(run_gemm, &g);
    free(g.a), free(g.b), free(g.c);
    return flops / speed.wall;
}
#endif

static const char *const kinds[] = {"conv", "linear", "attention"};

static bool computes(const struct kernel *k, uint32_t op, const struct task *t)
{
    return (k->ops >> op & 1) && (!t->w || k->layout == t->w->layout);
}

// The time with every row of the kernel table that computes it, in the order of the table, but for
// those that are hopelessly slow by their estimates.
static void print_rows(struct ops_device *dev, const struct task *t)
{
    const uint32_t op = t->s->kind == ATTENTION ? OP_ATTENTION
                        : t->s->kind == CONV3   ? OP_CONV3
                                                : OP_LINEAR;
    const int hopeless = 20;
    const bool cpu = dev->caps->cpu;
    const char *comma = "";
    double flops, fastest = 0;
    for (int row = 0; row < kernel_count(); row++) {
        const struct kernel *k = kernel_at(row);
        const double rate = cpu ? k->rate.cpu : k->rate.gpu;
        if (computes(k, op, t) && rate > fastest)
            fastest = rate;
    }
    for (int row = 0; row < kernel_count(); row++) {
        const struct kernel *k = kernel_at(row);
        if (!computes(k, op, t) || (cpu ? k->rate.cpu : k->rate.gpu) * hopeless < fastest ||
            ops_device_prefer(dev, k->name))
            continue;
        printf("%s\"%s\": %.7f", comma, k->name, time_task(dev, t, IN_A_ROW, &flops).wall);
        comma = ", ";
    }
    must(ops_device_prefer(dev, NULL), "prefer");
}

static void print_json(struct ops_device *dev, const struct task *t)
{
    const struct shape *s = t->s;
    double flops;
    struct speed alone = time_task(dev, t, 1, &flops), row = time_task(dev, t, IN_A_ROW, &flops);
    printf("{\"kind\": \"%s\", \"net\": \"%s\", \"n\": %u, \"h\": %u, \"w\": %u, \"in\": %u, "
           "\"out\": %u, \"heads\": %u, \"keys\": %u, \"gflop\": %.4f, \"seconds\": %.7f, "
           "\"back_to_back\": %.7f, \"rows\": {",
           kinds[s->kind], s->net, s->n, s->h, s->w, s->in, s->out, s->heads, s->keys, flops * 1e-9,
           alone.wall, row.wall);
    if (rows)
        print_rows(dev, t);
    printf("}}\n");
    fflush(stdout);
}

static void print_line(struct ops_device *dev, const struct task *task, double *peak)
{
    static const char *titles[] = {"conv 3x3", "linear", "attention"};
    const struct shape *s = task->s;
    double flops, now = bench_peak(threads);
    *peak = now > *peak ? now : *peak;
    struct speed t = time_task(dev, task, 1, &flops);
    char what[64];
    snprintf(what, sizeof what, "%u x %ux%u, %u -> %u", s->n, s->h, s->w, s->in,
             s->kind == ATTENTION ? s->heads : s->out);
    printf("%-9s %-10s %-26s %8.3f %8.1f %5.0f%% %8.1f %5.0f%%", titles[s->kind], s->net, what,
           t.wall * 1e3, flops / t.wall * 1e-9, 100 * flops / t.wall / *peak, flops / t.busy * 1e-9,
           100 * flops / t.busy / (*peak / threads));
#ifdef HAVE_CBLAS
    if (s->kind != ATTENTION) {
        double blas = blas_flops(s, flops);
        printf(" %8.1f %6.2f", blas * 1e-9, flops / t.wall / blas);
    }
#endif
    printf("\n");
    fflush(stdout);
}

static void bench_shape(struct ops_device *dev, const struct shape *s, double *peak)
{
    struct task t;
    make_task(dev, s, &t);
    if (json)
        print_json(dev, &t);
    else
        print_line(dev, &t, peak);
    free_task(&t);
}

static bool wanted(const struct shape *s, int count, char **names)
{
    for (int i = 0; i < count; i++)
        if (strstr(s->net, names[i]) || strstr(kinds[s->kind], names[i]))
            return true;
    return !count;
}

static void print_head(const struct ops_device *dev, double *peak)
{
    for (int i = 0; i < 5; i++) {
        double now = bench_peak(threads);
        *peak = now > *peak ? now : *peak;
    }
    printf("%s, %s storage, %d threads, peak %.0f GFLOP/s\n", ops_device_info(dev)->name,
           dtype == DT_F16 ? "f16" : "f32", threads, *peak * 1e-9);
    printf("%-9s %-10s %-26s %8s %8s %6s %8s %6s %8s %6s\n", "operator", "net", "shape", "ms",
           "GFLOP/s", "peak", "busy", "peak", "OpenBLAS", "ratio");
}

static void bench_all(struct ops_device *dev, int count, char **names)
{
    double peak = 0;
    if (!json)
        print_head(dev, &peak);
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        if (wanted(&shapes[i], count, names))
            bench_shape(dev, &shapes[i], &peak);
    for (size_t i = 0; json && i < sizeof large / sizeof large[0]; i++)
        if (wanted(&large[i], count, names))
            bench_shape(dev, &large[i], &peak);
}

int main(int argc, char **argv)
{
    struct ops_device *dev = NULL;
    struct fault why = {0};
    const char *seconds = getenv("BENCH_SECONDS"), *lp = getenv("LP_NUM_THREADS");
    budget = seconds ? atof(seconds) : 0.5;
    threads = lp && atoi(lp) > 0 ? atoi(lp) : (int)sysconf(_SC_NPROCESSORS_ONLN);
    struct ops_open_params p = {.dtype = getenv("BENCH_DTYPE")};
    if (ops_device_open(&p, &dev, &why) != ERR_OK) {
        fprintf(stderr, "bench_ops: %s\n", why.msg);
        return 1;
    }
    dtype = ops_device_info(dev)->dtype;
    json = getenv("BENCH_JSON") != NULL;
    rows = getenv("BENCH_ROWS") != NULL;
    bench_all(dev, argc - 1, argv + 1);
    ops_device_close(&dev);
    return 0;
}
