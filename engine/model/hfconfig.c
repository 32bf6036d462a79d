// Parses config files of pipelines and T5 encoders, and checks the keys of all config files; each
// hfconfig_*.c parses the config of another class. Called while a model is loaded or inspected, on
// any thread. Source: the __init__ signatures of the diffusers and transformers classes.
#include "hfconfig.h"

#include "classes.h"
#include "hfconfig_priv.h"

#include <stdio.h>
#include <string.h>

// ---- keys -----------------------------------------------------------------------------------

void hfconfig_unsupported(struct json_reader *r, const char *key)
{
    char shown[80];
    json_show(json_find(r->map, key), shown, sizeof shown);
    json_fail(r, ERR_UNSUPPORTED, key, "%s is not supported", shown);
}

// null, or [null, null], which a pipeline has for a component that it lacks.
static bool is_nothing(const struct json_t *v)
{
    bool none = json_kind(v) == JSON_NONE || (json_kind(v) == JSON_LIST && json_count(v));

    for (size_t i = 0; none && i < json_count(v); i++)
        none = json_kind(json_item(v, i)) == JSON_NONE;
    return none;
}

static void check_key(struct json_reader *r, const struct hfconfig_key *table, const char *key,
                      const struct json_t *v, bool known)
{
    const struct hfconfig_key *k = table;
    char shown[80];

    while (k->name && strcmp(k->name, key))
        k++;
    if (known != (k->name != NULL))
        return;
    json_show(v, shown, sizeof shown);
    if (known && k->only && strcmp(shown, k->only) != 0)
        json_fail(r, ERR_UNSUPPORTED, key, "%s is not supported, only %s", shown, k->only);
    if (!known && key[0] != '_' && !is_nothing(v))
        json_fail(r, ERR_UNSUPPORTED, key,
                  "is an unknown key (value %s); remove it if the model does not depend on it",
                  shown);
}

// Known keys first: a file of another class says so before it has unknown keys.
void hfconfig_check_keys(struct json_reader *r, const struct hfconfig_key *table)
{
    for (int unknown = 0; unknown < 2; unknown++) {
        const struct json_t *v;
        const char *key;
        void *at = NULL;
        while (!r->err && json_next(r->map, &at, &key, &v))
            check_key(r, table, key, v, !unknown);
    }
}

static enum err run(struct json_t *doc, const char *what, hfconfig_fn *read, void *out,
                    struct fault *why)
{
    struct json_reader r = json_reader(doc, what, ERR_FORMAT, why);

    if (!r.err)
        read(&r, out);
    json_destroy(&doc);
    return r.err;
}

enum err hfconfig_from_file(const char *path, hfconfig_fn *read, void *out, struct fault *why)
{
    struct json_t *doc;
    enum err e = json_parse_file(path, HFCONFIG_MAX_BYTES, &doc, why);
    return e == ERR_OK ? run(doc, path, read, out, why) : e;
}

enum err hfconfig_from_text(const char *text, size_t len, const char *what, hfconfig_fn *read,
                            void *out, struct fault *why)
{
    struct json_t *doc;
    enum err e = json_parse(text, len, what, ERR_FORMAT, &doc, why);
    return e == ERR_OK ? run(doc, what, read, out, why) : e;
}

// ---- model_index.json -----------------------------------------------------------------------

// Reads a component: [library, class], or [null, null] if the folder has none. Returns -1 for none,
// otherwise the index of the class in `classes` (0 if classes is NULL).
static int component(struct json_reader *r, const char *key, const char *const *classes)
{
    const struct json_t *v = json_find(r->map, key), *class = json_item(v, 1);
    char names[128] = "";
    size_t at = 0;

    if (!v || json_kind(v) == JSON_NONE)
        return -1;
    if (json_kind(v) == JSON_LIST && json_count(v) == 2 && json_kind(class) == JSON_NONE)
        return -1;
    if (json_kind(v) != JSON_LIST || json_count(v) != 2 || json_kind(class) != JSON_TEXT) {
        json_fail(r, ERR_FORMAT, key, "must be a list of library and class");
        return -1;
    }
    for (int i = 0; classes && classes[i]; i++) {
        if (!strcmp(classes[i], json_text(class, NULL)))
            return i;
        if (at < sizeof names)
            at +=
                (size_t)snprintf(names + at, sizeof names - at, "%s%s", i ? ", " : "", classes[i]);
    }
    if (classes)
        json_fail(r, ERR_UNSUPPORTED, key, "\"%.60s\" is not supported; supported: %s",
                  json_text(class, NULL), names);
    return 0;
}

// Likewise, of the classes in the registry; NULL: none.
static const char *network(struct json_reader *r, const char *key, enum class_kind kind)
{
    const char *const *names = class_names(kind);
    const int i = component(r, key, names);

    return i < 0 ? NULL : names[i];
}

static void require(struct json_reader *r, const char *key, bool there)
{
    if (!there)
        json_fail(r, ERR_FORMAT, key, "is missing");
}

