// Parses UNet2DConditionModel's config.json into struct unet_config. Called while a model is loaded
// or inspected, on any thread. Source: diffusers UNet2DConditionModel.__init__, get_down_block,
// get_mid_block, get_up_block; patch_size and low_res_* are this project's own keys.
#include "hfconfig.h"
#include "hfconfig_priv.h"

#include <string.h>

enum { CROSS_NORM_GROUPS = 32 };

static const struct hfconfig_key unet_keys[] = {
    HFCONFIG_READ("sample_size"),
    HFCONFIG_READ("in_channels"),
    HFCONFIG_READ("out_channels"),
    HFCONFIG_READ("patch_size"),
    HFCONFIG_READ("low_res_residual"),
    HFCONFIG_READ("low_res_align_corners"),
    HFCONFIG_READ("flip_sin_to_cos"),
    HFCONFIG_READ("freq_shift"),
    HFCONFIG_READ("down_block_types"),
    HFCONFIG_READ("mid_block_type"),
    HFCONFIG_READ("up_block_types"),
    HFCONFIG_READ("only_cross_attention"),
    HFCONFIG_READ("block_out_channels"),
    HFCONFIG_READ("layers_per_block"),
    HFCONFIG_READ("mid_block_scale_factor"),
    HFCONFIG_READ("act_fn"),
    HFCONFIG_READ("norm_num_groups"),
    HFCONFIG_READ("norm_eps"),
    HFCONFIG_READ("cross_attention_dim"),
    HFCONFIG_READ("encoder_hid_dim"),
    HFCONFIG_READ("encoder_hid_dim_type"),
    HFCONFIG_READ("attention_head_dim"),
    HFCONFIG_READ("class_embed_type"),
    HFCONFIG_READ("num_class_embeds"),
    HFCONFIG_READ("addition_embed_type"),
    HFCONFIG_READ("addition_embed_type_num_heads"),
    HFCONFIG_READ("resnet_time_scale_shift"),
    HFCONFIG_READ("resnet_skip_time_act"),
    HFCONFIG_READ("resnet_out_scale_factor"),
    HFCONFIG_READ("time_embedding_dim"),
    HFCONFIG_READ("time_embedding_act_fn"),
    HFCONFIG_READ("mid_block_only_cross_attention"),
    HFCONFIG_READ("cross_attention_norm"),
    HFCONFIG_READ("use_linear_projection"),
    {"downsample_padding", "1"},
    {"dual_cross_attention", "false"},
    {"transformer_layers_per_block", "1"},
    {"center_input_sample", "false"},
    {"conv_in_kernel", "3"},
    {"conv_out_kernel", "3"},
    {"time_embedding_type", "\"positional\""},
    {"timestep_post_act", "null"},
    {"time_cond_proj_dim", "null"},
    {"class_embeddings_concat", "false"},
    {"num_attention_heads", "null"},
    {"attention_type", "\"default\""},
    // keys of block and embedding types that are themselves unsupported
    HFCONFIG_HARMLESS("reverse_transformer_layers_per_block"),
    HFCONFIG_HARMLESS("addition_time_embed_dim"),
    HFCONFIG_HARMLESS("projection_class_embeddings_input_dim"),
    // softmax is always computed in f32; dropout is for training only
    HFCONFIG_HARMLESS("upcast_attention"),
    HFCONFIG_HARMLESS("dropout"),
    // added by diffusers' EMAModel to the config of averaged weights
    HFCONFIG_HARMLESS("decay"),
    HFCONFIG_HARMLESS("min_decay"),
    HFCONFIG_HARMLESS("optimization_step"),
    HFCONFIG_HARMLESS("update_after_step"),
    HFCONFIG_HARMLESS("use_ema_warmup"),
    HFCONFIG_HARMLESS("inv_gamma"),
    HFCONFIG_HARMLESS("power"),
    {NULL}};

