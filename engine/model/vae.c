// The decoder of an AutoencoderKL as a class of decoders. Called through decoder.c. Knows nothing
// about files (see weights.c), sampling or bands. Source: diffusers AutoencoderKL, Decoder,
// UpDecoderBlock2D.
#include "decoder.h"
#include "model_act.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_LAYERS = VAE_MAX_LAYERS + 1 };

static const float norm_eps = 1e-6F;

struct vae_resnet {
    struct norm norm1, norm2;
    struct op_weight *conv1, *conv2, *shortcut; // shortcut NULL: identity
    uint32_t in, out;
};

// The only attention of the decoder, in mid_block: one head over all pixels.
struct vae_attention {
    struct norm norm;
    struct op_weight *qkv, *out;
};

struct vae_block {
    struct vae_resnet resnet[MAX_LAYERS];
    struct op_weight *upsampler; // NULL: none
    uint32_t channels;
};

struct vae {
    struct decoder base;
    enum op_act act;
    struct op_weight *post_quant, *conv_in, *conv_out; // post_quant NULL: none
    struct vae_resnet mid[2];
    struct vae_attention attention; // qkv NULL: none
    struct vae_block up[VAE_MAX_LEVELS];
    struct norm norm_out;
};

static const struct vae_config *config_of(const struct vae *v)
{
    return &v->base.config.vae;
}

// ---- loading ----------------------------------------------------------------------------------

static void load_resnet(struct loader *l, struct vae_resnet *r, uint32_t in, uint32_t out,
                        const char *where, int index)
{
    r->in = in;
    r->out = out;
    load_norm(l, &r->norm1, in, true, "%s.resnets.%d.norm1", where, index);
    load_conv(l, &r->conv1, out, in, 3, "%s.resnets.%d.conv1", where, index);
    load_norm(l, &r->norm2, out, true, "%s.resnets.%d.norm2", where, index);
    load_conv(l, &r->conv2, out, out, 3, "%s.resnets.%d.conv2", where, index);
    if (in != out)
        load_conv(l, &r->shortcut, out, in, 1, "%s.resnets.%d.conv_shortcut", where, index);
}

// Files that diffusers saved before version 0.15 have other names for its layers.
static void load_attention(struct loader *l, struct vae_attention *a, uint32_t c)
{
    static const char at[] = "decoder.mid_block.attentions.0";
    static const char *const names[2][4] = {{"to_q", "to_k", "to_v", "to_out.0"},
                                            {"query", "key", "value", "proj_attn"}};
    const char *const *name = names[weights_has(l->w, "%s.%s.weight", at, names[1][0])];
    struct joined qkv;

    load_norm(l, &a->norm, c, true, "%s.group_norm", at);
    joined_begin(&qkv, l, &a->qkv, 3 * c, c, true);
    for (int i = 0; i < 3; i++)
        joined_add(&qkv, c, "%s.%s", at, name[i]);
    joined_end(&qkv);
    load_linear(l, &a->out, c, c, true, "%s.%s", at, name[3]);
}

static void load_all(struct loader *l, struct vae *v)
{
    const struct vae_config *c = config_of(v);
    const uint32_t latent = (uint32_t)c->latent_channels;
    uint32_t channels = (uint32_t)c->channels[c->levels - 1];
    char where[48];

    if (c->post_quant)
        load_conv(l, &v->post_quant, latent, latent, 1, "post_quant_conv");
    load_conv(l, &v->conv_in, channels, latent, 3, "decoder.conv_in");
    for (int i = 0; i < 2; i++)
        load_resnet(l, &v->mid[i], channels, channels, "decoder.mid_block", i);
    if (c->mid_attention)
        load_attention(l, &v->attention, channels);
    for (int b = 0; b < c->levels; b++) {
        struct vae_block *block = &v->up[b];
        block->channels = (uint32_t)c->channels[c->levels - 1 - b];
        snprintf(where, sizeof where, "decoder.up_blocks.%d", b);
        for (int i = 0; i < c->layers + 1; i++) {
            load_resnet(l, &block->resnet[i], channels, block->channels, where, i);
            channels = block->channels;
        }
        if (b < c->levels - 1)
            load_conv(l, &block->upsampler, channels, channels, 3, "%s.upsamplers.0.conv", where);
    }
    load_norm(l, &v->norm_out, channels, true, "decoder.conv_norm_out");
    load_conv(l, &v->conv_out, (uint32_t)c->out_channels, channels, 3, "decoder.conv_out");
    weights_ignore(l->w, "encoder.");
    weights_ignore(l->w, "quant_conv.");
}

