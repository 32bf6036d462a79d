// Opens a tokenizer folder: spiece.model or tokenizer.json, and the related JSON files. Called
// while a model is loaded, on one thread. Source: transformers T5Tokenizer.__init__ and
// from_pretrained of its base class.
#include "buf.h"
#include "file.h"
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
    a->id = sp_piece_id(l->t->sp, a->text, a->len);
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
        if (json_bool(json_find(v, "normalized")))
            return fault_set(l->why, ERR_UNSUPPORTED, "added_tokens",
                             "%s: %.40s: normalized added tokens are not supported",
                             fault_path(l->dir), a.text);
        if (a.id < sp_pieces(l->t->sp) && sp_piece_id(l->t->sp, a.text, a.len) != a.id)
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

static enum err put_all(struct loader *l)
{
    const struct json_t *list = special(l, "additional_special_tokens"),
                        *decoder = json_find(l->config, "added_tokens_decoder");
    static const char *const keys[] = {"eos_token", "unk_token", "pad_token"};
    static const char *const texts[] = {"</s>", "<unk>", "<pad>"};
    int sentinels = 0, ids[3];
    enum err e = l->fast.doc ? put_fast(l) : count_sentinels(l, list, &sentinels);

    if (e == ERR_OK && !l->fast.doc)
        e = put_sentinels(l, sentinels);
    if (e == ERR_OK && !l->fast.doc)
        e = decoder ? put_decoder(l, decoder) : put_added_file(l);
    for (int i = 0; i < 3 && e == ERR_OK; i++) {
        const struct json_t *v = special(l, keys[i]);
        struct tokenizer_added a = {0};
        struct json_t *plain = NULL;
        if (!v) {
            char quoted[16];
            int n = snprintf(quoted, sizeof quoted, "\"%s\"", texts[i]);
            e = json_parse(quoted, (size_t)n, keys[i], ERR_FORMAT, &plain, l->why);
            v = plain;
        }
        if (e == ERR_OK)
            e = put_special(l, v, keys[i], &a);
        if (e == ERR_OK && i == 1 && !(l->t->unk = strdup(a.text)))
            e = no_memory(l);
        ids[i] = a.id;
        json_destroy(&plain);
    }
    for (size_t i = 0; i < json_count(list) && e == ERR_OK; i++) {
        struct tokenizer_added a;
        e = put_special(l, json_item(list, i), "additional_special_tokens", &a);
    }
    if (e == ERR_OK) {
        l->t->eos = ids[0];
        l->t->pad = ids[2];
    }
    return e == ERR_OK && l->fast.doc ? check_fast(l) : e;
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
    const char *file = strrchr(path, '/') + 1, *wrong = spiece_check(bytes->data, bytes->len);
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

// Selects the slow tokenizer's file if it exists, otherwise the fast one's.
static enum err choose_model(struct loader *l, struct buf *slow, struct buf *fast)
{
    buf_printf(slow, "%s/spiece.model", l->dir);
    buf_printf(fast, "%s/tokenizer.json", l->dir);
    if (slow->failed || fast->failed)
        return no_memory(l);
    if (is_there(slow->data))
        return ERR_OK;
    if (is_there(fast->data))
        return tokenizer_json_read(fast->data, &l->fast, l->why);
    if (!is_there(l->dir))
        return file_open_error(l->dir, ENOENT, l->why);
    return fault_set(l->why, ERR_NOT_FOUND, "tokenizer",
                     "%s has neither a spiece.model nor a tokenizer.json", fault_path(l->dir));
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

    t->vocab = sp_pieces(t->sp);
    for (int i = 0; i < t->added_count; i++)
        if (t->added[i].id >= t->vocab)
            t->vocab = t->added[i].id + 1;
    if (!t->legacy && sp_encode(t->sp, t->unk, strlen(t->unk), count_piece, &t->unk_pieces))
        return no_memory(l);
    return ERR_OK;
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
    struct buf slow = {0}, fast = {0};
    if ((e = choose_model(&l, &slow, &fast)) != ERR_OK ||
        (e = read_json(&l, "tokenizer_config.json", false, &l.config)) != ERR_OK ||
        (e = read_json(&l, "special_tokens_map.json", true, &l.map)) != ERR_OK ||
        (e = read_json(&l, "added_tokens.json", true, &l.added)) != ERR_OK ||
        (e = read_config(&l, legacy)) != ERR_OK ||
        (e = l.fast.doc ? load_pieces(&l, fast.data, &l.fast.model) : read_spiece(&l, slow.data)) !=
            ERR_OK ||
        (e = put_all(&l)) != ERR_OK || (e = finish(&l)) != ERR_OK)
        tokenizer_close(&l.t);
    buf_deinit(&slow);
    buf_deinit(&fast);
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
    for (int i = 0; i < t->added_count; i++)
        free(t->added[i].text);
    free(t->added);
    free(t->unk);
    free(t);
    *tokenizer = NULL;
}
