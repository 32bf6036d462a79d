// Reads a model's folders and configs. Called when an engine opens and by inspect, on any thread.
// Knows nothing about weights or devices.
#include "cascade.h"

#include "gguf.h"
#include "json.h"
#include "loras.h"
#include "model_path.h"
#include "variant.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_JSON = 1 << 20, RGB = 3 };

// The authors' recommendations, which are diffusers' defaults. In the order of enum
// hfconfig_pipeline.
static const struct {
    int steps, noise_level;
    float guidance_scale;
} recommended[] = {{100, -1, 7}, {50, 250, 4}, {75, 20, 9}};

static enum err join(char *out, const char *dir, const char *file, struct fault *why)
{
    if (snprintf(out, CASCADE_PATH, "%s/%s", dir, file) >= CASCADE_PATH)
        return fault_set(why, ERR_INVALID, "model", "the path %.200s... is too long", dir);
    return ERR_OK;
}

// Whether the folder has the file; a dangling link counts, and reading it reports the error.
static bool exists(const char *dir, const char *file)
{
    char path[CASCADE_PATH];
    struct stat st;

    return !join(path, dir, file, NULL) && lstat(path, &st) == 0;
}

// IF's stages share the first text encoder and the first tokenizer among their folders.
static enum err read_text(struct cascade *c, struct cascade_network *n,
                          const struct hfconfig_index *index, struct fault *why)
{
    struct cascade_text *t;
    char path[CASCADE_PATH];
    enum err e = ERR_OK;

    n->text = index->pipeline == PIPELINE_UPSCALE ? c->texts++ : 0;
    t = &c->text[n->text];
    if (index->text_encoder && !t->dir[0]) {
        e = join(t->dir, n->dir, "text_encoder", why);
        if (!e)
            e = join(path, t->dir, "config.json", why);
        if (!e)
            e = text_encoder_read(index->text_encoder, path, &t->config, why);
    }
    if (!e && index->tokenizer && !t->tokenizer_dir[0])
        e = join(t->tokenizer_dir, n->dir, "tokenizer", why);
    return e;
}

static enum err read_scheduler(const struct cascade_network *n, const char *file, int cls,
                               struct scheduler_config *out, struct fault *why)
{
    char path[CASCADE_PATH];
    const enum err e = join(path, n->dir, file, why);

    return e ? e : hfconfig_scheduler_read_as(path, (enum scheduler_class)cls, out, why);
}

// Reads the config files of one pipeline folder.
static enum err read_network(struct cascade *c, struct cascade_network *n, struct fault *why)
{
    struct hfconfig_index index;
    char path[CASCADE_PATH];
    enum err e = join(path, n->dir, "model_index.json", why);

    if (!e && !exists(n->dir, "model_index.json"))
        e = model_path_explain(n->dir, why);
    if (!e)
        e = hfconfig_index_read(path, &index, why);
    if (!e)
        e = join(path, n->dir, "unet/config.json", why);
    if (!e)
        e = denoiser_read(index.unet, path, &n->denoiser, why);
    if (!e)
        e = read_scheduler(n, "scheduler/scheduler_config.json", index.scheduler, &n->scheduler,
                           why);
    if (!e && index.vae)
        e = join(path, n->dir, "vae/config.json", why);
    if (!e && index.vae)
        e = decoder_read(index.vae, path, &n->decoder, why);
    if (e)
        return e;
    n->pipeline = index.pipeline;
    n->safety_checker = index.safety_checker;
    n->watermarker = index.watermarker;
    n->super_resolution = index.pipeline != PIPELINE_IF;
    n->max_noise_level = index.pipeline == PIPELINE_UPSCALE ? index.max_noise_level : INT_MAX;
    if (n->super_resolution)
        e = read_scheduler(n,
                           index.pipeline == PIPELINE_UPSCALE
                               ? "low_res_scheduler/scheduler_config.json"
                               : "image_noising_scheduler/scheduler_config.json",
                           index.noising, &n->noising, why);
    return e ? e : read_text(c, n, &index, why);
}

