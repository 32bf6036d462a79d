// Strict UTF-8 for text from outside: no overlong forms, no surrogates, nothing above U+10FFFF.
#ifndef IMAGEND_UTF8_H
#define IMAGEND_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf;

// Decodes the character at s into *c and returns its length (1..4); 0 if s does not start a
// character.
size_t utf8_decode(const char *s, size_t n, uint32_t *c);
// Appends the character; U+FFFD for one that UTF-8 does not have, and for 0.
void utf8_put(struct buf *b, uint32_t c);
// Whether all n bytes are UTF-8; *bad (may be NULL) is the offset of the first invalid byte.
bool utf8_valid(const char *s, size_t n, size_t *bad);
// Whether Python's str.isspace() is true for c.
bool utf8_is_space(uint32_t c);

#endif