static bool is_absent(const struct json_reader *r, const char *key)
{
    return json_key(r, key) == JSON_ABSENT;
}

static bool is_null(const struct json_reader *r, const char *key)
{
    return json_key(r, key) == JSON_NONE || is_absent(r, key);
}

static enum hfconfig_act read_act(struct json_reader *r, const char *key)
{
    static const char *const names[] = {"silu", "swish", "gelu", "relu", NULL};
    static const enum hfconfig_act acts[] = {HF_ACT_SILU, HF_ACT_SILU, HF_ACT_GELU, HF_ACT_RELU};
    return acts[json_read_enum(r, key, 0, names)];
}

static float read_positive(struct json_reader *r, const char *key, double def)
{
    double v = json_read_number(r, key, def, 0, 1e6);
    if (v <= 0)
        hfconfig_unsupported(r, key);
    return (float)v;
}

// ---- blocks ---------------------------------------------------------------------------------

static const struct block_type {
    const char *name[2]; // in down_block_types, in up_block_types
    enum unet_attention attention;
    bool conv;
} block_types[] = {
    {{"ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D"}, UNET_ATTENTION_NONE, false},
    {{"SimpleCrossAttnDownBlock2D", "SimpleCrossAttnUpBlock2D"}, UNET_ATTENTION_ADDED, false},
    {{"DownBlock2D", "UpBlock2D"}, UNET_ATTENTION_NONE, true},
    {{"CrossAttnDownBlock2D", "CrossAttnUpBlock2D"}, UNET_ATTENTION_TRANSFORMER, true},
};
enum { BLOCK_TYPES = sizeof block_types / sizeof *block_types };

static void read_block_types(struct json_reader *r, const char *key, int levels,
                             const struct block_type **out)
{
    const int side = !strcmp(key, "up_block_types");
    const struct json_t *v = json_find(r->map, key);

    if (is_absent(r, key)) {
        json_fail(r, ERR_UNSUPPORTED, key, "is missing, and its default is not supported");
        return;
    }
    if (json_kind(v) != JSON_LIST || json_count(v) != (size_t)levels) {
        json_fail(r, ERR_FORMAT, key, "must be a list as long as block_out_channels");
        return;
    }
    for (int i = 0; i < levels; i++) {
        const struct json_t *item = json_item(v, (size_t)i);
        const char *s = json_text(item, NULL);
        char shown[64];
        for (int k = 0; s && k < BLOCK_TYPES; k++)
            if (!strcmp(s, block_types[k].name[side]))
                out[i] = &block_types[k];
        if (out[i])
            continue;
        json_show(item, shown, sizeof shown);
        json_fail(r, ERR_UNSUPPORTED, key, "%s is not supported", shown);
    }
}

// Reads a bool for all blocks, or a list of them.
static void read_bools(struct json_reader *r, const char *key, int levels, bool *out)
{
    const struct json_t *v = json_find(r->map, key);
    bool list = json_kind(v) == JSON_LIST;

    for (int i = 0; i < levels; i++)
        out[i] = false;
    if (!v)
        return;
    if (list && json_count(v) != (size_t)levels) {
        json_fail(r, ERR_FORMAT, key, "must be as long as block_out_channels");
        return;
    }
    for (int i = 0; i < levels; i++) {
        const struct json_t *b = list ? json_item(v, (size_t)i) : v;
        if (json_kind(b) != JSON_BOOL) {
            json_fail(r, ERR_FORMAT, key, "must be true, false or a list of booleans");
            return;
        }
        out[i] = json_bool(b);
    }
}

