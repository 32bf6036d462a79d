// Token ids, normalization, captions and the text encoders compared with transformers and
// sentencepiece.
#include "golden.h"

#include "buf.h"
#include "hfconfig.h"
#include "text_encoder.h"
#include "tokenizer.h"
#include "weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct json_t *load_json(struct golden *g, const char *name)
{
    char path[GOLDEN_PATH];
    struct json_t *doc = NULL;
    struct fault why = {0};

    snprintf(path, sizeof path, "%s/%s", g->root, name);
    if (json_parse_file(path, 16 << 20, &doc, &why))
        golden_fail(g, name, "open", "%s", why.msg);
    return doc;
}

static bool same_ids(const struct json_t *want, const uint32_t *ids, int n)
{
    if ((int)json_count(want) != n)
        return false;
    for (int i = 0; i < n; i++) {
        if (json_int(json_item(want, (size_t)i)) != (int64_t)ids[i])
            return false;
    }
    return true;
}

// One string of token_ids.json: bare pieces, then T5's ids in both legacy modes.
static int check_string(const struct json_t *row, struct tokenizer *const t[2])
{
    size_t len;
    char *text = golden_hex(json_text(json_find(row, "utf8_hex"), NULL), &len);
    const struct json_t *want[2] = {json_find(row, "t5_ids_77"), json_find(row, "t5_ids_77")};
    uint32_t ids[TOKENIZER_IF_LENGTH], mask[TOKENIZER_IF_LENGTH];
    struct buf normal = {0};
    int wrong = 0, *pieces = NULL, count = 0;

    if (json_find(row, "t5_ids_77_legacy_false"))
        want[0] = json_find(row, "t5_ids_77_legacy_false");
    for (int legacy = 0; legacy < 2; legacy++) {
        if (tokenizer_encode(t[legacy], text, len, TOKENIZER_IF_LENGTH, ids, mask, &count) ||
            !same_ids(want[legacy], ids, count))
            wrong++;
        for (int i = 0; i < TOKENIZER_IF_LENGTH; i++)
            wrong += mask[i] != (i < count) || (i >= count && ids[i]);
    }
    if (tokenizer_pieces(t[1], text, len, &pieces, &count) ||
        !same_ids(json_find(row, "sp_ids"), (const uint32_t *)pieces, count))
        wrong++;
    if (tokenizer_normalize(t[1], text, len, &normal) ||
        strcmp(normal.data ? normal.data : "", json_text(json_find(row, "sp_normalized"), NULL)))
        wrong++;
    buf_deinit(&normal);
    free(pieces);
    free(text);
    return wrong;
}

// One string that CLIPTokenizer was given: its ids with their padding, and how many are no padding.
static int check_clip_string(const struct json_t *row, const struct tokenizer *t)
{
    size_t len;
    char *text = golden_hex(json_text(json_find(row, "utf8_hex"), NULL), &len);
    uint32_t ids[TOKENIZER_IF_LENGTH], mask[TOKENIZER_IF_LENGTH];
    int wrong = 1, count = 0, total = 0;

    if (json_find(row, "error")) // the library failed
        wrong = 0;
    else if (!tokenizer_encode(t, text, len, TOKENIZER_IF_LENGTH, ids, mask, &count) &&
             !tokenizer_count(t, text, len, &total))
        wrong = !same_ids(json_find(row, "ids_77"), ids, TOKENIZER_IF_LENGTH) ||
                count != (int)json_int(json_find(row, "n")) || total < count ||
                (total > count && count < TOKENIZER_IF_LENGTH);
    free(text);
    return wrong;
}

static bool open_tokenizers(struct golden *g, const char *name, struct tokenizer *t[2])
{
    char dir[GOLDEN_PATH];
    struct fault why = {0};

    golden_path(g, name, "tokenizer", dir);
    for (int legacy = 0; legacy < 2; legacy++) {
        if (tokenizer_open_legacy(dir, legacy, &t[legacy], &why)) {
            golden_fail(g, name, "tokenizer", "%s", why.msg);
            return false;
        }
    }
    return true;
}

