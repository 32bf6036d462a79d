// Decodes a request body into UTF-8 text. Called by the router. Any thread.
#ifndef IMAGEND_BODY_H
#define IMAGEND_BODY_H

#include "err.h"

#include <stdbool.h>
#include <stddef.h>

struct buf;

// Checks the headers before the body arrives; NULL: absent. *gzip: the body must be decompressed.
// Errors: UNSUPPORTED (content coding or charset), naming it.
enum err body_check_headers(const char *encoding, const char *type, bool *gzip, struct fault *why);
// Decompresses body in place to at most max bytes; an empty body stays empty. Source: RFC 1952.
// Errors: INVALID (not gzip, or truncated), FORMAT (more than max, as in buf_read_file), NO_MEMORY.
enum err body_gunzip(struct buf *body, size_t max, struct fault *why);
// Sets *begin to the offset of the text after a byte order mark. Errors: INVALID (not UTF-8),
// naming the encoding that the body seems to use.
enum err body_text(const struct buf *body, size_t *begin, struct fault *why);

#endif
