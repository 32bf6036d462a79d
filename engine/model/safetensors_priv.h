// What safetensors.c (one file) and safetensors_set.c (which files) share.
#ifndef IMAGEND_SAFETENSORS_PRIV_H
#define IMAGEND_SAFETENSORS_PRIV_H

#include "safetensors.h"

struct json_t;

struct safetensors_file {
    char *path;
    unsigned char *map;
    size_t size;
    struct json_t *header; // owns the tensors' names
};

struct safetensors {
    struct safetensors_file *file;
    int files;
    struct safetensor *tensor;
    size_t count, cap;
};

// Map one file and append its tensors. Owner: s, also of what was done before an error.
enum err safetensors_add_file(struct safetensors *s, const char *path, struct fault *why);
// Sort by name. Errors: FORMAT when a name occurs twice.
enum err safetensors_sort(struct safetensors *s, struct fault *why);
// The error of a folder that has no such files, saying what it has instead. Errors: NOT_FOUND, IO.
enum err safetensors_missing(const struct safetensors_params *p, struct fault *why);

#endif
