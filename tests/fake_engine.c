// engine.h without a device: deterministic images in microseconds, for all tests of the server.
// Linked in place of the engine. It aborts when misused: called from two threads, with a request
// that should have been refused, or for a slot that is not in use. Environment:
//   FAKE_STEP_MS     duration of one step
//   FAKE_SLOTS       default number of slots
//   FAKE_OPEN_FAILS  number of opens that fail at first, with FAKE_OPEN_ERROR (no_device)
//   FAKE_PRESETS     0: none
//   FAKE_PARTS       1: a safety checker and watermarkers
//   FAKE_SHAPES      multiple of the sides of shapes that are not square (0: only squares)
//   FAKE_HELD        a file: while it exists, opening fails, and images stop at the step number
//                    that it contains (empty: 0)
//   FAKE_FAULT       message of a failed open or image
//   FAKE_PREVIEWS    a file that gets a line for each rendered preview
//   FAKE_SEEN        a file that gets a line of JSON for each open and each admitted image
//   FAKE_BROKEN      a file: while it exists, models with "fragile" in their path cannot be opened
// A model with "NUMBERm" in its path needs this many MB of the memory limit, or 1. One with "small"
// has two stages and no presets.
// Words in a prompt cause errors; CODE is an error name of err.h, or omitted for the one shown:
//   [fail CODE]      the image fails in its second step (not_finite)
//   [refuse CODE]    the image is not admitted (no_memory)
//   [lose CODE]      the image loses the engine, once per process (device_lost)
//   [lose always]    the image loses the engine every time
//   [lose preview]   rendering a preview loses the engine, once per process
//   [slow]           each step of the image takes a tenth of a second
//   [hang]           the image makes no progress
//   [grow]           the image needs twice the memory that its model needed when it was opened
#include "engine.h"

#include "fake_asked.h"
#include "fake_seen.h"
#include "picture_edit.h"
#include "utf8.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    FAKE_TOKENS = 77,
    FAKE_STAGES = 3,
    FAKE_MAX_SLOTS = 64,
    FAKE_HELD_MS = 5,
    FAKE_SLOW_MS = 100
};

static const int fake_sizes[FAKE_STAGES] = {64, 256, 1024};
static const int fake_steps[FAKE_STAGES] = {8, 4, 2};
static const struct model_preset fake_preset = {
    .name = "fast", .sampler = "ddim", .steps = {3, 2, 1}, .guidance_scale = {1, 1, 1}};
static const char *const fake_samplers[] = {
    "ddpm",    "ddim",           "dpm++2m",  "dpm++2m-karras",
    "dpm++3m", "dpm++3m-karras", "dpm++sde", "dpm++sde-karras",
    NULL};
static const char *const fake_timesteps[] = {"fast27", "smart50", NULL};

struct fake_slot {
    bool used;
    void *tag;
    uint64_t hash;
    struct picture_used with;
    int stage, step;
    double seconds;
    enum err fails, loses;
    bool loses_always, loses_in_preview, slow, hangs;
};

struct engine {
    struct model_info info;
    struct engine_stats stats;
    struct fake_slot slot[FAKE_MAX_SLOTS];
    double step_ms;
    uint8_t *rgb;
    char *prompt; // of the last picture taken in
    size_t limit; // of memory, as set last
    bool grown;   // by a prompt with [grow]
    bool named;   // by engine_params
    pthread_t thread;
    bool lost;
};

static atomic_int fake_opens, fake_losses;

static void fake_on_thread(const struct engine *e)
{
    fake_demand(pthread_equal(e->thread, pthread_self()), "called from two threads");
    fake_demand(!e->lost, "used after it was lost");
}

// The memory that a model needs: "dir/300m" is 300 MB.
static size_t fake_need(const struct engine_params *p)
{
    for (const char *s = p->model; *s; s++) {
        const size_t digits = strspn(s, "0123456789");
        if (digits && s[digits] == 'm')
            return (size_t)atoi(s) << 20;
        s += digits ? digits - 1 : 0;
    }
    return 1 << 20;
}

