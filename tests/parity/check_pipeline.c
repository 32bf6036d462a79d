// Complete pipeline runs with recorded noise, compared with IFPipeline, IFSuperResolutionPipeline
// and the four editing pipelines (edit.c): text states, U-Net outputs, guided outputs, samples
// after every step, and the image.
#include "pipeline.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- the call's arguments ---------------------------------------------------------------------

// Entry i of a prompt argument that may be one text, a list, or absent.
static const char *prompt_at(const struct json_t *v, int i)
{
    if (json_kind(v) == JSON_TEXT)
        return json_text(v, NULL);
    if (json_kind(v) == JSON_LIST)
        return json_text(json_item(v, (size_t)i), NULL);
    return "";
}

static bool read_text(struct trajectory *t)
{
    const size_t l = (size_t)text_length(t->f->text), d = (size_t)text_dim(t->f->text);
    const struct json_t *prompt = json_find(t->call, "prompt");
    const struct json_t *negative = json_find(t->call, "negative_prompt");
    char name[64];

    t->states = malloc(2 * (size_t)t->pictures * l * d * sizeof *t->states);
    for (int i = 0; t->states && i < 2 * t->pictures; i++) {
        const bool is_negative = i < t->pictures;
        struct text_states states;
        const char *text =
            prompt_at(is_negative ? negative : prompt, i % t->pictures / t->images_per_prompt);
        struct fault why = {0};
        if (text_encode(t->f->text, text, &states, &why)) {
            golden_fail(t->b->g, t->b->name, t->prefix, "%s", why.msg);
            return false;
        }
        memcpy(t->states + (size_t)i * l * d, states.v, l * d * sizeof *states.v);
    }
    if (!t->states)
        return false;
    snprintf(name, sizeof name, "%sprompt_embeds", t->prefix);
    bundle_compare(t->b, name, t->guided ? t->states : t->states + (size_t)t->pictures * l * d);
    return true;
}

// The fixtures swap the scheduler's class as users do, by from_config; `about` says so.
static void choose_scheduler(const struct trajectory *t, struct scheduler_config *config)
{
    *config = t->f->scheduler;
    if (strstr(t->about, "DPMSolverMultistepScheduler.from_config"))
        config->cls = SCHEDULER_DPM_MULTISTEP;
    if (strstr(t->about, "DDIMScheduler.from_config"))
        config->cls = SCHEDULER_DDIM;
    if (strstr(t->about, "'variance_type': 'fixed_small'"))
        config->variance_type = VARIANCE_FIXED_SMALL;
}

static bool make_sampler(struct trajectory *t)
{
    const struct json_t *list = json_find(t->call, "timesteps");
    struct scheduler_config config;
    struct sampler_params p = {
        .config = &config,
        .steps = (int)json_int(json_find(t->call, "num_inference_steps")),
        .eta = json_number(json_find(t->call, "eta")),
        .strength = fmin(json_number(json_find(t->call, "strength")), 1),
    };
    int timesteps[1000];
    struct fault why = {0};

    choose_scheduler(t, &config);
    if (list) {
        p.timestep_count = (int)json_count(list);
        for (int i = 0; i < p.timestep_count && i < 1000; i++)
            timesteps[i] = (int)json_int(json_item(list, (size_t)i));
        p.timesteps = timesteps;
    }
    if (sampler_create(&p, &t->sampler, &why)) {
        golden_fail(t->b->g, t->b->name, t->prefix, "%s", why.msg);
        return false;
    }
    return true;
}

static void check_timestep_list(struct trajectory *t)
{
    const struct safetensor *shape = bundle_find(t->b, "%stimesteps", t->prefix);
    int64_t *want = bundle_ints(t->b, "%stimesteps", t->prefix);
    char name[64];
    bool same = want && shape->elements == (uint64_t)t->sampler->steps;

    for (int i = 0; same && i < t->sampler->steps; i++)
        same = want[i] == t->sampler->step[i].timestep;
    snprintf(name, sizeof name, "%stimesteps", t->prefix);
    if (same)
        golden_pass(t->b->g, t->b->name, name, 0);
    else
        golden_fail(t->b->g, t->b->name, name, "other timesteps");
    free(want);
}

// ---- running ----------------------------------------------------------------------------------

void to_nhwc(const float *x, size_t c, size_t pixels, float *out)
{
    for (size_t i = 0; i < pixels; i++)
        for (size_t k = 0; k < c; k++)
            out[i * c + k] = x[k * pixels + i];
}

