// Converts text to the ids of T5 or CLIP. Callers: the pipeline's text part and the golden program,
// on any thread; a tokenizer is read-only. Knows nothing about encoders. Source: transformers
// PreTrainedTokenizer.tokenize, T5Tokenizer.tokenize and _tokenize, CLIPTokenizer._tokenize.
#include "tokenizer.h"

#include "buf.h"
#include "clip_text.h"
#include "tokenizer_priv.h"
#include "utf8.h"

#include <stdlib.h>
#include <string.h>
#include <unicase.h>
#include <unictype.h>

static const char UNDERLINE[] = "\xe2\x96\x81"; // U+2581, SentencePiece's space
enum { UNDERLINE_LEN = 3 };

enum tokenizer_kind tokenizer_kind(const struct tokenizer *t)
{
    return t->bpe ? TOKENIZER_CLIP : TOKENIZER_T5;
}

int tokenizer_vocab(const struct tokenizer *t)
{
    return t->vocab;
}

int tokenizer_max_length(const struct tokenizer *t)
{
    return t->max_length;
}

int tokenizer_piece(const struct tokenizer *t, const char *text, size_t len)
{
    return t->bpe ? bpe_find(t->bpe, text, len) : sp_piece_id(t->sp, text, len);
}

const struct tokenizer_added *tokenizer_find_added(const struct tokenizer *t, const char *text,
                                                   size_t len)
{
    for (int i = 0; i < t->added_count; i++)
        if (t->added[i].len == len && !memcmp(t->added[i].text, text, len))
            return &t->added[i];
    return NULL;
}

// ---- ids ------------------------------------------------------------------------------------

enum kind { PIECE, SPACE_PIECE, SPECIAL }; // SPACE_PIECE: U+2581 alone

struct ids {
    const struct tokenizer *t;
    int *id;
    unsigned char *kind;
    size_t count, cap;
    int skip; // number of pieces still to drop
    bool failed;
};

static void ids_add(struct ids *s, int id, enum kind kind)
{
    if (s->count == s->cap) {
        size_t cap = s->cap ? 2 * s->cap : 128;
        int *id_new = realloc(s->id, cap * sizeof *s->id);
        unsigned char *kind_new = realloc(s->kind, cap);
        s->id = id_new ? id_new : s->id;
        s->kind = kind_new ? kind_new : s->kind;
        if (!id_new || !kind_new) {
            s->failed = true;
            return;
        }
        s->cap = cap;
    }
    s->id[s->count] = id;
    s->kind[s->count++] = (unsigned char)kind;
}

static void ids_deinit(struct ids *s)
{
    free(s->id);
    free(s->kind);
}

// The library maps pieces to ids by their text, added tokens first: an unknown piece may spell an
// added token.
static void on_piece(void *ctx, const char *piece, size_t n, int id)
{
    struct ids *s = ctx;
    const struct tokenizer_added *a;

    if (s->skip > 0) {
        s->skip--;
        return;
    }
    a = tokenizer_find_added(s->t, piece, n);
    if (a)
        ids_add(s, a->id, a->special ? SPECIAL : PIECE);
    else
        ids_add(s, id, n == UNDERLINE_LEN && !memcmp(piece, UNDERLINE, n) ? SPACE_PIECE : PIECE);
}

static enum err encode_plain(struct ids *s, const char *text, size_t len)
{
    switch (sp_encode(s->t->sp, text, len, on_piece, s)) {
    case SP_OK: return s->failed ? ERR_NO_MEMORY : ERR_OK;
    case SP_NO_MEMORY: return ERR_NO_MEMORY;
    default: return ERR_INTERNAL;
    }
}

// Replaces all white space by plain spaces, if the tokenizer splits at all of it.
static enum err encode_pieces(struct ids *s, const char *text, size_t len)
{
    struct buf plain = {0};
    size_t n;
    uint32_t c;
    enum err e;

