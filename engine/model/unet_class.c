// UNet2DConditionModel as a class of denoisers. Called through denoiser.c.
#include "denoiser.h"
#include "unet.h"

#include <stdio.h>

static enum err read(const char *path, struct denoiser_config *out, struct fault *why)
{
    struct unet_config *c = &out->unet;
    const enum err e = hfconfig_unet_read(path, c, why);

    if (e)
        return e;
    out->in_channels = c->in_channels;
    out->out_channels = c->out_channels;
    out->size = c->sample_size;
    out->multiple = c->patch_size << (c->levels - 1);
    out->patch = c->patch_size;
    out->text_width = c->text_dim;
    out->noise_levels = c->class_embeds;
    out->align_corners = c->low_res_align_corners;
    return ERR_OK;
}

static void describe(const struct denoiser_config *config, char *out, size_t n)
{
    const struct unet_config *c = &config->unet;
    size_t at = (size_t)snprintf(out, n, "U-Net        channels");

    for (int i = 0; i < c->levels && at < n; i++)
        at += (size_t)snprintf(out + at, n - at, "%s%d", i ? "/" : " ", c->channels[i]);
    if (at < n)
        snprintf(out + at, n - at, ", %d in, %d out, patch %d, text %d -> %d", c->in_channels,
                 c->out_channels, c->patch_size, c->text_dim, c->cross_dim);
}

static enum err load(struct ops_device *dev, const struct denoiser_config *c, struct weights *w,
                     enum dtype dtype, void **network, struct fault *why)
{
    struct unet *u = NULL;
    const enum err e = unet_load(dev, &c->unet, w, dtype, &u, why);

    *network = u;
    return e;
}

static void destroy(void *network)
{
    struct unet *u = network;

    unet_destroy(&u);
}

static uint64_t parameters(const void *network)
{
    return unet_parameters(network);
}

static enum err text_create(const void *network, uint32_t entries, uint32_t length, void **text)
{
    struct unet_text *t = NULL;
    const enum err e = unet_text_create(network, entries, length, &t);

    *text = t;
    return e;
}

static void text_destroy(void *text)
{
    struct unet_text *t = text;

    unet_text_destroy(&t);
}

static void record_text(const void *network, struct ops *o, const struct tensor *states, void *text,
                        uint32_t first)
{
    unet_record_text(network, o, states, text, first, NULL);
}

static struct tensor record(const void *network, struct ops *o, const struct denoiser_inputs *in,
                            const void *text)
{
    return unet_record(network, o,
                       &(struct unet_inputs){
                           .sample = in->sample,
                           .timestep = in->timestep,
                           .noise_level = in->noise_level,
                           .noise_index = in->noise_index,
                           .text_index = in->text_index,
                           .text = text,
                       },
                       NULL);
}

const struct denoiser_class unet_denoiser = {
    .name = "UNet2DConditionModel",
    .read = read,
    .describe = describe,
    .load = load,
    .destroy = destroy,
    .parameters = parameters,
    .text_create = text_create,
    .text_destroy = text_destroy,
    .record_text = record_text,
    .record = record,
};
