// Reading a model's folders and configs. Called when an engine opens and by inspect, on any thread.
// Knows nothing of weights or devices.
#include "cascade.h"

#include "json.h"

#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// What DeepFloyd's authors recommend for their two stages (100 and 50 steps in diffusers'
// defaults).
enum { IF_STEPS = 100, IF_SUPER_STEPS = 50, IF_NOISE_LEVEL = 250, MAX_JSON = 1 << 20 };
static const float if_guidance = 7, if_super_guidance = 4;

static enum err join(char *out, const char *dir, const char *file, struct fault *why)
{
    if (snprintf(out, CASCADE_PATH, "%s/%s", dir, file) >= CASCADE_PATH)
        return fault_set(why, ERR_INVALID, "model", "the path %.200s... is too long", dir);
    return ERR_OK;
}

static bool exists(const char *dir, const char *file)
{
    char path[CASCADE_PATH];

    return !join(path, dir, file, NULL) && access(path, F_OK) == 0;
}

static void base_name(const char *path, char *out, size_t n)
{
    char copy[CASCADE_PATH];

    snprintf(copy, sizeof copy, "%s", path);
    snprintf(out, n, "%.63s", basename(copy));
}

// The config files of one pipeline folder; the first folder with a text encoder lends it to all.
static enum err read_stage(struct cascade *c, struct cascade_stage *s, struct fault *why)
{
    struct hfconfig_index index;
    char path[CASCADE_PATH];
    enum err e = join(path, s->dir, "model_index.json", why);

    if (!e)
        e = hfconfig_index_read(path, &index, why);
    if (!e && (!index.unet || !index.scheduler))
        e = fault_set(why, ERR_UNSUPPORTED, "model", "%.200s names no unet or no scheduler", path);
    if (!e)
        e = join(path, s->dir, "unet/config.json", why);
    if (!e)
        e = hfconfig_unet_read(path, &s->unet, why);
    if (!e)
        e = join(path, s->dir, "scheduler/scheduler_config.json", why);
    if (!e)
        e = hfconfig_scheduler_read(path, &s->scheduler, why);
    if (e)
        return e;
    s->super_resolution = index.pipeline == PIPELINE_IF_SUPER;
    if (s->super_resolution) {
        e = join(path, s->dir, "image_noising_scheduler/scheduler_config.json", why);
        if (!e)
            e = hfconfig_scheduler_read(path, &s->noising, why);
    }
    if (!e && index.text_encoder && !c->text_dir[0]) {
        e = join(c->text_dir, s->dir, "text_encoder", why);
        if (!e)
            e = join(path, c->text_dir, "config.json", why);
        if (!e)
            e = hfconfig_t5_read(path, &c->t5, why);
    }
    if (!e && index.tokenizer && !c->tokenizer_dir[0])
        e = join(c->tokenizer_dir, s->dir, "tokenizer", why);
    return e;
}

static void recommend_if(struct cascade_stage *s)
{
    s->size = s->unet.sample_size;
    s->steps = s->super_resolution ? IF_SUPER_STEPS : IF_STEPS;
    s->guidance_scale = s->super_resolution ? if_super_guidance : if_guidance;
    s->noise_level = s->super_resolution ? IF_NOISE_LEVEL : -1;
    base_name(s->dir, s->name, sizeof s->name);
}

static enum err add_folder(struct cascade *c, const char *dir, struct fault *why)
{
    struct cascade_stage *s = &c->stage[c->stages];
    enum err e;

    if (c->stages == CASCADE_MAX_STAGES)
        return fault_set(why, ERR_UNSUPPORTED, "model", "a cascade has at most %d stages",
                         CASCADE_MAX_STAGES);
    if (strlen(dir) >= sizeof s->dir)
        return fault_set(why, ERR_INVALID, "model", "the path %.200s... is too long", dir);
    snprintf(s->dir, sizeof s->dir, "%s", dir);
    e = read_stage(c, s, why);
    if (e)
        return e;
    recommend_if(s);
    c->stages++;
    return ERR_OK;
}

