// Decodes latents tile by tile, see decode.h. Cutting and blending run on the CPU: they move only
// the latents and the finished pixels.
#include "decode.h"

#include "clock.h"
#include "tiles.h"
#include "trace.h"

#include <math.h>
#include <stdlib.h>

enum { RGB = 3 };

// Along one axis, in latents.
struct axis {
    int n, edge, count;
};

struct decode {
    struct ops_device *dev;
    const struct decoder *decoder;
    struct axis y, x;
    struct tensor z;      // mapped [1, y.edge, x.edge, channels]
    struct ops *ops;      // recorded at the first image
    struct tensor pixels; // result of ops
    float *latents;       // [y.n, x.n, channels]
    float *part, *tile;   // of one tile: latents, pixels
    float *image;         // of decode_rgb
    uint8_t *rgb;
};

static struct axis axis_of(uint32_t n, uint32_t tile)
{
    struct axis a = {.n = (int)n, .edge = (int)(n < tile ? n : tile)};

    a.count = tiles_along(a.n, a.edge);
    return a;
}

enum err decode_create_tiled(struct ops_device *dev, const struct decoder *decoder, uint32_t height,
                             uint32_t width, uint32_t tile, struct decode **out)
{
    const size_t channels = (size_t)decoder->config.channels, f = (size_t)decoder->config.factor;
    struct decode *d = calloc(1, sizeof *d);
    enum err e = ERR_NO_MEMORY;

    *out = NULL;
    if (!d)
        return e;
    d->dev = dev;
    d->decoder = decoder;
    d->y = axis_of(height, tile);
    d->x = axis_of(width, tile);
    const size_t part = (size_t)d->y.edge * (size_t)d->x.edge;
    d->latents = malloc(sizeof(float) * height * width * channels);
    d->part = malloc(sizeof(float) * part * channels);
    d->tile = malloc(sizeof(float) * part * f * f * RGB);
    if (d->latents && d->part && d->tile)
        e = tensor_create_mapped(dev, DT_F32, 1, (uint32_t)d->y.edge, (uint32_t)d->x.edge,
                                 (uint32_t)channels, &d->z);
    if (e)
        decode_destroy(&d);
    *out = d;
    return e;
}

enum err decode_create(struct ops_device *dev, const struct decoder *decoder, uint32_t height,
                       uint32_t width, struct decode **out)
{
    return decode_create_tiled(dev, decoder, height, width, DECODE_TILE, out);
}

void decode_destroy(struct decode **out)
{
    struct decode *d = *out;

    if (!d)
        return;
    ops_destroy(&d->ops);
    tensor_destroy(&d->z);
    free(d->latents);
    free(d->part);
    free(d->tile);
    free(d->image);
    free(d->rgb);
    free(d);
    *out = NULL;
}

// In f32 whatever the device prefers: the activations of published VAEs overflow fp16, which is
// what force_upcast in their configs is about.
static enum err record(struct decode *d)
{
    enum err e = ops_begin(d->dev, DT_F32, &d->ops);

    if (e)
        return e;
    d->pixels = decoder_record(d->decoder, d->ops, &d->z, NULL);
    e = ops_end(d->ops);
    if (e)
        ops_destroy(&d->ops);
    return e;
}

// Runs the decoder on the tile that starts at (top, left).
static enum err decode_tile(struct decode *d, int top, int left)
{
    const size_t channels = (size_t)d->decoder->config.channels;
    const size_t row = (size_t)d->x.edge * channels;
    const float scaling = d->decoder->config.scaling, shift = d->decoder->config.shift;
    enum err e = d->ops ? ERR_OK : record(d);

    for (int y = 0; y < d->y.edge; y++) {
        const float *from =
            d->latents + ((size_t)(top + y) * (size_t)d->x.n + (size_t)left) * channels;
        for (size_t i = 0; i < row; i++)
            d->part[(size_t)y * row + i] = from[i] / scaling + shift;
    }
    if (!e)
        e = tensor_upload(&d->z, d->part);
    if (!e)
        e = ops_run(d->ops);
    return e ? e : tensor_download(&d->pixels, d->tile);
}

// The weight of pixel i of a tile: rises linearly from 0 to 1 over the pixels shared with the
// previous tile.
static float fade(const struct axis *a, int tile, int factor, int i)
{
    int shared;

    if (!tile)
        return 1;
    shared = tiles_place(a->n, a->edge, a->count, tile - 1) + a->edge -
             tiles_place(a->n, a->edge, a->count, tile);
    shared *= factor;
    return i < shared ? ((float)i + 0.5F) / (float)shared : 1;
}

static void blend(const struct decode *d, int row, int column, int top, int left, float *image)
{
    const int f = d->decoder->config.factor, width = d->x.n * f;
    const float *from = d->tile;

    for (int y = 0; y < d->y.edge * f; y++) {
        const float down = fade(&d->y, row, f, y);
        float *to = image + RGB * ((size_t)(top * f + y) * (size_t)width + (size_t)(left * f));
        for (int x = 0; x < d->x.edge * f; x++, from += RGB, to += RGB) {
            const float w = down * fade(&d->x, column, f, x);
            for (int c = 0; c < RGB; c++)
                to[c] = w < 1 ? to[c] + w * (from[c] - to[c]) : from[c];
        }
    }
}

enum err decode_run(struct decode *d, const struct tensor *latents, float *image)
{
    const size_t f = (size_t)d->decoder->config.factor;
    const size_t values = (size_t)d->y.n * (size_t)d->x.n * f * f * RGB;
    const double began = clock_seconds();
    enum err e = tensor_download(latents, d->latents);

    for (int row = 0; !e && row < d->y.count; row++)
        for (int column = 0; !e && column < d->x.count; column++) {
            const int top = tiles_place(d->y.n, d->y.edge, d->y.count, row);
            const int left = tiles_place(d->x.n, d->x.edge, d->x.count, column);
            e = decode_tile(d, top, left);
            if (!e)
                blend(d, row, column, top, left, image);
        }
    for (size_t i = 0; !e && i < values; i++)
        if (!isfinite(image[i]))
            e = ERR_NOT_FINITE;
    trace_span("decode", began, TRACE_OWN, "%d tiles", d->y.count * d->x.count);
    return e;
}

enum err decode_rgb(struct decode *d, const struct tensor *latents, const uint8_t **rgb)
{
    const size_t f = (size_t)d->decoder->config.factor;
    const size_t values = (size_t)d->y.n * (size_t)d->x.n * f * f * RGB;
    enum err e;

    d->image = d->image ? d->image : malloc(values * sizeof *d->image);
    d->rgb = d->rgb ? d->rgb : malloc(values);
    if (!d->image || !d->rgb)
        return ERR_NO_MEMORY;
    e = decode_run(d, latents, d->image);
    for (size_t i = 0; !e && i < values; i++) {
        const float v = d->image[i] * 0.5F + 0.5F;
        d->rgb[i] = (uint8_t)nearbyintf((v < 0 ? 0 : v > 1 ? 1 : v) * 255); // as op_to_rgb8
    }
    *rgb = d->rgb;
    return e;
}