void to_nchw(const float *x, size_t c, size_t pixels, float *out)
{
    for (size_t i = 0; i < pixels; i++)
        for (size_t k = 0; k < c; k++)
            out[k * pixels + i] = x[i * c + k];
}

// A fixture may leave a step's noise out when it is the first noise again.
float *pipeline_noise(struct trajectory *t, enum stage_noise kind, int step)
{
    float *z = NULL;

    if (kind == STAGE_NOISE_AUGMENT) {
        z = bundle_floats(t->b, "%snoise_aug", t->prefix);
        return z ? z : bundle_floats(t->b, "%snoise_lowres", t->prefix);
    }
    if (kind == STAGE_NOISE_STEP)
        z = bundle_floats(t->b, "%snoise_step%d", t->prefix, step);
    return z ? z : bundle_floats(t->b, "%snoise_init", t->prefix);
}

static void give(void *ctx, int entry, enum stage_noise kind, int step, float *z)
{
    struct trajectory *t = ctx;
    const size_t pixels = t->height * t->width;
    const size_t channels = kind == STAGE_NOISE_AUGMENT ? 3 : t->channels;
    float *all = pipeline_noise(t, kind, step);

    if (all)
        to_nhwc(all + (size_t)entry * channels * pixels, channels, pixels, z);
    else
        golden_fail(t->b->g, t->b->name, t->prefix, "noise %d of step %d is missing", kind, step);
    free(all);
}

static enum err enter_all(struct trajectory *t, struct fault *why)
{
    const size_t span = (size_t)text_length(t->f->text) * (size_t)text_dim(t->f->text);
    const size_t low = 3 * t->low_height * t->low_width, state = 4 * t->height * t->width;

    for (int i = 0; i < t->pictures; i++) {
        struct trajectory copy = *t;
        enum err e;
        if (!make_sampler(&copy))
            return ERR_INVALID;
        e = stage_enter(t->stage,
                        &(struct stage_start){
                            .sampler = copy.sampler,
                            .text = t->states + (size_t)(t->pictures + i) * span,
                            .negative = t->guided ? t->states + (size_t)i * span : NULL,
                            .guidance = t->guidance,
                            .guidance_interval = {0, INT_MAX},
                            .low = t->low ? t->low + (size_t)i * low : NULL,
                            .noise_level = t->noise_level,
                            .original = t->original ? t->original + (size_t)i * state : NULL,
                        },
                        &t->entry[i], why);
        if (e)
            return e;
    }
    return ERR_OK;
}

// Guidance mixes the noise half only; the variance half is the prompt's.
static void guide(const struct trajectory *t, const float *m, size_t channels, float *out)
{
    const size_t pixels = t->height * t->width, c = t->out_channels;

    for (size_t i = 0; i < (size_t)t->pictures; i++) {
        const float *a = m + i * c * pixels;
        const float *b = t->guided ? a + (size_t)t->pictures * c * pixels : a;
        for (size_t k = 0; k < channels * pixels; k++)
            out[i * channels * pixels + k] =
                t->guided && k < t->channels * pixels ? a[k] + t->guidance * (b[k] - a[k]) : b[k];
    }
}

static enum err collect(struct trajectory *t, int step, size_t guided_channels)
{
    const struct tensor *m = stage_output(t->stage);
    const size_t pixels = t->height * t->width, batch = (size_t)m->n;
    float *out = t->unet_out + (size_t)step * batch * t->out_channels * pixels;
    float *nhwc = malloc(t->channels * pixels * sizeof *nhwc);
    enum err e = nhwc ? tensor_download_nchw(m, out) : ERR_NO_MEMORY;

    if (!e)
        guide(t, out, guided_channels,
              t->model_output + (size_t)step * (size_t)t->pictures * guided_channels * pixels);
    for (int i = 0; !e && i < t->pictures; i++) {
        e = stage_state(t->stage, t->entry[i], nhwc);
        to_nchw(nhwc, t->channels, pixels,
                t->x + (size_t)(step * t->pictures + i) * t->channels * pixels);
    }
    free(nhwc);
    return e;
}

// ---- comparing --------------------------------------------------------------------------------

