// Converts tokenizer.json of a fast T5 tokenizer to a SentencePiece model. Its Unigram vocabulary,
// normalization rules and treatment of spaces are equivalent, so the library that reads
// spiece.model can run it. Called by tokenizer_load.c, on one thread. Source: the serialization of
// Hugging Face tokenizers; transformers' T5Converter, which writes such files from spiece.model;
// sentencepiece_model.proto.
#include "buf.h"
#include "json.h"
#include "text.h"
#include "tokenizer_priv.h"

#include <math.h>
#include <string.h>

static const char UNDERLINE[] = "\xe2\x96\x81";

// ---- normalizer, pre-tokenizer, post-processor --------------------------------------------------

struct source {
    const struct json_t *doc;
    const char *path;
    struct fault *why;
    struct tokenizer_json *out;
    struct buf charsmap;
    bool whitespace_split;
};

static enum err unsupported(const struct source *s, const char *what, const struct json_t *v)
{
    char shown[80];

    json_show(v, shown, sizeof shown);
    return fault_set(s->why, ERR_UNSUPPORTED, what, "%s: %s %s is not supported",
                     fault_path(s->path), what, shown);
}

static bool is(const struct json_t *map, const char *key, const char *value)
{
    const char *s = json_text(json_find(map, key), NULL);

    return s && !strcmp(s, value);
}

// Whether the rule folds two or more spaces into one, which SentencePiece does anyway.
static bool folds_spaces(const struct json_t *v)
{
    return is(json_find(v, "pattern"), "Regex", " {2,}") &&
           (is(v, "content", UNDERLINE) || is(v, "content", " "));
}

static enum err read_normalizer(struct source *s, const struct json_t *v)
{
    const struct json_t *list = json_find(v, "normalizers");
    enum err e = ERR_OK;

    if (json_kind(v) == JSON_ABSENT || json_kind(v) == JSON_NONE || is(v, "type", "Strip") ||
        (is(v, "type", "Replace") && folds_spaces(v)))
        return ERR_OK;
    if (is(v, "type", "Sequence")) {
        for (size_t i = 0; !e && i < json_count(list); i++)
            e = is(json_item(list, i), "type", "Sequence") ? unsupported(s, "normalizer", v)
                                                           : read_normalizer(s, json_item(list, i));
        return e;
    }
    const struct json_t *map = json_find(v, "precompiled_charsmap");
    if (!is(v, "type", "Precompiled") || s->charsmap.len)
        return unsupported(s, "normalizer", v);
    if (json_kind(map) == JSON_NONE)
        return ERR_OK;
    if (json_kind(map) != JSON_TEXT || !text_unbase64(&s->charsmap, json_text(map, NULL)))
        return fault_set(s->why, ERR_FORMAT, "precompiled_charsmap",
                         "%s: precompiled_charsmap is not base64", fault_path(s->path));
    return ERR_OK;
}

static enum err read_metaspace(struct source *s, const struct json_t *v)
{
    const struct json_t *scheme = json_find(v, "prepend_scheme"),
                        *prefix = json_find(v, "add_prefix_space");
    const char *when = json_kind(scheme) == JSON_TEXT ? json_text(scheme, NULL)
                       : json_kind(prefix) == JSON_BOOL && !json_bool(prefix) ? "never"
                                                                              : "always";

    if (!is(v, "replacement", UNDERLINE))
        return unsupported(s, "pre_tokenizer", v);
    s->out->legacy = !strcmp(when, "always");
    s->out->prefix_space = strcmp(when, "never") != 0;
    // Words that are already split would lose the space between them.
    if (!s->out->legacy &&
        (s->whitespace_split || (strcmp(when, "first") && strcmp(when, "never"))))
        return unsupported(s, "pre_tokenizer", v);
    return ERR_OK;
}

static enum err read_pre_tokenizer(struct source *s, const struct json_t *v)
{
    const struct json_t *list = json_find(v, "pretokenizers");
    const size_t n = json_count(list);

    if (is(v, "type", "Metaspace"))
        return read_metaspace(s, v);
    if (!is(v, "type", "Sequence") || n != 2 ||
        !is(json_item(list, 0), "type", "WhitespaceSplit") ||
        !is(json_item(list, 1), "type", "Metaspace"))
        return unsupported(s, "pre_tokenizer", v);
    s->whitespace_split = true;
    // Normalization rules run first, and T5's rules replace white space by spaces.
    s->out->any_space = !s->charsmap.len;
    return read_metaspace(s, json_item(list, 1));
}

// The post-processor may only append the end token.
static enum err read_post_processor(struct source *s, const struct json_t *v)
{
    const struct json_t *single = json_find(v, "single");
    const char *end =
        json_text(json_find(json_find(json_item(single, 1), "SpecialToken"), "id"), NULL);

