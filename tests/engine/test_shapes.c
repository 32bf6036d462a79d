// Images that are not square: the same as drawn by their stages alone, whatever sizes are drawn
// beside them; which sizes share a step; who waits for whom; input images of the same shape.
#include "engine.h"
#include "model_folder.h"
#include "picture_edit.h"
#include "studio.h"
#include "test.h"
#include "text.h"

#include <stdlib.h>

enum { MOST = 3 * 128 * 128 };

static const char stages_json[] =
    "{\"shapes\":\"any\",\"stages\":["
    "{\"path\":\"base\",\"sampler\":\"ddpm\",\"steps\":4,\"guidance_scale\":3},"
    "{\"path\":\"sr\",\"steps\":3,\"guidance_scale\":1,\"noise_level\":100}]}";

#define PROMPT .prompt = "a photo of a kangaroo"

struct shot {
    uint8_t rgb[MOST];
    int width, height, done, failed;
    char failure[sizeof((struct fault *)0)->msg];
};

// The sizes of the images in one engine_step.
static int step_width, step_height;

static void on_event(void *ctx, const struct engine_event *ev)
{
    struct shot *s = ev->tag ? ev->tag : ctx;

    if (ev->type == ENGINE_STEP) {
        CHECK_MSG(!step_width || (step_width == ev->image.width && step_height == ev->image.height),
                  "%dx%d shares a step with %dx%d", ev->image.width, ev->image.height, step_width,
                  step_height);
        step_width = ev->image.width;
        step_height = ev->image.height;
    }
    s->failed += ev->type == ENGINE_FAILED;
    if (ev->type == ENGINE_FAILED)
        snprintf(s->failure, sizeof s->failure, "%s", ev->fault->msg);
    if (ev->type != ENGINE_DONE)
        return;
    s->done++;
    s->width = ev->image.width;
    s->height = ev->image.height;
    CHECK(3 * s->width * s->height <= MOST);
    memcpy(s->rgb, ev->image.rgb, (size_t)(3 * s->width * s->height));
}

static void admit(struct engine *g, const struct picture_request *r, struct shot *s, int *slot)
{
    struct fault why = {0};

    CHECK_MSG(!engine_admit(g, r, s, slot, &why), "%s", why.msg);
}

static void step(struct engine *g)
{
    struct fault why = {0};

    step_width = step_height = 0;
    CHECK_MSG(!engine_step(g, on_event, NULL, &why), "%s", why.msg);
}

static void finish(struct engine *g)
{
    for (int i = 0; i < 200 && engine_busy(g); i++)
        step(g);
    CHECK_INT(engine_busy(g), 0);
}

// ---- the images -------------------------------------------------------------------------------

static const struct check_size sizes[] = {{24, 16}, {16, 32},  {24, 24}, {64, 96}, {96, 64},
                                          {96, 96}, {128, 64}, {64, 64}, {40, 30}};
enum { SIZES = sizeof sizes / sizeof *sizes };

static struct picture_request request_of(int i)
{
    return (struct picture_request){PROMPT, .seed = 40 + (uint64_t)i, .picture = i,
                                    .size = sizes[i]};
}

// As the stages draw it without the engine.
static void draw_alone(struct studio *s, int i, uint8_t *rgb)
{
    const struct picture_request r = request_of(i);
    const bool one = sizes[i].width <= 32, square = i >= SIZES - 2;
    const int divide = one ? 1 : SIZE / BASE;
    float *text = studio_encode(s, r.prompt), *negative = studio_encode(s, "");
    float *small = malloc(MOST * sizeof *small), *large = malloc(MOST * sizeof *large);

    for (uint32_t k = 0; k < (one ? 1 : 2); k++) {
        const struct how how = studio_complete((struct how){.network = NULL}, k > 0);
        struct drawing d = {.seed = r.seed,
                            .picture = (uint32_t)r.picture,
                            .stage = k,
                            .base = {square ? BASE : sizes[i].width / divide,
                                     square ? BASE : sizes[i].height / divide}};
        const uint8_t *view;
        struct easel e;
        studio_open(s, &how, &d, k ? small : NULL, text, negative, &e);
        for (int n = 0; n < e.steps; n++)
            CHECK(!stage_step(e.stage, &e.entry, 1));
        CHECK(!stage_picture(e.stage, e.entry, k ? large : small));
        CHECK(!stage_rgb(e.stage, e.entry, &view));
        memcpy(rgb, view, (size_t)(3 * d.pixels));
        studio_close(&e);
    }
    free(text);
    free(negative);
    free(small);
    free(large);
}

