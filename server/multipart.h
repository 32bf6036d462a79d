// The parts of a multipart/form-data body that is in memory as a whole. libmicrohttpd's post
// processor is not used: it says nothing of what is wrong, and bounds neither parts nor headers.
// Called by routes that take uploads; knows nothing of their fields. Any thread.
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
    const char *type;     // its Content-Type, in lower case without parameters; "": none
    const uint8_t *data;  // in the body
    size_t size;
};

struct multipart {
    int parts; // in the order of the body; names may occur more than once
    struct multipart_part part[MULTIPART_MAX_PARTS];
    char *text; // what name, filename and type point to
};

// Whether a Content-Type is multipart/form-data, in any case; type may be NULL.
bool multipart_is(const char *content_type);
// Owner: the body must outlive *out, which the caller gives to multipart_deinit, also on error.
// Errors: INVALID (no boundary, cut short, too many parts, a header that is wrong, with the part in
// the message), NO_MEMORY. Source: RFC 7578, RFC 2046 5.1; names as browsers escape them (WHATWG).
enum err multipart_parse(const char *content_type, const void *body, size_t size,
                         struct multipart *out, struct fault *why);
void multipart_deinit(struct multipart *m);

// The index-th part of this name; NULL: there are no more.
const struct multipart_part *multipart_find(const struct multipart *m, const char *name, int index);

#endif
