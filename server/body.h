// From the bytes of a request's body to the UTF-8 text that its route reads. Any thread.
#ifndef IMAGEND_BODY_H
#define IMAGEND_BODY_H

#include "err.h"

#include <stdbool.h>
#include <stddef.h>

struct buf;

// What the headers say, before the body comes; NULL: absent. *gzip: it has to be unpacked.
// Errors: UNSUPPORTED (a content coding or a charset), naming it.
enum err body_check_headers(const char *encoding, const char *type, bool *gzip, struct fault *why);
// Unpacks body, in place, to max bytes at most; none at all stays none. Source: RFC 1952.
// Errors: INVALID (not gzip, or cut short), FORMAT (more than max, as in buf_read_file), NO_MEMORY.
enum err body_gunzip(struct buf *body, size_t max, struct fault *why);
// *begin: where the text begins, after a byte order mark. Errors: INVALID (not UTF-8), naming the
// encoding that it seems to have.
enum err body_text(const struct buf *body, size_t *begin, struct fault *why);

#endif
