// Loads a U-Net: requests every tensor of the checkpoint by name and shape, joins matrix products
// that have the same input, and repacks everything into device memory. Called when an engine opens,
// on its worker. Knows nothing about files (see weights.c) or sampling.
#include "model_act.h"
#include "unet_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct load {
    struct ops_device *dev; // NULL: only count the tensors
    struct weights *w;
    enum dtype dtype, weights; // of tensors; of matrix products
    enum err err;
};

static void load_norm(struct load *l, struct norm *n, uint32_t c, const char *name)
{
    const float *gamma = weights_f32(l->w, WEIGHTS_SHAPE(c), "%s.weight", name);
    const float *beta = weights_f32(l->w, WEIGHTS_SHAPE(c), "%s.bias", name);

    if (l->err || !gamma || !beta || !l->dev)
        return;
    l->err = tensor_create(l->dev, DT_F32, 1, 1, 1, c, &n->gamma);
    if (!l->err)
        l->err = tensor_create(l->dev, DT_F32, 1, 1, 1, c, &n->beta);
    if (!l->err)
        l->err = tensor_upload(&n->gamma, gamma);
    if (!l->err)
        l->err = tensor_upload(&n->beta, beta);
}

// One linear layer joined from `parts` with the same input; their rows are concatenated.
struct product {
    uint32_t in;
    int parts;
    struct {
        char name[2 * UNET_NAME];
        uint32_t out;
    } part[3];
};

static void copy_rows(struct load *l, const struct product *p, int i, float *weight, float *bias)
{
    const uint32_t out = p->part[i].out;
    const char *name = p->part[i].name;
    const float *w = weights_f32(l->w, WEIGHTS_SHAPE(out, p->in), "%s.weight", name);
    const float *b = weights_f32(l->w, WEIGHTS_SHAPE(out), "%s.bias", name);

    if (w && b && weight) {
        memcpy(weight, w, sizeof *w * out * p->in);
        memcpy(bias, b, sizeof *b * out);
    }
}

static void load_product(struct load *l, const struct product *p, struct op_weight **out)
{
    const size_t columns = p->in;
    float *weight = NULL, *bias = NULL;
    uint32_t rows = 0, row = 0;

    for (int i = 0; i < p->parts; i++)
        rows += p->part[i].out;
    if (l->dev && !l->err) {
        weight = calloc(rows * columns, sizeof *weight);
        bias = calloc(rows, sizeof *bias);
        if (!weight || !bias)
            l->err = ERR_NO_MEMORY;
    }
    for (int i = 0; i < p->parts; i++) {
        copy_rows(l, p, i, l->err || !weight ? NULL : weight + row * columns,
                  l->err || !bias ? NULL : bias + row);
        row += p->part[i].out;
    }
    if (l->dev && !l->err)
        l->err = op_weight_create(l->dev,
                                  &(struct op_weight_params){
                                      .weight = weight,
                                      .bias = bias,
                                      .out = rows,
                                      .in = p->in,
                                      .kernel = 1,
                                      .dtype = l->weights,
                                  },
                                  out);
    free(weight);
    free(bias);
}

// kernel 0: a linear layer, whose tensor in the checkpoint has two dimensions.
static void load_layer(struct load *l, struct op_weight **out, uint32_t rows, uint32_t in,
                       uint32_t kernel, const char *fmt, ...) __attribute__((format(printf, 6, 7)));
static void load_layer(struct load *l, struct op_weight **out, uint32_t rows, uint32_t in,
                       uint32_t kernel, const char *fmt, ...)
{
    const struct weights_shape *shape =
        kernel ? WEIGHTS_SHAPE(rows, in, kernel, kernel) : WEIGHTS_SHAPE(rows, in);
    const float *weight, *bias;
    char name[2 * UNET_NAME];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    weight = weights_f32(l->w, shape, "%s.weight", name);
    bias = weights_f32(l->w, WEIGHTS_SHAPE(rows), "%s.bias", name);
    if (l->err || !l->dev || !weight || !bias)
        return;
    l->err = op_weight_create(l->dev,
                              &(struct op_weight_params){
                                  .weight = weight,
                                  .bias = bias,
                                  .out = rows,
                                  .in = in,
                                  .kernel = kernel ? kernel : 1,
                                  .dtype = l->weights,
                              },
                              out);
}

