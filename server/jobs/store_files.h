// Files of the durable store, written completely or not at all, and the folder of input images.
// Called by store_sqlite*.c. Thread: any; two may write the same file.
#ifndef IMAGEND_STORE_FILES_H
#define IMAGEND_STORE_FILES_H

#include "blob.h"
#include "err.h"

#include <stdbool.h>

enum { STORE_MAX_IMAGE = 256 << 20 };
#define STORE_INPUTS "inputs" // the folder of input images

// Writes a temporary file and renames it. Errors: IO, NO_MEMORY.
enum err store_file_write(const char *path, const struct blob *data, struct fault *why);
// Writes a file that nobody reads before this returns, which costs less. Errors: IO.
enum err store_file_fill(const char *path, const struct blob *data, struct fault *why);
// Owner: *out is a new reference. Errors: NOT_FOUND, IO, FORMAT (larger than STORE_MAX_IMAGE),
// NO_MEMORY.
enum err store_file_read(const char *path, struct blob **out, struct fault *why);

// Input images in the data folder dir; name: 64 hexadecimal digits.
enum err store_input_put(const char *dir, const char *name, const struct blob *file,
                         struct fault *why);
enum err store_input_get(const char *dir, const char *name, struct blob **out, struct fault *why);
void store_input_remove(const char *dir, const char *name);
size_t store_input_size(const char *dir, const char *name); // 0: not found
// Deletes unwanted files and their temporary files. Those of wanted files may be in use: a pool
// thread writes input images while the loop sweeps.
void store_input_sweep(const char *dir, bool (*wanted)(void *ctx, const char *name), void *ctx);

#endif