// Adds a folder's network for a stage; reads it only once, even if it is named repeatedly.
static enum err add_network(struct cascade *c, const char *dir, int stage, int *out,
                            struct fault *why)
{
    for (int i = 0; i < c->networks; i++)
        if (c->network[i].stage == stage && !strcmp(c->network[i].dir, dir)) {
            *out = i;
            return ERR_OK;
        }
    if (c->networks == CASCADE_MAX_NETWORKS)
        return fault_set(why, ERR_UNSUPPORTED, "model", "a cascade has at most %d networks",
                         CASCADE_MAX_NETWORKS);
    if (strlen(dir) >= CASCADE_PATH)
        return fault_set(why, ERR_INVALID, "model", "the path %.200s... is too long", dir);
    struct cascade_network *n = &c->network[c->networks];
    snprintf(n->dir, sizeof n->dir, "%s", dir);
    model_path_name(dir, n->name, sizeof n->name);
    n->stage = stage;
    *out = c->networks++;
    return read_network(c, n, why);
}

// The edge of a network's images: that of its own, or the multiple that its decoder makes of the
// stage before; 0: unknown.
static int edge_of(const struct cascade *c, const struct cascade_network *n)
{
    if (!n->decoder.cls)
        return n->denoiser.size;
    return n->stage ? c->size[n->stage - 1] * n->decoder.factor : 0;
}

// Adds a stage with its authors' recommendations.
static enum err add_stage(struct cascade *c, const char *dir, struct fault *why)
{
    const int i = c->stages;
    int network;
    enum err e;

    if (i == CASCADE_MAX_STAGES)
        return fault_set(why, ERR_UNSUPPORTED, "model", "a cascade has at most %d stages",
                         CASCADE_MAX_STAGES);
    e = add_network(c, dir, i, &network, why);
    if (e)
        return e;
    const struct cascade_network *n = &c->network[network];
    c->size[i] = edge_of(c, n);
    c->preset[0].stage[i] = (struct cascade_settings){
        .network = network,
        .steps = recommended[n->pipeline].steps,
        .guidance_scale = recommended[n->pipeline].guidance_scale,
        .guidance_interval = {0, INT_MAX},
        .noise_level = recommended[n->pipeline].noise_level,
    };
    c->stages++;
    return ERR_OK;
}

// ---- cascade.json -----------------------------------------------------------------------------

#define SETTINGS                                                                                   \
    "path", "sampler", "steps", "guidance_scale", "guidance_interval", "noise_level", "timesteps"
static const char *const cascade_keys[] = {"name",        "license", "stages", "presets",
                                           "kept_pixels", "shapes",  NULL};
static const char *const stage_keys[] = {SETTINGS, "size", NULL};
static const char *const preset_keys[] = {"stages", NULL};
static const char *const preset_stage_keys[] = {SETTINGS, NULL};

// Reads "steps" or "timesteps"; either one replaces both inherited values.
static void read_steps(struct json_reader *r, struct cascade_settings *s)
{
    const enum json_kind kind = json_key(r, "timesteps");

    if (kind == JSON_ABSENT) {
        if (json_key(r, "steps") != JSON_ABSENT)
            s->timestep_count = 0;
        s->steps = (int)json_read_int(r, "steps", s->steps, 1, 1000);
        return;
    }
    const size_t count = json_count(json_find(r->map, "timesteps"));
    if (json_key(r, "steps") != JSON_ABSENT)
        json_fail(r, ERR_FORMAT, "timesteps", "cannot be combined with steps");
    else if (kind != JSON_LIST || count < 1 || count > CASCADE_MAX_TIMESTEPS)
        json_fail(r, ERR_FORMAT, "timesteps", "must be a list of 1 to %d", CASCADE_MAX_TIMESTEPS);
    else
        json_read_ints(r, "timesteps", 0, 0, INT_MAX, (int)count, s->timesteps);
    if (!r->err)
        s->steps = s->timestep_count = (int)count;
}

static void read_settings(struct json_reader *r, struct cascade_settings *s)
{
    const char *sampler = json_read_text(r, "sampler", s->sampler);

    if (strlen(sampler) >= sizeof s->sampler)
        json_fail(r, ERR_FORMAT, "sampler", "is too long");
    else if (sampler != s->sampler)
        snprintf(s->sampler, sizeof s->sampler, "%s", sampler);
    read_steps(r, s);
    s->guidance_scale = (float)json_read_number(r, "guidance_scale", s->guidance_scale, 1, 100);
    if (json_key(r, "guidance_interval") != JSON_ABSENT)
        json_read_ints(r, "guidance_interval", 0, 0, INT_MAX, 2, s->guidance_interval);
    if (s->guidance_interval[0] > s->guidance_interval[1])
        json_fail(r, ERR_FORMAT, "guidance_interval", "must not end before it starts");
    if (s->noise_level >= 0)
        s->noise_level = (int)json_read_int(r, "noise_level", s->noise_level, 0, 999);
    else if (json_key(r, "noise_level") != JSON_ABSENT)
        json_fail(r, ERR_FORMAT, "noise_level", "is not allowed for the base stage");
}

