// An upscaler behind the first stage of IF: its image depends on prompt, noise level and guidance,
// is the same alone and with other images, and edits and enlargements pass through it.
#include "engine.h"
#include "picture_edit.h"
#include "test.h"

#include <stdlib.h>

enum { SIZE = 64, RGB = 3 * SIZE * SIZE, SLOTS = 3 };

struct result {
    uint8_t rgb[RGB];
    int edge, done, failed;
    struct picture_used used;
};

struct run {
    struct engine *g;
    struct result *out[SLOTS];
};

static void on_event(void *ctx, const struct engine_event *ev)
{
    const struct run *r = ctx;
    struct result *to = ev->tag;

    to->failed += ev->type == ENGINE_FAILED;
    if (ev->type != ENGINE_DONE)
        return;
    to->done++;
    to->edge = ev->image.width;
    to->used = *engine_used(r->g, ev->slot);
    if (ev->image.width <= SIZE && ev->image.height <= SIZE)
        memcpy(to->rgb, ev->image.rgb, 3 * (size_t)ev->image.width * (size_t)ev->image.height);
}

static void draw(struct engine *g, const struct picture_request *r, struct result *out, int n)
{
    struct run run = {.g = g};
    struct fault why = {0};
    int slot;

    for (int i = 0; i < n; i++) {
        memset(&out[i], 0, sizeof out[i]);
        CHECK_MSG(!engine_admit(g, &r[i], &out[i], &slot, &why), "%s", why.msg);
    }
    while (engine_busy(g))
        if (engine_step(g, on_event, &run, &why))
            break;
    for (int i = 0; i < n; i++)
        CHECK_MSG(out[i].done == 1 && !out[i].failed, "image %d: %s", i, why.msg);
}

#define DRAW .prompt = "a cat", .seed = 3, .steps = {2, 2}

static void check_rows(struct engine *g)
{
    static const struct picture_request rows[] = {
        {DRAW},
        {DRAW, .noise_level = {-1, 200, -1}, .set_noise_level = true},
        {DRAW, .guidance_scale = {0, 2}},
        {DRAW, .guidance_scale = {0, 1}},
        {DRAW, .negative_prompt = "a dog"},
        {DRAW, .picture = 1},
    };
    enum { ROWS = sizeof rows / sizeof *rows };
    struct result *out = calloc(ROWS, sizeof *out), *again = calloc(SLOTS, sizeof *again);

    for (int i = 0; i < ROWS; i++) {
        draw(g, &rows[i], &out[i], 1);
        CHECK(out[i].edge == SIZE && out[i].used.stages == 2);
        CHECK(out[i].used.tokens > 2 && !out[i].used.tokens_cut);
        for (int k = 0; k < i; k++)
            CHECK_MSG(memcmp(out[i].rgb, out[k].rgb, RGB), "rows %d and %d", i, k);
    }
    CHECK(out[0].used.noise_level[1] == 20 && out[0].used.guidance_scale[1] == 9);
    CHECK_INT(out[1].used.noise_level[1], 200);
    // In company, with another order of the slots.
    const struct picture_request mixed[SLOTS] = {rows[5], rows[1], rows[0]};
    draw(g, mixed, again, SLOTS);
    CHECK(!memcmp(again[0].rgb, out[5].rgb, RGB) && !memcmp(again[1].rgb, out[1].rgb, RGB));
    CHECK(!memcmp(again[2].rgb, out[0].rgb, RGB));
    free(out);
    free(again);
}

static void check_long_prompt(struct engine *g)
{
    char prompt[1200] = "";
    struct result out;

    for (int i = 0; i < 150; i++)
        strcat(prompt, "a cat ");
    const struct picture_request r = {.prompt = prompt, .seed = 3, .steps = {1, 1}};
    draw(g, &r, &out, 1);
    CHECK(out.used.tokens == 77 && out.used.tokens_cut > 100);
}

static void check_refused(struct engine *g)
{
    struct fault why = {0};
    struct picture_request r = {DRAW, .noise_level = {-1, 351, -1}, .set_noise_level = true};

    CHECK_INT(engine_check(g, &r, &why), ERR_INVALID);
    CHECK_STR(why.param, "noise_level");
    CHECK(strstr(why.msg, "must be 0 to 350, not 351") != NULL);
}

static void check_images(struct engine *g)
{
    uint8_t pixels[3 * SIZE * SIZE];
    struct picture_edit edit = {.width = SIZE, .height = SIZE, .rgb = pixels};
    struct result one, other;
    struct fault why = {0};

    for (size_t i = 0; i < sizeof pixels; i++)
        pixels[i] = (uint8_t)(i * 7);
    struct picture_request r = {DRAW, .edit = &edit, .strength = {0.5F}};
    draw(g, &r, &one, 1);
    CHECK(one.edge == SIZE && one.used.strength[0] == 0.5F && one.used.strength[1] == 0);
    pixels[0] ^= 0xff;
    for (size_t i = 0; i < sizeof pixels / 2; i++)
        pixels[i] = (uint8_t)(255 - pixels[i]);
    draw(g, &r, &other, 1);
    CHECK(memcmp(one.rgb, other.rgb, RGB) != 0);
    r.strength[1] = 0.5F;
    CHECK_INT(engine_check(g, &r, &why), ERR_UNSUPPORTED);
    CHECK(strstr(why.msg, "must be 1, not 0.5: it works on latents") != NULL);
    // 16 x 12 pixels become 64 x 48.
    struct picture_edit small = {.width = 16, .height = 12, .rgb = pixels};
    struct picture_request up = {
        .prompt = "a cat", .seed = 3, .steps = {0, 1}, .edit = &small, .scale = 4};
    draw(g, &up, &one, 1);
    CHECK(one.edge == SIZE && one.used.first == 1 && one.used.scale == 4);
}

int main(void)
{
    struct engine *g = NULL;
    struct fault why = {0};
    const struct engine_params p = {.model = GOLDEN "/if-tiny-I," GOLDEN "/x4-tiny",
                                    .slots = SLOTS};
    const enum err e = engine_open(&p, &g, &why);

    if (e == ERR_NO_DEVICE)
        return test_skip("no Vulkan device");
    CHECK_MSG(!e, "%s", why.msg);
    if (g) {
        CHECK(engine_info(g)->stages == 2 && engine_info(g)->stage[1].size == SIZE);
        CHECK_INT(engine_info(g)->stage[1].noise_level, 20);
        CHECK_INT(engine_info(g)->scale[0], 4);
        check_rows(g);
        check_long_prompt(g);
        check_refused(g);
        check_images(g);
    }
    engine_close(&g);
    return test_end();
}
