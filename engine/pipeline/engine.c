// The public interface: slots that carry images through the stages of the cascade, one forward pass
// per engine_step. Called by the server's worker and the command line; see engine.h for the thread
// rules. network.c loads networks, stage.c samples one stage, text.c encodes prompts.
#include "engine.h"

#include "buf.h"
#include "cascade.h"
#include "clock.h"
#include "engine_priv.h"
#include "enlarge.h"
#include "network.h"
#include "program.h"
#include "resident.h"
#include "slot.h"
#include "trace.h"
#include "turns.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    CPU_SLOTS = 4,
    GPU_SLOTS = 8,
    MAX_SLOTS = 256,
    TEXT_CACHE = 64,
};
_Static_assert(CASCADE_MAX_PRESETS == PICTURE_MAX_PRESETS + 1,
               "the cascade also stores its own settings as preset 0");

struct engine {
    struct ops_device *dev;
    struct cascade cascade;
    struct text *text[CASCADE_MAX_TEXTS];          // by index into cascade.text
    struct network *network[CASCADE_MAX_NETWORKS]; // NULL: not loaded yet
    struct model_info info;
    struct residents residents;
    size_t limit; // of memory, as opened
    struct turns turns;
    struct slot *slot;
    int *entries; // scratch of engine_step
    uint64_t admitted;
    struct engine_stats stats;
};

// ---- opening ----------------------------------------------------------------------------------

// folder: a buffer of CASCADE_PATH bytes. NULL: there is no such folder.
static const char *cache_folder(const struct engine_params *p, char *folder)
{
    if (p->cache_dir)
        return p->cache_dir;
    return program_user_folder("XDG_CACHE_HOME", ".cache", folder, CASCADE_PATH) ? folder : NULL;
}

static enum err open_device(const struct engine_params *p, struct engine *g, struct fault *why)
{
    char folder[CASCADE_PATH];
    const char *cache = cache_folder(p, folder);
    enum err e;

