// Prepares text for CLIP's byte-pair encoding: cleans it and splits it into words. Used by
// tokenizer.c. Thread: any.
#ifndef IMAGEND_CLIP_TEXT_H
#define IMAGEND_CLIP_TEXT_H

#include "buf.h"

#include <stdbool.h>
#include <stddef.h>

// Appends the text as CLIP's slow tokenizer cleans it (fixed: with ftfy installed; else as its fast
// tokenizer does), with single spaces between words and in lower case. Undone are HTML entities,
// ligatures, wide forms, curly quotes, control characters; not undone is text that was decoded with
// the wrong encoding. text must be UTF-8. Errors: NO_MEMORY. Source: ftfy.fix_text with its
// defaults; transformers CLIPTokenizer._tokenize and CLIPTokenizerFast's normalizer.
enum err clip_text_clean(const char *text, size_t n, bool fixed, struct buf *out);

// Calls word with each word of a cleaned text. Source: the pattern of CLIPTokenizer.
enum err clip_text_split(const char *text, size_t n,
                         enum err (*word)(void *ctx, const char *word, size_t n), void *ctx);

#endif
