// Opens a tokenizer folder: spiece.model, vocab.json and merges.txt, or tokenizer.json, and the
// related JSON files; or the tokenizer of a GGUF file. Called while a model is loaded, on one
// thread. Source: transformers T5Tokenizer.__init__, CLIPTokenizer.__init__ and from_pretrained of
// their base class.
#include "buf.h"
#include "file.h"
#include "gguf.h"
#include "json.h"
#include "tokenizer_priv.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_MODEL = 64 << 20, MAX_JSON = 16 << 20, MAX_ADDED = 1 << 16, MAX_IDS = 1 << 24 };

struct loader {
    const char *dir;
    struct tokenizer *t;
    struct json_t *config, *map, *added; // map and added may be absent
    struct tokenizer_json fast;          // doc NULL: spiece.model is read
    int extra_ids;
    struct fault *why;
};

static enum err no_memory(struct loader *l)
{
    return fault_set(l->why, ERR_NO_MEMORY, "tokenizer", "%s: out of memory", fault_path(l->dir));
}

// ---- added tokens ---------------------------------------------------------------------------

// Adds a token; one with the same id is replaced, as dict.update does in the library.
static enum err put_added(struct loader *l, struct tokenizer_added a)
{
    struct tokenizer *t = l->t;
    struct tokenizer_added *p = NULL;

    for (int i = 0; i < t->added_count && !p; i++)
        if (t->added[i].id == a.id)
            p = &t->added[i];
    if (!a.len || t->added_count == MAX_ADDED || a.id < 0 || a.id >= MAX_IDS)
        return fault_set(l->why, ERR_FORMAT, "tokenizer",
                         "%s: added token %.40s has an unusable id", fault_path(l->dir), a.text);
    a.text = strdup(a.text);
    if (!a.text)
        return no_memory(l);
    if (!p) {
        p = realloc(t->added, (size_t)(t->added_count + 1) * sizeof *p);
        if (!p) {
            free(a.text);
            return no_memory(l);
        }
        t->added = p;
        p += t->added_count++;
        p->text = NULL;
    }
    free(p->text);
    *p = a;
    return ERR_OK;
}

// Reads a token: either its text, or an object with its text and flags.
static enum err read_token(struct loader *l, const struct json_t *v, const char *key,
                           struct tokenizer_added *a)
{
    const struct json_t *text = json_kind(v) == JSON_MAP ? json_find(v, "content") : v;
    size_t len;

    *a = (struct tokenizer_added){.special = true};
    a->text = (char *)(uintptr_t)json_text(text, &len);
    if (!a->text || !len || strlen(a->text) != len)
        return fault_set(l->why, ERR_FORMAT, key, "%s: %s must be a token's text",
                         fault_path(l->dir), key);
    a->len = len;
    if (json_kind(v) != JSON_MAP)
        return ERR_OK;
    a->lstrip = json_bool(json_find(v, "lstrip"));
    a->rstrip = json_bool(json_find(v, "rstrip"));
    if (json_bool(json_find(v, "single_word")))
        return fault_set(l->why, ERR_UNSUPPORTED, key, "%s: %s: single_word true is not supported",
                         fault_path(l->dir), a->text);
    return ERR_OK;
}

// Sentinel ids count down from the end of the vocabulary: <extra_id_0> is the last id.
static enum err put_sentinels(struct loader *l, int count)
{
    enum err e = ERR_OK;

    for (int i = 0; i < count && e == ERR_OK; i++) {
        char text[32];
        int n = snprintf(text, sizeof text, "<extra_id_%d>", i);
        e = put_added(l, (struct tokenizer_added){.text = text,
                                                  .len = (size_t)n,
                                                  .id = sp_pieces(l->t->sp) - 1 + l->extra_ids - i,
                                                  .lstrip = true,
                                                  .rstrip = true,
                                                  .special = true});
    }
    return e;
}

// A special token that is also a piece keeps the piece's id.
static enum err put_special(struct loader *l, const struct json_t *v, const char *key,
                            struct tokenizer_added *a)
{
    enum err e = read_token(l, v, key, a);

    if (e != ERR_OK)
        return e;
    if (tokenizer_find_added(l->t, a->text, a->len)) {
        a->id = tokenizer_find_added(l->t, a->text, a->len)->id;
        return ERR_OK;
    }
    a->id = tokenizer_piece(l->t, a->text, a->len);
    if (a->id < 0)
        return fault_set(l->why, ERR_UNSUPPORTED, key, "%s: %s %.40s is not in the vocabulary",
                         fault_path(l->dir), key, a->text);
    return put_added(l, *a);
}

