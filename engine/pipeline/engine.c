// The facade: slots that carry pictures through the stages of the cascade, one forward per
// engine_step. Called by the server's worker and the command line; see engine.h for the thread
// rules. Everything about one stage's sampling is in stage.c, about prompts in text.c.
#include "engine.h"

#include "buf.h"
#include "cascade.h"
#include "clock.h"
#include "request.h"
#include "stage.h"
#include "text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    CPU_SLOTS = 4,
    GPU_SLOTS = 8,
    MAX_SLOTS = 256,
    TEXT_CACHE = 64,
    MAX_TIMINGS = 64,
    // Pixels of all pictures that one stage samples at once; more wait for an entry.
    CPU_STAGE_PIXELS = 1 << 20,
    GPU_STAGE_PIXELS = 1 << 23,
};

struct slot {
    bool used;
    void *tag;
    uint64_t order;                             // of admission
    struct resolved what;                       // the request, every default filled in
    struct sampler *sampler[ENGINE_MAX_STAGES]; // NULL once the stage has taken it
    float *text;                                // [2, L, D]: prompt, negative prompt
    float *picture;                             // of the last stage, input of the next
    int stage, entry;                           // entry -1: waits for a place in the stage
    double stage_began;
};

struct engine {
    struct ops_device *dev;
    struct cascade cascade;
    struct text *text;
    struct unet *unet[ENGINE_MAX_STAGES];
    struct stage *stage[ENGINE_MAX_STAGES];
    struct engine_info info;
    struct slot *slot;
    int *entries; // scratch of engine_step
    uint64_t admitted;
    struct engine_stats stats;
    struct {
        uint64_t steps;
        double seconds;
    } profiled[ENGINE_MAX_STAGES]; // what engine_profile has told of
};

// ---- opening ----------------------------------------------------------------------------------

// Where caches go when nobody says: as the XDG base directory specification wants it. NULL:
// nowhere.
static const char *user_cache(char *out, size_t n)
{
    const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");

    if (xdg && *xdg == '/')
        snprintf(out, n, "%s/imagend", xdg);
    else if (home && *home == '/')
        snprintf(out, n, "%s/.cache/imagend", home);
    else
        return NULL;
    return out;
}

static enum err open_device(const struct engine_params *p, struct engine *g, struct fault *why)
{
    char cache[CASCADE_PATH];
    enum err e = ops_device_open(
        &(struct ops_open_params){
            .device = p->device,
            .cache_dir = p->cache_dir ? p->cache_dir : user_cache(cache, sizeof cache),
            .memory_limit = p->memory_limit,
            .validation = p->validation,
            .profile = p->profile,
            .dtype = p->dtype,
        },
        &g->dev, why);

    if (e)
        return e;
    const struct ops_device_info *d = ops_device_info(g->dev);
    snprintf(g->info.device, sizeof g->info.device, "%s", d->name);
    snprintf(g->info.driver, sizeof g->info.driver, "%s", d->driver);
    snprintf(g->info.dtype, sizeof g->info.dtype, "%s", d->dtype == DT_F16 ? "f16" : "f32");
    g->info.slots = p->slots ? p->slots : d->cpu ? CPU_SLOTS : GPU_SLOTS;
    return ERR_OK;
}

// The sampler that the model recommends for a stage.
static enum err recommended(const struct cascade_stage *c, struct sampler **out, struct fault *why)
{
    return sampler_create(
        &(struct sampler_params){
            .config = &c->scheduler,
            .name = c->sampler[0] ? c->sampler : NULL,
            .steps = c->steps,
        },
        out, why);
}

static enum err load_stage(const struct engine_params *p, struct engine *g, int i,
                           struct fault *why)
{
    const struct cascade_stage *c = &g->cascade.stage[i];
    const struct ops_device_info *d = ops_device_info(g->dev);
    const uint32_t size = (uint32_t)c->size;
    const uint32_t pixels = d->cpu ? CPU_STAGE_PIXELS : GPU_STAGE_PIXELS;
    const uint32_t slots = (uint32_t)g->info.slots;
    uint32_t entries = pixels / (size * size);
    struct sampler *sampler = NULL;
    struct weights *w = NULL;
    char dir[CASCADE_PATH + 8];
    enum err e;

