// GGUF files, as llama.cpp writes them, mapped into memory: typed metadata and tensors, which may
// be quantized. Every length and offset is checked before use. Callers: gguf_t5.c, weights.c, the
// tokenizer and the fuzz target. Thread: open and close on one thread, reading on any.
// Source: docs/gguf.md of ggml.
#ifndef IMAGEND_GGUF_H
#define IMAGEND_GGUF_H

#include "safetensors.h"

struct gguf;

// Whether the path names a GGUF file: it ends with .gguf.
bool gguf_is(const char *path);
// Errors: NOT_FOUND, IO, FORMAT (damaged), UNSUPPORTED (version, byte order, tensor type, one part
// of several), NO_MEMORY; *why names file and tensor. Owner: the caller closes *out.
enum err gguf_open(const char *path, struct gguf **out, struct fault *why);
void gguf_close(struct gguf **g);

// The tensors; their dimensions are in the order of the checkpoint, outermost first.
const struct safetensors *gguf_tensors(const struct gguf *g);
// Moves the tensors out of g, whose metadata may not be read any more. Owner: the caller closes it.
struct safetensors *gguf_take_tensors(struct gguf *g);

// Metadata. An absent value gives NULL, def or 0; one of another type gives NULL, NaN or 0.
const char *gguf_text(const struct gguf *g, const char *key, size_t *len); // no NUL at its end
double gguf_number(const struct gguf *g, const char *key, double def);     // also booleans
bool gguf_has(const struct gguf *g, const char *key);
size_t gguf_count(const struct gguf *g, const char *key); // of an array
// Element i of an array of texts; NULL past its end. Reading elements in order is fast.
const char *gguf_text_at(struct gguf *g, const char *key, size_t i, size_t *len);
double gguf_number_at(const struct gguf *g, const char *key, size_t i, double def);
// The bytes of an array of 8-bit integers.
const void *gguf_bytes(const struct gguf *g, const char *key, size_t *len);

#endif
