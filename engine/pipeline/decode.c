// Decodes latents at once or in bands, see decode.h. Statistics are merged on the CPU, in doubles.
// Source of the merge: Chan, Golub, LeVeque 1979.
#include "decode.h"

#include "clock.h"
#include "trace.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { RGB = 3, LEAST_ROWS = 8 };
const double decode_tolerance = 1e-3;

// One norm of the decoder's tail.
struct norm_state {
    uint32_t c, c4, groups;
    float eps;
    float *gamma, *beta;   // [c]
    double *mean, *square; // [c]: of the bands of this pass so far
    double count;          // pixels in these
    float *values;         // [3, c4]: lines
};

struct decode {
    struct decode_params p;
    uint32_t halo, rows; // rows: of a band; the height: one band
    int passes;
    struct tensor z;        // mapped [1, height, width, channels]
    struct ops *ops;        // the head, or everything; recorded when it is first needed
    bool warm;              // every recording was made once
    struct tensor pixels;   // its result, if it is everything
    struct tensor features; // [1, height, width, C]: of the head
    int norms;
    struct norm_state *norm;
    struct tensor *lines; // mapped, per norm
    struct op_moments *measured;
    double *scratch[2];
    float *latents;
    float *band;  // pixels of one
    float *image; // of decode_rgb
    uint8_t *rgb;
};

// ---- creating ---------------------------------------------------------------------------------

static enum err create_norm(struct decode *d, int index)
{
    const struct decoder_norm from = decoder_norm(d->p.decoder, index);
    struct norm_state *n = &d->norm[index];
    const size_t c = from.gamma->c;
    enum err e;

    n->c = (uint32_t)c;
    n->c4 = (n->c + 3) / 4 * 4;
    n->groups = from.groups;
    n->eps = from.eps;
    n->gamma = malloc(c * sizeof *n->gamma);
    n->beta = malloc(c * sizeof *n->beta);
    n->mean = malloc(c * sizeof *n->mean);
    n->square = malloc(c * sizeof *n->square);
    n->values = calloc(3 * (size_t)n->c4, sizeof *n->values);
    if (!n->gamma || !n->beta || !n->mean || !n->square || !n->values)
        return ERR_NO_MEMORY;
    e = tensor_download(from.gamma, n->gamma);
    if (!e)
        e = tensor_download(from.beta, n->beta);
    return e ? e : tensor_create_mapped(d->p.dev, DT_F32, 1, 1, 1, 3 * n->c4, &d->lines[index]);
}

static enum err create_bands(struct decode *d)
{
    const size_t f = (size_t)d->p.decoder->config.factor;
    const uint32_t height = d->rows + 2 * d->halo;
    uint32_t widest = 0;
    enum err e = ERR_OK;

    d->norms = decoder_norms(d->p.decoder);
    d->norm = calloc((size_t)d->norms, sizeof *d->norm);
    d->lines = calloc((size_t)d->norms, sizeof *d->lines);
    d->measured = calloc((size_t)d->norms, sizeof *d->measured);
    d->band = malloc(sizeof(float) * height * d->p.width * f * f * RGB);
    if (!d->norm || !d->lines || !d->measured || !d->band)
        return ERR_NO_MEMORY;
    for (int i = 0; !e && i < d->norms; i++) {
        e = create_norm(d, i);
        widest = d->norm[i].c > widest ? d->norm[i].c : widest;
    }
    for (int i = 0; !e && i < 2; i++) {
        d->scratch[i] = malloc(widest * sizeof *d->scratch[i]);
        e = d->scratch[i] ? ERR_OK : ERR_NO_MEMORY;
    }
    return e ? e
             : tensor_create(d->p.dev, DT_F32, 1, d->p.height, d->p.width,
                             decoder_features(d->p.decoder), &d->features);
}

enum err decode_create(const struct decode_params *p, struct decode **out)
{
    const size_t channels = (size_t)p->decoder->config.channels;
    const uint32_t most = p->most ? p->most : DECODE_LATENTS;
    struct decode *d = calloc(1, sizeof *d);
    enum err e = ERR_NO_MEMORY;

    *out = NULL;
    if (!d)
        return e;
    d->p = *p;
    d->rows = p->height;
    if (p->height * p->width > most) {
        d->halo = decoder_halo(p->decoder);
        d->rows = most / p->width;
        d->rows = d->rows > 2 * d->halo + LEAST_ROWS ? d->rows - 2 * d->halo : LEAST_ROWS;
        d->rows = d->rows < p->height ? d->rows : p->height;
    }
    d->latents = malloc(sizeof(float) * p->height * p->width * channels);
    if (d->latents)
        e = tensor_create_mapped(p->dev, DT_F32, 1, p->height, p->width, (uint32_t)channels, &d->z);
    if (!e && d->rows < p->height)
        e = create_bands(d);
    if (e)
        decode_destroy(&d);
    *out = d;
    return e;
}

