// Presets on a tiny cascade: their settings, that another network is loaded at first use and really
// used, that its images are bit-equal in any batch, and that a lack of memory for it costs no other
// image.
#include "buf.h"
#include "engine.h"
#include "model_folder.h"
#include "test.h"

#include <stdlib.h>

enum { SIZE = 64, RGB = 3 * SIZE * SIZE };

#define STAGES                                                                                     \
    "\"stages\":[{\"path\":\"base\",\"sampler\":\"ddpm\",\"steps\":5,\"guidance_scale\":3},"       \
    "{\"path\":\"sr\",\"steps\":3,\"guidance_scale\":1,\"noise_level\":100}]"

// "same" is base's own weights behind a DDIM scheduler; "fast" has other weights.
static const char cascade_json[] =
    "{" STAGES ",\"presets\":{"
    "\"fast\":{\"stages\":[{\"path\":\"fast\",\"steps\":3,\"guidance_scale\":1},{\"steps\":1}]},"
    "\"same\":{\"stages\":[{\"path\":\"base-same\",\"steps\":3,\"guidance_scale\":1},"
    "{\"steps\":1,\"sampler\":\"dpm++2m\"}]},"
    "\"never\":{\"stages\":[{\"guidance_interval\":[1000,2000]},{}]},"
    "\"partly\":{\"stages\":[{\"guidance_interval\":[200,500]},{}]},"
    "\"listed\":{\"stages\":[{\"timesteps\":[666,333,0]},{}]},"
    "\"late\":{\"stages\":[{\"timesteps\":[600,300,100]},{}]}}}";

enum {
    OWN,
    DDIM,
    SAME,
    DDIM_GUIDED,
    SAME_GUIDED,
    FAST,
    FAST_GUIDED,
    FAST_STEPS,
    NEVER,
    PARTLY,
    DDPM,
    LISTED,
    LATE,
    LATE_STEPS,
    LATE_NAMED,
    LATE_FEWER,
    LATE_DDIM,
    FEWER,
    PICTURES
};
#define DRAW .prompt = "a photo of a kangaroo", .seed = 11, .picture = 2
static const struct picture_request requests[PICTURES] = {
    [OWN] = {DRAW},
    [DDIM] = {DRAW, .sampler = "ddim", .steps = {3}, .guidance_scale = {1}, .size = {16, 16}},
    [SAME] = {DRAW, .preset = "same", .size = {16, 16}},
    [DDIM_GUIDED] = {DRAW, .sampler = "ddim", .steps = {3}, .guidance_scale = {4.5F},
                     .negative_prompt = "blurry", .size = {16, 16}},
    [SAME_GUIDED] = {DRAW, .preset = "same", .guidance_scale = {4.5F}, .negative_prompt = "blurry",
                     .size = {16, 16}},
    [FAST] = {DRAW, .preset = "fast"},
    [FAST_GUIDED] = {DRAW, .preset = "fast", .guidance_scale = {2}, .negative_prompt = "blurry"},
    [FAST_STEPS] = {DRAW, .preset = "fast", .steps = {4, 2}, .sampler = "dpm++2m"},
    [NEVER] = {DRAW, .preset = "never", .sampler = "ddim", .steps = {3}, .guidance_scale = {4.5F},
               .negative_prompt = "blurry", .size = {16, 16}},
    [PARTLY] = {DRAW, .preset = "partly", .sampler = "ddim", .steps = {3}, .guidance_scale = {4.5F},
                .negative_prompt = "blurry", .size = {16, 16}},
    [DDPM] = {DRAW, .steps = {3}, .size = {16, 16}},
    [LISTED] = {DRAW, .preset = "listed", .size = {16, 16}},
    [LATE] = {DRAW, .preset = "late", .size = {16, 16}},
    [LATE_STEPS] = {DRAW, .preset = "late", .steps = {3}, .size = {16, 16}},
    [LATE_NAMED] = {DRAW, .preset = "late", .sampler = "ddpm", .steps = {3}, .size = {16, 16}},
    [LATE_FEWER] = {DRAW, .preset = "late", .steps = {2}, .size = {16, 16}},
    [LATE_DDIM] = {DRAW, .preset = "late", .sampler = "ddim", .guidance_scale = {1},
                   .size = {16, 16}},
    [FEWER] = {DRAW, .steps = {2}, .size = {16, 16}},
};

struct result {
    uint8_t rgb[RGB];
    int width, steps, done;
};

static void on_event(void *ctx, const struct engine_event *ev)
{
    struct result *r = (struct result *)ctx + (intptr_t)ev->tag;

    r->steps += ev->type == ENGINE_STEP;
    CHECK(ev->type != ENGINE_FAILED);
    if (ev->type != ENGINE_DONE)
        return;
    r->done++;
    r->width = ev->image.width;
    CHECK(ev->image.width <= SIZE);
    memcpy(r->rgb, ev->image.rgb, (size_t)(3 * r->width * r->width));
}

