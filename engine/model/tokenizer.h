// T5Tokenizer: text to SentencePiece ids with T5's special tokens, as transformers' slow tokenizer
// does it. Callers: the pipeline and the golden program. Thread: open and close on one thread,
// everything else on any.
#ifndef IMAGEND_TOKENIZER_H
#define IMAGEND_TOKENIZER_H

#include "err.h"

#include <stddef.h>
#include <stdint.h>

struct tokenizer;
struct buf;

enum { TOKENIZER_IF_LENGTH = 77 }; // the IF pipelines' length, whatever the tokenizer allows

// Reads spiece.model, or tokenizer.json without it, and tokenizer_config.json,
// special_tokens_map.json and added_tokens.json (the last two may be absent).
// Errors: NOT_FOUND, IO, FORMAT, UNSUPPORTED, NO_MEMORY.
enum err tokenizer_open(const char *dir, struct tokenizer **out, struct fault *why);
// The same with transformers' `legacy` switch forced (0 or 1) instead of read; -1: as the file
// says.
enum err tokenizer_open_legacy(const char *dir, int legacy, struct tokenizer **out,
                               struct fault *why);
void tokenizer_close(struct tokenizer **t);

int tokenizer_vocab(const struct tokenizer *t);      // pieces and added tokens
int tokenizer_max_length(const struct tokenizer *t); // min(77, model_max_length)

// Exactly `length` ids and mask values (1 token, 0 padding): truncated, `</s>` appended, padded.
// *count (may be NULL): ids before the padding. Errors: INVALID (not UTF-8), NO_MEMORY.
enum err tokenizer_encode(const struct tokenizer *t, const char *text, size_t len, int length,
                          uint32_t *ids, uint32_t *mask, int *count);
// How many ids the whole text has, its end token included. Errors: as tokenizer_encode.
enum err tokenizer_count(const struct tokenizer *t, const char *text, size_t len, int *count);
// SentencePiece alone: no special tokens, nothing appended. *ids is freed by the caller.
enum err tokenizer_pieces(const struct tokenizer *t, const char *text, size_t len, int **ids,
                          int *count);
// SentencePiece's normalized text, with its leading U+2581.
enum err tokenizer_normalize(const struct tokenizer *t, const char *text, size_t len,
                             struct buf *out);

// What the IF pipelines do to a prompt first: Python's str.lower().strip(). Errors: INVALID (not
// UTF-8), NO_MEMORY. Source: diffusers IFPipeline._text_preprocessing, clean_caption=False.
enum err tokenizer_prompt(const char *prompt, size_t len, struct buf *out);

#endif
