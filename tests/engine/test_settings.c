// Every setting of a request reaches the pixels: the engine's images against images that this file
// draws by itself, with its own noise (Philox written out here), its own samplers per stage and a
// text encoder that has encoded nothing else. Only the networks and the arithmetic of one step are
// shared, which the golden suite compares with diffusers. Also: what a preview shows, that old
// images are not starved by new ones, and that a slot gives back everything it held.
#include "cascade.h"
#include "engine.h"
#include "model_folder.h"
#include "stage.h"
#include "test.h"
#include "text.h"
#include "weights.h"

#include <limits.h>
#include <stdlib.h>

enum { BASE = 16, SIZE = 64, RGB = 3 * SIZE * SIZE, STAGES = 2, LENGTH = 77 };

static const char cascade_json[] =
    "{\"stages\":["
    "{\"path\":\"base\",\"sampler\":\"ddpm\",\"steps\":4,\"guidance_scale\":3},"
    "{\"path\":\"sr\",\"steps\":3,\"guidance_scale\":1,\"noise_level\":100}],"
    "\"presets\":{"
    "\"other\":{\"stages\":[{\"path\":\"other\",\"steps\":3,\"guidance_scale\":1},{\"steps\":1}]},"
    "\"partly\":{\"stages\":[{\"guidance_interval\":[300,600]},{}]},"
    "\"listed\":{\"stages\":[{\"timesteps\":[900,500,20]},{}]},"
    "\"broken\":{\"stages\":[{\"path\":\"broken\"},{}]},"
    "\"solver\":{\"stages\":[{\"sampler\":\"dpm++2m\"},{\"sampler\":\"ddim\"}]}}}";

// Nothing in super-resolution that adds noise: on a CPU its stage saves memory.
static const char lean_json[] =
    "{\"stages\":["
    "{\"path\":\"base\",\"sampler\":\"ddpm\",\"steps\":4,\"guidance_scale\":3},"
    "{\"path\":\"sr\",\"sampler\":\"ddim\",\"steps\":3,\"guidance_scale\":1,\"noise_level\":100}]}";

static const char plain_ddim[] =
    "{\"_class_name\":\"DDIMScheduler\",\"beta_schedule\":\"squaredcos_cap_v2\",\"clip_sample\":"
    "true,"
    "\"clip_sample_range\":1.0,\"num_train_timesteps\":1000,\"prediction_type\":\"epsilon\","
    "\"set_alpha_to_one\":true,\"steps_offset\":0}";

// How one stage is to be sampled; zero: as cascade_json says, see complete.
struct how {
    const char *network; // folder
    const char *sampler; // NULL: the scheduler's own
    int steps;
    const char *named; // list of timesteps
    const int *timesteps;
    float guidance;
    int interval[2];
    int noise_level;
};

static const int listed[] = {900, 500, 20};