// Counts the sentinels in the list of additional tokens; all have the same form.
static enum err count_sentinels(struct loader *l, const struct json_t *list, int *count)
{
    *count = l->extra_ids;
    if (json_kind(list) == JSON_ABSENT || json_kind(list) == JSON_NONE)
        return ERR_OK;
    *count = 0;
    for (size_t i = 0; i < json_count(list); i++) {
        struct tokenizer_added a;
        enum err e = read_token(l, json_item(list, i), "additional_special_tokens", &a);
        if (e != ERR_OK)
            return e;
        *count += strstr(a.text, "<extra_id_") != NULL;
    }
    if (*count != l->extra_ids)
        return fault_set(l->why, ERR_UNSUPPORTED, "extra_ids",
                         "%s: extra_ids is %d but additional_special_tokens has %d of them",
                         fault_path(l->dir), l->extra_ids, *count);
    return ERR_OK;
}

// added_tokens_decoder: {"32099": {"content": "<extra_id_0>", "lstrip": true, ...}}
static enum err put_decoder(struct loader *l, const struct json_t *map)
{
    const struct json_t *v;
    const char *id;
    void *at = NULL;
    enum err e = ERR_OK;

    while (e == ERR_OK && json_next(map, &at, &id, &v)) {
        struct tokenizer_added a;
        char *end;
        long n = strtol(id, &end, 10);
        if (*end || end == id || n < 0 || n >= MAX_IDS || json_kind(v) != JSON_MAP)
            return fault_set(l->why, ERR_FORMAT, "added_tokens_decoder",
                             "%s: added_tokens_decoder has the invalid entry %.40s",
                             fault_path(l->dir), id);
        e = read_token(l, v, "added_tokens_decoder", &a);
        a.id = (int)n;
        a.special = json_bool(json_find(v, "special"));
        if (e == ERR_OK)
            e = put_added(l, a);
    }
    return e;
}

// added_tokens.json of older folders: {"<extra_id_0>": 32099}
static enum err put_added_file(struct loader *l)
{
    const struct json_t *v;
    const char *text;
    void *at = NULL;
    enum err e = ERR_OK;

    while (e == ERR_OK && json_next(l->added, &at, &text, &v)) {
        const struct tokenizer_added *known = tokenizer_find_added(l->t, text, strlen(text));
        if (json_kind(v) != JSON_INT || json_int(v) < 0 || json_int(v) >= MAX_IDS)
            return fault_set(l->why, ERR_FORMAT, "added_tokens.json",
                             "%s: added_tokens.json has no id for %.40s", fault_path(l->dir), text);
        e = put_added(l, (struct tokenizer_added){.text = (char *)(uintptr_t)text,
                                                  .len = strlen(text),
                                                  .id = (int)json_int(v),
                                                  .special = known && known->special});
    }
    return e;
}

static int pieces(const struct tokenizer *t)
{
    return t->bpe ? bpe_tokens(t->bpe) : sp_pieces(t->sp);
}

// added_tokens of tokenizer.json: [{"id": 32099, "content": "<extra_id_0>", "special": true, ...}]
static enum err put_fast(struct loader *l)
{
    const struct json_t *list = json_find(l->fast.doc, "added_tokens");
    enum err e = ERR_OK;

    for (size_t i = 0; e == ERR_OK && i < json_count(list); i++) {
        const struct json_t *v = json_item(list, i), *id = json_find(v, "id");
        struct tokenizer_added a;
        if (json_kind(v) != JSON_MAP || json_kind(id) != JSON_INT || json_int(id) < 0 ||
            json_int(id) >= MAX_IDS)
            return fault_set(l->why, ERR_FORMAT, "added_tokens",
                             "%s: entry %zu of added_tokens has no usable id", fault_path(l->dir),
                             i);
        e = read_token(l, v, "added_tokens", &a);
        if (e != ERR_OK)
            return e;
        a.id = (int)json_int(id);
        a.special = json_bool(json_find(v, "special"));
        // CLIP finds its special tokens in normalized text, too; see on_word in tokenizer.c.
        if (json_bool(json_find(v, "normalized")) && !l->t->bpe)
            return fault_set(l->why, ERR_UNSUPPORTED, "added_tokens",
                             "%s: %.40s: normalized added tokens are not supported",
                             fault_path(l->dir), a.text);
        if (a.id < pieces(l->t) && tokenizer_piece(l->t, a.text, a.len) != a.id)
            return fault_set(l->why, ERR_FORMAT, "added_tokens",
                             "%s: added token %.40s has id %d, which belongs to another piece",
                             fault_path(l->dir), a.text, a.id);
        e = put_added(l, a);
    }
    return e;
}

