// A growable byte buffer. The first failed addition sets `failed` and later ones do nothing, so
// callers check once at the end. A non-empty buffer always has a NUL after its last byte. Thread:
// one at a time.
#ifndef IMAGEND_BUF_H
#define IMAGEND_BUF_H

#include "err.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

struct buf {
    char *data; // NULL while empty
    size_t len, cap;
    bool failed; // out of memory: the contents are incomplete
};

void buf_deinit(struct buf *b);
void buf_clear(struct buf *b); // keeps the memory
bool buf_reserve(struct buf *b, size_t more);
void buf_add(struct buf *b, const void *bytes, size_t n);
void buf_puts(struct buf *b, const char *s);
void buf_putc(struct buf *b, char c);
void buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void buf_vprintf(struct buf *b, const char *fmt, va_list ap) __attribute__((format(printf, 2, 0)));
// Reads a whole file of at most max bytes. Errors: NOT_FOUND, IO, FORMAT (larger), NO_MEMORY.
enum err buf_read_file(struct buf *b, const char *path, size_t max, struct fault *why);
// Returns the contents and empties the buffer; NULL if it has failed. Owner: the caller frees the
// text.
char *buf_take(struct buf *b);

#endif