static void read_index(struct json_reader *r, void *out)
{
    static const struct hfconfig_key keys[] = {HFCONFIG_READ("unet"),
                                               HFCONFIG_READ("scheduler"),
                                               HFCONFIG_READ("text_encoder"),
                                               HFCONFIG_READ("tokenizer"),
                                               HFCONFIG_READ("watermarker"),
                                               HFCONFIG_READ("image_noising_scheduler"),
                                               HFCONFIG_READ("low_res_scheduler"),
                                               HFCONFIG_READ("max_noise_level"),
                                               HFCONFIG_READ("vae"),
                                               HFCONFIG_READ("safety_checker"),
                                               HFCONFIG_HARMLESS("feature_extractor"),
                                               HFCONFIG_HARMLESS("requires_safety_checker"),
                                               {NULL}};
    // IF's pipelines have the same components; they differ only in the caller's inputs.
    static const struct {
        const char *name;
        enum hfconfig_pipeline pipeline;
    } pipelines[] = {
        {"IFPipeline", PIPELINE_IF},
        {"IFImg2ImgPipeline", PIPELINE_IF},
        {"IFInpaintingPipeline", PIPELINE_IF},
        {"IFSuperResolutionPipeline", PIPELINE_IF_SUPER},
        {"IFImg2ImgSuperResolutionPipeline", PIPELINE_IF_SUPER},
        {"IFInpaintingSuperResolutionPipeline", PIPELINE_IF_SUPER},
        {"StableDiffusionUpscalePipeline", PIPELINE_UPSCALE},
    };
    enum { PIPELINES = sizeof pipelines / sizeof *pipelines };
    // Which text a pipeline takes. Its networks do not depend on it.
    static const char *const t5[] = {"T5EncoderModel", NULL}, *const clip[] = {"CLIPTextModel",
                                                                               NULL};
    static const char *const t5_tokenizers[] = {
        "T5Tokenizer", "T5TokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend", NULL};
    static const char *const clip_tokenizers[] = {
        "CLIPTokenizer", "CLIPTokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend", NULL};
    static const char *const schedulers[] = {SCHEDULER_CLASS_NAMES, NULL};
    const char *name = json_read_text(r, "_class_name", NULL);
    struct hfconfig_index *x = out;
    int i = 0;

    *x = (struct hfconfig_index){0};
    if (!name)
        json_fail(r, ERR_FORMAT, "_class_name", "is missing");
    while (name && i < PIPELINES && strcmp(pipelines[i].name, name))
        i++;
    if (i == PIPELINES)
        json_fail(r, ERR_UNSUPPORTED, "_class_name",
                  "\"%.60s\" is not supported; DeepFloyd IF's pipelines and "
                  "StableDiffusionUpscalePipeline are",
                  name);
    else
        x->pipeline = pipelines[i].pipeline;
    const bool upscale = x->pipeline == PIPELINE_UPSCALE;
    const char *noising = upscale ? "low_res_scheduler" : "image_noising_scheduler";
    hfconfig_check_keys(r, keys);
    x->unet = network(r, "unet", CLASS_DENOISER);
    x->vae = network(r, "vae", CLASS_DECODER);
    i = component(r, "text_encoder", upscale ? clip : t5);
    x->text_encoder = i < 0 ? NULL : (upscale ? clip : t5)[i];
    x->scheduler = component(r, "scheduler", schedulers);
    x->noising = component(r, noising, schedulers);
    x->tokenizer = component(r, "tokenizer", upscale ? clip_tokenizers : t5_tokenizers) >= 0;
    x->safety_checker = component(r, "safety_checker", NULL) >= 0;
    x->watermarker = component(r, "watermarker", NULL) >= 0;
    x->max_noise_level = (int)json_read_int(r, "max_noise_level", 350, 0, 1 << 16);
    if (x->vae && !upscale)
        json_fail(r, ERR_UNSUPPORTED, "vae", "is not supported in a pipeline of pixels");
    require(r, "unet", x->unet);
    require(r, "scheduler", x->scheduler >= 0);
    require(r, noising, x->noising >= 0 || x->pipeline == PIPELINE_IF);
    require(r, "vae", x->vae || !upscale);
    require(r, "text_encoder", x->text_encoder || !upscale);
    require(r, "tokenizer", x->tokenizer || !upscale);
}

// ---- T5 -------------------------------------------------------------------------------------