void pipeline_compare(struct trajectory *t, const char *point, const float *got, size_t n, size_t c)
{
    char name[64];

    snprintf(name, sizeof name, "%s%s", t->prefix, point);
    if (bundle_find(t->b, "%s", name))
        bundle_compare_images(t->b, name, got, (struct shape4){n, c, t->height, t->width});
}

// 8-bit images must be equal, except for pixels whose float value lies within the image's tolerance
// of the border between two values.
static void compare_rgb(struct trajectory *t)
{
    const struct safetensor *want = bundle_find(t->b, "%simage_u8", t->prefix);
    float *image = bundle_floats(t->b, "%simage", t->prefix);
    const size_t pixels = t->height * t->width;
    char name[64];
    size_t wrong = 0;

    snprintf(name, sizeof name, "%simage", t->prefix);
    const double slack = bundle_tolerance(t->b, name, 1) * 127.5;
    snprintf(name, sizeof name, "%simage_u8", t->prefix);
    for (int i = 0; want && image && i < t->pictures; i++) {
        const uint8_t *rgb, *ref = (const uint8_t *)want->data + (size_t)i * 3 * pixels;
        if (stage_rgb(t->stage, t->entry[i], &rgb)) {
            golden_fail(t->b->g, t->b->name, name, "no picture");
            break;
        }
        for (size_t k = 0; k < 3 * pixels; k++) {
            const double exact = image[((size_t)i * 3 + k % 3) * pixels + k / 3] * 127.5 + 127.5;
            const double border = fabs(exact - floor(exact) - .5);
            wrong += rgb[k] != ref[k] && (abs(rgb[k] - ref[k]) > 1 || border > slack);
        }
    }
    if (want && wrong)
        golden_fail(t->b->g, t->b->name, name, "%zu values differ", wrong);
    else if (want)
        golden_pass(t->b->g, t->b->name, name, 0);
    free(image);
}

// The last state, decoded and mapped to [0, 1].
static void compare_decoded(struct trajectory *t)
{
    const size_t f = (size_t)t->f->decoder_config.factor;
    const size_t height = t->height * f, width = t->width * f, span = 3 * height * width;
    float *all = malloc((size_t)t->pictures * span * sizeof *all);
    float *nhwc = malloc(span * sizeof *nhwc);
    char name[64];
    enum err e = all && nhwc ? ERR_OK : ERR_NO_MEMORY;

    for (int i = 0; !e && i < t->pictures; i++) {
        e = stage_picture(t->stage, t->entry[i], nhwc);
        for (size_t k = 0; !e && k < span; k++)
            nhwc[k] = fminf(fmaxf(nhwc[k] / 2 + 0.5F, 0), 1);
        to_nchw(nhwc, 3, height * width, all + (size_t)i * span);
    }
    snprintf(name, sizeof name, "%sdecoded", t->prefix);
    if (e)
        golden_fail(t->b->g, t->b->name, name, "%s", err_text(e));
    else if (bundle_find(t->b, "%s", name))
        bundle_compare_images(t->b, name, all,
                              (struct shape4){(size_t)t->pictures, 3, height, width});
    free(all);
    free(nhwc);
}

static void compare_low(struct trajectory *t)
{
    const size_t pixels = t->height * t->width;
    float *all = malloc((size_t)t->pictures * 3 * pixels * sizeof *all);
    float *one = malloc(3 * pixels * sizeof *one);

    for (int i = 0; all && one && i < t->pictures; i++) {
        if (stage_low(t->stage, t->entry[i], one))
            golden_fail(t->b->g, t->b->name, "upscaled_noisy", "cannot be read");
        to_nchw(one, 3, pixels, all + (size_t)i * 3 * pixels);
    }
    if (all && one) {
        pipeline_compare(t, "upscaled_noisy", all, (size_t)t->pictures, 3);
        pipeline_compare(t, "upscaled_noisy.sub", all, (size_t)t->pictures, 3);
        pipeline_compare(t, "low_res_noisy", all, (size_t)t->pictures, 3);
    }
    free(all);
    free(one);
}

// x and, for super-resolution, the noised low-res image: what the U-Net gets at the next step.
static enum err collect_input(struct trajectory *t, float *out)
{
    const size_t pixels = t->height * t->width, state = t->channels;
    const size_t channels = state + (t->low ? 3 : 0);
    float *nhwc = malloc(state * pixels * sizeof *nhwc);
    enum err e = nhwc ? ERR_OK : ERR_NO_MEMORY;