static void load_norm_of(struct load *l, struct norm *n, uint32_t c, const char *prefix,
                         const char *point)
{
    char name[2 * UNET_NAME];

    snprintf(name, sizeof name, "%s.%s", prefix, point);
    load_norm(l, n, c, name);
}

static void load_resnet(struct load *l, struct unet *u, struct resnet *r, bool mid)
{
    const uint32_t in = r->in, out = r->out;

    load_norm_of(l, &r->norm1, in, r->name, "norm1");
    load_layer(l, &r->conv1, out, in, 3, "%s.conv1", r->name);
    load_norm_of(l, &r->norm2, out, r->name, "norm2");
    load_layer(l, &r->conv2, out, out, 3, "%s.conv2", r->name);
    if (in != out)
        load_layer(l, &r->shortcut, out, in, 1, "%s.conv_shortcut", r->name);
    r->time_offset = u->time_proj_channels;
    u->time_proj_channels += (u->config.scale_shift ? 2 : 1) * out;
    r->out_scale = mid ? u->config.mid_scale_factor : u->config.out_scale_factor;
}

static void load_attention(struct load *l, struct unet *u, struct attention *a)
{
    const uint32_t c = a->channels, text = (uint32_t)u->config.cross_dim;
    static const char *const image[] = {"to_q", "to_k", "to_v"};
    static const char *const added[] = {"add_k_proj", "add_v_proj"};
    struct product qkv = {.in = c, .parts = a->cross_only ? 1 : 3};
    struct product kv = {.in = text, .parts = 2};

    load_norm_of(l, &a->group_norm, c, a->name, "group_norm");
    if (u->config.cross_norm == UNET_NORM_GROUP)
        load_norm_of(l, &a->norm_cross, text, a->name, "norm_cross");
    for (int i = 0; i < qkv.parts; i++) {
        qkv.part[i].out = c;
        snprintf(qkv.part[i].name, sizeof qkv.part[i].name, "%s.%s", a->name, image[i]);
    }
    for (int i = 0; i < kv.parts; i++) {
        kv.part[i].out = c;
        snprintf(kv.part[i].name, sizeof kv.part[i].name, "%s.%s", a->name, added[i]);
    }
    load_product(l, &qkv, &a->qkv);
    load_product(l, &kv, &a->text_kv);
    load_layer(l, &a->out, c, c, 0, "%s.to_out.0", a->name);
    a->text_slot = u->attentions++;
}

static void load_block(struct load *l, struct unet *u, struct block *b,
                       const struct unet_block *config, bool up, int index)
{
    const char *side = up ? "up" : "down";

    snprintf(b->name, sizeof b->name, "%s_blocks.%d", side, index);
    b->layers = config->layers;
    b->attends = config->attention;
    b->resamples = config->resample;
    for (int i = 0; i < b->layers; i++) {
        struct resnet *r = &b->resnet[i];
        const int skip = !up ? 0 : i == b->layers - 1 ? config->skip_last : config->out;
        snprintf(r->name, sizeof r->name, "%s_blocks.%d.resnets.%d", side, index, i);
        r->in = (uint32_t)((i ? config->out : config->in) + skip);
        r->out = (uint32_t)config->out;
        load_resnet(l, u, r, false);
        if (b->attends) {
            struct attention *a = &b->attention[i];
            snprintf(a->name, sizeof a->name, "%s_blocks.%d.attentions.%d", side, index, i);
            a->channels = (uint32_t)config->out;
            a->heads = (uint32_t)config->heads;
            a->cross_only = config->only_cross;
            load_attention(l, u, a);
        }
    }
    if (b->resamples) {
        snprintf(b->sampler.name, sizeof b->sampler.name, "%s_blocks.%d.%ssamplers.0", side, index,
                 side);
        b->sampler.in = b->sampler.out = (uint32_t)config->out;
        b->sampler.resample = up ? RESAMPLE_UP : RESAMPLE_DOWN;
        load_resnet(l, u, &b->sampler, false);
    }
}