    snprintf(dir, sizeof dir, "%s/unet", c->dir);
    e = weights_open(&(struct weights_params){.dir = dir,
                                              .base = "diffusion_pytorch_model",
                                              .variant = p->variant},
                     &w, why);
    if (!e)
        e = unet_load(g->dev, &c->unet, w, d->dtype, &g->unet[i], why);
    weights_close(&w);
    if (!e)
        e = recommended(c, &sampler, why);
    if (e)
        return e;
    entries = entries < 1 ? 1 : entries > slots ? slots : entries;
    const uint32_t low = i ? (uint32_t)g->cascade.stage[i - 1].size : 0;
    e = stage_create(
        &(struct stage_params){
            .dev = g->dev,
            .unet = g->unet[i],
            .dtype = d->dtype,
            .noising = c->super_resolution ? &c->noising : NULL,
            .index = (uint32_t)i,
            .height = size,
            .width = size,
            .low_height = low,
            .low_width = low,
            .entries = entries,
            // On a CPU a large stage saves memory where it can: nobody chooses its sampler.
            .lean = i > 0 && d->cpu && stage_is_lean_sampler(sampler),
            .text_length = (uint32_t)text_length(g->text),
            .text_dim = (uint32_t)text_dim(g->text),
        },
        &g->stage[i]);
    if (!e)
        e = stage_warm(g->stage[i], sampler, c->guidance_scale != 1);
    sampler_destroy(&sampler);
    if (e)
        fault_set(why, e, "model", "stage %d (%s): %s", i + 1, c->name, err_text(e));
    return e;
}

static void describe(struct engine *g)
{
    snprintf(g->info.model, sizeof g->info.model, "%s", g->cascade.name);
    g->info.stages = g->cascade.stages;
    g->info.samplers = sampler_names();
    g->info.timestep_presets = sampler_preset_names();
    g->info.text_parameters = text_parameters(g->text);
    for (int i = 0; i < g->cascade.stages; i++) {
        const struct cascade_stage *c = &g->cascade.stage[i];
        struct engine_stage_info *s = &g->info.stage[i];
        snprintf(s->name, sizeof s->name, "%s", c->name);
        snprintf(s->sampler, sizeof s->sampler, "%s",
                 c->sampler[0] ? c->sampler : sampler_default_name(&c->scheduler));
        s->size = c->size;
        s->steps = c->steps;
        s->guidance_scale = c->guidance_scale;
        s->noise_level = c->noise_level;
        s->parameters = unet_parameters(g->unet[i]);
    }
}

// A model that does not fit: how far it came, and what its user can do.
static void explain_memory(const struct engine *g, struct fault *why)
{
    const bool halves = ops_device_info(g->dev)->dtype == DT_F16;
    struct ops_memory m;
    char what[128];

    ops_device_memory(g->dev, &m);
    snprintf(what, sizeof what, "%.127s", why->msg);
    fault_set(why, ERR_NO_DEVICE_MEMORY, "memory-limit",
              "%s; %zu MB of %zu MB were in use: raise memory-limit%s, or load fewer stages", what,
              m.peak / 1000000, m.limit / 1000000, halves ? "" : ", store halves (dtype f16)");
}

enum err engine_open(const struct engine_params *p, struct engine **out, struct fault *why)
{
    struct engine *g = calloc(1, sizeof *g);
    enum err e;

    if (!g)
        return fault_set(why, ERR_NO_MEMORY, NULL, "no memory for the engine");
    if (p->slots < 0 || p->slots > MAX_SLOTS) {
        e = fault_set(why, ERR_INVALID, "slots", "slots must be 1 to %d", MAX_SLOTS);
        goto fail;
    }
    e = cascade_read(p->model, &g->cascade, why);
    if (!e)
        e = open_device(p, g, why);
    if (e)
        goto fail;
    g->slot = calloc((size_t)g->info.slots, sizeof *g->slot);
    g->entries = calloc((size_t)g->info.slots, sizeof *g->entries);
    if (!g->slot || !g->entries) {
        e = fault_set(why, ERR_NO_MEMORY, NULL, "no memory for the slots");
        goto fail;
    }
    e = text_open(
        &(struct text_params){
            .dev = g->dev,
            .tokenizer_dir = g->cascade.tokenizer_dir,
            .encoder_dir = g->cascade.text_dir,
            .variant = p->variant,
            .config = &g->cascade.t5,
            .dtype = ops_device_info(g->dev)->dtype,
            .cached = TEXT_CACHE,
        },
        &g->text, why);
    for (int i = 0; !e && i < g->cascade.stages; i++)
        e = load_stage(p, g, i, why);
    if (e)
        goto fail;
    describe(g);
    *out = g;
    return ERR_OK;
fail:
    if (e == ERR_NO_DEVICE_MEMORY && g->dev && why)
        explain_memory(g, why);
    engine_close(&g);
    return e;
}

