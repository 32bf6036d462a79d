// compare_paths UNET [EDGE [f32|f16]]: one forward pass of a U-Net of any size with every matrix
// product kernel that the device supports, in f32 and f16, comparing the outputs of all blocks.
// Tiles and lanes share no code in matrix products and attention, so an error of one kernel cannot
// go unnoticed. Run by check_if.py on folders from make_if.py.
#include "hfconfig.h"
#include "ops_internal.h"
#include "test.h"
#include "unet.h"

#include <stdlib.h>

enum { MAX_POINTS = 256, TOKENS = 77 };

// Relative to the root mean square of a point's values. At the widths of IF-I-M two orders of
// summing thousands of products in f32, layer after layer, were 2.4e-6 apart at most; storing every
// activation as a half, 1.1e-3. A mistake in one layer makes a difference of the order of 1.
static const double bound_f32 = 2e-5, bound_f16 = 5e-3;

struct point {
    char name[64];
    struct tensor t; // f32, on the device; during the forward only
    float *value;
    size_t count;
};

struct forward {
    const char *label;
    struct ops_device *dev;
    struct point point[MAX_POINTS];
    int points;
};

enum { WAYS = 3 };
static const char *const ways[WAYS] = {"lane,texel", "lane,buffer", "tile,buffer"};

// ---- taps -------------------------------------------------------------------------------------

// Whole blocks and embeddings: what lies between differs no more than they do.
static bool is_wanted(const char *name)
{
    const char *last = strrchr(name, '.');
    return !last || (last[1] >= '0' && last[1] <= '9');
}

static void keep(void *ctx, struct ops *o, const char *name, const struct tensor *t)
{
    struct forward *f = ctx;
    if (!is_wanted(name) || t->n * t->h * t->w == 0)
        return;
    CHECK(f->points < MAX_POINTS);
    if (f->points == MAX_POINTS)
        return;
    struct point *p = &f->point[f->points++];
    snprintf(p->name, sizeof p->name, "%s", name);
    enum err e = tensor_create(f->dev, DT_F32, t->n, t->h, t->w, t->c, &p->t);
    if (e)
        ops_fail(o, e);
    else
        op_copy(o, t, &p->t);
}

static void fetch(struct forward *f)
{
    for (int i = 0; i < f->points; i++) {
        struct point *p = &f->point[i];
        double sum = 0;
        p->count = (size_t)tensor_pixels(&p->t) * p->t.c;
        p->value = malloc(p->count * sizeof *p->value);
        CHECK(p->value && !tensor_download(&p->t, p->value));
        for (size_t k = 0; p->value && k < p->count; k++)
            sum += fabs((double)p->value[k]);
        CHECK_MSG(isfinite(sum) && sum > 0, "%s: %s", f->label, p->name);
    }
    printf("%-10s %d points, %d failures so far\n", f->label, f->points, test_failures);
}

static void free_points(struct forward *f, bool values)
{
    for (int i = 0; i < f->points; i++) {
        if (f->point[i].t.buf)
            tensor_destroy(&f->point[i].t);
        if (values)
            free(f->point[i].value);
    }
}

// ---- one forward ------------------------------------------------------------------------------

// Sums of four uniform numbers: about normal, of deviation 1.
static float *random_values(size_t n, uint64_t state)
{
    float *v = malloc(n * sizeof *v);
    for (size_t i = 0; v && i < n; i++) {
        double sum = 0;
        for (int k = 0; k < 4; k++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            sum += (double)(state >> 40) * 0x1p-24 - 0.5;
        }
        v[i] = (float)(sum * 1.7320508);
    }
    return v;
}

static enum err put(struct ops_device *dev, const uint32_t shape[4], uint64_t seed,
                    struct tensor *out)
{
    enum dtype dtype = ops_device_info(dev)->dtype;
    float *v = random_values((size_t)shape[0] * shape[1] * shape[2] * shape[3], seed);
    enum err e =
        v ? tensor_create(dev, dtype, shape[0], shape[1], shape[2], shape[3], out) : ERR_NO_MEMORY;
    if (!e)
        e = tensor_upload(out, v);
    free(v);
    return e;
}

struct inputs {
    struct tensor sample, states, timestep, level, index;
};

static enum err put_inputs(struct ops_device *dev, const struct unet_config *c, uint32_t edge,
                           struct inputs *in)
{
    static const float timestep = 500, level = 250;
    static const uint32_t index = 0;
    enum err e = put(dev, (uint32_t[]){1, edge, edge, (uint32_t)c->in_channels}, 1, &in->sample);
    if (!e)
        e = put(dev, (uint32_t[]){1, 1, TOKENS, (uint32_t)c->text_dim}, 2, &in->states);
    if (!e)
        e = tensor_create_mapped(dev, DT_F32, 1, 1, 1, 1, &in->timestep);
    if (!e)
        e = tensor_create_mapped(dev, DT_F32, 1, 1, 1, 1, &in->level);
    if (!e)
        e = tensor_create_mapped(dev, DT_U32, 1, 1, 1, 1, &in->index);
    if (!e)
        e = tensor_upload(&in->timestep, &timestep);
    if (!e)
        e = tensor_upload(&in->level, &level);
    return e ? e : tensor_upload(&in->index, &index);
}

