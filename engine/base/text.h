// How bytes are written inside JSON, HTTP headers and URLs; base64 read back; mistyped names.
#ifndef IMAGEND_TEXT_H
#define IMAGEND_TEXT_H

#include <stdbool.h>
#include <stddef.h>

struct buf;

// Add s as a JSON string, with its quotes; NULL adds null. s is UTF-8.
void text_json(struct buf *b, const char *s);

// Add n bytes as base64 with padding (RFC 4648, no line breaks).
void text_base64(struct buf *b, const void *data, size_t n);

// Add what base64 text stands for. False when it is not base64; padding may be missing.
bool text_unbase64(struct buf *b, const char *text);

// Add n bytes as lower-case hexadecimal.
void text_hex(struct buf *b, const void *data, size_t n);

// How many letters must be inserted, deleted, replaced or swapped with their neighbour to turn a
// into b, without regard to case. Only the first 63 bytes count.
int text_distance(const char *a, const char *b);
// What to suggest for a mistyped name: candidate when it is near enough and nearer than best,
// otherwise best, which may be NULL.
const char *text_nearer(const char *name, const char *candidate, const char *best);

#endif