void decode_destroy(struct decode **out)
{
    struct decode *d = *out;

    if (!d)
        return;
    ops_destroy(&d->ops);
    tensor_destroy(&d->z);
    tensor_destroy(&d->features);
    for (int i = 0; d->norm && i < d->norms; i++) {
        struct norm_state *n = &d->norm[i];
        free(n->gamma);
        free(n->beta);
        free(n->mean);
        free(n->square);
        free(n->values);
    }
    for (int i = 0; d->lines && i < d->norms; i++)
        tensor_destroy(&d->lines[i]);
    free(d->norm);
    free(d->lines);
    free(d->measured);
    free(d->scratch[0]);
    free(d->scratch[1]);
    free(d->latents);
    free(d->band);
    free(d->image);
    free(d->rgb);
    free(d);
    *out = NULL;
}

int decode_bands(const struct decode *d)
{
    return (int)((d->p.height + d->rows - 1) / d->rows);
}

int decode_passes(const struct decode *d)
{
    return d->passes;
}

// ---- statistics -------------------------------------------------------------------------------

// Adds a band's statistics to those of the pass.
static enum err add_moments(struct decode *d, int index)
{
    struct norm_state *n = &d->norm[index];
    const double count = d->measured[index].pixels, total = n->count + count;
    const enum err e = op_moments_read(&d->measured[index], d->scratch[0], d->scratch[1]);

    for (uint32_t c = 0; !e && c < n->c; c++) {
        const double before = n->count > 0 ? n->mean[c] : 0;
        const double delta = d->scratch[0][c] - before;
        n->mean[c] = before + delta * count / total;
        n->square[c] = (n->count > 0 ? n->square[c] : 0) + d->scratch[1][c] +
                       delta * delta * n->count * count / total;
    }
    n->count = total;
    return e;
}

// Mean and variance of a group of channels.
static void group_moments(const struct norm_state *n, uint32_t first, uint32_t size, double *mean,
                          double *variance)
{
    double square = 0;

    *mean = 0;
    for (uint32_t c = first; c < first + size; c++)
        *mean += n->mean[c] / size;
    for (uint32_t c = first; c < first + size; c++)
        square += n->square[c] + (n->mean[c] - *mean) * (n->mean[c] - *mean) * n->count;
    *variance = square / (n->count * size);
}

// Makes a norm's lines of the statistics of the pass, which it ends. Returns how far they moved, in
// standard deviations.
static double settle(struct norm_state *n)
{
    const uint32_t size = n->c / n->groups;
    float *mean = n->values, *gain = mean + n->c4, *offset = gain + n->c4;
    double moved = 0;

    for (uint32_t g = 0; g < n->groups; g++) {
        double m, variance;
        group_moments(n, g * size, size, &m, &variance);
        const double scale = 1 / sqrt(variance + (double)n->eps);
        for (uint32_t c = g * size; c < (g + 1) * size; c++) {
            const double now = (double)n->gamma[c] * scale, was = (double)gain[c];
            const double larger = fmax(fabs(now), 1e-30);
            moved = fmax(moved, fabs(m - (double)mean[c]) * scale);
            moved = fmax(moved, fabs(now - was) / larger);
            mean[c] = (float)m;
            gain[c] = (float)now;
            offset[c] = n->beta[c];
        }
    }
    n->count = 0;
    return moved;
}

// ---- bands ------------------------------------------------------------------------------------

// The first row that a band reads.
static uint32_t top_of(const struct decode *d, uint32_t first)
{
    return first > d->halo ? first - d->halo : 0;
}

// Records the tail on a band that begins at row `first`. Owner: the caller destroys *out, also on
// error.
static enum err record_band(struct decode *d, uint32_t first, bool own, struct ops **out,
                            struct tensor *pixels)
{
    const uint32_t left = d->p.height - first, rows = left < d->rows ? left : d->rows;
    const uint32_t top = top_of(d, first), below = first + rows + d->halo;
    struct tensor features = d->features;
    enum err e = ops_begin(d->p.dev, DT_F32, out);

    if (e)
        return e;
    features.offset += (size_t)top * features.w * features.cs;
    features.h = (below < d->p.height ? below : d->p.height) - top;
    *pixels = decoder_record_tail(d->p.decoder, *out, &features,
                                  &(struct decoder_bands){
                                      .first = first - top,
                                      .rows = rows,
                                      .own = own,
                                      .lines = d->lines,
                                      .measured = d->measured,
                                  });
    return ops_end(*out);
}

// Runs the tail on a band, which it writes into the image.
static enum err run_band(struct decode *d, uint32_t first, bool own, float *image)
{
    const uint32_t f = (uint32_t)d->p.decoder->config.factor;
    const uint32_t left = d->p.height - first, rows = left < d->rows ? left : d->rows;
    const size_t line = (size_t)d->p.width * f * RGB;
    struct tensor pixels;
    struct ops *o;
    enum err e = record_band(d, first, own, &o, &pixels);

