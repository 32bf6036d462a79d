// The networks of a pipeline folder alone: how long their weights take to load, and one forward
// pass of the U-Net. Usage: bench_unet FOLDER [EDGE [BATCH]]; EDGE 0 (the default) loads only.
// Prints one JSON object per line: "load" for each network, then "forward" with the median of its
// runs. BENCH_SECONDS of runs (default 3), BENCH_DTYPE=f16, BENCH_VARIANT=fp16,
// BENCH_PROFILE=1 for the time of every operator class. Run by `./run bench
// load` and bench/gpu.py.
#include "bench.h"
#include "ops_internal.h"
#include "text_encoder.h"
#include "unet.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TOKENS = 77, MAX_RUNS = 1000 };

struct bench {
    struct ops_device *dev;
    const char *folder;
    struct unet *unet;
    uint32_t edge, batch;
    double seconds;
};

struct inputs {
    struct tensor sample, states, timestep, level, index;
};

static enum err open_weights(const struct bench *b, const char *part, const char *base,
                             struct weights **w, struct fault *why)
{
    char dir[4096];

    snprintf(dir, sizeof dir, "%s/%s", b->folder, part);
    return weights_open(
        &(struct weights_params){.dir = dir, .base = base, .variant = getenv("BENCH_VARIANT")}, w,
        why);
}

static void report_load(const struct bench *b, const char *part, double began,
                        const struct weights *w)
{
    const double seconds = bench_now() - began;
    struct weights_stats stats;
    struct ops_memory memory;
    uint64_t bytes = 0;

    weights_stats(w, &stats);
    ops_device_memory(b->dev, &memory);
    for (int i = 0; i < ST_DTYPES; i++)
        bytes += stats.bytes[i];
    printf("{\"load\": \"%s\", \"seconds\": %.4f, \"file_bytes\": %llu, \"parameters\": %llu, "
           "\"device_bytes\": %zu}\n",
           part, seconds, (unsigned long long)bytes, (unsigned long long)stats.parameters,
           memory.used);
    fflush(stdout);
}

static enum err load_unet(struct bench *b, struct fault *why)
{
    struct unet_config *config = malloc(sizeof *config);
    struct weights *w = NULL;
    char path[4096];
    const double began = bench_now();

    snprintf(path, sizeof path, "%s/unet/config.json", b->folder);
    enum err e = config ? hfconfig_unet_read(path, config, why) : ERR_NO_MEMORY;
    if (!e)
        e = open_weights(b, "unet", "diffusion_pytorch_model", &w, why);
    if (!e)
        e = unet_load(b->dev, config, w, ops_device_info(b->dev)->dtype, &b->unet, why);
    if (!e)
        report_load(b, "unet", began, w);
    weights_close(&w);
    free(config);
    return e;
}

// Loads the text encoder, if the folder has one, and gives it back.
static enum err load_text(const struct bench *b, struct fault *why)
{
    struct text_encoder_config config;
    struct text_encoder *encoder = NULL;
    struct weights *w = NULL;
    char path[4096];
    const double began = bench_now();

    snprintf(path, sizeof path, "%s/text_encoder/config.json", b->folder);
    if (access(path, R_OK))
        return ERR_OK;
    enum err e = text_encoder_read("T5EncoderModel", path, &config, why);
    if (!e)
        e = open_weights(b, "text_encoder", "model", &w, why);
    if (!e)
        e = text_encoder_load(b->dev, &config, w, ops_device_info(b->dev)->dtype, &encoder, why);
    if (!e)
        report_load(b, "text_encoder", began, w);
    weights_close(&w);
    text_encoder_destroy(&encoder);
    return e;
}

static enum err put(struct ops_device *dev, const uint32_t s[4], struct tensor *out)
{
    const size_t n = (size_t)s[0] * s[1] * s[2] * s[3];
    float *v = malloc(n * sizeof *v);
    enum err e = v ? tensor_create(dev, ops_device_info(dev)->dtype, s[0], s[1], s[2], s[3], out)
                   : ERR_NO_MEMORY;

    for (size_t i = 0; v && i < n; i++)
        v[i] = (float)((uint32_t)i * 2654435761u >> 20) / 2048 - 1;
    if (!e)
        e = tensor_upload(out, v);
    free(v);
    return e;
}

static enum err put_each(struct ops_device *dev, enum dtype dtype, uint32_t n, float value,
                         struct tensor *out)
{
    float v[64];
    static const uint32_t none[64];
    enum err e = tensor_create_mapped(dev, dtype, n, 1, 1, 1, out);

    for (uint32_t i = 0; i < n; i++)
        v[i] = value;
    if (!e)
        e = tensor_upload(out, dtype == DT_U32 ? (const void *)none : v);
    return e;
}

static enum err put_inputs(const struct bench *b, struct inputs *in)
{
    const struct unet_config *c = unet_get_config(b->unet);
    const uint32_t patch = (uint32_t)c->patch_size, side = b->edge / patch;
    enum err e =
        put(b->dev, (uint32_t[]){b->batch, side, side, (uint32_t)c->in_channels * patch * patch},
            &in->sample);

