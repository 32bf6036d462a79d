// Loads a network and accounts for the time of its steps. Called by engine.c, on the engine's
// worker. Knows nothing about slots, requests or prompts.
#include "network.h"

#include "buf.h"
#include "clock.h"
#include "loras.h"
#include "trace.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_TIMINGS = 64,
    // Maximum number of pixels that one stage samples at once on a CPU; other images wait.
    CPU_STAGE_PIXELS = 1 << 20,
    GPU_STAGE_PIXELS = 1 << 23,
};

struct network {
    const char *name; // owned by the cascade
    struct denoiser *denoiser;
    struct decoder *decoder;     // of latents; NULL: none
    struct stage *stage, *other; // of the cascade's square, and of `shape`; other: may be NULL
    struct check_size shape;
    struct network_params p; // for waking
    struct cascade_loras loras;
    uint64_t parameters;
    size_t bytes;   // of the weights, where ops_device_count is on
    uint64_t steps; // since the last profile
    double seconds;
};

// Checks the files of a part.
static enum err open_dry(const struct cascade *c, enum cascade_part part, int index,
                         struct weights **out, struct fault *why)
{
    char dir[CASCADE_PATH + 8];
    struct weights_params p = cascade_weights(c, part, index, dir);

    p.dry = true;
    return weights_open(&p, out, why);
}

static enum err open_weights(const struct network *n, enum cascade_part part, struct weights **out,
                             struct fault *why)
{
    char dir[CASCADE_PATH + 8];
    struct weights_params p = cascade_weights(n->p.cascade, part, n->p.index, dir);

    p.dry = n->p.dry;
    if (part == CASCADE_DENOISER) {
        p.room = n->p.room;
        p.lora = n->loras.lora;
        p.loras = n->loras.count;
    }
    return weights_open(&p, out, why);
}

enum err network_check(const struct cascade *c, int index, struct weights **keep, struct fault *why)
{
    struct weights *w = NULL;
    struct denoiser *d = NULL;
    enum err e = open_dry(c, CASCADE_DENOISER, index, &w, why);

    if (!e)
        e = denoiser_load(NULL, &c->network[index].denoiser, w, DT_F32, &d, why);
    denoiser_destroy(&d);
    if (keep)
        *keep = w;
    else
        weights_close(&w);
    return e || keep || !c->network[index].decoder.cls ? e
                                                       : network_check_decoder(c, index, NULL, why);
}

enum err network_check_decoder(const struct cascade *c, int index, struct weights **keep,
                               struct fault *why)
{
    struct weights *w = NULL;
    struct decoder *d = NULL;
    enum err e = open_dry(c, CASCADE_DECODER, index, &w, why);

    if (!e)
        e = decoder_load(NULL, &c->network[index].decoder, w, DT_F32, &d, why);
    decoder_destroy(&d);
    if (keep)
        *keep = w;
    else
        weights_close(&w);
    return e;
}

// Whether a lean stage can run the samplers of all presets that use this network.
static enum err find_lean(const struct network_params *p, int stage, bool *out, struct fault *why)
{
    enum err e = ERR_OK;

    *out = true;
    for (int i = 0; !e && i < p->cascade->presets; i++) {
        const struct cascade_settings *s = &p->cascade->preset[i].stage[stage];
        struct sampler *sampler = NULL;
        if (s->network != p->index)
            continue;
        e = cascade_sampler(p->cascade, s, &sampler, why);
        *out = *out && !e && stage_is_lean_sampler(sampler);
        sampler_destroy(&sampler);
    }
    return e;
}

static enum err warm(const struct network_params *p, int stage, struct network *n,
                     struct fault *why)
{
    enum err e = ERR_OK;

    for (int i = 0; !e && i < p->cascade->presets; i++) {
        const struct cascade_settings *s = &p->cascade->preset[i].stage[stage];
        struct sampler *sampler = NULL;
        if (s->network != p->index)
            continue;
        e = cascade_sampler(p->cascade, s, &sampler, why);
        if (!e)
            e = stage_warm(n->stage, sampler, s->guidance_scale, s->guidance_interval);
        sampler_destroy(&sampler);
    }
    return e;
}

static enum err create_stage(const struct network *n, const struct check_size *size,
                             struct stage **out, struct fault *why)
{
    const struct network_params *p = &n->p;
    const struct cascade_network *c = &p->cascade->network[p->index];
    const struct ops_device_info *d = ops_device_info(p->dev);
    const int *edge = p->cascade->size + c->stage;
    const uint32_t width = (uint32_t)size->width, height = (uint32_t)size->height;
    // The image of the stage before.
    const uint32_t low_width = c->stage ? (uint32_t)(size->width * edge[-1] / *edge) : 0;
    const uint32_t low_height = c->stage ? (uint32_t)(size->height * edge[-1] / *edge) : 0;
    const uint32_t fit = (d->cpu ? CPU_STAGE_PIXELS : GPU_STAGE_PIXELS) / (width * height);
    bool lean;
    enum err e = find_lean(p, c->stage, &lean, why);

