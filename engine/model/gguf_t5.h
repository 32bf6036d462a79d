// T5 encoders in GGUF files: their configuration, and llama.cpp's names of their tensors. Callers:
// text_encoder.c, weights.c, the tokenizer. Thread: any.
#ifndef IMAGEND_GGUF_T5_H
#define IMAGEND_GGUF_T5_H

#include "gguf.h"
#include "hfconfig.h"

// Reads the architecture t5 or t5encoder from metadata, and from the tensors' shapes where there is
// none. Errors: UNSUPPORTED (another architecture), FORMAT, naming the key.
enum err gguf_t5_config(const struct gguf *g, struct t5_config *out, struct fault *why);
// Converts transformers' name of a tensor, or the beginning of one, into llama.cpp's; another name
// stays as it is. n: bytes of out.
void gguf_t5_name(const char *name, char *out, size_t n);

#endif