#define PROMPT .prompt = "a photo of a kangaroo"
static const struct {
    const char *what;
    struct picture_request r;
    struct how how[STAGES];
    bool same; // as the first row
} rows[] = {
    {"nothing", {PROMPT, .seed = 5}, {{0}, {0}}, true},
    {"seed", {PROMPT, .seed = 6}, {{0}, {0}}, false},
    {"upper half of the seed", {PROMPT, .seed = 5 | (uint64_t)1 << 40}, {{0}, {0}}, false},
    {"number of the image", {PROMPT, .seed = 5, .picture = 3}, {{0}, {0}}, false},
    {"prompt", {.prompt = "an oil painting of a red fox", .seed = 5}, {{0}, {0}}, false},
    {"negative prompt", {PROMPT, .seed = 5, .negative_prompt = "blurry"}, {{0}, {0}}, false},
    {"guidance", {PROMPT, .seed = 5, .guidance_scale = {7}}, {{.guidance = 7}, {0}}, false},
    {"guidance of super-resolution",
     {PROMPT, .seed = 5, .guidance_scale = {0, 2}},
     {{0}, {.guidance = 2}},
     false},
    {"no guidance", {PROMPT, .seed = 5, .guidance_scale = {1}}, {{.guidance = 1}, {0}}, false},
    {"interval of guidance",
     {PROMPT, .seed = 5, .preset = "partly"},
     {{.interval = {300, 600}}, {0}},
     false},
    {"steps", {PROMPT, .seed = 5, .steps = {6}}, {{.steps = 6}, {0}}, false},
    {"steps of super-resolution", {PROMPT, .seed = 5, .steps = {0, 2}}, {{0}, {.steps = 2}}, false},
    {"named timesteps",
     {PROMPT, .seed = 5, .timesteps = "fast27", .size = {BASE, BASE}},
     {{.named = "fast27"}},
     false},
    {"timesteps of a preset",
     {PROMPT, .seed = 5, .preset = "listed"},
     {{.timesteps = listed, .steps = 3}, {0}},
     false},
    {"sampler", {PROMPT, .seed = 5, .sampler = "dpm++2m"}, {{.sampler = "dpm++2m"}, {0}}, false},
    {"noise level",
     {PROMPT, .seed = 5, .set_noise_level = true, .noise_level = {-1, 400}},
     {{0}, {.noise_level = 400}},
     false},
    {"a noise level that is not set",
     {PROMPT, .seed = 5, .noise_level = {0, 400}},
     {{0}, {0}},
     true},
    {"size", {PROMPT, .seed = 5, .size = {BASE, BASE}}, {{0}}, false},
    {"preset",
     {PROMPT, .seed = 5, .preset = "other"},
     {{.network = "other", .sampler = "ddim", .steps = 3, .guidance = 1}, {.steps = 1}},
     false},
    {"network of a preset",
     {PROMPT, .seed = 5, .preset = "other", .size = {BASE, BASE}},
     {{.network = "other", .sampler = "ddim", .steps = 3, .guidance = 1}},
     false},
    {"samplers of a preset",
     {PROMPT, .seed = 5, .preset = "solver"},
     {{.sampler = "dpm++2m"}, {.sampler = "ddim"}},
     false},
    {"a sampler beside the preset's list",
     {PROMPT, .seed = 5, .preset = "listed", .sampler = "dpm++2m", .size = {BASE, BASE}},
     {{.sampler = "dpm++2m", .steps = 3}},
     false},
    {"a setting beside the preset",
     {PROMPT, .seed = 5, .preset = "other", .steps = {2}, .size = {BASE, BASE}},
     {{.network = "other", .sampler = "ddim", .steps = 2, .guidance = 1}},
     false},
};
enum { ROWS = sizeof rows / sizeof *rows };

// ---- noise, from the paper and the convention in rng.h
// -------------------------------------------

static void philox(uint32_t c[4], uint32_t k0, uint32_t k1)
{
    for (int round = 0; round < 10; round++) {
        const uint64_t a = UINT64_C(0xD2511F53) * c[0], b = UINT64_C(0xCD9E8D57) * c[2];
        const uint32_t next[4] = {(uint32_t)(b >> 32) ^ c[1] ^ k0, (uint32_t)b,
                                  (uint32_t)(a >> 32) ^ c[3] ^ k1, (uint32_t)a};
        memcpy(c, next, sizeof next);
        k0 += UINT32_C(0x9E3779B9);
        k1 += UINT32_C(0xBB67AE85);
    }
}

struct drawing {
    uint64_t seed;
    uint32_t picture, stage;
    int pixels;
};

// Counter (element / 4, step, stage, image), key the seed; first noise and augmentation noise count
// as the steps 2^31 - 1 and 2^31 - 2. Elements are [height, width, 3].
static void give(void *ctx, int entry, enum stage_noise kind, int step, float *z)
{
    const struct drawing *d = ctx;
    const uint32_t when = kind == STAGE_NOISE_INIT      ? 0x7fffffff
                          : kind == STAGE_NOISE_AUGMENT ? 0x7ffffffe
                                                        : (uint32_t)step;
    CHECK_INT(entry, 0);
    for (uint32_t i = 0; i < 3 * (uint32_t)d->pixels; i++) {
        uint32_t c[4] = {i / 4, when, d->stage, d->picture};
        philox(c, (uint32_t)d->seed, (uint32_t)(d->seed >> 32));
        const double radius = sqrt(-2 * log((c[i & 2] + 1.) / 4294967296.));
        const double angle = 6.283185307179586 * c[(i & 2) + 1] / 4294967296.;
        z[i] = (float)(radius * (i & 1 ? sin(angle) : cos(angle)));
    }
}

// ---- drawing without the engine
// ------------------------------------------------------------------

struct studio {
    struct ops_device *dev;
    char folder[256];
};

static void path_of(const struct studio *s, const char *network, const char *file, char out[512])
{
    snprintf(out, 512, "%s/%s/%s", s->folder, network, file);
}