// Checks that both files agree on the end token and the unknown token.
static enum err check_fast(struct loader *l)
{
    const struct tokenizer_added *end =
        tokenizer_find_added(l->t, l->fast.end, strlen(l->fast.end));
    const char *what = !end || end->id != l->t->eos ? "the end token" : "the unknown token";

    if (end && end->id == l->t->eos && tokenizer_find_added(l->t, l->t->unk, strlen(l->t->unk)) &&
        tokenizer_find_added(l->t, l->t->unk, strlen(l->t->unk))->id == l->fast.unk)
        return ERR_OK;
    return fault_set(l->why, ERR_FORMAT, "tokenizer",
                     "%s: tokenizer.json and tokenizer_config.json disagree about %s",
                     fault_path(l->dir), what);
}

// special_tokens_map.json overrides tokenizer_config.json, unless the latter lists every added
// token itself.
static const struct json_t *special(const struct loader *l, const char *key)
{
    const struct json_t *v = json_find(l->map, key);

    if (v && !json_find(l->config, "added_tokens_decoder"))
        return v;
    return json_find(l->config, key);
}

// The tokens with a meaning: their keys in the files, their texts in T5 and CLIP unless the files
// say otherwise (NULL: none), their ids.
enum { TOKEN_EOS, TOKEN_UNK, TOKEN_PAD, TOKEN_BOS, TOKENS };
static const struct {
    const char *key, *text[2];
} tokens[TOKENS] = {
    [TOKEN_EOS] = {"eos_token", {"</s>", "<|endoftext|>"}},
    [TOKEN_UNK] = {"unk_token", {"<unk>", "<|endoftext|>"}},
    [TOKEN_PAD] = {"pad_token", {"<pad>", "<|endoftext|>"}},
    [TOKEN_BOS] = {"bos_token", {NULL, "<|startoftext|>"}},
};

static enum err put_token(struct loader *l, int which, int *id)
{
    const char *key = tokens[which].key, *text = tokens[which].text[l->t->bpe != NULL];
    const struct json_t *v = special(l, key);
    struct tokenizer_added a = {0};
    struct json_t *plain = NULL;
    enum err e = ERR_OK;

    if (!text)
        return ERR_OK;
    if (!v) {
        char quoted[24];
        int n = snprintf(quoted, sizeof quoted, "\"%s\"", text);
        e = json_parse(quoted, (size_t)n, key, ERR_FORMAT, &plain, l->why);
        v = plain;
    }
    if (e == ERR_OK)
        e = put_special(l, v, key, &a);
    if (e == ERR_OK && which == TOKEN_UNK && !(l->t->unk = strdup(a.text)))
        e = no_memory(l);
    *id = a.id;
    json_destroy(&plain);
    return e;
}

// Tokens besides the vocabulary, as each kind of folder lists them.
static enum err put_listed(struct loader *l, const struct json_t *additional)
{
    const struct json_t *decoder = json_find(l->config, "added_tokens_decoder");
    int sentinels = 0;
    enum err e;

    if (l->fast.doc)
        return put_fast(l);
    e = l->t->bpe ? ERR_OK : count_sentinels(l, additional, &sentinels);
    if (e == ERR_OK)
        e = put_sentinels(l, sentinels);
    if (e == ERR_OK)
        e = decoder ? put_decoder(l, decoder) : put_added_file(l);
    return e;
}

static enum err put_all(struct loader *l)
{
    const struct json_t *list = special(l, "additional_special_tokens");
    int ids[TOKENS] = {0};
    enum err e = put_listed(l, list);

    for (int i = 0; i < TOKENS && e == ERR_OK; i++)
        e = put_token(l, i, &ids[i]);
    for (size_t i = 0; i < json_count(list) && e == ERR_OK; i++) {
        struct tokenizer_added a;
        e = put_special(l, json_item(list, i), "additional_special_tokens", &a);
    }
    if (e == ERR_OK) {
        l->t->eos = ids[TOKEN_EOS];
        l->t->pad = ids[TOKEN_PAD];
        l->t->bos = ids[TOKEN_BOS];
    }
    if (e == ERR_OK && l->t->bpe && bpe_finish(l->t->bpe, ids[TOKEN_UNK]))
        e = no_memory(l);
    return e == ERR_OK && l->fast.doc && !l->t->bpe ? check_fast(l) : e;
}

// ---- files ----------------------------------------------------------------------------------