// feed_forward_proj: an activation, with "gated-" in front for two input matrices.
static void read_feed_forward(struct json_reader *r, struct t5_config *c)
{
    // only "gated-gelu" means the tanh form; a plain "gelu" is exact
    static const struct {
        const char *name, *act;
        bool gated;
        enum hfconfig_act value;
    } rows[] = {
        {"relu", "relu", false, HF_ACT_RELU},
        {"gelu", "gelu", false, HF_ACT_GELU},
        {"silu", "silu", false, HF_ACT_SILU},
        {"gelu_new", "gelu_new", false, HF_ACT_GELU_TANH},
        {"gated-relu", "relu", true, HF_ACT_RELU},
        {"gated-gelu", "gelu_new", true, HF_ACT_GELU_TANH},
        {"gated-silu", "silu", true, HF_ACT_SILU},
        {"gated-gelu_new", "gelu_new", true, HF_ACT_GELU_TANH},
    };
    const char *name = json_read_text(r, "feed_forward_proj", "relu");

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (strcmp(name, rows[i].name))
            continue;
        c->gated = rows[i].gated;
        c->act = rows[i].value;
        // newer files also have dense_act_fn, which overrides feed_forward_proj in the library
        if (strcmp(json_read_text(r, "dense_act_fn", rows[i].act), rows[i].act))
            hfconfig_unsupported(r, "dense_act_fn");
        if (json_read_bool(r, "is_gated_act", c->gated) != c->gated)
            hfconfig_unsupported(r, "is_gated_act");
        return;
    }
    hfconfig_unsupported(r, "feed_forward_proj");
}

static const struct hfconfig_key t5_keys[] = {
    HFCONFIG_READ("d_model"),
    HFCONFIG_READ("d_kv"),
    HFCONFIG_READ("d_ff"),
    HFCONFIG_READ("num_layers"),
    HFCONFIG_READ("num_heads"),
    HFCONFIG_READ("vocab_size"),
    HFCONFIG_READ("relative_attention_num_buckets"),
    HFCONFIG_READ("relative_attention_max_distance"),
    HFCONFIG_READ("layer_norm_epsilon"),
    HFCONFIG_READ("feed_forward_proj"),
    HFCONFIG_READ("dense_act_fn"),
    HFCONFIG_READ("is_gated_act"),
    HFCONFIG_READ("pad_token_id"),
    HFCONFIG_READ("eos_token_id"),
    {"model_type", "\"t5\""},
    // training, decoding and bookkeeping: unused by an encoder's forward pass
    HFCONFIG_HARMLESS("dropout_rate"),
    HFCONFIG_HARMLESS("classifier_dropout"),
    HFCONFIG_HARMLESS("initializer_factor"),
    HFCONFIG_HARMLESS("num_decoder_layers"),
    HFCONFIG_HARMLESS("n_positions"),
    HFCONFIG_HARMLESS("scale_decoder_outputs"),
    HFCONFIG_HARMLESS("output_past"),
    HFCONFIG_HARMLESS("decoder_start_token_id"),
    HFCONFIG_TRANSFORMERS_KEYS,
    {NULL}};

static void read_t5(struct json_reader *r, void *out)
{
    struct t5_config *c = out;

    *c = (struct t5_config){0};
    hfconfig_check_keys(r, t5_keys);
    c->vocab_size = (int)json_read_int(r, "vocab_size", 32128, 1, 1 << 24);
    c->d_model = (int)json_read_int(r, "d_model", 512, 1, 1 << 16);
    c->d_kv = (int)json_read_int(r, "d_kv", 64, 1, 4096);
    c->d_ff = (int)json_read_int(r, "d_ff", 2048, 1, 1 << 20);
    c->num_layers = (int)json_read_int(r, "num_layers", 6, 1, 1024);
    c->num_heads = (int)json_read_int(r, "num_heads", 8, 1, 1024);
    c->relative_buckets = (int)json_read_int(r, "relative_attention_num_buckets", 32, 4, 4096);
    c->relative_max_distance =
        (int)json_read_int(r, "relative_attention_max_distance", 128, 1, 1 << 20);
    c->eps = (float)json_read_number(r, "layer_norm_epsilon", 1e-6, 0, 1);
    c->pad_id = (int)json_read_int(r, "pad_token_id", 0, 0, 1 << 24);
    c->eos_id = (int)json_read_int(r, "eos_token_id", 1, 0, 1 << 24);
    read_feed_forward(r, c);
    if (c->relative_buckets % 4 || c->relative_max_distance <= c->relative_buckets / 4)
        hfconfig_unsupported(r, "relative_attention_num_buckets");
}

// ---- entry points ---------------------------------------------------------------------------

enum err hfconfig_index_read(const char *path, struct hfconfig_index *out, struct fault *why)
{
    return hfconfig_from_file(path, read_index, out, why);
}

enum err hfconfig_t5_read(const char *path, struct t5_config *out, struct fault *why)
{
    return hfconfig_from_file(path, read_t5, out, why);
}

enum err hfconfig_index_parse(const char *text, size_t len, const char *what,
                              struct hfconfig_index *out, struct fault *why)
{
    return hfconfig_from_text(text, len, what, read_index, out, why);
}

enum err hfconfig_t5_parse(const char *text, size_t len, const char *what, struct t5_config *out,
                           struct fault *why)
{
    return hfconfig_from_text(text, len, what, read_t5, out, why);
}
