// Writes WebP with libwebp, lossless at the highest quality. Called by codec.c.
#include "codec_priv.h"

#include <string.h>
#include <webp/encode.h>

enum { FIRST_CHUNK = 12, HAS_XMP = 4 };

static void put_u32(struct buf *b, size_t v)
{
    const uint8_t bytes[4] = {(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16),
                              (uint8_t)(v >> 24)};
    buf_add(b, bytes, sizeof bytes);
}

static void put_u24(struct buf *b, int v)
{
    const uint8_t bytes[3] = {(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16)};
    buf_add(b, bytes, sizeof bytes);
}

// Writes the extended file format: a feature header, the chunk of the simple format, the metadata.
// Source: WebP Container Specification.
static void put_extended(const struct codec_params *p, const uint8_t *simple, size_t n,
                         struct buf *out)
{
    const size_t xmp = strlen(p->xmp), odd = xmp % 2, image = n - FIRST_CHUNK;

    buf_puts(out, "RIFF");
    put_u32(out, 4 + 18 + image + 8 + xmp + odd);
    buf_puts(out, "WEBPVP8X");
    put_u32(out, 10);
    put_u32(out, HAS_XMP);
    put_u24(out, p->width - 1);
    put_u24(out, p->height - 1);
    buf_add(out, simple + FIRST_CHUNK, image);
    buf_puts(out, "XMP ");
    put_u32(out, xmp);
    buf_puts(out, p->xmp);
    if (odd)
        buf_putc(out, 0);
}

enum err codec_encode_webp(const struct codec_params *p, struct buf *out)
{
    uint8_t *mem = NULL;
    const int stride = p->width * 3;
    const size_t n =
        p->quality == CODEC_LOSSLESS
            ? WebPEncodeLosslessRGB(p->rgb, p->width, p->height, stride, &mem)
            : WebPEncodeRGB(p->rgb, p->width, p->height, stride, (float)p->quality, &mem);

    if (n > FIRST_CHUNK && p->xmp)
        put_extended(p, mem, n, out);
    else if (n)
        buf_add(out, mem, n);
    WebPFree(mem);
    return !n ? ERR_INTERNAL : out->failed ? ERR_NO_MEMORY : ERR_OK;
}