void check_tokens(struct golden *g, const char *name)
{
    struct json_t *doc = load_json(g, name);
    struct tokenizer *t[2] = {NULL, NULL};
    char what[64];
    int wrong = 0;

    if (doc && open_tokenizers(g, name, t)) {
        for (size_t i = 0; i < json_count(doc); i++) {
            const struct json_t *row = json_item(doc, i);
            const int bad =
                json_find(row, "sp_ids") ? check_string(row, t) : check_clip_string(row, t[1]);
            if (bad)
                golden_fail(g, name, json_text(json_find(json_item(doc, i), "utf8_hex"), NULL),
                            "%d differences", bad);
            wrong += bad;
        }
        snprintf(what, sizeof what, "%zu strings", json_count(doc));
        if (!wrong && json_count(doc))
            golden_pass(g, name, what, 0);
    }
    tokenizer_close(&t[0]);
    tokenizer_close(&t[1]);
    json_destroy(&doc);
}

// UTF-8 of one code point; returns its length.
static size_t put_utf8(unsigned cp, char *out)
{
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    const size_t n = cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--, cp >>= 6)
        out[i] = (char)(0x80 | (cp & 0x3f));
    out[0] = (char)((0xf00 >> n) | cp);
    return n;
}

// The file lists the code points that change something; every other one of its ranges must not.
void check_normalization(struct golden *g, const char *name)
{
    static const unsigned ranges[][2] = {
        {0, 0x30ff}, {0xf900, 0xffff}, {0x1d400, 0x1d47f}, {0x1f100, 0x1f1ff}};
    struct json_t *doc = load_json(g, name);
    struct tokenizer *t[2] = {NULL, NULL};
    int wrong = 0, total = 0;
    char what[64];

    if (!doc || !open_tokenizers(g, name, t))
        goto done;
    for (size_t r = 0; r < sizeof ranges / sizeof *ranges; r++) {
        for (unsigned cp = ranges[r][0]; cp <= ranges[r][1]; cp++) {
            char key[16], text[8] = "a", plain[16];
            size_t n = 1 + put_utf8(cp, text + 1);
            struct buf got = {0};
            text[n++] = 'b';
            snprintf(key, sizeof key, "%04X", cp);
            snprintf(plain, sizeof plain, "\xe2\x96\x81%.*s", (int)n, text);
            const char *want = json_text(json_find(doc, key), NULL);
            if (tokenizer_normalize(t[1], text, n, &got) ||
                strcmp(got.data ? got.data : "", want ? want : plain)) {
                golden_fail(g, name, key, "normalised to \"%s\"", got.data ? got.data : "");
                wrong++;
            }
            total++;
            buf_deinit(&got);
        }
    }
    snprintf(what, sizeof what, "%d code points", total);
    if (!wrong)
        golden_pass(g, name, what, 0);
done:
    tokenizer_close(&t[0]);
    tokenizer_close(&t[1]);
    json_destroy(&doc);
}

void check_captions(struct golden *g, const char *name)
{
    struct json_t *doc = load_json(g, name);
    int wrong = 0;
    char what[64];

    for (size_t i = 0; i < json_count(doc); i++) {
        const struct json_t *row = json_item(doc, i);
        const char *hex = json_text(json_find(row, "utf8_hex"), NULL);
        struct buf got = {0};
        size_t len;
        char *text = golden_hex(hex, &len);
        if (tokenizer_prompt(text, len, &got) ||
            strcmp(got.data ? got.data : "", json_text(json_find(row, "plain"), NULL))) {
            golden_fail(g, name, hex, "became \"%s\"", got.data ? got.data : "");
            wrong++;
        }
        buf_deinit(&got);
        free(text);
    }
    snprintf(what, sizeof what, "%zu captions, clean_caption=False", json_count(doc));
    if (doc && !wrong)
        golden_pass(g, name, what, 0);
    golden_skip(g, name, "clean_caption=True: captions are lower-cased and stripped only");
    json_destroy(&doc);
}

// ---- the encoder ------------------------------------------------------------------------------

struct encoding {
    const int64_t *ids, *mask; // mask NULL: all valid
    size_t n, l;
    const char *out;
    struct points *points; // NULL: only the output
};

