// Decodes latents at once or in bands, see decode.h. Statistics are merged on the CPU, in doubles.
// Source of the merge: Chan, Golub, LeVeque 1979.
#include "decode.h"

#include "clock.h"
#include "trace.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { RGB = 3, LEAST_ROWS = 8 };

// A map between two segments, in the memory of the CPU.
struct map {
    float *values; // [height, width, channels]
    uint32_t height, width, channels;
};

// The statistics of a norm's input, of the bands so far.
struct moments {
    double *mean, *square; // [channels]
    double count;          // pixels
};

struct decode {
    struct decode_params p;
    bool whole, warm; // whole: at once; warm: every recording of the bands was made once
    int segments, bands;
    struct tensor z;      // mapped [1, height, width, channels]
    struct ops *ops;      // of whole: recorded when it is first needed
    struct tensor pixels; // its result
    struct moments sum;
    double *scratch[2]; // [channels]: of a band
    float *lines;       // of a segment's norm
    struct tensor norm; // mapped: the same
    struct map map[3];  // before the segment's input, its input, its output
    float *latents;
    float *image; // of decode_rgb
    uint8_t *rgb;
};

// ---- creating ---------------------------------------------------------------------------------

// Values of the lines of a norm over this number of channels.
static uint32_t lines_of(uint32_t channels)
{
    return 3 * ((channels + 3) / 4 * 4);
}

static enum err create_bands(struct decode *d)
{
    uint32_t widest = 0;

    for (int i = 0; i < d->segments; i++) {
        const struct decoder_segment s = decoder_segment(d->p.decoder, i);
        widest = s.in > widest ? s.in : widest;
    }
    const size_t bytes = widest * sizeof(double);
    d->sum.mean = malloc(bytes);
    d->sum.square = malloc(bytes);
    d->scratch[0] = malloc(bytes);
    d->scratch[1] = malloc(bytes);
    d->lines = calloc(lines_of(widest), sizeof *d->lines);
    if (!d->sum.mean || !d->sum.square || !d->scratch[0] || !d->scratch[1] || !d->lines)
        return ERR_NO_MEMORY;
    return tensor_create_mapped(d->p.dev, DT_F32, 1, 1, 1, lines_of(widest), &d->norm);
}

enum err decode_create(const struct decode_params *p, struct decode **out)
{
    const size_t channels = (size_t)p->decoder->config.channels;
    struct decode *d = calloc(1, sizeof *d);
    enum err e = ERR_NO_MEMORY;

    *out = NULL;
    if (!d)
        return e;
    d->p = *p;
    d->p.band = p->band ? p->band : DECODE_BAND_BYTES;
    d->whole = p->height * p->width <= (p->most ? p->most : DECODE_LATENTS);
    d->segments = decoder_segments(p->decoder);
    d->latents = malloc(sizeof(float) * p->height * p->width * channels);
    if (d->latents)
        e = tensor_create_mapped(p->dev, DT_F32, 1, p->height, p->width, (uint32_t)channels, &d->z);
    if (!e && !d->whole)
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
    tensor_destroy(&d->norm);
    free(d->sum.mean);
    free(d->sum.square);
    free(d->scratch[0]);
    free(d->scratch[1]);
    free(d->lines);
    free(d->latents);
    free(d->image);
    free(d->rgb);
    free(d);
    *out = NULL;
}

int decode_bands(const struct decode *d)
{
    return d->bands;
}

// ---- statistics -------------------------------------------------------------------------------

// Adds a band's statistics.
static enum err add_moments(struct decode *d, const struct op_moments *m)
{
    struct moments *s = &d->sum;
    const double count = m->pixels, total = s->count + count;
    const enum err e = op_moments_read(m, d->scratch[0], d->scratch[1]);

    for (uint32_t c = 0; !e && c < m->c; c++) {
        const double before = s->count > 0 ? s->mean[c] : 0;
        const double delta = d->scratch[0][c] - before;
        s->mean[c] = before + delta * count / total;
        s->square[c] = (s->count > 0 ? s->square[c] : 0) + d->scratch[1][c] +
                       delta * delta * s->count * count / total;
    }
    s->count = total;
    return e;
}

// Mean and variance of a group of channels.
static void group_moments(const struct moments *s, uint32_t first, uint32_t size, double *mean,
                          double *variance)
{
    double square = 0;

    *mean = 0;
    for (uint32_t c = first; c < first + size; c++)
        *mean += s->mean[c] / size;
    for (uint32_t c = first; c < first + size; c++)
        square += s->square[c] + (s->mean[c] - *mean) * (s->mean[c] - *mean) * s->count;
    *variance = square / (s->count * size);
}

static struct tensor lines_tensor(const struct decode *d, uint32_t channels)
{
    struct tensor t = d->norm;

    t.c = t.cs = lines_of(channels);
    return t;
}

// Makes the lines of a segment's norm of the statistics of its input.
static enum err put_lines(struct decode *d, const struct decoder_segment *s)
{
    const struct tensor lines = lines_tensor(d, s->in);
    const uint32_t size = s->in / s->groups;
    float *mean = d->lines, *gain = mean + lines.c / 3, *offset = gain + lines.c / 3;
    enum err e = tensor_download(s->gamma, gain);

