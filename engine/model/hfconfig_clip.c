// Parses the config of a CLIPTextModel. Called while a model is loaded or inspected, on any thread.
// Source: transformers CLIPTextConfig.
#include "hfconfig_priv.h"

static const struct hfconfig_key keys[] = {
    HFCONFIG_READ("hidden_size"),
    HFCONFIG_READ("intermediate_size"),
    HFCONFIG_READ("num_hidden_layers"),
    HFCONFIG_READ("num_attention_heads"),
    HFCONFIG_READ("max_position_embeddings"),
    HFCONFIG_READ("vocab_size"),
    HFCONFIG_READ("hidden_act"),
    HFCONFIG_READ("layer_norm_eps"),
    {"model_type", "\"clip_text_model\""},
    HFCONFIG_HARMLESS("attention_dropout"),
    HFCONFIG_HARMLESS("dropout"),
    HFCONFIG_HARMLESS("initializer_factor"),
    HFCONFIG_HARMLESS("initializer_range"),
    HFCONFIG_HARMLESS("pad_token_id"),
    HFCONFIG_HARMLESS("eos_token_id"),
    HFCONFIG_HARMLESS("projection_dim"), // of a layer that only CLIPTextModelWithProjection has
    HFCONFIG_TRANSFORMERS_KEYS,
    {NULL}};

static void read_clip(struct json_reader *r, void *out)
{
    static const char *const acts[] = {"gelu", "gelu_new", "relu", NULL};
    static const enum hfconfig_act values[] = {HF_ACT_GELU, HF_ACT_GELU_TANH, HF_ACT_RELU};
    struct clip_config *c = out;

    *c = (struct clip_config){0};
    hfconfig_check_keys(r, keys);
    c->vocab = (int)json_read_int(r, "vocab_size", 49408, 1, 1 << 24);
    c->width = (int)json_read_int(r, "hidden_size", 512, 1, 1 << 16);
    c->ff = (int)json_read_int(r, "intermediate_size", 2048, 1, 1 << 20);
    c->layers = (int)json_read_int(r, "num_hidden_layers", 12, 1, 1024);
    c->heads = (int)json_read_int(r, "num_attention_heads", 8, 1, 1024);
    c->length = (int)json_read_int(r, "max_position_embeddings", 77, 1, 1024);
    c->eps = (float)json_read_number(r, "layer_norm_eps", 1e-5, 0, 1);
    if (json_key(r, "hidden_act") == JSON_ABSENT)
        json_fail(r, ERR_UNSUPPORTED, "hidden_act",
                  "is missing, and its default \"quick_gelu\" is not supported");
    c->act = values[json_read_enum(r, "hidden_act", 0, acts)];
    if (!r->err && c->width % c->heads)
        json_fail(r, ERR_FORMAT, "num_attention_heads", "%d does not divide the hidden_size %d",
                  c->heads, c->width);
}

enum err hfconfig_clip_read(const char *path, struct clip_config *out, struct fault *why)
{
    return hfconfig_from_file(path, read_clip, out, why);
}

enum err hfconfig_clip_parse(const char *text, size_t len, const char *what,
                             struct clip_config *out, struct fault *why)
{
    return hfconfig_from_text(text, len, what, read_clip, out, why);
}
