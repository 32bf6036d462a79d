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
    return engine_png(&image, &p->request, p->used, data, size);
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