static int admit(struct engine *g, int i)
{
    struct fault why = {0};
    int slot = -1;

    CHECK_MSG(!engine_admit(g, &requests[i], (void *)(intptr_t)i, &slot, &why), "%s", why.msg);
    return slot;
}

static void step(struct engine *g, struct result *r)
{
    struct fault why = {0};

    CHECK_MSG(!engine_step(g, on_event, r, &why), "%s", why.msg);
}

static void finish(struct engine *g, struct result *r)
{
    for (int i = 0; i < 100 && engine_busy(g); i++)
        step(g, r);
    CHECK_INT(engine_busy(g), 0);
}

static bool same(const struct result *a, const struct result *b)
{
    return a->done == 1 && b->done == 1 && a->width == b->width &&
           !memcmp(a->rgb, b->rgb, (size_t)(3 * a->width * a->width));
}

static struct engine *open_engine(void)
{
    struct engine *g = NULL;
    struct fault why = {0};
    const struct engine_params p = {.model = model_folder(GOLDEN), .slots = 4};

    if (engine_open(&p, &g, &why)) {
        fprintf(stderr, "%s\n", why.msg);
        exit(why.code == ERR_NO_DEVICE ? test_skip(why.msg) : 1);
    }
    return g;
}

static void test_info(struct engine *g)
{
    const struct model_info *info = engine_info(g);
    struct picture_used used;
    struct fault why = {0};

    CHECK_INT(info->presets, 6);
    CHECK_STR(info->preset[0].name, "fast");
    CHECK_STR(info->preset[0].sampler, "ddim");
    CHECK(info->preset[0].steps[0] == 3 && info->preset[0].steps[1] == 1);
    CHECK(info->preset[0].guidance_scale[0] == 1);
    CHECK(info->stage[0].steps == 5 && info->stage[1].steps == 3);

    CHECK_INT(engine_resolve(g, &requests[OWN], &used, &why), ERR_OK);
    CHECK_STR(used.preset, "");
    CHECK(used.steps[0] == 5 && used.steps[1] == 3);
    CHECK_INT(engine_resolve(g, &requests[FAST], &used, &why), ERR_OK);
    CHECK_STR(used.preset, "fast");
    CHECK_STR(used.sampler, "ddim");
    CHECK(used.steps[0] == 3 && used.steps[1] == 1 && used.guidance_scale[0] == 1);
    CHECK_INT(used.noise_level[1], 100);
    // Explicit settings override the preset.
    CHECK_INT(engine_resolve(g, &requests[FAST_STEPS], &used, &why), ERR_OK);
    CHECK_STR(used.sampler, "dpm++2m");
    CHECK(used.steps[0] == 4 && used.steps[1] == 2 && used.guidance_scale[0] == 1);
    struct picture_request r = {
        .prompt = "a", .preset = "fast", .sampler = "ddpm", .timesteps = "fast27"};
    CHECK_INT(engine_resolve(g, &r, &used, &why), ERR_OK);
    CHECK(used.steps[0] == 27 && used.steps[1] == 1);

    r = (struct picture_request){.prompt = "a", .preset = "slow"};
    CHECK_INT(engine_check(g, &r, &why), ERR_INVALID);
    CHECK_STR(why.param, "preset");
    CHECK(strstr(why.msg, "fast, same, never, partly") != NULL);
    int slot;
    CHECK_INT(engine_admit(g, &r, NULL, &slot, &why), ERR_INVALID);
    CHECK_INT(engine_busy(g), 0);
}

static void test_alone(struct engine *g, struct result *alone)
{
    for (int i = 0; i < PICTURES; i++) {
        struct picture_used used;
        struct fault why = {0};
        admit(g, i);
        finish(g, alone);
        CHECK_INT(alone[i].done, 1);
        CHECK_INT(engine_resolve(g, &requests[i], &used, &why), ERR_OK);
        CHECK_INT(alone[i].steps, used.steps[0] + (used.stages > 1 ? used.steps[1] : 0));
    }
    // The same weights in another network give the same bits: noise belongs to the stage.
    CHECK(same(&alone[DDIM], &alone[SAME]));
    CHECK(same(&alone[DDIM_GUIDED], &alone[SAME_GUIDED]));
    CHECK(!same(&alone[DDIM], &alone[DDIM_GUIDED]));
    CHECK(!same(&alone[FAST], &alone[FAST_GUIDED]));
    // Outside of its interval guidance does nothing.
    CHECK(same(&alone[NEVER], &alone[DDIM]));
    CHECK(!same(&alone[PARTLY], &alone[DDIM]));
    CHECK(!same(&alone[PARTLY], &alone[DDIM_GUIDED]));
    CHECK(!same(&alone[FAST], &alone[OWN]));
    // A recommended list runs as it is; with another number of steps or sampler there is none.
    CHECK(same(&alone[LISTED], &alone[DDPM]));
    CHECK(!same(&alone[LATE], &alone[DDPM]));
    CHECK(same(&alone[LATE_STEPS], &alone[LATE]));
    CHECK(same(&alone[LATE_NAMED], &alone[LATE]));
    CHECK(same(&alone[LATE_FEWER], &alone[FEWER]));
    CHECK(same(&alone[LATE_DDIM], &alone[DDIM]));
}

