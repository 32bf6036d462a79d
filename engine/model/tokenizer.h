// Converts text to ids like transformers' tokenizers: T5Tokenizer (SentencePiece) and CLIPTokenizer
// (byte-pair encoding), each with its special tokens. Callers: the pipeline and the golden program.
// Thread: open and close on one thread, everything else on any.
#ifndef IMAGEND_TOKENIZER_H
#define IMAGEND_TOKENIZER_H

#include "err.h"

#include <stddef.h>
#include <stdint.h>

struct tokenizer;
struct buf;

enum { TOKENIZER_IF_LENGTH = 77 }; // fixed length in the pipelines of IF; CLIP's is the same

// Reads spiece.model (T5), vocab.json and merges.txt (CLIP) or, without these, tokenizer.json
// (either); and tokenizer_config.json, special_tokens_map.json and added_tokens.json (the last two
// are optional). A dir that ends with .gguf is a GGUF file with T5's tokenizer in its metadata.
// Errors: NOT_FOUND, IO, FORMAT, UNSUPPORTED, NO_MEMORY.
enum err tokenizer_open(const char *dir, struct tokenizer **out, struct fault *why);
// Likewise, with transformers' `legacy` flag forced to 0 or 1; -1: as in the file.
enum err tokenizer_open_legacy(const char *dir, int legacy, struct tokenizer **out,
                               struct fault *why);
void tokenizer_close(struct tokenizer **t);

enum tokenizer_kind { TOKENIZER_T5, TOKENIZER_CLIP };
enum tokenizer_kind tokenizer_kind(const struct tokenizer *t);
int tokenizer_vocab(const struct tokenizer *t);      // pieces and added tokens
int tokenizer_max_length(const struct tokenizer *t); // min(77, model_max_length)

// Writes exactly `length` ids and mask values (1 token, 0 padding): truncated, T5's end token
// appended or CLIP's two put around the text, padded. *count (may be NULL): ids before the padding.
// Errors: INVALID (not UTF-8), NO_MEMORY.
enum err tokenizer_encode(const struct tokenizer *t, const char *text, size_t len, int length,
                          uint32_t *ids, uint32_t *mask, int *count);
// Counts the ids of the whole text, including its end token. Errors: as tokenizer_encode.
enum err tokenizer_count(const struct tokenizer *t, const char *text, size_t len, int *count);
// SentencePiece only: no special tokens, nothing appended. Owner: the caller frees *ids. Errors:
// INVALID, also for a tokenizer without SentencePiece.
enum err tokenizer_pieces(const struct tokenizer *t, const char *text, size_t len, int **ids,
                          int *count);
// SentencePiece's normalized text, including the leading U+2581.
enum err tokenizer_normalize(const struct tokenizer *t, const char *text, size_t len,
                             struct buf *out);

// Preprocesses a prompt as the pipelines with this tokenizer do: IF's by tokenizer_prompt, others
// not at all. Errors: INVALID (not UTF-8), NO_MEMORY.
enum err tokenizer_prepare(const struct tokenizer *t, const char *prompt, size_t len,
                           struct buf *out);
// Preprocesses a prompt as the IF pipelines do: Python's str.lower().strip(). Errors: INVALID (not
// UTF-8), NO_MEMORY. Source: diffusers IFPipeline._text_preprocessing, clean_caption=False.
enum err tokenizer_prompt(const char *prompt, size_t len, struct buf *out);

#endif
