// The order of one U-Net forward pass: embeddings, down blocks, middle, up blocks, output. Called
// by the stages and tests on the engine's worker. Knows nothing about files.
#include "unet_internal.h"

enum { MAX_SKIPS = UNET_MAX_LEVELS * (UNET_MAX_LAYERS + 1) + 1 };

// A skip connection occupies the last channels of the tensor that its up block will read, so that
// concatenation is free: the up path and the skip write side by side.
struct skips {
    struct tensor joined[MAX_SKIPS];
    uint32_t head[MAX_SKIPS]; // channels from the up path
    int count;
};

// Computes the channels that each up residual block gets from the block before it, last skip first.
static void find_heads(const struct unet *u, struct skips *s)
{
    const int levels = u->config.levels;
    int total = 1;

    for (int b = 0; b < levels; b++)
        total += u->block[b].layers + u->block[b].resamples;
    uint32_t above = u->block[levels - 1].resnet[0].out;
    for (int b = levels + 1, k = total - 1; b < u->blocks; b++) {
        for (int i = 0; i < u->block[b].layers; i++, k--) {
            s->head[k] = above;
            above = u->block[b].resnet[i].out;
        }
    }
}

static struct tensor push_skip(struct unet_run *r, struct skips *s, uint32_t n, uint32_t h,
                               uint32_t w, uint32_t c)
{
    const uint32_t head = s->head[s->count];

    s->joined[s->count] = ops_temp(r->o, n, h, w, head + c);
    return tensor_channels(&s->joined[s->count++], head, c);
}

// The destination of the next up residual block's input.
static struct tensor next_head(const struct skips *s)
{
    return tensor_channels(&s->joined[s->count - 1], 0, s->head[s->count - 1]);
}

static struct tensor embed_time(struct unet_run *r)
{
    const struct unet_config *c = &r->u->config;
    const struct unet_inputs *in = r->in;
    struct ops *o = r->o;
    const uint32_t n = in->sample->n, dim = r->u->config.time_dim;
    struct tensor features = ops_temp(o, n, 1, 1, c->channels[0]);
    struct tensor emb = ops_temp(o, n, 1, 1, dim), part = emb;
    const struct tensor *residual = NULL;

    if (r->u->pool.q) {
        struct tensor rows = tensor_reshape(&emb, 1, 1, n), index = *in->text_index;
        index = tensor_reshape(&index, 1, 1, n);
        op_embed(o, &index, &in->text->pooled, &rows);
        residual = &emb;
    }
    if (r->u->level_table.buf) {
        struct tensor rows = tensor_reshape(&emb, 1, 1, n), index = {0};
        if (!in->noise_index) {
            ops_fail(o, ERR_INVALID);
            return emb;
        }
        index = tensor_reshape(in->noise_index, 1, 1, n);
        op_embed(o, &index, &r->u->level_table, &rows);
        tap_point(r->tap, o, &emb, "class_embedding");
        residual = &emb;
    }
    if (r->u->level.linear1) {
        op_time_embed(o, in->noise_level, c->flip_sin_to_cos, c->freq_shift, &features);
        time_mlp_record(r, &r->u->level, &features, residual, &part);
        residual = &emb;
    }
    op_time_embed(o, in->timestep, c->flip_sin_to_cos, c->freq_shift, &features);
    tap_point(r->tap, r->o, &features, "time_proj");
    time_mlp_record(r, &r->u->time, &features, residual, &emb);
    ops_release(o, &features);
    if (r->u->time_act != ACT_NONE) {
        op_act(o, r->u->time_act, &emb, &emb);
        tap_point(r->tap, r->o, &emb, "time_embed_act");
    }
    tap_point(r->tap, r->o, &emb, "emb");
    return emb;
}

// Computes every residual block's time_emb_proj as one product; most apply the activation first.
static void project_time(struct unet_run *r, struct tensor *emb)
{
    r->time_proj = ops_temp(r->o, emb->n, 1, 1, r->u->time_proj_channels);
    if (!r->u->config.skip_time_act)
        op_act(r->o, r->u->act, emb, emb);
    op_linear(r->o, emb, r->u->time_proj, NULL, &r->time_proj);
    ops_release(r->o, emb);
}