    return e ? e
             : stage_create(
                   &(struct stage_params){
                       .dev = p->dev,
                       .denoiser = n->denoiser,
                       .decoder = n->decoder,
                       .dtype = d->dtype,
                       .noising = c->super_resolution ? &c->noising : NULL,
                       .index = (uint32_t)c->stage,
                       .height = c->decoder.cls ? low_height : height,
                       .width = c->decoder.cls ? low_width : width,
                       .low_height = low_height,
                       .low_width = low_width,
                       .entries = fit < 1          ? 1
                                  : fit > p->slots ? p->slots
                                                   : fit,
                       // On a CPU, super-resolution stages save memory where possible: requests
                       // cannot override their sampler.
                       .lean = c->stage > 0 && d->cpu && lean,
                       .text_length = p->text_length,
                       .text_dim = p->text_dim,
                   },
                   out);
}

static struct check_size square_of(const struct network *n)
{
    const int edge = n->p.cascade->size[n->p.cascade->network[n->p.index].stage];

    return (struct check_size){edge, edge};
}

static bool is_same(const struct check_size *a, const struct check_size *b)
{
    return a->width == b->width && a->height == b->height;
}

struct stage *network_stage(const struct network *n, const struct check_size *size)
{
    const struct check_size square = square_of(n);

    return is_same(size, &square)                 ? n->stage
           : n->other && is_same(size, &n->shape) ? n->other
                                                  : NULL;
}

bool network_has_room(const struct network *n, const struct check_size *size)
{
    const struct stage *s = network_stage(n, size);

    return s ? stage_free(s) > 0 : !n->other || stage_is_empty(n->other);
}

enum err network_shape(struct network *n, const struct check_size *size, struct fault *why)
{
    enum err e;

    if (network_stage(n, size))
        return ERR_OK;
    stage_destroy(&n->other);
    e = create_stage(n, size, &n->other, why);
    // Memory that is missing is missed now, not by a step that others share.
    if (!e)
        e = stage_warm_most(n->other);
    if (!e) {
        n->shape = *size;
        return ERR_OK;
    }
    stage_destroy(&n->other);
    return fault_set(why, e, "size", "%s cannot make images of %dx%d: %s", n->name, size->width,
                     size->height, ops_device_why(n->p.dev, e));
}

static enum err load_parts(struct network *n, struct fault *why)
{
    const struct network_params *p = &n->p;
    const struct cascade_network *c = &p->cascade->network[p->index];
    const enum dtype dtype = ops_device_info(p->dev)->dtype;
    struct weights *w = NULL;
    enum err e = open_weights(n, CASCADE_DENOISER, &w, why);

    if (!e)
        e = denoiser_load(p->dev, &c->denoiser, w, dtype, &n->denoiser, why);
    weights_close(&w);
    if (e || !c->decoder.cls)
        return e;
    e = open_weights(n, CASCADE_DECODER, &w, why);
    if (!e)
        e = decoder_load(p->dev, &c->decoder, w, dtype, &n->decoder, why);
    weights_close(&w);
    return e;
}

static void note_weights(struct network *n)
{
    struct ops_counted counted;

    ops_device_counted(n->p.dev, &counted);
    n->bytes = counted.used;
    n->parameters = denoiser_parameters(n->denoiser) + (n->decoder ? n->decoder->parameters : 0);
}

enum err network_load(const struct network_params *p, struct network **out, struct fault *why)
{
    const struct cascade_network *c = &p->cascade->network[p->index];
    struct network *n = calloc(1, sizeof *n);
    struct fault fault = {0};
    const double began = clock_seconds();
    enum err e;

    if (!n)
        return fault_set(why, ERR_NO_MEMORY, NULL, "no memory for a network");
    n->name = c->name;
    n->p = *p;
    n->loras = p->loras ? *p->loras : p->cascade->applied[c->stage];
    e = load_parts(n, &fault);
    if (!p->dry)
        trace_span("upload", began, TRACE_OWN, "weights of %s", c->name);
    if (!e)
        note_weights(n);
    const struct check_size square = square_of(n);
    if (!e)
        e = create_stage(n, &square, &n->stage, &fault);
    if (!e)
        e = warm(p, c->stage, n, &fault);
    if (!e && p->dry)
        e = stage_warm_most(n->stage);
    if (!e && p->shape.width)
        e = network_shape(n, &p->shape, &fault);
    if (e) {
        if (!fault.code)
            fault_set(&fault, e, "model", "stage %d (%s): %s", c->stage + 1, c->name,
                      ops_device_why(p->dev, e));
        if (why)
            *why = fault;
        network_destroy(&n);
    }
    *out = n;
    return e;
}