static enum err read_json(struct loader *l, const char *name, bool optional, struct json_t **out)
{
    struct buf path = {0};
    struct fault fault = {0};
    enum err e;

    buf_printf(&path, "%s/%s", l->dir, name);
    if (path.failed)
        return no_memory(l);
    e = json_parse_file(path.data, MAX_JSON, out, &fault);
    if (e == ERR_OK && json_kind(*out) != JSON_MAP)
        e = fault_set(&fault, ERR_FORMAT, name, "%s: must be a JSON object", fault_path(path.data));
    buf_deinit(&path);
    if (e == ERR_NOT_FOUND && optional)
        return ERR_OK;
    if (e != ERR_OK && l->why)
        *l->why = fault;
    return e;
}

static enum err read_config(struct loader *l, int legacy)
{
    struct json_reader r = json_reader(l->config, "tokenizer_config.json", ERR_FORMAT, l->why);
    const struct json_t *kwargs = json_find(l->config, "sp_model_kwargs");
    struct tokenizer *t = l->t;
    double longest;

    l->extra_ids = (int)json_read_int(&r, "extra_ids", 100, 0, 1 << 15);
    longest = json_read_number(&r, "model_max_length", TOKENIZER_IF_LENGTH, 2, 1e300);
    t->max_length = longest < TOKENIZER_IF_LENGTH ? (int)longest : TOKENIZER_IF_LENGTH;
    t->prefix_space = json_key(&r, "add_prefix_space") == JSON_NONE ||
                      json_read_bool(&r, "add_prefix_space", true);
    t->legacy = json_key(&r, "legacy") == JSON_NONE || json_read_bool(&r, "legacy", true);
    if (l->fast.doc) {
        t->prefix_space = l->fast.prefix_space;
        t->legacy = l->fast.legacy;
        t->any_space = l->fast.any_space;
    }
    if (legacy >= 0)
        t->legacy = legacy;
    if (kwargs && json_count(kwargs))
        json_fail(&r, ERR_UNSUPPORTED, "sp_model_kwargs", "must be empty");
    if (json_read_bool(&r, "split_special_tokens", false))
        json_fail(&r, ERR_UNSUPPORTED, "split_special_tokens", "true is not supported");
    if (strcmp(json_read_text(&r, "padding_side", "right"), "right"))
        json_fail(&r, ERR_UNSUPPORTED, "padding_side", "must be right");
    if (strcmp(json_read_text(&r, "truncation_side", "right"), "right"))
        json_fail(&r, ERR_UNSUPPORTED, "truncation_side", "must be right");
    return r.err;
}

// Loads the serialized model in bytes, read from the file at path.
static enum err load_pieces(struct loader *l, const char *path, const struct buf *bytes)
{
    const char *slash = strrchr(path, '/'), *file = slash ? slash + 1 : path,
               *wrong = spiece_check(bytes->data, bytes->len);
    char says[160] = "";

    if (wrong)
        return fault_set(l->why, ERR_FORMAT, file, "%s: not a usable model: %s", fault_path(path),
                         wrong);
    switch (sp_load(bytes->data ? bytes->data : "", bytes->len, l->t->legacy, &l->t->sp, says,
                    sizeof says)) {
    case SP_OK: return ERR_OK;
    case SP_NO_MEMORY: return no_memory(l);
    default: break;
    }
    return fault_set(l->why, ERR_FORMAT, file, "%s: not a SentencePiece model: %s",
                     fault_path(path), says);
}

static enum err read_spiece(struct loader *l, const char *path)
{
    struct buf bytes = {0};
    enum err e = buf_read_file(&bytes, path, MAX_MODEL, l->why);

    if (e == ERR_OK) {
        e = load_pieces(l, path, &bytes);
        e = file_explain(path, bytes.data, bytes.len, e, l->why);
    }
    buf_deinit(&bytes);
    return e;
}

// Whether the file exists; a dangling link counts, and reading it reports the error.
static bool is_there(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0;
}

// Whether the folder has the file.
static bool has(struct loader *l, const char *name, struct buf *path)
{
    buf_clear(path);
    buf_printf(path, "%s/%s", l->dir, name);
    return !path->failed && is_there(path->data);
}

static enum err read_fast(struct loader *l, const char *path)
{
    enum err e = json_parse_file(path, TOKENIZER_JSON_MAX, &l->fast.doc, l->why);

    if (!e && tokenizer_clip_is(l->fast.doc)) {
        e = tokenizer_clip_json(path, &l->fast, l->why);
        l->t->bpe = l->fast.bpe;
        l->fast.bpe = NULL;
        return e;
    }
    return e ? e : tokenizer_json_read(path, &l->fast, l->why);
}

