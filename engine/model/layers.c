// Loading and tapping of layers, for the networks of this folder. Called when an engine opens and
// while a network records, on the engine's worker. Knows nothing about files (see weights.c) or
// any one network.
#include "layers.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FORMAT_NAME(name, fmt)                                                                     \
    do {                                                                                           \
        va_list ap;                                                                                \
        va_start(ap, fmt);                                                                         \
        vsnprintf(name, sizeof name, fmt, ap);                                                     \
        va_end(ap);                                                                                \
    } while (0)

struct loader load_begin(struct ops_device *dev, struct weights *w, enum dtype dtype)
{
    return (struct loader){
        .dev = dev,
        .dry = dev && weights_dry(w),
        .w = w,
        .dtype = dtype,
        .weights = dev ? ops_device_info(dev)->weights : dtype,
    };
}

// data NULL: missing, which weights_finish reports.
static void load_tensor(struct loader *l, enum dtype dtype, uint32_t rows, uint32_t c,
                        struct weights_data data, struct tensor *out)
{
    if (l->err || !l->dev || (!data.data && !l->dry))
        return;
    l->err = tensor_create(l->dev, dtype, 1, 1, rows, c, out);
    if (!l->err && !l->dry)
        l->err = tensor_upload_from(out, data.data, data.dtype);
}

void load_table(struct loader *l, struct tensor *out, enum dtype dtype, uint32_t rows, uint32_t c,
                const char *fmt, ...)
{
    char name[LAYER_NAME];

    if (out->buf)
        return;
    FORMAT_NAME(name, fmt);
    load_tensor(l, dtype, rows, c, weights_any(l->w, WEIGHTS_SHAPE(rows, c), "%s", name), out);
}

void load_norm(struct loader *l, struct norm *n, uint32_t c, bool beta, const char *fmt, ...)
{
    char name[LAYER_NAME];

    if (n->gamma.buf)
        return;
    FORMAT_NAME(name, fmt);
    load_tensor(l, DT_F32, 1, c, weights_any(l->w, WEIGHTS_SHAPE(c), "%s.weight", name), &n->gamma);
    if (beta)
        load_tensor(l, DT_F32, 1, c, weights_any(l->w, WEIGHTS_SHAPE(c), "%s.bias", name),
                    &n->beta);
}

void norm_deinit(struct norm *n)
{
    tensor_destroy(&n->gamma);
    tensor_destroy(&n->beta);
}

static void take(struct op_weight_params *p, struct weights_data d)
{
    p->weight = d.data;
    p->from = d.dtype;
}

// How to store a matrix product on the device.
struct format {
    enum dtype dtype;
    bool exact; // as op_weight_params
};

// The format for the tensor that was looked up last. A GGUF file's formats stay as they are where
// the device has them; other quantized weights become q8, whose steps are at most a quarter of
// theirs.
static struct format format_of(const struct loader *l)
{
    struct format f = {.dtype = l->weights};

    if (!weights_stored(l->w))
        return f;
    switch (weights_dtype(l->w)) {
    case ST_F16: f.dtype = DT_F16; break;
    case ST_BF16: f.dtype = DT_BF16; break;
    case ST_Q4_0: f = (struct format){DT_Q4, true}; break;
    case ST_Q5_0:
    case ST_Q8_0: f = (struct format){DT_Q8, true}; break;
    case ST_Q4_1:
    case ST_Q5_1:
    case ST_Q2_K:
    case ST_Q3_K:
    case ST_Q4_K:
    case ST_Q5_K:
    case ST_Q6_K: f.dtype = DT_Q8; break;
    default: break;
    }
    return f;
}

// A format that loses nothing of both.
static struct format format_join(struct format a, struct format b)
{
    const bool same = a.dtype == b.dtype;
    const bool scaled =
        (a.dtype == DT_Q4 || a.dtype == DT_Q8) && (b.dtype == DT_Q4 || b.dtype == DT_Q8);

    return (struct format){same ? a.dtype : scaled ? DT_Q8 : DT_F32, a.exact || b.exact};
}

// Whether a product needs no reading.
static bool skips(const struct loader *l, struct op_weight *const *out)
{
    return l->again && !(*out && op_weight_wanted(*out));
}

// Whether products are made without values, for now or for good.
static bool without_values(const struct loader *l)
{
    return l->dry || (l->stream && !l->again);
}

static void create(struct loader *l, struct format f, struct op_weight_params *p,
                   struct op_weight **out)
{
    p->dtype = f.dtype;
    p->exact = f.exact;
    p->side = l->side;
    p->stream = l->stream;
    p->seldom = l->seldom;
    if (l->err || !l->dev || !(p->weight || without_values(l)))
        return;
    l->err = l->again ? op_weight_fill(*out, p) : op_weight_create(l->dev, p, out);
}

