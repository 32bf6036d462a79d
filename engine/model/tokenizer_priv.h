// Shared by tokenizer.c (text to ids) and tokenizer_load.c (files to a tokenizer).
#ifndef IMAGEND_TOKENIZER_PRIV_H
#define IMAGEND_TOKENIZER_PRIV_H

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
    struct sp_model *sp;
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

// The defect of a serialized SentencePiece model, as half a sentence; NULL if the library can load
// it safely.
const char *spiece_check(const void *bytes, size_t n);

enum { TOKENIZER_JSON_MAX = 64 << 20 };

// tokenizer.json, converted to a serialized SentencePiece model, and its other settings.
struct tokenizer_json {
    struct json_t *doc; // owns end; tokenizer_load.c reads its added_tokens
    struct buf model;
    bool legacy, prefix_space, any_space; // as in struct tokenizer
    const char *end;                      // the token appended to a text
    int unk;                              // id of the unknown token
};
// Owner: *out starts zeroed; the caller calls tokenizer_json_deinit, even on error. Errors:
// NOT_FOUND, IO, FORMAT, UNSUPPORTED, NO_MEMORY.
enum err tokenizer_json_read(const char *path, struct tokenizer_json *out, struct fault *why);
void tokenizer_json_deinit(struct tokenizer_json *t);

#endif
