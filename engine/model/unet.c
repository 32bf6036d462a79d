// Loads a U-Net: requests every tensor of the checkpoint by name and shape, joins matrix products
// that have the same input, and repacks everything into device memory. Called when an engine opens,
// on its worker. Knows nothing about files (see weights.c) or sampling.
#include "model_act.h"
#include "unet_internal.h"

#include <stdio.h>
#include <stdlib.h>

uint32_t unet_text_slot(struct unet *u, uint32_t channels)
{
    u->text_channels[u->text_slots] = channels;
    return u->text_slots++;
}

// The layers to come have maps of that level, 0 being the widest.
static void set_level(struct loader *l, const struct unet *u, int level)
{
    l->side = (uint32_t)(u->config.sample_size / u->config.patch_size) >> level;
}

static void load_resnet(struct loader *l, struct unet *u, struct resnet *r, bool mid)
{
    const uint32_t in = r->in, out = r->out;

    load_norm(l, &r->norm1, in, true, "%s.norm1", r->name);
    load_conv(l, &r->conv1, out, in, 3, "%s.conv1", r->name);
    load_norm(l, &r->norm2, out, true, "%s.norm2", r->name);
    load_conv(l, &r->conv2, out, out, 3, "%s.conv2", r->name);
    if (in != out)
        load_conv(l, &r->shortcut, out, in, 1, "%s.conv_shortcut", r->name);
    r->time_offset = u->time_proj_channels;
    u->time_proj_channels += (u->config.scale_shift ? 2 : 1) * out;
    r->out_scale = mid ? u->config.mid_scale_factor : u->config.out_scale_factor;
}

static void load_attention(struct loader *l, struct unet *u, struct attention *a)
{
    const uint32_t c = a->channels, text = (uint32_t)u->config.cross_dim;
    struct joined qkv, kv;

    load_norm(l, &a->group_norm, c, true, "%s.group_norm", a->name);
    if (u->config.cross_norm == UNET_NORM_GROUP)
        load_norm(l, &a->norm_cross, text, true, "%s.norm_cross", a->name);
    joined_begin(&qkv, l, &a->qkv, a->cross_only ? c : 3 * c, c, true);
    joined_add(&qkv, c, "%s.to_q", a->name);
    if (!a->cross_only) {
        joined_add(&qkv, c, "%s.to_k", a->name);
        joined_add(&qkv, c, "%s.to_v", a->name);
    }
    joined_end(&qkv);
    l->seldom = true;
    joined_begin(&kv, l, &a->text_kv.product, 2 * c, text, true);
    joined_add(&kv, c, "%s.add_k_proj", a->name);
    joined_add(&kv, c, "%s.add_v_proj", a->name);
    joined_end(&kv);
    l->seldom = false;
    load_linear(l, &a->out, c, c, true, "%s.to_out.0", a->name);
    a->text_kv.slot = unet_text_slot(u, c);
}

// The attention after residual block i. where: the block's name.
static void load_block_attention(struct loader *l, struct unet *u, struct block *b,
                                 const char *where, int i, int channels, int heads, bool only_cross)
{
    struct attention *a = &b->attention[i];
    struct transformer *t = &b->transformer[i];

    if (b->kind == UNET_ATTENTION_TRANSFORMER) {
        snprintf(t->name, sizeof t->name, "%s.attentions.%d", where, i);
        t->channels = (uint32_t)channels;
        t->heads = (uint32_t)heads;
        t->cross_only = only_cross;
        transformer_load(l, u, t);
    } else {
        snprintf(a->name, sizeof a->name, "%s.attentions.%d", where, i);
        a->channels = (uint32_t)channels;
        a->heads = (uint32_t)heads;
        a->cross_only = only_cross;
        load_attention(l, u, a);
    }
}

static void load_sampler(struct loader *l, struct unet *u, struct block *b, const char *where,
                         int channels, bool up)
{
    const uint32_t c = (uint32_t)channels;

    l->side = up ? 2 * l->side : l->side / 2;
    snprintf(b->sampler.name, sizeof b->sampler.name, "%s.%ssamplers.0", where, up ? "up" : "down");
    b->sampler.in = b->sampler.out = c;
    b->sampler.resample = up ? RESAMPLE_UP : RESAMPLE_DOWN;
    if (!b->conv)
        load_resnet(l, u, &b->sampler, false);
    else if (up)
        load_conv(l, &b->sampler_conv, c, c, 3, "%s.conv", b->sampler.name);
    else
        load_conv_down(l, &b->sampler_conv, c, c, "%s.conv", b->sampler.name);
}

