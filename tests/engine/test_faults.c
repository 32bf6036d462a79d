// A lost device and exhausted device memory are returned as errors by every call of a stage and of
// the text encoder, and everything can still be freed. An image that becomes NaN or infinite is
// detected at that step, and the others in its batch are unaffected.
#include "cascade.h"
#include "engine.h"
#include "engine_priv.h"
#include "ops_internal.h"
#include "stage.h"
#include "test.h"
#include "text.h"

#include <limits.h>
#include <stdlib.h>

struct rig {
    struct ops_device *dev;
    struct cascade cascade;
    struct text *text;
    struct denoiser *denoiser;
    struct stage *stage;
    int entry;
    bool lean;
    stage_noise_fn *noise; // NULL: the generator's
    void *noise_ctx;
};

enum { ENTRIES = 3, EDGE = 16, PICTURE = EDGE * EDGE * 3 };

static enum err load(struct rig *r)
{
    struct weights *w = NULL;
    char dir[CASCADE_PATH + 8];
    struct fault why = {0};
    enum err e =
        cascade_read(&(struct cascade_files){.model = GOLDEN "/if-tiny-I"}, &r->cascade, &why);

    snprintf(dir, sizeof dir, "%s/unet", r->cascade.network[0].dir);
    if (!e)
        e = text_open(
            &(struct text_params){
                .dev = r->dev,
                .tokenizer_dir = r->cascade.text[0].tokenizer_dir,
                .weights = &(struct weights_params){.dir = r->cascade.text[0].dir, .base = "model"},
                .config = &r->cascade.text[0].config,
                .dtype = DT_F32,
                .cached = 2,
            },
            &r->text, &why);
    if (!e)
        e = weights_open(&(struct weights_params){.dir = dir, .base = "diffusion_pytorch_model"},
                         &w, &why);
    if (!e)
        e = denoiser_load(r->dev, &r->cascade.network[0].denoiser, w, DT_F32, &r->denoiser, &why);
    weights_close(&w);
    if (!e)
        e = stage_create(
            &(struct stage_params){
                .dev = r->dev,
                .denoiser = r->denoiser,
                .dtype = DT_F32,
                .height = EDGE,
                .width = EDGE,
                .entries = ENTRIES,
                .lean = r->lean,
                .text_length = (uint32_t)text_length(r->text),
                .text_dim = (uint32_t)text_dim(r->text),
                .noise = r->noise,
                .noise_ctx = r->noise_ctx,
            },
            &r->stage);
    return e;
}

static void unload(struct rig *r)
{
    stage_destroy(&r->stage);
    denoiser_destroy(&r->denoiser);
    text_close(&r->text);
    ops_device_close(&r->dev);
}

static enum err try_device(struct rig *r, struct fault *why)
{
    memset(r, 0, sizeof *r);
    return ops_device_open(&(struct ops_open_params){.dtype = "f32"}, &r->dev, why);
}

// Nothing can be tested without it.
static void open_device(struct rig *r)
{
    struct fault why = {0};

    CHECK_MSG(!try_device(r, &why), "%s", why.msg);
    if (!r->dev)
        exit(test_end());
}

static enum err encode(struct rig *r, const char *prompt, struct text_states *states)
{
    struct fault why = {0};
    enum err e = text_encode(r->text, prompt, states, &why);

    if (e)
        CHECK_STR(why.msg, "encoding the prompt: vkQueueSubmit: VK_ERROR_DEVICE_LOST");
    return e;
}

static enum err enter(struct rig *r, const float *states)
{
    struct sampler *sampler = NULL;
    struct fault why = {0};
    enum err e = sampler_create(
        &(struct sampler_params){.config = &r->cascade.network[0].scheduler, .steps = 3}, &sampler,
        &why);

    return e ? e
             : stage_enter(r->stage,
                           &(struct stage_start){
                               .sampler = sampler,
                               .text = states,
                               .negative = states,
                               .guidance = 2,
                               .guidance_interval = {0, INT_MAX},
                           },
                           &r->entry, &why);
}

// Everything up to the first step, with the device failing at one point.
enum point { AT_ENCODE, AT_ENTER, AT_STEP, AT_PICTURE, NOWHERE };

static void inject(struct rig *r, enum point at, enum point here)
{
    if (at == here)
        vk_fault_inject(r->dev->vk, VK_FAULT_SUBMIT, 1);
}

