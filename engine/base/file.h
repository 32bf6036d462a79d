// Words for files that cannot be used: what went wrong when one was opened, and what its bytes
// turn out to be instead of what they should be. Called by whoever reads files, any thread.
#ifndef IMAGEND_FILE_H
#define IMAGEND_FILE_H

#include "err.h"

#include <stdbool.h>
#include <stddef.h>

enum { FILE_GUESS = 512 }; // bytes from the beginning of a file that file_guess wants to see

// The error of an open or stat of path that failed with this errno; tells a symbolic link that
// leads nowhere from a file that is not there. Errors: NOT_FOUND, IO, always.
enum err file_open_error(const char *path, int error, struct fault *why);

// What a file that cannot be read as what it should be seems to be, and what to do about it: the
// end of a sentence that begins with the file's name and "is". False when nothing is recognised.
bool file_guess(const void *head, size_t n, char *out, size_t out_size);

// A file that could not be read: *why becomes what file_guess says, or stays as it is. Returns e.
enum err file_explain(const char *path, const void *head, size_t n, enum err e, struct fault *why);

#endif