static void load_block(struct loader *l, struct unet *u, struct block *b,
                       const struct unet_block *config, bool up, int index)
{
    const char *side = up ? "up" : "down";
    char where[32];

    snprintf(where, sizeof where, "%s_blocks.%d", side, index);
    snprintf(b->name, sizeof b->name, "%s", where);
    b->layers = config->layers;
    b->kind = config->attention;
    b->attentions = b->kind ? config->layers : 0;
    b->conv = config->conv;
    b->resamples = config->resample;
    set_level(l, u, up ? u->config.levels - 1 - index : index);
    for (int i = 0; i < b->layers; i++) {
        struct resnet *r = &b->resnet[i];
        const int skip = !up ? 0 : i == b->layers - 1 ? config->skip_last : config->out;
        snprintf(r->name, sizeof r->name, "%s_blocks.%d.resnets.%d", side, index, i);
        r->in = (uint32_t)((i ? config->out : config->in) + skip);
        r->out = (uint32_t)config->out;
        load_resnet(l, u, r, false);
        if (b->attentions)
            load_block_attention(l, u, b, where, i, config->out, config->heads, config->only_cross);
    }
    if (b->resamples)
        load_sampler(l, u, b, where, config->out, up);
}

static void load_mid(struct loader *l, struct unet *u)
{
    const struct unet_config *c = &u->config;
    struct block *b = &u->block[c->levels];
    const uint32_t channels = (uint32_t)c->channels[c->levels - 1];

    snprintf(b->name, sizeof b->name, "mid_block");
    set_level(l, u, c->levels - 1);
    b->layers = c->mid == UNET_MID_NONE ? 0 : c->mid == UNET_MID_RESNET ? 1 : 2;
    for (int i = 0; i < b->layers; i++) {
        struct resnet *r = &b->resnet[i];
        snprintf(r->name, sizeof r->name, "mid_block.resnets.%d", i);
        r->in = r->out = channels;
        load_resnet(l, u, r, true);
    }
    if (b->layers < 2)
        return;
    b->attentions = 1;
    b->kind = c->mid == UNET_MID_CROSS ? UNET_ATTENTION_ADDED : UNET_ATTENTION_TRANSFORMER;
    load_block_attention(l, u, b, "mid_block", 0, (int)channels, c->mid_heads, c->mid_only_cross);
}

// Every residual block's time_emb_proj, at its time_offset: in the order in which they were loaded.
static void load_time_proj(struct loader *l, struct unet *u)
{
    const uint32_t parts = u->config.scale_shift ? 2 : 1;
    struct joined j;

    joined_begin(&j, l, &u->time_proj, u->time_proj_channels, (uint32_t)u->config.time_dim, true);
    for (int b = 0; b < u->blocks; b++) {
        const struct block *block = &u->block[b];
        for (int i = 0; i < block->layers; i++)
            joined_add(&j, parts * block->resnet[i].out, "%s.time_emb_proj", block->resnet[i].name);
        if (block->resamples && !block->conv)
            joined_add(&j, parts * block->sampler.out, "%s.time_emb_proj", block->sampler.name);
    }
    joined_end(&j);
}

static void load_text_pool(struct loader *l, struct unet *u)
{
    const uint32_t d = (uint32_t)u->config.text_dim;
    struct text_pool *p = &u->pool;

    p->heads = (uint32_t)u->config.add_heads;
    load_norm(l, &p->norm1, d, true, "add_embedding.norm1");
    load_norm(l, &p->norm2, (uint32_t)u->config.time_dim, true, "add_embedding.norm2");
    load_linear(l, &p->q, d, d, true, "add_embedding.pool.q_proj");
    load_linear(l, &p->k, d, d, true, "add_embedding.pool.k_proj");
    load_linear(l, &p->v, d, d, true, "add_embedding.pool.v_proj");
    load_linear(l, &p->proj, (uint32_t)u->config.time_dim, d, true, "add_embedding.proj");
    load_table(l, &p->position, l->dtype, 1, d, "add_embedding.pool.positional_embedding");
}