    for (int i = 0; !e && i < t->pictures; i++) {
        float *to = out + (size_t)i * channels * pixels;
        e = stage_state(t->stage, t->entry[i], nhwc);
        to_nchw(nhwc, state, pixels, to);
        if (!e && t->low) {
            e = stage_low(t->stage, t->entry[i], nhwc);
            to_nchw(nhwc, 3, pixels, to + state * pixels);
        }
    }
    free(nhwc);
    return e;
}

static size_t guided_channels(struct trajectory *t)
{
    const struct safetensor *m = bundle_find(t->b, "%smodel_output", t->prefix);

    return m && m->dims > 3 ? (size_t)m->shape[m->dims - 3] : t->out_channels;
}

static void compare_start(struct trajectory *t, const float *input)
{
    const size_t pixels = t->height * t->width, span = t->channels * pixels;
    const size_t stride = span + (t->low ? 3 * pixels : 0);
    float *x = malloc((size_t)t->pictures * span * sizeof *x);

    for (size_t i = 0; x && i < (size_t)t->pictures; i++)
        memcpy(x + i * span, input + i * stride, span * sizeof *x);
    if (x)
        pipeline_compare(t, "x_start", x, (size_t)t->pictures, t->channels);
    free(x);
}

// The states before a step, and what that step makes of them without a mask.
static enum err step_once(struct trajectory *t, int step, float *input)
{
    const struct tensor *m;
    float *nhwc = NULL;
    enum err e = collect_input(t, input);

    if (!e)
        e = stage_step(t->stage, t->entry, t->pictures);
    if (e || !t->masked)
        return e;
    m = stage_output(t->stage);
    nhwc = malloc((size_t)m->n * m->h * m->w * m->c * sizeof *nhwc);
    e = nhwc ? tensor_download(m, nhwc) : ERR_NO_MEMORY;
    if (!e)
        e = edit_unblended(t, step, nhwc, input);
    free(nhwc);
    return e;
}

static enum err run_steps(struct trajectory *t, size_t guided, float *input, struct fault *why)
{
    const size_t p = (size_t)t->pictures, channels = t->channels + (t->low ? 3 : 0);
    enum err e = enter_all(t, why);

    if (!e && t->low)
        compare_low(t);
    for (int s = 0; !e && s < t->sampler->steps; s++) {
        e = step_once(t, s, input);
        if (!e && !s)
            compare_start(t, input);
        if (!e)
            e = collect(t, s, guided);
    }
    if (!e)
        pipeline_compare(t, "unet_in_last", input, p, channels);
    return e;
}

static void run(struct trajectory *t)
{
    const size_t pixels = t->height * t->width, steps = (size_t)t->sampler->steps;
    const size_t p = (size_t)t->pictures, batch = t->guided ? 2 * p : p;
    const size_t guided = guided_channels(t), x = p * t->channels * pixels;
    struct fault why = {0};
    enum err e = ERR_NO_MEMORY;

    t->unet_out = malloc(steps * batch * t->out_channels * pixels * sizeof(float));
    t->model_output = malloc(steps * p * guided * pixels * sizeof(float));
    t->x = malloc(steps * x * sizeof(float));
    t->unblended = malloc(steps * x * sizeof(float));
    t->history = calloc(2 * x, sizeof(float));
    float *input = malloc((x + p * 3 * pixels) * sizeof *input);
    if (t->unet_out && t->model_output && t->x && t->unblended && t->history && input)
        e = run_steps(t, guided, input, &why);
    free(input);
    if (e) {
        golden_fail(t->b->g, t->b->name, t->prefix, "%s", why.msg[0] ? why.msg : err_text(e));
        return;
    }
    pipeline_compare(t, "unet_out", t->unet_out, steps * batch, t->out_channels);
    pipeline_compare(t, "unet_out.sub", t->unet_out, batch, t->out_channels);
    pipeline_compare(t, "model_output", t->model_output, steps * p, guided);
    if (t->masked)
        pipeline_compare(t, "x_unblended", t->unblended, steps * p, 3);
    pipeline_compare(t, "x", t->x, steps * p, t->channels);
    pipeline_compare(t, "image", t->x + (steps - 1) * x, p, t->channels);
    compare_rgb(t);
    if (t->f->decoder)
        compare_decoded(t);
}

