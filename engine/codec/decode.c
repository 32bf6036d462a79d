// Decoding of untrusted image files: format detection, limits, and the parts common to all formats.
// Called by the command line and the server's thread pool.
#include "codec_priv.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct signature {
    const char *bytes;
    size_t at, n;
    int format;       // -1: recognized but not supported
    const char *name; // name of that format
} signatures[] = {
    {"\x89PNG\r\n\x1a\n", 0, 8, CODEC_PNG, NULL},
    {"\xff\xd8\xff", 0, 3, CODEC_JPEG, NULL},
    {"WEBP", 8, 4, CODEC_WEBP, NULL},
    {"GIF8", 0, 4, -1, "a GIF"},
    {"BM", 0, 2, -1, "a BMP"},
    {"II*\0", 0, 4, -1, "a TIFF"},
    {"MM\0*", 0, 4, -1, "a TIFF"},
    {"ftypavi", 4, 7, -1, "an AVIF"},
    {"ftyphei", 4, 7, -1, "a HEIC"},
    {"ftypmif1", 4, 8, -1, "a HEIF"},
    {"\xff\x0a", 0, 2, -1, "a JPEG XL"},
    {"\0\0\0\x0cJXL ", 0, 8, -1, "a JPEG XL"},
    {"<svg", 0, 4, -1, "an SVG"},
    {"%PDF", 0, 4, -1, "a PDF"},
};

static enum err (*const readers[CODEC_FORMATS])(struct codec_reader *r) = {
    [CODEC_PNG] = codec_read_png,
    [CODEC_JPEG] = codec_read_jpeg,
    [CODEC_WEBP] = codec_read_webp,
};

enum err codec_refuse(struct codec_reader *r, const char *fmt, ...)
{
    char text[200];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return fault_set(r->why, ERR_INVALID, r->limits.name, "the %s %s", r->limits.name, text);
}

static enum err no_memory(struct codec_reader *r)
{
    return fault_set(r->why, ERR_NO_MEMORY, r->limits.name, "out of memory while decoding the %s",
                     r->limits.name);
}

enum err codec_check_size(struct codec_reader *r, uint32_t width, uint32_t height, uint64_t extra)
{
    const struct codec_limits *l = &r->limits;
    const uint64_t pixels = (uint64_t)width * height;

    if (!width || !height)
        return codec_refuse(r, "is damaged: it has no pixels");
    if (width > (uint32_t)l->edge || height > (uint32_t)l->edge)
        return codec_refuse(r, "has %ux%u pixels; at most %d on each side are accepted", width,
                            height, l->edge);
    if (pixels > l->pixels)
        return codec_refuse(r, "has %ux%u pixels; at most %zu in all are accepted", width, height,
                            l->pixels);
    // Rotating the image may need a second copy.
    if (8 * pixels + extra > l->memory)
        return codec_refuse(r, "takes %llu MB of memory to decode; at most %zu MB are accepted",
                            (unsigned long long)((8 * pixels + extra) >> 20), l->memory >> 20);
    return ERR_OK;
}

enum err codec_begin(struct codec_reader *r, uint32_t width, uint32_t height, uint64_t extra)
{
    const enum err e = codec_check_size(r, width, height, extra);

    if (e)
        return e;
    r->out->width = (int)width;
    r->out->height = (int)height;
    r->out->rgba = malloc(4 * (size_t)width * height);
    return r->out->rgba ? ERR_OK : no_memory(r);
}

static bool has_alpha(const struct codec_image *i)
{
    const size_t pixels = (size_t)i->width * (size_t)i->height;
    uint8_t all = 255;

    for (size_t k = 0; k < pixels; k++)
        all &= i->rgba[4 * k + 3];
    return all != 255;
}

static const struct signature *recognize(const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < sizeof signatures / sizeof *signatures; i++) {
        const struct signature *s = &signatures[i];
        if (size >= s->at + s->n && !memcmp(data + s->at, s->bytes, s->n))
            return s;
    }
    return NULL;
}

enum err codec_recognize(struct codec_reader *r, enum codec_format *out)
{
    const struct signature *s = recognize(r->data, r->size);

    if (!r->size)
        return codec_refuse(r, "is empty: it has no bytes");
    if (r->size > r->limits.bytes)
        return codec_refuse(r, "has %zu bytes; at most %zu are accepted", r->size, r->limits.bytes);
    if (!s)
        return codec_refuse(r, "is not a PNG, JPEG or WebP file");
    if (s->format < 0)
        return codec_refuse(r, "is %s file; convert it to PNG, JPEG or WebP", s->name);
    *out = (enum codec_format)s->format;
    return ERR_OK;
}

static enum err decode(struct codec_reader *r)
{
    enum err e = codec_recognize(r, &r->out->format);

    if (!e)
        e = readers[r->out->format](r);
    if (e)
        return e;
    r->out->alpha = has_alpha(r->out);
    return codec_turn(r->out, r->orientation) ? no_memory(r) : ERR_OK;
}

void codec_open(struct codec_reader *r, const void *data, size_t size, const struct codec_limits *l,
                struct fault *why)
{
    *r = (struct codec_reader){.data = data, .size = size, .orientation = 1, .why = why};
    if (l)
        r->limits = *l;
    if (!r->limits.name)
        r->limits.name = "image";
    if (!r->limits.bytes)
        r->limits.bytes = CODEC_MAX_BYTES;
    if (!r->limits.edge)
        r->limits.edge = CODEC_MAX_EDGE;
    if (!r->limits.pixels)
        r->limits.pixels = CODEC_MAX_PIXELS;
    if (!r->limits.memory)
        r->limits.memory = CODEC_MAX_MEMORY;
}

enum err codec_decode(const void *data, size_t size, const struct codec_limits *l,
                      struct codec_image *out, struct fault *why)
{
    struct codec_reader r;
    enum err e;

    memset(out, 0, sizeof *out);
    codec_open(&r, data, size, l, why);
    r.out = out;
    e = decode(&r);
    if (e)
        codec_image_deinit(out);
    return e;
}

void codec_image_deinit(struct codec_image *i)
{
    free(i->rgba);
    memset(i, 0, sizeof *i);
}