void network_destroy(struct network **out)
{
    struct network *n = *out;

    if (!n)
        return;
    stage_destroy(&n->stage);
    stage_destroy(&n->other);
    denoiser_destroy(&n->denoiser);
    decoder_destroy(&n->decoder);
    free(n);
    *out = NULL;
}

void network_sleep(struct network *n, size_t room)
{
    n->p.room = room;
    if (!n->denoiser)
        return;
    stage_sleep(n->stage);
    if (n->other)
        stage_sleep(n->other);
    denoiser_destroy(&n->denoiser);
    decoder_destroy(&n->decoder);
}

enum err network_wake(struct network *n, const struct cascade_loras *loras, struct fault *why)
{
    const struct cascade_loras before = n->loras;
    const double began = clock_seconds();
    struct fault fault = {0};
    enum err e;

    if (network_has(n, loras))
        return ERR_OK;
    network_sleep(n, n->p.room);
    if (loras)
        n->loras = *loras;
    e = load_parts(n, &fault);
    if (!e)
        e = stage_wake(n->stage, n->denoiser, n->decoder);
    if (!e && n->other)
        e = stage_wake(n->other, n->denoiser, n->decoder);
    trace_span("upload", began, TRACE_OWN, "weights of %s", n->name);
    if (!e)
        return ERR_OK;
    if (!fault.code)
        fault_set(&fault, e, "model", "%s: %s", n->name, ops_device_why(n->p.dev, e));
    if (why)
        *why = fault;
    network_sleep(n, n->p.room);
    n->loras = before;
    return e;
}

bool network_has(const struct network *n, const struct cascade_loras *loras)
{
    return n->denoiser && (!loras || loras_are_same(&n->loras, loras));
}

size_t network_bytes(const struct network *n)
{
    return n->bytes;
}

uint64_t network_parameters(const struct network *n)
{
    return n->parameters;
}

enum err network_step(struct network *n, struct stage *stage, const int *entries, int count,
                      double *seconds)
{
    const double began = clock_seconds();
    enum err e = stage_step(stage, entries, count);

    *seconds = clock_seconds() - began;
    trace_span("step", began, TRACE_OWN, "%s, %d images", n->name, count);
    n->steps++;
    n->seconds += *seconds;
    return e;
}

static int slowest_first(const void *a, const void *b)
{
    const struct ops_timing *x = a, *y = b;

    return (x->seconds < y->seconds) - (x->seconds > y->seconds);
}

// Adds the timings of a stage to those of the others.
static int add_timings(struct stage *s, struct ops_timing *sum, int count, double *flops)
{
    struct ops_timing t[MAX_TIMINGS];
    double more;
    const int found = stage_timings(s, t, MAX_TIMINGS, &more);

    *flops += more;
    for (int i = 0; i < found; i++) {
        int at = 0;
        while (at < count && strcmp(sum[at].name, t[i].name))
            at++;
        if (at == MAX_TIMINGS)
            continue;
        if (at == count)
            sum[count++] = (struct ops_timing){.name = t[i].name};
        sum[at].calls += t[i].calls;
        sum[at].seconds += t[i].seconds;
        sum[at].flops += t[i].flops;
    }
    return count;
}

void network_profile(struct network *n, struct buf *text)
{
    struct ops_timing t[MAX_TIMINGS];
    double flops = 0;
    int count = add_timings(n->stage, t, 0, &flops);
    if (n->other)
        count = add_timings(n->other, t, count, &flops);
    const double steps = (double)n->steps, wall = n->seconds;
    double device = 0;

    n->steps = 0;
    n->seconds = 0;
    for (int k = 0; k < count; k++)
        device += t[k].seconds;
    if (!count || device <= 0 || steps <= 0)
        return;
    qsort(t, (size_t)count, sizeof *t, slowest_first);
    buf_printf(text,
               "%s: %.0f forward passes of %.2f GFLOP, %.1f ms each; %.1f ms on the device, %.1f "
               "GFLOP/s; launching and waiting %.1f %%\n",
               n->name, steps, flops / steps / 1e9, wall / steps * 1e3, device / steps * 1e3,
               flops / device / 1e9, 100 * (wall - device) / wall);
    for (int k = 0; k < count; k++) {
        buf_printf(text, "  %-24s %6.0f calls per pass %9.3f ms %5.1f %%", t[k].name,
                   (double)t[k].calls / steps, t[k].seconds / steps * 1e3,
                   100 * t[k].seconds / device);
        if (t[k].flops > 0 && t[k].seconds > 0)
            buf_printf(text, " %7.1f GFLOP/s", t[k].flops / t[k].seconds / 1e9);
        buf_printf(text, "\n");
    }
}
