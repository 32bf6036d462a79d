// Edits and enlarged images by the engine, on the tiny cascade of the golden fixtures, with kept
// pixels clean and noised: bit-equal alone and with others; the input's own pixels where a mask
// keeps them; the steps that a strength leaves; the sizes and stages of enlarged images; refused
// requests. The golden program checks that the steps match diffusers.
#include "buf.h"
#include "codec.h"
#include "engine.h"
#include "model_folder.h"
#include "picture_edit.h"
#include "test.h"

#include <stdlib.h>

enum { MAX_RGB = 3 * 512 * 512, W = 90, H = 64 };

enum job { PLAIN, IMAGE, WEAK, MASKED, LARGE_MASKED, TALL, FOUR, TILED, SMALLER, ZOOMED, JOBS };

static struct picture_edit *edits[JOBS];
static struct picture_request requests[JOBS] = {
    [PLAIN] = {.prompt = "a cat", .seed = 4, .size = {64, 64}, .steps = {4, 3}},
    [IMAGE] = {.prompt = "a red fox", .seed = 5, .steps = {10, 4}, .strength = {0.7F, 0.5F}},
    [WEAK] = {.prompt = "a red fox", .seed = 5, .steps = {10, 4}, .strength = {0.1F, 0.25F}},
    [MASKED] = {.prompt = "a red fox", .seed = 6, .steps = {3, 3}, .sampler = "dpm++2m"},
    [LARGE_MASKED] = {.prompt = "a dog", .seed = 7, .steps = {2, 2}, .strength = {0.5F}},
    [TALL] = {.prompt = "a dog", .seed = 7, .steps = {3, 2}},
    [FOUR] = {.prompt = "", .seed = 8, .steps = {0, 3}, .scale = 4},
    [TILED] = {.prompt = "", .seed = 8, .steps = {0, 2}, .scale = 4},
    [SMALLER] = {.prompt = "", .seed = 8, .steps = {0, 2}, .scale = 4, .size = {50, 40}},
    [ZOOMED] = {.prompt = "a dog", .seed = 7, .steps = {2, 2}, .strength = {0.5F}},
};
static const int shapes[JOBS][2] = {
    [IMAGE] = {64, 64},          [WEAK] = {64, 64},    [MASKED] = {64, 48},
    [LARGE_MASKED] = {150, 100}, [TALL] = {50, 200},   [FOUR] = {16, 16},
    [TILED] = {40, 20},          [SMALLER] = {40, 20}, [ZOOMED] = {150, 100},
};

struct result {
    uint8_t *rgb;
    int width, height, steps, stages, done;
    struct picture_used used;
    struct codec_image file; // as picture_encode makes it
};

static struct engine *engine;

static void keep(struct result *r, enum job i, const struct engine_event *ev)
{
    struct buf b = {0};
    struct fault why = {0};
    const struct codec_params p = {.format = CODEC_PNG,
                                   .width = ev->image.width,
                                   .height = ev->image.height,
                                   .rgb = ev->image.rgb};
    const size_t bytes = (size_t)(ev->image.width * ev->image.height) * 3;

    r->done++;
    r->width = ev->image.width;
    r->height = ev->image.height;
    r->used = *engine_used(engine, ev->slot);
    r->rgb = malloc(bytes);
    memcpy(r->rgb, ev->image.rgb, bytes);
    CHECK_MSG(!picture_encode(&p, &requests[i], &r->used, &b, &why), "%s", why.msg);
    CHECK_MSG(!codec_decode(b.data, b.len, NULL, &r->file, &why), "%s", why.msg);
    buf_deinit(&b);
}

static void on_event(void *ctx, const struct engine_event *ev)
{
    const enum job i = (enum job)(intptr_t)ev->tag;
    struct result *r = (struct result *)ctx + i;

    switch (ev->type) {
    case ENGINE_STEP:
        r->steps++;
        CHECK(ev->step >= 1 && ev->step <= ev->steps);
        break;
    case ENGINE_STAGE: r->stages++; break;
    case ENGINE_DONE: keep(r, i, ev); break;
    case ENGINE_FAILED: CHECK_MSG(false, "%s", ev->fault->msg); break;
    }
}

static void forget(struct result r[JOBS])
{
    for (int i = 0; i < JOBS; i++) {
        free(r[i].rgb);
        codec_image_deinit(&r[i].file);
    }
    memset(r, 0, JOBS * sizeof *r);
}

