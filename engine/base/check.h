// Field tables describe what a request, a stored row or a command line may contain. One table
// validates a value, fills in defaults, writes values back and generates the OpenAPI schema, so
// that these cannot differ.
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
    CHECK_SEED,    // uint64_t: 0..2^63-1; -1: a random one of 32 bits
    CHECK_INTS,    // int[CHECK_LIST]: a list, or one number for the first; null: as if not listed
    CHECK_NUMBERS, // float[CHECK_LIST]: likewise
    CHECK_SIZE,    // struct check_size: an edge of min..max, "WxH" or "auto", which is 0x0
    CHECK_CHARS,   // char[max + 1], otherwise as TEXT
    CHECK_TIME,    // int64_t unix ms, from RFC 3339 text or unix seconds
    CHECK_ANY,     // accepted and ignored
};

enum check_flags {
    CHECK_REQUIRED = 1,
    CHECK_NULL =
        2, // null means absent, and "" too, of ENUM, SIZE and non-empty TEXT in open tables
    CHECK_IGNORED = 4, // has no meaning here; documented as such
    CHECK_HIDDEN = 8,  // cannot be set; always has its default
};

struct check_size {
    int width, height;
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
    double zero;       // replaces a value of 0 where min excludes 0; 0: none
    const char *key;   // key in the text chunks of a PNG; NULL: same as name
    const char *label; // its name in A1111's infotext; NULL: not there
};

struct check_table {
    const char *name; // of the schema
    const struct check_field *fields;
    int count;
    bool strict; // unknown fields are refused
    bool lax;    // numbers and booleans may be spelled as pydantic accepts them: "7", 64.0, "on"
    // Another table whose struct is embedded at offset more_at. Its rows come first; rows whose
    // name this table also has are skipped.
    const struct check_table *more;
    size_t more_at;
    const char *const *without; // names of rows to leave out, NULL-terminated; NULL: none
};

#define CHECK_ROWS(name_, fields_)                                                                 \
    .name = (name_), .fields = (fields_), .count = (int)(sizeof(fields_) / sizeof((fields_)[0]))
#define CHECK_TABLE(name_, fields_, strict_) {CHECK_ROWS(name_, fields_), .strict = (strict_)}
#define CHECK_TABLE_LAX(name_, fields_) {CHECK_ROWS(name_, fields_), .lax = true}

// Walks the rows of a table: *at = 0 first; NULL at the end. *offset: the field's place within the
// table's struct; may be NULL.
const struct check_field *check_next(const struct check_table *t, int *at, size_t *offset);
// NULL: there is no such row.
const struct check_field *check_find(const struct check_table *t, const char *name, size_t *offset);

// Fill *out from the object, defaults first. Errors: INVALID with the field in why->param.
enum err check_object(const struct check_table *t, const struct json_t *object, void *out,
                      struct fault *why);

// One value from a query string or a command line, by the same rules; the values of a list are
// separated by ','. Errors: INVALID.
enum err check_query(const struct check_table *t, const char *name, const char *value, void *out,
                     struct fault *why);
void check_defaults(const struct check_table *t, void *out);

// Writes the struct as a JSON object that check_object can read back. Fields without a value are
// omitted.
void check_write(const struct check_table *t, const void *from, struct buf *out);
// One field's value as JSON, null when it has none; at: the field itself; listed: how many values
// of a list.
void check_write_value(const struct check_field *f, const void *at, int listed, struct buf *out);
// The same as plain text, for metadata: "27,10"; nothing is added when there is no value.
void check_write_text(const struct check_field *f, const void *at, int listed, struct buf *out);
bool check_has_value(const struct check_field *f, const void *at, int listed);

// The choices of a live list, NULL-terminated, or NULL when not known.
typedef const char *const *check_live_fn(void *ctx, const char *list);

// Add the JSON schema of the table.
void check_schema(const struct check_table *t, check_live_fn *live, void *ctx, struct buf *out);

#endif
