// Transformer2DModel in a U-Net: one transformer block between two projections, as in Stable
// Diffusion. Called by unet.c and unet_record.c on the engine's worker. Knows nothing about files
// or the order of blocks. Source: diffusers Transformer2DModel, BasicTransformerBlock, GEGLU.
#include "unet_internal.h"

#include <math.h>

enum { FF_FACTOR = 4 }; // width of the feed-forward layer over that of its input

static const float group_eps = 1e-6F, layer_eps = 1e-5F;

// The text's keys and values of one attention, and where unet_text keeps them.
static void load_text_kv(struct loader *l, struct unet *u, const struct transformer *t, int which,
                         struct text_kv *kv)
{
    struct joined j;

    kv->slot = unet_text_slot(u, t->channels);
    l->seldom = true;
    joined_begin(&j, l, &kv->product, 2 * t->channels, (uint32_t)u->config.cross_dim, false);
    joined_add(&j, t->channels, "%s.transformer_blocks.0.attn%d.to_k", t->name, which);
    joined_add(&j, t->channels, "%s.transformer_blocks.0.attn%d.to_v", t->name, which);
    joined_end(&j);
    l->seldom = false;
}

void transformer_load(struct loader *l, struct unet *u, struct transformer *t)
{
    const uint32_t c = t->channels;
    struct joined j;

    load_norm(l, &t->norm, c, true, "%s.norm", t->name);
    if (u->config.linear_projection) {
        load_linear(l, &t->proj_in, c, c, true, "%s.proj_in", t->name);
        load_linear(l, &t->proj_out, c, c, true, "%s.proj_out", t->name);
    } else {
        load_conv(l, &t->proj_in, c, c, 1, "%s.proj_in", t->name);
        load_conv(l, &t->proj_out, c, c, 1, "%s.proj_out", t->name);
    }
    for (int i = 0; i < 3; i++)
        load_norm(l, &t->layer_norm[i], c, true, "%s.transformer_blocks.0.norm%d", t->name, i + 1);
    joined_begin(&j, l, &t->q[0], t->cross_only ? c : 3 * c, c, false);
    joined_add(&j, c, "%s.transformer_blocks.0.attn1.to_q", t->name);
    if (!t->cross_only) {
        joined_add(&j, c, "%s.transformer_blocks.0.attn1.to_k", t->name);
        joined_add(&j, c, "%s.transformer_blocks.0.attn1.to_v", t->name);
    }
    joined_end(&j);
    if (t->cross_only)
        load_text_kv(l, u, t, 1, &t->kv[0]);
    load_linear(l, &t->q[1], c, c, false, "%s.transformer_blocks.0.attn2.to_q", t->name);
    load_text_kv(l, u, t, 2, &t->kv[1]);
    for (int i = 0; i < 2; i++)
        load_linear(l, &t->out[i], c, c, true, "%s.transformer_blocks.0.attn%d.to_out.0", t->name,
                    i + 1);
    load_halves(l, t->ff_in, FF_FACTOR * c, c, "%s.transformer_blocks.0.ff.net.0.proj", t->name);
    load_linear(l, &t->ff_out, c, FF_FACTOR * c, true, "%s.transformer_blocks.0.ff.net.2", t->name);
}

void transformer_deinit(struct transformer *t)
{
    norm_deinit(&t->norm);
    for (int i = 0; i < 3; i++)
        norm_deinit(&t->layer_norm[i]);
    for (int i = 0; i < 2; i++) {
        op_weight_destroy(&t->q[i]);
        op_weight_destroy(&t->kv[i].product);
        op_weight_destroy(&t->out[i]);
        op_weight_destroy(&t->ff_in[i]);
    }
    op_weight_destroy(&t->proj_in);
    op_weight_destroy(&t->proj_out);
    op_weight_destroy(&t->ff_out);
}

void transformer_record_text(const struct unet_run *r, const struct transformer *t,
                             const struct tensor *states, const struct unet_text *text,
                             uint32_t first)
{
    for (int i = t->cross_only ? 0 : 1; i < 2; i++) {
        struct tensor kv = tensor_samples(&text->kv[t->kv[i].slot], first, states->n), part;
        op_linear(r->o, states, t->kv[i].product, NULL, &kv);
        part = tensor_channels(&kv, 0, t->channels);
        tap_point(r->tap, r->o, &part, "%s.transformer_blocks.0.attn%d.to_k", t->name, i + 1);
        part = tensor_channels(&kv, t->channels, t->channels);
        tap_point(r->tap, r->o, &part, "%s.transformer_blocks.0.attn%d.to_v", t->name, i + 1);
    }
}

