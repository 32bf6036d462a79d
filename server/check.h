// Field tables: what a request may contain. One table validates, fills in defaults and writes the
// OpenAPI schema, so that the three cannot differ.
#ifndef IMAGEND_CHECK_H
#define IMAGEND_CHECK_H

#include "err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf;
struct json_t;

enum { CHECK_LIST = 3 }; // values of an INTS or NUMBERS field: one per stage

enum check_type {
    CHECK_TEXT,    // const char *, min..max bytes; borrowed from the document
    CHECK_INT,     // int, min..max
    CHECK_NUMBER,  // float, min..max
    CHECK_BOOL,    // bool
    CHECK_ENUM,    // int: index into choices
    CHECK_SEED,    // struct check_seed: 0..2^63-1; -1, null or absent: none
    CHECK_INTS,    // int[CHECK_LIST]: a list, or one number for the first; the rest 0
    CHECK_NUMBERS, // float[CHECK_LIST]: likewise
    CHECK_TIME,    // int64_t unix ms, from RFC 3339 text or unix seconds
    CHECK_ANY,     // accepted and ignored
};

enum check_flags {
    CHECK_REQUIRED = 1,
    CHECK_NULL = 2,    // null means absent
    CHECK_IGNORED = 4, // has no meaning here; documented as such
};

struct check_seed {
    bool set;
    uint64_t value;
};

struct check_field {
    const char *name;
    enum check_type type;
    unsigned flags;
    size_t offset;
    double min, max;
    const char *const *choices; // NULL-terminated
    const char *live;           // choices known only at run time: "sizes", "samplers", ...
    const char *def;            // default, as in JSON without quotes; NULL: zero
    const char *help;
};

struct check_table {
    const char *name; // of the schema
    const struct check_field *fields;
    int count;
    bool strict; // unknown fields are refused
    bool lax;    // numbers and truth values may be spelled as pydantic takes them: "7", 64.0, "on"
};

#define CHECK_TABLE(name_, fields_, strict_)                                                       \
    {.name = (name_),                                                                              \
     .fields = (fields_),                                                                          \
     .count = (int)(sizeof(fields_) / sizeof((fields_)[0])),                                       \
     .strict = (strict_)}
#define CHECK_TABLE_LAX(name_, fields_)                                                            \
    {.name = (name_),                                                                              \
     .fields = (fields_),                                                                          \
     .count = (int)(sizeof(fields_) / sizeof((fields_)[0])),                                       \
     .lax = true}

// Fill *out from the object, defaults first. Errors: INVALID with the field in why->param.
enum err check_object(const struct check_table *t, const struct json_t *object, void *out,
                      struct fault *why);

// One value from a query string, by the same rules. Errors: INVALID.
enum err check_query(const struct check_table *t, const char *name, const char *value, void *out,
                     struct fault *why);
void check_defaults(const struct check_table *t, void *out);

// The choices of a live list, NULL-terminated, or NULL when not known.
typedef const char *const *check_live_fn(void *ctx, const char *list);

// Add the JSON schema of the table.
void check_schema(const struct check_table *t, check_live_fn *live, void *ctx, struct buf *out);

#endif