static void test_lost(enum point at)
{
    const enum err lost = ERR_DEVICE_LOST;
    struct text_states states = {0};
    const uint8_t *rgb;
    struct rig r;

    open_device(&r);
    CHECK_INT(load(&r), ERR_OK);
    inject(&r, at, AT_ENCODE);
    CHECK_INT(encode(&r, "a cat", &states), at == AT_ENCODE ? lost : ERR_OK);
    if (at > AT_ENCODE) {
        inject(&r, at, AT_ENTER);
        CHECK_INT(enter(&r, states.v), at == AT_ENTER ? lost : ERR_OK);
    }
    if (at > AT_ENTER) {
        inject(&r, at, AT_STEP);
        CHECK_INT(stage_step(r.stage, &r.entry, 1), at == AT_STEP ? lost : ERR_OK);
        CHECK_INT(stage_steps_done(r.stage, r.entry), at == AT_STEP ? 0 : 1);
    }
    if (at > AT_STEP) {
        inject(&r, at, AT_PICTURE);
        CHECK_INT(stage_rgb(r.stage, r.entry, &rgb), at == AT_PICTURE ? lost : ERR_OK);
    }
    unload(&r);
}

static void count_event(void *ctx, const struct engine_event *ev)
{
    int *count = ctx;

    ++*count;
}

// A device that is lost while an image enters a stage is an error of the engine, not of that image:
// the server then draws every image again.
static void test_lost_as_an_image_enters(void)
{
    const struct engine_params p = {.model = GOLDEN "/if-tiny-I", .slots = 2};
    const struct picture_request request = {.prompt = "a cat"};
    struct engine *g = NULL;
    struct fault why = {0};
    int slot, events = 0;

    CHECK_INT(engine_open(&p, &g, &why), ERR_OK);
    if (!g)
        return;
    CHECK_INT(engine_admit(g, &request, NULL, &slot, &why), ERR_OK);
    vk_fault_inject(engine_device(g)->vk, VK_FAULT_SUBMIT, 1);
    CHECK_INT(engine_step(g, count_event, &events, &why), ERR_DEVICE_LOST);
    CHECK_STR(why.msg, "starting a stage: vkQueueSubmit: VK_ERROR_DEVICE_LOST");
    CHECK_INT(events, 0);
    engine_close(&g);
}

// Memory runs out at the n-th allocation after the device is open, early, late and in between.
static void test_memory(void)
{
    bool loaded = false;
    int failures = 0;

    for (int n = 1; n < 10000; n += 1 + n / 3) {
        struct rig r;
        open_device(&r);
        vk_fault_inject(r.dev->vk, VK_FAULT_MEMORY, n);
        const enum err e = load(&r);
        vk_fault_inject(r.dev->vk, VK_FAULT_MEMORY, 0);
        if (e)
            CHECK_STR(ops_device_why(r.dev, e), "vkAllocateMemory: VK_ERROR_OUT_OF_DEVICE_MEMORY");
        unload(&r);
        loaded = !e;
        if (loaded)
            break;
        CHECK_INT(e, ERR_NO_DEVICE_MEMORY);
        failures++;
    }
    CHECK(failures > 10);
    CHECK(loaded);
}

// ---- NaN and infinity -------------------------------------------------------------------------

// One element of one entry's noise is bad: of its start (step 0) or of a step, counted from 1.
struct bad_noise {
    int entry, step;
    float value;
};

static void noise(void *ctx, int entry, enum stage_noise kind, int step, float *z)
{
    const struct bad_noise *bad = ctx;
    const int at = kind == STAGE_NOISE_STEP ? step + 1 : 0;
    uint32_t state = 1 + (uint32_t)at;

    for (int i = 0; i < PICTURE; i++) {
        state = state * 1664525u + 1013904223u;
        z[i] = (float)(state >> 8) * 0x1p-23F - 1;
    }
    if (entry == bad->entry && at == bad->step)
        z[PICTURE / 2] = bad->value;
}