// Selects the slow tokenizer's files if they exist, otherwise the fast one's. path: receives the
// path of SentencePiece's model.
static enum err choose_model(struct loader *l, struct buf *path)
{
    if (has(l, "vocab.json", path) && !has(l, "spiece.model", path)) {
        l->t->fixed = true;
        return tokenizer_clip_read(l->dir, &l->t->bpe, l->why);
    }
    if (has(l, "spiece.model", path))
        return ERR_OK;
    if (has(l, "tokenizer.json", path))
        return read_fast(l, path->data);
    if (path->failed)
        return no_memory(l);
    if (!is_there(l->dir))
        return file_open_error(l->dir, ENOENT, l->why);
    return fault_set(
        l->why, ERR_NOT_FOUND, "tokenizer",
        "%s has neither a spiece.model (T5), nor vocab.json and merges.txt (CLIP), nor "
        "a tokenizer.json",
        fault_path(l->dir));
}

static enum err load_model(struct loader *l, const char *path)
{
    if (l->t->bpe)
        return ERR_OK;
    return l->fast.doc ? load_pieces(l, path, &l->fast.model) : read_spiece(l, path);
}

static void count_piece(void *ctx, const char *piece, size_t n, int id)
{
    (void)piece;
    (void)n;
    (void)id;
    ++*(int *)ctx;
}

static enum err finish(struct loader *l)
{
    struct tokenizer *t = l->t;

    t->vocab = pieces(t);
    for (int i = 0; i < t->added_count; i++)
        if (t->added[i].id >= t->vocab)
            t->vocab = t->added[i].id + 1;
    if (t->sp && !t->legacy &&
        sp_encode(t->sp, t->unk, strlen(t->unk), count_piece, &t->unk_pieces))
        return no_memory(l);
    return ERR_OK;
}

// Reads the folder's files up to the pieces.
static enum err load_folder(struct loader *l, int legacy)
{
    struct buf path = {0};
    enum err e;

    if ((e = choose_model(l, &path)) == ERR_OK &&
        (e = read_json(l, "tokenizer_config.json", false, &l->config)) == ERR_OK &&
        (e = read_json(l, "special_tokens_map.json", true, &l->map)) == ERR_OK &&
        (e = read_json(l, "added_tokens.json", true, &l->added)) == ERR_OK &&
        (e = read_config(l, legacy)) == ERR_OK)
        e = load_model(l, path.data);
    buf_deinit(&path);
    return e;
}

// A GGUF file has no tokenizer_config.json; the library's defaults are those of T5.
static enum err load_gguf(struct loader *l, int legacy)
{
    struct buf model = {0};
    char config[48];
    int sentinels;
    enum err e = tokenizer_gguf_read(l->dir, &model, &sentinels, l->why);

    if (!e) {
        const int n = snprintf(config, sizeof config, "{\"extra_ids\": %d}", sentinels);
        e = json_parse(config, (size_t)n, l->dir, ERR_FORMAT, &l->config, l->why);
    }
    if (!e)
        e = read_config(l, legacy);
    if (!e)
        e = load_pieces(l, l->dir, &model);
    buf_deinit(&model);
    return e;
}

enum err tokenizer_open_legacy(const char *dir, int legacy, struct tokenizer **out,
                               struct fault *why)
{
    struct loader l = {.dir = dir, .why = why};
    enum err e;

    *out = NULL;
    l.t = calloc(1, sizeof *l.t);
    if (!l.t)
        return no_memory(&l);
    if ((e = gguf_is(dir) ? load_gguf(&l, legacy) : load_folder(&l, legacy)) != ERR_OK ||
        (e = put_all(&l)) != ERR_OK || (e = finish(&l)) != ERR_OK)
        tokenizer_close(&l.t);
    tokenizer_json_deinit(&l.fast);
    json_destroy(&l.config);
    json_destroy(&l.map);
    json_destroy(&l.added);
    *out = l.t;
    return e;
}

enum err tokenizer_open(const char *dir, struct tokenizer **out, struct fault *why)
{
    return tokenizer_open_legacy(dir, -1, out, why);
}

void tokenizer_close(struct tokenizer **tokenizer)
{
    struct tokenizer *t = *tokenizer;

    if (!t)
        return;
    if (t->sp)
        sp_free(&t->sp);
    bpe_destroy(&t->bpe);
    for (int i = 0; i < t->added_count; i++)
        free(t->added[i].text);
    free(t->added);
    free(t->unk);
    free(t);
    *tokenizer = NULL;
}
