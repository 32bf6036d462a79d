// Writes WebP with libwebp, lossless at the highest quality. Called by codec.c.
#include "codec_priv.h"

#include <string.h>
#include <webp/encode.h>

enum { FIRST_CHUNK = 12, HAS_XMP = 4, HAS_EXIF = 8 };

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

static void put_chunk(struct buf *out, const char *name, const char *data, size_t n)
{
    buf_puts(out, name);
    put_u32(out, n);
    buf_add(out, data, n);
    if (n % 2)
        buf_putc(out, 0);
}

// Writes the extended file format: a feature header, the chunk of the simple format, the metadata.
// Source: WebP Container Specification.
static void put_extended(const struct codec_params *p, const uint8_t *simple, size_t n,
                         struct buf *out)
{
    const size_t start = out->len;
    struct buf exif = {0};

    buf_add(out, "RIFF\0\0\0\0WEBPVP8X", 16);
    put_u32(out, 10);
    put_u32(out, (p->xmp ? HAS_XMP : 0) | (p->comment ? HAS_EXIF : 0));
    put_u24(out, p->width - 1);
    put_u24(out, p->height - 1);
    buf_add(out, simple + FIRST_CHUNK, n - FIRST_CHUNK);
    if (p->comment) {
        codec_put_exif(&exif, p->comment);
        put_chunk(out, "EXIF", exif.data, exif.len);
    }
    if (p->xmp)
        put_chunk(out, "XMP ", p->xmp, strlen(p->xmp));
    out->failed |= exif.failed;
    buf_deinit(&exif);
    const size_t size = out->len - start - 8;
    for (size_t i = 0; !out->failed && i < 4; i++)
        out->data[start + 4 + i] = (char)(size >> 8 * i);
}

enum err codec_encode_webp(const struct codec_params *p, struct buf *out)
{
    uint8_t *mem = NULL;
    const int stride = p->width * 3;
    const size_t n =
        p->quality == CODEC_LOSSLESS
            ? WebPEncodeLosslessRGB(p->rgb, p->width, p->height, stride, &mem)
            : WebPEncodeRGB(p->rgb, p->width, p->height, stride, (float)p->quality, &mem);

    if (n > FIRST_CHUNK && (p->xmp || p->comment))
        put_extended(p, mem, n, out);
    else if (n)
        buf_add(out, mem, n);
    WebPFree(mem);
    return !n ? ERR_INTERNAL : out->failed ? ERR_NO_MEMORY : ERR_OK;
}