static struct codec_image picture(int w, int h, uint32_t seed)
{
    struct codec_image i = {.width = w, .height = h, .rgba = malloc((size_t)(w * h) * 4)};
    for (int k = 0; k < w * h; k++) {
        seed = seed * 1664525u + 1013904223u;
        // Smooth, so that sizes can be compared, with a little of everything.
        i.rgba[4 * k] = (uint8_t)(k % w * 255 / w);
        i.rgba[4 * k + 1] = (uint8_t)(k / w * 255 / h);
        i.rgba[4 * k + 2] = (uint8_t)(96 + (seed >> 27));
        i.rgba[4 * k + 3] = 255;
    }
    return i;
}

static void make_edits(void)
{
    for (int i = 0; i < JOBS; i++) {
        const int w = shapes[i][0], h = shapes[i][1];
        struct picture_edit_params p = {.feather = PICTURE_FEATHER_AUTO};
        struct fault why = {0};
        if (!w)
            continue;
        struct codec_image image = picture(w, h, (uint32_t)i), mask = picture(w, h, 0);
        for (int k = 0; k < w * h; k++)
            memset(mask.rgba + 4 * k, k % w > w / 2 && k / w > h / 4 ? 255 : 0, 3);
        p.image = &image;
        p.mask = i == MASKED || i == LARGE_MASKED || i == ZOOMED ? &mask : NULL;
        for (int k = 0; i == ZOOMED && k < w * h; k++) // a spot of 10 x 20
            memset(mask.rgba + 4 * k,
                   k % w >= 100 && k % w < 110 && k / w >= 10 && k / w < 30 ? 255 : 0, 3);
        if (i == ZOOMED)
            p.options = (struct picture_edit_options){
                .fill = PICTURE_FILL_NOISE, .zoom = true, .padding = 8};
        CHECK_MSG(!picture_edit_create(&p, &edits[i], &why), "%s", why.msg);
        requests[i].edit = edits[i];
        codec_image_deinit(&image);
        codec_image_deinit(&mask);
    }
}

static void admit(enum job i)
{
    struct fault why = {0};
    int slot;
    CHECK_MSG(!engine_admit(engine, &requests[i], (void *)(intptr_t)i, &slot, &why), "job %d: %s",
              (int)i, why.msg);
}

static void step(struct result *r, int times)
{
    struct fault why = {0};
    for (int i = 0; i < times; i++)
        CHECK_MSG(!engine_step(engine, on_event, r, &why), "%s", why.msg);
}

static void finish(struct result *r)
{
    for (int i = 0; i < 200 && engine_busy(engine); i++)
        step(r, 1);
    CHECK_INT(engine_busy(engine), 0);
}

static void same(const struct result *alone, const struct result *shared, enum job i)
{
    CHECK_INT(shared[i].done, 1);
    CHECK(shared[i].width == alone[i].width && shared[i].height == alone[i].height);
    CHECK_MSG(shared[i].rgb && !memcmp(alone[i].rgb, shared[i].rgb,
                                       (size_t)(alone[i].width * alone[i].height) * 3),
              "job %d differs in company", (int)i);
}

// The results of each job alone: stages, steps and sizes.
static void test_alone(struct result *alone)
{
    static const struct {
        int stages, steps, width, height, file_width, file_height, run[2];
    } want[JOBS] = {
        [PLAIN] = {2, 7, 64, 64, 64, 64, {4, 3}},
        [IMAGE] = {2, 9, 64, 64, 64, 64, {7, 2}},
        [WEAK] = {2, 2, 64, 64, 64, 64, {1, 1}},
        [MASKED] = {2, 6, 64, 64, 64, 48, {3, 3}},
        [LARGE_MASKED] = {2, 3, 64, 64, 150, 100, {1, 2}},
        [TALL] = {2, 4, 64, 64, 16, 64, {2, 2}},
        [FOUR] = {1, 3, 64, 64, 64, 64, {0, 3}},
        [TILED] = {1, 12, 160, 80, 160, 80, {0, 12}},
        [SMALLER] = {1, 12, 160, 80, 50, 40, {0, 12}},
        [ZOOMED] = {2, 3, 64, 64, 150, 100, {1, 2}},
    };
    for (int i = 0; i < JOBS; i++) {
        admit((enum job)i);
        finish(alone);
        const struct result *r = &alone[i];
        CHECK_INT(r->done, 1);
        CHECK_INT(r->stages, want[i].stages);
        CHECK_INT(r->steps, want[i].steps);
        CHECK(r->width == want[i].width && r->height == want[i].height);
        CHECK_MSG(r->file.width == want[i].file_width && r->file.height == want[i].file_height,
                  "job %d gives %dx%d", i, r->file.width, r->file.height);
        for (int s = 0; s < 2; s++) {
            CHECK_INT(r->used.run[s], want[i].run[s]);
            CHECK_INT(r->used.steps[s], requests[i].steps[s]);
        }
        const bool enlarged = r->used.first > 0;
        CHECK_INT(!*r->used.sampler, enlarged);
        CHECK_INT(r->used.noise_level[0], -1);
        CHECK_INT(r->used.size.width, want[i].file_width);
    }
    CHECK(fabsf(alone[IMAGE].used.strength[0] - 0.7F) < 1e-6F);
    CHECK(alone[MASKED].used.strength[0] == 1 && alone[MASKED].used.strength[1] == 1);
    CHECK(alone[TALL].used.strength[0] > 0.69F && alone[PLAIN].used.strength[0] == 0);
}