// Adds those of a list of FILE[:SCALE], each for the next stage.
static void fake_add_loras(const char *list, bool applied, struct model_info *i)
{
    for (const char *s = list; s && *s && i->loras < PICTURE_KNOWN_LORAS; s += strcspn(s, ",")) {
        s += *s == ',';
        const char *end = s + strcspn(s, ":,"), *name = end;
        while (name > s && name[-1] != '/')
            name--;
        struct model_lora *l = &i->lora[i->loras];
        snprintf(l->name, sizeof l->name, "%.*s",
                 (int)(end - name - (ptrdiff_t)strlen(".safetensors")), name);
        l->scale = *end == ':' ? atof(end + 1) : 1;
        l->stage = i->loras++ % i->stages;
        l->applied = applied;
    }
}

static void fake_describe(const struct engine_params *p, struct model_info *i)
{
    const bool small = strstr(p->model, "small");
    snprintf(i->name, sizeof i->name, "%s", p->name ? p->name : "fake");
    snprintf(i->device, sizeof i->device, "no device");
    snprintf(i->driver, sizeof i->driver, "none");
    snprintf(i->dtype, sizeof i->dtype, "f32");
    i->slots = p->slots ? p->slots : (int)fake_env("FAKE_SLOTS", 4);
    if (i->slots > FAKE_MAX_SLOTS)
        i->slots = FAKE_MAX_SLOTS;
    i->stages = small ? FAKE_STAGES - 1 : FAKE_STAGES;
    i->samplers = fake_samplers;
    i->timesteps = fake_timesteps;
    i->text_parameters = 1000;
    i->sizes = (struct picture_sizes){.stages = i->stages, .step = (int)fake_env("FAKE_SHAPES", 0)};
    memcpy(i->sizes.edge, fake_sizes, sizeof fake_sizes);
    i->scale[0] = 4;
    i->scale[1] = small ? 0 : 16;
    i->presets = !small && fake_env("FAKE_PRESETS", 1) > 0;
    i->preset[0] = fake_preset;
    for (int s = 0; s < FAKE_STAGES; s++) {
        struct model_stage *g = &i->stage[s];
        snprintf(g->name, sizeof g->name, "stage-%d", s + 1);
        snprintf(g->sampler, sizeof g->sampler, "%s", fake_samplers[0]);
        g->size = fake_sizes[s];
        g->steps = fake_steps[s];
        g->guidance_scale = s ? 4 : 7;
        g->noise_level = s ? 250 : -1;
        g->parameters = 1000;
        g->watermarker = s && fake_env("FAKE_PARTS", 0) > 0;
    }
    i->stage[0].safety_checker = fake_env("FAKE_PARTS", 0) > 0;
    fake_add_loras(p->lora, true, i);
    fake_add_loras(p->lora_choices, false, i);
}

static enum err fake_model(const struct engine_params *p, struct fault *why)
{
    if (p->model && strstr(p->model, "missing"))
        return fault_set(why, ERR_NOT_FOUND, "model", "there is no model in %s", p->model);
    return ERR_OK;
}

// A "wordy" model has the vocabulary of its folder.
static enum err fake_words(const struct engine_params *p, const struct vocabulary **out,
                           struct fault *why)
{
    return strstr(p->model, "wordy") ? vocabulary_read(p->model, out, why) : ERR_OK;
}

// Fails where only reading the weights, or asking for memory, can.
static enum err fake_load(const struct engine_params *p, struct fault *why)
{
    const char *broken = getenv("FAKE_BROKEN");
    FILE *f = broken && strstr(p->model, "fragile") ? fopen(broken, "r") : NULL;
    if (f)
        fclose(f);
    if (f)
        return fault_set(why, ERR_FORMAT, "model", "the weights are damaged");
    if (p->memory_limit && fake_need(p) > p->memory_limit)
        return fault_set(why, ERR_NO_DEVICE_MEMORY, "memory-limit",
                         "the memory limit of %zu MB is too small", p->memory_limit >> 20);
    return ERR_OK;
}