    if (!s->t->any_space)
        return encode_plain(s, text, len);
    for (; len && (n = utf8_decode(text, len, &c)); text += n, len -= n)
        buf_add(&plain, utf8_is_space(c) ? " " : text, utf8_is_space(c) ? 1 : n);
    e = plain.failed ? ERR_NO_MEMORY : encode_plain(s, plain.data ? plain.data : "", plain.len);
    buf_deinit(&plain);
    return e;
}

static void on_token(void *ctx, int id)
{
    ids_add(ctx, id, PIECE);
}

// Special tokens that are found only once the text is in lower case have their own ids, too.
static enum err on_word(void *ctx, const char *word, size_t n)
{
    struct ids *s = ctx;
    const struct tokenizer_added *a = tokenizer_find_added(s->t, word, n);

    if (!a)
        return bpe_encode(s->t->bpe, word, n, on_token, s);
    ids_add(s, a->id, SPECIAL);
    return ERR_OK;
}

static enum err encode_words(struct ids *s, const char *text, size_t len)
{
    struct buf clean = {0};
    enum err e = clip_text_clean(text, len, s->t->fixed, &clean);

    if (!e && clean.len)
        e = clip_text_split(clean.data, clean.len, on_word, s);
    buf_deinit(&clean);
    return e ? e : s->failed ? ERR_NO_MEMORY : ERR_OK;
}

// Without legacy, leading spaces are kept: the unknown token is put in front so that SentencePiece
// does not trim them, and its pieces are dropped afterwards.
static enum err encode_segment(struct ids *s, const char *text, size_t len)
{
    struct buf with = {0};
    size_t before = s->count;
    enum err e;

    if (s->t->bpe)
        return encode_words(s, text, len);
    if (s->t->legacy ||
        !(text[0] == ' ' || (len >= UNDERLINE_LEN && !memcmp(text, UNDERLINE, UNDERLINE_LEN))))
        return encode_pieces(s, text, len);
    buf_puts(&with, s->t->unk);
    buf_add(&with, text, len);
    if (with.failed)
        return ERR_NO_MEMORY;
    s->skip = s->t->unk_pieces;
    e = encode_pieces(s, with.data, with.len);
    if (s->skip > 0 && e == ERR_OK) {
        // fewer pieces than the unknown token alone: the library then keeps all of them
        s->skip = 0;
        s->count = before;
        e = encode_pieces(s, with.data, with.len);
    }
    buf_deinit(&with);
    return e;
}

// ---- segments -------------------------------------------------------------------------------

static size_t space_at_start(const char *s, size_t n)
{
    size_t i = 0, len;
    uint32_t c;

    while (i < n && (len = utf8_decode(s + i, n - i, &c)) && utf8_is_space(c))
        i += len;
    return i;
}

static size_t space_at_end(const char *s, size_t n)
{
    size_t end = n, i;
    uint32_t c;

    for (;;) {
        i = end;
        while (i > 0 && ((unsigned char)s[--i] & 0xc0) == 0x80)
            ;
        if (i == end || !utf8_decode(s + i, end - i, &c) || !utf8_is_space(c))
            return n - end;
        end = i;
    }
}

// The longest added token that starts here, or NULL.
static const struct tokenizer_added *added_at(const struct tokenizer *t, const char *s, size_t n)
{
    const struct tokenizer_added *best = NULL;

    for (int i = 0; i < t->added_count; i++) {
        const struct tokenizer_added *a = &t->added[i];
        if (a->text[0] == s[0] && a->len <= n && !memcmp(a->text, s, a->len) &&
            (!best || a->len > best->len))
            best = a;
    }
    return best;
}

// Encodes the text between two added tokens (NULL at the text's ends), without the spaces that they
// strip.
static enum err encode_between(struct ids *s, const struct tokenizer_added *before,
                               const char *text, size_t len, const struct tokenizer_added *after)
{
    size_t cut = before && before->rstrip ? space_at_start(text, len) : 0;

    text += cut;
    len -= cut;
    if (after && after->lstrip)
        len -= space_at_end(text, len);
    return len ? encode_segment(s, text, len) : ERR_OK;
}

static enum err encode_text(struct ids *s, const char *text, size_t len)
{
    const struct tokenizer_added *before = NULL, *a;
    size_t done = 0, i = 0;
    enum err e = ERR_OK;

