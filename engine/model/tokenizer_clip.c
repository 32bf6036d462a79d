// Reads CLIP's vocabulary and merges: vocab.json and merges.txt, or a tokenizer.json. Called by
// tokenizer_load.c, on one thread. Source: transformers CLIPTokenizer.__init__; the serialization
// of Hugging Face tokenizers, which CLIPTokenizerFast writes.
#include "file.h"
#include "json.h"
#include "tokenizer_priv.h"

#include <stdio.h>
#include <string.h>

enum { MAX_TOKENS = 1 << 20, MAX_FILE = 64 << 20, MAX_MERGES = 49152 - 256 - 2 };

struct source {
    const char *path;
    struct bpe *bpe;
    struct fault *why;
};

static enum err no_memory(const struct source *s)
{
    return fault_set(s->why, ERR_NO_MEMORY, "tokenizer", "%s: out of memory", fault_path(s->path));
}

// {"a</w>": 320, ...}
static enum err read_vocab(const struct source *s, const struct json_t *vocab)
{
    const struct json_t *v;
    const char *text;
    void *at = NULL;
    enum err e = ERR_OK;

    if (json_kind(vocab) != JSON_MAP || !json_count(vocab) || json_count(vocab) > MAX_TOKENS)
        return fault_set(s->why, ERR_FORMAT, "vocab",
                         "%s: the vocabulary must be an object of 1 to %d tokens",
                         fault_path(s->path), MAX_TOKENS);
    while (!e && json_next(vocab, &at, &text, &v)) {
        const int64_t id = json_kind(v) == JSON_INT ? json_int(v) : -1;
        e = id < 0 || id >= MAX_TOKENS ? ERR_FORMAT
                                       : bpe_add_token(s->bpe, text, strlen(text), (int)id);
        if (e == ERR_FORMAT)
            return fault_set(s->why, e, "vocab", "%s: token \"%.40s\" has no usable id",
                             fault_path(s->path), text);
    }
    return e ? no_memory(s) : ERR_OK;
}

// "in g</w>". number: of the merge, for messages.
static enum err read_merge(const struct source *s, const char *line, size_t n, size_t number)
{
    const char *space = memchr(line, ' ', n);
    const size_t left = space ? (size_t)(space - line) : 0;

    if (!left || left + 1 >= n || memchr(space + 1, ' ', n - left - 1))
        return fault_set(s->why, ERR_FORMAT, "merges",
                         "%s: merge %zu must be two texts with a space between them, not \"%.*s\"",
                         fault_path(s->path), number, (int)(n < 40 ? n : 40), line);
    if (bpe_add_merge(s->bpe, line, left, space + 1, n - left - 1))
        return no_memory(s);
    return ERR_OK;
}

// The version of the file, in its first line.
static bool has_version(const char *text, size_t n)
{
    static const char version[] = "#version";
    const char *end = memchr(text, '\n', n);
    const size_t line = end ? (size_t)(end - text) : n;

    for (size_t i = 0; i + sizeof version - 1 <= line; i++)
        if (!memcmp(text + i, version, sizeof version - 1))
            return true;
    return false;
}

// A version, then a merge on each line. Lines beyond the number of merges of OpenAI's file are not
// read by the library either.
static enum err read_merges(const struct source *s, const struct buf *text)
{
    const char *at = text->data, *end = at + text->len;
    enum err e = ERR_OK;

    while (end > at && (end[-1] == '\n' || end[-1] == '\r' || end[-1] == ' '))
        end--;
    if (!has_version(at, text->len))
        return fault_set(s->why, ERR_FORMAT, "merges",
                         "%s must begin with a line that has #version, then a merge on each line",
                         fault_path(s->path));
    for (size_t line = 0; at < end && line <= MAX_MERGES && !e; line++) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        stop = stop ? stop : end;
        const size_t n = (size_t)(stop - at);
        if (line)
            e = read_merge(s, at, n && at[n - 1] == '\r' ? n - 1 : n, line);
        at = stop + 1;
    }
    return e;
}

static enum err read_merges_file(struct source *s, const char *dir)
{
    struct buf path = {0}, text = {0};
    enum err e;

    buf_printf(&path, "%s/merges.txt", dir);
    if (path.failed)
        return no_memory(s);
    s->path = path.data;
    e = buf_read_file(&text, path.data, MAX_FILE, s->why);
    if (!e && text.len) {
        e = read_merges(s, &text);
        e = file_explain(path.data, text.data, text.len, e, s->why);
    } else if (!e) {
        e = fault_set(s->why, ERR_FORMAT, "merges", "%s is empty", fault_path(path.data));
    }
    buf_deinit(&text);
    buf_deinit(&path);
    return e;
}

static enum err read_vocab_file(struct source *s, const char *dir)
{
    struct buf path = {0};
    struct json_t *vocab = NULL;
    enum err e;