enum err engine_open(const struct engine_params *p, struct engine **out, struct fault *why)
{
    *out = NULL;
    const char *name = getenv("FAKE_OPEN_ERROR");
    const enum err code = name && *name ? fake_code(name, strlen(name)) : ERR_NO_DEVICE;
    fake_demand(p->model && *p->model && p->slots >= 0, "opened without a model");
    fake_see_open(p);
    if (atomic_fetch_add(&fake_opens, 1) < (int)fake_env("FAKE_OPEN_FAILS", 0))
        return fault_set(why, code, "device", "%s", fake_fault(err_text(code)));
    const struct vocabulary *words = NULL;
    if (fake_model(p, why) || fake_load(p, why) || fake_words(p, &words, why))
        return why->code;
    while (fake_held() >= 0)
        fake_sleep(FAKE_HELD_MS);
    struct engine *e = calloc(1, sizeof *e);
    if (!e)
        return fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    e->thread = pthread_self();
    e->step_ms = fake_env("FAKE_STEP_MS", 0);
    e->named = p->name;
    e->stats.need_bytes = fake_need(p);
    e->stats.limit_bytes = p->memory_limit ? p->memory_limit : (size_t)1 << 30;
    e->limit = p->shared ? e->stats.need_bytes : e->stats.limit_bytes;
    fake_describe(p, &e->info);
    e->info.vocabulary = words;
    *out = e;
    return ERR_OK;
}

void engine_close(struct engine **e)
{
    if (!*e)
        return;
    fake_demand(pthread_equal((*e)->thread, pthread_self()), "closed by another thread");
    vocabulary_unref(&(*e)->info.vocabulary);
    free((*e)->rgb);
    free((*e)->prompt);
    free(*e);
    *e = NULL;
}

// Of an image that is enlarged: its stages and size.
static enum err fake_scale(const struct picture_request *r, struct picture_used *out,
                           struct fault *why)
{
    if (r->scale != 4 && r->scale != 16)
        return fault_set(why, ERR_INVALID, "scale", "scale %d must be 4 or 16", r->scale);
    out->scale = r->scale;
    out->first = r->scale == 16 || r->edit->width < fake_sizes[1] ? 1 : 2;
    out->stages = r->scale == 16 ? FAKE_STAGES : out->first + 1;
    out->drawn = (struct check_size){r->edit->width * r->scale, r->edit->height * r->scale};
    out->size = r->size.width ? r->size : out->drawn;
    return ERR_OK;
}

// As the engine does it, without its checks of what stands beside an input image.
static enum err fake_edit(const struct engine *e, const struct picture_request *r,
                          struct picture_used *out, struct fault *why)
{
    const int largest = fake_sizes[e->info.stages - 1];
    if (!r->edit && (r->scale || r->strength[0] != 0))
        return fault_set(why, ERR_INVALID, r->scale ? "scale" : "strength",
                         "%s needs an input image", r->scale ? "scale" : "strength");
    if (!r->edit)
        return picture_choose(&e->info.sizes, &r->size, out, why);
    if (r->scale)
        return fake_scale(r, out, why);
    const struct check_size own = {r->edit->width, r->edit->height}, any = {0, 0};
    const bool asked = r->size.width && !r->edit->masked;
    const bool larger = !asked && (own.width > largest || own.height > largest);
    enum err err = picture_choose(&e->info.sizes, &own, out, larger ? NULL : why);
    if (err && larger)
        err = picture_choose(&e->info.sizes, &any, out, why);
    if (err)
        return err;
    out->size = own;
    if (!r->edit->masked)
        out->size = picture_fit_size(out, &out->drawn);
    for (int s = 0; s < out->stages; s++)
        out->strength[s] = r->strength[s] != 0 ? r->strength[s] : s || r->edit->masked ? 1 : 0.7F;
    return ERR_OK;
}

