// Reads WebP with libwebp. Called by decode.c.
#include "codec_priv.h"

#include <string.h>
#include <webp/decode.h>

enum { CHUNK = 8, FIRST_CHUNK = 12 };

// EXIF is a separate chunk of the RIFF file, which libwebp's decoder ignores.
void codec_orient_webp(struct codec_reader *r)
{
    for (size_t at = FIRST_CHUNK; r->size - at >= CHUNK;) {
        const uint8_t *chunk = r->data + at;
        const size_t n = codec_little_u32(chunk + 4), left = r->size - at - CHUNK;
        if (n > left)
            return;
        if (!memcmp(chunk, "EXIF", 4)) {
            r->orientation = codec_exif_orientation(chunk + CHUNK, n);
            return;
        }
        at += CHUNK + n + (n % 2 && n < left);
    }
}

static enum err explain(struct codec_reader *r, VP8StatusCode status)
{
    if (status == VP8_STATUS_OUT_OF_MEMORY)
        return fault_set(r->why, ERR_NO_MEMORY, r->limits.name, "%s", err_text(ERR_NO_MEMORY));
    if (status == VP8_STATUS_NOT_ENOUGH_DATA || status == VP8_STATUS_SUSPENDED)
        return codec_refuse(r, "is truncated: its WebP data ends early");
    return codec_refuse(r, "is a damaged WebP file");
}

enum err codec_read_webp(struct codec_reader *r)
{
    WebPDecoderConfig c;
    enum err e;

    if (!WebPInitDecoderConfig(&c))
        return fault_set(r->why, ERR_INTERNAL, r->limits.name, "incompatible version of libwebp");
    VP8StatusCode status = WebPGetFeatures(r->data, r->size, &c.input);
    if (status)
        return explain(r, status);
    if (c.input.has_animation)
        return codec_refuse(r, "is an animated WebP file; give a still image");
    const uint64_t pixels = (uint64_t)c.input.width * (uint64_t)c.input.height;
    // Lossless decoding uses a separate buffer of four bytes per pixel, and small tables.
    e = codec_begin(r, (uint32_t)c.input.width, (uint32_t)c.input.height, 5 * pixels);
    if (e)
        return e;
    c.output.colorspace = MODE_RGBA;
    c.output.is_external_memory = 1;
    c.output.u.RGBA.rgba = r->out->rgba;
    c.output.u.RGBA.stride = 4 * c.input.width;
    c.output.u.RGBA.size = 4 * pixels;
    status = WebPDecode(r->data, r->size, &c);
    WebPFreeDecBuffer(&c.output);
    if (status)
        return explain(r, status);
    codec_orient_webp(r);
    return ERR_OK;
}
