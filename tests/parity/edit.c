// The work of diffusers' four editing pipelines before and around the steps: converting images and
// masks to tensors, and blending with the mask after each step. Called by check_pipeline.c; the
// arguments of a call determine its pipeline. Source: IFImg2ImgPipeline, IFInpaintingPipeline and
// their super-resolution variants in diffusers 0.35.
#include "pipeline.h"

#include "ops.h"
#include "picture_resize.h"
#include "ref_maps.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool edit_source(const struct safetensor *f, struct source *s)
{
    if (!f || (f->dims != 2 && f->dims != 3))
        return false;
    *s = (struct source){f->data, (int)f->shape[1], (int)f->shape[0],
                         f->dims == 3 ? (int)f->shape[2] : 1};
    return true;
}

static bool find_source(struct trajectory *t, const char *name, struct source *s)
{
    if (edit_source(bundle_find(t->b, "%s", name), s))
        return true;
    golden_fail(t->b->g, t->b->name, name, "no such 8-bit image");
    return false;
}

// PIL's convert: grey is copied to all colours, alpha is dropped.
uint8_t *edit_rgb(const struct source *s)
{
    const size_t pixels = (size_t)s->width * (size_t)s->height, c = (size_t)s->channels;
    uint8_t *rgb = malloc(3 * pixels);

    for (size_t i = 0; rgb && i < 3 * pixels; i++)
        rgb[i] = s->px[i / 3 * c + (c < 3 ? 0 : i % 3)];
    return rgb;
}

uint8_t *edit_luma(const struct source *s)
{
    const size_t pixels = (size_t)s->width * (size_t)s->height, c = (size_t)s->channels;
    uint8_t *luma = malloc(pixels);

    for (size_t i = 0; luma && i < pixels; i++) {
        const uint8_t *p = s->px + i * c;
        luma[i] =
            c < 3 ? p[0] : (uint8_t)((19595u * p[0] + 38470u * p[1] + 7471u * p[2] + 32768) >> 16);
    }
    return luma;
}

void edit_size(int w, int h, int sample, int *width, int *height)
{
    const double longer = w > h ? w : h, shorter = w > h ? h : w;
    const int other = (int)rint(sample / 8.0 * (longer / shorter)) * 8;

    *width = w > h ? other : sample;
    *height = h > w ? other : sample;
}

uint8_t *edit_resize(const uint8_t *px, int w, int h, int channels, int width, int height)
{
    uint8_t *out = malloc((size_t)width * (size_t)height * (size_t)channels);

    if (out && picture_resize(px, w, h, channels, NULL, width, height, out)) {
        free(out);
        return NULL;
    }
    return out;
}

// One image of a list that an argument names, as floats of the stage's size, [channels, h, w].
static bool read_one(struct trajectory *t, const char *name, bool mask, float *out)
{
    const size_t pixels = t->height * t->width;
    struct source s;
    int w, h;

    if (!find_source(t, name, &s))
        return false;
    edit_size(s.width, s.height, t->f->denoiser_config.size, &w, &h);
    if ((size_t)w != t->width || (size_t)h != t->height) {
        golden_fail(t->b->g, t->b->name, name, "becomes %dx%d, not %zux%zu", w, h, t->width,
                    t->height);
        return false;
    }
    uint8_t *px = mask ? edit_luma(&s) : edit_rgb(&s);
    uint8_t *sized = px ? edit_resize(px, s.width, s.height, mask ? 1 : 3, w, h) : NULL;
    for (size_t i = 0; sized && mask && i < pixels; i++)
        out[i] = sized[i] >= 128;
    for (size_t i = 0; sized && !mask && i < 3 * pixels; i++)
        out[i % 3 * pixels + i / 3] = (float)sized[i] / 127.5f - 1;
    free(px);
    free(sized);
    return sized != NULL;
}

// An argument: a list of names of 8-bit images, or the name of a tensor that is used as it is.
// Returns [*count, channels, h, w]; NULL when something is missing.
static float *read_argument(struct trajectory *t, const char *argument, bool mask, size_t *count)
{
    const struct json_t *v = json_find(t->call, argument);
    const size_t span = (mask ? 1 : 3) * t->height * t->width;
    float *all;

    if (json_kind(v) == JSON_TEXT) {
        const struct safetensor *f = bundle_find(t->b, "%s%s", t->prefix, json_text(v, NULL));
        *count = f ? (size_t)f->shape[0] : 0;
        all = bundle_floats(t->b, "%s%s", t->prefix, json_text(v, NULL));
        for (size_t i = 0; all && mask && i < *count * span; i++)
            all[i] = all[i] >= 0.5f;
        return all;
    }
    *count = json_count(v);
    all = malloc((*count * span + 1) * sizeof *all);
    for (size_t i = 0; all && i < *count; i++)
        if (!read_one(t, json_text(json_item(v, i), NULL), mask, all + i * span)) {
            free(all);
            return NULL;
        }
    return all;
}

