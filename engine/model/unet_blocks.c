// Records one residual block, attention, text pooling or time embedding of the U-Net. Called by
// unet.c and unet_record.c on the engine's worker. Knows nothing about files or the order of
// blocks.
#include "unet_internal.h"

#include <math.h>

static struct tensor like(struct ops *o, const struct tensor *t, uint32_t c)
{
    return ops_temp(o, t->n, t->h, t->w, c);
}

// Residual blocks use norm_eps; attention norms use diffusers' default.
static const float attention_eps = 1e-5F;

static void group_norm(const struct unet_run *r, const struct norm *norm, const struct tensor *x,
                       const struct tensor *scale_shift, enum op_act act, const struct tensor *y)
{
    op_group_norm(r->o, &(struct op_group_norm_params){
                            .x = x,
                            .y = y,
                            .gamma = &norm->gamma,
                            .beta = &norm->beta,
                            .groups = r->u->config.norm_groups,
                            .eps = r->u->config.norm_eps,
                            .scale_shift = scale_shift,
                            .act = act,
                        });
}

static struct tensor resampled(const struct unet_run *r, enum resample how, const struct tensor *x)
{
    struct tensor y;

    if (how == RESAMPLE_DOWN) {
        y = ops_temp(r->o, x->n, x->h / 2, x->w / 2, x->c);
        op_avg_pool2(r->o, x, &y);
    } else {
        y = ops_temp(r->o, x->n, x->h * 2, x->w * 2, x->c);
        op_upsample_nearest2(r->o, x, &y);
    }
    return y;
}

void resnet_record(const struct unet_run *r, const struct resnet *b, const struct tensor *x,
                   const struct tensor *y)
{
    const struct unet_config *c = &r->u->config;
    struct ops *o = r->o;
    struct tensor skip = *x, h, conv, normed, time, shortcut;

    h = like(o, x, b->in);
    group_norm(r, &b->norm1, x, NULL, r->u->act, &h);
    tap_point(r->tap, r->o, &h, "%s.nonlinearity", b->name);
    if (b->resample != RESAMPLE_NONE) {
        struct tensor full = h;
        h = resampled(r, b->resample, &full);
        ops_release(o, &full);
        skip = resampled(r, b->resample, x);
    }
    conv = like(o, &h, b->out);
    op_conv2d(o, &h, b->conv1, NULL, &conv);
    ops_release(o, &h);
    tap_point(r->tap, r->o, &conv, "%s.conv1", b->name);

    time = tensor_channels(&r->time_proj, b->time_offset, (c->scale_shift ? 2 : 1) * b->out);
    tap_point(r->tap, r->o, &time, "%s.time_emb_proj", b->name);
    if (!c->scale_shift)
        op_add(o, &conv, &time, 1, &conv);
    normed = like(o, &conv, b->out);
    group_norm(r, &b->norm2, &conv, c->scale_shift ? &time : NULL, r->u->act, &normed);
    ops_release(o, &conv);

    shortcut = skip;
    if (b->shortcut) {
        shortcut = like(o, &skip, b->out);
        op_conv2d(o, &skip, b->shortcut, NULL, &shortcut);
        tap_point(r->tap, r->o, &shortcut, "%s.conv_shortcut", b->name);
    }
    op_conv2d(o, &normed, b->conv2,
              &(struct op_epilogue){.residual = &shortcut, .scale = 1 / b->out_scale}, y);
    ops_release(o, &normed);
    if (b->shortcut)
        ops_release(o, &shortcut);
    if (b->resample != RESAMPLE_NONE)
        ops_release(o, &skip);
    tap_point(r->tap, r->o, y, "%s", b->name);
}

void attention_record(const struct unet_run *r, const struct attention *a, const struct tensor *x,
                      const struct tensor *y)
{
    struct ops *o = r->o;
    const uint32_t c = a->channels, tokens = x->h * x->w;
    const struct unet_text *text = r->in->text;
    struct tensor normed = like(o, x, c), q, k, v, mixed, text_k, text_v;
    struct tensor qkv = ops_temp(o, x->n, 1, tokens, a->cross_only ? c : 3 * c);
    struct tensor flat = tensor_reshape(&normed, x->n, 1, tokens);

    op_group_norm(o, &(struct op_group_norm_params){
                         .x = x,
                         .y = &normed,
                         .gamma = &a->group_norm.gamma,
                         .beta = &a->group_norm.beta,
                         .groups = r->u->config.norm_groups,
                         .eps = attention_eps,
                     });
    tap_point(r->tap, r->o, &flat, "%s.group_norm", a->name);
    op_linear(o, &flat, a->qkv, NULL, &qkv);
    ops_release(o, &normed);
    q = tensor_channels(&qkv, 0, c);
    tap_point(r->tap, r->o, &q, "%s.to_q", a->name);

    text_k = tensor_channels(&text->kv[a->text_kv.slot], 0, c);
    text_v = tensor_channels(&text->kv[a->text_kv.slot], c, c);
    struct op_attention_params p = {
        .q = &q,
        .segment = {{.k = &text_k, .v = &text_v, .index = r->in->text_index}},
        .segments = 1,
        .heads = a->heads,
        .scale = 1 / sqrtf((float)(c / a->heads)),
    };
    if (!a->cross_only) {
        k = tensor_channels(&qkv, c, c);
        v = tensor_channels(&qkv, 2 * c, c);
        tap_point(r->tap, r->o, &k, "%s.to_k", a->name);
        tap_point(r->tap, r->o, &v, "%s.to_v", a->name);
        p.segment[1].k = &k;
        p.segment[1].v = &v;
        p.segments = 2;
    }
    mixed = ops_temp(o, x->n, 1, tokens, c);
    p.y = &mixed;
    op_attention(o, &p);
    ops_release(o, &qkv);

    struct tensor pixels = tensor_reshape(&mixed, x->n, x->h, x->w);
    op_linear(o, &pixels, a->out, &(struct op_epilogue){.residual = x}, y);
    ops_release(o, &mixed);
    tap_point(r->tap, r->o, y, "%s", a->name);
}