static void read_channels(struct json_reader *r, struct unet_config *c)
{
    static const int defaults[] = {320, 640, 1280, 1280};
    size_t n = json_count(json_find(r->map, "block_out_channels"));

    c->levels = 4;
    memcpy(c->channels, defaults, sizeof defaults);
    if (is_absent(r, "block_out_channels"))
        return;
    if (json_kind(json_find(r->map, "block_out_channels")) != JSON_LIST || n < 1 ||
        n > UNET_MAX_LEVELS) {
        json_fail(r, ERR_FORMAT, "block_out_channels", "must be a list of 1 to %d integers",
                  (int)UNET_MAX_LEVELS);
        return;
    }
    c->levels = (int)n;
    json_read_ints(r, "block_out_channels", 0, 1, 1 << 15, c->levels, c->channels);
}

// The per-level lists of the config, before they are combined into blocks.
struct lists {
    const struct block_type *down[UNET_MAX_LEVELS], *up[UNET_MAX_LEVELS];
    bool only_cross[UNET_MAX_LEVELS];
    int layers[UNET_MAX_LEVELS], head_dim[UNET_MAX_LEVELS];
};

// head_dim: attention_head_dim, which is the number of heads of a transformer.
static void set_heads(struct json_reader *r, enum unet_attention attention, int channels,
                      int head_dim, int *heads, int *dim)
{
    if (attention == UNET_ATTENTION_NONE)
        return;
    if (channels % head_dim)
        json_fail(r, ERR_UNSUPPORTED, "attention_head_dim", "%d does not divide %d channels",
                  head_dim, channels);
    *dim = attention == UNET_ATTENTION_TRANSFORMER ? channels / head_dim : head_dim;
    *heads = channels / *dim;
}

static void lay_out_blocks(struct json_reader *r, struct unet_config *c, const struct lists *l)
{
    int last = c->levels - 1;

    for (int i = 0; i <= last; i++) {
        int j = last - i; // up blocks go from the innermost level outwards
        struct unet_block *down = &c->down[i], *up = &c->up[i];
        c->down[i] = (struct unet_block){.attention = l->down[i]->attention,
                                         .conv = l->down[i]->conv,
                                         .in = c->channels[i ? i - 1 : 0],
                                         .out = c->channels[i],
                                         .layers = l->layers[i],
                                         .resample = i < last,
                                         .only_cross = l->only_cross[i]};
        c->up[i] = (struct unet_block){.attention = l->up[i]->attention,
                                       .conv = l->up[i]->conv,
                                       .in = c->channels[i ? j + 1 : last],
                                       .out = c->channels[j],
                                       .skip_last = c->channels[j ? j - 1 : 0],
                                       .layers = l->layers[j] + 1,
                                       .resample = i < last,
                                       .only_cross = l->only_cross[j]};
        set_heads(r, down->attention, down->out, l->head_dim[i], &down->heads, &down->head_dim);
        // diffusers reverses every per-level list for the up blocks except head dimensions
        set_heads(r, up->attention, up->out,
                  l->head_dim[up->attention == UNET_ATTENTION_TRANSFORMER ? j : i], &up->heads,
                  &up->head_dim);
    }
}

static void read_mid(struct json_reader *r, struct unet_config *c, const struct lists *l)
{
    static const char *const names[] = {"UNetMidBlock2D", "UNetMidBlock2DSimpleCrossAttn",
                                        "UNetMidBlock2DCrossAttn", NULL};
    static const enum unet_mid mids[] = {UNET_MID_RESNET, UNET_MID_CROSS, UNET_MID_TRANSFORMER};
    int last = c->levels - 1;

    // the files of early versions of diffusers do not name it
    c->mid = is_absent(r, "mid_block_type") ? UNET_MID_TRANSFORMER : UNET_MID_NONE;
    if (!is_null(r, "mid_block_type"))
        c->mid = mids[json_read_enum(r, "mid_block_type", 0, names)];
    c->mid_scale_factor = read_positive(r, "mid_block_scale_factor", 1);
    // diffusers does not pass resnet_skip_time_act to the others
    c->mid_skip_time_act = c->skip_time_act && c->mid == UNET_MID_CROSS;
    set_heads(r,
              c->mid == UNET_MID_CROSS         ? UNET_ATTENTION_ADDED
              : c->mid == UNET_MID_TRANSFORMER ? UNET_ATTENTION_TRANSFORMER
                                               : UNET_ATTENTION_NONE,
              c->channels[last], l->head_dim[last], &c->mid_heads, &c->mid_head_dim);
    if (c->mid != UNET_MID_CROSS)
        return;
    if (!is_null(r, "mid_block_only_cross_attention"))
        c->mid_only_cross = json_read_bool(r, "mid_block_only_cross_attention", false);
    else if (json_key(r, "only_cross_attention") == JSON_BOOL)
        c->mid_only_cross = l->only_cross[0];
}