static enum err vae_load(struct decoder *base, struct loader *l, struct fault *why)
{
    struct vae *v = (struct vae *)base;
    const struct vae_config *c = config_of(v);

    // Parts of a joined product start at multiples of 4 channels.
    for (int i = 0; i < c->levels; i++)
        if (c->channels[i] % 4)
            return fault_set(why, ERR_UNSUPPORTED, "block_out_channels",
                             "block_out_channels has %d, which is not a multiple of 4",
                             c->channels[i]);
    v->act = model_act(c->act);
    load_all(l, v);
    return ERR_OK;
}

static void resnet_deinit(struct vae_resnet *r)
{
    norm_deinit(&r->norm1);
    norm_deinit(&r->norm2);
    op_weight_destroy(&r->conv1);
    op_weight_destroy(&r->conv2);
    op_weight_destroy(&r->shortcut);
}

static void vae_deinit(struct decoder *base)
{
    struct vae *v = (struct vae *)base;
    const struct vae_config *c = config_of(v);

    for (int i = 0; i < 2; i++)
        resnet_deinit(&v->mid[i]);
    for (int b = 0; b < c->levels; b++) {
        for (int i = 0; i < c->layers + 1; i++)
            resnet_deinit(&v->up[b].resnet[i]);
        op_weight_destroy(&v->up[b].upsampler);
    }
    norm_deinit(&v->attention.norm);
    norm_deinit(&v->norm_out);
    op_weight_destroy(&v->attention.qkv);
    op_weight_destroy(&v->attention.out);
    op_weight_destroy(&v->post_quant);
    op_weight_destroy(&v->conv_in);
    op_weight_destroy(&v->conv_out);
}

// ---- recording --------------------------------------------------------------------------------

// act(norm(x)); lines NULL: with the statistics of x.
static struct tensor normed(const struct vae *v, struct ops *o, const struct norm *n,
                            enum op_act act, const struct tensor *x, const struct tensor *lines)
{
    struct tensor y = ops_temp(o, x->n, x->h, x->w, x->c);

    if (lines)
        op_group_norm_lines(o, x, lines, act, &y);
    else
        op_group_norm(o, &(struct op_group_norm_params){
                             .x = x,
                             .y = &y,
                             .gamma = &n->gamma,
                             .beta = &n->beta,
                             .groups = (uint32_t)config_of(v)->norm_groups,
                             .eps = norm_eps,
                             .act = act,
                         });
    return y;
}

// conv1(act(norm1(x))).
static struct tensor record_first(const struct vae *v, struct ops *o, const struct vae_resnet *r,
                                  const struct tensor *x, const struct tensor *lines)
{
    struct tensor h = normed(v, o, &r->norm1, v->act, x, lines);
    struct tensor y = ops_temp(o, x->n, x->h, x->w, r->out);

    op_conv2d(o, &h, r->conv1, NULL, &y);
    ops_release(o, &h);
    return y;
}

// conv2(act(norm2(h))) + shortcut(x). Releases h and x.
static struct tensor record_second(const struct vae *v, struct ops *o, const struct vae_resnet *r,
                                   const struct tensor *h, struct tensor x,
                                   const struct tensor *lines)
{
    struct tensor n = normed(v, o, &r->norm2, v->act, h, lines), shortcut = x, y;

    ops_release(o, h);
    y = ops_temp(o, x.n, x.h, x.w, r->out);
    if (r->shortcut) {
        shortcut = ops_temp(o, x.n, x.h, x.w, r->out);
        op_conv2d(o, &x, r->shortcut, NULL, &shortcut);
        ops_release(o, &x);
    }
    op_conv2d(o, &n, r->conv2, &(struct op_epilogue){.residual = &shortcut}, &y);
    ops_release(o, &n);
    ops_release(o, &shortcut);
    return y;
}