static void load_time_mlp(struct loader *l, struct unet *u, struct time_mlp *m, const char *name)
{
    const uint32_t dim = (uint32_t)u->config.time_dim, in = (uint32_t)u->config.channels[0];

    load_linear(l, &m->linear1, dim, in, true, "%s.linear_1", name);
    load_linear(l, &m->linear2, dim, dim, true, "%s.linear_2", name);
}

static enum err load_all(void *network, struct loader *l, struct fault *why)
{
    struct unet *u = network;
    const struct unet_config *c = &u->config;
    const uint32_t sub = (uint32_t)(c->patch_size * c->patch_size), base = (uint32_t)c->channels[0];

    (void)why;
    u->time_proj_channels = u->text_slots = 0;
    load_time_mlp(l, u, &u->time, "time_embedding");
    if (c->class_timestep)
        load_time_mlp(l, u, &u->level, "class_embedding");
    if (c->class_embeds)
        load_table(l, &u->level_table, l->dtype, (uint32_t)c->class_embeds, (uint32_t)c->time_dim,
                   "class_embedding.weight");
    l->seldom = true;
    if (c->text_proj)
        load_linear(l, &u->hid_proj, (uint32_t)c->cross_dim, (uint32_t)c->text_dim, true,
                    "encoder_hid_proj");
    if (c->add_text)
        load_text_pool(l, u);
    l->seldom = false;
    set_level(l, u, 0);
    load_conv(l, &u->conv_in, base, (uint32_t)c->in_channels * sub, 3, "conv_in");
    for (int i = 0; i < c->levels; i++)
        load_block(l, u, &u->block[i], &c->down[i], false, i);
    load_mid(l, u);
    for (int i = 0; i < c->levels; i++)
        load_block(l, u, &u->block[c->levels + 1 + i], &c->up[i], true, i);
    set_level(l, u, 0);
    load_norm(l, &u->norm_out, base, true, "conv_norm_out");
    load_conv(l, &u->conv_out, (uint32_t)c->out_channels * sub, base, 3, "conv_out");
    load_time_proj(l, u);
    return ERR_OK;
}

// Channel views, and the parts of joined products, must start at multiples of 4.
static enum err check_channels(const struct unet_config *c, struct fault *why)
{
    for (int i = 0; i < c->levels; i++) {
        if (c->channels[i] % 4)
            return fault_set(why, ERR_UNSUPPORTED, "block_out_channels",
                             "block_out_channels has %d, which is not a multiple of 4",
                             c->channels[i]);
    }
    if (c->low_res_residual && (c->out_channels * c->patch_size * c->patch_size) % 4)
        return fault_set(why, ERR_UNSUPPORTED, "low_res_residual",
                         "low_res_residual needs an even patch_size, not %d", c->patch_size);
    if (c->low_res_residual && c->in_channels < 2 * c->out_channels)
        return fault_set(why, ERR_UNSUPPORTED, "low_res_residual",
                         "low_res_residual needs %d in_channels, not %d", 2 * c->out_channels,
                         c->in_channels);
    if (c->cross_norm == UNET_NORM_LAYER)
        return fault_set(why, ERR_UNSUPPORTED, "cross_attention_norm",
                         "cross_attention_norm \"layer_norm\" is not supported");
    if (c->class_embeds && c->add_text)
        return fault_set(why, ERR_UNSUPPORTED, "num_class_embeds",
                         "num_class_embeds with addition_embed_type is not supported");
    if (c->mid != UNET_MID_NONE && c->mid_skip_time_act != c->skip_time_act)
        return fault_set(
            why, ERR_UNSUPPORTED, "resnet_skip_time_act",
            "resnet_skip_time_act must be the same for the mid block and the other blocks");
    return ERR_OK;
}

enum err unet_load(struct ops_device *dev, const struct unet_config *config, struct weights *w,
                   enum dtype dtype, struct unet **out, struct fault *why)
{
    struct unet *u = NULL;
    enum err e = check_channels(config, why);