static void read_blocks(struct json_reader *r, struct unet_config *c)
{
    struct lists l = {0};

    read_channels(r, c);
    read_block_types(r, "down_block_types", c->levels, l.down);
    read_block_types(r, "up_block_types", c->levels, l.up);
    read_bools(r, "only_cross_attention", c->levels, l.only_cross);
    json_read_ints(r, "layers_per_block", 2, 1, UNET_MAX_LAYERS - 1, c->levels, l.layers);
    json_read_ints(r, "attention_head_dim", 8, 1, 1 << 12, c->levels, l.head_dim);
    c->norm_groups = (int)json_read_int(r, "norm_num_groups", 32, 1, 1 << 12);
    c->norm_eps = read_positive(r, "norm_eps", 1e-5);
    if (r->err)
        return;
    for (int i = 0; i < c->levels; i++)
        if (c->channels[i] % c->norm_groups)
            json_fail(r, ERR_FORMAT, "norm_num_groups", "%d does not divide %d channels",
                      c->norm_groups, c->channels[i]);
    lay_out_blocks(r, c, &l);
    read_mid(r, c, &l);
}

// ---- conditions -----------------------------------------------------------------------------

static void read_text(struct json_reader *r, struct unet_config *c)
{
    static const char *const projections[] = {"text_proj", NULL};
    static const char *const additions[] = {"text", NULL};
    static const char *const norms[] = {"layer_norm", "group_norm", NULL};
    static const enum unet_cross_norm norm_of[] = {UNET_NORM_LAYER, UNET_NORM_GROUP};
    int cross[UNET_MAX_LEVELS];

    json_read_ints(r, "cross_attention_dim", 1280, 1, 1 << 15, c->levels, cross);
    for (int i = 1; i < c->levels; i++)
        if (cross[i] != cross[0])
            hfconfig_unsupported(r, "cross_attention_dim");
    c->cross_dim = c->text_dim = cross[0];
    if (!is_null(r, "encoder_hid_dim")) {
        c->text_dim = (int)json_read_int(r, "encoder_hid_dim", 0, 1, 1 << 15);
        c->text_proj = true;
    }
    if (!is_null(r, "encoder_hid_dim_type")) {
        json_read_enum(r, "encoder_hid_dim_type", 0, projections);
        if (!c->text_proj)
            json_fail(r, ERR_FORMAT, "encoder_hid_dim", "is missing");
    }
    if (!is_null(r, "addition_embed_type")) {
        json_read_enum(r, "addition_embed_type", 0, additions);
        c->add_text = true;
        c->add_heads = (int)json_read_int(r, "addition_embed_type_num_heads", 64, 1, 1 << 12);
        if (c->text_dim % c->add_heads)
            json_fail(r, ERR_FORMAT, "addition_embed_type_num_heads", "%d does not divide %d",
                      c->add_heads, c->text_dim);
    }
    if (!is_null(r, "cross_attention_norm"))
        c->cross_norm = norm_of[json_read_enum(r, "cross_attention_norm", 0, norms)];
    if (c->cross_norm == UNET_NORM_GROUP && c->cross_dim % CROSS_NORM_GROUPS)
        json_fail(r, ERR_FORMAT, "cross_attention_dim", "%d is not a multiple of the %d groups",
                  c->cross_dim, (int)CROSS_NORM_GROUPS);
}

