// The text part of the cascade, see text.h. Called when an image is admitted, on the engine's
// worker. Knows nothing about diffusion.
#include "text.h"

#include "buf.h"
#include "clock.h"
#include "program.h"
#include "text_disk.h"
#include "trace.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct cached {
    char *prompt; // after tokenizer_prepare; NULL: free
    float *states;
    int tokens, total; // tokens used, and tokens in the prompt
    uint64_t used;
};

struct text {
    struct ops_device *dev;
    struct tokenizer *tokenizer;
    struct text_encoder *encoder;
    uint32_t length;
    bool f16;                         // weights
    struct tensor ids, valid, states; // mapped u32 [1, L]; f32 [1, L, D]
    struct ops *encode;               // recorded at the first prompt
    struct cached *cache;
    int cached;
    struct text_disk *disk; // NULL: none
    int width;
    uint64_t parameters;
    // For loading the encoder again.
    struct weights_params weights; // owns dir and gguf
    struct text_encoder_config config;
    enum dtype dtype;
    void (*room)(void *ctx);
    void *room_ctx;
    uint64_t clock, hits, misses;
};

static enum err open_encoder(const struct text_params *p, struct text_parts *parts)
{
    struct fault *why = &parts->weights_fault;
    struct weights_params w = *p->weights;
    enum err e;

    w.dry = w.dry || !p->dev;
    e = weights_open(&w, &parts->weights, why);
    return e ? e
             : text_encoder_load(p->dev, p->config, parts->weights, p->dtype, &parts->encoder, why);
}

static enum err open_tokenizer(const struct text_params *p, struct text_parts *parts)
{
    static const char *const kinds[] = {"T5 (spiece.model)", "CLIP (vocab.json, merges.txt)"};
    struct fault *why = &parts->tokenizer_fault;
    enum err e = tokenizer_open(p->tokenizer_dir, &parts->tokenizer, why);

    if (!e && tokenizer_kind(parts->tokenizer) != p->config->cls->tokenizer)
        e = fault_set(why, ERR_UNSUPPORTED, "tokenizer",
                      "%s is a tokenizer of %s, but %s needs one of %s",
                      fault_path(p->tokenizer_dir), kinds[tokenizer_kind(parts->tokenizer)],
                      p->config->cls->name, kinds[p->config->cls->tokenizer]);
    if (!e && tokenizer_vocab(parts->tokenizer) > p->config->vocab)
        e = fault_set(why, ERR_FORMAT, "tokenizer",
                      "the tokenizer has %d tokens, but the text encoder has only %d embeddings",
                      tokenizer_vocab(parts->tokenizer), p->config->vocab);
    if (!e && p->config->length && tokenizer_max_length(parts->tokenizer) != p->config->length)
        e = fault_set(why, ERR_UNSUPPORTED, "tokenizer",
                      "the tokenizer makes prompts of %d tokens, but the text encoder takes %d",
                      tokenizer_max_length(parts->tokenizer), p->config->length);
    return e;
}

enum err text_parts_open(const struct text_params *p, struct text_parts *parts, struct fault *why)
{
    enum err e;

    memset(parts, 0, sizeof *parts);
    e = open_tokenizer(p, parts);
    // If the tokenizer is unusable, the large weights are not loaded, but their headers are
    // checked.
    if (e && why)
        *why = parts->tokenizer_fault;
    if (e && p->dev)
        return e;
    const enum err of_weights = open_encoder(p, parts);
    if (of_weights && !parts->weights_fault.code)
        fault_set(&parts->weights_fault, of_weights, NULL, "text encoder: %s",
                  err_text(of_weights));
    if (!e && of_weights && why)
        *why = parts->weights_fault;
    return e ? e : of_weights;
}

void text_parts_deinit(struct text_parts *parts)
{
    tokenizer_close(&parts->tokenizer);
    text_encoder_destroy(&parts->encoder);
    weights_close(&parts->weights);
}

static enum err record(struct text *t)
{
    struct tensor y;
    enum err e = ops_begin(t->dev, DT_F32, &t->encode);

    if (e)
        return e;
    y = text_encoder_record(t->encoder, t->encode, &t->ids, &t->valid, NULL);
    op_copy(t->encode, &y, &t->states);
    e = ops_end(t->encode);
    if (e)
        ops_destroy(&t->encode);
    return e;
}

// Everything that the states of a prompt depend on: the program, the device and its formats, the
// configuration, and the files by name, size and time.
static struct hash identity(const struct text_params *p, const struct weights *w)
{
    static const char *const files[] = {
        "spiece.model",          "tokenizer.json",          "vocab.json",       "merges.txt",
        "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"};
    const struct ops_device_info *d = ops_device_info(p->dev);
    const char *kernels = getenv("IMAGEND_KERNEL"), *path;
    struct hash h = hash_text(program_version);
    struct buf text = {0};

