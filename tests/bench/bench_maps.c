// Speed of the operators that are not matrix products, at the default cascade's shapes: wall and
// processor time per float of the result (of the state, for the sampling operators), and
// dispatches. Best of several runs: the machine may be shared, which processor time feels less.
// Usage: bench_maps [name part ...]; BENCH_SECONDS per row (default 0.3), BENCH_DTYPE=f16,
// BENCH_PROFILE=1 for the time of each dispatch.
#include "bench.h"
#include "ops_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct bench {
    struct ops_device *dev;
    enum dtype dtype;
    double seconds;
    const char **only; // NULL-terminated
};

struct shape {
    const char *net;
    uint32_t n, h, w, c, arg;
};

// The tensors of a row, created once: maps of its shape, vectors, states, lanes.
struct place {
    struct tensor x, y, b, other, vector, scale_shift, lanes, state[5], bytes;
};

typedef void record_fn(struct ops *o, const struct shape *s, const struct place *p);

static void must(enum err e, const char *what)
{
    if (!e)
        return;
    fprintf(stderr, "bench_maps: %s: %s\n", what, err_text(e));
    exit(1);
}

static struct tensor make(const struct bench *b, enum dtype dtype, const uint32_t s[4])
{
    struct tensor t;
    must(tensor_create(b->dev, dtype, s[0], s[1], s[2], s[3], &t), "tensor");
    size_t n = (size_t)tensor_pixels(&t) * t.c;
    float *v = malloc(n * sizeof *v);
    for (size_t i = 0; v && i < n; i++)
        v[i] = (float)(i * 2654435761u % 2048) / 1024 - 1;
    must(v ? tensor_upload(&t, v) : ERR_NO_MEMORY, "upload");
    free(v);
    return t;
}

static void group_norm(struct ops *o, const struct shape *s, const struct place *p)
{
    struct op_group_norm_params g = {.x = &p->x,
                                     .y = &p->y,
                                     .gamma = &p->vector,
                                     .beta = &p->vector,
                                     .groups = s->arg,
                                     .eps = 1e-5f,
                                     .scale_shift = &p->scale_shift,
                                     .act = ACT_SILU};
    op_group_norm(o, &g);
}

static void layer_norm(struct ops *o, const struct shape *s, const struct place *p)
{
    op_layer_norm(o, &p->x, &p->vector, &p->vector, 1e-5f, &p->y);
}

static void act(struct ops *o, const struct shape *s, const struct place *p)
{
    op_act(o, (enum op_act)s->arg, &p->x, &p->y);
}

static void add(struct ops *o, const struct shape *s, const struct place *p)
{
    op_add(o, &p->x, &p->b, 0.5f, &p->y);
}

static void copy(struct ops *o, const struct shape *s, const struct place *p)
{
    op_copy(o, &p->x, &p->y);
}

static void pool(struct ops *o, const struct shape *s, const struct place *p)
{
    op_avg_pool2(o, &p->x, &p->other);
}

static void nearest(struct ops *o, const struct shape *s, const struct place *p)
{
    op_upsample_nearest2(o, &p->x, &p->other);
}

static void bilinear(struct ops *o, const struct shape *s, const struct place *p)
{
    op_upsample_bilinear(o, true, &p->x, &p->other);
}

static void unshuffle(struct ops *o, const struct shape *s, const struct place *p)
{
    op_pixel_unshuffle(o, s->arg, &p->x, &p->other);
}

static void shuffle(struct ops *o, const struct shape *s, const struct place *p)
{
    op_pixel_shuffle(o, s->arg, &p->x, &p->other);
}

static void noise(struct ops *o, const struct shape *s, const struct place *p)
{
    op_noise(o, &p->lanes, &p->state[4]);
}

static void gather(struct ops *o, const struct shape *s, const struct place *p)
{
    op_gather_input(o, &p->lanes, &p->state[0], &p->state[1], s->arg, false, &p->other);
}

static void step(struct ops *o, const struct shape *s, const struct place *p)
{
    struct op_sampler_params q = {.lanes = &p->lanes,
                                  .m = &p->x,
                                  .dynamic = s->arg != 0,
                                  .x = &p->state[0],
                                  .history = {&p->state[1], &p->state[2], &p->state[3]},
                                  .noise = &p->state[4]};
    op_sampler_step(o, &q);
}

static void rgb8(struct ops *o, const struct shape *s, const struct place *p)
{
    op_to_rgb8(o, &p->state[0], &p->bytes);
}