static void record_attention(const struct unet_run *r, const struct block *b, int i,
                             const struct tensor *x, const struct tensor *y)
{
    if (b->kind == UNET_ATTENTION_TRANSFORMER)
        transformer_record(r, &b->transformer[i], x, y);
    else
        attention_record(r, &b->attention[i], x, y);
}

// Halves or doubles the size of x.
static void record_sampler(const struct unet_run *r, const struct block *b, const struct tensor *x,
                           const struct tensor *y)
{
    struct tensor t;

    if (!b->conv) {
        resnet_record(r, &b->sampler, x, y);
        return;
    }
    if (b->sampler.resample == RESAMPLE_DOWN) {
        t = ops_temp(r->o, y->n, y->h, y->w, 4 * x->c);
        op_pixel_unshuffle(r->o, 2, x, &t);
    } else {
        t = ops_temp(r->o, y->n, y->h, y->w, x->c);
        op_upsample_nearest2(r->o, x, &t);
    }
    op_conv2d(r->o, &t, b->sampler_conv, NULL, y);
    ops_release(r->o, &t);
}

static struct tensor record_down(struct unet_run *r, struct skips *s)
{
    struct tensor h = *r->in->sample, y;

    y = push_skip(r, s, h.n, h.h, h.w, r->u->config.channels[0]);
    op_conv2d(r->o, &h, r->u->conv_in, NULL, &y);
    tap_point(r->tap, r->o, &y, "conv_in");
    h = y;
    for (int b = 0; b < r->u->config.levels; b++) {
        const struct block *block = &r->u->block[b];
        for (int i = 0; i < block->layers; i++) {
            const struct resnet *res = &block->resnet[i];
            y = push_skip(r, s, h.n, h.h, h.w, res->out);
            if (block->attentions) {
                struct tensor t = ops_temp(r->o, h.n, h.h, h.w, res->out);
                resnet_record(r, res, &h, &t);
                record_attention(r, block, i, &t, &y);
                ops_release(r->o, &t);
            } else {
                resnet_record(r, res, &h, &y);
            }
            h = y;
        }
        if (block->resamples) {
            if (h.h % 2 || h.w % 2)
                ops_fail(r->o, ERR_INVALID);
            y = push_skip(r, s, h.n, h.h / 2, h.w / 2, block->sampler.out);
            record_sampler(r, block, &h, &y);
            h = y;
        }
        tap_point(r->tap, r->o, &h, "%s", block->name);
    }
    return h;
}

// Records mid_block, from h into the first channels of the first up residual block's input.
static void record_mid(struct unet_run *r, const struct skips *s, const struct tensor *h)
{
    const struct block *mid = &r->u->block[r->u->config.levels];
    struct tensor y = next_head(s);

    if (mid->layers == 0) {
        op_copy(r->o, h, &y);
    } else if (mid->layers == 1) {
        resnet_record(r, &mid->resnet[0], h, &y);
    } else {
        struct tensor a = ops_temp(r->o, h->n, h->h, h->w, h->c);
        struct tensor b = ops_temp(r->o, h->n, h->h, h->w, h->c);
        resnet_record(r, &mid->resnet[0], h, &a);
        record_attention(r, mid, 0, &a, &b);
        resnet_record(r, &mid->resnet[1], &b, &y);
        ops_release(r->o, &a);
        ops_release(r->o, &b);
    }
    tap_point(r->tap, r->o, &y, "mid_block");
}

static struct tensor record_up(struct unet_run *r, struct skips *s)
{
    struct tensor y = {0};