    if (!e)
        e = tensor_download(s->beta, offset);
    for (uint32_t g = 0; !e && g < s->groups; g++) {
        double m, variance;
        group_moments(&d->sum, g * size, size, &m, &variance);
        const double scale = 1 / sqrt(variance + (double)s->eps);
        for (uint32_t c = g * size; c < (g + 1) * size; c++) {
            mean[c] = (float)m;
            gain[c] = (float)((double)gain[c] * scale);
        }
    }
    d->sum.count = 0;
    return e ? e : tensor_upload(&lines, d->lines);
}

// ---- maps -------------------------------------------------------------------------------------

static enum err map_create(struct map *m, uint32_t height, uint32_t width, uint32_t channels)
{
    *m = (struct map){.height = height, .width = width, .channels = channels};
    m->values = malloc(sizeof(float) * height * width * channels);
    return m->values ? ERR_OK : ERR_NO_MEMORY;
}

static float *map_row(const struct map *m, uint32_t row)
{
    return m->values + (size_t)row * m->width * m->channels;
}

// ---- bands ------------------------------------------------------------------------------------

// Rows of a segment's input: those whose outputs are wanted, and those that these depend on.
struct band {
    uint32_t first, rows, top, height;
};

// A segment that runs, and its recording for the band before, which may have the same shape.
struct segment {
    struct decoder_segment s;
    int index;
    uint32_t height, width, rows; // of its input; rows: of a band
    struct ops *ops;
    struct band band;
    struct tensor x, added, y;
    struct op_moments moments; // of y
};

static struct segment segment_of(const struct decode *d, int index)
{
    const struct decoder_segment s = decoder_segment(d->p.decoder, index);
    const size_t width = (size_t)d->p.width * s.scale, widest = s.in > s.added ? s.in : s.added;
    const size_t in = width * widest, out = width * s.out * s.up * s.up;
    const size_t rows = d->p.band / sizeof(float) / (in > out ? in : out);

    return (struct segment){
        .s = s,
        .index = index,
        .height = d->p.height * s.scale,
        .width = (uint32_t)width,
        .rows = rows > LEAST_ROWS + 2 * s.halo ? (uint32_t)rows - 2 * s.halo : LEAST_ROWS,
    };
}

static struct band band_at(const struct segment *g, uint32_t first)
{
    const uint32_t left = g->height - first, rows = left < g->rows ? left : g->rows;
    const uint32_t above = first < g->s.halo ? first : g->s.halo;
    const uint32_t below = left - rows < g->s.halo ? left - rows : g->s.halo;

    return (struct band){first, rows, first - above, above + rows + below};
}

static bool same_shape(const struct band *a, const struct band *b)
{
    return a->first - a->top == b->first - b->top && a->rows == b->rows && a->height == b->height;
}

static struct tensor rows_of(const struct tensor *x, uint32_t first, uint32_t rows)
{
    struct tensor y = *x;

    y.offset += (size_t)first * x->w * x->cs;
    y.h = rows;
    return y;
}

// The inputs are the recording's, and are written before it runs.
static enum err record_band(const struct decode *d, struct segment *g, const struct band *b)
{
    const struct tensor lines = lines_tensor(d, g->s.in);
    enum err e;

    if (g->ops && same_shape(&g->band, b))
        return ERR_OK;
    ops_destroy(&g->ops);
    e = ops_begin(d->p.dev, DT_F32, &g->ops);
    if (e)
        return e;
    g->band = *b;
    g->x = ops_temp(g->ops, 1, b->height, g->width, g->s.in);
    if (g->s.added)
        g->added = ops_temp(g->ops, 1, b->height, g->width, g->s.added);
    g->y = decoder_record_segment(d->p.decoder, g->ops, g->index,
                                  &(struct decoder_input){
                                      .x = &g->x,
                                      .added = g->s.added ? &g->added : NULL,
                                      .lines = &lines,
                                  });
    g->y = rows_of(&g->y, (b->first - b->top) * g->s.up, b->rows * g->s.up);
    if (g->index < d->segments - 1)
        g->moments = op_measure(g->ops, &g->y);
    return ops_end(g->ops);
}

static enum err run_band(struct decode *d, struct segment *g, uint32_t first)
{
    const struct band b = band_at(g, first);
    enum err e = record_band(d, g, &b);

    if (!e)
        e = tensor_upload_from(&g->x, map_row(&d->map[1], b.top), DT_F32);
    if (!e && g->s.added)
        e = tensor_upload_from(&g->added, map_row(&d->map[0], b.top), DT_F32);
    if (!e)
        e = ops_run(g->ops);
    if (!e && g->index < d->segments - 1)
        e = add_moments(d, &g->moments);
    if (!e)
        e = tensor_download(&g->y, map_row(&d->map[2], first * g->s.up));
    d->bands++;
    return e;
}

