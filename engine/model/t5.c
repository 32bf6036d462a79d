// The T5 v1.1 encoder: loading and recording. Called when an engine opens and when a prompt is not
// in the text cache, on the engine's worker. Knows nothing about tokenizers or diffusion.
#include "t5.h"
#include "model_act.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct t5_layer {
    struct tensor attention_norm, ff_norm; // f32 gamma
    struct op_weight *qkv, *o, *wi_0, *wi_1, *wo;
};

struct t5 {
    struct ops_device *dev;
    struct t5_config config;
    uint64_t parameters;
    struct tensor embedding; // [1, 1, vocab, d_model]
    struct tensor buckets;   // f32 [1, 1, buckets, heads]
    struct tensor final_norm;
    struct t5_layer *layer;
};

struct load {
    struct ops_device *dev; // NULL: only count the tensors
    struct weights *w;
    enum dtype dtype, weights; // of tensors; of matrix products
    enum err err;
};

static void load_tensor(struct load *l, enum dtype dtype, uint32_t rows, uint32_t c,
                        const float *data, struct tensor *out)
{
    if (l->err || !l->dev || !data)
        return;
    l->err = tensor_create(l->dev, dtype, 1, 1, rows, c, out);
    if (!l->err)
        l->err = tensor_upload(out, data);
}

static void load_linear(struct load *l, struct op_weight **out, uint32_t rows, uint32_t in,
                        const char *name)
{
    const float *data = weights_f32(l->w, WEIGHTS_SHAPE(rows, in), "%s.weight", name);

    if (l->err || !l->dev || !data)
        return;
    l->err = op_weight_create(
        l->dev,
        &(struct op_weight_params){
            .weight = data, .out = rows, .in = in, .kernel = 1, .dtype = l->weights},
        out);
}

// q, k and v have the same input, so they are one product.
static void load_qkv(struct load *l, struct op_weight **out, uint32_t inner, uint32_t in,
                     const char *prefix)
{
    static const char part[] = {'q', 'k', 'v'};
    const size_t span = (size_t)inner * in;
    float *joined = l->dev && !l->err ? malloc(3 * span * sizeof *joined) : NULL;

    if (l->dev && !l->err && !joined)
        l->err = ERR_NO_MEMORY;
    for (int i = 0; i < 3; i++) {
        const float *w =
            weights_f32(l->w, WEIGHTS_SHAPE(inner, in), "%s.%c.weight", prefix, part[i]);
        if (joined && w)
            memcpy(joined + (size_t)i * span, w, span * sizeof *w);
    }
    if (joined && !l->err)
        l->err = op_weight_create(
            l->dev,
            &(struct op_weight_params){
                .weight = joined, .out = 3 * inner, .in = in, .kernel = 1, .dtype = l->weights},
            out);
    free(joined);
}

static void load_layer(struct load *l, const struct t5_config *c, struct t5_layer *y, int index)
{
    const uint32_t d = (uint32_t)c->d_model, ff = (uint32_t)c->d_ff;
    const uint32_t inner = (uint32_t)(c->num_heads * c->d_kv);
    char name[96];

    load_tensor(
        l, DT_F32, 1, d,
        weights_f32(l->w, WEIGHTS_SHAPE(d), "encoder.block.%d.layer.0.layer_norm.weight", index),
        &y->attention_norm);
    snprintf(name, sizeof name, "encoder.block.%d.layer.0.SelfAttention", index);
    load_qkv(l, &y->qkv, inner, d, name);
    snprintf(name, sizeof name, "encoder.block.%d.layer.0.SelfAttention.o", index);
    load_linear(l, &y->o, d, inner, name);
    load_tensor(
        l, DT_F32, 1, d,
        weights_f32(l->w, WEIGHTS_SHAPE(d), "encoder.block.%d.layer.1.layer_norm.weight", index),
        &y->ff_norm);
    snprintf(name, sizeof name, "encoder.block.%d.layer.1.DenseReluDense.%s", index,
             c->gated ? "wi_0" : "wi");
    load_linear(l, &y->wi_0, ff, d, name);
    if (c->gated) {
        snprintf(name, sizeof name, "encoder.block.%d.layer.1.DenseReluDense.wi_1", index);
        load_linear(l, &y->wi_1, ff, d, name);
    }
    snprintf(name, sizeof name, "encoder.block.%d.layer.1.DenseReluDense.wo", index);
    load_linear(l, &y->wo, d, ff, name);
}