// Releases x.
static struct tensor record_resnet(const struct vae *v, struct ops *o, const struct vae_resnet *r,
                                   struct tensor x)
{
    const struct tensor h = record_first(v, o, r, &x, NULL);

    return record_second(v, o, r, &h, x, NULL);
}

// x += out(attention(norm(x))).
static void record_attention(const struct vae *v, struct ops *o, const struct tensor *x)
{
    const uint32_t c = x->c, pixels = x->h * x->w;
    struct tensor h = normed(v, o, &v->attention.norm, ACT_NONE, x, NULL);
    struct tensor flat = tensor_reshape(&h, x->n, 1, pixels);
    struct tensor qkv = ops_temp(o, x->n, 1, pixels, 3 * c);
    struct tensor q = tensor_channels(&qkv, 0, c), k = tensor_channels(&qkv, c, c);
    struct tensor value = tensor_channels(&qkv, 2 * c, c);

    op_linear(o, &flat, v->attention.qkv, NULL, &qkv);
    op_attention(o, &(struct op_attention_params){
                        .q = &q,
                        .segment = {{.k = &k, .v = &value}},
                        .segments = 1,
                        .heads = 1,
                        .scale = 1 / sqrtf((float)c),
                        .y = &flat,
                    });
    ops_release(o, &qkv);
    op_linear(o, &h, v->attention.out, &(struct op_epilogue){.residual = x}, x);
    ops_release(o, &h);
}

// Releases x.
static struct tensor record_upsampler(struct ops *o, const struct op_weight *conv, struct tensor x)
{
    struct tensor large = ops_temp(o, x.n, 2 * x.h, 2 * x.w, x.c);
    struct tensor y = ops_temp(o, x.n, 2 * x.h, 2 * x.w, x.c);

    op_upsample_nearest2(o, &x, &large);
    ops_release(o, &x);
    op_conv2d(o, &large, conv, NULL, &y);
    ops_release(o, &large);
    return y;
}

static struct tensor vae_head(const struct decoder *base, struct ops *o,
                              const struct tensor *latents, const struct tap *tap)
{
    const struct vae *v = (const struct vae *)base;
    const uint32_t n = latents->n;
    struct tensor z = *latents, x = ops_temp(o, n, z.h, z.w, v->mid[0].in);

    if (v->post_quant) {
        z = ops_temp(o, n, z.h, z.w, z.c);
        op_conv2d(o, latents, v->post_quant, NULL, &z);
        tap_point(tap, o, &z, "post_quant_conv");
    }
    op_conv2d(o, &z, v->conv_in, NULL, &x);
    if (v->post_quant)
        ops_release(o, &z);
    tap_point(tap, o, &x, "decoder.conv_in");
    x = record_resnet(v, o, &v->mid[0], x);
    if (v->attention.qkv) {
        record_attention(v, o, &x);
        tap_point(tap, o, &x, "decoder.mid_block.attentions.0");
    }
    x = record_resnet(v, o, &v->mid[1], x);
    tap_point(tap, o, &x, "decoder.mid_block");
    return x;
}

// ---- segments ---------------------------------------------------------------------------------

// Where a segment is: segments 2 k and 2 k + 1 are the halves of the k-th resnet, of which the
// second has the upsampler behind it, too; the last one is the layers behind all blocks.
struct place {
    const struct vae_block *block; // NULL: the last segment
    const struct vae_resnet *resnet;
    int level;
    bool second, upsampled, ends; // ends: its block
};

static int vae_segments(const struct decoder *base)
{
    const struct vae_config *c = &base->config.vae;

    return 2 * c->levels * (c->layers + 1) + 1;
}