    if (!e)
        e = ops_run(o);
    for (int i = 0; !e && i < d->norms; i++)
        e = add_moments(d, i);
    if (!e)
        e = tensor_download(&pixels, d->band);
    if (!e)
        memcpy(image + first * f * line, d->band + (first - top_of(d, first)) * f * line,
               rows * f * line * sizeof *image);
    ops_destroy(&o);
    return e;
}

static enum err run_pass(struct decode *d, bool own, float *image, double *moved)
{
    enum err e = ERR_OK;

    *moved = 0;
    for (uint32_t first = 0; !e && first < d->p.height; first += d->rows)
        e = run_band(d, first, own, image);
    for (int i = 0; !e && i < d->norms; i++) {
        const double m = settle(&d->norm[i]);
        *moved = m > *moved || isnan(m) ? m : *moved;
        e = tensor_upload(&d->lines[i], d->norm[i].values);
    }
    d->passes++;
    return e;
}

// The first pass takes each band's own statistics. The k-th that takes those of all bands has the
// first k of them right.
static enum err run_passes(struct decode *d, bool draft, float *image)
{
    double moved;
    enum err e = run_pass(d, true, image, &moved);

    for (int k = 0; !e && !draft && k <= d->norms; k++) {
        e = run_pass(d, false, image, &moved);
        if (isnan(moved) || moved <= decode_tolerance)
            break;
    }
    return e;
}

// ---- images -----------------------------------------------------------------------------------

// In f32 whatever the device prefers: the activations of published VAEs overflow fp16, which is
// what force_upcast in their configs is about.
static enum err record(struct decode *d)
{
    const bool whole = d->rows == d->p.height;
    struct tensor features;
    enum err e = ops_begin(d->p.dev, DT_F32, &d->ops);

    if (e)
        return e;
    if (whole) {
        d->pixels = decoder_record(d->p.decoder, d->ops, &d->z, NULL);
    } else {
        features = decoder_record_head(d->p.decoder, d->ops, &d->z);
        op_copy(d->ops, &features, &d->features);
    }
    e = ops_end(d->ops);
    if (e)
        ops_destroy(&d->ops);
    return e;
}

enum err decode_warm(struct decode *d)
{
    enum err e = d->ops ? ERR_OK : record(d);

    for (int own = 0; own < 2 && d->rows < d->p.height && !d->warm; own++)
        for (uint32_t first = 0; !e && first < d->p.height; first += d->rows) {
            struct tensor pixels;
            struct ops *o;
            e = record_band(d, first, own, &o, &pixels);
            ops_destroy(&o);
        }
    d->warm = !e;
    return e;
}

static enum err run(struct decode *d, const struct tensor *latents, bool draft, float *image)
{
    const struct decoder_config *c = &d->p.decoder->config;
    const size_t count = (size_t)d->p.height * (size_t)d->p.width;
    const size_t values = count * (size_t)c->factor * (size_t)c->factor * RGB;
    const double began = clock_seconds();
    enum err e = d->ops ? ERR_OK : record(d);

    d->passes = 0;
    if (!e)
        e = tensor_download(latents, d->latents);
    for (size_t i = 0; !e && i < count * (size_t)c->channels; i++)
        d->latents[i] = d->latents[i] / c->scaling + c->shift;
    if (!e)
        e = tensor_upload(&d->z, d->latents);
    if (!e)
        e = ops_run(d->ops);
    if (!e)
        e = d->rows == d->p.height ? tensor_download(&d->pixels, image)
                                   : run_passes(d, draft, image);
    for (size_t i = 0; !e && i < values; i++)
        if (!isfinite(image[i]))
            e = ERR_NOT_FINITE;
    trace_span("decode", began, TRACE_OWN, "%d bands, %d passes", decode_bands(d), d->passes);
    return e;
}

enum err decode_run(struct decode *d, const struct tensor *latents, float *image)
{
    return run(d, latents, false, image);
}

enum err decode_rgb(struct decode *d, const struct tensor *latents, bool draft, const uint8_t **rgb)
{
    const size_t f = (size_t)d->p.decoder->config.factor;
    const size_t values = (size_t)d->p.height * (size_t)d->p.width * f * f * RGB;
    enum err e;

    d->image = d->image ? d->image : malloc(values * sizeof *d->image);
    d->rgb = d->rgb ? d->rgb : malloc(values);
    if (!d->image || !d->rgb)
        return ERR_NO_MEMORY;
    e = run(d, latents, draft, d->image);
    for (size_t i = 0; !e && i < values; i++) {
        const float v = d->image[i] * 0.5F + 0.5F;
        d->rgb[i] = (uint8_t)nearbyintf((v < 0 ? 0 : v > 1 ? 1 : v) * 255); // as op_to_rgb8
    }
    *rgb = d->rgb;
    return e;
}
