// Slots and their contents: many prompts with a small text cache, old images beside new ones,
// cancelled and failed images, more images than a stage has entries.
#include "engine.h"
#include "model_folder.h"
#include "studio.h"
#include "test.h"
#include "text.h"

#include <stdlib.h>

#define STAGES_JSON                                                                                \
    "\"stages\":["                                                                                 \
    "{\"path\":\"base\",\"sampler\":\"ddpm\",\"steps\":4,\"guidance_scale\":3},"                   \
    "{\"path\":\"sr\",\"steps\":3,\"guidance_scale\":1,\"noise_level\":100}]"

static const char cascade_json[] =
    "{" STAGES_JSON ",\"presets\":{\"broken\":{\"stages\":[{\"path\":\"broken\"},{}]}}}";

#define PROMPT .prompt = "a photo of a kangaroo"

// ---- images that fail -------------------------------------------------------------------------

struct outcome {
    int failed, done;
    enum err code;
};

static void on_outcome(void *ctx, const struct engine_event *ev)
{
    struct outcome *o = ev->tag ? ev->tag : ctx;

    o->done += ev->type == ENGINE_DONE;
    o->failed += ev->type == ENGINE_FAILED;
    if (ev->type == ENGINE_FAILED) {
        o->code = ev->fault->code;
        CHECK_MSG(strstr(ev->fault->msg, "stage 1 (broken)") != NULL, "%s", ev->fault->msg);
    }
}

// More of them, one after the other, than there are places; a healthy one beside each.
static void test_broken(struct engine *g)
{
    struct picture_request bad = {PROMPT, .preset = "broken", .size = {BASE, BASE}, .steps = {2}},
                           good = {PROMPT, .seed = 5, .size = {BASE, BASE}, .steps = {2}};
    struct fault why = {0};

    for (int i = 0; i < 5; i++) {
        struct outcome b = {.failed = 0}, h = {.failed = 0};
        int slot;
        CHECK_MSG(!engine_admit(g, &bad, &b, &slot, &why), "%s", why.msg);
        CHECK_MSG(!engine_admit(g, &good, &h, &slot, &why), "%s", why.msg);
        for (int k = 0; k < 10 && engine_busy(g); k++)
            CHECK(!engine_step(g, on_outcome, NULL, &why));
        CHECK_MSG(b.failed == 1 && !b.done && b.code == ERR_NOT_FINITE, "image %d", i);
        CHECK(h.done == 1 && !h.failed);
        CHECK_INT(engine_busy(g), 0);
    }
}
// ---- places in a stage ------------------------------------------------------------------------

static void on_first(void *ctx, const struct engine_event *ev)
{
    void **first = ctx;

    if (ev->stage == 1 && !*first)
        *first = ev->tag;
}

// Images too large for two of them at once on a CPU: the oldest goes first, in whatever slot it is.
static void test_places(struct studio *s)
{
    static const char wide[] = "{\"stages\":[{\"path\":\"base\",\"steps\":1,\"guidance_scale\":1},"
                               "{\"path\":\"sr\",\"size\":736,\"steps\":1,\"guidance_scale\":1}]}";
    struct picture_request r = {PROMPT, .seed = 5};
    struct engine *g = NULL;
    struct fault why = {0};
    int tags[4], slots[4];
    void *first = NULL;

    model_folder_write("cascade.json", wide, sizeof wide - 1);
    CHECK_MSG(!engine_open(&(struct engine_params){.model = s->folder, .slots = 3}, &g, &why), "%s",
              why.msg);
    for (int i = 0; i < 3; i++)
        CHECK(!engine_admit(g, &r, &tags[i], &slots[i], &why));
    // The first slot is given again: the youngest image comes before the others there.
    CHECK_INT(engine_evict(g, slots[0]), ERR_OK);
    CHECK(!engine_admit(g, &r, &tags[3], &slots[3], &why));
    CHECK_INT(slots[3], slots[0]);
    for (int i = 0; i < 3 && !first; i++)
        CHECK_MSG(!engine_step(g, on_first, &first, &why), "%s", why.msg);
    CHECK(first == &tags[1]);
    engine_close(&g);
}
// More prompts than the cache of text states holds, one image at a time and in turn.
static void test_many_prompts(struct engine *g)
{
    enum { PROMPTS = 70 };
    struct picture_request r = {.seed = 9, .size = {BASE, BASE}, .steps = {1}};
    struct result alone, again;
    char prompt[32];

    for (int i = 0; i < PROMPTS; i++) {
        snprintf(prompt, sizeof prompt, "number %d of many", i);
        r.prompt = prompt;
        studio_draw_with(g, &r, i == PROMPTS - 1 ? &alone : &again);
    }
    // An engine that has seen nothing else gives the same, with the same storage and kernels.
    struct engine *fresh = NULL;
    struct fault why = {0};
    const struct engine_params p = {
        .model = model_folder(GOLDEN), .slots = 1, .dtype = "f32", .tune = "off"};
    CHECK_MSG(!engine_open(&p, &fresh, &why), "%s", why.msg);
    studio_draw_with(fresh, &r, &again);
    CHECK(!memcmp(alone.rgb, again.rgb, 3 * BASE * BASE));
    engine_close(&fresh);
}
// ---- turns ------------------------------------------------------------------------------------