// Runs jobs that begin together; each gives the same image as alone.
static void together(const struct result *alone, const enum job *jobs, int n)
{
    struct result r[JOBS] = {0};

    for (int i = 0; i < n; i++)
        admit(jobs[i]);
    finish(r);
    for (int i = 0; i < n; i++)
        same(alone, r, jobs[i]);
    forget(r);
}

static void test_company(const struct result *alone)
{
    struct result r[JOBS] = {0};

    admit(TILED);
    step(r, 1);
    admit(MASKED);
    admit(PLAIN);
    step(r, 2);
    admit(LARGE_MASKED);
    step(r, 3);
    finish(r);
    same(alone, r, TILED);
    same(alone, r, MASKED);
    same(alone, r, PLAIN);
    same(alone, r, LARGE_MASKED);
    forget(r);
    together(alone, (const enum job[]){ZOOMED, IMAGE, SMALLER}, 3);
    // Into places that others have left, kept pixels and all.
    together(alone, (const enum job[]){PLAIN, IMAGE, FOUR, TALL}, 4);
}

// Outside the mask every pixel of the file is the input's, at its own resolution; inside, few are.
static void test_kept(const struct result *alone, enum job i)
{
    const struct picture_edit *e = edits[i];
    const struct codec_image *f = &alone[i].file;
    int kept = 0, changed = 0, drawn = 0;

    CHECK(f->width == e->width && f->height == e->height);
    for (int k = 0; f->rgba && k < e->width * e->height; k++) {
        const bool equal = !memcmp(f->rgba + 4 * k, e->rgb + 3 * k, 3);
        if (!e->drawn[k]) {
            kept++;
            CHECK(equal);
        } else {
            drawn++;
            changed += !equal;
        }
    }
    CHECK(kept > 0 && drawn > 0);
    CHECK_MSG(changed * 10 > drawn * 8, "%d of %d pixels changed", changed, drawn);
}

// In the drawn square too, what is kept is the resized input once the last step is done.
static void test_square(const struct result *alone, enum job i)
{
    float *from = malloc(sizeof(float) * 64 * 64 * 4);
    int kept = 0;

    CHECK_INT(picture_edit_stage(edits[i], &(struct check_size){64, 64}, from), ERR_OK);
    for (int k = 0; k < 64 * 64; k++) {
        if (from[4 * k + 3] == 0)
            continue;
        kept++;
        for (int c = 0; c < 3; c++)
            CHECK_INT(alone[i].rgb[3 * k + c], lrintf((from[4 * k + c] + 1) * 127.5F));
    }
    CHECK(kept > 0);
    free(from);
}

// The less strength, the nearer to the input.
static void test_strength(const struct result *alone)
{
    double distance[2] = {0, 0};

    for (int k = 0; k < 64 * 64 * 3; k++) {
        distance[0] += abs(alone[IMAGE].rgb[k] - edits[IMAGE]->rgb[k]);
        distance[1] += abs(alone[WEAK].rgb[k] - edits[WEAK]->rgb[k]);
    }
    printf("%.1f levels from the input at strength 0.7, %.1f at 0.1\n", distance[0] / (64 * 64 * 3),
           distance[1] / (64 * 64 * 3));
    CHECK(distance[1] > 0 && distance[1] < distance[0] / 2);
}

