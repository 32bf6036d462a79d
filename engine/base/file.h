// Error messages for unusable files: why opening failed, and what the content looks like instead of
// the expected format. Called by all code that reads files, on any thread.
#ifndef IMAGEND_FILE_H
#define IMAGEND_FILE_H

#include "err.h"

#include <stdbool.h>
#include <stddef.h>

enum { FILE_GUESS = 512 }; // bytes at the start of a file that file_guess examines

// The error for a failed open or stat of path with this errno. Distinguishes a dangling symbolic
// link from a missing file. Errors: always NOT_FOUND or IO.
enum err file_open_error(const char *path, int error, struct fault *why);

// Guesses what a malformed file is and how to fix it. The text completes a sentence that begins
// with the file name and "is". False if nothing is recognized.
bool file_guess(const void *head, size_t n, char *out, size_t out_size);

// For a file that could not be parsed: replaces *why by the message of file_guess, if there is one.
// Returns e.
enum err file_explain(const char *path, const void *head, size_t n, enum err e, struct fault *why);

#endif