static float *encode(struct studio *s, const char *prompt)
{
    struct text *text = NULL;
    struct text_states states = {0};
    struct t5_config config;
    struct fault why = {0};
    char encoder[512], tokenizer[512], file[512];
    float *out = NULL;

    path_of(s, "base", "text_encoder", encoder);
    path_of(s, "base", "tokenizer", tokenizer);
    path_of(s, "base", "text_encoder/config.json", file);
    CHECK_MSG(!hfconfig_t5_read(file, &config, &why), "%s", why.msg);
    CHECK_MSG(!text_open(&(struct text_params){.dev = s->dev,
                                               .tokenizer_dir = tokenizer,
                                               .encoder_dir = encoder,
                                               .config = &config,
                                               .dtype = DT_F32,
                                               .cached = 2},
                         &text, &why),
              "%s", why.msg);
    if (text && !text_encode(text, prompt, &states, &why)) {
        const size_t bytes = sizeof(float) * (size_t)text_length(text) * (size_t)text_dim(text);
        out = malloc(bytes);
        memcpy(out, states.v, bytes);
    }
    CHECK(out != NULL);
    text_close(&text);
    return out;
}

struct network_files {
    struct unet_config config;
    struct scheduler_config scheduler, noising;
    struct unet *unet;
};

static void load(struct studio *s, const char *name, bool super, struct network_files *n)
{
    struct weights *w = NULL;
    struct fault why = {0};
    char file[512];

    memset(n, 0, sizeof *n);
    path_of(s, name, "unet/config.json", file);
    CHECK_MSG(!hfconfig_unet_read(file, &n->config, &why), "%s", why.msg);
    path_of(s, name, "scheduler/scheduler_config.json", file);
    CHECK_MSG(!hfconfig_scheduler_read(file, &n->scheduler, &why), "%s", why.msg);
    path_of(s, name, "image_noising_scheduler/scheduler_config.json", file);
    if (super)
        CHECK_MSG(!hfconfig_scheduler_read(file, &n->noising, &why), "%s", why.msg);
    path_of(s, name, "unet", file);
    CHECK_MSG(
        !weights_open(&(struct weights_params){.dir = file, .base = "diffusion_pytorch_model"}, &w,
                      &why),
        "%s", why.msg);
    if (w)
        CHECK_MSG(!unet_load(s->dev, &n->config, w, DT_F32, &n->unet, &why), "%s", why.msg);
    weights_close(&w);
}

// A stage of its own for one image.
struct easel {
    struct network_files n;
    struct stage *stage;
    int entry, steps;
};

static void open_easel(struct studio *s, const struct how *how, struct drawing *d, const float *low,
                       const float *text, const float *negative, struct easel *e)
{
    const uint32_t edge = d->stage ? SIZE : BASE;
    struct sampler *sampler = NULL;
    struct fault why = {0};

    memset(e, 0, sizeof *e);
    load(s, how->network, d->stage > 0, &e->n);
    d->pixels = (int)(edge * edge);
    const struct sampler_params sampling = {.config = &e->n.scheduler,
                                            .name = how->sampler,
                                            .steps = how->steps,
                                            .preset = how->named,
                                            .timesteps = how->timesteps,
                                            .timestep_count = how->timesteps ? how->steps : 0};
    CHECK_MSG(!sampler_create(&sampling, &sampler, &why), "%s", why.msg);
    const struct stage_params params = {.dev = s->dev,
                                        .unet = e->n.unet,
                                        .dtype = DT_F32,
                                        .noising = d->stage ? &e->n.noising : NULL,
                                        .height = edge,
                                        .width = edge,
                                        .low_height = d->stage ? BASE : 0,
                                        .low_width = d->stage ? BASE : 0,
                                        .entries = 1,
                                        .text_length = LENGTH,
                                        .text_dim = (uint32_t)e->n.config.text_dim,
                                        .noise = give,
                                        .noise_ctx = d};
    CHECK(!stage_create(&params, &e->stage));
    e->steps = sampler ? sampler->steps : 0;
    const struct stage_start start = {
        .sampler = sampler,
        .text = text,
        .negative = how->guidance == 1 ? NULL : negative,
        .guidance = how->guidance,
        .guidance_interval = {how->interval[0], how->interval[1]},
        .low = low,
        .noise_level = how->noise_level,
    };
    CHECK_MSG(!stage_enter(e->stage, &start, &e->entry, &why), "%s", why.msg);
}

static void close_easel(struct easel *e)
{
    stage_destroy(&e->stage);
    unet_destroy(&e->n.unet);
}