// All at once in an engine with fewer slots: each is what its stages alone draw.
static void test_together(struct studio *s, struct engine *g, struct shot *shots)
{
    static uint8_t alone[MOST];
    int slot;

    for (int next = 0; next < SIZES || engine_busy(g);) {
        while (next < SIZES && engine_free(g)) {
            const struct picture_request r = request_of(next);
            shots[next] = (struct shot){.done = 0};
            admit(g, &r, &shots[next], &slot);
            const struct picture_used *u = engine_used(g, slot);
            CHECK(u->size.width == sizes[next].width && u->size.height == sizes[next].height);
            next++;
        }
        step(g);
    }
    for (int i = 0; i < SIZES; i++) {
        // 40x30 is cut from a square.
        const struct check_size drawn = i == SIZES - 1 ? (struct check_size){SIZE, SIZE} : sizes[i];
        CHECK_MSG(shots[i].done == 1 && !shots[i].failed, "%s", shots[i].failure);
        CHECK(shots[i].width == drawn.width && shots[i].height == drawn.height);
        draw_alone(s, i, alone);
        int worst = 0;
        for (int k = 0; k < 3 * drawn.width * drawn.height; k++)
            worst =
                abs(alone[k] - shots[i].rgb[k]) > worst ? abs(alone[k] - shots[i].rgb[k]) : worst;
        CHECK_MSG(worst <= 1, "%dx%d differs by %d", drawn.width, drawn.height, worst);
    }
}

// ---- turns ------------------------------------------------------------------------------------

// Images of one shape keep arriving; one of another shape, which shares their stage, gets its turn.
static void test_no_starvation(struct engine *g)
{
    struct picture_request young = {PROMPT, .seed = 2, .size = {24, 16}, .steps = {3}};
    struct picture_request other = {PROMPT, .seed = 1, .size = {16, 24}, .steps = {4}};
    static struct shot ignored, waits;
    int slot, steps = 0;

    waits = ignored = (struct shot){.done = 0};
    admit(g, &young, &ignored, &slot);
    step(g);
    admit(g, &other, &waits, &slot);
    for (; steps < 40 && !waits.done; steps++) {
        while (engine_free(g))
            admit(g, &young, &ignored, &slot);
        step(g);
    }
    // The two steps that the first one had left, then its own.
    CHECK_INT(steps, 6);
    finish(g);
}

static void test_evicted(struct engine *g)
{
    struct picture_request r = {PROMPT, .seed = 3, .size = {96, 64}, .steps = {2, 2}};
    static struct shot before, after, ignored;
    int slot;

    before = after = (struct shot){.done = 0};
    admit(g, &r, &before, &slot);
    finish(g);
    for (int i = 0; i < 8; i++) {
        r.size = i % 2 ? (struct check_size){64, 96} : (struct check_size){96, 64};
        admit(g, &r, &ignored, &slot);
        for (int k = 0; k < i % 4; k++)
            step(g);
        CHECK_INT(engine_evict(g, slot), ERR_OK);
    }
    r.size = (struct check_size){96, 64};
    admit(g, &r, &after, &slot);
    finish(g);
    CHECK(before.done && after.done && !memcmp(before.rgb, after.rgb, 3 * 96 * 64));
}

// ---- previews, and input images -----------------------------------------------------------------

static void test_previews(struct engine *g)
{
    struct picture_request r = {PROMPT, .seed = 4, .size = {64, 96}, .steps = {2, 2}};
    static const struct check_size expected[] = {{16, 24}, {16, 24}, {64, 96}, {64, 96}};
    struct engine_image image = {0};
    struct fault why = {0};
    static struct shot s;
    int slot;

    s = (struct shot){.done = 0};
    admit(g, &r, &s, &slot);
    for (int i = 0; i < 4; i++) {
        step(g);
        if (engine_preview(g, slot, &image, &why))
            continue; // between two stages there is none
        CHECK(image.width == expected[i].width && image.height == expected[i].height);
    }
    CHECK_INT(image.width, 64);
    CHECK(s.done && !engine_busy(g));
}