static void load_all(struct load *l, struct t5 *t)
{
    const struct t5_config *c = &t->config;
    const uint32_t d = (uint32_t)c->d_model, vocab = (uint32_t)c->vocab_size;
    const uint32_t heads = (uint32_t)c->num_heads, buckets = (uint32_t)c->relative_buckets;
    const float *table;

    // Some checkpoints store the shared embedding a second time, under the encoder's name.
    if (weights_has(l->w, "shared.weight")) {
        table = weights_f32(l->w, WEIGHTS_SHAPE(vocab, d), "shared.weight");
        weights_ignore(l->w, "encoder.embed_tokens.weight");
    } else {
        table = weights_f32(l->w, WEIGHTS_SHAPE(vocab, d), "encoder.embed_tokens.weight");
    }
    load_tensor(l, l->dtype, vocab, d, table, &t->embedding);
    load_tensor(l, DT_F32, buckets, heads,
                weights_f32(l->w, WEIGHTS_SHAPE(buckets, heads),
                            "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"),
                &t->buckets);
    for (int i = 0; i < c->num_layers; i++)
        load_layer(l, c, &t->layer[i], i);
    load_tensor(l, DT_F32, 1, d,
                weights_f32(l->w, WEIGHTS_SHAPE(d), "encoder.final_layer_norm.weight"),
                &t->final_norm);
    weights_ignore(l->w, "decoder.");
    weights_ignore(l->w, "lm_head.");
}

enum err t5_load(struct ops_device *dev, const struct t5_config *config, struct weights *w,
                 enum dtype dtype, struct t5 **out, struct fault *why)
{
    struct load l = {
        .dev = dev, .w = w, .dtype = dtype, .weights = dev ? ops_device_info(dev)->weights : dtype};
    struct weights_stats stats;
    enum err e = ERR_NO_MEMORY;
    struct t5 *t;

    if (config->d_model % 4 || config->d_ff % 4 || config->num_heads * config->d_kv % 4)
        return fault_set(why, ERR_UNSUPPORTED, "text_encoder",
                         "d_model, d_ff and num_heads * d_kv must be multiples of 4");
    t = calloc(1, sizeof *t);
    if (!t)
        return fault_set(why, e, NULL, "no memory for the text encoder");
    t->dev = dev;
    t->config = *config;
    t->layer = calloc((size_t)config->num_layers, sizeof *t->layer);
    if (!t->layer) {
        e = fault_set(why, e, NULL, "no memory for the text encoder");
        goto fail;
    }
    load_all(&l, t);
    if (!l.err && dev)
        l.err = ops_device_settle(dev);
    if (l.err) {
        e = fault_set(why, l.err, NULL, "loading the text encoder: %s", ops_device_why(dev, l.err));
        goto fail;
    }
    e = weights_finish(w, why);
    if (e)
        goto fail;
    weights_stats(w, &stats);
    t->parameters = stats.parameters;
    *out = t;
    return ERR_OK;
fail:
    t5_destroy(&t);
    return e;
}

void t5_destroy(struct t5 **out)
{
    struct t5 *t = *out;

    if (!t)
        return;
    for (int i = 0; t->layer && i < t->config.num_layers; i++) {
        struct t5_layer *y = &t->layer[i];
        tensor_destroy(&y->attention_norm);
        tensor_destroy(&y->ff_norm);
        op_weight_destroy(&y->qkv);
        op_weight_destroy(&y->o);
        op_weight_destroy(&y->wi_0);
        op_weight_destroy(&y->wi_1);
        op_weight_destroy(&y->wo);
    }
    tensor_destroy(&t->embedding);
    tensor_destroy(&t->buckets);
    tensor_destroy(&t->final_norm);
    free(t->layer);
    free(t);
    *out = NULL;
}

const struct t5_config *t5_get_config(const struct t5 *t)
{
    return &t->config;
}

uint64_t t5_parameters(const struct t5 *t)
{
    return t->parameters;
}

struct run {
    const struct t5 *t;
    struct ops *o;
    const struct t5_tap *tap;
    const struct tensor *valid, *bias;
};

static void tap_point(const struct run *r, int layer, const char *point, const struct tensor *x)
{
    char name[96];

    if (!r->tap)
        return;
    if (layer < 0)
        snprintf(name, sizeof name, "%s", point);
    else
        snprintf(name, sizeof name, "encoder.block.%d.%s", layer, point);
    r->tap->fn(r->tap->ctx, r->o, name, x);
}

static void tap_part(const struct run *r, int layer, const char *point, const struct tensor *x,
                     uint32_t first, uint32_t c)
{
    struct tensor part = tensor_channels(x, first, c);

    tap_point(r, layer, point, &part);
}

