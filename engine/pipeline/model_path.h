// Model names, and error messages for folders that are not models. Called by cascade.c. Thread:
// any.
#ifndef IMAGEND_MODEL_PATH_H
#define IMAGEND_MODEL_PATH_H

#include "err.h"

#include <stddef.h>

// The name of the model in a folder: the repository's name for a snapshot of a Hugging Face cache
// (".../models--DeepFloyd--IF-I-XL-v1.0/snapshots/HASH": "IF-I-XL-v1.0"), otherwise the folder's
// name.
void model_path_name(const char *path, char *out, size_t n);

// The error for a path with neither model_index.json nor cascade.json: states what the path is and
// what to specify instead. Errors: always NOT_FOUND or IO.
enum err model_path_explain(const char *path, struct fault *why);

#endif