    for (int b = r->u->config.levels + 1; b < r->u->blocks; b++) {
        const struct block *block = &r->u->block[b];
        for (int i = 0; i < block->layers; i++) {
            const struct resnet *res = &block->resnet[i];
            const bool last = i == block->layers - 1, resample = last && block->resamples;
            struct tensor x = s->joined[--s->count], t;

            y = resample || s->count == 0 ? ops_temp(r->o, x.n, x.h, x.w, res->out) : next_head(s);
            if (block->attentions) {
                t = ops_temp(r->o, x.n, x.h, x.w, res->out);
                resnet_record(r, res, &x, &t);
                record_attention(r, block, i, &t, &y);
                ops_release(r->o, &t);
            } else {
                resnet_record(r, res, &x, &y);
            }
            ops_release(r->o, &x);
            if (resample) {
                t = y;
                y = next_head(s);
                record_sampler(r, block, &t, &y);
                ops_release(r->o, &t);
            }
        }
        tap_point(r->tap, r->o, &y, "%s", block->name);
    }
    return y;
}

static struct tensor record_out(struct unet_run *r, const struct tensor *h)
{
    const struct unet_config *c = &r->u->config;
    const uint32_t p = c->patch_size, sub = p * p;
    struct tensor normed = ops_temp(r->o, h->n, h->h, h->w, h->c), y, full, low;
    struct op_epilogue e = {0};

    op_group_norm(r->o, &(struct op_group_norm_params){
                            .x = h,
                            .y = &normed,
                            .gamma = &r->u->norm_out.gamma,
                            .beta = &r->u->norm_out.beta,
                            .groups = c->norm_groups,
                            .eps = c->norm_eps,
                            .act = r->u->act,
                        });
    y = ops_temp(r->o, h->n, h->h, h->w, c->out_channels * sub);
    if (c->low_res_residual) {
        low = tensor_channels(r->in->sample, c->out_channels * sub, c->out_channels * sub);
        e.residual = &low;
    }
    op_conv2d(r->o, &normed, r->u->conv_out, &e, &y);
    ops_release(r->o, &normed);
    if (p == 1)
        return y;
    full = ops_temp(r->o, h->n, h->h * p, h->w * p, c->out_channels);
    op_pixel_shuffle(r->o, p, &y, &full);
    ops_release(r->o, &y);
    return full;
}

struct tensor unet_record(const struct unet *u, struct ops *o, const struct unet_inputs *in,
                          const struct tap *tap)
{
    struct unet_run r = {.u = u, .o = o, .tap = tap, .in = in};
    struct skips skips = {0};
    struct tensor emb, h;

    find_heads(u, &skips);
    emb = embed_time(&r);
    project_time(&r, &emb);
    h = record_down(&r, &skips);
    record_mid(&r, &skips, &h);
    h = record_up(&r, &skips);
    struct tensor y = record_out(&r, &h);
    ops_release(o, &h);
    ops_release(o, &r.time_proj);
    return y;
}

static void record_block_text(const struct unet_run *r, const struct block *b,
                              const struct tensor *states, const struct unet_text *text,
                              uint32_t first)
{
    for (int i = 0; i < b->attentions; i++) {
        const struct attention *a = &b->attention[i];
        if (b->kind == UNET_ATTENTION_TRANSFORMER) {
            transformer_record_text(r, &b->transformer[i], states, text, first);
        } else {
            struct tensor kv = tensor_samples(&text->kv[a->text_kv.slot], first, states->n);
            attention_record_text(r, a, states, &kv);
        }
    }
}

void unet_record_text(const struct unet *u, struct ops *o, const struct tensor *states,
                      struct unet_text *text, uint32_t first, const struct tap *tap)
{
    struct unet_run r = {.u = u, .o = o, .tap = tap};
    struct tensor proj = *states, pooled;

    if (u->pool.q) {
        pooled = tensor_reshape(&text->pooled, text->entries, 1, 1);
        pooled = tensor_samples(&pooled, first, states->n);
        text_pool_record(&r, states, &pooled);
    }
    if (u->hid_proj) {
        proj = ops_temp(o, states->n, 1, states->w, u->config.cross_dim);
        op_linear(o, states, u->hid_proj, NULL, &proj);
        tap_point(r.tap, r.o, &proj, "encoder_hid_proj");
    }
    for (int b = 0; b < u->blocks; b++)
        record_block_text(&r, &u->block[b], &proj, text, first);
    if (u->hid_proj)
        ops_release(o, &proj);
}
