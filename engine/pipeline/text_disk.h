// Text states on disk, by model and prompt: a prompt that was encoded before needs no text encoder.
// The folder and its files belong to the owner alone. Called by text.c. Thread: the engine's
// worker; several processes may share a folder.
#ifndef IMAGEND_TEXT_DISK_H
#define IMAGEND_TEXT_DISK_H

#include "err.h"
#include "hash.h"

#include <stddef.h>
#include <stdint.h>

struct text_disk;

struct text_disk_params {
    const char *dir;   // is made, unless its parent is missing
    uint64_t limit;    // bytes of all files
    struct hash model; // what the states depend on besides the prompt
    size_t floats;     // of the states
};
// Errors: IO (the folder cannot be made or belongs to another user), NO_MEMORY, with *why filled.
// Owner: the caller, text_disk_close.
enum err text_disk_open(const struct text_disk_params *p, struct text_disk **out,
                        struct fault *why);
void text_disk_close(struct text_disk **d);

// counts: tokens used, and tokens of the prompt. False: not there; a damaged file is removed.
bool text_disk_get(struct text_disk *d, const char *prompt, float *states, int counts[2]);
// Writes a file at once or not at all, then removes those that were not used for longest until all
// fit the limit. Failures are silent: the states are found again by encoding.
void text_disk_put(struct text_disk *d, const char *prompt, const float *states,
                   const int counts[2]);

// The hash of a file's name, size and time of change; path NULL or missing: of nothing.
struct hash text_disk_file(struct hash before, const char *path);

#endif
