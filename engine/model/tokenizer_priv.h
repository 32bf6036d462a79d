// What tokenizer.c (text to ids) and tokenizer_load.c (files to a tokenizer) share.
#ifndef IMAGEND_TOKENIZER_PRIV_H
#define IMAGEND_TOKENIZER_PRIV_H

#include "buf.h"
#include "sp_shim.h"
#include "tokenizer.h"

#include <stdbool.h>

// A token that is found in the text as it stands, before SentencePiece sees what is around it.
struct tokenizer_added {
    char *text;
    size_t len;
    int id;
    bool lstrip, rstrip; // it eats the white space before it, after it
    bool special;
};

struct tokenizer {
    struct sp_model *sp;
    struct tokenizer_added *added;
    int added_count;
    int vocab, max_length;
    int eos, pad;
    char *unk;         // the text of the unknown token
    bool legacy;       // transformers' switch of the same name
    bool prefix_space; // add_prefix_space, only without legacy
    bool any_space;    // every white space separates, not spaces alone
    int unk_pieces;    // pieces of the unknown token's text, only without legacy
};

// The added token with this text, or NULL.
const struct tokenizer_added *tokenizer_find_added(const struct tokenizer *t, const char *text,
                                                   size_t len);

// What is wrong with a serialized SentencePiece model, as half a sentence; NULL when the library
// may load it.
const char *spiece_check(const void *bytes, size_t n);

enum { TOKENIZER_JSON_MAX = 64 << 20 };

// tokenizer.json, as a serialized SentencePiece model and what it says besides.
struct tokenizer_json {
    struct json_t *doc; // owns end; its added_tokens are the loader's to read
    struct buf model;
    bool legacy, prefix_space, any_space; // as in struct tokenizer
    const char *end;                      // the token that is put after a text
    int unk;                              // id of the unknown token
};
// Owner: *out begins as zeros and is given to tokenizer_json_deinit whatever comes back.
// Errors: NOT_FOUND, IO, FORMAT, UNSUPPORTED, NO_MEMORY.
enum err tokenizer_json_read(const char *path, struct tokenizer_json *out, struct fault *why);
void tokenizer_json_deinit(struct tokenizer_json *t);

#endif
