// Pictures into files of the three formats. Runs on libuv's thread pool; reads only its parameters.
#include "encode.h"

#include "buf.h"
#include "codec.h"
#include "engine.h"

#include <stdio.h>

static enum err encode_plain(const struct encode_params *p, uint8_t **data, size_t *size)
{
    struct buf out = {0};
    enum err err = codec_encode(
        &(struct codec_params){
            .format = p->format == JOB_JPEG ? CODEC_JPEG : CODEC_WEBP,
            .quality = p->quality,
            .width = p->width,
            .height = p->height,
            .rgb = p->rgb,
        },
        &out, NULL);
    if (!err) {
        *size = out.len;
        *data = (uint8_t *)buf_take(&out);
    }
    buf_deinit(&out);
    return err;
}

static enum err encode_png(const struct encode_params *p, uint8_t **data, size_t *size)
{
    const struct engine_image image = {p->width, p->height, p->rgb};
    struct engine_used used = {0};
    const struct engine_png_text text = {
        .prompt = p->spec->prompt,
        .negative_prompt = p->spec->negative_prompt,
        .seed = p->spec->seed,
        .picture = (uint32_t)p->picture,
        .used = &used,
    };
    snprintf(used.model, sizeof used.model, "%s", p->used->model);
    snprintf(used.preset, sizeof used.preset, "%s", p->spec->preset ? p->spec->preset : "");
    snprintf(used.sampler, sizeof used.sampler, "%s", p->used->sampler);
    used.size = p->used->size;
    used.stages = p->used->stages;
    for (int i = 0; i < JOB_MAX_STAGES; i++) {
        used.steps[i] = p->used->steps[i];
        used.guidance_scale[i] = p->used->guidance_scale[i];
        used.noise_level[i] = p->used->noise_level[i];
    }
    return engine_png(&image, &text, data, size);
}

enum err encode_picture(const struct encode_params *p, struct blob **out, struct fault *why)
{
    uint8_t *data = NULL;
    size_t size = 0;
    enum err err;
    *out = NULL;
    err = p->format == JOB_PNG ? encode_png(p, &data, &size) : encode_plain(p, &data, &size);
    if (!err && !(*out = blob_create(data, size)))
        err = ERR_NO_MEMORY;
    if (err)
        return fault_set(why, err, "", "the picture could not be encoded: %s", err_text(err));
    return ERR_OK;
}