enum err engine_resolve(const struct engine *e, const struct picture_request *r,
                        struct picture_used *out, struct fault *why)
{
    memset(out, 0, sizeof *out);
    if (!r->prompt || strlen(r->prompt) > PICTURE_MAX_PROMPT)
        return fault_set(why, ERR_INVALID, "prompt", "prompt is longer than %d bytes",
                         PICTURE_MAX_PROMPT);
    enum err err = fake_edit(e, r, out, why);
    if (!err)
        err = picture_check_stages(r, out->stages, why);
    if (err)
        return err;
    const bool fast = r->preset;
    if (fast && (!e->info.presets || strcmp(r->preset, fake_preset.name)))
        return fault_set(why, ERR_INVALID, "preset", "there is no preset \"%s\"", r->preset);
    const char *sampler = r->sampler ? r->sampler : fast ? fake_preset.sampler : fake_samplers[0];
    bool known = false;
    for (int i = 0; fake_samplers[i]; i++)
        known |= !strcmp(sampler, fake_samplers[i]);
    if (!known)
        return fault_set(why, ERR_INVALID, "sampler", "unknown sampler \"%s\"", sampler);
    for (int i = 0; r->timesteps && (!i || strcmp(r->timesteps, fake_timesteps[i - 1])); i++)
        if (!fake_timesteps[i])
            return fault_set(why, ERR_INVALID, "timesteps", "unknown timesteps \"%s\"",
                             r->timesteps);
    struct picture_loras loras;
    err = picture_choose_loras(e->info.lora, e->info.loras, &r->loras, &loras, why);
    if (err)
        return err;
    picture_list_loras(e->info.lora, &loras, out);
    snprintf(out->model, sizeof out->model, "%s", e->info.name);
    snprintf(out->preset, sizeof out->preset, "%s", fast ? fake_preset.name : "");
    snprintf(out->sampler, sizeof out->sampler, "%s", out->first ? "" : sampler);
    for (int s = 0; s < out->first; s++)
        out->noise_level[s] = -1;
    for (int s = out->first; s < out->stages; s++) {
        if (r->steps[s] < 0 || r->steps[s] > PICTURE_MAX_STEPS)
            return fault_set(why, ERR_INVALID, "steps", "steps must be 1 to %d", PICTURE_MAX_STEPS);
        out->steps[s] = r->steps[s] ? r->steps[s] : fast ? fake_preset.steps[s] : fake_steps[s];
        out->run[s] = out->steps[s];
        if (out->strength[s] != 0)
            out->run[s] = (int)((float)out->steps[s] * out->strength[s] + 1e-4F);
        if (!out->run[s])
            return fault_set(why, ERR_INVALID, "strength", "strength %g leaves no step to run",
                             (double)out->strength[s]);
        const float g = r->guidance_scale[s];
        out->guidance_scale[s] = g != 0 ? g
                                 : fast ? fake_preset.guidance_scale[s]
                                        : e->info.stage[s].guidance_scale;
        out->noise_level[s] = r->set_noise_level && r->noise_level[s] >= 0
                                  ? r->noise_level[s]
                                  : e->info.stage[s].noise_level;
    }
    if (e->info.vocabulary)
        vocabulary_miss(e->info.vocabulary, r->prompt, out->nearest);
    return ERR_OK;
}

void engine_set_memory_limit(struct engine *e, size_t bytes)
{
    fake_on_thread(e);
    fake_demand(bytes >= e->stats.need_bytes, "its memory limit is below what it needs");
    e->limit = bytes;
}

struct engine_plan {
    struct engine e;
};

enum err engine_plan_open(const struct engine_params *p, struct engine_plan **out,
                          struct fault *why)
{
    *out = NULL;
    const struct vocabulary *words = NULL;
    if (fake_model(p, why) || fake_words(p, &words, why))
        return why->code;
    *out = calloc(1, sizeof **out);
    if (!*out)
        return fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    fake_describe(p, &(*out)->e.info);
    (*out)->e.info.vocabulary = words;
    return ERR_OK;
}

void engine_plan_info(const struct engine_plan *p, struct model_info *out)
{
    *out = p->e.info;
    out->slots = 0;
    *out->device = *out->driver = *out->dtype = 0;
}

enum err engine_plan_resolve(const struct engine_plan *p, const struct picture_request *r,
                             struct picture_used *out, struct fault *why)
{
    return engine_resolve(&p->e, r, out, why);
}

void engine_plan_close(struct engine_plan **p)
{
    if (*p)
        vocabulary_unref(&(*p)->e.info.vocabulary);
    free(*p);
    *p = NULL;
}