// An image of the model's own size is edited without anything around it: pixels outside of the mask
// come back as they were.
static void test_edit(struct engine *g)
{
    enum { W = 96, H = 64 };
    static uint8_t rgb[3 * W * H], drawn[W * H];
    static struct shot s;
    struct picture_edit edit = {
        .width = W, .height = H, .masked = true, .rgb = rgb, .drawn = drawn};
    struct picture_request r = {PROMPT, .seed = 6, .steps = {2, 2}, .edit = &edit};
    float *at = malloc(sizeof(float) * 4 * W * H);
    int slot, kept = 0;

    for (int i = 0; i < 3 * W * H; i++)
        rgb[i] = (uint8_t)(i * 7 + i / 97);
    for (int i = 0; i < W * H; i++)
        drawn[i] = i % W > 60 ? 255 : 0;
    CHECK_INT(picture_edit_stage(&edit, &(struct check_size){W, H}, at), ERR_OK);
    s = (struct shot){.done = 0};
    admit(g, &r, &s, &slot);
    const struct picture_used *u = engine_used(g, slot);
    CHECK(u->drawn.width == W && u->drawn.height == H && u->size.width == W);
    finish(g);
    CHECK(s.width == W && s.height == H);
    for (int i = 0; i < W * H; i++) {
        if (at[4 * i + 3] == 0)
            continue;
        kept++;
        for (int c = 0; c < 3; c++)
            CHECK_INT(s.rgb[3 * i + c], rgb[3 * i + c]);
    }
    CHECK_INT(kept, 61 * H);
    free(at);
}

// ---- refusals -----------------------------------------------------------------------------------

static void test_refused(struct engine *g)
{
    static const struct {
        struct check_size size;
        const char *says;
    } rows[] = {{{86, 64}, "the nearest are 96x64 and"},
                {{64, 100}, "the nearest are 64x96 and"},
                {{128, 128}, "the nearest are 96x96 and"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct picture_request r = {PROMPT, .size = rows[i].size};
        struct fault why = {0};
        CHECK_INT(engine_check(g, &r, &why), ERR_INVALID);
        CHECK_STR(why.param, "size");
        CHECK_MSG(strstr(why.msg, rows[i].says) != NULL, "%s", why.msg);
    }
    const struct model_info *info = engine_info(g);
    struct check_size size;
    int n = 0;
    while (picture_native(&info->sizes, n, &size))
        n++;
    CHECK_INT(n, 12);
}

// A folder that does not say so makes squares only; one without cascade.json makes any shape.
static void test_who(struct studio *s)
{
    static const struct {
        const char *json;
        int step;
    } rows[] = {
        {"{\"stages\":[{\"path\":\"base\"},{\"path\":\"sr\"}]}", 0},
        {"{\"shapes\":\"square\",\"stages\":[{\"path\":\"base\"},{\"path\":\"sr\"}]}", 0},
        {"{\"shapes\":\"any\",\"stages\":[{\"path\":\"base\"},{\"path\":\"sr\"}]}", 8},
        // 72 is not a multiple of 16.
        {"{\"shapes\":\"any\",\"stages\":[{\"path\":\"base\"},{\"path\":\"sr\",\"size\":72}]}", 0}};
    struct cascade *c = malloc(sizeof *c);
    struct fault why = {0};
    char both[600];

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        model_folder_write("cascade.json", rows[i].json, strlen(rows[i].json));
        CHECK_MSG(!cascade_read(&(struct cascade_files){.model = s->folder}, c, &why), "%s",
                  why.msg);
        CHECK_INT(c->shape_step, rows[i].step);
    }
    snprintf(both, sizeof both, "%s/base,%s/sr", s->folder, s->folder);
    CHECK_MSG(!cascade_read(&(struct cascade_files){.model = both}, c, &why), "%s", why.msg);
    CHECK_INT(c->shape_step, 8);
    static const char wrong[] = "{\"shapes\":\"round\",\"stages\":[{\"path\":\"base\"}]}";
    model_folder_write("cascade.json", wrong, sizeof wrong - 1);
    CHECK_INT(cascade_read(&(struct cascade_files){.model = s->folder}, c, &why), ERR_FORMAT);
    CHECK_MSG(strstr(why.msg, "shapes must be") != NULL, "%s", why.msg);
    free(c);
}

int main(void)
{
    static struct shot shots[SIZES];
    struct studio s = {.dev = NULL};
    struct engine *g = NULL;
    struct fault why = {0};

    snprintf(s.folder, sizeof s.folder, "%s", model_folder(GOLDEN));
    model_folder_write("cascade.json", stages_json, sizeof stages_json - 1);
    if (engine_open(&(struct engine_params){.model = s.folder, .slots = 4, .dtype = "f32"}, &g,
                    &why)) {
        fprintf(stderr, "%s\n", why.msg);
        return why.code == ERR_NO_DEVICE ? test_skip(why.msg) : 1;
    }
    CHECK_MSG(!ops_device_open(&(struct ops_open_params){.dtype = "f32"}, &s.dev, &why), "%s",
              why.msg);
    RUN(test_together(&s, g, shots));
    RUN(test_no_starvation(g));
    RUN(test_evicted(g));
    RUN(test_previews(g));
    RUN(test_edit(g));
    RUN(test_refused(g));
    engine_close(&g);
    RUN(test_who(&s));
    ops_device_close(&s.dev);
    return test_end();
}