static void free_slot(struct slot *s)
{
    for (int i = 0; i < ENGINE_MAX_STAGES; i++)
        sampler_destroy(&s->sampler[i]);
    free(s->text);
    free(s->picture);
    memset(s, 0, sizeof *s);
}

void engine_close(struct engine **out)
{
    struct engine *g = *out;

    if (!g)
        return;
    for (int i = 0; g->slot && i < g->info.slots; i++)
        free_slot(&g->slot[i]);
    for (int i = 0; i < ENGINE_MAX_STAGES; i++) {
        stage_destroy(&g->stage[i]);
        unet_destroy(&g->unet[i]);
    }
    text_close(&g->text);
    ops_device_close(&g->dev);
    free(g->slot);
    free(g->entries);
    free(g);
    *out = NULL;
}

// ---- admitting --------------------------------------------------------------------------------

// Names the sampler and, for a preset, counts its steps too; the samplers themselves are not kept.
static enum err resolve(const struct engine *g, const struct engine_request *r,
                        struct resolved *what, struct fault *why)
{
    struct sampler *sampler[ENGINE_MAX_STAGES] = {0};
    enum err e = request_resolve(&g->cascade, r, what, why);

    if (!e)
        e = request_samplers(&g->cascade, r, what, sampler, why);
    for (int i = 0; i < ENGINE_MAX_STAGES; i++)
        sampler_destroy(&sampler[i]);
    return e;
}

enum err engine_resolve(const struct engine *g, const struct engine_request *r,
                        struct engine_used *out, struct fault *why)
{
    struct resolved what;
    enum err e = resolve(g, r, &what, why);

    if (!e)
        *out = what.used;
    return e;
}

enum err engine_check(const struct engine *g, const struct engine_request *r, struct fault *why)
{
    struct resolved what;

    return resolve(g, r, &what, why);
}

static enum err encode(struct engine *g, const struct engine_request *r, struct slot *s,
                       struct fault *why)
{
    const size_t floats = (size_t)text_length(g->text) * (size_t)text_dim(g->text);
    const char *prompts[2] = {r->prompt, r->negative_prompt ? r->negative_prompt : ""};

    s->text = malloc(2 * floats * sizeof *s->text);
    if (!s->text)
        return fault_set(why, ERR_NO_MEMORY, NULL, "no memory for the text");
    for (int i = 0; i < 2; i++) {
        const float *states;
        enum err e = text_encode(g->text, prompts[i], &states, why);
        if (e)
            return e;
        memcpy(s->text + (size_t)i * floats, states, floats * sizeof *states);
    }
    return ERR_OK;
}

enum err engine_admit(struct engine *g, const struct engine_request *r, void *tag, int *slot,
                      struct fault *why)
{
    struct slot s = {.used = true, .tag = tag, .entry = -1};
    int i = 0;
    enum err e;

    while (i < g->info.slots && g->slot[i].used)
        i++;
    if (i == g->info.slots)
        return fault_set(why, ERR_BUSY, NULL, "every slot is in use");
    e = request_resolve(&g->cascade, r, &s.what, why);
    if (!e)
        e = request_samplers(&g->cascade, r, &s.what, s.sampler, why);
    if (!e)
        e = encode(g, r, &s, why);
    if (e) {
        free_slot(&s);
        return e;
    }
    s.order = g->admitted++;
    g->slot[i] = s;
    *slot = i;
    return ERR_OK;
}

enum err engine_evict(struct engine *g, int slot)
{
    if (slot < 0 || slot >= g->info.slots || !g->slot[slot].used)
        return ERR_NOT_FOUND;
    if (g->slot[slot].entry >= 0)
        stage_leave(g->stage[g->slot[slot].stage], g->slot[slot].entry);
    free_slot(&g->slot[slot]);
    return ERR_OK;
}

int engine_busy(const struct engine *g)
{
    int n = 0;

    for (int i = 0; i < g->info.slots; i++)
        n += g->slot[i].used;
    return n;
}

int engine_free(const struct engine *g)
{
    return g->info.slots - engine_busy(g);
}

// ---- stepping ---------------------------------------------------------------------------------

struct post {
    engine_event_fn *fn;
    void *ctx;
};

