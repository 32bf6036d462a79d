// How bytes are written inside JSON, HTTP headers and URLs; and base64 read back.
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

#endif
