// The T5 v1.1 encoder: loading and recording. Called when an engine opens and when a prompt is not
// in the text cache, on the engine's worker. Knows nothing about tokenizers or diffusion.
// Source: transformers T5EncoderModel, T5Stack.
#include "model_act.h"
#include "text_encoder.h"

#include <stdio.h>
#include <stdlib.h>

struct t5_layer {
    struct norm attention_norm, ff_norm;
    struct op_weight *qkv, *o, *wi_0, *wi_1, *wo;
};

struct t5 {
    struct text_encoder base;
    struct t5_config config;
    struct tensor embedding; // [1, 1, vocab, d_model]
    struct tensor buckets;   // f32 [1, 1, buckets, heads]
    struct norm final_norm;
    struct t5_layer *layer;
};

static void load_layer(struct loader *l, const struct t5_config *c, struct t5_layer *y, int index)
{
    const uint32_t d = (uint32_t)c->d_model, ff = (uint32_t)c->d_ff;
    const uint32_t inner = (uint32_t)(c->num_heads * c->d_kv);
    struct joined qkv;
    char at[48];

    snprintf(at, sizeof at, "encoder.block.%d.layer", index);
    load_norm(l, &y->attention_norm, d, false, "%s.0.layer_norm", at);
    joined_begin(&qkv, l, &y->qkv, 3 * inner, d, false);
    joined_add(&qkv, inner, "%s.0.SelfAttention.q", at);
    joined_add(&qkv, inner, "%s.0.SelfAttention.k", at);
    joined_add(&qkv, inner, "%s.0.SelfAttention.v", at);
    joined_end(&qkv);
    load_linear(l, &y->o, d, inner, false, "%s.0.SelfAttention.o", at);
    load_norm(l, &y->ff_norm, d, false, "%s.1.layer_norm", at);
    load_linear(l, &y->wi_0, ff, d, false, "%s.1.DenseReluDense.%s", at, c->gated ? "wi_0" : "wi");
    if (c->gated)
        load_linear(l, &y->wi_1, ff, d, false, "%s.1.DenseReluDense.wi_1", at);
    load_linear(l, &y->wo, d, ff, false, "%s.1.DenseReluDense.wo", at);
}

static void load_all(struct loader *l, struct t5 *t)
{
    const struct t5_config *c = &t->config;
    const uint32_t d = (uint32_t)c->d_model, vocab = (uint32_t)c->vocab_size;
    const uint32_t heads = (uint32_t)c->num_heads, buckets = (uint32_t)c->relative_buckets;
    // Some checkpoints store the shared embedding a second time, under the encoder's name.
    const bool shared = weights_has(l->w, "shared.weight");

    load_table(l, &t->embedding, l->dtype, vocab, d, "%s",
               shared ? "shared.weight" : "encoder.embed_tokens.weight");
    if (shared)
        weights_ignore(l->w, "encoder.embed_tokens.weight");
    load_table(l, &t->buckets, DT_F32, buckets, heads,
               "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight");
    for (int i = 0; i < c->num_layers; i++)
        load_layer(l, c, &t->layer[i], i);
    load_norm(l, &t->final_norm, d, false, "encoder.final_layer_norm");
    weights_ignore(l->w, "decoder.");
    weights_ignore(l->w, "lm_head.");
}

static enum err t5_load(struct text_encoder *base, const struct text_encoder_config *config,
                        struct loader *l, struct fault *why)
{
    const struct t5_config *c = &config->t5;
    struct t5 *t = (struct t5 *)base;

    t->config = *c;
    if (c->d_model % 4 || c->d_ff % 4 || c->num_heads * c->d_kv % 4)
        return fault_set(why, ERR_UNSUPPORTED, "text_encoder",
                         "d_model, d_ff and num_heads * d_kv must be multiples of 4");
    if (!t->layer)
        t->layer = calloc((size_t)c->num_layers, sizeof *t->layer);
    if (!t->layer)
        return fault_set(why, ERR_NO_MEMORY, NULL, "no memory for the text encoder");
    load_all(l, t);
    return ERR_OK;
}

static void t5_deinit(struct text_encoder *base)
{
    struct t5 *t = (struct t5 *)base;

    for (int i = 0; t->layer && i < t->config.num_layers; i++) {
        struct t5_layer *y = &t->layer[i];
        norm_deinit(&y->attention_norm);
        norm_deinit(&y->ff_norm);
        op_weight_destroy(&y->qkv);
        op_weight_destroy(&y->o);
        op_weight_destroy(&y->wi_0);
        op_weight_destroy(&y->wi_1);
        op_weight_destroy(&y->wo);
    }
    tensor_destroy(&t->embedding);
    tensor_destroy(&t->buckets);
    norm_deinit(&t->final_norm);
    free(t->layer);
}

struct run {
    const struct t5 *t;
    struct ops *o;
    const struct tap *tap;
    const struct tensor *valid, *bias;
};

// Shows t as a point of one block.
static void tap_block(const struct run *r, int index, const char *point, const struct tensor *t)
{
    tap_point(r->tap, r->o, t, "encoder.block.%d.%s", index, point);
}