static struct how complete(struct how how, bool super)
{
    how.network = how.network ? how.network : super ? "sr" : "base";
    how.sampler = how.sampler || super ? how.sampler : "ddpm";
    how.steps = how.steps ? how.steps : super ? 3 : 4;
    how.guidance = how.guidance != 0 ? how.guidance : super ? 1 : 3;
    how.interval[1] = how.interval[1] ? how.interval[1] : INT_MAX;
    how.noise_level = how.noise_level ? how.noise_level : 100;
    return how;
}

static int draw_as(struct studio *s, const struct picture_request *r, const struct how *hows,
                   uint8_t *rgb)
{
    float *text = encode(s, r->prompt);
    float *negative = encode(s, r->negative_prompt ? r->negative_prompt : "");
    static float small[3 * BASE * BASE], large[RGB];
    int edge = 0;

    const uint32_t stages = r->size.width == BASE ? 1 : STAGES;
    for (uint32_t i = 0; i < stages; i++) {
        const struct how how = complete(hows[i], i > 0);
        struct drawing d = {.seed = r->seed, .picture = r->picture, .stage = i};
        struct easel e;
        const uint8_t *view;
        edge = i ? SIZE : BASE;
        open_easel(s, &how, &d, i ? small : NULL, text, negative, &e);
        for (int k = 0; k < e.steps; k++)
            CHECK(!stage_step(e.stage, &e.entry, 1));
        CHECK(!stage_picture(e.stage, e.entry, i ? large : small));
        CHECK(!stage_rgb(e.stage, e.entry, &view));
        memcpy(rgb, view, (size_t)(3 * edge * edge));
        close_easel(&e);
    }
    free(text);
    free(negative);
    return edge;
}

// ---- drawing with the engine
// ---------------------------------------------------------------------

static int draw(struct studio *s, int row, uint8_t *rgb)
{
    return draw_as(s, &rows[row].r, rows[row].how, rgb);
}

struct result {
    uint8_t rgb[RGB];
    int edge, done, failed;
};

static void on_event(void *ctx, const struct engine_event *ev)
{
    struct result *r = ev->tag ? ev->tag : ctx;

    r->failed += ev->type == ENGINE_FAILED;
    if (ev->type != ENGINE_DONE)
        return;
    r->done++;
    r->edge = ev->image.width;
    CHECK(ev->image.width <= SIZE && ev->image.height == ev->image.width);
    memcpy(r->rgb, ev->image.rgb, (size_t)(3 * r->edge * r->edge));
}

static void draw_with(struct engine *g, const struct picture_request *request, struct result *out)
{
    struct fault why = {0};
    int slot;

    memset(out, 0, sizeof *out);
    CHECK_MSG(!engine_admit(g, request, out, &slot, &why), "%s", why.msg);
    for (int i = 0; i < 100 && engine_busy(g); i++)
        CHECK_MSG(!engine_step(g, on_event, out, &why), "%s", why.msg);
    CHECK(out->done == 1 && !out->failed);
}

// The host's noise has the device's value up to rounding, so a value may fall on the other side of
// a border between two of 255 levels: at most one in a hundred, measured none to 0.3 %.
static void compare(const char *what, const struct result *got, const uint8_t *want, int edge)
{
    int wrong = 0, far = 0;

    CHECK_MSG(got->edge == edge, "%s: %d pixels wide, expected %d", what, got->edge, edge);
    for (int i = 0; got->edge == edge && i < 3 * edge * edge; i++) {
        const int d = abs(got->rgb[i] - want[i]);
        wrong += d > 0;
        far += d > 1;
    }
    printf("%-32s %d of %d values differ\n", what, wrong, 3 * edge * edge);
    CHECK_MSG(!far && wrong <= 8, "%s: %d values differ, %d by more than 1", what, wrong, far);
}

static void test_rows(struct studio *s, struct engine *g)
{
    struct result first, got;
    static uint8_t want[RGB];

    draw_with(g, &rows[0].r, &first);
    for (int i = 0; i < ROWS; i++) {
        draw_with(g, &rows[i].r, &got);
        compare(rows[i].what, &got, want, draw(s, i, want));
        const bool same = got.edge == first.edge &&
                          !memcmp(got.rgb, first.rgb, (size_t)(3 * got.edge * got.edge));
        CHECK_MSG(same == rows[i].same, "%s: %s image as without it", rows[i].what,
                  same ? "the same" : "another");
    }
}

// ---- when guidance acts -----------------------------------------------------------------------