void load_linear(struct loader *l, struct op_weight **out, uint32_t rows, uint32_t in, bool bias,
                 const char *fmt, ...)
{
    struct op_weight_params p = {.out = rows, .in = in, .kernel = 1};
    char name[LAYER_NAME];

    if (skips(l, out))
        return;
    FORMAT_NAME(name, fmt);
    take(&p, weights_any(l->w, WEIGHTS_SHAPE(rows, in), "%s.weight", name));
    const struct format f = format_of(l);
    if (bias)
        p.bias = weights_f32(l->w, WEIGHTS_SHAPE(rows), "%s.bias", name);
    create(l, f, &p, out);
}

void load_conv(struct loader *l, struct op_weight **out, uint32_t rows, uint32_t in,
               uint32_t kernel, const char *fmt, ...)
{
    struct op_weight_params p = {.out = rows, .in = in, .kernel = kernel};
    char name[LAYER_NAME];

    if (skips(l, out))
        return;
    FORMAT_NAME(name, fmt);
    take(&p, weights_any(l->w, WEIGHTS_SHAPE(rows, in, kernel, kernel), "%s.weight", name));
    const struct format f = format_of(l);
    p.bias = weights_f32(l->w, WEIGHTS_SHAPE(rows), "%s.bias", name);
    create(l, f, &p, out);
}

void load_halves(struct loader *l, struct op_weight *out[2], uint32_t rows, uint32_t in,
                 const char *fmt, ...)
{
    const float *bias;
    char name[LAYER_NAME];

    if (skips(l, &out[0]) && skips(l, &out[1]))
        return;
    FORMAT_NAME(name, fmt);
    const struct weights_data all =
        weights_any(l->w, WEIGHTS_SHAPE(2 * (uint64_t)rows, in), "%s.weight", name);
    const size_t half = (size_t)rows * in * tensor_dtype_bytes(all.dtype);
    const struct format f = format_of(l);
    bias = weights_f32(l->w, WEIGHTS_SHAPE(2 * (uint64_t)rows), "%s.bias", name);
    for (size_t i = 0; i < 2; i++)
        if (!skips(l, &out[i]))
            create(l, f,
                   &(struct op_weight_params){
                       .weight = all.data ? (const char *)all.data + i * half : NULL,
                       .from = all.dtype,
                       .bias = bias ? bias + i * rows : NULL,
                       .out = rows,
                       .in = in,
                       .kernel = 1,
                   },
                   &out[i]);
}

// Row 2i + r of the image, r = -1, 0, 1, is row dy of the unshuffled pixels' row i + k: k = -1,
// dy = 1 for r = -1, else k = 0, dy = r. Columns likewise; all other weights are 0.
static void spread_taps(const float *weight, size_t filters, float *out)
{
    static const size_t block[3] = {0, 1, 1}, within[3] = {1, 0, 1};

    for (size_t f = 0; f < filters; f++)
        for (size_t i = 0; i < 9; i++) {
            const size_t y = i / 3, x = i % 3, part = 2 * within[y] + within[x];
            out[(f * 4 + part) * 9 + 3 * block[y] + block[x]] = weight[f * 9 + i];
        }
}

void load_conv_down(struct loader *l, struct op_weight **out, uint32_t rows, uint32_t in,
                    const char *fmt, ...)
{
    struct op_weight_params p = {.out = rows, .in = 4 * in, .kernel = 3};
    const float *weight;
    char name[LAYER_NAME];
    float *spread;

    if (skips(l, out))
        return;
    FORMAT_NAME(name, fmt);
    weight = weights_f32(l->w, WEIGHTS_SHAPE(rows, in, 3, 3), "%s.weight", name);
    const struct format f = format_of(l);
    p.bias = weights_f32(l->w, WEIGHTS_SHAPE(rows), "%s.bias", name);
    if (l->err || !l->dev)
        return;
    if (!weight) {
        create(l, f, &p, out);
        return;
    }
    spread = calloc((size_t)rows * in * 36, sizeof *spread);
    if (spread)
        spread_taps(weight, (size_t)rows * in, spread);
    else
        l->err = ERR_NO_MEMORY;
    p.weight = spread;
    create(l, f, &p, out);
    free(spread);
}

void joined_begin(struct joined *j, struct loader *l, struct op_weight **out, uint32_t rows,
                  uint32_t in, bool bias)
{
    *j = (struct joined){.l = l, .out = out, .rows = rows, .in = in, .has_bias = bias};
    j->skip = skips(l, out);
    if (l->err || !l->dev || j->skip || without_values(l))
        return;
    j->weight = calloc((size_t)rows * in, sizeof(float)); // room for any type
    j->bias = bias ? calloc(rows, sizeof *j->bias) : NULL;
    if (!j->weight || (bias && !j->bias))
        l->err = ERR_NO_MEMORY;
}