// x += o(attention(rms(x))). Scores are not scaled; all layers share one position bias.
static void record_attention(const struct run *r, int index, const struct tensor *x)
{
    const struct t5_layer *y = &r->t->layer[index];
    const uint32_t inner = (uint32_t)(r->t->config.num_heads * r->t->config.d_kv);
    struct tensor h = ops_temp_dtype(r->o, DT_F32, x->n, 1, x->w, x->c);
    struct tensor qkv = ops_temp_dtype(r->o, DT_F32, x->n, 1, x->w, 3 * inner), q, k, v, mixed;

    op_rms_norm(r->o, x, &y->attention_norm.gamma, r->t->config.eps, &h);
    tap_block(r, index, "layer.0.layer_norm", &h);
    op_linear(r->o, &h, y->qkv, NULL, &qkv);
    ops_release(r->o, &h);
    q = tensor_channels(&qkv, 0, inner);
    k = tensor_channels(&qkv, inner, inner);
    v = tensor_channels(&qkv, 2 * inner, inner);
    tap_block(r, index, "layer.0.SelfAttention.q", &q);
    tap_block(r, index, "layer.0.SelfAttention.k", &k);
    tap_block(r, index, "layer.0.SelfAttention.v", &v);
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
    op_linear(r->o, &mixed, y->o, &(struct op_epilogue){.residual = x}, x);
    ops_release(r->o, &mixed);
    tap_block(r, index, "layer.0", x);
}

// x += wo(act(wi_0 h) * wi_1 h), h = rms(x).
static void record_feed_forward(const struct run *r, int index, const struct tensor *x)
{
    const struct t5_layer *y = &r->t->layer[index];
    const uint32_t ff = (uint32_t)r->t->config.d_ff;
    struct tensor h = ops_temp_dtype(r->o, DT_F32, x->n, 1, x->w, x->c);
    struct tensor gate = ops_temp_dtype(r->o, DT_F32, x->n, 1, x->w, ff), linear = gate;
    struct op_epilogue e = {.act = model_act(r->t->config.act)};

    op_rms_norm(r->o, x, &y->ff_norm.gamma, r->t->config.eps, &h);
    tap_block(r, index, "layer.1.layer_norm", &h);
    if (y->wi_1) {
        linear = ops_temp_dtype(r->o, DT_F32, x->n, 1, x->w, ff);
        op_linear(r->o, &h, y->wi_1, NULL, &linear);
        tap_block(r, index, "layer.1.DenseReluDense.wi_1", &linear);
        e.mul = &linear;
    }
    op_linear(r->o, &h, y->wi_0, &e, &gate);
    if (y->wi_1)
        ops_release(r->o, &linear);
    op_linear(r->o, &gate, y->wo, &(struct op_epilogue){.residual = x}, x);
    ops_release(r->o, &gate);
    ops_release(r->o, &h);
    tap_block(r, index, "layer.1", x);
}

static struct tensor t5_record(const struct text_encoder *base, struct ops *o,
                               const struct tensor *ids, const struct tensor *valid,
                               const struct tap *tap)
{
    const struct t5 *t = (const struct t5 *)base;
    const struct t5_config *c = &t->config;
    const uint32_t n = ids->n, l = ids->w, d = (uint32_t)c->d_model;
    struct tensor bias = ops_temp_dtype(o, DT_F32, 1, l, l, (uint32_t)c->num_heads);
    struct tensor x = ops_temp_dtype(o, DT_F32, n, 1, l, d);
    struct tensor y = ops_temp_dtype(o, DT_F32, n, 1, l, d);
    struct run r = {.t = t, .o = o, .tap = tap, .valid = valid, .bias = &bias};

    op_relative_bias(o, &t->buckets, (uint32_t)c->relative_max_distance, &bias);
    tap_block(&r, 0, "layer.0.SelfAttention.relative_attention_bias", &bias);
    op_embed(o, ids, &t->embedding, &x);
    tap_point(tap, o, &x, "shared");
    for (int i = 0; i < c->num_layers; i++) {
        record_attention(&r, i, &x);
        record_feed_forward(&r, i, &x);
    }
    op_rms_norm(o, &x, &t->final_norm.gamma, c->eps, &y);
    ops_release(o, &x);
    ops_release(o, &bias);
    return y;
}

static enum err t5_read(const char *path, struct text_encoder_config *out, struct fault *why)
{
    const enum err e = hfconfig_t5_read(path, &out->t5, why);

    out->width = out->t5.d_model;
    out->vocab = out->t5.vocab_size;
    return e;
}

static void t5_describe(const struct text_encoder_config *config, char *out, size_t n)
{
    const struct t5_config *c = &config->t5;

    snprintf(out, n, "T5           %d layers, width %d, %d heads of %d, feed-forward %d, %d tokens",
             c->num_layers, c->d_model, c->num_heads, c->d_kv, c->d_ff, c->vocab_size);
}

const struct text_encoder_class t5_encoder = {
    .name = "T5EncoderModel",
    .tokenizer = TOKENIZER_T5,
    .read = t5_read,
    .describe = t5_describe,
    .bytes = sizeof(struct t5),
    .load = t5_load,
    .deinit = t5_deinit,
    .record = t5_record,
};
