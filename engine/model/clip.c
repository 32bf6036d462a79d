// CLIPTextModel: token and position embeddings, causal attention, feed-forward layers. Called
// through text_encoder.c. Knows nothing about diffusion. Source: transformers CLIPTextModel,
// CLIPEncoderLayer.
#include "model_act.h"
#include "text_encoder.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

struct clip_layer {
    struct norm norm1, norm2;
    struct op_weight *qkv, *out, *fc1, *fc2;
};

struct clip {
    struct text_encoder base;
    struct clip_config config;
    struct tensor tokens, positions; // [1, 1, vocab, width]; f32 [1, 1, length, width]
    struct tensor causal;            // f32 [1, length, length, heads]
    struct norm final_norm;
    struct clip_layer *layer;
};

static struct clip *as_clip(struct text_encoder *t)
{
    return (struct clip *)t;
}

// Attention adds this to its scores: a token does not see the tokens after it.
static void load_causal(struct loader *l, uint32_t length, uint32_t heads, struct tensor *out)
{
    static const float unseen = -1e30F;
    float *bias;

    if (l->err || !l->dev || out->buf)
        return;
    bias = calloc((size_t)length * length * heads, sizeof *bias);
    if (!bias) {
        l->err = ERR_NO_MEMORY;
        return;
    }
    for (size_t q = 0; q < length; q++)
        for (size_t i = (q + 1) * heads; i < (size_t)length * heads; i++)
            bias[q * length * heads + i] = unseen;
    l->err = tensor_create(l->dev, DT_F32, 1, length, length, heads, out);
    if (!l->err)
        l->err = tensor_upload(out, bias);
    free(bias);
}

static void load_layer(struct loader *l, const struct clip_config *c, struct clip_layer *y,
                       int index)
{
    const uint32_t d = (uint32_t)c->width, ff = (uint32_t)c->ff;
    struct joined qkv;
    char at[64];

    snprintf(at, sizeof at, "text_model.encoder.layers.%d", index);
    load_norm(l, &y->norm1, d, true, "%s.layer_norm1", at);
    joined_begin(&qkv, l, &y->qkv, 3 * d, d, true);
    joined_add(&qkv, d, "%s.self_attn.q_proj", at);
    joined_add(&qkv, d, "%s.self_attn.k_proj", at);
    joined_add(&qkv, d, "%s.self_attn.v_proj", at);
    joined_end(&qkv);
    load_linear(l, &y->out, d, d, true, "%s.self_attn.out_proj", at);
    load_norm(l, &y->norm2, d, true, "%s.layer_norm2", at);
    load_linear(l, &y->fc1, ff, d, true, "%s.mlp.fc1", at);
    load_linear(l, &y->fc2, d, ff, true, "%s.mlp.fc2", at);
}

static enum err clip_load(struct text_encoder *base, const struct text_encoder_config *config,
                          struct loader *l, struct fault *why)
{
    const struct clip_config *c = &config->clip;
    const uint32_t d = (uint32_t)c->width, length = (uint32_t)c->length;
    struct clip *t = as_clip(base);

    t->config = *c;
    if (c->width % 4 || c->ff % 4)
        return fault_set(why, ERR_UNSUPPORTED, "text_encoder",
                         "hidden_size and intermediate_size must be multiples of 4");
    if (!t->layer)
        t->layer = calloc((size_t)c->layers, sizeof *t->layer);
    if (!t->layer)
        return fault_set(why, ERR_NO_MEMORY, NULL, "no memory for the text encoder");
    load_table(l, &t->tokens, l->dtype, (uint32_t)c->vocab, d,
               "text_model.embeddings.token_embedding.weight");
    load_table(l, &t->positions, DT_F32, length, d,
               "text_model.embeddings.position_embedding.weight");
    load_causal(l, length, (uint32_t)c->heads, &t->causal);
    for (int i = 0; i < c->layers; i++)
        load_layer(l, c, &t->layer[i], i);
    load_norm(l, &t->final_norm, d, true, "text_model.final_layer_norm");
    weights_ignore(l->w, "text_model.embeddings.position_ids"); // 0, 1, 2, ...
    return ERR_OK;
}

static void clip_deinit(struct text_encoder *base)
{
    struct clip *t = as_clip(base);

    for (int i = 0; t->layer && i < t->config.layers; i++) {
        struct clip_layer *y = &t->layer[i];
        norm_deinit(&y->norm1);
        norm_deinit(&y->norm2);
        op_weight_destroy(&y->qkv);
        op_weight_destroy(&y->out);
        op_weight_destroy(&y->fc1);
        op_weight_destroy(&y->fc2);
    }
    tensor_destroy(&t->tokens);
    tensor_destroy(&t->positions);
    tensor_destroy(&t->causal);
    norm_deinit(&t->final_norm);
    free(t->layer);
}