// h += out(attention(norm(h))): over the image itself, or over the text.
static void record_attention(const struct unet_run *r, const struct transformer *t, int which,
                             const struct tensor *h)
{
    const uint32_t c = t->channels;
    const bool own = which == 0 && !t->cross_only;
    const struct tensor *text = own ? NULL : &r->in->text->kv[t->kv[which].slot];
    struct ops *o = r->o;
    struct tensor normed = ops_temp(o, h->n, 1, h->w, c), q, k, v;
    struct tensor qkv = ops_temp(o, h->n, 1, h->w, own ? 3 * c : c);

    op_layer_norm(o, h, &t->layer_norm[which].gamma, &t->layer_norm[which].beta, layer_eps,
                  &normed);
    op_linear(o, &normed, t->q[which], NULL, &qkv);
    q = tensor_channels(&qkv, 0, c);
    tap_point(r->tap, o, &q, "%s.transformer_blocks.0.attn%d.to_q", t->name, which + 1);
    k = tensor_channels(own ? &qkv : text, own ? c : 0, c);
    v = tensor_channels(own ? &qkv : text, own ? 2 * c : c, c);
    op_attention(o, &(struct op_attention_params){
                        .q = &q,
                        .segment = {{.k = &k, .v = &v, .index = own ? NULL : r->in->text_index}},
                        .segments = 1,
                        .heads = t->heads,
                        .scale = 1 / sqrtf((float)(c / t->heads)),
                        .y = &normed,
                    });
    ops_release(o, &qkv);
    op_linear(o, &normed, t->out[which], &(struct op_epilogue){.residual = h}, h);
    ops_release(o, &normed);
}

// h += ff_out(value * gelu(gate)), both of norm(h).
static void record_feed_forward(const struct unet_run *r, const struct transformer *t,
                                const struct tensor *h)
{
    struct ops *o = r->o;
    struct tensor normed = ops_temp(o, h->n, 1, h->w, h->c);
    struct tensor value = ops_temp(o, h->n, 1, h->w, FF_FACTOR * h->c);
    struct tensor gated = ops_temp(o, h->n, 1, h->w, FF_FACTOR * h->c);

    op_layer_norm(o, h, &t->layer_norm[2].gamma, &t->layer_norm[2].beta, layer_eps, &normed);
    op_linear(o, &normed, t->ff_in[0], NULL, &value);
    op_linear(o, &normed, t->ff_in[1], &(struct op_epilogue){.act = ACT_GELU, .mul = &value},
              &gated);
    op_linear(o, &gated, t->ff_out, &(struct op_epilogue){.residual = h}, h);
    ops_release(o, &gated);
    ops_release(o, &value);
    ops_release(o, &normed);
}

void transformer_record(const struct unet_run *r, const struct transformer *t,
                        const struct tensor *x, const struct tensor *y)
{
    struct ops *o = r->o;
    struct tensor normed = ops_temp(o, x->n, x->h, x->w, x->c);
    struct tensor flat = tensor_reshape(&normed, x->n, 1, x->h * x->w);
    struct tensor h = ops_temp(o, x->n, 1, x->h * x->w, x->c);
    struct tensor pixels = tensor_reshape(&h, x->n, x->h, x->w);

    op_group_norm(o, &(struct op_group_norm_params){
                         .x = x,
                         .y = &normed,
                         .gamma = &t->norm.gamma,
                         .beta = &t->norm.beta,
                         .groups = (uint32_t)r->u->config.norm_groups,
                         .eps = group_eps,
                     });
    op_linear(o, &flat, t->proj_in, NULL, &h);
    ops_release(o, &normed);
    record_attention(r, t, 0, &h);
    record_attention(r, t, 1, &h);
    record_feed_forward(r, t, &h);
    op_linear(o, &pixels, t->proj_out, &(struct op_epilogue){.residual = x}, y);
    ops_release(o, &h);
    tap_point(r->tap, o, y, "%s", t->name);
}