static void test_refused(void)
{
    const struct picture_edit *image = edits[IMAGE], *masked = edits[MASKED];
    const struct {
        struct picture_request r;
        const char *param;
        enum err e;
    } rows[] = {
        {{.prompt = "a", .strength = {0.5F}}, "strength", ERR_INVALID},
        {{.prompt = "a", .scale = 4}, "scale", ERR_INVALID},
        {{.prompt = "a", .edit = image, .strength = {1.5F}}, "strength", ERR_INVALID},
        {{.prompt = "a", .edit = image, .strength = {-1}}, "strength", ERR_INVALID},
        {{.prompt = "a", .edit = image, .strength = {NAN}}, "strength", ERR_INVALID},
        {{.prompt = "a", .edit = image, .strength = {0.05F}, .steps = {10}},
         "strength",
         ERR_INVALID},
        {{.prompt = "a", .edit = image, .size = {32, 32}}, "size", ERR_INVALID},
        {{.prompt = "a", .edit = edits[TALL], .size = {50, 200}}, "size", ERR_INVALID},
        {{.prompt = "a", .edit = image, .scale = 3}, "scale", ERR_INVALID},
        {{.prompt = "a", .edit = image, .scale = 16}, "scale", ERR_INVALID},
        {{.prompt = "a", .edit = image, .scale = 4, .strength = {0.5F}}, "strength", ERR_INVALID},
        {{.prompt = "a", .edit = image, .scale = 4, .sampler = "ddim"}, "sampler", ERR_INVALID},
        {{.prompt = "a", .edit = image, .scale = 4, .size = {257, 64}}, "size", ERR_INVALID},
        {{.prompt = "a", .edit = masked, .scale = 4}, "mask", ERR_INVALID},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct fault why = {0};
        CHECK_INT(engine_check(engine, &rows[i].r, &why), rows[i].e);
        CHECK_STR(why.param, rows[i].param);
    }
}

// A model without super-resolution edits, and says that it cannot enlarge.
static void test_base_only(void)
{
    struct engine_plan *plan = NULL;
    struct fault why = {0};
    struct picture_used used;
    struct picture_request r = {.prompt = "a", .edit = edits[IMAGE]};

    CHECK_INT(engine_plan_open(&(struct engine_params){.model = GOLDEN "/if-tiny-I"}, &plan, &why),
              ERR_OK);
    CHECK_INT(engine_plan_resolve(plan, &r, &used, &why), ERR_OK);
    // Larger than all that it draws: the result is as large as that.
    CHECK(used.size.width == 16 && used.stages == 1);
    r.scale = 4;
    CHECK_INT(engine_plan_resolve(plan, &r, &used, &why), ERR_UNSUPPORTED);
    CHECK_STR(why.param, "scale");
    engine_plan_close(&plan);
}

// Returns what a program returns, 0 for going on.
static int test_model(const char *model, struct result *alone)
{
    // Not tuned: two engines must have the same kernels to make the same images.
    const struct engine_params p = {.model = model, .slots = 4, .tune = "off"};
    struct fault why = {0};

    if (engine_open(&p, &engine, &why)) {
        fprintf(stderr, "%s\n", why.msg);
        return why.code == ERR_NO_DEVICE ? test_skip(why.msg) : 1;
    }
    CHECK(engine_info(engine)->scale[0] == 4 && !engine_info(engine)->scale[1]);
    test_refused();
    test_alone(alone);
    test_company(alone);
    test_kept(alone, MASKED);
    test_kept(alone, LARGE_MASKED);
    test_kept(alone, ZOOMED);
    test_square(alone, MASKED);
    test_square(alone, LARGE_MASKED);
    test_square(alone, ZOOMED);
    test_strength(alone);
    engine_close(&engine);
    return 0;
}

int main(void)
{
    static const char json[] =
        "{\"kept_pixels\":\"noised\",\"stages\":[{\"path\":\"base\"},{\"path\":\"sr\"}]}";
    struct result clean[JOBS] = {0}, noised[JOBS] = {0};
    int status;

    make_edits();
    test_base_only();
    status = test_model(GOLDEN "/if-tiny-I," GOLDEN "/if-tiny-II", clean);
    if (status)
        return status;
    const char *folder = model_folder(GOLDEN);
    model_folder_write("cascade.json", json, sizeof json - 1);
    status = test_model(folder, noised);
    if (status)
        return status;
    for (int i = 0; i < JOBS; i++) {
        const bool masked = edits[i] && edits[i]->drawn;
        const size_t bytes = (size_t)(clean[i].width * clean[i].height) * 3;
        CHECK_MSG(!memcmp(clean[i].rgb, noised[i].rgb, bytes) == !masked, "job %d", i);
    }
    forget(clean);
    forget(noised);
    for (int i = 0; i < JOBS; i++)
        picture_edit_destroy(&edits[i]);
    return test_end();
}