static void load_mid(struct load *l, struct unet *u)
{
    const struct unet_config *c = &u->config;
    struct block *b = &u->mid;
    const uint32_t channels = (uint32_t)c->channels[c->levels - 1];

    snprintf(b->name, sizeof b->name, "mid_block");
    b->layers = c->mid == UNET_MID_NONE ? 0 : c->mid == UNET_MID_RESNET ? 1 : 2;
    for (int i = 0; i < b->layers; i++) {
        struct resnet *r = &b->resnet[i];
        snprintf(r->name, sizeof r->name, "mid_block.resnets.%d", i);
        r->in = r->out = channels;
        load_resnet(l, u, r, true);
    }
    if (c->mid == UNET_MID_CROSS) {
        struct attention *a = &b->attention[0];
        b->attends = true;
        snprintf(a->name, sizeof a->name, "mid_block.attentions.0");
        a->channels = channels;
        a->heads = (uint32_t)c->mid_heads;
        a->cross_only = c->mid_only_cross;
        load_attention(l, u, a);
    }
}

// Copies the rows of one residual block's time_emb_proj into the joined product.
static void copy_time_rows(struct load *l, const struct unet *u, const struct resnet *r,
                           float *weight, float *bias)
{
    struct product p = {.in = (uint32_t)u->config.time_dim, .parts = 1};

    p.part[0].out = (u->config.scale_shift ? 2 : 1) * r->out;
    snprintf(p.part[0].name, sizeof p.part[0].name, "%s.time_emb_proj", r->name);
    copy_rows(l, &p, 0, weight ? weight + (size_t)r->time_offset * p.in : NULL,
              bias ? bias + r->time_offset : NULL);
}

static void load_time_proj(struct load *l, struct unet *u)
{
    const uint32_t rows = u->time_proj_channels, in = (uint32_t)u->config.time_dim;
    float *weight = NULL, *bias = NULL;

    if (l->dev && !l->err) {
        weight = calloc((size_t)rows * in, sizeof *weight);
        bias = calloc(rows, sizeof *bias);
        if (!weight || !bias)
            l->err = ERR_NO_MEMORY;
    }
    for (int b = 0; b < 2 * u->config.levels + 1; b++) {
        const int levels = u->config.levels;
        const struct block *block = b < levels    ? &u->down[b]
                                    : b == levels ? &u->mid
                                                  : &u->up[b - levels - 1];
        for (int i = 0; i < block->layers; i++)
            copy_time_rows(l, u, &block->resnet[i], weight, bias);
        if (block->resamples)
            copy_time_rows(l, u, &block->sampler, weight, bias);
    }
    if (l->dev && !l->err)
        l->err = op_weight_create(l->dev,
                                  &(struct op_weight_params){
                                      .weight = weight,
                                      .bias = bias,
                                      .out = rows,
                                      .in = in,
                                      .kernel = 1,
                                      .dtype = l->weights,
                                  },
                                  &u->time_proj);
    free(weight);
    free(bias);
}

static void load_text_pool(struct load *l, struct unet *u)
{
    const uint32_t d = (uint32_t)u->config.text_dim;
    struct text_pool *p = &u->pool;
    const float *position;

    p->heads = (uint32_t)u->config.add_heads;
    load_norm(l, &p->norm1, d, "add_embedding.norm1");
    load_norm(l, &p->norm2, (uint32_t)u->config.time_dim, "add_embedding.norm2");
    load_layer(l, &p->q, d, d, 0, "add_embedding.pool.q_proj");
    load_layer(l, &p->k, d, d, 0, "add_embedding.pool.k_proj");
    load_layer(l, &p->v, d, d, 0, "add_embedding.pool.v_proj");
    load_layer(l, &p->proj, (uint32_t)u->config.time_dim, d, 0, "add_embedding.proj");
    position = weights_f32(l->w, WEIGHTS_SHAPE(1, d), "add_embedding.pool.positional_embedding");
    if (l->err || !l->dev || !position)
        return;
    l->err = tensor_create(l->dev, l->dtype, 1, 1, 1, d, &p->position);
    if (!l->err)
        l->err = tensor_upload(&p->position, position);
}

static void load_time_mlp(struct load *l, struct unet *u, struct time_mlp *m, const char *name)
{
    const uint32_t dim = (uint32_t)u->config.time_dim, in = (uint32_t)u->config.channels[0];

    load_layer(l, &m->linear1, dim, in, 0, "%s.linear_1", name);
    load_layer(l, &m->linear2, dim, dim, 0, "%s.linear_2", name);
}