// x += out(attention(norm(x))).
static void record_attention(const struct clip *t, struct ops *o, int index, const struct tensor *x,
                             const struct tensor *causal, const struct tap *tap)
{
    const struct clip_layer *y = &t->layer[index];
    const uint32_t d = x->c, heads = (uint32_t)t->config.heads;
    struct tensor h = ops_temp_dtype(o, DT_F32, x->n, 1, x->w, d);
    struct tensor qkv = ops_temp_dtype(o, DT_F32, x->n, 1, x->w, 3 * d);
    struct tensor q = tensor_channels(&qkv, 0, d), k = tensor_channels(&qkv, d, d);
    struct tensor v = tensor_channels(&qkv, 2 * d, d);

    op_layer_norm(o, x, &y->norm1.gamma, &y->norm1.beta, t->config.eps, &h);
    tap_point(tap, o, &h, "text_model.encoder.layers.%d.layer_norm1", index);
    op_linear(o, &h, y->qkv, NULL, &qkv);
    op_attention(o, &(struct op_attention_params){
                        .q = &q,
                        .segment = {{.k = &k, .v = &v}},
                        .segments = 1,
                        .heads = heads,
                        .scale = 1 / sqrtf((float)(d / heads)),
                        .bias = causal,
                        .y = &h,
                    });
    ops_release(o, &qkv);
    op_linear(o, &h, y->out, &(struct op_epilogue){.residual = x}, x);
    ops_release(o, &h);
}

// x += fc2(act(fc1(norm(x)))).
static void record_feed_forward(const struct clip *t, struct ops *o, int index,
                                const struct tensor *x)
{
    const struct clip_layer *y = &t->layer[index];
    struct tensor h = ops_temp_dtype(o, DT_F32, x->n, 1, x->w, x->c);
    struct tensor hidden = ops_temp_dtype(o, DT_F32, x->n, 1, x->w, (uint32_t)t->config.ff);

    op_layer_norm(o, x, &y->norm2.gamma, &y->norm2.beta, t->config.eps, &h);
    op_linear(o, &h, y->fc1, &(struct op_epilogue){.act = model_act(t->config.act)}, &hidden);
    op_linear(o, &hidden, y->fc2, &(struct op_epilogue){.residual = x}, x);
    ops_release(o, &hidden);
    ops_release(o, &h);
}

// Padding is text like any other: the model was trained without a mask for it.
static struct tensor clip_record(const struct text_encoder *base, struct ops *o,
                                 const struct tensor *ids, const struct tensor *valid,
                                 const struct tap *tap)
{
    const struct clip *t = (const struct clip *)base;
    const uint32_t n = ids->n, l = ids->w, d = (uint32_t)t->config.width;
    struct tensor x = ops_temp_dtype(o, DT_F32, n, 1, l, d);
    struct tensor y = ops_temp_dtype(o, DT_F32, n, 1, l, d);

    (void)valid;
    if (l != (uint32_t)t->config.length)
        ops_fail(o, ERR_INVALID);
    op_embed(o, ids, &t->tokens, &x);
    for (uint32_t i = 0; i < n; i++) {
        struct tensor row = tensor_samples(&x, i, 1);
        op_add(o, &row, &t->positions, 1, &row);
    }
    tap_point(tap, o, &x, "text_model.embeddings");
    for (int i = 0; i < t->config.layers; i++) {
        record_attention(t, o, i, &x, &t->causal, tap);
        record_feed_forward(t, o, i, &x);
        tap_point(tap, o, &x, "text_model.encoder.layers.%d", i);
    }
    op_layer_norm(o, &x, &t->final_norm.gamma, &t->final_norm.beta, t->config.eps, &y);
    ops_release(o, &x);
    return y;
}

static enum err clip_read(const char *path, struct text_encoder_config *out, struct fault *why)
{
    const enum err e = hfconfig_clip_read(path, &out->clip, why);

    out->width = out->clip.width;
    out->vocab = out->clip.vocab;
    out->length = out->clip.length;
    return e;
}

static void clip_describe(const struct text_encoder_config *config, char *out, size_t n)
{
    const struct clip_config *c = &config->clip;

    snprintf(out, n, "CLIP         %d layers, width %d, %d heads, feed-forward %d, %d tokens",
             c->layers, c->width, c->heads, c->ff, c->vocab);
}

const struct text_encoder_class clip_encoder = {
    .name = "CLIPTextModel",
    .tokenizer = TOKENIZER_CLIP,
    .read = clip_read,
    .describe = clip_describe,
    .bytes = sizeof(struct clip),
    .load = clip_load,
    .deinit = clip_deinit,
    .record = clip_record,
};