// Copies the rows of a part behind those of the others, all as f32 unless all have the same type.
static void joined_put(struct joined *j, struct weights_data d, uint32_t rows)
{
    const size_t before = (size_t)j->row * j->in, n = (size_t)rows * j->in;

    if (!j->row)
        j->from = d.dtype;
    if (d.dtype != j->from && j->from != DT_F32) {
        float *wide = calloc((size_t)j->rows * j->in, sizeof *wide);
        if (!wide) {
            j->l->err = ERR_NO_MEMORY;
            return;
        }
        floats_from(j->weight, j->from, before, wide);
        free(j->weight);
        j->weight = wide;
        j->from = DT_F32;
    }
    const size_t element = tensor_dtype_bytes(j->from);
    char *to = (char *)j->weight + before * element;
    if (d.dtype == j->from)
        memcpy(to, d.data, n * element);
    else
        floats_from(d.data, d.dtype, n, (float *)(void *)to);
}

void joined_add(struct joined *j, uint32_t rows, const char *fmt, ...)
{
    const float *bias = NULL;
    char name[LAYER_NAME];

    if (j->skip)
        return;
    FORMAT_NAME(name, fmt);
    const struct weights_data weight =
        weights_any(j->l->w, WEIGHTS_SHAPE(rows, j->in), "%s.weight", name);
    const struct format f = format_of(j->l), before = {j->dtype, j->exact};
    const struct format both = j->row ? format_join(before, f) : f;
    j->dtype = both.dtype;
    j->exact = both.exact;
    if (j->has_bias)
        bias = weights_f32(j->l->w, WEIGHTS_SHAPE(rows), "%s.bias", name);
    if (rows > j->rows - j->row) {
        j->l->err = ERR_INTERNAL;
        return;
    }
    if (j->weight && weight.data)
        joined_put(j, weight, rows);
    if (j->bias && bias)
        memcpy(j->bias + j->row, bias, sizeof *bias * rows);
    j->row += rows;
}

void joined_end(struct joined *j)
{
    if (j->skip)
        return;
    if (j->row != j->rows)
        j->l->err = ERR_INTERNAL;
    create(j->l, (struct format){j->dtype, j->exact},
           &(struct op_weight_params){
               .weight = j->weight,
               .from = j->from,
               .bias = j->bias,
               .out = j->rows,
               .in = j->in,
               .kernel = 1,
           },
           j->out);
    free(j->weight);
    free(j->bias);
}

// ---- networks ---------------------------------------------------------------------------------

struct load_stream {
    struct loader l;
    struct op_stream *ops;
    enum err (*load)(void *network, struct loader *l, struct fault *why);
    void *network;
};

static enum err fill_wanted(void *ctx)
{
    struct load_stream *s = ctx;
    struct fault why;

    s->l.err = ERR_OK;
    const enum err e = s->load(s->network, &s->l, &why);
    return e ? e : s->l.err;
}

// Decides what is kept, and loads it. From now on the loader only fills.
static enum err place(const struct load_params *p, struct loader *l, struct load_stream *s)
{
    const size_t room = weights_room(p->w);

    weights_set_dry(p->w, l->dry);
    l->again = true;
    s->l = *l;
    s->l.w = weights_share(p->w);
    s->load = p->load;
    s->network = p->network;
    return op_stream_place(s->ops, &(struct op_stream_params){
                                       .room = room ? room : SIZE_MAX,
                                       .fill = fill_wanted,
                                       .ctx = s,
                                   });
}

static enum err begin_stream(const struct load_params *p, struct loader *l,
                             struct load_stream **out)
{
    struct load_stream *s = calloc(1, sizeof *s);
    enum err e = s ? op_stream_create(p->dev, &s->ops) : ERR_NO_MEMORY;

    *out = s;
    if (e)
        return e;
    l->stream = s->ops;
    weights_set_dry(p->w, true);
    return ERR_OK;
}

void load_stream_destroy(struct load_stream **s)
{
    if (!*s)
        return;
    weights_close(&(*s)->l.w);
    op_stream_destroy(&(*s)->ops);
    free(*s);
    *s = NULL;
}

enum err load_checkpoint(const struct load_params *p, uint64_t *parameters,
                         struct load_stream **stream, struct fault *why)
{
    struct loader l = load_begin(p->dev, p->w, p->dtype);
    struct weights_stats stats;
    enum err e = ERR_OK;

    if (stream && p->dev && (l.dry || weights_room(p->w)))
        l.err = begin_stream(p, &l, stream);
    if (!l.err)
        e = p->load(p->network, &l, why);
    if (!e && !l.err)
        e = weights_finish(p->w, why);
    if (e)
        return e;
    if (!l.err && l.stream)
        l.err = place(p, &l, *stream);
    if (!l.err && p->dev)
        l.err = ops_device_settle(p->dev);
    if (l.err)
        return fault_set(why, l.err, NULL, "loading the %s: %s", p->what,
                         ops_device_why(p->dev, l.err));
    weights_stats(p->w, &stats);
    *parameters = stats.parameters;
    return ERR_OK;
}

void tap_point(const struct tap *tap, struct ops *o, const struct tensor *t, const char *fmt, ...)
{
    char name[LAYER_NAME];

    if (!tap)
        return;
    FORMAT_NAME(name, fmt);
    tap->fn(tap->ctx, o, name, t);
}
