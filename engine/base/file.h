// Error messages for unusable files: why opening failed, and what the content looks like instead of
// the expected format. Called by all code that reads files, on any thread.
#ifndef IMAGEND_FILE_H
#define IMAGEND_FILE_H

#include "err.h"

#include <stdbool.h>
#include <stddef.h>

enum { FILE_GUESS = 512 }; // bytes from the beginning of a file that file_guess wants to see

// The error for an open or stat of path that failed with this errno. Distinguishes a dangling
// symbolic link from a missing file. Errors: NOT_FOUND, IO, always.
enum err file_open_error(const char *path, int error, struct fault *why);

// Guesses what a malformed file is, and what to do about it: the end of a sentence that begins with
// the file name and "is". False when nothing is recognised.
bool file_guess(const void *head, size_t n, char *out, size_t out_size);

// For a file that could not be parsed: replaces *why by the message of file_guess, if it has one.
// Returns e.
enum err file_explain(const char *path, const void *head, size_t n, enum err e, struct fault *why);

#endif