// Base networks side by side, joining and leaving between steps; super-resolution shared.
static void test_company(struct engine *g, const struct result *alone)
{
    static const int sets[][4] = {{OWN, FAST, FAST_GUIDED, SAME},
                                  {FAST, SAME_GUIDED, FAST_STEPS, OWN},
                                  {OWN, PARTLY, DDIM_GUIDED, NEVER}};
    struct result *r = calloc(PICTURES, sizeof *r);

    for (size_t k = 0; r && k < sizeof sets / sizeof *sets; k++) {
        memset(r, 0, PICTURES * sizeof *r);
        admit(g, sets[k][0]);
        step(g, r);
        admit(g, sets[k][1]);
        const int left = admit(g, DDIM);
        step(g, r);
        CHECK_INT(engine_evict(g, left), ERR_OK);
        admit(g, sets[k][2]);
        admit(g, sets[k][3]);
        finish(g, r);
        for (int i = 0; i < 4; i++)
            CHECK_MSG(same(&r[sets[k][i]], &alone[sets[k][i]]), "picture %d", sets[k][i]);
    }
    free(r);
}

// The smallest limit, in steps of half a megabyte, with which the cascade's own pictures are drawn.
static struct engine *open_smallest(size_t limit)
{
    struct result *r = calloc(PICTURES, sizeof *r);
    struct engine *g = NULL;
    enum err e = ERR_NO_DEVICE_MEMORY;

    for (; r && e && limit < (1 << 27); limit += 1 << 19) {
        const struct engine_params p = {
            .model = model_folder(GOLDEN), .slots = 4, .memory_limit = limit};
        struct fault why = {0};
        int slot;
        engine_close(&g);
        e = engine_open(&p, &g, &why);
        if (!e)
            e = engine_admit(g, &requests[OWN], NULL, &slot, &why);
        while (!e && engine_busy(g))
            e = engine_step(g, on_event, r, &why);
        CHECK(!e || e == ERR_NO_DEVICE_MEMORY);
    }
    CHECK(!e);
    free(r);
    return g;
}

// Device memory for one network at a time, with many that are asked for in turn: each is loaded in
// place of another, also while an image is in progress, which does not change.
static void test_memory(const struct result *alone, size_t used)
{
    char json[2048] = "{" STAGES ",\"presets\":{", *end = json + strlen(json);
    struct result *r = calloc(PICTURES, sizeof *r);
    struct fault why = {0};

    for (int i = 0; i < PICTURE_MAX_PRESETS; i++) {
        char name[16];
        snprintf(name, sizeof name, "other-%d", i);
        model_folder_network(name, true);
        end += sprintf(end, "%s\"p%d\":{\"stages\":[{\"path\":\"%s\"},{}]}", i ? "," : "", i, name);
    }
    strcpy(end, "}}");
    model_folder_write("cascade.json", json, strlen(json));
    struct engine *g = open_smallest(used);
    if (g) {
        admit(g, OWN);
        step(g, r);
    }
    for (int i = 0; g && i < PICTURE_MAX_PRESETS; i++) {
        const char preset[] = {'p', (char)('0' + i), 0};
        const struct picture_request request = {.prompt = "a", .preset = preset};
        int slot;
        CHECK_MSG(!engine_admit(g, &request, NULL, &slot, &why), "%s", why.msg);
        CHECK_INT(engine_evict(g, slot), ERR_OK);
    }
    if (g)
        finish(g, r);
    CHECK(same(&r[OWN], &alone[OWN]));
    engine_close(&g);
    free(r);
}

// A network that is only needed later must be whole from the start.
static void test_missing(void)
{
    struct engine *g = NULL;
    struct fault why = {0};

    model_folder_write("base-same/unet/diffusion_pytorch_model.safetensors", "", 0);
    CHECK_INT(engine_open(&(struct engine_params){.model = model_folder(GOLDEN)}, &g, &why),
              ERR_FORMAT);
    CHECK(g == NULL);
}

int main(void)
{
    struct result *alone = calloc(PICTURES, sizeof *alone);
    struct engine *g;
    struct engine_stats before, after;

    model_folder(GOLDEN);
    model_folder_network("fast", true);
    model_folder_network("base-same", false);
    model_folder_write("cascade.json", cascade_json, sizeof cascade_json - 1);
    g = open_engine();
    engine_stats(g, &before);
    RUN(test_info(g));
    test_alone(g, alone);
    engine_stats(g, &after);
    CHECK(after.device_peak_bytes > before.device_peak_bytes); // not loaded before
    RUN(test_company(g, alone));
    engine_close(&g);
    RUN(test_missing());
    RUN(test_memory(alone, before.device_bytes));
    free(alone);
    return test_end();
}
