// Every setting of a request affects the pixels: the engine's images equal those of studio.c. Also:
// when guidance acts, previews, and that a stage that saves memory gives the same images.
#include "engine.h"
#include "model_folder.h"
#include "studio.h"
#include "test.h"

#include <limits.h>
#include <stdlib.h>

static const char cascade_json[] =
    "{\"stages\":["
    "{\"path\":\"base\",\"sampler\":\"ddpm\",\"steps\":4,\"guidance_scale\":3},"
    "{\"path\":\"sr\",\"steps\":3,\"guidance_scale\":1,\"noise_level\":100}],"
    "\"presets\":{"
    "\"other\":{\"stages\":[{\"path\":\"other\",\"steps\":3,\"guidance_scale\":1},{\"steps\":1}]},"
    "\"partly\":{\"stages\":[{\"guidance_interval\":[300,600]},{}]},"
    "\"listed\":{\"stages\":[{\"timesteps\":[900,500,20]},{}]},"
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
     {PROMPT, .seed = 5, .set_noise_level = true, .noise_level = {-1, 400, -1}},
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
// ---- drawing with the engine ------------------------------------------------------------------

static int draw(struct studio *s, int row, uint8_t *rgb)
{
    return studio_draw(s, &rows[row].r, rows[row].how, rgb);
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

    studio_draw_with(g, &rows[0].r, &first);
    for (int i = 0; i < ROWS; i++) {
        if (!test_row(rows[i].what))
            continue;
        studio_draw_with(g, &rows[i].r, &got);
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
    const struct how how = studio_complete(
        (struct how){
            .network = "other", .sampler = "ddim", .guidance = guidance, .interval = {first, last}},
        false);
    struct drawing d = {.seed = 4};
    float *text = studio_encode(s, "a photo of a kangaroo"), *negative = studio_encode(s, "blurry");
    struct easel e;

    studio_open(s, &how, &d, NULL, text, negative, &e);
    for (int i = 0; i < e.steps; i++)
        CHECK(!stage_step(e.stage, &e.entry, 1));
    CHECK(!stage_picture(e.stage, e.entry, x));
    studio_close(&e);
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
    studio_draw_with(g, &r, &got);
    compare("a lean stage", &got, want, studio_draw(s, &r, (struct how[STAGES]){{0}, how}, want));
    engine_close(&g);
}
// ---- previews ---------------------------------------------------------------------------------

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
        studio_complete((struct how){.network = "other", .sampler = "ddim", .guidance = 1}, false);
    uint8_t got[8][3 * BASE * BASE];
    struct engine_image image;
    struct drawing d = {.seed = 8};
    struct fault why = {0};
    struct easel e;
    float x[3 * BASE * BASE], m[6 * BASE * BASE], *text = studio_encode(s, r.prompt);
    int slot, count = 0, far = 0;

    CHECK_MSG(!engine_admit(g, &r, NULL, &slot, &why), "%s", why.msg);
    for (int i = 0; i < 8 && engine_busy(g); i++) {
        CHECK(!engine_step(g, on_previewed, NULL, &why));
        if (!engine_preview(g, slot, &image, &why))
            memcpy(got[count++], image.rgb, sizeof got[0]);
    }
    CHECK_INT(count, 3);
    studio_open(s, &how, &d, NULL, text, NULL, &e);
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
    studio_close(&e);
    free(text);
}

int main(void)
{
    struct studio s = {.dev = NULL};
    struct engine *g = NULL;
    struct fault why = {0};

    snprintf(s.folder, sizeof s.folder, "%s", model_folder(GOLDEN));
    model_folder_network("other", true);
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
    RUN(test_rows(&s, g));
    RUN(test_preview(&s, g));
    RUN(test_interval(&s));
    engine_close(&g);
    RUN(test_lean(&s));
    ops_device_close(&s.dev);
    return test_end();
}