enum err engine_check(const struct engine *e, const struct picture_request *r, struct fault *why)
{
    struct picture_used used;
    return engine_resolve(e, r, &used, why);
}

static uint64_t fake_hash(uint64_t h, const char *s)
{
    for (; s && *s; s++)
        h = (h ^ (unsigned char)*s) * 0x100000001b3u;
    return h;
}

// One token per word, and one for the end; as many as IF's text encoder reads.
static void fake_count(const char *s, int *read, int *cut)
{
    int n = s != NULL;
    for (; s && *s; s++)
        n += *s != ' ' && (s[1] == ' ' || !s[1]);
    *read = n < FAKE_TOKENS ? n : FAKE_TOKENS;
    *cut = n - *read;
}

// Checks everything that earlier layers must have refused or filled in.
static void fake_check(const struct engine *e, const struct picture_request *r, const void *tag)
{
    const char *const texts[] = {r->prompt, r->negative_prompt ? r->negative_prompt : ""};
    for (int i = 0; i < 2; i++) {
        fake_demand(texts[i] && strlen(texts[i]) <= PICTURE_MAX_PROMPT, "the text is too long");
        fake_demand(utf8_valid(texts[i], strlen(texts[i]), NULL), "the text is not UTF-8");
    }
    fake_demand(r->picture >= 0, "no such number");
    for (int i = 0; i < e->info.slots; i++)
        fake_demand(!e->slot[i].used || e->slot[i].tag != tag, "taken in twice");
}

// Every setting except the size determines the image.
static uint64_t fake_settings(const struct picture_request *r, const struct picture_used *used)
{
    uint64_t h = fake_hash(
        0xcbf29ce484222325u ^ (r->seed + (uint64_t)r->picture) * 0x9e3779b97f4a7c15u, r->prompt);
    h = fake_hash(h, r->negative_prompt);
    h = fake_hash(h, used->sampler);
    h = fake_hash(h, r->timesteps);
    h = fake_hash(h, used->loras);
    const int stages[] = {used->steps[0], (int)(used->guidance_scale[0] * 64)};
    for (size_t i = 0; i < sizeof stages / sizeof stages[0]; i++)
        h = (h ^ (uint64_t)stages[i]) * 0x100000001b3u;
    return h;
}

static void fake_take(struct engine *e, const struct picture_request *r, struct fake_slot *s)
{
    s->hash = fake_settings(r, &s->with);
    fake_count(r->prompt, &s->with.tokens, &s->with.tokens_cut);
    fake_count(r->negative_prompt, &s->with.negative_tokens, &s->with.negative_tokens_cut);
    s->fails = fake_asked(r->prompt, "fail", ERR_NOT_FINITE);
    s->loses = fake_asked(r->prompt, "lose", ERR_DEVICE_LOST);
    s->loses_always = strstr(r->prompt, "[lose always]");
    s->loses_in_preview = strstr(r->prompt, "[lose preview]");
    s->slow = strstr(r->prompt, "[slow]");
    s->hangs = strstr(r->prompt, "[hang]");
    if (e->prompt && !strcmp(e->prompt, r->prompt))
        e->stats.text_cache_hits++;
    else
        e->stats.text_cache_misses++;
    free(e->prompt);
    e->prompt = strdup(r->prompt);
}

enum err engine_admit(struct engine *e, const struct picture_request *r, void *tag, int *slot,
                      struct fault *why)
{
    struct picture_used used;
    fake_on_thread(e);
    fake_check(e, r, tag);
    fake_see_request(e->named ? e->info.name : NULL, r);
    enum err err = engine_resolve(e, r, &used, why);
    if (err)
        return err;
    const bool grows = strstr(r->prompt, "[grow]") && !e->grown;
    if (grows && e->stats.need_bytes * 2 > e->limit)
        return fault_set(why, ERR_INVALID, "size", "the image does not fit the memory limit");
    e->stats.need_bytes *= grows ? 2 : 1;
    e->grown |= grows;
    err = fake_asked(r->prompt, "refuse", ERR_NO_MEMORY);
    if (err)
        return fault_set(why, err, "", "%s", err_text(err));
    for (int i = 0; i < e->info.slots; i++) {
        struct fake_slot *s = &e->slot[i];
        if (s->used)
            continue;
        *s = (struct fake_slot){.used = true, .tag = tag, .with = used, .stage = used.first};
        fake_take(e, r, s);
        *slot = i;
        return ERR_OK;
    }
    return fault_set(why, ERR_BUSY, "", "%s", err_text(ERR_BUSY));
}