// New images keep arriving in the first stage; the old one in the second must come to its end.
static void test_no_starvation(struct engine *g)
{
    struct picture_request old = {PROMPT, .seed = 1, .steps = {1, 6}};
    struct picture_request young = {PROMPT, .seed = 2, .size = {BASE, BASE}, .steps = {3}};
    struct result r = {.done = 0}, ignored = {.done = 0};
    struct fault why = {0};
    int slot, steps = 0;

    CHECK(!engine_admit(g, &old, &r, &slot, &why));
    for (; steps < 40 && !r.done; steps++) {
        while (engine_free(g))
            CHECK(!engine_admit(g, &young, &ignored, &slot, &why));
        CHECK(!engine_step(g, studio_event, NULL, &why));
    }
    // Its own steps, since it is the oldest all the time.
    CHECK_INT(steps, 7);
    for (int i = 0; i < 100 && engine_busy(g); i++)
        CHECK(!engine_step(g, studio_event, NULL, &why));
}

// A cancelled image gives its place in the stage back, in either stage, as often as one likes.
static void test_evictions(struct engine *g)
{
    struct picture_request r = {PROMPT, .seed = 3, .steps = {2, 2}};
    struct result before, after;
    struct fault why = {0};
    int slot;

    studio_draw_with(g, &r, &before);
    for (int i = 0; i < 20; i++) {
        struct result ignored;
        CHECK_MSG(!engine_admit(g, &r, &ignored, &slot, &why), "%s", why.msg);
        for (int k = 0; k < i % 4; k++)
            CHECK(!engine_step(g, studio_event, NULL, &why));
        CHECK_INT(engine_evict(g, slot), ERR_OK);
        CHECK_INT(engine_busy(g), 0);
    }
    studio_draw_with(g, &r, &after);
    CHECK(!memcmp(before.rgb, after.rgb, RGB));
}

// ---- the cache of texts -----------------------------------------------------------------------

// With room for two: the one that was used last stays.
static void test_cache(struct studio *s)
{
    static const struct {
        const char *prompt;
        bool hit;
    } said[] = {{"a", false}, {"b", false}, {"a", true}, {"c", false}, {"a", true},
                {"c", true},  {"b", false}, {"c", true}, {"a", false}, {"A ", true}};
    struct text *text = studio_text(s);
    struct fault why = {0};
    uint64_t hits = 0, misses = 0;

    for (size_t i = 0; text && i < sizeof said / sizeof *said; i++) {
        struct text_states states;
        uint64_t h, m;
        CHECK(!text_encode(text, said[i].prompt, &states, &why));
        text_cache_counts(text, &h, &m);
        CHECK_MSG(h - hits == said[i].hit && m - misses == !said[i].hit, "prompt %zu", i);
        hits = h;
        misses = m;
    }
    text_close(&text);
}

int main(void)
{
    struct studio s = {.dev = NULL};
    struct engine *g = NULL;
    struct fault why = {0};

    snprintf(s.folder, sizeof s.folder, "%s", model_folder(GOLDEN));
    model_folder_network("broken", false);
    model_folder_break("broken/unet/diffusion_pytorch_model.safetensors");
    model_folder_write("cascade.json", cascade_json, sizeof cascade_json - 1);
    const struct engine_params p = {.model = s.folder, .slots = 3, .dtype = "f32", .tune = "off"};
    if (engine_open(&p, &g, &why)) {
        fprintf(stderr, "%s\n", why.msg);
        return why.code == ERR_NO_DEVICE ? test_skip(why.msg) : 1;
    }
    if (ops_device_open(&(struct ops_open_params){.dtype = "f32"}, &s.dev, &why)) {
        fprintf(stderr, "%s\n", why.msg);
        return 1;
    }
    RUN(test_cache(&s));
    RUN(test_many_prompts(g));
    RUN(test_no_starvation(g));
    RUN(test_evictions(g));
    RUN(test_broken(g));
    engine_close(&g);
    if (ops_device_info(s.dev)->cpu)
        RUN(test_places(&s));
    ops_device_close(&s.dev);
    return test_end();
}
