// Tables of the values that diffusers' editing pipelines compute before sampling: the size of an
// image, its pixels and its mask's in that size, and the steps that a strength leaves.
#include "pipeline.h"

#include "picture_resize.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool read_table(struct golden *g, const char *name, struct json_t **doc)
{
    char path[GOLDEN_PATH];
    struct fault why = {0};

    snprintf(path, sizeof path, "%s/%s", g->root, name);
    if (!json_parse_file(path, 16 << 20, doc, &why))
        return true;
    golden_fail(g, name, "read", "%s", why.msg);
    return false;
}

static int number(const struct json_t *row, size_t i)
{
    return (int)json_int(json_item(row, i));
}

void check_resize_sizes(struct golden *g, const char *name)
{
    struct json_t *doc = NULL;
    size_t wrong = 0;

    if (!read_table(g, name, &doc))
        return;
    for (size_t i = 0; i < json_count(doc); i++) {
        const struct json_t *row = json_item(doc, i);
        int w, h;
        edit_size(number(row, 0), number(row, 1), number(row, 2), &w, &h);
        wrong += w != number(row, 3) || h != number(row, 4);
    }
    if (wrong || !json_count(doc))
        golden_fail(g, name, "sizes", "%zu of %zu differ", wrong, json_count(doc));
    else
        golden_pass(g, name, "sizes", 0);
    json_destroy(&doc);
}

static void compare_bytes(struct bundle *b, const char *name, const uint8_t *got)
{
    const struct safetensor *want = bundle_find(b, "%s", name);
    size_t wrong = 0;

    for (uint64_t i = 0; got && i < want->elements; i++)
        wrong += got[i] != ((const uint8_t *)want->data)[i];
    if (!got || wrong)
        golden_fail(b->g, b->name, name, "%zu values differ", wrong);
    else
        golden_pass(b->g, b->name, name, 0);
}

// One "x.resized_u8" or "x.16.resized_u8" from "x.source_u8": an image when it has colours, else a
// mask, whose cut is "x.mask".
static void check_resized(struct bundle *b, const char *name)
{
    const struct safetensor *want = bundle_find(b, "%s", name), *source;
    char stem[128];
    struct source s;

    snprintf(stem, sizeof stem, "%.*s", (int)strcspn(name, "."), name);
    source = bundle_find(b, "%s.source_u8", stem);
    if (!source || !edit_source(source, &s)) {
        golden_fail(b->g, b->name, name, "no source");
        return;
    }
    const bool mask = want->dims == 2;
    const int height = (int)want->shape[0], width = (int)want->shape[1];
    uint8_t *px = mask ? edit_luma(&s) : edit_rgb(&s), *got = NULL;
    if (px)
        got = edit_resize(px, s.width, s.height, mask ? 1 : 3, width, height);
    compare_bytes(b, name, got);
    snprintf(stem + strlen(stem), sizeof stem - strlen(stem), ".mask");
    for (int i = 0; got && i < width * height; i++)
        got[i] = got[i] >= 128 ? 255 : 0;
    if (mask && bundle_find(b, "%s", stem))
        compare_bytes(b, stem, got);
    free(px);
    free(got);
}

void check_resize(struct golden *g, const char *name, const struct json_t *fixture)
{
    const struct json_t *meta;
    const char *tensor;
    struct bundle b = {0};
    void *at = NULL;

    if (!bundle_open(g, name, fixture, &b))
        return;
    while (json_next(b.meta, &at, &tensor, &meta))
        if (strstr(tensor, ".resized_u8"))
            check_resized(&b, tensor);
    bundle_close(&b);
}

// A strength of 0 is all steps to a sampler; who asks for it is refused before.
static bool is_right(const struct scheduler_config *config, const struct json_t *row)
{
    struct sampler_params p = {.config = config,
                               .steps = number(row, 1),
                               .strength = fmin(json_number(json_item(row, 2)), 1)};
    const int steps = number(row, 3);
    struct sampler *s = NULL;
    struct fault why = {0};
    bool right;

    if (p.strength <= 0)
        return !steps;
    if (sampler_create(&p, &s, &why))
        return !steps && !strcmp(why.param, "strength");
    right = s->steps == steps && s->step[0].timestep == number(row, 4);
    sampler_destroy(&s);
    return right;
}

// The table says no model: it is the one of the trajectories beside it.
static const char *model_of(const struct golden *g, const char *name)
{
    const size_t folder = strcspn(name, "/") + 1;
    const struct json_t *fixture;
    const char *other, *model;
    void *at = NULL;

    while (json_next(json_find(g->manifest, "fixtures"), &at, &other, &fixture)) {
        model = json_text(json_find(fixture, "model"), NULL);
        if (model && !strncmp(other, name, folder))
            return model;
    }
    return NULL;
}

void check_strength(struct golden *g, const char *name)
{
    const char *model = model_of(g, name);
    struct scheduler_config config;
    struct json_t *doc = NULL;
    char path[GOLDEN_PATH], folder[GOLDEN_PATH];
    size_t wrong = 0;

    snprintf(folder, sizeof folder, "%s%s", model ? model : name, model ? "/" : "");
    golden_path(g, folder, "scheduler/scheduler_config.json", path);
    if (hfconfig_scheduler_read(path, &config, NULL)) {
        golden_fail(g, name, "scheduler", "cannot be read");
        return;
    }
    if (!read_table(g, name, &doc))
        return;
    const enum scheduler_class own = config.cls;
    for (size_t i = 0; i < json_count(doc); i++) {
        const struct json_t *row = json_item(doc, i);
        const char *scheduler = json_text(json_item(row, 0), NULL);
        config.cls = scheduler && !strcmp(scheduler, "dpm") ? SCHEDULER_DPM_MULTISTEP : own;
        wrong += !is_right(&config, row);
    }
    if (wrong || !json_count(doc))
        golden_fail(g, name, "steps", "%zu of %zu rows differ", wrong, json_count(doc));
    else
        golden_pass(g, name, "steps", 0);
    json_destroy(&doc);
}