static enum err read_stage(struct cascade *c, const struct json_t *v, const char *dir,
                           const char *file, struct fault *why)
{
    struct json_reader r = json_reader(v, file, ERR_FORMAT, why);
    char folder[CASCADE_PATH];
    enum err e;

    json_only_keys(&r, stage_keys);
    const char *path = json_read_text(&r, "path", NULL);
    if (!r.err && !path)
        json_fail(&r, ERR_FORMAT, "path", "is missing; every stage needs one");
    e = r.err ? r.err : join(folder, dir, path, why);
    if (!e)
        e = add_stage(c, folder, why);
    if (e)
        return e;
    const int i = c->stages - 1;
    c->size[i] = (int)json_read_int(&r, "size", c->size[i], 8, 4096);
    read_settings(&r, &c->preset[0].stage[i]);
    return r.err;
}

static enum err read_preset_stage(struct cascade *c, const struct json_t *v, const char *dir,
                                  const char *file, int i, struct fault *why)
{
    struct cascade_settings *s = &c->preset[c->presets - 1].stage[i];
    struct json_reader r = json_reader(v, file, ERR_FORMAT, why);
    char folder[CASCADE_PATH];

    json_only_keys(&r, preset_stage_keys);
    const char *path = json_read_text(&r, "path", NULL);
    if (!r.err && path) {
        enum err e = join(folder, dir, path, why);
        if (!e)
            e = add_network(c, folder, i, &s->network, why);
        if (e)
            return e;
        // Another network has its own scheduler.
        if (s->network != c->preset[0].stage[i].network) {
            s->sampler[0] = 0;
            s->timestep_count = 0;
        }
    }
    read_settings(&r, s);
    return r.err;
}

static enum err read_preset(struct cascade *c, const char *name, const struct json_t *v,
                            const char *dir, const char *file, struct fault *why)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789-_.";
    struct cascade_preset *p = &c->preset[c->presets];
    char where[CASCADE_PATH + 48];
    enum err e = ERR_OK;

    snprintf(where, sizeof where, "%s, preset %.31s", file, name);
    struct json_reader r = json_reader(v, where, ERR_FORMAT, why);
    json_only_keys(&r, preset_keys);
    const struct json_t *stages = r.err ? NULL : json_find(v, "stages");
    if (!r.err && (!*name || strlen(name) >= sizeof p->name || name[strspn(name, letters)]))
        json_fail(&r, ERR_FORMAT, "presets",
                  "must have names of 1 to %zu lowercase letters, digits, '-', '_' and '.'",
                  sizeof p->name - 1);
    if (!r.err && c->presets == CASCADE_MAX_PRESETS)
        json_fail(&r, ERR_UNSUPPORTED, "presets", "must not have more than %d entries",
                  CASCADE_MAX_PRESETS - 1);
    if (!r.err && (json_kind(stages) != JSON_LIST || json_count(stages) != (size_t)c->stages))
        json_fail(&r, ERR_FORMAT, "stages", "must be a list of %d entries, one per stage",
                  c->stages);
    if (r.err)
        return r.err;
    *p = c->preset[0];
    snprintf(p->name, sizeof p->name, "%s", name);
    c->presets++;
    for (int i = 0; !e && i < c->stages; i++)
        e = read_preset_stage(c, json_item(stages, (size_t)i), dir, where, i, why);
    return e;
}