// The base stage alone with DDIM, four steps at the timesteps 750, 500, 250 and 0.
static void draw_between(struct studio *s, float guidance, int first, int last,
                         float x[3 * BASE * BASE])
{
    const struct how how = complete(
        (struct how){
            .network = "other", .sampler = "ddim", .guidance = guidance, .interval = {first, last}},
        false);
    struct drawing d = {.seed = 4};
    float *text = encode(s, "a photo of a kangaroo"), *negative = encode(s, "blurry");
    struct easel e;

    open_easel(s, &how, &d, NULL, text, negative, &e);
    for (int i = 0; i < e.steps; i++)
        CHECK(!stage_step(e.stage, &e.entry, 1));
    CHECK(!stage_picture(e.stage, e.entry, x));
    close_easel(&e);
    free(text);
    free(negative);
}

// Both ends of the interval belong to it: images are equal when the same timesteps lie within.
static void test_interval(struct studio *s)
{
    static const struct {
        int first, last;
        const char *guided; // which of 750, 500, 250, 0
    } rows_[] = {{0, INT_MAX, "1111"}, {0, 750, "1111"},   {0, 749, "0111"},   {1, 750, "1110"},
                 {500, 500, "0100"},   {499, 501, "0100"}, {251, 749, "0100"}, {250, 500, "0110"},
                 {249, 501, "0110"},   {501, 749, "0000"}, {751, 900, "0000"}};
    enum { COUNT = sizeof rows_ / sizeof *rows_ };
    static float x[COUNT][3 * BASE * BASE], without[3 * BASE * BASE];

    draw_between(s, 1, 0, INT_MAX, without);
    for (int i = 0; i < COUNT; i++) {
        draw_between(s, 5, rows_[i].first, rows_[i].last, x[i]);
        CHECK_MSG(!memcmp(x[i], without, sizeof without) == !strcmp(rows_[i].guided, "0000"),
                  "%d to %d", rows_[i].first, rows_[i].last);
        for (int k = 0; k < i; k++)
            CHECK_MSG(!memcmp(x[i], x[k], sizeof x[i]) == !strcmp(rows_[i].guided, rows_[k].guided),
                      "%d to %d, %d to %d", rows_[i].first, rows_[i].last, rows_[k].first,
                      rows_[k].last);
    }
}

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

// ---- a stage that saves memory ----------------------------------------------------------------

// Its images are those of a stage that does not.
static void test_lean(struct studio *s)
{
    const struct picture_request r = {PROMPT, .seed = 5};
    const struct how how = {.sampler = "ddim"};
    static uint8_t want[RGB];
    struct engine *g = NULL;
    struct fault why = {0};
    struct result got;

    model_folder_write("cascade.json", lean_json, sizeof lean_json - 1);
    CHECK_MSG(!engine_open(&(struct engine_params){.model = s->folder, .slots = 2, .dtype = "f32"},
                           &g, &why),
              "%s", why.msg);
    draw_with(g, &r, &got);
    compare("a lean stage", &got, want, draw_as(s, &r, (struct how[STAGES]){{0}, how}, want));
    engine_close(&g);
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
        draw_with(g, &r, i == PROMPTS - 1 ? &alone : &again);
    }
    // An engine that has seen nothing else gives the same.
    struct engine *fresh = NULL;
    struct fault why = {0};
    CHECK_MSG(!engine_open(&(struct engine_params){.model = model_folder(GOLDEN), .slots = 1},
                           &fresh, &why),
              "%s", why.msg);
    draw_with(fresh, &r, &again);
    CHECK(!memcmp(alone.rgb, again.rgb, 3 * BASE * BASE));
    engine_close(&fresh);
}

// ---- previews
// ------------------------------------------------------------------------------------

static void on_previewed(void *ctx, const struct engine_event *ev)
{
    CHECK(ev->type != ENGINE_FAILED);
}

// Of the schedule squaredcos_cap_v2 with 1000 steps. Source: Nichol and Dhariwal, Improved
// Denoising Diffusion Probabilistic Models, eq. 17.
static double alpha_bar(int t)
{
    const double half_turn = 3.141592653589793 / 2;
    return pow(cos(((t + 1) / 1000. + .008) / 1.008 * half_turn) / cos(.008 / 1.008 * half_turn),
               2);
}

