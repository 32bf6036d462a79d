// The three picture formats. Runs on libuv's thread pool; reads only its parameters.
#include "encode.h"

#include "engine.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <webp/encode.h>

struct jpeg_failure {
    struct jpeg_error_mgr mgr;
    jmp_buf back;
};

static void jpeg_fail(j_common_ptr c)
{
    longjmp(((struct jpeg_failure *)c->err)->back, 1);
}

static enum err encode_jpeg(const struct encode_params *p, uint8_t **data, size_t *size)
{
    struct jpeg_compress_struct c;
    struct jpeg_failure failure;
    unsigned char *volatile mem = NULL;
    unsigned long n = 0;
    c.err = jpeg_std_error(&failure.mgr);
    failure.mgr.error_exit = jpeg_fail;
    if (setjmp(failure.back)) {
        jpeg_destroy_compress(&c);
        free(mem);
        return ERR_INTERNAL;
    }
    jpeg_create_compress(&c);
    jpeg_mem_dest(&c, (unsigned char **)&mem, &n);
    c.image_width = (JDIMENSION)p->width;
    c.image_height = (JDIMENSION)p->height;
    c.input_components = 3;
    c.in_color_space = JCS_RGB;
    jpeg_set_defaults(&c);
    jpeg_set_quality(&c, p->quality, TRUE);
    jpeg_start_compress(&c, TRUE);
    while (c.next_scanline < c.image_height) {
        JSAMPROW row = (JSAMPROW)(p->rgb + (size_t)c.next_scanline * (size_t)p->width * 3);
        jpeg_write_scanlines(&c, &row, 1);
    }
    jpeg_finish_compress(&c);
    jpeg_destroy_compress(&c);
    *data = mem;
    *size = n;
    return ERR_OK;
}

static enum err encode_webp(const struct encode_params *p, uint8_t **data, size_t *size)
{
    uint8_t *out = NULL;
    const int stride = p->width * 3;
    const size_t n =
        p->quality >= 100
            ? WebPEncodeLosslessRGB(p->rgb, p->width, p->height, stride, &out)
            : WebPEncodeRGB(p->rgb, p->width, p->height, stride, (float)p->quality, &out);
    if (!n)
        return ERR_INTERNAL;
    // WebP's memory is to be freed by WebPFree; ours goes by free.
    *data = malloc(n);
    if (*data)
        memcpy(*data, out, n);
    WebPFree(out);
    *size = n;
    return *data ? ERR_OK : ERR_NO_MEMORY;
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
    switch (p->format) {
    case JOB_JPEG: err = encode_jpeg(p, &data, &size); break;
    case JOB_WEBP: err = encode_webp(p, &data, &size); break;
    default: err = encode_png(p, &data, &size); break;
    }
    if (!err && !(*out = blob_create(data, size)))
        err = ERR_NO_MEMORY;
    if (err)
        return fault_set(why, err, "", "the picture could not be encoded: %s", err_text(err));
    return ERR_OK;
}