    if (e)
        return e;
    u = calloc(1, sizeof *u);
    if (!u)
        return fault_set(why, ERR_NO_MEMORY, NULL, "no memory for the U-Net");
    u->dev = dev;
    u->config = *config;
    u->dtype = dtype;
    u->blocks = 2 * config->levels + 1;
    u->act = model_act(config->act);
    u->time_act = config->time_act_set ? model_act(config->time_act) : ACT_NONE;
    e = load_checkpoint(
        &(struct load_params){
            .dev = dev, .w = w, .dtype = dtype, .what = "U-Net", .load = load_all, .network = u},
        &u->parameters, &u->stream, why);
    if (e)
        goto fail;
    *out = u;
    return ERR_OK;
fail:
    unet_destroy(&u);
    return e;
}

static void resnet_deinit(struct resnet *r)
{
    norm_deinit(&r->norm1);
    norm_deinit(&r->norm2);
    op_weight_destroy(&r->conv1);
    op_weight_destroy(&r->conv2);
    op_weight_destroy(&r->shortcut);
}

static void block_deinit(struct block *b)
{
    for (int i = 0; i < b->layers; i++) {
        struct attention *a = &b->attention[i];
        resnet_deinit(&b->resnet[i]);
        norm_deinit(&a->group_norm);
        norm_deinit(&a->norm_cross);
        op_weight_destroy(&a->qkv);
        op_weight_destroy(&a->text_kv.product);
        op_weight_destroy(&a->out);
        transformer_deinit(&b->transformer[i]);
    }
    op_weight_destroy(&b->sampler_conv);
    resnet_deinit(&b->sampler);
}

void unet_destroy(struct unet **out)
{
    struct unet *u = *out;

    if (!u)
        return;
    for (int i = 0; i < u->blocks; i++)
        block_deinit(&u->block[i]);
    norm_deinit(&u->norm_out);
    norm_deinit(&u->pool.norm1);
    norm_deinit(&u->pool.norm2);
    tensor_destroy(&u->pool.position);
    tensor_destroy(&u->level_table);
    struct op_weight **products[] = {
        &u->time.linear1, &u->time.linear2, &u->level.linear1, &u->level.linear2,
        &u->hid_proj,     &u->pool.q,       &u->pool.k,        &u->pool.v,
        &u->pool.proj,    &u->conv_in,      &u->conv_out,      &u->time_proj,
    };
    for (size_t i = 0; i < sizeof products / sizeof *products; i++)
        op_weight_destroy(products[i]);
    load_stream_destroy(&u->stream);
    free(u);
    *out = NULL;
}

const struct unet_config *unet_get_config(const struct unet *u)
{
    return &u->config;
}

uint64_t unet_parameters(const struct unet *u)
{
    return u->parameters;
}

enum err unet_text_create(const struct unet *u, uint32_t entries, uint32_t length,
                          struct unet_text **out)
{
    struct unet_text *t = calloc(1, sizeof *t);
    enum err e = ERR_NO_MEMORY;

    if (!t)
        return e;
    t->entries = entries;
    t->length = length;
    t->count = u->text_slots;
    t->kv = calloc(t->count ? t->count : 1, sizeof *t->kv);
    if (!t->kv)
        goto fail;
    e = ERR_OK;
    for (uint32_t i = 0; !e && i < t->count; i++)
        e = tensor_create(u->dev, u->dtype, entries, 1, length, 2 * u->text_channels[i], &t->kv[i]);
    if (!e && u->config.add_text)
        e = tensor_create(u->dev, u->dtype, 1, 1, entries, (uint32_t)u->config.time_dim,
                          &t->pooled);
    if (e)
        goto fail;
    *out = t;
    return ERR_OK;
fail:
    unet_text_destroy(&t);
    return e;
}

void unet_text_destroy(struct unet_text **out)
{
    struct unet_text *t = *out;

    if (!t)
        return;
    for (uint32_t i = 0; t->kv && i < t->count; i++)
        tensor_destroy(&t->kv[i]);
    tensor_destroy(&t->pooled);
    free(t->kv);
    free(t);
    *out = NULL;
}