static bool read_low(struct trajectory *t)
{
    const struct safetensor *low = bundle_find(t->b, "%slow_res", t->prefix);
    const char *prefix = low ? t->prefix : "";
    float *nchw;

    if (!low)
        low = bundle_find(t->b, "low_res");
    nchw = bundle_floats(t->b, "%slow_res", prefix);
    if (!low || !nchw) {
        golden_fail(t->b->g, t->b->name, t->prefix, "low_res is missing");
        free(nchw);
        return false;
    }
    t->low_height = (size_t)low->shape[2];
    t->low_width = (size_t)low->shape[3];
    const size_t span = 3 * t->low_height * t->low_width;
    // One per image, or per prompt.
    const size_t each = (size_t)t->pictures / (size_t)low->shape[0];
    t->low = malloc((size_t)t->pictures * span * sizeof *t->low);
    for (size_t i = 0; t->low && i < (size_t)t->pictures; i++)
        to_nhwc(nchw + i / each * span, 3, t->low_height * t->low_width, t->low + i * span);
    free(nchw);
    edit_check_low(t);
    return t->low != NULL;
}

static bool prepare(struct trajectory *t)
{
    const struct safetensor *image = bundle_find(t->b, "%simage", t->prefix);
    const struct json_t *per_prompt = json_find(t->call, "num_images_per_prompt");
    struct bundle *b = t->b;
    enum err e;

    t->pictures = (int)image->shape[0];
    t->images_per_prompt = per_prompt ? (int)json_int(per_prompt) : 1;
    t->height = (size_t)image->shape[2];
    t->width = (size_t)image->shape[3];
    t->guidance = (float)json_number(json_find(t->call, "guidance_scale"));
    t->guided = t->guidance > 1;
    if (!t->guided)
        t->guidance = 1;
    t->noise_level = (int)json_int(json_find(t->call, "noise_level"));
    t->channels = t->f->decoder ? (size_t)t->f->decoder_config.channels : 3;
    t->out_channels = (size_t)t->f->denoiser_config.out_channels;
    if (t->pictures > MAX_PICTURES || !make_sampler(t))
        return false;
    check_timestep_list(t);
    if ((is_super(t->f) && !read_low(t)) || !edit_read(t))
        return false;
    e = stage_create(
        &(struct stage_params){
            .dev = b->g->dev,
            .denoiser = t->f->denoiser,
            .decoder = t->f->decoder,
            .dtype = b->g->dtype,
            .noising = is_super(t->f) ? &t->f->noising : NULL,
            .height = (uint32_t)t->height,
            .width = (uint32_t)t->width,
            .low_height = (uint32_t)t->low_height,
            .low_width = (uint32_t)t->low_width,
            .entries = (uint32_t)t->pictures,
            .text_length = (uint32_t)text_length(t->f->text),
            .text_dim = (uint32_t)text_dim(t->f->text),
            .noise = give,
            .noise_ctx = t,
        },
        &t->stage);
    if (e)
        golden_fail(b->g, b->name, t->prefix, "%s", err_text(e));
    return !e && read_text(t);
}

static void check_call(struct bundle *b, struct folder *f, const char *image,
                       const struct json_t *meta)
{
    struct trajectory t = {
        .b = b,
        .f = f,
        .call = json_find(meta, "call"),
        .about = json_text(json_find(meta, "about"), NULL),
    };

    snprintf(t.prefix, sizeof t.prefix, "%.*s", (int)(strlen(image) - strlen("image")), image);
    if (t.about && prepare(&t))
        run(&t);
    stage_destroy(&t.stage);
    sampler_destroy(&t.sampler);
    free(t.states);
    free(t.low);
    free(t.original);
    free(t.unblended);
    free(t.history);
    free(t.unet_out);
    free(t.model_output);
    free(t.x);
}

void check_pipeline(struct golden *g, const char *name, const struct json_t *fixture)
{
    struct folder *f = calloc(1, sizeof *f);
    struct bundle b = {0};
    const struct json_t *meta;
    const char *tensor;
    void *at = NULL;

    if (!f || !bundle_open(g, name, fixture, &b)) {
        free(f);
        return;
    }
    if (folder_load(&b, fixture, f)) {
        while (json_next(b.meta, &at, &tensor, &meta)) {
            if (json_find(meta, "call"))
                check_call(&b, f, tensor, meta);
        }
    }
    folder_deinit(f);
    free(f);
    bundle_close(&b);
}
