// Byte-level byte-pair encoding with a mark at the end of words, as in CLIP: a word's bytes are
// merged pair by pair, in the order in which the merges were learned. Used by tokenizer.c; filled
// by tokenizer_clip.c. Thread: filled on one thread, then read-only.
#ifndef IMAGEND_BPE_H
#define IMAGEND_BPE_H

#include "err.h"

#include <stddef.h>

struct bpe;

// Errors: NO_MEMORY. Owner: the caller destroys it.
enum err bpe_create(struct bpe **out);
void bpe_destroy(struct bpe **b);

// Adds a token of the vocabulary. Errors: FORMAT (a second id for a token), NO_MEMORY.
enum err bpe_add_token(struct bpe *b, const char *text, size_t n, int id);
// Adds the next merge. Errors: NO_MEMORY.
enum err bpe_add_merge(struct bpe *b, const char *left, size_t n, const char *right, size_t m);
// Completes the tables. unknown: the id of a merged text that is not in the vocabulary. Errors:
// NO_MEMORY.
enum err bpe_finish(struct bpe *b, int unknown);

int bpe_tokens(const struct bpe *b);                           // the largest id + 1
int bpe_find(const struct bpe *b, const char *text, size_t n); // id of a token; -1: none

// Calls add with the ids of a word, in order. Errors: NO_MEMORY.
enum err bpe_encode(const struct bpe *b, const char *word, size_t n, void (*add)(void *ctx, int id),
                    void *ctx);

#endif
