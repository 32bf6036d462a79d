// The tokenizer in a GGUF file's metadata, converted to a SentencePiece model. Called by
// tokenizer_load.c, on one thread. Source: llama.cpp's converter for T5, which lists the pieces of
// spiece.model and fills the vocabulary up with unused tokens.
#include "gguf.h"
#include "tokenizer_priv.h"

#include <math.h>
#include <string.h>

enum { MOST_PIECES = 1 << 20, MOST_SENTINELS = 100 };
static const char TOKENS[] = "tokenizer.ggml.tokens", SCORES[] = "tokenizer.ggml.scores";
static const char KINDS[] = "tokenizer.ggml.token_type";

struct source {
    struct gguf *g;
    const char *path;
    struct fault *why;
};

static enum err fail(const struct source *s, enum err code, const char *what)
{
    return fault_set(s->why, code, "tokenizer",
                     "%s: %s; give the model a tokenizer folder with spiece.model",
                     fault_path(s->path), what);
}

// The type of token i; 0: none that there is.
static int kind_of(const struct source *s, size_t i)
{
    const double kind = gguf_number_at(s->g, KINDS, i, 0);

    return kind >= SPIECE_NORMAL && kind <= SPIECE_UNUSED ? (int)kind : 0;
}

// Without what fills up the vocabulary behind the last piece.
static size_t count_pieces(const struct source *s)
{
    size_t n = gguf_count(s->g, TOKENS);

    for (; n; n--) {
        const int kind = kind_of(s, n - 1);
        if (kind != SPIECE_UNUSED && kind != SPIECE_USER)
            break;
    }
    return n;
}

// Checks that a special token has the id that T5 gives it; spiece's own lookup goes by the text.
static enum err check_special(const struct source *s, const char *key, size_t id, const char *text)
{
    const double given = gguf_number(s->g, key, (double)id);
    size_t len = 0;
    const char *piece = gguf_text_at(s->g, TOKENS, id, &len);

    if (given == (double)id && piece && len == strlen(text) && !memcmp(piece, text, len))
        return ERR_OK;
    return fail(s, ERR_UNSUPPORTED, "its special tokens are not those of T5");
}

static enum err put_pieces(const struct source *s, size_t pieces, size_t unk, struct buf *model)
{
    for (size_t i = 0; i < pieces; i++) {
        const double score = gguf_number_at(s->g, SCORES, i, 0);
        const int kind = kind_of(s, i);
        size_t len = 0;
        const char *text = gguf_text_at(s->g, TOKENS, i, &len);
        if (!len || memchr(text, 0, len) || !isfinite((float)score) || !kind ||
            (kind == SPIECE_UNKNOWN) != (i == unk))
            return fail(s, ERR_FORMAT, "its vocabulary is damaged");
        spiece_put_piece(model, text, len, score, (enum spiece_type)kind);
    }
    return ERR_OK;
}

static enum err convert(const struct source *s, struct buf *model, int *sentinels)
{
    const size_t all = gguf_count(s->g, TOKENS), pieces = count_pieces(s), unk = 2;
    size_t len = 0, map_len = 0;
    const char *kind = gguf_text(s->g, "tokenizer.ggml.model", &len);
    const void *map = gguf_bytes(s->g, "tokenizer.ggml.precompiled_charsmap", &map_len);
    enum err e;

    if (!kind)
        return fail(s, ERR_NOT_FOUND, "it has no tokenizer");
    if (len != 2 || memcmp(kind, "t5", 2) != 0)
        return fail(s, ERR_UNSUPPORTED, "its tokenizer is not T5's");
    if (!pieces || all > MOST_PIECES || gguf_count(s->g, SCORES) != all ||
        gguf_count(s->g, KINDS) != all)
        return fail(s, ERR_FORMAT, "its vocabulary is damaged");
    if ((e = check_special(s, "tokenizer.ggml.padding_token_id", 0, "<pad>")) ||
        (e = check_special(s, "tokenizer.ggml.eos_token_id", 1, "</s>")) ||
        (e = check_special(s, "tokenizer.ggml.unknown_token_id", unk, "<unk>")) ||
        (e = put_pieces(s, pieces, unk, model)))
        return e;
    spiece_put_specs(
        model,
        &(struct spiece_specs){
            .unk = (int)unk,
            .charsmap = map,
            .charsmap_len = map_len,
            .no_prefix = gguf_number(s->g, "tokenizer.ggml.add_space_prefix", 1) == 0,
            .keep_spaces = gguf_number(s->g, "tokenizer.ggml.remove_extra_whitespaces", 1) == 0,
        });
    *sentinels = (int)(all - pieces < MOST_SENTINELS ? all - pieces : MOST_SENTINELS);
    if (model->failed)
        return fault_set(s->why, ERR_NO_MEMORY, "tokenizer", "%s: out of memory",
                         fault_path(s->path));
    return ERR_OK;
}

enum err tokenizer_gguf_read(const char *path, struct buf *model, int *sentinels, struct fault *why)
{
    struct source s = {.path = path, .why = why};
    enum err e = gguf_open(path, &s.g, why);

    if (!e)
        e = convert(&s, model, sentinels);
    gguf_close(&s.g);
    return e;
}