static void post(const struct engine *g, const struct post *to, int slot,
                 enum engine_event_type type, const uint8_t *rgb, const struct fault *fault)
{
    const struct slot *s = &g->slot[slot];
    const int size = g->cascade.stage[s->stage].size;
    struct engine_event ev = {
        .type = type,
        .slot = slot,
        .tag = s->tag,
        .stage = s->stage,
        .stages = s->what.used.stages,
        .steps = s->what.used.steps[s->stage],
        .image = {.width = size, .height = size, .rgb = rgb},
        .fault = fault,
    };

    if (s->entry >= 0)
        ev.step = stage_steps_done(g->stage[s->stage], s->entry);
    if (type == ENGINE_STAGE)
        ev.stage_seconds = clock_seconds() - s->stage_began;
    to->fn(to->ctx, &ev);
}

// Errors that concern the device and so every picture.
static bool is_fatal(enum err e)
{
    return e == ERR_DEVICE_LOST || e == ERR_NO_DEVICE_MEMORY || e == ERR_TIMEOUT;
}

static enum err enter(struct engine *g, struct slot *s, struct fault *why)
{
    const size_t floats = (size_t)text_length(g->text) * (size_t)text_dim(g->text);
    struct sampler *sampler = s->sampler[s->stage];
    const float guidance = s->what.used.guidance_scale[s->stage];

    s->sampler[s->stage] = NULL;
    s->stage_began = clock_seconds();
    return stage_enter(g->stage[s->stage],
                       &(struct stage_start){
                           .sampler = sampler,
                           .text = s->text,
                           .negative = guidance == 1 ? NULL : s->text + floats,
                           .guidance = guidance,
                           .low = s->picture,
                           .noise_level = s->what.used.noise_level[s->stage],
                           .seed = s->what.seed,
                           .picture = s->what.picture,
                       },
                       &s->entry, why);
}

// Give places in the stages to the pictures that wait for one, oldest first.
static enum err fill_stages(struct engine *g, const struct post *to, struct fault *why)
{
    for (;;) {
        int next = -1;
        for (int i = 0; i < g->info.slots; i++) {
            const struct slot *s = &g->slot[i];
            if (s->used && s->entry < 0 && stage_free(g->stage[s->stage]) > 0 &&
                (next < 0 || s->order < g->slot[next].order))
                next = i;
        }
        if (next < 0)
            return ERR_OK;
        struct fault fault = {.code = ERR_OK};
        enum err e = enter(g, &g->slot[next], &fault);
        if (is_fatal(e))
            return fault_set(why, e, NULL, "starting a stage: %s", err_text(e));
        if (e) {
            if (!fault.code)
                fault_set(&fault, e, NULL, "starting a stage: %s", err_text(e));
            post(g, to, next, ENGINE_FAILED, NULL, &fault);
            free_slot(&g->slot[next]);
        }
    }
}

// The stage that holds the oldest picture goes next, so that none waits for ever.
static int choose_stage(const struct engine *g)
{
    int oldest = -1;

    for (int i = 0; i < g->info.slots; i++) {
        const struct slot *s = &g->slot[i];
        if (s->used && s->entry >= 0 && (oldest < 0 || s->order < g->slot[oldest].order))
            oldest = i;
    }
    return oldest < 0 ? -1 : g->slot[oldest].stage;
}

// The stage is done: its picture goes out, and on into the next stage.
static enum err finish_stage(struct engine *g, const struct post *to, int slot)
{
    struct slot *s = &g->slot[slot];
    struct stage *stage = g->stage[s->stage];
    const size_t size = (size_t)g->cascade.stage[s->stage].size;
    const bool last = s->stage + 1 == s->what.used.stages;
    const uint8_t *rgb;
    enum err e = stage_rgb(stage, s->entry, &rgb);

    if (e)
        return e;
    post(g, to, slot, ENGINE_STAGE, rgb, NULL);
    if (last) {
        post(g, to, slot, ENGINE_DONE, rgb, NULL);
        stage_leave(stage, s->entry);
        free_slot(s);
        return ERR_OK;
    }
    free(s->picture);
    s->picture = malloc(3 * size * size * sizeof *s->picture);
    e = s->picture ? stage_picture(stage, s->entry, s->picture) : ERR_NO_MEMORY;
    if (e)
        return e;
    stage_leave(stage, s->entry);
    s->entry = -1;
    s->stage++;
    return ERR_OK;
}

