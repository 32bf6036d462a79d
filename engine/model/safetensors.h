// Safetensors files, single or sharded, mapped into memory. Every statement of the header is
// checked before use: length, shapes, dtypes, offsets, gaps and overlaps. Callers: weights.c, the
// golden program, the fuzz targets. Knows nothing about networks. Thread: open and close on one
// thread, reading on any.
#ifndef IMAGEND_SAFETENSORS_H
#define IMAGEND_SAFETENSORS_H

#include "err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf;

enum { SAFETENSORS_MAX_DIMS = 8 };

enum safetensors_dtype {
    ST_F64,
    ST_F32,
    ST_F16,
    ST_BF16,
    ST_I64,
    ST_I32,
    ST_I16,
    ST_I8,
    ST_U64,
    ST_U32,
    ST_U16,
    ST_U8,
    ST_BOOL,
    ST_FILE_DTYPES,           // the types above occur in safetensors files,
    ST_Q4_0 = ST_FILE_DTYPES, // those below only in GGUF files: blocks with scales
    ST_Q4_1,
    ST_Q5_0,
    ST_Q5_1,
    ST_Q8_0,
    ST_Q2_K,
    ST_Q3_K,
    ST_Q4_K,
    ST_Q5_K,
    ST_Q6_K,
    ST_DTYPES
};

struct safetensor {
    const char *name;
    enum safetensors_dtype dtype;
    int dims; // 0: a scalar
    uint64_t shape[SAFETENSORS_MAX_DIMS];
    uint64_t elements;
    const void *data; // little-endian, may be unaligned
    size_t bytes;
    int file; // index of the shard
};

struct safetensors;

struct safetensors_params {
    const char *dir;
    const char *base;    // "model", "diffusion_pytorch_model"
    const char *variant; // "fp16"; NULL: the plain files
};

// Opens one file. Errors: NOT_FOUND, IO, FORMAT, NO_MEMORY; *why names file and tensor.
// Owner: the caller closes *out with safetensors_close.
enum err safetensors_open_file(const char *path, struct safetensors **out, struct fault *why);
// Opens base[.variant].safetensors, or the shards listed in base.safetensors.index[.variant].json
// (or base[.variant].safetensors.index.json). Each tensor must be in the shard that the index
// names.
enum err safetensors_open(const struct safetensors_params *p, struct safetensors **out,
                          struct fault *why);
void safetensors_close(struct safetensors **s);
// Whether the folder has files of exactly this variant (NULL: plain files), readable or not.
bool safetensors_has(const struct safetensors_params *p);
// Adds the variants in the folder to a list of words, each once: "fp16, plain".
void safetensors_variants(const struct safetensors_params *p, struct buf *words);

size_t safetensors_count(const struct safetensors *s);
const struct safetensor *safetensors_at(const struct safetensors *s, size_t i); // sorted by name
const struct safetensor *safetensors_find(const struct safetensors *s, const char *name);
int safetensors_files(const struct safetensors *s);
const char *safetensors_path(const struct safetensors *s, int file);

size_t safetensors_dtype_bytes(enum safetensors_dtype dtype);     // of a block
uint64_t safetensors_dtype_block(enum safetensors_dtype dtype);   // elements of a block, or 1
const char *safetensors_dtype_name(enum safetensors_dtype dtype); // "F32"
// Whether safetensors_f32 can convert it: F64, F32, F16, BF16 and the formats of GGUF files.
bool safetensors_is_float(enum safetensors_dtype dtype);
// Converts elements first .. first+n to f32; both are multiples of the type's block. Exact for F32,
// F16 and BF16, including NaN and infinity; bit for bit as ggml for its formats.
void safetensors_f32(const struct safetensor *t, uint64_t first, uint64_t n, float *out);
// A text of the metadata in the header of the first file; NULL: there is none. Owner: s.
const char *safetensors_metadata(const struct safetensors *s, const char *key);
// Tells the system that the tensor's pages will not be needed soon.
void safetensors_release(const struct safetensors *s, const struct safetensor *t);

#endif