static enum err read_presets(struct cascade *c, const struct json_t *presets, const char *dir,
                             const char *file, struct fault *why)
{
    const struct json_t *v;
    const char *name;
    void *at = NULL;
    enum err e = ERR_OK;

    while (!e && json_next(presets, &at, &name, &v))
        e = read_preset(c, name, v, dir, file, why);
    return e;
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
    json_only_keys(&r, cascade_keys);
    const char *name = json_read_text(&r, "name", c->name);
    if (!r.err && name != c->name)
        snprintf(c->name, sizeof c->name, "%.63s", name);
    const char *kept = json_read_text(&r, "kept_pixels", "clean");
    c->noised_edits = !r.err && !strcmp(kept, "noised");
    if (!r.err && !c->noised_edits && strcmp(kept, "clean"))
        json_fail(&r, ERR_FORMAT, "kept_pixels", "must be \"clean\" or \"noised\"");
    const char *shapes = json_read_text(&r, "shapes", "square");
    c->square = r.err || !strcmp(shapes, "square");
    if (!r.err && !c->square && strcmp(shapes, "any"))
        json_fail(&r, ERR_FORMAT, "shapes", "must be \"square\" or \"any\"");
    const struct json_t *stages = r.err ? NULL : json_find(doc, "stages");
    const struct json_t *presets = r.err ? NULL : json_find(doc, "presets");
    if (!r.err && (json_kind(stages) != JSON_LIST || !json_count(stages)))
        json_fail(&r, ERR_FORMAT, "stages", "must be a list of 1 to %d stages", CASCADE_MAX_STAGES);
    if (!r.err && presets && json_kind(presets) != JSON_MAP)
        json_fail(&r, ERR_FORMAT, "presets", "must be an object that maps names to presets");
    e = r.err;
    for (size_t i = 0; !e && i < json_count(stages); i++)
        e = read_stage(c, json_item(stages, i), dir, path, why);
    if (!e)
        e = read_presets(c, presets, dir, path, why);
    json_destroy(&doc);
    return e;
}

// ---- checks -----------------------------------------------------------------------------------

// Checks the channels of a network: those of its state, and of the low-res image.
static enum err check_channels(struct cascade_network *n, struct fault *why)
{
    const struct denoiser_config *d = &n->denoiser;
    const int state = n->decoder.cls ? n->decoder.channels : RGB;
    const int channels = state + (n->super_resolution ? RGB : 0);

    if (state != RGB && state != 4)
        return fault_set(why, ERR_UNSUPPORTED, "latent_channels",
                         "the VAE of stage %d (%s) has %d latent channels, which are not "
                         "supported; 3 and 4 are",
                         n->stage + 1, n->name, state);
    if (d->in_channels != channels)
        return fault_set(why, ERR_UNSUPPORTED, "in_channels",
                         "the U-Net of stage %d (%s) has %d input channels, expected %d",
                         n->stage + 1, n->name, d->in_channels, channels);
    n->variance = d->out_channels == 2 * state && !n->decoder.cls;
    if (d->out_channels != state && !n->variance)
        return fault_set(why, ERR_UNSUPPORTED, "out_channels",
                         "the U-Net of stage %d (%s) has %d output channels, expected %d",
                         n->stage + 1, n->name, d->out_channels, state);
    if (state != RGB && d->patch != 1)
        return fault_set(why, ERR_UNSUPPORTED, "patch_size",
                         "the U-Net of stage %d (%s) has patch_size %d, which is not supported "
                         "for latents",
                         n->stage + 1, n->name, d->patch);
    return ERR_OK;
}

// Checks that the stage before makes images that an upscaler takes.
static enum err check_upscaler(const struct cascade *c, const struct cascade_network *n,
                               struct fault *why)
{
    const int low = c->size[n->stage - 1];

    if (low % n->denoiser.multiple)
        return fault_set(why, ERR_UNSUPPORTED, "size",
                         "stage %d (%s) enlarges images whose edges are multiples of %d, but those "
                         "of the stage before have %d pixels",
                         n->stage + 1, n->name, n->denoiser.multiple, low);
    if (c->size[n->stage] != low * n->decoder.factor)
        return fault_set(why, ERR_UNSUPPORTED, "size",
                         "stage %d (%s) enlarges %d pixels to %d, not to %d", n->stage + 1, n->name,
                         low, low * n->decoder.factor, c->size[n->stage]);
    return ERR_OK;
}

// Checks that a network fits its stage.
static enum err check_network(struct cascade *c, int index, struct fault *why)
{
    struct cascade_network *n = &c->network[index], *own = &c->network[n->stage];
    const struct cascade_text *text = &c->text[n->text];
    const int i = n->stage;
    enum err e;

