// Shared by tokenizer.c (text to ids) and tokenizer_load.c (files to a tokenizer).
#ifndef IMAGEND_TOKENIZER_PRIV_H
#define IMAGEND_TOKENIZER_PRIV_H

#include "bpe.h"
#include "buf.h"
#include "sp_shim.h"
#include "tokenizer.h"

#include <stdbool.h>

// A token that is matched literally in the text before SentencePiece processes the rest.
struct tokenizer_added {
    char *text;
    size_t len;
    int id;
    bool lstrip, rstrip; // strips the white space before it, after it
    bool special;
};

struct tokenizer {
    struct sp_model *sp; // T5's; NULL: bpe
    struct bpe *bpe;     // CLIP's; NULL: sp
    bool fixed;          // bpe: text is cleaned as by ftfy
    int bos;             // bpe: the token before a text
    struct tokenizer_added *added;
    int added_count;
    int vocab, max_length;
    int eos, pad;
    char *unk;         // the text of the unknown token
    bool legacy;       // transformers' flag of the same name
    bool prefix_space; // add_prefix_space, only without legacy
    bool any_space;    // any white space separates words, not only spaces
    int unk_pieces;    // number of pieces of the unknown token's text, only without legacy
};

// The added token with this text, or NULL.
const struct tokenizer_added *tokenizer_find_added(const struct tokenizer *t, const char *text,
                                                   size_t len);

// The id of a token of the vocabulary, without added ones; -1: none.
int tokenizer_piece(const struct tokenizer *t, const char *text, size_t len);

// The defect of a serialized SentencePiece model, as half a sentence; NULL if the library can load
// it safely.
const char *spiece_check(const void *bytes, size_t n);

// Writes a serialized SentencePiece model of type Unigram: its pieces in order, then its settings.
// Errors: model->failed.
enum spiece_type { SPIECE_NORMAL = 1, SPIECE_UNKNOWN, SPIECE_CONTROL, SPIECE_USER, SPIECE_UNUSED };
struct spiece_specs {
    int unk; // id of the unknown piece
    const void *charsmap;
    size_t charsmap_len;
    bool no_prefix, keep_spaces; // the negations of add_dummy_prefix, remove_extra_whitespaces
};
void spiece_put_piece(struct buf *model, const char *text, size_t len, double score,
                      enum spiece_type type);
void spiece_put_specs(struct buf *model, const struct spiece_specs *s);

// The tokenizer in a GGUF file's metadata as a serialized SentencePiece model, and its number of
// sentinel tokens <extra_id_N> behind the pieces. Errors: as gguf_open; FORMAT, UNSUPPORTED. Owner:
// the caller frees *model, also on error.
enum err tokenizer_gguf_read(const char *path, struct buf *model, int *sentinels,
                             struct fault *why);

enum { TOKENIZER_JSON_MAX = 64 << 20 };

// tokenizer.json, converted to a serialized SentencePiece model, and its other settings.
struct tokenizer_json {
    struct json_t *doc; // the parsed file; owns end; tokenizer_load.c reads its added_tokens
    struct buf model;
    bool legacy, prefix_space, any_space; // as in struct tokenizer
    const char *end;                      // the token appended to a text
    int unk;                              // id of the unknown token
    struct bpe *bpe;                      // of a CLIP tokenizer, instead of the model
};
// Reads out->doc, parsed from path, into the other members. Owner: the caller calls
// tokenizer_json_deinit, even on error. Errors: FORMAT, UNSUPPORTED, NO_MEMORY.
enum err tokenizer_json_read(const char *path, struct tokenizer_json *out, struct fault *why);
void tokenizer_json_deinit(struct tokenizer_json *t);

// CLIP's vocabulary, from vocab.json and merges.txt in a folder. Errors: as tokenizer_json_read.
// Owner: the caller destroys *out.
enum err tokenizer_clip_read(const char *dir, struct bpe **out, struct fault *why);
// Likewise, from a tokenizer.json that is_clip; reads out->doc into the other members.
bool tokenizer_clip_is(const struct json_t *doc);
enum err tokenizer_clip_json(const char *path, struct tokenizer_json *out, struct fault *why);

#endif
