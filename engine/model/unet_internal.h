// The parts of the loaded network, shared by unet.c (loading), unet_record.c (order of a forward
// pass) and unet_blocks.c (recording of a residual block, an attention or a text embedding).
// Private to these files.
#ifndef IMAGEND_UNET_INTERNAL_H
#define IMAGEND_UNET_INTERNAL_H

#include "unet.h"

enum {
    UNET_NAME = 64,
    UNET_MAX_TEXT_SLOTS = (2 * UNET_MAX_LEVELS + 1) * UNET_MAX_LAYERS * 2, // two in a transformer
};

enum resample { RESAMPLE_NONE, RESAMPLE_DOWN, RESAMPLE_UP };

// ResnetBlock2D. time_offset: the first channel of its scale and shift in the joined time
// projection.
struct resnet {
    char name[UNET_NAME];
    uint32_t in, out;
    struct norm norm1, norm2;
    struct op_weight *conv1, *conv2, *shortcut; // shortcut NULL: identity
    uint32_t time_offset;
    enum resample resample;
    float out_scale;
};

// Keys and values of text: a product, and the index of its results in unet_text.
struct text_kv {
    struct op_weight *product;
    uint32_t slot;
};

// Attention with AttnAddedKVProcessor. The image's q, k and v are one matrix product; so are the
// text's k and v.
struct attention {
    char name[UNET_NAME];
    uint32_t channels, heads;
    bool cross_only;
    struct norm group_norm, norm_cross; // norm_cross.gamma.buf NULL: none
    struct op_weight *qkv;              // only q if cross_only
    struct text_kv text_kv;
    struct op_weight *out;
};

// Transformer2DModel of one block: attn1 over the image, or over the text if cross_only; attn2 over
// the text; a gated feed-forward layer.
struct transformer {
    char name[UNET_NAME];
    uint32_t channels, heads;
    bool cross_only;
    struct norm norm, layer_norm[3];
    struct op_weight *proj_in, *proj_out;
    struct op_weight *q[2];     // of attn1 and attn2; attn1's with k and v unless cross_only
    struct text_kv kv[2];       // of attn1 and attn2; attn1's only if cross_only
    struct op_weight *out[2];   // of attn1 and attn2
    struct op_weight *ff_in[2]; // value and gate
    struct op_weight *ff_out;
};

struct block {
    char name[UNET_NAME];
    int layers;
    struct resnet resnet[UNET_MAX_LAYERS];
    enum unet_attention kind; // which of the two has the block's attentions
    struct attention attention[UNET_MAX_LAYERS];
    struct transformer transformer[UNET_MAX_LAYERS];
    int attentions; // 0, or one after each residual block; mid_block: one between its two
    bool resamples;
    bool conv;                      // by sampler_conv; false: by sampler
    struct resnet sampler;          // downsamplers.0 or upsamplers.0
    struct op_weight *sampler_conv; // see load_conv_down
};

// TextTimeEmbedding: LayerNorm, attention pooling, projection, LayerNorm.
struct text_pool {
    struct norm norm1, norm2;
    struct tensor position; // f32 [1, 1, 1, encoder_hid_dim]
    struct op_weight *q, *k, *v, *proj;
    uint32_t heads;
};

struct time_mlp {
    struct op_weight *linear1, *linear2;
};

struct unet {
    struct ops_device *dev;
    struct unet_config config;
    enum dtype dtype;
    enum op_act act, time_act; // config.act, config.time_act (ACT_NONE: not set)
    uint64_t parameters;
    struct load_stream *stream;  // NULL: none
    struct time_mlp time, level; // level: of the noise level (class_embedding)
    struct op_weight *hid_proj;  // NULL: the states are used unchanged
    struct text_pool pool;       // pool.q NULL: none
    struct op_weight *conv_in, *conv_out;
    struct norm norm_out;
    // In the order of a forward pass: down_blocks, mid_block at [levels], up_blocks.
    struct block block[2 * UNET_MAX_LEVELS + 1];
    int blocks;
    struct op_weight *time_proj; // time_emb_proj of all resnets, as one product
    uint32_t time_proj_channels;
    struct tensor level_table; // [1, 1, class_embeds, time_dim]; level_table.buf NULL: none
    uint32_t text_slots;
    uint32_t text_channels[UNET_MAX_TEXT_SLOTS]; // of the keys in each slot of unet_text
};

struct unet_text {
    uint32_t entries, length, count;
    struct tensor *kv;    // [count] of [entries, 1, L, 2C]: keys, then values
    struct tensor pooled; // [1, 1, entries, time_embedding_dim]
};

// One recording in progress.
struct unet_run {
    const struct unet *u;
    struct ops *o;
    const struct tap *tap;
    const struct unet_inputs *in;
    struct tensor time_proj; // [N, 1, 1, time_proj_channels]
};

// Reserves a slot of unet_text for keys and values of this many channels each.
uint32_t unet_text_slot(struct unet *u, uint32_t channels);

void transformer_load(struct loader *l, struct unet *u, struct transformer *t);
void transformer_deinit(struct transformer *t);
// x [N, H, W, C] -> y, which may be a channel view.
void transformer_record(const struct unet_run *r, const struct transformer *t,
                        const struct tensor *x, const struct tensor *y);
// states [n, 1, L, cross_dim] -> entries first .. first + n of text.
void transformer_record_text(const struct unet_run *r, const struct transformer *t,
                             const struct tensor *states, const struct unet_text *text,
                             uint32_t first);

// x [N, H, W, in] -> y [N, H', W', out]; y may be a channel view.
void resnet_record(const struct unet_run *r, const struct resnet *b, const struct tensor *x,
                   const struct tensor *y);
void attention_record(const struct unet_run *r, const struct attention *a, const struct tensor *x,
                      const struct tensor *y);
// states [n, 1, L, C] after encoder_hid_proj -> the attention's entry tensor kv [n, 1, L, 2C].
void attention_record_text(const struct unet_run *r, const struct attention *a,
                           const struct tensor *states, const struct tensor *kv);
// raw states [n, 1, L, D] -> y [n, 1, 1, time_embedding_dim].
void text_pool_record(const struct unet_run *r, const struct tensor *states,
                      const struct tensor *y);
// features [N, 1, 1, dim] -> y [N, 1, 1, time_embedding_dim] (plus residual unless NULL).
void time_mlp_record(const struct unet_run *r, const struct time_mlp *m,
                     const struct tensor *features, const struct tensor *residual,
                     const struct tensor *y);

#endif