enum needs { MAP, MAP2, SMALLER, LARGER, UNSHUFFLED, SHUFFLED, STATE, GATHERED };

struct row {
    const char *name;
    record_fn *record;
    enum needs needs;
    struct shape s;
};

static const struct row rows[] = {
    {"group_norm", group_norm, MAP, {"sr1024 256", 1, 256, 256, 32, 8}},
    {"group_norm", group_norm, MAP, {"sr1024 256", 1, 256, 256, 64, 8}},
    {"group_norm", group_norm, MAP, {"sr1024 128", 1, 128, 128, 48, 8}},
    {"group_norm", group_norm, MAP, {"sr1024 64", 1, 64, 64, 64, 8}},
    {"group_norm", group_norm, MAP, {"base 32", 2, 32, 32, 64, 8}},
    {"group_norm", group_norm, MAP, {"base 16", 2, 16, 16, 128, 8}},
    {"group_norm", group_norm, MAP, {"base 8", 2, 8, 8, 256, 8}},
    {"layer_norm", layer_norm, MAP, {"text", 1, 1, 77, 512, 0}},
    {"silu", act, MAP, {"sr1024 256", 1, 256, 256, 32, ACT_SILU}},
    {"add", add, MAP2, {"sr1024 256", 1, 256, 256, 32, 0}},
    {"copy", copy, MAP, {"sr1024 256", 1, 256, 256, 32, 0}},
    {"avg_pool2", pool, SMALLER, {"sr1024 256", 1, 256, 256, 32, 0}},
    {"nearest2", nearest, LARGER, {"sr1024 128", 1, 128, 128, 48, 0}},
    {"bilinear x4", bilinear, LARGER, {"low-res 1024", 1, 256, 256, 3, 4}},
    {"unshuffle", unshuffle, UNSHUFFLED, {"sr1024 6ch", 1, 1024, 1024, 6, 4}},
    {"shuffle", shuffle, SHUFFLED, {"sr1024 6ch", 1, 256, 256, 96, 4}},
    {"shuffle", shuffle, SHUFFLED, {"sr1024 3ch", 1, 256, 256, 48, 4}},
    {"noise", noise, STATE, {"1024", 1, 1024, 1024, 3, 0}},
    {"gather", gather, GATHERED, {"1024 patch 4", 1, 1024, 1024, 3, 4}},
    {"gather", gather, GATHERED, {"256 patch 1", 1, 256, 256, 3, 1}},
    {"step clip", step, STATE, {"1024", 1, 1024, 1024, 3, 0}},
    {"step dynamic", step, STATE, {"64", 1, 64, 64, 6, 1}},
    {"step dynamic", step, STATE, {"1024", 1, 1024, 1024, 3, 1}},
    {"rgb8", rgb8, STATE, {"1024", 1, 1024, 1024, 3, 0}},
};

static void make_other(const struct bench *b, const struct row *r, struct place *p)
{
    struct shape s = r->s;
    switch (r->needs) {
    case SMALLER: p->other = make(b, b->dtype, (uint32_t[]){s.n, s.h / 2, s.w / 2, s.c}); break;
    case LARGER:
        s.arg = s.arg ? s.arg : 2;
        p->other = make(b, b->dtype, (uint32_t[]){s.n, s.h * s.arg, s.w * s.arg, s.c});
        break;
    case UNSHUFFLED:
        p->other =
            make(b, b->dtype, (uint32_t[]){s.n, s.h / s.arg, s.w / s.arg, s.c * s.arg * s.arg});
        break;
    case SHUFFLED:
        p->other =
            make(b, b->dtype, (uint32_t[]){s.n, s.h * s.arg, s.w * s.arg, s.c / s.arg / s.arg});
        break;
    case GATHERED:
        p->other =
            make(b, b->dtype, (uint32_t[]){s.n, s.h / s.arg, s.w / s.arg, 6 * s.arg * s.arg});
        break;
    default: break;
    }
}

