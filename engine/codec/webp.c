// WebP by libwebp, lossless at the highest quality. Called by codec.c.
#include "codec_priv.h"

#include <webp/encode.h>

enum err codec_encode_webp(const struct codec_params *p, struct buf *out)
{
    uint8_t *mem = NULL;
    const int stride = p->width * 3;
    const size_t n =
        p->quality == CODEC_LOSSLESS
            ? WebPEncodeLosslessRGB(p->rgb, p->width, p->height, stride, &mem)
            : WebPEncodeRGB(p->rgb, p->width, p->height, stride, (float)p->quality, &mem);

    if (n)
        buf_add(out, mem, n);
    WebPFree(mem);
    return !n ? ERR_INTERNAL : out->failed ? ERR_NO_MEMORY : ERR_OK;
}