    while (i < len && e == ERR_OK) {
        a = added_at(s->t, text + i, len - i);
        if (!a) {
            i++;
            continue;
        }
        e = encode_between(s, before, text + done, i - done, a);
        ids_add(s, a->id, a->special ? SPECIAL : PIECE);
        i = done = i + a->len;
        before = a;
    }
    if (e == ERR_OK)
        e = encode_between(s, before, text + done, len - done, NULL);
    return s->failed ? ERR_NO_MEMORY : e;
}

// T5Tokenizer.tokenize without legacy: U+2581 in the text becomes a space, and one is put in front,
// which is dropped again if a special token follows.
static enum err encode_modern(struct ids *s, const char *text, size_t len)
{
    struct buf b = {0};
    enum err e;

    if (s->t->prefix_space)
        buf_puts(&b, UNDERLINE);
    for (size_t i = 0; i < len;) {
        if (len - i >= UNDERLINE_LEN && !memcmp(text + i, UNDERLINE, UNDERLINE_LEN)) {
            buf_putc(&b, ' ');
            i += UNDERLINE_LEN;
        } else {
            buf_putc(&b, text[i++]);
        }
    }
    e = b.failed ? ERR_NO_MEMORY : encode_text(s, b.data, b.len);
    buf_deinit(&b);
    if (e == ERR_OK && s->count > 1 && s->kind[0] == SPACE_PIECE && s->kind[1] == SPECIAL) {
        s->count--;
        memmove(s->id, s->id + 1, s->count * sizeof *s->id);
        memmove(s->kind, s->kind + 1, s->count);
    }
    return e;
}

static enum err encode_all(struct ids *s, const char *text, size_t len)
{
    if (!utf8_valid(text, len, NULL))
        return ERR_INVALID;
    if (!len)
        return ERR_OK;
    return s->t->legacy || s->t->bpe ? encode_text(s, text, len) : encode_modern(s, text, len);
}

// Whether the first n ids need an end token: with T5, a text that already ends with one does not.
static bool needs_end(const struct ids *s, size_t n)
{
    return s->t->bpe || !n || s->id[n - 1] != s->t->eos;
}

enum err tokenizer_count(const struct tokenizer *t, const char *text, size_t len, int *count)
{
    struct ids s = {.t = t};
    const enum err e = encode_all(&s, text, len);

    *count = (int)s.count + (t->bpe != NULL) + needs_end(&s, s.count);
    ids_deinit(&s);
    return e;
}

enum err tokenizer_encode(const struct tokenizer *t, const char *text, size_t len, int length,
                          uint32_t *ids, uint32_t *mask, int *count)
{
    struct ids s = {.t = t};
    const size_t begin = t->bpe != NULL, most = (size_t)length - 1 - begin;
    size_t n, k = 0;
    enum err e = length < 1 + (int)begin ? ERR_INVALID : encode_all(&s, text, len);

    if (e == ERR_OK) {
        n = s.count < most ? s.count : most;
        if (begin)
            ids[k++] = (uint32_t)t->bos;
        for (size_t i = 0; i < n; i++)
            ids[k++] = (uint32_t)s.id[i];
        if (needs_end(&s, n))
            ids[k++] = (uint32_t)t->eos;
        for (int i = 0; i < length; i++) {
            mask[i] = (size_t)i < k;
            if (!mask[i])
                ids[i] = (uint32_t)t->pad;
        }
        if (count)
            *count = (int)k;
    }
    ids_deinit(&s);
    return e;
}

enum err tokenizer_prepare(const struct tokenizer *t, const char *prompt, size_t len,
                           struct buf *out)
{
    if (!t->bpe)
        return tokenizer_prompt(prompt, len, out);
    if (!utf8_valid(prompt, len, NULL))
        return ERR_INVALID;
    buf_add(out, prompt, len);
    return out->failed ? ERR_NO_MEMORY : ERR_OK;
}

// ---- SentencePiece alone --------------------------------------------------------------------

