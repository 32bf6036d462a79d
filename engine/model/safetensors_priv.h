// Shared by safetensors.c (one file), safetensors_set.c (selection of files) and gguf.c.
#ifndef IMAGEND_SAFETENSORS_PRIV_H
#define IMAGEND_SAFETENSORS_PRIV_H

#include "safetensors.h"

struct json_t;

struct safetensors_file {
    char *path;
    unsigned char *map;
    size_t size;
    struct json_t *header; // owns the tensors' names,
    char *names;           // or, in a GGUF file, this does
};

struct safetensors {
    struct safetensors_file *file;
    int files;
    struct safetensor *tensor;
    size_t count, cap;
};

// Maps a regular file that is not empty. Errors: NOT_FOUND, IO, FORMAT. Owner: the caller unmaps
// it.
enum err safetensors_map(const char *path, unsigned char **map, size_t *size, struct fault *why);
// Maps one file and appends its tensors. Owner: s, also for the tensors added before an error.
enum err safetensors_add_file(struct safetensors *s, const char *path, struct fault *why);
// Sorts by name. Errors: FORMAT if a name occurs twice.
enum err safetensors_sort(struct safetensors *s, struct fault *why);
// The error for a folder without such files; states what it contains instead. Errors: NOT_FOUND,
// IO.
enum err safetensors_missing(const struct safetensors_params *p, struct fault *why);

#endif