// An image that failed leaves nothing to the next one in its place.
static void test_after_failure(void)
{
    struct bad_noise bad = {.entry = 0, .step = 0, .value = NAN};
    struct text_states states;
    struct rig r;

    open_device(&r);
    r.noise = noise;
    r.noise_ctx = &bad;
    CHECK_INT(load(&r), ERR_OK);
    CHECK_INT(encode(&r, "a cat", &states), ERR_OK);
    for (int i = 0; i < 2; i++) {
        CHECK_INT(enter(&r, states.v), ERR_OK);
        CHECK_INT(r.entry, 0);
        CHECK_INT(stage_step(r.stage, &r.entry, 1), ERR_OK);
        CHECK(stage_is_finite(r.stage, r.entry) == (i > 0));
        stage_leave(r.stage, r.entry);
        bad.entry = -1;
    }
    unload(&r);
}

// A stage that saves memory takes no sampler that adds noise or looks back further than one step.
static void test_lean(void)
{
    static const char *const names[] = {"ddim", "dpm++2m", "ddpm", "dpm++3m", "dpm++sde"};
    struct text_states states;
    struct rig r;

    open_device(&r);
    r.lean = true;
    CHECK_INT(load(&r), ERR_OK);
    CHECK_INT(encode(&r, "a cat", &states), ERR_OK);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct sampler *sampler = NULL;
        struct fault why = {0};
        const struct sampler_params p = {
            .config = &r.cascade.network[0].scheduler, .name = names[i], .steps = 20};
        CHECK_INT(sampler_create(&p, &sampler, &why), ERR_OK);
        const enum err e = stage_enter(r.stage,
                                       &(struct stage_start){.sampler = sampler,
                                                             .text = states.v,
                                                             .guidance = 1,
                                                             .guidance_interval = {0, INT_MAX}},
                                       &r.entry, &why);
        CHECK_MSG(e == (i < 2 ? ERR_OK : ERR_UNSUPPORTED), "%s", names[i]);
        CHECK_STR(why.param, i < 2 ? "" : "sampler");
    }
    unload(&r);
}

// Samples with `entries` images in the stage; out: the images; finite: per entry and step.
static void draw(struct bad_noise *bad, int entries, float (*out)[PICTURE], bool (*finite)[3])
{
    struct rig r;
    struct text_states states;
    int entry[ENTRIES] = {0};

    open_device(&r);
    r.noise = noise;
    r.noise_ctx = bad;
    CHECK_INT(load(&r), ERR_OK);
    CHECK_INT(encode(&r, "a cat", &states), ERR_OK);
    for (int i = 0; i < entries; i++) {
        CHECK_INT(enter(&r, states.v), ERR_OK);
        entry[i] = r.entry;
    }
    for (int step = 0; step < 3; step++) {
        CHECK_INT(stage_step(r.stage, entry, entries), ERR_OK);
        for (int i = 0; i < entries; i++)
            finite[i][step] = stage_is_finite(r.stage, entry[i]);
    }
    for (int i = 0; i < entries; i++)
        CHECK_INT(stage_picture(r.stage, entry[i], out[i]), ERR_OK);
    unload(&r);
}

static void test_finite(void)
{
    static const struct bad_noise rows[] = {
        {-1, 0, 0}, {1, 0, NAN}, {0, 0, INFINITY}, {2, 1, NAN}, {1, 2, -INFINITY}};
    static float good[1][PICTURE], picture[ENTRIES][PICTURE];
    bool finite[ENTRIES][3];

    draw(&(struct bad_noise){.entry = -1}, 1, good, finite);
    CHECK(finite[0][0] && finite[0][1] && finite[0][2]);
    for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
        struct bad_noise bad = rows[k];
        draw(&bad, ENTRIES, picture, finite);
        for (int i = 0; i < ENTRIES; i++) {
            const int first = bad.step ? bad.step - 1 : 0;
            for (int step = 0; step < 3; step++)
                CHECK_MSG(finite[i][step] == (i != bad.entry || step < first),
                          "row %zu, entry %d, step %d", k, i, step);
            if (i != bad.entry)
                CHECK_MSG(!memcmp(picture[i], good[0], sizeof good[0]), "row %zu, entry %d", k, i);
        }
    }
}

int main(void)
{
    struct fault why = {0};
    struct rig r;

    if (try_device(&r, &why))
        return test_skip(why.msg);
    ops_device_close(&r.dev);
    for (enum point at = AT_ENCODE; at <= NOWHERE; at++)
        RUN(test_lost(at));
    RUN(test_lost_as_an_image_enters());
    RUN(test_memory());
    RUN(test_finite());
    RUN(test_after_failure());
    RUN(test_lean());
    return test_end();
}