bool edit_read(struct trajectory *t)
{
    const size_t pixels = t->height * t->width;
    const char *argument =
        json_kind(json_find(t->call, "original_image")) != JSON_ABSENT ? "original_image" : "image";
    size_t images = 0, masks = 0;
    float *image, *mask = NULL;

    if (json_kind(json_find(t->call, "strength")) == JSON_ABSENT)
        return true;
    image = read_argument(t, argument, false, &images);
    t->masked = json_kind(json_find(t->call, "mask_image")) != JSON_ABSENT;
    if (t->masked)
        mask = read_argument(t, "mask_image", true, &masks);
    t->original = malloc((size_t)t->pictures * pixels * 4 * sizeof *t->original);
    if (!image || !images || (t->masked && (!mask || !masks)) || !t->original) {
        golden_fail(t->b->g, t->b->name, t->prefix, "no image or mask to start from");
        free(image);
        free(mask);
        return false;
    }
    pipeline_compare(t, "original", image, images, 3);
    if (mask)
        pipeline_compare(t, "mask", mask, masks, 1);
    for (size_t i = 0; i < (size_t)t->pictures; i++) {
        const size_t prompt = i / (size_t)t->images_per_prompt;
        const float *from = image + (images > 1 ? prompt : 0) * 3 * pixels;
        const float *repaint = mask ? mask + (masks > 1 ? prompt : 0) * pixels : NULL;
        float *to = t->original + i * 4 * pixels;
        for (size_t k = 0; k < pixels; k++) {
            for (size_t c = 0; c < 3; c++)
                to[4 * k + c] = from[c * pixels + k];
            to[4 * k + 3] = repaint && repaint[k] == 0;
        }
    }
    free(image);
    free(mask);
    return true;
}

void edit_check_low(struct trajectory *t)
{
    const struct json_t *v = json_find(t->call, "image");
    const size_t span = 3 * t->low_height * t->low_width;
    char name[64];

    if (json_kind(v) != JSON_LIST)
        return;
    for (size_t i = 0; t->low && i < json_count(v); i++) {
        const float *low = t->low + i * (size_t)t->images_per_prompt * span;
        struct source s;
        bool same;
        if (!find_source(t, json_text(json_item(v, i), NULL), &s))
            return;
        same = (size_t)s.width * (size_t)s.height * (size_t)s.channels == span;
        for (size_t k = 0; same && k < span; k++)
            same = fabsf((float)s.px[k] / 127.5f - 1 - low[k]) < 1e-6f;
        snprintf(name, sizeof name, "%slow_res", t->prefix);
        if (same)
            golden_pass(t->b->g, t->b->name, name, 0);
        else
            golden_fail(t->b->g, t->b->name, name, "is not the 8-bit image");
    }
}

enum err edit_unblended(struct trajectory *t, int step, const float *m, const float *before)
{
    const size_t pixels = t->height * t->width, span = 3 * pixels, p = (size_t)t->pictures;
    const size_t channels = t->out_channels, input = (t->low ? 6 : 3) * pixels;
    float *work = malloc(3 * span * sizeof *work), *x = work, *x0 = work + span, *z = x0 + span;
    float *noise = pipeline_noise(t, STAGE_NOISE_STEP, step);
    struct op_lane lane = {.guidance = t->guidance};

    if (!work) {
        free(noise);
        return ERR_NO_MEMORY;
    }
    sampler_fill_lane(t->sampler, step, &lane);
    for (size_t i = 0; i < p; i++) {
        float *h1 = t->history + i * span, *h2 = h1 + p * span;
        to_nhwc(before + i * input, 3, pixels, x);
        if (noise)
            to_nhwc(noise + i * span, 3, pixels, z);
        ref_sampler_step(&(struct ref_step_params){
            .lane = &lane,
            .pixels = (uint32_t)pixels,
            .channels = 3,
            .mc = (uint32_t)channels,
            .u = t->guided ? m + i * channels * pixels : NULL,
            .m = m + (i + (t->guided ? p : 0)) * channels * pixels,
            .h1 = h1,
            .h2 = h2,
            .z = z,
            .x = x,
            .x0 = x0,
        });
        memcpy(h2, h1, span * sizeof *h2);
        memcpy(h1, x0, span * sizeof *h1);
        to_nchw(x, 3, pixels, t->unblended + ((size_t)step * p + i) * span);
    }
    free(work);
    free(noise);
    return ERR_OK;
}