// cross_attention_norm "group_norm" always has 32 groups, regardless of norm_groups.
enum { NORM_CROSS_GROUPS = 32 };

void attention_record_text(const struct unet_run *r, const struct attention *a,
                           const struct tensor *states, const struct tensor *kv)
{
    struct ops *o = r->o;
    struct tensor normed = *states, part;

    if (a->norm_cross.gamma.buf) {
        normed = like(o, states, states->c);
        op_group_norm(o, &(struct op_group_norm_params){
                             .x = states,
                             .y = &normed,
                             .gamma = &a->norm_cross.gamma,
                             .beta = &a->norm_cross.beta,
                             .groups = NORM_CROSS_GROUPS,
                             .eps = attention_eps,
                         });
        tap_point(r->tap, r->o, &normed, "%s.norm_cross", a->name);
    }
    op_linear(o, &normed, a->text_kv.product, NULL, kv);
    if (a->norm_cross.gamma.buf)
        ops_release(o, &normed);
    part = tensor_channels(kv, 0, a->channels);
    tap_point(r->tap, r->o, &part, "%s.add_k_proj", a->name);
    part = tensor_channels(kv, a->channels, a->channels);
    tap_point(r->tap, r->o, &part, "%s.add_v_proj", a->name);
}

// AttentionPooling: one query, the mean of the tokens plus a learned position; keys and values come
// from that class token and all tokens. Its scale d^-1/4 on both q and k equals d^-1/2 on their
// product.
static void pool_tokens(const struct unet_run *r, const struct tensor *x, const struct tensor *y)
{
    const struct text_pool *p = &r->u->pool;
    struct ops *o = r->o;
    const uint32_t n = x->n, l = x->w, d = x->c;
    struct tensor token = ops_temp(o, n, 1, 1, d), q = ops_temp(o, n, 1, 1, d);
    struct tensor k0 = ops_temp(o, n, 1, 1, d), v0 = ops_temp(o, n, 1, 1, d);
    struct tensor k1 = ops_temp(o, n, 1, l, d), v1 = ops_temp(o, n, 1, l, d);

    op_mean_pixels(o, x, &token);
    struct tensor tokens = tensor_reshape(&token, 1, 1, n); // one position for all samples
    op_add(o, &tokens, &p->position, 1, &tokens);
    op_linear(o, &token, p->q, NULL, &q);
    op_linear(o, &token, p->k, NULL, &k0);
    op_linear(o, &token, p->v, NULL, &v0);
    op_linear(o, x, p->k, NULL, &k1);
    op_linear(o, x, p->v, NULL, &v1);
    op_attention(o, &(struct op_attention_params){
                        .q = &q,
                        .segment = {{.k = &k0, .v = &v0}, {.k = &k1, .v = &v1}},
                        .segments = 2,
                        .heads = p->heads,
                        .scale = 1 / sqrtf((float)(d / p->heads)),
                        .y = y,
                    });
    ops_release(o, &token);
    ops_release(o, &q);
    ops_release(o, &k0);
    ops_release(o, &v0);
    ops_release(o, &k1);
    ops_release(o, &v1);
}

void text_pool_record(const struct unet_run *r, const struct tensor *states, const struct tensor *y)
{
    const struct text_pool *p = &r->u->pool;
    struct ops *o = r->o;
    struct tensor normed = like(o, states, states->c);
    struct tensor pooled = ops_temp(o, states->n, 1, 1, states->c);
    struct tensor proj = ops_temp(o, states->n, 1, 1, y->c);

    op_layer_norm(o, states, &p->norm1.gamma, &p->norm1.beta, 1e-5F, &normed);
    tap_point(r->tap, r->o, &normed, "add_embedding.norm1");
    pool_tokens(r, &normed, &pooled);
    tap_point(r->tap, r->o, &pooled, "add_embedding.pool");
    op_linear(o, &pooled, p->proj, NULL, &proj);
    tap_point(r->tap, r->o, &proj, "add_embedding.proj");
    op_layer_norm(o, &proj, &p->norm2.gamma, &p->norm2.beta, 1e-5F, y);
    tap_point(r->tap, r->o, y, "add_embedding");
    ops_release(o, &normed);
    ops_release(o, &pooled);
    ops_release(o, &proj);
}

void time_mlp_record(const struct unet_run *r, const struct time_mlp *m,
                     const struct tensor *features, const struct tensor *residual,
                     const struct tensor *y)
{
    struct tensor hidden = like(r->o, features, y->c);

    op_linear(r->o, features, m->linear1, &(struct op_epilogue){.act = r->u->act}, &hidden);
    op_linear(r->o, &hidden, m->linear2, &(struct op_epilogue){.residual = residual}, y);
    ops_release(r->o, &hidden);
}