// x += o(attention(rms(x))). Scores are not scaled; all layers share one position bias.
static void record_attention(const struct run *r, int index, const struct tensor *x)
{
    const struct t5_layer *y = &r->t->layer[index];
    const uint32_t inner = (uint32_t)(r->t->config.num_heads * r->t->config.d_kv);
    struct tensor h = ops_temp_dtype(r->o, DT_F32, x->n, 1, x->w, x->c);
    struct tensor qkv = ops_temp_dtype(r->o, DT_F32, x->n, 1, x->w, 3 * inner), q, k, v, mixed;

    op_rms_norm(r->o, x, &y->attention_norm, r->t->config.eps, &h);
    tap_point(r, index, "layer.0.layer_norm", &h);
    op_linear(r->o, &h, y->qkv, NULL, &qkv);
    ops_release(r->o, &h);
    tap_part(r, index, "layer.0.SelfAttention.q", &qkv, 0, inner);
    tap_part(r, index, "layer.0.SelfAttention.k", &qkv, inner, inner);
    tap_part(r, index, "layer.0.SelfAttention.v", &qkv, 2 * inner, inner);
    q = tensor_channels(&qkv, 0, inner);
    k = tensor_channels(&qkv, inner, inner);
    v = tensor_channels(&qkv, 2 * inner, inner);
    mixed = ops_temp_dtype(r->o, DT_F32, x->n, 1, x->w, inner);
    op_attention(r->o, &(struct op_attention_params){
                           .q = &q,
                           .segment = {{.k = &k, .v = &v}},
                           .segments = 1,
                           .heads = (uint32_t)r->t->config.num_heads,
                           .scale = 1,
                           .bias = r->bias,
                           .valid = r->valid,
                           .y = &mixed,
                       });
    ops_release(r->o, &qkv);
    if (r->tap) {
        struct tensor alone = ops_temp_dtype(r->o, DT_F32, x->n, 1, x->w, x->c);
        op_linear(r->o, &mixed, y->o, NULL, &alone);
        tap_point(r, index, "layer.0.SelfAttention.o", &alone);
        ops_release(r->o, &alone);
    }
    op_linear(r->o, &mixed, y->o, &(struct op_epilogue){.residual = x}, x);
    ops_release(r->o, &mixed);
    tap_point(r, index, "layer.0", x);
}

// x += wo(act(wi_0 h) * wi_1 h), h = rms(x).
static void record_feed_forward(const struct run *r, int index, const struct tensor *x)
{
    const struct t5_layer *y = &r->t->layer[index];
    const uint32_t ff = (uint32_t)r->t->config.d_ff;
    const enum op_act act = model_act(r->t->config.act);
    struct tensor h = ops_temp_dtype(r->o, DT_F32, x->n, 1, x->w, x->c);
    struct tensor gate = ops_temp_dtype(r->o, DT_F32, x->n, 1, x->w, ff), linear = gate;
    struct op_epilogue e = {.act = act};

    op_rms_norm(r->o, x, &y->ff_norm, r->t->config.eps, &h);
    tap_point(r, index, "layer.1.layer_norm", &h);
    if (r->tap) {
        op_linear(r->o, &h, y->wi_0, NULL, &gate);
        tap_point(r, index,
                  r->t->config.gated ? "layer.1.DenseReluDense.wi_0" : "layer.1.DenseReluDense.wi",
                  &gate);
        op_act(r->o, act, &gate, &gate);
        tap_point(r, index, "layer.1.DenseReluDense.act", &gate);
    }
    if (y->wi_1) {
        linear = ops_temp_dtype(r->o, DT_F32, x->n, 1, x->w, ff);
        op_linear(r->o, &h, y->wi_1, NULL, &linear);
        tap_point(r, index, "layer.1.DenseReluDense.wi_1", &linear);
        e.mul = &linear;
    }
    op_linear(r->o, &h, y->wi_0, &e, &gate);
    if (y->wi_1)
        ops_release(r->o, &linear);
    if (r->tap) {
        op_linear(r->o, &gate, y->wo, NULL, &h);
        tap_point(r, index, "layer.1.DenseReluDense.wo", &h);
    }
    op_linear(r->o, &gate, y->wo, &(struct op_epilogue){.residual = x}, x);
    ops_release(r->o, &gate);
    ops_release(r->o, &h);
    tap_point(r, index, "layer.1", x);
}

struct tensor t5_record(const struct t5 *t, struct ops *o, const struct tensor *ids,
                        const struct tensor *valid, const struct t5_tap *tap)
{
    const struct t5_config *c = &t->config;
    const uint32_t n = ids->n, l = ids->w, d = (uint32_t)c->d_model;
    struct tensor bias = ops_temp_dtype(o, DT_F32, 1, l, l, (uint32_t)c->num_heads);
    struct tensor x = ops_temp_dtype(o, DT_F32, n, 1, l, d);
    struct tensor y = ops_temp_dtype(o, DT_F32, n, 1, l, d);
    struct run r = {.t = t, .o = o, .tap = tap, .valid = valid, .bias = &bias};

    op_relative_bias(o, &t->buckets, (uint32_t)c->relative_max_distance, &bias);
    tap_point(&r, 0, "layer.0.SelfAttention.relative_attention_bias", &bias);
    op_embed(o, ids, &t->embedding, &x);
    tap_point(&r, -1, "shared", &x);
    for (int i = 0; i < c->num_layers; i++) {
        record_attention(&r, i, &x);
        record_feed_forward(&r, i, &x);
    }
    op_rms_norm(o, &x, &t->final_norm, c->eps, &y);
    ops_release(o, &x);
    ops_release(o, &bias);
    return y;
}