    buf_printf(&text, "%s|%s|%d|%d|%d|%s|%s", d->name, d->driver, d->dtype, d->weights,
               p->weights->stored, kernels ? kernels : "", p->config->cls->name);
    h = hash_join(h, hash_text(text.data ? text.data : ""));
    h = hash_join(h, hash_bytes(&p->config->t5,
                                sizeof *p->config - offsetof(struct text_encoder_config, t5), 0));
    for (int i = 0; (path = weights_path(w, i)); i++)
        h = text_disk_file(h, path);
    h = text_disk_file(h, p->tokenizer_dir);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        buf_clear(&text);
        buf_printf(&text, "%s/%s", p->tokenizer_dir, files[i]);
        h = text_disk_file(h, text.data);
    }
    buf_deinit(&text);
    return h;
}

static enum err open_disk(struct text *t, const struct text_params *p, const struct weights *w,
                          struct fault *why)
{
    if (!p->disk_dir || !p->disk_limit)
        return ERR_OK;
    return text_disk_open(
        &(struct text_disk_params){
            .dir = p->disk_dir,
            .limit = p->disk_limit,
            .model = identity(p, w),
            .floats = (size_t)tokenizer_max_length(t->tokenizer) * (size_t)p->config->width,
        },
        &t->disk, why);
}

static bool keep_params(struct text *t, const struct text_params *p)
{
    t->weights = *p->weights;
    t->weights.dir = strdup(p->weights->dir);
    t->weights.variant = p->weights->variant ? strdup(p->weights->variant) : NULL;
    t->weights.gguf = p->weights->gguf ? t->weights.dir : NULL; // the same path
    t->config = *p->config;
    t->dtype = p->dtype;
    return t->weights.dir && (!p->weights->variant || t->weights.variant);
}

void text_release(struct text *t, size_t bytes)
{
    t->weights.room = bytes;
    ops_destroy(&t->encode);
    text_encoder_destroy(&t->encoder);
}

bool text_is_loaded(const struct text *t)
{
    return t->encoder != NULL;
}

void text_set_room(struct text *t, void (*room)(void *ctx), void *ctx)
{
    t->room = room;
    t->room_ctx = ctx;
}

static enum err load(struct text *t, struct fault *why)
{
    struct weights *w = NULL;
    enum err e;

    if (t->room)
        t->room(t->room_ctx);
    const double began = clock_seconds();
    e = weights_open(&t->weights, &w, why);
    if (!e)
        e = text_encoder_load(t->dev, &t->config, w, t->dtype, &t->encoder, why);
    weights_close(&w);
    trace_span("upload", began, TRACE_OWN, "weights of the text encoder");
    return e;
}

enum err text_warm(struct text *t)
{
    return t->encode ? ERR_OK : record(t);
}

enum err text_open(const struct text_params *p, struct text **out, struct fault *why)
{
    struct text *t = calloc(1, sizeof *t);
    enum err e = ERR_NO_MEMORY;

    if (!t)
        return fault_set(why, e, NULL, "no memory for the text encoder");
    t->dev = p->dev;
    t->cached = p->cached;
    t->f16 = p->dtype == DT_F16;
    t->cache = calloc((size_t)p->cached, sizeof *t->cache);
    const double began = clock_seconds();
    struct text_parts parts = {0};
    struct text_params check = *p;
    if (p->lazy)
        check.dev = NULL;
    e = t->cache && keep_params(t, p)
            ? text_parts_open(&check, &parts, why)
            : fault_set(why, ERR_NO_MEMORY, NULL, "no memory for the text cache");
    if (!e) {
        t->tokenizer = parts.tokenizer;
        t->encoder = parts.encoder;
        parts.tokenizer = NULL;
        parts.encoder = NULL;
        t->width = t->encoder->width;
        t->parameters = t->encoder->parameters;
        if (p->lazy)
            text_encoder_destroy(&t->encoder);
        e = open_disk(t, p, parts.weights, why);
    }
    text_parts_deinit(&parts);
    if (!p->weights->dry && !p->lazy)
        trace_span("upload", began, TRACE_OWN, "weights of the text encoder");
    if (e)
        goto fail;
    t->length = (uint32_t)tokenizer_max_length(t->tokenizer);
    e = tensor_create_mapped(t->dev, DT_U32, 1, 1, t->length, 1, &t->ids);
    if (!e)
        e = tensor_create_mapped(t->dev, DT_U32, 1, 1, t->length, 1, &t->valid);
    if (!e)
        e = tensor_create_mapped(t->dev, DT_F32, 1, 1, t->length, (uint32_t)p->config->width,
                                 &t->states);
    if (e) {
        fault_set(why, e, NULL, "text encoder: %s", ops_device_why(t->dev, e));
        goto fail;
    }
    *out = t;
    return ERR_OK;
fail:
    text_close(&t);
    return e;
}