// A colour gradient that the hash decides, under noise that the remaining steps decide.
static void fake_draw(struct engine *e, const struct fake_slot *s, struct engine_image *out)
{
    const struct check_size native = picture_stage_size(&e->info.sizes, &s->with, s->stage);
    int w = native.width, h = native.height;
    const int left = picture_steps(&s->with, s->stage) - s->step;
    if (s->with.scale) {
        const int less = fake_sizes[s->with.stages - 1] / fake_sizes[s->stage];
        w = s->with.drawn.width / less;
        h = s->with.drawn.height / less;
    }
    e->rgb = realloc(e->rgb, (size_t)w * (size_t)h * 3);
    if (!e->rgb)
        abort();
    uint32_t noise = (uint32_t)s->hash | 1;
    uint8_t *p = e->rgb;
    for (int y = 0; y < h; y++) {
        for (int x = 0; x < w; x++) {
            for (int c = 0; c < 3; c++) {
                const int base = (int)(s->hash >> (c * 8) & 0xff);
                const int v = (base + (c == 0 ? x : c == 1 ? y : x + y) * 128 / w) & 0xff;
                noise = noise * 1664525u + 1013904223u;
                *p++ = (uint8_t)(left ? (v + (int)(noise >> 24)) / 2 : v);
            }
        }
    }
    *out = (struct engine_image){w, h, e->rgb};
}

static void fake_post(struct engine *e, int slot, enum engine_event_type type, engine_event_fn *fn,
                      void *ctx, const struct fault *fault)
{
    struct fake_slot *s = &e->slot[slot];
    struct engine_event ev = {
        .type = type,
        .slot = slot,
        .tag = s->tag,
        .stage = s->stage,
        .stages = s->with.stages,
        .step = s->step,
        .steps = picture_steps(&s->with, s->stage),
        .stage_seconds = s->seconds,
        .fault = fault,
    };
    if (type == ENGINE_STAGE || type == ENGINE_DONE)
        fake_draw(e, s, &ev.image);
    if (type == ENGINE_DONE || type == ENGINE_FAILED)
        s->used = false;
    fn(ctx, &ev);
}

static void fake_advance(struct engine *e, int slot, engine_event_fn *fn, void *ctx)
{
    struct fake_slot *s = &e->slot[slot];
    s->step++;
    s->seconds += e->step_ms * 1e-3;
    if (s->fails && s->step == 2) {
        struct fault f;
        fault_set(&f, s->fails, "", "%s",
                  fake_fault(s->fails == ERR_NOT_FINITE ? "the picture became not a number"
                                                        : err_text(s->fails)));
        fake_post(e, slot, ENGINE_FAILED, fn, ctx, &f);
        return;
    }
    fake_post(e, slot, ENGINE_STEP, fn, ctx, NULL);
    if (s->step < picture_steps(&s->with, s->stage))
        return;
    fake_post(e, slot, ENGINE_STAGE, fn, ctx, NULL);
    if (s->stage + 1 == s->with.stages) {
        fake_post(e, slot, ENGINE_DONE, fn, ctx, NULL);
        return;
    }
    s->stage++;
    s->step = 0;
    s->seconds = 0;
}

// Whether an image waits, because of FAKE_HELD or its prompt.
static bool fake_waits(const struct fake_slot *s, int held)
{
    return s->hangs || (held >= 0 && (s->stage || s->step >= held));
}

