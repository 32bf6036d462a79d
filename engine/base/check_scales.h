// SCALES fields of field tables: names with scales. Private to the check files.
#ifndef IMAGEND_CHECK_SCALES_H
#define IMAGEND_CHECK_SCALES_H

#include "check.h"

// Errors: INVALID with the field in why->param.
enum err check_scales_read(const struct check_field *f, const struct json_t *v,
                           struct check_scales *out, struct fault *why);
enum err check_scales_read_text(const struct check_field *f, const char *s,
                                struct check_scales *out, struct fault *why);
// Writes a list of objects, or text.
void check_scales_write(const struct check_scales *s, struct buf *out);
void check_scales_write_text(const struct check_scales *s, struct buf *out);
void check_scales_schema(const struct check_field *f, bool null, struct buf *out);

#endif