static struct place place_of(const struct vae *v, int index)
{
    const struct vae_config *c = config_of(v);
    const int resnet = index / 2, each = c->layers + 1;
    struct place p = {.level = resnet / each, .second = index % 2};

    if (index == vae_segments(&v->base) - 1)
        return (struct place){.level = c->levels - 1};
    p.block = &v->up[p.level];
    p.resnet = &p.block->resnet[resnet % each];
    p.ends = p.second && resnet % each == each - 1;
    p.upsampled = p.ends && p.block->upsampler;
    return p;
}

static struct decoder_segment vae_segment(const struct decoder *base, int index)
{
    const struct vae *v = (const struct vae *)base;
    const struct vae_config *c = config_of(v);
    const struct place p = place_of(v, index);
    const struct norm *n = !p.block ? &v->norm_out : p.second ? &p.resnet->norm2 : &p.resnet->norm1;

    return (struct decoder_segment){
        .gamma = &n->gamma,
        .beta = &n->beta,
        .groups = (uint32_t)c->norm_groups,
        .eps = norm_eps,
        .in = n->gamma.c,
        .out = p.block ? p.resnet->out : (uint32_t)c->out_channels,
        .added = p.second ? p.resnet->in : 0,
        .scale = 1U << p.level,
        .up = p.upsampled ? 2 : 1,
        .halo = p.upsampled ? 2 : 1, // each convolution reaches one row further
    };
}

static struct tensor vae_record_segment(const struct decoder *base, struct ops *o, int index,
                                        const struct decoder_input *in, const struct tap *tap)
{
    const struct vae *v = (const struct vae *)base;
    const struct place p = place_of(v, index);
    const struct tensor *x = in->x;
    struct tensor h, y;

    if (!p.block) {
        h = normed(v, o, &v->norm_out, v->act, x, in->lines);
        ops_release(o, x);
        y = ops_temp(o, h.n, h.h, h.w, (uint32_t)config_of(v)->out_channels);
        op_conv2d(o, &h, v->conv_out, NULL, &y);
        ops_release(o, &h);
        return y;
    }
    if (!p.second)
        return record_first(v, o, p.resnet, x, in->lines);
    y = record_second(v, o, p.resnet, x, *in->added, in->lines);
    if (p.upsampled)
        y = record_upsampler(o, p.block->upsampler, y);
    if (p.ends)
        tap_point(tap, o, &y, "decoder.up_blocks.%d", p.level);
    return y;
}

// ---- the class --------------------------------------------------------------------------------

static enum err vae_read(const char *path, struct decoder_config *out, struct fault *why)
{
    const struct vae_config *c = &out->vae;
    const enum err e = hfconfig_vae_read(path, &out->vae, why);

    if (e)
        return e;
    if (c->out_channels != 3)
        return fault_set(why, ERR_UNSUPPORTED, "out_channels",
                         "%s: out_channels %d is not supported, only 3", fault_path(path),
                         c->out_channels);
    out->channels = c->latent_channels;
    out->factor = 1 << (c->levels - 1);
    out->scaling = c->scaling_factor;
    out->shift = c->shift_factor;
    return ERR_OK;
}

static void vae_describe(const struct decoder_config *config, char *out, size_t n)
{
    const struct vae_config *c = &config->vae;
    size_t at = (size_t)snprintf(out, n, "VAE          channels");

    for (int i = 0; i < c->levels && at < n; i++)
        at += (size_t)snprintf(out + at, n - at, "%s%d", i ? "/" : " ", c->channels[i]);
    if (at < n)
        snprintf(out + at, n - at, ", %d latent channels, %d pixels per latent, scaled by %g",
                 config->channels, config->factor, (double)config->scaling);
}

const struct decoder_class vae_decoder = {
    .name = "AutoencoderKL",
    .read = vae_read,
    .describe = vae_describe,
    .bytes = sizeof(struct vae),
    .load = vae_load,
    .deinit = vae_deinit,
    .head = vae_head,
    .segments = vae_segments,
    .segment = vae_segment,
    .record_segment = vae_record_segment,
};
