// One U-Net forward pass with all its named activations, compared with diffusers.
#include "golden.h"

#include "hfconfig.h"
#include "unet.h"
#include "weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct unet *load(struct bundle *b, const char *dir)
{
    char path[GOLDEN_PATH + 16];
    struct unet_config *config = malloc(sizeof *config);
    struct weights *w = NULL;
    struct unet *u = NULL;
    struct fault why = {0};

    snprintf(path, sizeof path, "%s/config.json", dir);
    if (!config || hfconfig_unet_read(path, config, &why) ||
        weights_open(&(struct weights_params){.dir = dir, .base = "diffusion_pytorch_model"}, &w,
                     &why) ||
        unet_load(b->g->dev, config, w, b->g->dtype, &u, &why))
        golden_fail(b->g, b->name, "load", "%s", why.msg);
    weights_close(&w);
    free(config);
    return u;
}

// The forward's inputs on the device.
struct inputs {
    struct tensor sample, timestep, level, noise_index, index, states;
};

// values NULL: n, n + 1, ...: the prompts' entries, behind as many that nobody fills.
static enum err put_words(struct ops_device *dev, const int64_t *values, uint32_t n,
                          enum dtype dtype, struct tensor *out)
{
    enum err e = tensor_create_mapped(dev, dtype, n, 1, 1, 1, out);

    for (uint32_t i = 0; !e && i < n; i++) {
        const int64_t v = values ? values[i] : n + i;
        if (dtype == DT_U32)
            ((uint32_t *)tensor_map(out))[i * out->cs] = (uint32_t)v;
        else
            ((float *)tensor_map(out))[i * out->cs] = (float)v;
    }
    return e;
}

static enum err put_inputs(struct bundle *b, struct inputs *in)
{
    const struct safetensor *sample = bundle_find(b, "sample");
    const struct safetensor *states = bundle_find(b, "encoder_hidden_states");
    float *x = bundle_floats(b, "sample"), *s = bundle_floats(b, "encoder_hidden_states");
    int64_t *t = bundle_ints(b, "timestep"), *level = bundle_ints(b, "class_labels");
    struct ops_device *dev = b->g->dev;
    enum err e = ERR_FORMAT;

    if (!x || !s || !t)
        goto done;
    const uint32_t n = (uint32_t)sample->shape[0];
    e = tensor_create(dev, b->g->dtype, n, (uint32_t)sample->shape[2], (uint32_t)sample->shape[3],
                      (uint32_t)sample->shape[1], &in->sample);
    if (!e)
        e = tensor_upload_nchw(&in->sample, x);
    if (!e)
        e = tensor_create(dev, b->g->dtype, n, 1, (uint32_t)states->shape[1],
                          (uint32_t)states->shape[2], &in->states);
    if (!e)
        e = tensor_upload(&in->states, s);
    if (!e)
        e = put_words(dev, t, n, DT_F32, &in->timestep);
    if (!e)
        e = put_words(dev, level, n, DT_F32, &in->level);
    if (!e)
        e = put_words(dev, level, n, DT_U32, &in->noise_index);
    if (!e)
        e = put_words(dev, NULL, n, DT_U32, &in->index);
done:
    free(x);
    free(s);
    free(t);
    free(level);
    return e;
}

// A patchified network takes its sample pixel-unshuffled.
static struct tensor unshuffled(struct ops *o, const struct unet *u, const struct tensor *sample)
{
    const uint32_t p = (uint32_t)unet_get_config(u)->patch_size;
    struct tensor y;

    if (p == 1)
        return *sample;
    y = ops_temp(o, sample->n, sample->h / p, sample->w / p, sample->c * p * p);
    op_pixel_unshuffle(o, p, sample, &y);
    return y;
}

static enum err forward(struct bundle *b, const struct unet *u, const struct inputs *in,
                        struct points *points)
{
    struct tap tap = {points_keep, points};
    struct unet_text *text = NULL;
    struct ops *o = NULL;
    struct tensor x, y;
    float *got = NULL;
    const uint32_t n = in->sample.n;
    enum err e = unet_text_create(u, 2 * n, in->states.w, &text);

    if (!e)
        e = ops_begin(b->g->dev, b->g->dtype, &o);
    if (e)
        goto done;
    unet_record_text(u, o, &in->states, text, n, &tap);
    x = unshuffled(o, u, &in->sample);
    y = unet_record(u, o,
                    &(struct unet_inputs){
                        .sample = &x,
                        .timestep = &in->timestep,
                        .noise_level = &in->level,
                        .noise_index = &in->noise_index,
                        .text_index = &in->index,
                        .text = text,
                    },
                    &tap);
    e = ops_end(o);
    if (!e)
        e = ops_run(o);
    if (e)
        goto done;
    got = malloc(sizeof(float) * tensor_pixels(&y) * y.c);
    e = got ? tensor_download_nchw(&y, got) : ERR_NO_MEMORY;
    if (!e)
        bundle_compare_images(b, "out", got, (struct shape4){y.n, y.c, y.h, y.w});
done:
    free(got);
    ops_destroy(&o);
    unet_text_destroy(&text);
    return e;
}

void check_forward(struct bundle *b, const char *unet_dir)
{
    struct points *points = points_create(b);
    struct unet *u = points ? load(b, unet_dir) : NULL;
    struct inputs in = {0};
    enum err e;

    if (u) {
        e = put_inputs(b, &in);
        if (!e)
            e = forward(b, u, &in, points);
        if (e)
            golden_fail(b->g, b->name, "forward", "%s", err_text(e));
        else
            points_compare(points);
    }
    tensor_destroy(&in.sample);
    tensor_destroy(&in.states);
    tensor_destroy(&in.timestep);
    tensor_destroy(&in.level);
    tensor_destroy(&in.noise_index);
    tensor_destroy(&in.index);
    unet_destroy(&u);
    points_destroy(&points);
}

void check_unet(struct golden *g, const char *name, const struct json_t *fixture)
{
    char dir[GOLDEN_PATH];
    struct bundle b = {0};

    if (!bundle_open(g, name, fixture, &b))
        return;
    golden_path(g, name, "unet", dir);
    check_forward(&b, dir);
    bundle_close(&b);
}