static void free_inputs(struct inputs *in)
{
    struct tensor *all[] = {&in->sample, &in->states, &in->timestep, &in->level, &in->index};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        tensor_destroy(all[i]);
}

static enum err run(struct forward *f, const struct unet *u, const struct inputs *in)
{
    struct tap tap = {keep, f};
    struct unet_text *text = NULL;
    struct ops *o = NULL;
    enum err e = unet_text_create(u, 1, TOKENS, &text);
    if (!e)
        e = ops_begin(f->dev, ops_device_info(f->dev)->dtype, &o);
    if (!e) {
        unet_record_text(u, o, &in->states, text, 0, &tap);
        struct tensor y = unet_record(u, o,
                                      &(struct unet_inputs){
                                          .sample = &in->sample,
                                          .timestep = &in->timestep,
                                          .noise_level = &in->level,
                                          .text_index = &in->index,
                                          .text = text,
                                      },
                                      &tap);
        keep(f, o, "out", &y);
        e = ops_end(o);
        printf("%-10s %.1f GFLOP, %u dispatches\n", f->label, ops_flops(o) / 1e9,
               ops_dispatches(o));
    }
    if (!e)
        e = ops_run(o);
    if (!e)
        fetch(f);
    ops_destroy(&o);
    unet_text_destroy(&text);
    return e;
}

static enum err load(struct ops_device *dev, const char *dir, struct unet **out, struct fault *why)
{
    struct unet_config *config = malloc(sizeof *config);
    struct weights *w = NULL;
    char path[4096];
    snprintf(path, sizeof path, "%s/config.json", dir);
    enum err e = config ? hfconfig_unet_read(path, config, why) : ERR_NO_MEMORY;
    if (!e)
        e = weights_open(&(struct weights_params){.dir = dir, .base = "diffusion_pytorch_model"},
                         &w, why);
    if (!e)
        e = unet_load(dev, config, w, ops_device_info(dev)->dtype, out, why);
    weights_close(&w);
    free(config);
    return e;
}

// Returns false for a way that this device lacks, or whose bindings are too small for the weights.
static bool forward(struct forward *f, int way, const char *dtype, const char *dir, uint32_t edge)
{
    static char label[2 * WAYS][24];
    struct fault why = {0};
    struct inputs in = {0};
    struct unet *u = NULL;
    char *name = label[2 * way + !strcmp(dtype, "f16")];
    snprintf(name, sizeof label[0], "%s %s", ways[way], dtype);
    f->label = name;
    enum err e = ops_device_open(&(struct ops_open_params){.dtype = dtype}, &f->dev, &why);
    if (!e)
        e = ops_device_prefer(f->dev, ways[way]);
    bool possible = e != ERR_UNSUPPORTED;
    if (!e)
        e = load(f->dev, dir, &u, &why);
    if (!e)
        e = put_inputs(f->dev, unet_get_config(u), edge, &in);
    if (!e)
        e = run(f, u, &in);
    if (e == ERR_UNSUPPORTED) {
        printf("%-10s not on this device\n", f->label);
        possible = false;
    }
    CHECK_MSG(!e || !possible, "%s: %s %s", f->label, err_text(e), why.msg);
    free_points(f, false);
    free_inputs(&in);
    unet_destroy(&u);
    ops_device_close(&f->dev);
    return possible && !e;
}

// ---- comparison -------------------------------------------------------------------------------

static void compare(const struct forward *a, const struct forward *b, double bound)
{
    double worst = 0, sum = 0;
    const char *where = "";
    CHECK_INT(a->points, b->points);
    for (int i = 0; i < a->points && i < b->points; i++) {
        const struct point *p = &a->point[i], *q = &b->point[i];
        double square = 0, apart = 0;
        CHECK(!strcmp(p->name, q->name) && p->count == q->count);
        for (size_t k = 0; k < p->count && k < q->count; k++) {
            double d = (double)p->value[k] - q->value[k];
            square += (double)p->value[k] * p->value[k];
            apart += d * d;
        }
        double r = sqrt(apart / square);
        CHECK_MSG(r <= bound, "%s: %s and %s are %.3g apart, at most %.3g", p->name, a->label,
                  b->label, r, bound);
        if (!(r <= worst)) {
            worst = r;
            where = p->name;
        }
        sum += r;
    }
    printf("%s - %s: %d points, %.2g apart on average, %.2g at most (%s)\n", a->label, b->label,
           a->points, sum / a->points, worst, where);
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return test_skip("usage: compare_paths UNET [EDGE [f32|f16]]");
    struct forward *f = calloc(2 * WAYS, sizeof *f);
    uint32_t edge = argc > 2 ? (uint32_t)atoi(argv[2]) : 16;
    struct forward *first = NULL;
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int half = 0; f && half < 2; half++)
        for (int way = 0; way < WAYS; way++) {
            struct forward *at = &f[2 * way + half];
            if (half && way == 1)
                continue;
            if (argc > 3 && strcmp(argv[3], half ? "f16" : "f32") != 0)
                continue;
            if (!forward(at, way, half ? "f16" : "f32", argv[1], edge))
                continue;
            if (!first)
                first = at;
            else
                compare(first, at, half ? bound_f16 : bound_f32);
        }
    CHECK(first != NULL);
    for (int i = 0; f && i < 2 * WAYS; i++)
        free_points(&f[i], true);
    free(f);
    return test_end();
}
