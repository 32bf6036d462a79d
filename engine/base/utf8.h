// UTF-8 as text from outside must be: shortest forms only, no surrogates, nothing past U+10FFFF.
#ifndef IMAGEND_UTF8_H
#define IMAGEND_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Bytes of the character at s (1..4), and the character in *c; 0 when s does not start one.
size_t utf8_decode(const char *s, size_t n, uint32_t *c);
// Whether all of it is UTF-8; *bad (may be NULL) is the offset of the first byte that is not.
bool utf8_valid(const char *s, size_t n, size_t *bad);
// What Python's str.isspace() calls a space.
bool utf8_is_space(uint32_t c);

#endif