    e = check_channels(n, why);
    if (e)
        return e;
    if (n->denoiser.noise_levels && !n->super_resolution)
        return fault_set(why, ERR_UNSUPPORTED, "num_class_embeds",
                         "the U-Net of stage %d (%s) has num_class_embeds, which is not supported",
                         i + 1, n->name);
    if (n->denoiser.text_width != text->config.width)
        return fault_set(
            why, ERR_UNSUPPORTED, "encoder_hid_dim",
            "stage %d (%s) expects text embeddings of width %d, but the text encoder produces %d",
            i + 1, n->name, n->denoiser.text_width, text->config.width);
    if (!n->decoder.cls != !own->decoder.cls)
        return fault_set(why, ERR_UNSUPPORTED, "model",
                         "stage %d (%s) and %s must both work on pixels or both on latents", i + 1,
                         n->name, own->name);
    if (edge_of(c, n) != edge_of(c, own))
        return fault_set(why, ERR_UNSUPPORTED, "sample_size",
                         "the image size of stage %d (%s) is %d, but that of %s is %d", i + 1,
                         n->name, edge_of(c, n), own->name, edge_of(c, own));
    return n->decoder.cls ? check_upscaler(c, n, why) : ERR_OK;
}

enum err cascade_check_level(const struct cascade_network *n, int noise_level, struct fault *why)
{
    const int rows = n->denoiser.noise_levels ? n->denoiser.noise_levels - 1 : INT_MAX;
    const int most = n->max_noise_level < rows ? n->max_noise_level : rows;
    double signal, noise;

    if (noise_level > most)
        return fault_set(why, ERR_INVALID, "noise_level",
                         "noise_level of stage %d (%s) must be 0 to %d, not %d", n->stage + 1,
                         n->name, most, noise_level);
    return sampler_noise_mix(&n->noising, noise_level, &signal, &noise, why);
}

// Checks a stage's settings: the sampler, its number of steps, the noise level.
static enum err check_settings(const struct cascade *c, const struct cascade_preset *p, int i,
                               struct fault *why)
{
    const struct cascade_settings *s = &p->stage[i];
    const struct cascade_network *n = &c->network[s->network];
    struct sampler *sampler = NULL;
    struct fault fault = {0};
    enum err e = cascade_sampler(c, s, &sampler, &fault);

    if (!e && sampler->needs_variance && !n->variance)
        e = fault_set(
            &fault, ERR_UNSUPPORTED, "variance_type",
            "the scheduler requires a learned variance, which the U-Net does not predict");
    if (!e && i > 0)
        e = cascade_check_level(n, s->noise_level, &fault);
    sampler_destroy(&sampler);
    if (!e)
        return e;
    return fault_set(why, e == ERR_INVALID ? ERR_FORMAT : e, fault.param,
                     "%s%s%sstage %d (%s): %.200s", *p->name ? "preset " : "", p->name,
                     *p->name ? ", " : "", i + 1, n->name, fault.code ? fault.msg : err_text(e));
}

// Whether all networks take states whose base image has sides of multiples of `step`.
static bool fits_step(const struct cascade *c, int step)
{
    for (int i = 0; i < c->networks; i++) {
        const struct cascade_network *n = &c->network[i];
        const int state = n->stage - (n->decoder.cls != NULL);
        if (step * (c->size[state] / c->size[0]) % n->denoiser.multiple)
            return false;
    }
    return true;
}

// The step of the base image's sides; 0: only squares.
static int find_step(const struct cascade *c)
{
    for (int i = 0; i < c->stages; i++)
        if (c->square || c->size[i] % c->size[0])
            return 0;
    for (int step = 1; step < c->size[0]; step++)
        if (c->size[0] % step == 0 && fits_step(c, step))
            return step;
    return 0;
}

// Checks that each stage's input has the size of the previous stage's output.
static enum err check(struct cascade *c, struct fault *why)
{
    for (int i = 0; i < c->networks; i++) {
        const struct cascade_network *n = &c->network[i];
        if (n->super_resolution != (n->stage > 0))
            return fault_set(why, ERR_UNSUPPORTED, "model",
                             "stage %d (%s) must be %s pipeline; name the folders in the order of "
                             "their stages",
                             n->stage + 1, n->name, n->stage ? "a super-resolution" : "a base");
    }
    if (!c->text[0].dir[0] || !c->text[0].tokenizer_dir[0])
        return fault_set(why, ERR_NOT_FOUND, "model",
                         "no stage has a text encoder and a tokenizer");
    for (int i = 0; i < c->networks; i++) {
        enum err e = check_network(c, i, why);
        if (e)
            return e;
    }
    for (int i = 0; i < c->stages; i++) {
        const char *name = c->network[i].name;
        if (c->size[i] < 1)
            return fault_set(why, ERR_UNSUPPORTED, "sample_size",
                             "the U-Net config of stage %d (%s) has no sample_size", i + 1, name);
        if (i && c->size[i] <= c->size[i - 1])
            return fault_set(why, ERR_UNSUPPORTED, "size",
                             "stage %d (%s) must enlarge the image, but its size is %d after %d",
                             i + 1, name, c->size[i], c->size[i - 1]);
    }
    for (int p = 0; p < c->presets; p++)
        for (int i = 0; i < c->stages; i++) {
            enum err e = check_settings(c, &c->preset[p], i, why);
            if (e)
                return e;
        }
    return ERR_OK;
}