// A preview is the estimate of the clean image, computed here from x and the network's output.
static void test_preview(struct studio *s, struct engine *g)
{
    const struct picture_request r = {PROMPT, .seed = 8, .size = {BASE, BASE}, .preset = "other",
                                      .steps = {4}};
    // Four evenly spaced timesteps are 750, 500, 250 and 0; the second preview belongs to 500.
    const double a = alpha_bar(500);
    const struct how how =
        complete((struct how){.network = "other", .sampler = "ddim", .guidance = 1}, false);
    uint8_t got[8][3 * BASE * BASE];
    struct engine_image image;
    struct drawing d = {.seed = 8};
    struct fault why = {0};
    struct easel e;
    float x[3 * BASE * BASE], m[6 * BASE * BASE], *text = encode(s, r.prompt);
    int slot, count = 0, far = 0;

    CHECK_MSG(!engine_admit(g, &r, NULL, &slot, &why), "%s", why.msg);
    for (int i = 0; i < 8 && engine_busy(g); i++) {
        CHECK(!engine_step(g, on_previewed, NULL, &why));
        if (!engine_preview(g, slot, &image, &why))
            memcpy(got[count++], image.rgb, sizeof got[0]);
    }
    CHECK_INT(count, 3);
    open_easel(s, &how, &d, NULL, text, NULL, &e);
    CHECK(!stage_step(e.stage, &e.entry, 1));
    CHECK(!stage_picture(e.stage, e.entry, x));
    CHECK(!stage_step(e.stage, &e.entry, 1));
    CHECK(!tensor_download_nchw(stage_output(e.stage), m));
    for (int i = 0; i < 3 * BASE * BASE; i++) {
        const double x0 = (x[i] - sqrt(1 - a) * m[i % 3 * BASE * BASE + i / 3]) / sqrt(a);
        const double level = 127.5 * fmin(fmax(x0, -1), 1) + 127.5;
        far += fabs(got[1][i] - level) > .6; // half a level is rounding
    }
    CHECK_INT(far, 0);
    close_easel(&e);
    free(text);
}

// ---- turns
// ---------------------------------------------------------------------------------------

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
        CHECK(!engine_step(g, on_event, NULL, &why));
    }
    // Its own steps, since it is the oldest all the time.
    CHECK_INT(steps, 7);
    for (int i = 0; i < 100 && engine_busy(g); i++)
        CHECK(!engine_step(g, on_event, NULL, &why));
}

// A cancelled image gives its place in the stage back, in either stage, as often as one likes.
static void test_evictions(struct engine *g)
{
    struct picture_request r = {PROMPT, .seed = 3, .steps = {2, 2}};
    struct result before, after;
    struct fault why = {0};
    int slot;

    draw_with(g, &r, &before);
    for (int i = 0; i < 20; i++) {
        struct result ignored;
        CHECK_MSG(!engine_admit(g, &r, &ignored, &slot, &why), "%s", why.msg);
        for (int k = 0; k < i % 4; k++)
            CHECK(!engine_step(g, on_event, NULL, &why));
        CHECK_INT(engine_evict(g, slot), ERR_OK);
        CHECK_INT(engine_busy(g), 0);
    }
    draw_with(g, &r, &after);
    CHECK(!memcmp(before.rgb, after.rgb, RGB));
}

int main(void)
{
    struct studio s = {.dev = NULL};
    struct engine *g = NULL;
    struct fault why = {0};

    snprintf(s.folder, sizeof s.folder, "%s", model_folder(GOLDEN));
    model_folder_network("other", true);
    model_folder_network("broken", false);
    model_folder_break("broken/unet/diffusion_pytorch_model.safetensors");
    // Without dynamic thresholds an estimate is clipped, which test_preview can compute.
    model_folder_write("other/scheduler/scheduler_config.json", plain_ddim, sizeof plain_ddim - 1);
    model_folder_write("cascade.json", cascade_json, sizeof cascade_json - 1);
    if (engine_open(&(struct engine_params){.model = s.folder, .slots = 3, .dtype = "f32"}, &g,
                    &why)) {
        fprintf(stderr, "%s\n", why.msg);
        return why.code == ERR_NO_DEVICE ? test_skip(why.msg) : 1;
    }
    if (ops_device_open(&(struct ops_open_params){.dtype = "f32"}, &s.dev, &why)) {
        fprintf(stderr, "%s\n", why.msg);
        return 1;
    }
    test_rows(&s, g);
    test_many_prompts(g);
    test_preview(&s, g);
    test_no_starvation(g);
    test_evictions(g);
    test_interval(&s);
    test_broken(g);
    engine_close(&g);
    test_lean(&s);
    if (ops_device_info(s.dev)->cpu)
        test_places(&s);
    ops_device_close(&s.dev);
    return test_end();
}
