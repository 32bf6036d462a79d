// Engines that share one memory budget: each takes what its plan needs and no more, refuses to take
// turns if asked to, and grows within a larger limit; images stay as those of an engine alone.
#include "engine.h"
#include "test.h"

#include <stdlib.h>
#include <string.h>

enum { SIZE = 16, RGB = 3 * SIZE * SIZE, OTHER_RGB = 3 * 16 * 24 };

static const char model[] = GOLDEN "/if-tiny-I," GOLDEN "/if-tiny-II";
static const struct picture_request square = {
    .prompt = "a cat", .seed = 5, .size = {SIZE, SIZE}, .steps = {2}};
static const struct picture_request wide = {
    .prompt = "a cat", .seed = 5, .size = {96, 64}, .steps = {1, 1}};

// Not tuned: engines whose images are compared must have the same kernels.
static struct engine *open_engine(const struct engine_params *p, enum err expected)
{
    struct engine_params untuned = *p;
    struct engine *g = NULL;
    struct fault why = {0};

    untuned.tune = "off";
    const enum err e = engine_open(&untuned, &g, &why);

    CHECK_MSG(e == expected, "%s", why.msg);
    CHECK((g == NULL) == (e != ERR_OK));
    return g;
}

static struct engine_stats stats(const struct engine *g)
{
    struct engine_stats s;

    engine_stats(g, &s);
    return s;
}

static void on_event(void *ctx, const struct engine_event *ev)
{
    CHECK_MSG(ev->type != ENGINE_FAILED, "%s", ev->fault ? ev->fault->msg : "");
    if (ev->type == ENGINE_DONE)
        memcpy(ctx, ev->image.rgb, (size_t)(ev->image.width * ev->image.height) * 3);
}

static enum err draw(struct engine *g, const struct picture_request *r, uint8_t *rgb)
{
    struct fault why = {0};
    int slot;
    enum err e = engine_admit(g, r, NULL, &slot, &why);

    while (!e && engine_busy(g))
        e = engine_step(g, on_event, rgb, &why);
    return e;
}

// The need is a limit under which the engine opens whole; one MB less is refused before loading.
static void test_need(void)
{
    struct engine *g = open_engine(&(struct engine_params){.model = model}, ERR_OK);
    const size_t need = g ? stats(g).need_bytes : 0;
    struct engine_params p = {.model = model, .memory_limit = need, .whole = true};

    CHECK(need > 1 << 20 && need < stats(g).limit_bytes);
    CHECK(stats(g).device_bytes <= need);
    engine_close(&g);
    g = open_engine(&p, ERR_OK);
    CHECK(g && stats(g).limit_bytes == need);
    engine_close(&g);
    p.memory_limit = need - (1 << 20);
    open_engine(&p, ERR_NO_DEVICE_MEMORY);
    p.whole = false;
    g = open_engine(&p, ERR_OK);
    engine_close(&g);
}

static void test_shared(void)
{
    static uint8_t alone[RGB], beside[RGB], first[9 * RGB * 16], grown[9 * RGB * 16];
    struct engine *g = open_engine(&(struct engine_params){.model = model}, ERR_OK);
    const size_t budget = stats(g).limit_bytes;
    struct engine *a, *b;

    CHECK_INT(draw(g, &square, alone), ERR_OK);
    CHECK_INT(draw(g, &wide, first), ERR_OK);
    engine_close(&g);
    struct engine_params p = {
        .model = model, .name = "left", .memory_limit = budget, .shared = true, .whole = true};
    a = open_engine(&p, ERR_OK);
    const size_t need = stats(a).need_bytes;
    p.name = "right";
    p.memory_limit = budget - need;
    b = open_engine(&p, ERR_OK);
    CHECK_STR(engine_info(a)->name, "left");
    CHECK_STR(engine_info(b)->name, "right");
    CHECK_INT(draw(a, &square, beside), ERR_OK);
    CHECK(!memcmp(alone, beside, sizeof alone));
    CHECK_INT(draw(b, &square, beside), ERR_OK);
    CHECK(!memcmp(alone, beside, sizeof alone));
    // A wide image needs more than the squares that the limit is for.
    CHECK_INT(draw(a, &wide, grown), ERR_INVALID);
    CHECK(stats(a).need_bytes <= need);
    engine_set_memory_limit(a, budget - stats(b).need_bytes);
    CHECK_INT(draw(a, &wide, grown), ERR_OK);
    CHECK(!memcmp(first, grown, sizeof first));
    CHECK(stats(a).need_bytes > need && stats(a).device_peak_bytes <= stats(a).need_bytes);
    engine_close(&a);
    engine_close(&b);
}

// A plan knows all about a model but its device and its weights.
static void test_plan(void)
{
    const struct engine_params p = {.model = model, .name = "left"};
    struct engine *g = open_engine(&p, ERR_OK);
    const struct model_info *open = engine_info(g);
    struct engine_plan *plan = NULL;
    struct picture_used used;
    struct model_info info;
    struct fault why = {0};

    CHECK_MSG(!engine_plan_open(&p, &plan, &why), "%s", why.msg);
    engine_plan_info(plan, &info);
    CHECK_STR(info.name, "left");
    CHECK_STR(info.device, "");
    CHECK_INT(info.stages, open->stages);
    CHECK_INT(info.sizes.step, open->sizes.step);
    CHECK(info.samplers == open->samplers && info.timesteps == open->timesteps);
    CHECK(!memcmp(info.scale, open->scale, sizeof info.scale));
    for (int i = 0; i < info.stages; i++) {
        CHECK_STR(info.stage[i].sampler, open->stage[i].sampler);
        CHECK_INT(info.stage[i].steps, open->stage[i].steps);
    }
    CHECK_INT(engine_plan_resolve(plan, &square, &used, &why), ERR_OK);
    CHECK_STR(used.model, "left");
    engine_plan_close(&plan);
    engine_close(&g);
}

int main(void)
{
    test_need();
    test_shared();
    test_plan();
    return test_end();
}