static enum err run_segment(struct decode *d, int index)
{
    const double began = clock_seconds();
    const int before = d->bands;
    struct segment g = segment_of(d, index);
    enum err e = put_lines(d, &g.s);

    if (!e)
        e = map_create(&d->map[2], g.height * g.s.up, g.width * g.s.up, g.s.out);
    for (uint32_t first = 0; !e && first < g.height; first += g.rows)
        e = run_band(d, &g, first);
    ops_destroy(&g.ops);
    free(d->map[0].values);
    d->map[0] = d->map[1];
    d->map[1] = d->map[2];
    d->map[2] = (struct map){0};
    trace_span("decode", began, TRACE_OWN, "segment %d in %d bands", index, d->bands - before);
    return e;
}

// The layers before the segments, whose output is the first map. Owner: the caller destroys *out,
// also on error.
static enum err record_head(const struct decode *d, struct ops **out, struct tensor *y,
                            struct op_moments *moments)
{
    const enum err e = ops_begin(d->p.dev, DT_F32, out);

    if (e)
        return e;
    *y = decoder_record_head(d->p.decoder, *out, &d->z);
    *moments = op_measure(*out, y);
    return ops_end(*out);
}

static enum err run_head(struct decode *d)
{
    const double began = clock_seconds();
    struct op_moments moments;
    struct tensor y;
    struct ops *o = NULL;
    enum err e = record_head(d, &o, &y, &moments);

    if (!e)
        e = ops_run(o);
    d->sum.count = 0; // of an image that failed
    if (!e)
        e = add_moments(d, &moments);
    if (!e)
        e = map_create(&d->map[1], y.h, y.w, y.c);
    if (!e)
        e = tensor_download(&y, d->map[1].values);
    ops_destroy(&o);
    trace_span("decode", began, TRACE_OWN, "head");
    return e;
}

static enum err run_bands(struct decode *d, float *image)
{
    enum err e = run_head(d);

    d->bands = 0;
    for (int i = 0; !e && i < d->segments; i++)
        e = run_segment(d, i);
    if (!e)
        memcpy(image, d->map[1].values,
               sizeof *image * d->map[1].height * d->map[1].width * d->map[1].channels);
    for (int i = 0; i < 3; i++) {
        free(d->map[i].values);
        d->map[i] = (struct map){0};
    }
    return e;
}

// ---- images -----------------------------------------------------------------------------------

// In f32 whatever the device prefers: the activations of published VAEs overflow fp16, which is
// what force_upcast in their configs is about.
static enum err record(struct decode *d)
{
    enum err e = ops_begin(d->p.dev, DT_F32, &d->ops);

    if (e)
        return e;
    d->pixels = decoder_record(d->p.decoder, d->ops, &d->z, NULL);
    e = ops_end(d->ops);
    if (e)
        ops_destroy(&d->ops);
    return e;
}

static enum err warm_segment(const struct decode *d, int index)
{
    struct segment g = segment_of(d, index);
    enum err e = ERR_OK;

    for (uint32_t first = 0; !e && first < g.height; first += g.rows) {
        const struct band b = band_at(&g, first);
        e = record_band(d, &g, &b);
    }
    ops_destroy(&g.ops);
    return e;
}

enum err decode_warm(struct decode *d)
{
    struct op_moments moments;
    struct tensor y;
    struct ops *head = NULL;
    enum err e;

    if (d->whole)
        return d->ops ? ERR_OK : record(d);
    if (d->warm)
        return ERR_OK;
    e = record_head(d, &head, &y, &moments);
    ops_destroy(&head);
    for (int i = 0; !e && i < d->segments; i++)
        e = warm_segment(d, i);
    d->warm = !e;
    return e;
}

enum err decode_run(struct decode *d, const struct tensor *latents, float *image)
{
    const struct decoder_config *c = &d->p.decoder->config;
    const size_t count = (size_t)d->p.height * (size_t)d->p.width;
    const size_t values = count * (size_t)c->factor * (size_t)c->factor * RGB;
    const double began = clock_seconds();
    enum err e = d->whole && !d->ops ? record(d) : ERR_OK;

    if (!e)
        e = tensor_download(latents, d->latents);
    for (size_t i = 0; !e && i < count * (size_t)c->channels; i++)
        d->latents[i] = d->latents[i] / c->scaling + c->shift;
    if (!e)
        e = tensor_upload(&d->z, d->latents);
    if (!e && d->whole) {
        e = ops_run(d->ops);
        e = e ? e : tensor_download(&d->pixels, image);
    } else if (!e) {
        e = run_bands(d, image);
    }
    for (size_t i = 0; !e && i < values; i++)
        if (!isfinite(image[i]))
            e = ERR_NOT_FINITE;
    trace_span("decode", began, TRACE_OWN, "%d bands", d->bands);
    return e;
}

enum err decode_rgb(struct decode *d, const struct tensor *latents, const uint8_t **rgb)
{
    const size_t f = (size_t)d->p.decoder->config.factor;
    const size_t values = (size_t)d->p.height * (size_t)d->p.width * f * f * RGB;
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