static void encode(struct bundle *b, const struct text_encoder *t, const struct encoding *c)
{
    struct ops_device *dev = b->g->dev;
    const size_t tokens = c->n * c->l, floats = tokens * (size_t)t->width;
    uint32_t *words = malloc(tokens * sizeof *words);
    float *got = malloc(floats * sizeof *got);
    struct tensor ids = {0}, valid = {0}, y;
    struct tap tap = {points_keep, c->points};
    struct ops *o = NULL;
    enum err e = words && got ? ERR_OK : ERR_NO_MEMORY;

    if (!e)
        e = tensor_create_mapped(dev, DT_U32, (uint32_t)c->n, 1, (uint32_t)c->l, 1, &ids);
    if (!e)
        e = tensor_create_mapped(dev, DT_U32, (uint32_t)c->n, 1, (uint32_t)c->l, 1, &valid);
    for (size_t i = 0; !e && i < tokens; i++)
        words[i] = (uint32_t)c->ids[i];
    if (!e)
        e = tensor_upload(&ids, words);
    for (size_t i = 0; !e && i < tokens; i++)
        words[i] = c->mask ? (uint32_t)c->mask[i] : 1;
    if (!e)
        e = tensor_upload(&valid, words);
    if (!e)
        e = ops_begin(dev, DT_F32, &o);
    if (!e) {
        y = text_encoder_record(t, o, &ids, &valid, c->points ? &tap : NULL);
        e = ops_end(o);
    }
    if (!e)
        e = ops_run(o);
    if (!e)
        e = tensor_download(&y, got);
    if (e)
        golden_fail(b->g, b->name, c->out, "%s", err_text(e));
    else
        bundle_compare(b, c->out, got);
    if (!e && c->points)
        points_compare(c->points);
    ops_destroy(&o);
    tensor_destroy(&ids);
    tensor_destroy(&valid);
    free(words);
    free(got);
}

// cls: in model_index.json.
static struct text_encoder *load(struct bundle *b, const char *cls, const char *dir,
                                 const char *variant)
{
    char path[GOLDEN_PATH + 16];
    struct text_encoder_config config;
    struct weights *w = NULL;
    struct text_encoder *t = NULL;
    struct fault why = {0};

    snprintf(path, sizeof path, "%s/config.json", dir);
    if (text_encoder_read(cls, path, &config, &why) ||
        weights_open(&(struct weights_params){.dir = dir, .base = "model", .variant = variant}, &w,
                     &why) ||
        text_encoder_load(b->g->dev, &config, w, b->g->dtype, &t, &why))
        golden_fail(b->g, b->name, "load", "%s", why.msg);
    weights_close(&w);
    return t;
}

// One prompt of a bundle, a byte per element and padded with zeros, as the pipeline takes it.
static bool same_tokens(const struct tokenizer *t, const int64_t *bytes, size_t n,
                        const int64_t *want, size_t length)
{
    uint32_t ids[TOKENIZER_IF_LENGTH], mask[TOKENIZER_IF_LENGTH];
    struct buf raw = {0}, prompt = {0};
    bool same = length == (size_t)tokenizer_max_length(t);

    for (size_t i = 0; i < n && bytes[i]; i++)
        buf_putc(&raw, (char)bytes[i]);
    same = same && !tokenizer_prompt(raw.data ? raw.data : "", raw.len, &prompt) &&
           !tokenizer_encode(t, prompt.data ? prompt.data : "", prompt.len, (int)length, ids, mask,
                             NULL);
    for (size_t i = 0; same && i < length; i++)
        same = want[i] == (int64_t)ids[i];
    buf_deinit(&raw);
    buf_deinit(&prompt);
    return same;
}