    if (!is(v, "type", "TemplateProcessing") || json_count(single) != 2 ||
        !json_find(json_item(single, 0), "Sequence") || !end)
        return unsupported(s, "post_processor", v);
    s->out->end = end;
    return ERR_OK;
}

// ---- vocabulary -------------------------------------------------------------------------------

// Whether the id-th piece is a special token, which never occurs in ordinary text.
static bool is_control(const struct source *s, const char *piece, size_t len, size_t id)
{
    const struct json_t *added = json_find(s->doc, "added_tokens");

    for (size_t i = 0; i < json_count(added); i++) {
        const struct json_t *a = json_item(added, i);
        size_t n = 0;
        const char *text = json_text(json_find(a, "content"), &n);
        if (json_bool(json_find(a, "special")) && json_int(json_find(a, "id")) == (int64_t)id &&
            text && n == len && !memcmp(text, piece, n))
            return true;
    }
    return false;
}

static enum err bad_piece(const struct source *s, size_t id)
{
    return fault_set(s->why, ERR_FORMAT, "vocab",
                     "%s: entry %zu of model.vocab must be a list of a piece and its score",
                     fault_path(s->path), id);
}

static enum err read_vocab(struct source *s, const struct json_t *vocab, size_t unk)
{
    for (size_t i = 0; i < json_count(vocab); i++) {
        const struct json_t *row = json_item(vocab, i), *score = json_item(row, 1);
        size_t len = 0;
        const char *piece = json_text(json_item(row, 0), &len);
        if (json_count(row) != 2 || !piece || !len || strlen(piece) != len ||
            (json_kind(score) != JSON_NUMBER && json_kind(score) != JSON_INT) ||
            !isfinite((float)json_number(score)))
            return bad_piece(s, i);
        spiece_put_piece(&s->out->model, piece, len, json_number(score),
                         i == unk                       ? SPIECE_UNKNOWN
                         : is_control(s, piece, len, i) ? SPIECE_CONTROL
                                                        : SPIECE_NORMAL);
    }
    spiece_put_specs(&s->out->model, &(struct spiece_specs){.unk = (int)unk,
                                                            .charsmap = s->charsmap.data,
                                                            .charsmap_len = s->charsmap.len});
    return ERR_OK;
}

static enum err read_model(struct source *s, const struct json_t *v)
{
    enum { MOST_PIECES = 1 << 20 };
    const struct json_t *type = json_find(v, "type"), *vocab = json_find(v, "vocab"),
                        *unk = json_find(v, "unk_id");
    const size_t n = json_kind(vocab) == JSON_LIST ? json_count(vocab) : 0;

    if (json_kind(type) != JSON_ABSENT && !is(v, "type", "Unigram"))
        return fault_set(s->why, ERR_UNSUPPORTED, "type",
                         "%s: model type \"%.40s\" is not supported, only Unigram",
                         fault_path(s->path), json_text(type, NULL) ? json_text(type, NULL) : "");
    if (json_bool(json_find(v, "byte_fallback")))
        return fault_set(s->why, ERR_UNSUPPORTED, "byte_fallback",
                         "%s: byte_fallback true is not supported", fault_path(s->path));
    if (!n || n > MOST_PIECES)
        return fault_set(s->why, ERR_FORMAT, "vocab", "%s: model.vocab must be a list of pieces",
                         fault_path(s->path));
    if (json_kind(unk) != JSON_INT || json_int(unk) < 0 || (size_t)json_int(unk) >= n)
        return fault_set(s->why, ERR_FORMAT, "unk_id", "%s: model.unk_id is not in the vocabulary",
                         fault_path(s->path));
    s->out->unk = (int)json_int(unk);
    return read_vocab(s, vocab, (size_t)s->out->unk);
}

enum err tokenizer_json_read(const char *path, struct tokenizer_json *out, struct fault *why)
{
    struct source s = {.path = path, .why = why, .out = out};
    enum err e = ERR_OK;

    s.doc = out->doc;
    if (json_kind(s.doc) != JSON_MAP)
        e = fault_set(why, ERR_FORMAT, path, "%s: must be a JSON object", fault_path(path));
    if (!e)
        e = read_normalizer(&s, json_find(s.doc, "normalizer"));
    if (!e)
        e = read_pre_tokenizer(&s, json_find(s.doc, "pre_tokenizer"));
    if (!e)
        e = read_post_processor(&s, json_find(s.doc, "post_processor"));
    if (!e)
        e = read_model(&s, json_find(s.doc, "model"));
    if (!e && (s.charsmap.failed || out->model.failed))
        e = fault_set(why, ERR_NO_MEMORY, path, "%s: out of memory", fault_path(path));
    buf_deinit(&s.charsmap);
    return e;
}

void tokenizer_json_deinit(struct tokenizer_json *t)
{
    json_destroy(&t->doc);
    bpe_destroy(&t->bpe);
    buf_deinit(&t->model);
}