static void collect_id(void *ctx, const char *piece, size_t n, int id)
{
    (void)piece;
    (void)n;
    ids_add(ctx, id, PIECE);
}

enum err tokenizer_pieces(const struct tokenizer *t, const char *text, size_t len, int **ids,
                          int *count)
{
    struct ids s = {.t = t};
    enum sp_result r = SP_OK;

    *ids = NULL;
    *count = 0;
    if (!utf8_valid(text, len, NULL) || !t->sp)
        return ERR_INVALID;
    if (len)
        r = sp_encode(t->sp, text, len, collect_id, &s);
    if (r != SP_OK || s.failed) {
        ids_deinit(&s);
        return r == SP_MALFORMED ? ERR_INTERNAL : ERR_NO_MEMORY;
    }
    free(s.kind);
    *ids = s.id;
    *count = (int)s.count;
    return ERR_OK;
}

static void collect_text(void *ctx, const char *piece, size_t n, int id)
{
    (void)id;
    buf_add(ctx, piece, n);
}

enum err tokenizer_normalize(const struct tokenizer *t, const char *text, size_t len,
                             struct buf *out)
{
    enum sp_result r = SP_OK;

    if (!utf8_valid(text, len, NULL) || !t->sp)
        return ERR_INVALID;
    if (len)
        r = sp_encode(t->sp, text, len, collect_text, out);
    if (r == SP_MALFORMED)
        return ERR_INTERNAL;
    return r != SP_OK || out->failed ? ERR_NO_MEMORY : ERR_OK;
}

// ---- prompts --------------------------------------------------------------------------------

static const char SIGMA[] = "\xce\xa3", SMALL_SIGMA[] = "\xcf\x83", FINAL_SIGMA[] = "\xcf\x82";
enum { SIGMA_LEN = 2 };

// Whether the first character of s that is not case-ignorable is cased.
static bool cased_after(const char *s, size_t n)
{
    size_t len;
    uint32_t c;

    for (; n && (len = utf8_decode(s, n, &c)); s += len, n -= len)
        if (!uc_is_property_case_ignorable(c))
            return uc_is_property_cased(c);
    return false;
}

// Likewise, backwards from the end of s.
static bool cased_before(const char *s, size_t n)
{
    uint32_t c;

    while (n) {
        size_t end = n;
        while (--n > 0 && ((unsigned char)s[n] & 0xc0) == 0x80)
            ;
        if (utf8_decode(s + n, end - n, &c) && !uc_is_property_case_ignorable(c))
            return uc_is_property_cased(c);
    }
    return false;
}

// Lowercases sigma by Python's rule; it is the only letter whose lowercase depends on its
// neighbors. libunistring finds word boundaries differently.
static void lower_sigmas(struct buf *out, const char *s, size_t n)
{
    size_t done = 0;

    for (size_t i = 0; i + SIGMA_LEN <= n; i++) {
        if (memcmp(s + i, SIGMA, SIGMA_LEN))
            continue;
        buf_add(out, s + done, i - done);
        done = i + SIGMA_LEN;
        buf_add(out,
                cased_before(s, i) && !cased_after(s + done, n - done) ? FINAL_SIGMA : SMALL_SIGMA,
                SIGMA_LEN);
        i = done - 1;
    }
    buf_add(out, s + done, n - done);
}

enum err tokenizer_prompt(const char *prompt, size_t len, struct buf *out)
{
    struct buf text = {0};
    size_t n = 0, start;
    uint8_t *lower = NULL;

    if (!utf8_valid(prompt, len, NULL))
        return ERR_INVALID;
    if (!len)
        return ERR_OK;
    lower_sigmas(&text, prompt, len);
    if (!text.failed)
        lower = u8_tolower((const uint8_t *)text.data, text.len, NULL, NULL, NULL, &n);
    buf_deinit(&text);
    if (!lower)
        return ERR_NO_MEMORY;
    start = space_at_start((const char *)lower, n);
    n -= start;
    n -= space_at_end((const char *)lower + start, n);
    buf_add(out, lower + start, n);
    free(lower);
    return out->failed ? ERR_NO_MEMORY : ERR_OK;
}