void text_close(struct text **out)
{
    struct text *t = *out;

    if (!t)
        return;
    ops_destroy(&t->encode);
    tensor_destroy(&t->ids);
    tensor_destroy(&t->valid);
    tensor_destroy(&t->states);
    text_encoder_destroy(&t->encoder);
    tokenizer_close(&t->tokenizer);
    text_disk_close(&t->disk);
    free((char *)(uintptr_t)t->weights.dir);
    free((char *)(uintptr_t)t->weights.variant);
    for (int i = 0; t->cache && i < t->cached; i++) {
        free(t->cache[i].prompt);
        free(t->cache[i].states);
    }
    free(t->cache);
    free(t);
    *out = NULL;
}

int text_length(const struct text *t)
{
    return (int)t->length;
}

int text_dim(const struct text *t)
{
    return t->width;
}

uint64_t text_parameters(const struct text *t)
{
    return t->parameters;
}

void text_cache_counts(const struct text *t, uint64_t *hits, uint64_t *misses)
{
    *hits = t->hits;
    *misses = t->misses;
}

static enum err run(struct text *t, const char *prompt, size_t len, struct cached *c,
                    struct fault *why)
{
    enum err e = t->encoder ? ERR_OK : load(t, why);
    if (e)
        return e;
    uint32_t *ids = malloc(2 * t->length * sizeof *ids), *mask = ids ? ids + t->length : NULL;

    if (!ids)
        return ERR_NO_MEMORY;
    e = tokenizer_encode(t->tokenizer, prompt, len, (int)t->length, ids, mask, &c->tokens);
    c->total = c->tokens;
    if (!e && c->tokens == (int)t->length)
        e = tokenizer_count(t->tokenizer, prompt, len, &c->total);
    if (!e)
        e = tensor_upload(&t->ids, ids);
    if (!e)
        e = tensor_upload(&t->valid, mask);
    if (!e && !t->encode)
        e = record(t);
    const double began = clock_seconds();
    if (!e)
        e = ops_run(t->encode);
    trace_span("forward", began, TRACE_OWN, "text encoder");
    if (!e)
        e = tensor_download(&t->states, c->states);
    for (size_t i = 0; !e && i < (size_t)t->length * (size_t)text_dim(t); i++)
        if (!isfinite(c->states[i]))
            e = ERR_NOT_FINITE;
    free(ids);
    return e;
}

// Takes the states from disk, or encodes the prompt and keeps them there.
static enum err look_up(struct text *t, const char *prompt, size_t len, struct cached *c,
                        struct fault *why)
{
    int counts[2];

    if (t->disk && text_disk_get(t->disk, prompt, c->states, counts)) {
        c->tokens = counts[0];
        c->total = counts[1];
        t->hits += 1;
        return ERR_OK;
    }
    t->misses++;
    const enum err e = run(t, prompt, len, c, why);
    counts[0] = c->tokens;
    counts[1] = c->total;
    if (!e && t->disk)
        text_disk_put(t->disk, prompt, c->states, counts);
    return e;
}

static struct cached *find(struct text *t, const char *prompt)
{
    struct cached *oldest = &t->cache[0];

    for (int i = 0; i < t->cached; i++) {
        struct cached *c = &t->cache[i];
        if (c->prompt && !strcmp(c->prompt, prompt))
            return c;
        if (c->used < oldest->used)
            oldest = c;
    }
    return oldest;
}

enum err text_encode(struct text *t, const char *prompt, struct text_states *out, struct fault *why)
{
    const size_t floats = (size_t)t->length * (size_t)text_dim(t);
    struct buf clean = {0};
    struct cached *c;
    struct fault fault = {.code = ERR_OK};
    enum err e = tokenizer_prepare(t->tokenizer, prompt, strlen(prompt), &clean);

    if (!e && clean.failed)
        e = ERR_NO_MEMORY;
    if (e)
        goto done;
    c = find(t, clean.data ? clean.data : "");
    if (c->prompt && !strcmp(c->prompt, clean.data ? clean.data : "")) {
        t->hits++;
    } else {
        free(c->prompt);
        c->prompt = NULL;
        if (!c->states)
            c->states = malloc(floats * sizeof *c->states);
        e = c->states ? look_up(t, clean.data ? clean.data : "", clean.len, c, &fault)
                      : ERR_NO_MEMORY;
        if (!e) {
            const bool empty = !clean.data;
            c->prompt = empty ? strdup("") : buf_take(&clean);
            if (!c->prompt)
                e = ERR_NO_MEMORY;
        }
    }
    if (!e) {
        c->used = ++t->clock;
        *out = (struct text_states){c->states, c->tokens, c->total - c->tokens};
    }
done:
    buf_deinit(&clean);
    if (e && fault.code) { // loading the encoder again
        if (why)
            *why = fault;
        return e;
    }
    if (e == ERR_NOT_FINITE)
        return fault_set(why, e, "model",
                         "the text encoder computed NaN or infinity: its weights are damaged%s",
                         t->f16 ? " or overflow fp16; try dtype f32" : "; download them again");
    return e ? fault_set(why, e, "prompt", "encoding the prompt: %s", ops_device_why(t->dev, e))
             : ERR_OK;
}