    if (!e)
        e = put(b->dev, (uint32_t[]){1, 1, TOKENS, (uint32_t)c->text_dim}, &in->states);
    if (!e)
        e = put_each(b->dev, DT_F32, b->batch, 500, &in->timestep);
    if (!e)
        e = put_each(b->dev, DT_F32, b->batch, 250, &in->level);
    if (!e)
        e = put_each(b->dev, DT_U32, b->batch, 0, &in->index);
    return e;
}

static enum err record(const struct bench *b, const struct inputs *in, struct unet_text *text,
                       struct ops **out)
{
    struct ops *o = NULL;
    enum err e = ops_begin(b->dev, ops_device_info(b->dev)->dtype, &o);

    if (!e) {
        unet_record_text(b->unet, o, &in->states, text, 0, NULL);
        e = ops_end(o);
    }
    if (!e)
        e = ops_run(o); // the text of all steps
    ops_destroy(&o);
    if (!e)
        e = ops_begin(b->dev, ops_device_info(b->dev)->dtype, &o);
    if (!e) {
        unet_record(b->unet, o,
                    &(struct unet_inputs){.sample = &in->sample,
                                          .timestep = &in->timestep,
                                          .noise_level = &in->level,
                                          .text_index = &in->index,
                                          .text = text},
                    NULL);
        e = ops_end(o);
    }
    *out = o;
    return e;
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

// A line for every kernel in the last run; nothing unless the device was opened with profile.
static void print_timings(struct ops *o)
{
    struct ops_timing t[64];
    const int n = ops_timings(o, t, sizeof t / sizeof *t);

    for (int i = 0; i < n; i++)
        printf("{\"operator\": \"%s\", \"calls\": %llu, \"seconds\": %.6f, \"gflop\": %.3f}\n",
               t[i].name, (unsigned long long)t[i].calls, t[i].seconds, t[i].flops * 1e-9);
}

static enum err time_forward(const struct bench *b, struct ops *o)
{
    static double took[MAX_RUNS];
    const double began = bench_now();
    enum err e = ops_run(o); // a warm-up
    const double first = bench_now() - began;
    int n = 0;

    for (double at = bench_now(); !e && n < MAX_RUNS && (!n || bench_now() - at < b->seconds);) {
        const double run = bench_now();
        e = ops_run(o);
        took[n++] = bench_now() - run;
    }
    qsort(took, (size_t)n, sizeof *took, ascending);
    if (!e)
        printf("{\"forward\": %u, \"batch\": %u, \"dtype\": \"%s\", \"gflop\": %.2f, "
               "\"dispatches\": %u, \"first\": %.4f, \"seconds\": %.6f, \"best\": %.6f, "
               "\"runs\": %d}\n",
               b->edge, b->batch, ops_device_info(b->dev)->dtype == DT_F16 ? "f16" : "f32",
               ops_flops(o) * 1e-9, ops_dispatches(o), first, took[n / 2], took[0], n);
    print_timings(o);
    return e;
}

static enum err forward(const struct bench *b, struct fault *why)
{
    struct unet_text *text = NULL;
    struct inputs in = {0};
    struct ops *o = NULL;
    enum err e = put_inputs(b, &in);

    if (!e)
        e = unet_text_create(b->unet, 1, TOKENS, &text);
    if (!e)
        e = record(b, &in, text, &o);
    if (!e)
        e = time_forward(b, o);
    if (e)
        fault_set(why, e, NULL, "%s", ops_device_why(b->dev, e));
    ops_destroy(&o);
    unet_text_destroy(&text);
    struct tensor *all[] = {&in.sample, &in.states, &in.timestep, &in.level, &in.index};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        tensor_destroy(all[i]);
    return e;
}

int main(int argc, char **argv)
{
    const char *seconds = getenv("BENCH_SECONDS");
    struct bench b = {.folder = argc > 1 ? argv[1] : NULL,
                      .edge = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 0,
                      .batch = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : 1,
                      .seconds = seconds ? atof(seconds) : 3};
    struct fault why = {0};

    if (!b.folder || argc > 4 || b.edge > 4096 || !b.batch || b.batch > 64) {
        fputs("usage: bench_unet FOLDER [EDGE, up to 4096 [BATCH, 1 to 64]]\n", stderr);
        return 2;
    }
    enum err e =
        ops_device_open(&(struct ops_open_params){.dtype = getenv("BENCH_DTYPE"),
                                                  .profile = getenv("BENCH_PROFILE") != NULL},
                        &b.dev, &why);
    if (!e)
        e = load_text(&b, &why);
    if (!e)
        e = load_unet(&b, &why);
    if (!e && b.edge)
        e = forward(&b, &why);
    if (e)
        fprintf(stderr, "bench_unet: %s\n", why.msg[0] ? why.msg : err_text(e));
    unet_destroy(&b.unet);
    ops_device_close(&b.dev);
    return e ? 1 : 0;
}