static enum err read_recommendation(struct cascade *c, const struct json_t *v, const char *dir,
                                    const char *file, struct fault *why)
{
    struct json_reader r = json_reader(v, file, ERR_FORMAT, why);
    const char *path = json_read_text(&r, "path", NULL);
    char folder[CASCADE_PATH];
    enum err e;

    if (r.err)
        return r.err;
    if (!path)
        return json_fail(&r, ERR_FORMAT, "path", "a stage needs a path");
    e = join(folder, dir, path, why);
    if (!e)
        e = add_folder(c, folder, why);
    if (e)
        return e;
    struct cascade_stage *s = &c->stage[c->stages - 1];
    s->size = (int)json_read_int(&r, "size", s->size, 8, 4096);
    snprintf(s->sampler, sizeof s->sampler, "%.31s", json_read_text(&r, "sampler", ""));
    s->steps = (int)json_read_int(&r, "steps", s->steps, 1, 1000);
    s->guidance_scale = (float)json_read_number(&r, "guidance_scale", s->guidance_scale, 1, 100);
    if (s->super_resolution)
        s->noise_level = (int)json_read_int(&r, "noise_level", s->noise_level, 0, 999);
    return r.err;
}

static enum err read_cascade_json(const char *dir, struct cascade *c, struct fault *why)
{
    struct json_t *doc = NULL;
    char path[CASCADE_PATH];
    enum err e = join(path, dir, "cascade.json", why);

    if (!e)
        e = json_parse_file(path, MAX_JSON, &doc, why);
    if (e)
        return e;
    struct json_reader r = json_reader(doc, path, ERR_FORMAT, why);
    const char *name = json_read_text(&r, "name", c->name);
    if (!r.err)
        snprintf(c->name, sizeof c->name, "%.63s", name);
    const struct json_t *stages = json_find(doc, "stages");
    if (!r.err && (json_kind(stages) != JSON_LIST || !json_count(stages)))
        json_fail(&r, ERR_FORMAT, "stages", "stages must be a list of 1 to 3 stages");
    e = r.err;
    for (size_t i = 0; !e && i < json_count(stages); i++)
        e = read_recommendation(c, json_item(stages, i), dir, path, why);
    json_destroy(&doc);
    return e;
}

// A stage must take what the one before it gives.
static enum err check(const struct cascade *c, struct fault *why)
{
    if (!c->text_dir[0] || !c->tokenizer_dir[0])
        return fault_set(why, ERR_NOT_FOUND, "model",
                         "no stage has a text encoder and a tokenizer");
    for (int i = 0; i < c->stages; i++) {
        const struct cascade_stage *s = &c->stage[i];
        const int channels = s->super_resolution ? 6 : 3;
        if (s->super_resolution != (i > 0))
            return fault_set(why, ERR_UNSUPPORTED, "model", "stage %d (%s) must be %s pipeline",
                             i + 1, s->name, i ? "a super-resolution" : "a base");
        if (s->unet.in_channels != channels)
            return fault_set(why, ERR_UNSUPPORTED, "in_channels",
                             "the U-Net of stage %d (%s) takes %d channels, expected %d", i + 1,
                             s->name, s->unet.in_channels, channels);
        if (s->unet.text_dim != c->t5.d_model)
            return fault_set(why, ERR_UNSUPPORTED, "encoder_hid_dim",
                             "stage %d (%s) takes text of width %d, the encoder gives %d", i + 1,
                             s->name, s->unet.text_dim, c->t5.d_model);
        if (s->size < 1)
            return fault_set(why, ERR_UNSUPPORTED, "sample_size",
                             "the U-Net config of stage %d (%s) has no sample_size", i + 1,
                             s->name);
        if (i && s->size <= c->stage[i - 1].size)
            return fault_set(why, ERR_UNSUPPORTED, "size",
                             "stage %d (%s) does not enlarge: %d after %d", i + 1, s->name, s->size,
                             c->stage[i - 1].size);
    }
    return ERR_OK;
}

enum err cascade_read(const char *model, struct cascade *out, struct fault *why)
{
    char *copy, *rest = NULL;
    enum err e = ERR_OK;

    memset(out, 0, sizeof *out);
    base_name(model, out->name, sizeof out->name);
    if (exists(model, "cascade.json")) {
        e = read_cascade_json(model, out, why);
    } else {
        copy = strdup(model);
        if (!copy)
            return fault_set(why, ERR_NO_MEMORY, "model", "no memory");
        for (char *dir = strtok_r(copy, ",", &rest); dir && !e; dir = strtok_r(NULL, ",", &rest)) {
            if (!exists(dir, "model_index.json"))
                e = fault_set(why, ERR_NOT_FOUND, "model",
                              "%.200s has neither a cascade.json nor a model_index.json", dir);
            else
                e = add_folder(out, dir, why);
        }
        free(copy);
        if (!e && !out->stages)
            e = fault_set(why, ERR_INVALID, "model", "no model folder is given");
        if (!e)
            snprintf(out->name, sizeof out->name, "%s", out->stage[0].name);
    }
    return e ? e : check(out, why);
}