static enum err report(struct engine *g, const struct post *to, int slot)
{
    struct slot *s = &g->slot[slot];
    struct stage *stage = g->stage[s->stage];
    const int done = stage_steps_done(stage, s->entry);
    const uint8_t *rgb;
    enum err e = ERR_OK;

    post(g, to, slot, ENGINE_STEP, NULL, NULL);
    if (s->what.previews && done < s->what.used.steps[s->stage]) {
        e = stage_preview(stage, s->entry, &rgb);
        if (!e)
            post(g, to, slot, ENGINE_PREVIEW, rgb, NULL);
    }
    if (!e && done == s->what.used.steps[s->stage])
        e = finish_stage(g, to, slot);
    return e;
}

enum err engine_step(struct engine *g, engine_event_fn *fn, void *ctx, struct fault *why)
{
    const struct post to = {.fn = fn, .ctx = ctx};
    enum err e = fill_stages(g, &to, why);
    int stage, count = 0, stepped[MAX_SLOTS];

    if (e)
        return e;
    stage = choose_stage(g);
    if (stage < 0)
        return ERR_OK;
    for (int i = 0; i < g->info.slots; i++) {
        const struct slot *s = &g->slot[i];
        if (s->used && s->entry >= 0 && s->stage == stage) {
            stepped[count] = i;
            g->entries[count++] = s->entry;
        }
    }
    const double began = clock_seconds();
    e = stage_step(g->stage[stage], g->entries, count);
    if (e)
        return fault_set(why, e, NULL, "a step of stage %d: %s", stage + 1, err_text(e));
    g->stats.steps[stage]++;
    g->stats.step_pictures[stage] += (uint64_t)count;
    g->stats.step_seconds[stage] += clock_seconds() - began;
    for (int i = 0; i < count; i++) {
        e = report(g, &to, stepped[i]);
        if (e)
            return fault_set(why, e, NULL, "the picture of stage %d: %s", stage + 1, err_text(e));
    }
    return ERR_OK;
}

// ---- looking ----------------------------------------------------------------------------------

const struct engine_info *engine_info(const struct engine *g)
{
    return &g->info;
}

void engine_stats(const struct engine *g, struct engine_stats *out)
{
    struct ops_memory m;

    ops_device_memory(g->dev, &m);
    *out = g->stats;
    out->device_bytes = m.used;
    out->device_peak_bytes = m.peak;
    text_cache_counts(g->text, &out->text_cache_hits, &out->text_cache_misses);
}

static int slowest_first(const void *a, const void *b)
{
    const struct ops_timing *x = a, *y = b;

    return (x->seconds < y->seconds) - (x->seconds > y->seconds);
}

static void profile_stage(struct engine *g, int i, struct buf *text)
{
    struct ops_timing t[MAX_TIMINGS];
    double flops;
    const int n = stage_timings(g->stage[i], t, MAX_TIMINGS, &flops);
    const double steps = (double)(g->stats.steps[i] - g->profiled[i].steps);
    const double wall = g->stats.step_seconds[i] - g->profiled[i].seconds;
    double device = 0;

    g->profiled[i].steps = g->stats.steps[i];
    g->profiled[i].seconds = g->stats.step_seconds[i];
    for (int k = 0; k < n; k++)
        device += t[k].seconds;
    if (!n || device <= 0 || steps <= 0)
        return;
    qsort(t, (size_t)n, sizeof *t, slowest_first);
    buf_printf(
        text,
        "%s: %.0f forwards of %.2f GFLOP, %.1f ms each; on the device %.1f ms, %.1f GFLOP/s; "
        "launching and waiting %.1f %%\n",
        g->cascade.stage[i].name, steps, flops / steps / 1e9, wall / steps * 1e3,
        device / steps * 1e3, flops / device / 1e9, 100 * (wall - device) / wall);
    for (int k = 0; k < n; k++)
        buf_printf(text, "  %-24s %6.0f calls a forward %9.3f ms %5.1f %%\n", t[k].name,
                   (double)t[k].calls / steps, t[k].seconds / steps * 1e3,
                   100 * t[k].seconds / device);
}

char *engine_profile(struct engine *g)
{
    struct buf text = {0};

    for (int i = 0; i < g->cascade.stages; i++)
        profile_stage(g, i, &text);
    return text.len ? buf_take(&text) : NULL;
}

enum err engine_devices(char **text, struct fault *why)
{
    return ops_device_list(text, why);
}

const char *engine_version(void)
{
    return IMAGEND_VERSION;
}
