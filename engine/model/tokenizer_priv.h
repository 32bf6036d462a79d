// What tokenizer.c (text to ids) and tokenizer_load.c (files to a tokenizer) share.
#ifndef IMAGEND_TOKENIZER_PRIV_H
#define IMAGEND_TOKENIZER_PRIV_H

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
    int unk_pieces;    // pieces of the unknown token's text, only without legacy
};

// The added token with this text, or NULL.
const struct tokenizer_added *tokenizer_find_added(const struct tokenizer *t, const char *text,
                                                   size_t len);

// What is wrong with a serialized SentencePiece model, as half a sentence; NULL when the library
// may load it.
const char *spiece_check(const void *bytes, size_t n);

#endif