static void read_time(struct json_reader *r, struct unet_config *c)
{
    static const char *const class_types[] = {"timestep", NULL};
    static const char *const shifts[] = {"default", "scale_shift", NULL};

    c->time_dim = 4 * c->channels[0];
    if (!is_null(r, "time_embedding_dim"))
        c->time_dim = (int)json_read_int(r, "time_embedding_dim", 0, 1, 1 << 16);
    c->flip_sin_to_cos = json_read_bool(r, "flip_sin_to_cos", true);
    c->freq_shift = (float)json_read_number(r, "freq_shift", 0, -1e3, 1e3);
    if (c->channels[0] % 2 || c->channels[0] / 2 <= c->freq_shift)
        json_fail(r, ERR_UNSUPPORTED, "block_out_channels",
                  "%d is not a valid time-embedding width", c->channels[0]);
    if (!is_null(r, "time_embedding_act_fn")) {
        c->time_act_set = true;
        c->time_act = read_act(r, "time_embedding_act_fn");
    }
    if (!is_null(r, "class_embed_type")) {
        json_read_enum(r, "class_embed_type", 0, class_types);
        c->class_timestep = true;
    } else if (!is_null(r, "num_class_embeds")) {
        c->class_embeds = (int)json_read_int(r, "num_class_embeds", 0, 1, 1 << 16);
    }
    c->scale_shift = json_read_enum(r, "resnet_time_scale_shift", 0, shifts) == 1;
    c->out_scale_factor = read_positive(r, "resnet_out_scale_factor", 1);
}

static void read_picture(struct json_reader *r, struct unet_config *c)
{
    const struct json_t *size = json_find(r->map, "sample_size");
    int edges[2] = {0, 0};

    c->in_channels = (int)json_read_int(r, "in_channels", 4, 1, 64);
    c->out_channels = (int)json_read_int(r, "out_channels", 4, 1, 64);
    c->patch_size = (int)json_read_int(r, "patch_size", 1, 1, 64);
    c->low_res_residual = json_read_bool(r, "low_res_residual", false);
    if (c->low_res_residual && c->in_channels != 6)
        json_fail(r, ERR_FORMAT, "low_res_residual", "needs 6 input channels, not %d",
                  c->in_channels);
    c->low_res_align_corners = json_read_bool(r, "low_res_align_corners", true);
    if (json_kind(size) != JSON_ABSENT && json_kind(size) != JSON_NONE)
        json_read_ints(r, "sample_size", 0, 1, 1 << 16, 2, edges);
    if (edges[0] != edges[1])
        hfconfig_unsupported(r, "sample_size");
    c->sample_size = edges[0];
}

static void read_unet(struct json_reader *r, void *out)
{
    static const char *const classes[] = {"UNet2DConditionModel", NULL};
    struct unet_config *c = out;

    *c = (struct unet_config){0};
    if (is_absent(r, "_class_name"))
        json_fail(r, ERR_FORMAT, "_class_name", "is missing");
    json_read_enum(r, "_class_name", 0, classes);
    hfconfig_check_keys(r, unet_keys);
    read_picture(r, c);
    c->linear_projection = json_read_bool(r, "use_linear_projection", false);
    c->act = is_absent(r, "act_fn") ? HF_ACT_SILU : read_act(r, "act_fn");
    c->skip_time_act = json_read_bool(r, "resnet_skip_time_act", false);
    read_blocks(r, c);
    if (r->err)
        return;
    read_time(r, c);
    read_text(r, c);
}

enum err hfconfig_unet_read(const char *path, struct unet_config *out, struct fault *why)
{
    return hfconfig_from_file(path, read_unet, out, why);
}

enum err hfconfig_unet_parse(const char *text, size_t len, const char *what,
                             struct unet_config *out, struct fault *why)
{
    return hfconfig_from_text(text, len, what, read_unet, out, why);
}
