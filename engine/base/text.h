// JSON strings, base64 and hexadecimal; numbers and lines of settings; suggestions for mistyped
// names.
#ifndef IMAGEND_TEXT_H
#define IMAGEND_TEXT_H

#include <stdbool.h>
#include <stddef.h>

struct buf;

// Appends s (UTF-8) as a JSON string with its quotes; NULL appends null.
void text_json(struct buf *b, const char *s);

// Appends n bytes as base64 with padding (RFC 4648, no line breaks).
void text_base64(struct buf *b, const void *data, size_t n);

// Appends the decoded base64 text. False if it is not base64; padding is optional, and line breaks
// are skipped.
bool text_unbase64(struct buf *b, const char *text);

// Appends n bytes as lowercase hexadecimal.
void text_hex(struct buf *b, const void *data, size_t n);

// Reads a text that is a decimal number and nothing else.
bool text_number(const char *s, double *out);

// The part of s without white space at both ends; cuts s off there.
char *text_trim(char *s);

// The edit distance of a and b, ignoring case: insertions, deletions, replacements and swaps of
// neighbors. Only the first 63 bytes count.
int text_distance(const char *a, const char *b);
// The suggestion for a mistyped name: candidate if it is close enough and closer than best,
// otherwise best, which may be NULL.
const char *text_nearer(const char *name, const char *candidate, const char *best);

#endif