static void load_all(struct load *l, struct unet *u)
{
    const struct unet_config *c = &u->config;
    const uint32_t sub = (uint32_t)(c->patch_size * c->patch_size), base = (uint32_t)c->channels[0];

    load_time_mlp(l, u, &u->time, "time_embedding");
    if (c->class_timestep)
        load_time_mlp(l, u, &u->level, "class_embedding");
    if (c->text_proj)
        load_layer(l, &u->hid_proj, (uint32_t)c->cross_dim, (uint32_t)c->text_dim, 0,
                   "encoder_hid_proj");
    if (c->add_text)
        load_text_pool(l, u);
    load_layer(l, &u->conv_in, base, (uint32_t)c->in_channels * sub, 3, "conv_in");
    for (int i = 0; i < c->levels; i++)
        load_block(l, u, &u->down[i], &c->down[i], false, i);
    load_mid(l, u);
    for (int i = 0; i < c->levels; i++)
        load_block(l, u, &u->up[i], &c->up[i], true, i);
    load_norm(l, &u->norm_out, base, "conv_norm_out");
    load_layer(l, &u->conv_out, (uint32_t)c->out_channels * sub, base, 3, "conv_out");
    load_time_proj(l, u);
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
    if (c->mid == UNET_MID_CROSS && c->mid_skip_time_act != c->skip_time_act)
        return fault_set(
            why, ERR_UNSUPPORTED, "resnet_skip_time_act",
            "resnet_skip_time_act must be the same for the mid block and the other blocks");
    return ERR_OK;
}

enum err unet_load(struct ops_device *dev, const struct unet_config *config, struct weights *w,
                   enum dtype dtype, struct unet **out, struct fault *why)
{
    struct load l = {
        .dev = dev, .w = w, .dtype = dtype, .weights = dev ? ops_device_info(dev)->weights : dtype};
    struct weights_stats stats;
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
    u->act = model_act(config->act);
    u->time_act = config->time_act_set ? model_act(config->time_act) : ACT_NONE;
    load_all(&l, u);
    if (!l.err && dev)
        l.err = ops_device_settle(dev);
    if (l.err) {
        e = fault_set(why, l.err, NULL, "loading the U-Net: %s", ops_device_why(dev, l.err));
        goto fail;
    }
    e = weights_finish(w, why);
    if (e)
        goto fail;
    weights_stats(w, &stats);
    u->parameters = stats.parameters;
    *out = u;
    return ERR_OK;
fail:
    unet_destroy(&u);
    return e;
}

static void norm_deinit(struct norm *n)
{
    tensor_destroy(&n->gamma);
    tensor_destroy(&n->beta);
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
        op_weight_destroy(&a->text_kv);
        op_weight_destroy(&a->out);
    }
    resnet_deinit(&b->sampler);
}

void unet_destroy(struct unet **out)
{
    struct unet *u = *out;

    if (!u)
        return;
    for (int i = 0; i < u->config.levels; i++) {
        block_deinit(&u->down[i]);
        block_deinit(&u->up[i]);
    }
    block_deinit(&u->mid);
    norm_deinit(&u->norm_out);
    norm_deinit(&u->pool.norm1);
    norm_deinit(&u->pool.norm2);
    tensor_destroy(&u->pool.position);
    struct op_weight **products[] = {
        &u->time.linear1, &u->time.linear2, &u->level.linear1, &u->level.linear2,
        &u->hid_proj,     &u->pool.q,       &u->pool.k,        &u->pool.v,
        &u->pool.proj,    &u->conv_in,      &u->conv_out,      &u->time_proj,
    };
    for (size_t i = 0; i < sizeof products / sizeof *products; i++)
        op_weight_destroy(products[i]);
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

static enum err text_kv_create(const struct unet *u, const struct attention *a, struct unet_text *t)
{
    return tensor_create(u->dev, u->dtype, t->entries, 1, t->length, 2 * a->channels,
                         &t->kv[a->text_slot]);
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
    t->count = u->attentions;
    t->kv = calloc(t->count ? t->count : 1, sizeof *t->kv);
    if (!t->kv)
        goto fail;
    e = ERR_OK;
    for (int b = 0; !e && b < u->config.levels; b++) {
        for (int i = 0; !e && u->down[b].attends && i < u->down[b].layers; i++)
            e = text_kv_create(u, &u->down[b].attention[i], t);
        for (int i = 0; !e && u->up[b].attends && i < u->up[b].layers; i++)
            e = text_kv_create(u, &u->up[b].attention[i], t);
    }
    if (!e && u->mid.attends)
        e = text_kv_create(u, &u->mid.attention[0], t);
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
