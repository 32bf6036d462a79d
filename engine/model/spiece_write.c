// Writes serialized SentencePiece models, so that the library that reads spiece.model can run
// tokenizers that come in other files. Callers: tokenizer_json.c and tokenizer_gguf.c, on one
// thread. Source: sentencepiece_model.proto.
#include "tokenizer_priv.h"

enum { VARINT = 0, BYTES = 2, FIXED32 = 5 };

static void put_varint(struct buf *b, uint64_t v)
{
    for (; v >= 0x80; v >>= 7)
        buf_putc(b, (char)(v | 0x80));
    buf_putc(b, (char)v);
}

static void put_number(struct buf *b, int field, uint64_t v)
{
    put_varint(b, (uint64_t)field << 3 | VARINT);
    put_varint(b, v);
}

static void put_bytes(struct buf *b, int field, const void *data, size_t n)
{
    put_varint(b, (uint64_t)field << 3 | BYTES);
    put_varint(b, n);
    buf_add(b, data, n);
}

static void put_float(struct buf *b, int field, float v)
{
    put_varint(b, (uint64_t)field << 3 | FIXED32);
    buf_add(b, &v, sizeof v);
}

void spiece_put_piece(struct buf *model, const char *text, size_t len, double score,
                      enum spiece_type type)
{
    enum { PIECES = 1, TEXT = 1, SCORE = 2, TYPE = 3 };
    struct buf b = {0};

    put_bytes(&b, TEXT, text, len);
    put_float(&b, SCORE, (float)score);
    put_number(&b, TYPE, type);
    if (b.failed)
        model->failed = true;
    else
        put_bytes(model, PIECES, b.data, b.len);
    buf_deinit(&b);
}

void spiece_put_specs(struct buf *model, const struct spiece_specs *s)
{
    enum { TRAINER = 2, MODEL_TYPE = 3, UNIGRAM = 1, UNK_ID = 40 };
    enum { NORMALIZER = 3, CHARSMAP = 2, DUMMY_PREFIX = 3, EXTRA_SPACES = 4 };
    struct buf b = {0};

    put_number(&b, MODEL_TYPE, UNIGRAM);
    put_number(&b, UNK_ID, (uint64_t)s->unk);
    if (!b.failed)
        put_bytes(model, TRAINER, b.data, b.len);
    model->failed |= b.failed;
    buf_clear(&b);
    put_bytes(&b, CHARSMAP, s->charsmap ? s->charsmap : "", s->charsmap_len);
    if (s->no_prefix)
        put_number(&b, DUMMY_PREFIX, 0);
    if (s->keep_spaces)
        put_number(&b, EXTRA_SPACES, 0);
    if (!b.failed)
        put_bytes(model, NORMALIZER, b.data, b.len);
    model->failed |= b.failed;
    buf_deinit(&b);
}
