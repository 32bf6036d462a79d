// The size of an image from its header, without decoding pixels. Called by the server on the loop
// thread, so it reads no more than it needs.
#include "codec_priv.h"

#include <string.h>
#include <webp/decode.h>

static enum err measure_png(struct codec_reader *r, uint32_t *width, uint32_t *height)
{
    enum { HEADER = 33 }; // signature and IHDR

    if (r->size < HEADER)
        return codec_refuse(r, "is truncated: its PNG data ends early");
    if (memcmp(r->data + 8, "\0\0\0\x0dIHDR", 8))
        return codec_refuse(r, "is a damaged PNG file: it does not begin with a header");
    *width = codec_big_u32(r->data + 16);
    *height = codec_big_u32(r->data + 20);
    codec_orient_png(r);
    return ERR_OK;
}

static enum err measure_jpeg(struct codec_reader *r, uint32_t *width, uint32_t *height)
{
    struct codec_segment s = {.next = r->data + 2};
    bool turned = false;

    while (codec_next_segment(r, &s)) {
        // SOF0 to SOF15, without DHT, JPG and DAC
        const bool frame = s.marker >= 0xc0 && s.marker <= 0xcf && s.marker != 0xc4 &&
                           s.marker != 0xc8 && s.marker != 0xcc;
        if (!turned && s.marker == CODEC_JPEG_APP1 && s.n > 6 && !memcmp(s.data, "Exif\0\0", 6)) {
            r->orientation = codec_exif_orientation(s.data, s.n);
            turned = true;
        }
        if (frame && s.n >= 5) {
            *height = (uint32_t)s.data[1] << 8 | s.data[2];
            *width = (uint32_t)s.data[3] << 8 | s.data[4];
        }
    }
    return *width && *height ? ERR_OK
           : s.damaged       ? codec_refuse(r, "is a damaged JPEG file")
                             : codec_refuse(r, "is truncated: its JPEG data ends early");
}

static enum err measure_webp(struct codec_reader *r, uint32_t *width, uint32_t *height)
{
    WebPBitstreamFeatures f;
    const VP8StatusCode status = WebPGetFeatures(r->data, r->size, &f);

    if (status == VP8_STATUS_NOT_ENOUGH_DATA)
        return codec_refuse(r, "is truncated: its WebP data ends early");
    if (status)
        return codec_refuse(r, "is a damaged WebP file");
    *width = (uint32_t)f.width;
    *height = (uint32_t)f.height;
    codec_orient_webp(r);
    return ERR_OK;
}

enum err codec_measure(const void *data, size_t size, const struct codec_limits *l, int *width,
                       int *height, struct fault *why)
{
    static enum err (*const measures[CODEC_FORMATS])(struct codec_reader *, uint32_t *,
                                                     uint32_t *) = {
        [CODEC_PNG] = measure_png,
        [CODEC_JPEG] = measure_jpeg,
        [CODEC_WEBP] = measure_webp,
    };
    enum { FIRST_TURNED = 5 }; // orientation that swaps the axes
    struct codec_reader r;
    enum codec_format format;
    uint32_t w = 0, h = 0;
    enum err e;

    codec_open(&r, data, size, l, why);
    e = codec_recognize(&r, &format);
    if (!e)
        e = measures[format](&r, &w, &h);
    if (!e)
        e = codec_check_size(&r, w, h, 0);
    *width = (int)(r.orientation >= FIRST_TURNED ? h : w);
    *height = (int)(r.orientation >= FIRST_TURNED ? w : h);
    return e;
}
