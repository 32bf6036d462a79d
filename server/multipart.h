// Parses a complete multipart/form-data body in memory. libmicrohttpd's post processor is not used,
// because it does not describe errors and limits neither parts nor headers. Called by routes that
// accept uploads; knows nothing about their fields. Any thread.
#ifndef IMAGEND_MULTIPART_H
#define IMAGEND_MULTIPART_H

#include "err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MULTIPART_MAX_PARTS = 64, MULTIPART_MAX_NAME = 200, MULTIPART_MAX_HEADER = 4096 };

struct multipart_part {
    const char *name;     // UTF-8, not empty
    const char *filename; // NULL: a field, not a file; may be empty
    const char *type;     // Content-Type, lowercase without parameters; "": none
    const uint8_t *data;  // points into the body
    size_t size;
};

struct multipart {
    int parts; // in the order of the body; names may repeat
    struct multipart_part part[MULTIPART_MAX_PARTS];
    char *text; // storage for name, filename and type
};

// Whether a Content-Type is multipart/form-data, ignoring case; type may be NULL.
bool multipart_is(const char *content_type);
// Owner: the body must outlive *out; the caller calls multipart_deinit, also on error. Errors:
// INVALID (no boundary, truncated, too many parts, or a bad header, with the part in the message),
// NO_MEMORY. Source: RFC 7578, RFC 2046 5.1; WHATWG for the escaping of names by browsers.
enum err multipart_parse(const char *content_type, const void *body, size_t size,
                         struct multipart *out, struct fault *why);
void multipart_deinit(struct multipart *m);

// The index-th part with this name, with or without PHP's "[]" of a list after it; NULL if there
// are no more.
const struct multipart_part *multipart_find(const struct multipart *m, const char *name, int index);

#endif