// Whether an image loses the engine now.
static enum err fake_lost(struct engine *e, bool preview, struct fault *why)
{
    for (int i = 0; i < e->info.slots; i++) {
        const struct fake_slot *s = &e->slot[i];
        const enum err once = preview ? (s->loses_in_preview ? ERR_DEVICE_LOST : ERR_OK) : s->loses;
        const bool always = !preview && s->loses_always;
        if (!s->used || (!always && (!once || atomic_exchange(&fake_losses, 1))))
            continue;
        e->lost = true;
        const enum err err = always ? ERR_DEVICE_LOST : once;
        return fault_set(why, err, "", "%s", err_text(err));
    }
    return ERR_OK;
}

enum err engine_step(struct engine *e, engine_event_fn *fn, void *ctx, struct fault *why)
{
    const int held = fake_held();
    double ms = e->step_ms;
    int stage = -1;
    fake_on_thread(e);
    for (int i = 0; i < e->info.slots; i++) {
        const struct fake_slot *s = &e->slot[i];
        if (s->used && !fake_waits(s, held) && s->stage > stage)
            stage = s->stage;
    }
    if (stage < 0) {
        fake_demand(engine_busy(e), "asked for a step of nothing");
        fake_sleep(FAKE_HELD_MS);
        return ERR_OK;
    }
    const enum err err = fake_lost(e, false, why);
    if (err)
        return err;
    for (int i = 0; i < e->info.slots; i++)
        if (e->slot[i].used && e->slot[i].slow)
            ms = FAKE_SLOW_MS;
    fake_sleep(ms);
    e->stats.steps[stage]++;
    e->stats.step_seconds[stage] += ms * 1e-3;
    for (int i = 0; i < e->info.slots; i++) {
        const struct fake_slot *s = &e->slot[i];
        if (!s->used || s->stage != stage || fake_waits(s, held))
            continue;
        e->stats.step_pictures[stage]++;
        fake_advance(e, i, fn, ctx);
    }
    return ERR_OK;
}

enum err engine_preview(struct engine *e, int slot, struct engine_image *out, struct fault *why)
{
    const struct fake_slot *s = &e->slot[slot];
    fake_on_thread(e);
    fake_demand(slot >= 0 && slot < e->info.slots && s->used, "asked to show an empty slot");
    const enum err err = fake_lost(e, true, why);
    if (err)
        return err;
    const char *path = getenv("FAKE_PREVIEWS");
    FILE *f = path ? fopen(path, "a") : NULL;
    if (!s->used || !s->step)
        fault_set(why, ERR_NOT_FOUND, "", "slot %d has no step to preview", slot);
    else
        fake_draw(e, s, out);
    if (f && s->used && s->step)
        fprintf(f, "%d %d\n", s->stage, s->step);
    if (f)
        fclose(f);
    return s->used && s->step ? ERR_OK : ERR_NOT_FOUND;
}

const struct picture_used *engine_used(const struct engine *e, int slot)
{
    fake_on_thread(e);
    return &e->slot[slot].with;
}

enum err engine_evict(struct engine *e, int slot)
{
    fake_on_thread(e);
    fake_demand(slot >= 0 && slot < e->info.slots && e->slot[slot].used,
                "asked to leave an empty slot");
    e->slot[slot].used = false;
    return ERR_OK;
}

int engine_busy(const struct engine *e)
{
    int n = 0;
    for (int i = 0; i < e->info.slots; i++)
        n += e->slot[i].used;
    return n;
}

int engine_free(const struct engine *e)
{
    return e->info.slots - engine_busy(e);
}

const struct model_info *engine_info(const struct engine *e)
{
    return &e->info;
}

void engine_stats(const struct engine *e, struct engine_stats *out)
{
    *out = e->stats;
    out->device_bytes = out->device_peak_bytes = e->stats.need_bytes;
}

char *engine_profile(struct engine *e)
{
    return NULL;
}

static enum err fake_text(const char *s, char **text, struct fault *why)
{
    *text = strdup(s);
    return *text ? ERR_OK : fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
}

enum err engine_inspect(const struct engine_params *p, char **text, struct fault *why)
{
    return fake_text("a fake cascade\n", text, why);
}

enum err engine_devices(char **text, struct fault *why)
{
    return fake_text("0: no device\n", text, why);
}