enum err cascade_sampler(const struct cascade *c, const struct cascade_settings *s,
                         struct sampler **out, struct fault *why)
{
    const struct cascade_network *n = &c->network[s->network];
    const struct scheduler_config scheduler = loras_scheduler(n, &c->applied[n->stage]);

    return sampler_create(
        &(struct sampler_params){
            .config = &scheduler,
            .name = s->sampler[0] ? s->sampler : NULL,
            .steps = s->steps,
            .timesteps = s->timestep_count ? s->timesteps : NULL,
            .timestep_count = s->timestep_count,
        },
        out, why);
}

const char *cascade_sampler_name(const struct cascade *c, const struct cascade_settings *s)
{
    return s->sampler[0] ? s->sampler : sampler_default_name(&c->network[s->network].scheduler);
}

// A GGUF file takes the place of the text encoder before any folder is read.
static enum err read_text_file(struct cascade *c, const char *file, struct fault *why)
{
    if (!gguf_is(file))
        return fault_set(why, ERR_INVALID, "text-encoder",
                         "text encoder \"%.100s\" is not the path of a .gguf file", file);
    if (strlen(file) >= CASCADE_PATH)
        return fault_set(why, ERR_INVALID, "text-encoder", "the path %.200s... is too long", file);
    snprintf(c->text[0].dir, sizeof c->text[0].dir, "%s", file);
    c->text[0].gguf = true;
    return text_encoder_read_gguf(file, &c->text[0].config, why);
}

enum err cascade_read(const struct cascade_files *files, struct cascade *out, struct fault *why)
{
    const char *model = files->model;
    char *copy, *rest = NULL;
    enum err e = ERR_OK;

    memset(out, 0, sizeof *out);
    out->presets = 1;
    out->texts = 1;
    model_path_name(model, out->name, sizeof out->name);
    if (files->text_encoder)
        e = read_text_file(out, files->text_encoder, why);
    if (e)
        return e;
    if (exists(model, "cascade.json")) {
        e = read_cascade_json(model, out, why);
    } else {
        copy = strdup(model);
        if (!copy)
            return fault_set(why, ERR_NO_MEMORY, "model", "no memory");
        for (char *dir = strtok_r(copy, ",", &rest); dir && !e; dir = strtok_r(NULL, ",", &rest))
            e = add_stage(out, dir, why);
        free(copy);
        if (!e && !out->stages)
            e = fault_set(why, ERR_INVALID, "model", "no model folder given");
        if (!e)
            snprintf(out->name, sizeof out->name, "%s", out->network[0].name);
    }
    if (files->name)
        snprintf(out->name, sizeof out->name, "%s", files->name);
    struct cascade_text *text = &out->text[0];
    if (text->gguf && !text->tokenizer_dir[0])
        snprintf(text->tokenizer_dir, sizeof text->tokenizer_dir, "%s", text->dir);
    if (!e)
        e = check(out, why);
    if (!e)
        out->shape_step = find_step(out);
    if (!e)
        e = variant_choose(out, files->variant, why);
    if (!e && files->lora)
        e = loras_read(out, files->lora, true, why);
    if (!e && files->lora_choices)
        e = loras_read(out, files->lora_choices, false, why);
    return e ? e : vocabulary_read(model, &out->vocabulary, why);
}

void cascade_deinit(struct cascade *c)
{
    vocabulary_unref(&c->vocabulary);
}

enum err cascade_preset_find(const struct cascade *c, const char *name, int *out, struct fault *why)
{
    char names[160] = "";
    size_t at = 0;

    *out = 0;
    if (!name)
        return ERR_OK;
    for (int i = 1; i < c->presets; i++) {
        if (!strcmp(c->preset[i].name, name)) {
            *out = i;
            return ERR_OK;
        }
        if (at < sizeof names)
            at += (size_t)snprintf(names + at, sizeof names - at, "%s%s", i > 1 ? ", " : "",
                                   c->preset[i].name);
    }
    return fault_set(why, ERR_INVALID, "preset", "unknown preset \"%.40s\"; this model has %s",
                     name, *names ? names : "none");
}
