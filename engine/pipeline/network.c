// Loads a network and accounts for the time of its steps. Called by engine.c, on the engine's
// worker. Knows nothing about slots, requests or prompts.
#include "network.h"

#include "buf.h"
#include "clock.h"
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
    struct decoder *decoder; // of latents; NULL: none
    struct stage *stage;
    struct network_params p; // for waking
    uint64_t parameters;
    size_t bytes;   // of the weights, where ops_device_count is on
    uint64_t steps; // since the last profile
    double seconds;
};

static enum err open_weights(const struct cascade *c, enum cascade_part part, int index, bool dry,
                             struct weights **out, struct fault *why)
{
    char dir[CASCADE_PATH + 8];
    struct weights_params p = cascade_weights(c, part, index, dir);

    p.dry = dry;
    return weights_open(&p, out, why);
}

enum err network_check(const struct cascade *c, int index, struct weights **keep, struct fault *why)
{
    struct weights *w = NULL;
    struct denoiser *d = NULL;
    enum err e = open_weights(c, CASCADE_DENOISER, index, true, &w, why);

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
    enum err e = open_weights(c, CASCADE_DECODER, index, true, &w, why);

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

static enum err create_stage(const struct network_params *p, struct network *n, struct fault *why)
{
    const struct cascade_network *c = &p->cascade->network[p->index];
    const struct ops_device_info *d = ops_device_info(p->dev);
    const uint32_t size = (uint32_t)p->cascade->size[c->stage];
    const uint32_t low = c->stage ? (uint32_t)p->cascade->size[c->stage - 1] : 0;
    const uint32_t fit = (d->cpu ? CPU_STAGE_PIXELS : GPU_STAGE_PIXELS) / (size * size);
    const uint32_t state = c->decoder.cls ? low : size;
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
                       .height = state,
                       .width = state,
                       .low_height = low,
                       .low_width = low,
                       .entries = fit < 1          ? 1
                                  : fit > p->slots ? p->slots
                                                   : fit,
                       // On a CPU, super-resolution stages save memory where possible: requests
                       // cannot override their sampler.
                       .lean = c->stage > 0 && d->cpu && lean,
                       .text_length = p->text_length,
                       .text_dim = p->text_dim,
                   },
                   &n->stage);
}

static enum err load_parts(const struct network_params *p, struct network *n, struct fault *why)
{
    const struct cascade_network *c = &p->cascade->network[p->index];
    const enum dtype dtype = ops_device_info(p->dev)->dtype;
    struct weights *w = NULL;
    enum err e = open_weights(p->cascade, CASCADE_DENOISER, p->index, p->dry, &w, why);

    if (!e)
        e = denoiser_load(p->dev, &c->denoiser, w, dtype, &n->denoiser, why);
    weights_close(&w);
    if (e || !c->decoder.cls)
        return e;
    e = open_weights(p->cascade, CASCADE_DECODER, p->index, p->dry, &w, why);
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
    e = load_parts(p, n, &fault);
    trace_span("upload", began, TRACE_OWN, "weights of %s", c->name);
    if (!e)
        note_weights(n);
    if (!e)
        e = create_stage(p, n, &fault);
    if (!e)
        e = warm(p, c->stage, n, &fault);
    if (!e && p->dry)
        e = stage_warm_most(n->stage);
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
    denoiser_destroy(&n->denoiser);
    decoder_destroy(&n->decoder);
    free(n);
    *out = NULL;
}

void network_sleep(struct network *n)
{
    if (!n->denoiser)
        return;
    stage_sleep(n->stage);
    denoiser_destroy(&n->denoiser);
    decoder_destroy(&n->decoder);
}

enum err network_wake(struct network *n, struct fault *why)
{
    const double began = clock_seconds();
    struct fault fault = {0};
    enum err e;

    if (n->denoiser)
        return ERR_OK;
    e = load_parts(&n->p, n, &fault);
    if (!e)
        e = stage_wake(n->stage, n->denoiser, n->decoder);
    trace_span("upload", began, TRACE_OWN, "weights of %s", n->name);
    if (!e)
        return ERR_OK;
    if (!fault.code)
        fault_set(&fault, e, "model", "%s: %s", n->name, ops_device_why(n->p.dev, e));
    if (why)
        *why = fault;
    return e;
}

bool network_is_awake(const struct network *n)
{
    return n->denoiser != NULL;
}

size_t network_bytes(const struct network *n)
{
    return n->bytes;
}

struct stage *network_stage(const struct network *n)
{
    return n->stage;
}

uint64_t network_parameters(const struct network *n)
{
    return n->parameters;
}

enum err network_step(struct network *n, const int *entries, int count, double *seconds)
{
    const double began = clock_seconds();
    enum err e = stage_step(n->stage, entries, count);

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

void network_profile(struct network *n, struct buf *text)
{
    struct ops_timing t[MAX_TIMINGS];
    double flops;
    const int count = stage_timings(n->stage, t, MAX_TIMINGS, &flops);
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
    for (int k = 0; k < count; k++)
        buf_printf(text, "  %-24s %6.0f calls per pass %9.3f ms %5.1f %%\n", t[k].name,
                   (double)t[k].calls / steps, t[k].seconds / steps * 1e3,
                   100 * t[k].seconds / device);
}