    buf_printf(&path, "%s/vocab.json", dir);
    if (path.failed)
        return no_memory(s);
    s->path = path.data;
    e = json_parse_file(path.data, MAX_FILE, &vocab, s->why);
    if (!e)
        e = read_vocab(s, vocab);
    json_destroy(&vocab);
    buf_deinit(&path);
    return e;
}

enum err tokenizer_clip_read(const char *dir, struct bpe **out, struct fault *why)
{
    struct source s = {.path = dir, .why = why};
    enum err e;

    *out = NULL;
    if (bpe_create(&s.bpe))
        return no_memory(&s);
    e = read_vocab_file(&s, dir);
    if (!e)
        e = read_merges_file(&s, dir);
    if (e)
        bpe_destroy(&s.bpe);
    *out = s.bpe;
    return e;
}

// ---- tokenizer.json ---------------------------------------------------------------------------

static bool is(const struct json_t *map, const char *key, const char *value)
{
    const char *text = json_text(json_find(map, key), NULL);

    return text && !strcmp(text, value);
}

bool tokenizer_clip_is(const struct json_t *doc)
{
    return is(json_find(doc, "model"), "type", "BPE");
}

static enum err unsupported(const struct source *s, const char *what, const struct json_t *v)
{
    char shown[80];

    json_show(v, shown, sizeof shown);
    return fault_set(s->why, ERR_UNSUPPORTED, what, "%s: %s %s is not supported",
                     fault_path(s->path), what, shown);
}

static bool is_sequence(const struct json_t *v, const char *key, const char *const *types)
{
    const struct json_t *list = json_find(v, key);
    size_t i = 0;

    if (!is(v, "type", "Sequence"))
        return false;
    for (; types[i]; i++)
        if (!is(json_item(list, i), "type", types[i]))
            return false;
    return json_count(list) == i;
}

// The steps before the model must be those that clip_text.c has.
static enum err check_steps(const struct source *s, const struct json_t *doc)
{
    static const char *const normalizers[] = {"NFC", "Replace", "Lowercase", NULL};
    static const char *const splitters[] = {"Split", "ByteLevel", NULL};
    static const char specials[] = "<\\|startoftext\\|>|<\\|endoftext\\|>|"; // if listed at all
    static const char pattern[] = "'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+";
    const struct json_t *normal = json_find(doc, "normalizer");
    const struct json_t *split = json_find(doc, "pre_tokenizer");
    const struct json_t *first = json_item(json_find(split, "pretokenizers"), 0);
    const char *regex = json_text(json_find(json_find(first, "pattern"), "Regex"), NULL);

    if (!is_sequence(normal, "normalizers", normalizers))
        return unsupported(s, "normalizer", normal);
    if (regex && !strncmp(regex, specials, sizeof specials - 1))
        regex += sizeof specials - 1;
    if (!is_sequence(split, "pretokenizers", splitters) || !regex || strcmp(regex, pattern))
        return unsupported(s, "pre_tokenizer", split);
    return ERR_OK;
}

// "a b" or ["a", "b"].
static enum err read_json_merge(const struct source *s, const struct json_t *v, size_t number)
{
    size_t n, m;
    const char *left = json_text(v, &n), *right;

    if (left)
        return read_merge(s, left, n, number);
    left = json_text(json_item(v, 0), &n);
    right = json_text(json_item(v, 1), &m);
    if (!left || !right || !n || !m || json_count(v) != 2)
        return fault_set(s->why, ERR_FORMAT, "merges", "%s: merge %zu must be two texts",
                         fault_path(s->path), number);
    return bpe_add_merge(s->bpe, left, n, right, m) ? no_memory(s) : ERR_OK;
}

enum err tokenizer_clip_json(const char *path, struct tokenizer_json *out, struct fault *why)
{
    struct source s = {.path = path, .why = why};
    const struct json_t *model = json_find(out->doc, "model"), *merges = json_find(model, "merges");
    enum err e = check_steps(&s, out->doc);

    if (e)
        return e;
    if (!is(model, "end_of_word_suffix", "</w>"))
        return unsupported(&s, "end_of_word_suffix", json_find(model, "end_of_word_suffix"));
    if (json_bool(json_find(model, "byte_fallback")) || json_given(model, "dropout"))
        return unsupported(&s, "model", json_find(model, "dropout"));
    if (bpe_create(&out->bpe))
        return no_memory(&s);
    s.bpe = out->bpe;
    e = read_vocab(&s, json_find(model, "vocab"));
    if (!e && json_kind(merges) != JSON_LIST)
        e = fault_set(why, ERR_FORMAT, "merges", "%s: model.merges must be a list",
                      fault_path(path));
    for (size_t i = 0; !e && i < json_count(merges); i++)
        e = read_json_merge(&s, json_item(merges, i), i);
    return e;
}