    e = ops_device_open(
        &(struct ops_open_params){
            .device = p->device,
            .cache_dir = cache,
            .memory_limit = p->memory_limit,
            .validation = p->validation,
            .profile = p->profile,
            .dtype = p->dtype,
            .weights = p->weights,
            .tune = p->tune,
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

static enum err open_text(const struct engine_params *p, struct engine *g, int index,
                          struct fault *why)
{
    const struct cascade_text *t = &g->cascade.text[index];
    char dir[CASCADE_PATH + 8];
    struct weights_params w = cascade_weights(&g->cascade, CASCADE_TEXT, index, dir);
    char folder[CASCADE_PATH], disk[CASCADE_PATH + 8];
    const char *cache = cache_folder(p, folder);

    w.stored = !p->weights;
    w.room = resident_text_room(&g->residents, index);
    if (p->text_cache && !cache)
        return fault_set(why, ERR_INVALID, "text-cache",
                         "text-cache needs a folder, but there is neither a cache-dir nor a home");
    snprintf(disk, sizeof disk, "%s/text", cache ? cache : "");

    return text_open(
        &(struct text_params){
            .dev = g->dev,
            .tokenizer_dir = t->tokenizer_dir,
            .weights = &w,
            .config = &t->config,
            .dtype = ops_device_info(g->dev)->dtype,
            .cached = TEXT_CACHE,
            .disk_dir = p->text_cache ? disk : NULL,
            .disk_limit = p->text_cache,
            .lazy = !resident_keeps_text(&g->residents, index),
        },
        &g->text[index], why);
}

// loras: as network_params.loras.
static enum err load_network(struct engine *g, int index, const struct cascade_loras *loras,
                             struct fault *why)
{
    const struct text *text = g->text[g->cascade.network[index].text];

    resident_make_room(&g->residents);
    return network_load(
        &(struct network_params){
            .dev = g->dev,
            .cascade = &g->cascade,
            .index = index,
            .text_length = (uint32_t)text_length(text),
            .text_dim = (uint32_t)text_dim(text),
            .slots = (uint32_t)g->info.slots,
            .room = resident_network_room(&g->residents, index),
            .loras = loras,
        },
        &g->network[index], why);
}

// Loads the stages' own networks. A network that only a preset uses is loaded when the preset is
// first requested, but its files are checked now. The largest images come first, because their
// activations leave room for all others.
static enum err load_networks(struct engine *g, struct fault *why)
{
    enum err e = ERR_OK;

    for (int i = g->cascade.networks - 1; !e && i >= 0; i--)
        e = i < g->cascade.stages ? load_network(g, i, NULL, why)
                                  : network_check(&g->cascade, i, NULL, why);
    return e;
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
    const struct cascade_files files = cascade_files_of(p);
    e = cascade_read(&files, &g->cascade, why);
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
    g->turns = (struct turns){&g->cascade, g->slot, g->info.slots, g->network};
    g->residents.text = g->text;
    g->residents.network = g->network;
    e = resident_plan(
        &g->residents,
        &(struct measure_params){
            .dev = g->dev, .cascade = &g->cascade, .slots = g->info.slots, .stored = !p->weights},
        p->memory_limit, why);
    g->limit = g->residents.limit;
    if (!e && p->whole && !resident_is_whole(&g->residents))
        e = fault_set(why, ERR_NO_DEVICE_MEMORY, "memory-limit",
                      "%zu MB are too few to keep the whole model in memory", g->limit / 1000000);
    if (!e && p->shared)
        engine_set_memory_limit(g, resident_need(&g->residents));
    for (int i = 0; !e && i < g->cascade.texts; i++) {
        e = open_text(p, g, i, why);
        if (!e)
            text_set_room(g->text[i], resident_make_room, &g->residents);
    }
    if (!e)
        e = load_networks(g, why);
    if (e)
        goto fail;
    request_describe(&g->cascade, &g->info);
    if (!*g->info.notice)
        snprintf(g->info.notice, sizeof g->info.notice, "%s", ops_device_info(g->dev)->notice);
    for (int i = 0; i < g->cascade.texts; i++)
        g->info.text_parameters += text_parameters(g->text[i]);
    for (int i = 0; i < g->cascade.stages; i++)
        g->info.stage[i].parameters = network_parameters(g->network[i]);
    *out = g;
    return ERR_OK;
fail:
    if (e == ERR_NO_DEVICE_MEMORY && g->dev && why && strcmp(why->param, "memory-limit") != 0)
        resident_explain(g->dev, why);
    engine_close(&g);
    return e;
}

void engine_close(struct engine **out)
{
    struct engine *g = *out;

    if (!g)
        return;
    for (int i = 0; g->slot && i < g->info.slots; i++)
        slot_free(&g->slot[i]);
    for (int i = 0; i < CASCADE_MAX_NETWORKS; i++)
        network_destroy(&g->network[i]);
    for (int i = 0; i < g->cascade.texts; i++)
        text_close(&g->text[i]);
    ops_device_close(&g->dev);
    cascade_deinit(&g->cascade);
    free(g->slot);
    free(g->entries);
    free(g);
    *out = NULL;
}

// ---- admitting --------------------------------------------------------------------------------

enum err engine_resolve(const struct engine *g, const struct picture_request *r,
                        struct picture_used *out, struct fault *why)
{
    struct resolved what;
    enum err e = request_check(&g->cascade, r, &what, why);

    if (!e)
        *out = what.used;
    return e;
}

enum err engine_check(const struct engine *g, const struct picture_request *r, struct fault *why)
{
    struct resolved what;

    return request_check(&g->cascade, r, &what, why);
}

static enum err need_networks(struct engine *g, const struct resolved *what, struct fault *why)
{
    enum err e = ERR_OK;

    for (int i = what->used.first; !e && i < what->used.stages; i++) {
        const int index = what->preset->stage[i].network;
        const struct text *text = g->text[g->cascade.network[index].text];
        if (!request_is_square(&g->cascade, what, i))
            e = resident_shape(&g->residents, index, text, &what->size[i], why);
        if (e)
            return e;
        if (!g->network[index])
            e = load_network(g, index, &what->loras[i], why);
    }
    if (e == ERR_NO_DEVICE_MEMORY && why)
        resident_explain(g->dev, why);
    return e;
}

enum err engine_admit(struct engine *g, const struct picture_request *r, void *tag, int *slot,
                      struct fault *why)
{
    struct slot s = {.used = true, .tag = tag, .entry = -1};
    int i = 0;
    enum err e;

    while (i < g->info.slots && g->slot[i].used)
        i++;
    if (i == g->info.slots)
        return fault_set(why, ERR_BUSY, NULL, "all slots are in use");
    e = request_resolve(&g->cascade, r, &s.what, why);
    if (!e)
        e = request_samplers(&g->cascade, r, &s.what, s.sampler, why);
    if (!e)
        e = need_networks(g, &s.what, why);
    if (!e)
        e = slot_encode(&s, &g->cascade, g->text, r, why);
    resident_release_texts(&g->residents);
    if (!e)
        e = slot_take_edit(&s, &g->cascade, r->edit, why);
    if (e) {
        slot_free(&s);
        return e;
    }
    s.order = g->admitted++;
    g->slot[i] = s;
    *slot = i;
    return ERR_OK;
}

const struct picture_used *engine_used(const struct engine *g, int slot)
{
    return &g->slot[slot].what.used;
}

enum err engine_evict(struct engine *g, int slot)
{
    if (slot < 0 || slot >= g->info.slots || !g->slot[slot].used)
        return ERR_NOT_FOUND;
    if (g->slot[slot].entry >= 0)
        stage_leave(turns_stage_of(&g->turns, &g->slot[slot]), g->slot[slot].entry);
    slot_free(&g->slot[slot]);
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
    const struct check_size *size = &s->what.size[s->stage];
    const int steps = picture_steps(&s->what.used, s->stage);
    struct engine_event ev = {
        .type = type,
        .slot = slot,
        .tag = s->tag,
        .stage = s->stage,
        .stages = s->what.used.stages,
        .steps = steps,
        .image = {.width = size->width, .height = size->height, .rgb = rgb},
        .fault = fault,
    };

    if (s->enlarge) {
        enlarge_image(s->enlarge, &ev.image.width, &ev.image.height);
        ev.step = enlarge_done(s->enlarge) * s->steps;
    }
    if (s->entry >= 0)
        ev.step += stage_steps_done(turns_stage_of(&g->turns, s), s->entry);
    if (type == ENGINE_STAGE) {
        ev.stage_seconds = clock_seconds() - s->stage_began;
        trace_span("stage", s->stage_began, slot, "stage %d, %d steps", s->stage + 1, steps);
    }
    to->fn(to->ctx, &ev);
}

struct ops_device *engine_device(const struct engine *g)
{
    return g->dev;
}

// Whether the error concerns the device and therefore every image.
static bool is_fatal(enum err e)
{
    return e == ERR_DEVICE_LOST || e == ERR_NO_DEVICE_MEMORY || e == ERR_TIMEOUT;
}

// Assigns free entries of the stages to waiting images, oldest first.
static enum err fill_stages(struct engine *g, const struct post *to, struct fault *why)
{
    for (;;) {
        const int next = turns_enter(&g->turns);
        if (next < 0)
            return ERR_OK;
        struct fault fault = {.code = ERR_OK};
        struct slot *s = &g->slot[next];
        enum err e =
            network_shape(g->network[turns_network_of(s)], &s->what.size[s->stage], &fault);
        const bool shaped = !e;
        if (shaped)
            e = slot_enter(s, &g->cascade, g->text, turns_stage_of(&g->turns, s), &fault);
        if (is_fatal(e) && (shaped || e != ERR_NO_DEVICE_MEMORY))
            return fault_set(why, e, NULL, "starting a stage: %s", ops_device_why(g->dev, e));
        if (e) {
            if (!fault.code)
                fault_set(&fault, e, NULL, "starting a stage: %s", ops_device_why(g->dev, e));
            post(g, to, next, ENGINE_FAILED, NULL, &fault);
            slot_free(&g->slot[next]);
        }
    }
}

// Finishes a tile. After the last one, delivers the enlarged image and passes it to the next stage.
static enum err finish_tile(struct engine *g, const struct post *to, int slot)
{
    struct slot *s = &g->slot[slot];
    const uint8_t *rgb;
    int width, height;
    enum err e = stage_rgb(turns_stage_of(&g->turns, s), s->entry, &rgb);

    if (e)
        return e;
    enlarge_put(s->enlarge, rgb);
    stage_leave(turns_stage_of(&g->turns, s), s->entry);
    s->entry = -1;
    if (!enlarge_is_done(s->enlarge))
        return ERR_OK;
    rgb = enlarge_image(s->enlarge, &width, &height);
    post(g, to, slot, ENGINE_STAGE, rgb, NULL);
    if (s->stage + 1 == s->what.used.stages) {
        post(g, to, slot, ENGINE_DONE, rgb, NULL);
        slot_free(s);
        return ERR_OK;
    }
    s->stage++;
    return slot_enlarge(s, &g->cascade, rgb, width, height);
}

// Finishes a stage: delivers its image and passes it to the next stage.
static enum err finish_stage(struct engine *g, const struct post *to, int slot)
{
    struct slot *s = &g->slot[slot];
    struct stage *stage = turns_stage_of(&g->turns, s);
    const struct check_size *size = &s->what.size[s->stage];
    const size_t values = 3 * (size_t)size->width * (size_t)size->height;
    const bool last = s->stage + 1 == s->what.used.stages;
    const uint8_t *rgb;
    enum err e = stage_rgb(stage, s->entry, &rgb);

    if (e)
        return e;
    post(g, to, slot, ENGINE_STAGE, rgb, NULL);
    if (last) {
        post(g, to, slot, ENGINE_DONE, rgb, NULL);
        stage_leave(stage, s->entry);
        slot_free(s);
        return ERR_OK;
    }
    free(s->picture);
    s->picture = malloc(values * sizeof *s->picture);
    e = s->picture ? stage_picture(stage, s->entry, s->picture) : ERR_NO_MEMORY;
    if (e)
        return e;
    stage_leave(stage, s->entry);
    s->entry = -1;
    s->stage++;
    return ERR_OK;
}

// Fails an image that contains NaN or infinity; the others in its step are unaffected.
static void fail_not_finite(struct engine *g, const struct post *to, int slot)
{
    const struct slot *s = &g->slot[slot];
    struct stage *stage = turns_stage_of(&g->turns, s);
    const bool f16 = ops_device_info(g->dev)->dtype == DT_F16;
    struct fault fault;

    fault_set(&fault, ERR_NOT_FINITE, "model",
              "stage %d (%s) computed NaN or infinity in step %d of %d: its weights are damaged%s",
              s->stage + 1, g->cascade.network[turns_network_of(s)].name,
              stage_steps_done(stage, s->entry), s->steps,
              f16 ? " or overflow fp16; try dtype f32" : "; download them again");
    post(g, to, slot, ENGINE_FAILED, NULL, &fault);
    stage_leave(stage, s->entry);
    slot_free(&g->slot[slot]);
}

static enum err report(struct engine *g, const struct post *to, int slot)
{
    struct slot *s = &g->slot[slot];
    const int done = stage_steps_done(turns_stage_of(&g->turns, s), s->entry);

    if (!stage_is_finite(turns_stage_of(&g->turns, s), s->entry)) {
        fail_not_finite(g, to, slot);
        return ERR_OK;
    }
    post(g, to, slot, ENGINE_STEP, NULL, NULL);
    if (done < s->steps)
        return ERR_OK;
    const enum err e = s->enlarge ? finish_tile(g, to, slot) : finish_stage(g, to, slot);
    if (e != ERR_NOT_FINITE)
        return e;
    fail_not_finite(g, to, slot);
    return ERR_OK;
}

enum err engine_preview(struct engine *g, int slot, struct engine_image *out, struct fault *why)
{
    struct slot *s = slot >= 0 && slot < g->info.slots ? &g->slot[slot] : NULL;

    if (s && s->used && s->enlarge && enlarge_done(s->enlarge)) {
        out->rgb = enlarge_image(s->enlarge, &out->width, &out->height);
        return ERR_OK;
    }
    if (!s || !s->used || s->enlarge || s->entry < 0 ||
        !stage_steps_done(turns_stage_of(&g->turns, s), s->entry))
        return fault_set(why, ERR_NOT_FOUND, NULL, "slot %d has no step to preview", slot);
    enum err e = cascade_is_latent(&g->cascade, s->stage)
                     ? resident_wake(&g->residents, turns_network_of(s), NULL, why)
                     : ERR_OK;
    if (e)
        return e;
    e = stage_preview(turns_stage_of(&g->turns, s), s->entry, &out->rgb);
    if (e == ERR_NOT_FINITE) // a decoder may fail on an estimate whose image is fine
        return fault_set(why, ERR_NOT_FOUND, NULL, "the estimate of slot %d has no image", slot);
    if (e)
        return fault_set(why, e, NULL, "rendering a preview of stage %d: %s", s->stage + 1,
                         ops_device_why(g->dev, e));
    out->width = s->what.size[s->stage].width;
    out->height = s->what.size[s->stage].height;
    return ERR_OK;
}

// Loads the weights for a slot's image. Only this image fails if its LoRAs cannot be read; its slot
// is then free.
static enum err wake(struct engine *g, const struct post *to, int slot, struct fault *why)
{
    const struct slot *s = &g->slot[slot];
    const struct cascade_loras *loras = turns_loras_of(s);
    struct fault fault = {0};
    const enum err e = resident_wake(&g->residents, turns_network_of(s), loras, &fault);

    if (e && loras->count && !is_fatal(e)) {
        fault.code = ERR_INTERNAL; // not an error of the request
        post(g, to, slot, ENGINE_FAILED, NULL, &fault);
        engine_evict(g, slot);
        return ERR_OK;
    }
    if (e && why)
        *why = fault;
    return e;
}

enum err engine_step(struct engine *g, engine_event_fn *fn, void *ctx, struct fault *why)
{
    const struct post to = {.fn = fn, .ctx = ctx};
    const int first = turns_first(&g->turns);
    enum err e = first < 0 ? ERR_OK : wake(g, &to, first, why);
    int oldest, network, count = 0, stepped[MAX_SLOTS];
    double seconds;

    if (!e)
        e = fill_stages(g, &to, why);
    if (e)
        return e;
    oldest = turns_step(&g->turns);
    if (oldest < 0)
        return ERR_OK;
    network = turns_network_of(&g->slot[oldest]);
    struct stage *at = turns_stage_of(&g->turns, &g->slot[oldest]);
    if ((e = wake(g, &to, oldest, why)) || !g->slot[oldest].used)
        return e;
    for (int i = 0; i < g->info.slots; i++) {
        const struct slot *s = &g->slot[i];
        // Images of another size have a stage of their own; those with other LoRAs wait.
        if (s->used && s->entry >= 0 && turns_network_of(s) == network &&
            turns_stage_of(&g->turns, s) == at &&
            network_has(g->network[network], turns_loras_of(s))) {
            stepped[count] = i;
            g->entries[count++] = s->entry;
        }
    }
    const int stage = g->cascade.network[network].stage;
    e = network_step(g->network[network], at, g->entries, count, &seconds);
    if (e)
        return fault_set(why, e, NULL, "running a step of stage %d: %s", stage + 1,
                         ops_device_why(g->dev, e));
    g->stats.steps[stage]++;
    g->stats.step_pictures[stage] += (uint64_t)count;
    g->stats.step_seconds[stage] += seconds;
    for (int i = 0; i < count; i++) {
        e = report(g, &to, stepped[i]);
        if (e)
            return fault_set(why, e, NULL, "reading the image of stage %d: %s", stage + 1,
                             ops_device_why(g->dev, e));
    }
    return ERR_OK;
}

// ---- looking ----------------------------------------------------------------------------------

const struct model_info *engine_info(const struct engine *g)
{
    return &g->info;
}

void engine_set_memory_limit(struct engine *g, size_t bytes)
{
    resident_set_limit(&g->residents, bytes);
}

void engine_stats(const struct engine *g, struct engine_stats *out)
{
    struct ops_memory m;

    ops_device_memory(g->dev, &m);
    *out = g->stats;
    out->device_bytes = m.used;
    out->device_peak_bytes = m.peak;
    out->limit_bytes = g->limit;
    out->need_bytes = resident_need(&g->residents);
    for (int i = 0; i < g->cascade.texts; i++) {
        uint64_t hits, misses;
        text_cache_counts(g->text[i], &hits, &misses);
        out->text_cache_hits += hits;
        out->text_cache_misses += misses;
    }
}

char *engine_profile(struct engine *g)
{
    struct buf text = {0};

    for (int i = 0; i < g->cascade.networks; i++)
        if (g->network[i])
            network_profile(g->network[i], &text);
    return text.len ? buf_take(&text) : NULL;
}