static void make_place(const struct bench *b, const struct row *r, struct place *p)
{
    const struct shape *s = &r->s;
    p->x = make(b, b->dtype, (uint32_t[]){s->n, s->h, s->w, s->c});
    p->y = make(b, b->dtype, (uint32_t[]){s->n, s->h, s->w, s->c});
    p->b = make(b, b->dtype, (uint32_t[]){s->n, s->h, s->w, s->c});
    p->vector = make(b, DT_F32, (uint32_t[]){1, 1, 1, s->c});
    p->scale_shift = make(b, b->dtype, (uint32_t[]){s->n, 1, 1, 2 * s->c});
    make_other(b, r, p);
    if (r->needs < STATE)
        return;
    for (int i = 0; i < 5; i++)
        p->state[i] = make(b, DT_F32, (uint32_t[]){1, s->h, s->w, 3});
    must(tensor_create_mapped(b->dev, DT_U8, 1, s->h, s->w, 3, &p->bytes), "bytes");
    must(tensor_create_mapped(b->dev, DT_U32, 1, 1, 1, 32, &p->lanes), "lanes");
    struct op_lane lane = {.px = 1,
                           .pm = 0.5f,
                           .threshold = r->s.arg ? 2 : 1,
                           .max_value = 1.5f,
                           .quantile = 0.95f,
                           .cx = 0.5f,
                           .c0 = 0.5f,
                           .c1 = 0.25f,
                           .noise = 0.1f};
    memcpy(tensor_map(&p->lanes), &lane, sizeof lane);
}

static void free_place(struct place *p)
{
    struct tensor *all[] = {&p->x,           &p->y,        &p->b,       &p->other,    &p->vector,
                            &p->scale_shift, &p->lanes,    &p->bytes,   &p->state[0], &p->state[1],
                            &p->state[2],    &p->state[3], &p->state[4]};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        if (all[i]->buf)
            tensor_destroy(all[i]);
}

static void run_row(const struct bench *b, const struct row *r)
{
    struct place p = {0};
    struct ops *o = NULL;
    double wall = 1e9, busy = 1e9, start;
    make_place(b, r, &p);
    must(ops_begin(b->dev, b->dtype, &o), "begin");
    r->record(o, &r->s, &p);
    must(ops_end(o), r->name);
    start = bench_now();
    for (int i = 0; i < 5 || (bench_now() - start < b->seconds && i < 2000); i++) {
        double w = bench_now(), c = bench_cpu();
        must(ops_run(o), r->name);
        w = bench_now() - w;
        c = bench_cpu() - c;
        wall = w < wall ? w : wall;
        busy = c < busy ? c : busy;
    }
    const struct tensor *result = p.other.buf ? &p.other : r->needs >= STATE ? &p.state[0] : &p.y;
    double floats = (double)tensor_pixels(result) * (result->c == 4 ? 3 : result->c);
    printf("%-14s %-14s %4ux%-4ux%-4u %9.0f %9.0f %8.2f %8.2f %5u\n", r->name, r->s.net, r->s.h,
           r->s.w, r->s.c, wall * 1e6, busy * 1e6, wall / floats * 1e9, busy / floats * 1e9,
           ops_dispatches(o));
    struct ops_timing t[16];
    int n = getenv("BENCH_PROFILE") ? ops_timings(o, t, 16) : 0;
    for (int i = 0; i < n; i++)
        printf("    %-24s %9.0f us\n", t[i].name, t[i].seconds / (double)t[i].calls * 1e6);
    fflush(stdout);
    ops_destroy(&o);
    free_place(&p);
}

static bool wanted(const struct bench *b, const struct row *r)
{
    for (const char **name = b->only; *name; name++)
        if (strstr(r->name, *name) || strstr(r->s.net, *name))
            return true;
    return !b->only[0];
}

int main(int argc, char **argv)
{
    const char *seconds = getenv("BENCH_SECONDS"), *dtype = getenv("BENCH_DTYPE");
    struct ops_open_params open = {.dtype = dtype, .profile = getenv("BENCH_PROFILE") != NULL};
    struct fault why = {0};
    struct bench b = {.seconds = seconds ? atof(seconds) : 0.3, .only = (const char **)argv + 1};
    if (ops_device_open(&open, &b.dev, &why)) {
        fprintf(stderr, "bench_maps: %s\n", why.msg);
        return 1;
    }
    b.dtype = dtype && !strcmp(dtype, "f16") ? DT_F16 : DT_F32;
    printf("%s, %s\n", ops_device_info(b.dev)->name, b.dtype == DT_F16 ? "f16" : "f32");
    printf("%-14s %-14s %-14s %9s %9s %8s %8s %5s\n", "operator", "network", "shape", "us",
           "busy us", "ns/float", "busy", "disp");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (wanted(&b, &rows[i]))
            run_row(&b, &rows[i]);
    ops_device_close(&b.dev);
    return 0;
}