void check_prompts(struct bundle *b, const char *tokenizer_dir)
{
    const struct safetensor *shape = bundle_find(b, "prompts"), *want = bundle_find(b, "input_ids");
    int64_t *bytes = bundle_ints(b, "prompts"), *ids = bundle_ints(b, "input_ids");
    struct tokenizer *t = NULL;
    struct fault why = {0};
    int wrong = 0;

    if (!bytes || !ids || tokenizer_open(tokenizer_dir, &t, &why)) {
        golden_fail(b->g, b->name, "prompts", "%s", *why.msg ? why.msg : "missing");
        goto out;
    }
    const size_t rows = shape->shape[0], width = shape->shape[1], length = want->shape[1];
    for (size_t i = 0; i < rows; i++)
        wrong += !same_tokens(t, bytes + i * width, width, ids + i * length, length);
    if (wrong || rows != want->shape[0])
        golden_fail(b->g, b->name, "prompts", "%d of %zu differ", wrong, rows);
    else
        golden_pass(b->g, b->name, "prompts", 0);
out:
    tokenizer_close(&t);
    free(bytes);
    free(ids);
}

void check_encoder(struct bundle *b, const char *encoder_dir)
{
    const struct safetensor *shape = bundle_find(b, "input_ids");
    int64_t *ids = bundle_ints(b, "input_ids"), *mask = bundle_ints(b, "attention_mask");
    struct text_encoder *t = load(b, "T5EncoderModel", encoder_dir, NULL);

    if (t && ids && mask)
        encode(b, t,
               &(struct encoding){
                   .ids = ids,
                   .mask = mask,
                   .n = (size_t)shape->shape[0],
                   .l = (size_t)shape->shape[1],
                   .out = "last_hidden_state",
               });
    else if (t)
        golden_fail(b->g, b->name, "input_ids", "missing");
    text_encoder_destroy(&t);
    free(ids);
    free(mask);
}

void check_t5(struct golden *g, const char *name, const struct json_t *fixture)
{
    struct bundle b;
    struct points *points = NULL;

    if (!bundle_open(g, name, fixture, &b))
        return;
    points = points_create(&b);
    const struct safetensor *shape = bundle_find(&b, "input_ids");
    const struct safetensor *longer = bundle_find(&b, "long.input_ids");
    int64_t *ids = bundle_ints(&b, "input_ids"), *mask = bundle_ints(&b, "attention_mask");
    int64_t *many = bundle_ints(&b, "long.input_ids");
    static const char *const variants[] = {NULL, "fp16", "bf16"};
    char dir[GOLDEN_PATH];
    golden_path(g, name, "text_encoder", dir);
    for (int i = 0; points && ids && mask && many && i < 3; i++) {
        struct text_encoder *t = load(&b, "T5EncoderModel", dir, variants[i]);
        if (!t)
            continue;
        struct encoding c = {
            .ids = ids,
            .mask = mask,
            .n = (size_t)shape->shape[0],
            .l = (size_t)shape->shape[1],
            .out = i == 2 ? "last_hidden_state.bf16_weights" : "last_hidden_state",
            .points = i == 0 ? points : NULL,
        };
        encode(&b, t, &c);
        if (i == 0) {
            c.ids = many;
            c.mask = NULL;
            c.n = 1;
            c.l = (size_t)longer->shape[1];
            c.out = "long.last_hidden_state";
            c.points = NULL;
            encode(&b, t, &c);
        }
        text_encoder_destroy(&t);
    }
    if (!points || !ids || !mask || !many)
        golden_fail(g, name, "input_ids", "missing");
    free(ids);
    free(mask);
    free(many);
    points_destroy(&points);
    bundle_close(&b);
}

void check_clip(struct golden *g, const char *name, const struct json_t *fixture)
{
    struct text_encoder *t;
    struct points *points;
    struct bundle b;
    char dir[GOLDEN_PATH];

    if (!bundle_open(g, name, fixture, &b))
        return;
    golden_path(g, name, "text_encoder", dir);
    const struct safetensor *shape = bundle_find(&b, "input_ids");
    int64_t *ids = bundle_ints(&b, "input_ids");
    points = points_create(&b);
    t = load(&b, "CLIPTextModel", dir, NULL);
    if (t && ids && points)
        encode(&b, t,
               &(struct encoding){
                   .ids = ids,
                   .n = (size_t)shape->shape[0],
                   .l = (size_t)shape->shape[1],
                   .out = "last_hidden_state",
                   .points = points,
               });
    else
        golden_fail(g, name, "input_ids", "missing");
    text_encoder_destroy(&t);
    points_destroy(&points);
    free(ids);
    bundle_close(&b);
}
