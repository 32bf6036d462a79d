// The decoder of an autoencoder with its named activations, compared with diffusers.
#include "golden.h"

#include "decoder.h"

#include <stdio.h>
#include <stdlib.h>

static struct decoder *load(struct bundle *b, const char *dir)
{
    char path[GOLDEN_PATH + 16];
    struct decoder_config config;
    struct weights *w = NULL;
    struct decoder *v = NULL;
    struct fault why = {0};

    snprintf(path, sizeof path, "%s/config.json", dir);
    if (decoder_read("AutoencoderKL", path, &config, &why) ||
        weights_open(&(struct weights_params){.dir = dir, .base = "diffusion_pytorch_model"}, &w,
                     &why) ||
        decoder_load(b->g->dev, &config, w, b->g->dtype, &v, &why))
        golden_fail(b->g, b->name, "load", "%s", why.msg);
    weights_close(&w);
    return v;
}

static enum err decode(struct bundle *b, const struct decoder *v, const struct tensor *latents,
                       struct points *points)
{
    struct tap tap = {points_keep, points};
    struct ops *o = NULL;
    struct tensor y;
    float *got = NULL;
    enum err e = ops_begin(b->g->dev, b->g->dtype, &o);

    if (e)
        return e;
    y = decoder_record(v, o, latents, &tap);
    e = ops_end(o);
    if (!e)
        e = ops_run(o);
    if (!e) {
        got = malloc(sizeof(float) * tensor_pixels(&y) * y.c);
        e = got ? tensor_download_nchw(&y, got) : ERR_NO_MEMORY;
    }
    if (!e)
        bundle_compare_images(b, "out", got, (struct shape4){y.n, y.c, y.h, y.w});
    if (!e)
        points_compare(points);
    free(got);
    ops_destroy(&o);
    return e;
}

void check_vae(struct golden *g, const char *name, const struct json_t *fixture)
{
    char dir[GOLDEN_PATH];
    struct tensor latents = {0};
    struct bundle b;
    enum err e = ERR_FORMAT;

    if (!bundle_open(g, name, fixture, &b))
        return;
    golden_path(g, name, "vae", dir);
    const struct safetensor *shape = bundle_find(&b, "latents");
    float *z = bundle_floats(&b, "latents");
    struct points *points = points_create(&b);
    struct decoder *v = load(&b, dir);
    if (v && z && points)
        e = tensor_create(g->dev, g->dtype, (uint32_t)shape->shape[0], (uint32_t)shape->shape[2],
                          (uint32_t)shape->shape[3], (uint32_t)shape->shape[1], &latents);
    if (!e)
        e = tensor_upload_nchw(&latents, z);
    if (!e)
        e = decode(&b, v, &latents, points);
    if (e)
        golden_fail(g, name, "decode", "%s", err_text(e));
    tensor_destroy(&latents);
    decoder_destroy(&v);
    points_destroy(&points);
    free(z);
    bundle_close(&b);
}
