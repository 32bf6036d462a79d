// A field table describes the fields of a request, a stored row or a command line. The same table
// validates values, fills in defaults, writes values back and generates the OpenAPI schema, so
// these cannot diverge.
#ifndef IMAGEND_CHECK_H
#define IMAGEND_CHECK_H

#include "err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf;
struct json_t;

enum {
    CHECK_LIST = 3,   // values of an INTS or NUMBERS field: one per stage
    CHECK_SCALED = 8, // names of a SCALES field
    CHECK_NAME = 40,  // bytes of such a name with its NUL
};

enum check_type {
    CHECK_TEXT,   // const char *, min..max bytes; borrowed from the document
    CHECK_INT,    // int, min..max
    CHECK_NUMBER, // float, min..max
    CHECK_BOOL,   // bool
    CHECK_ENUM,   // int: index into choices
    CHECK_SEED,   // uint64_t: 0..2^63-1; -1 selects a random 32-bit seed
    CHECK_INTS,   // int[CHECK_LIST]: a list, or one number for the first entry; null: entry not set
    CHECK_NUMBERS, // float[CHECK_LIST]: likewise
    // struct check_scales: [{"name": "fox", "scale": 0.5}, "dog"], or text such as "fox:0.5, dog";
    // scales of min..max
    CHECK_SCALES,
    CHECK_SIZE,  // struct check_size: an edge of min..max, "WxH", or "auto" (0x0)
    CHECK_CHARS, // char[max + 1]; otherwise like TEXT
    CHECK_TIME,  // int64_t unix ms, from RFC 3339 text or unix seconds
    CHECK_FILE,  // text or an object, or a list of them where max > 1; stays in the document. The
                 // number in a list is checked if min is 1, and otherwise by the route
    CHECK_ANY,   // accepted and ignored
};

enum check_flags {
    CHECK_REQUIRED = 1,
    CHECK_NULL = 2, // null means absent; unless strict, so does "" for ENUM, SIZE, non-empty TEXT
    CHECK_IGNORED = 4, // accepted without effect, and documented as such
    CHECK_HIDDEN = 8,  // cannot be set; always has its default
};

struct check_size {
    int width, height;
};

struct check_scaled {
    char name[CHECK_NAME]; // letters, digits, '.', '-' and '_'
    bool scaled;           // it has a scale
    double scale;
};

// Different names, each with or without a scale.
struct check_scales {
    bool given; // false: no value; an empty list is one
    int count;
    struct check_scaled item[CHECK_SCALED];
};

struct check_field {
    const char *name;
    enum check_type type;
    unsigned flags;
    size_t offset;
    double min, max;
    const char *const *choices; // NULL-terminated
    const char *live;           // choices known only at run time: "sizes", "samplers", ...
    const char *def;            // default, as JSON without quotes; NULL: zero
    const char *help;
    double zero;       // replacement for 0 where min excludes 0; 0: none
    const char *key;   // key in the text chunks of a PNG; NULL: same as name
    const char *label; // name in A1111's infotext; NULL: not included
};

struct check_table {
    const char *name; // name of the schema
    const struct check_field *fields;
    int count;
    bool strict; // unknown fields are refused
    // Numbers, lists, times and booleans may be text, and what pydantic accepts: "7", 64.0, "on".
    bool lax;
    // Another table, whose struct is embedded at offset more_at. Its rows come first; rows whose
    // name also occurs in this table are skipped.
    const struct check_table *more;
    size_t more_at;
    const char *const *without; // names of rows to leave out, NULL-terminated; NULL: none
};

#define CHECK_ROWS(name_, fields_)                                                                 \
    .name = (name_), .fields = (fields_), .count = (int)(sizeof(fields_) / sizeof((fields_)[0]))
#define CHECK_TABLE(name_, fields_, strict_) {CHECK_ROWS(name_, fields_), .strict = (strict_)}
#define CHECK_TABLE_LAX(name_, fields_) {CHECK_ROWS(name_, fields_), .lax = true}

// Iterates over the rows of a table: set *at = 0 first; returns NULL at the end. *offset (may be
// NULL): the field's offset in the table's struct.
const struct check_field *check_next(const struct check_table *t, int *at, size_t *offset);
// The row with this name; NULL if there is none.
const struct check_field *check_find(const struct check_table *t, const char *name, size_t *offset);

// Fills *out from the object, defaults first. Errors: INVALID with the field in why->param.
enum err check_object(const struct check_table *t, const struct json_t *object, void *out,
                      struct fault *why);

// Reads one value from a query string or a command line by the same rules; the values of a list are
// separated by ','. Errors: INVALID.
enum err check_query(const struct check_table *t, const char *name, const char *value, void *out,
                     struct fault *why);
void check_defaults(const struct check_table *t, void *out);

// Writes the struct as a JSON object that check_object can read back. Fields without a value are
// omitted.
void check_write(const struct check_table *t, const void *from, struct buf *out);
// Writes the value of one field as JSON, or null if it has none. at: the field itself; listed: the
// number of values in a list.
void check_write_value(const struct check_field *f, const void *at, int listed, struct buf *out);
// Likewise as plain text for metadata, such as "27,10"; writes nothing if there is no value.
void check_write_text(const struct check_field *f, const void *at, int listed, struct buf *out);
bool check_has_value(const struct check_field *f, const void *at, int listed);
// The decimal number with the fewest digits that is read back as the same double.
void check_show_number(double v, char out[static 32]);
// Adds a name to the list. Errors: INVALID with the field in why->param: a malformed or repeated
// name, a scale out of range, or more than CHECK_SCALED names.
enum err check_add_scaled(const struct check_field *f, struct check_scales *list,
                          const struct check_scaled *item, struct fault *why);

// Returns the choices of a live list, NULL-terminated, or NULL if they are unknown.
typedef const char *const *check_live_fn(void *ctx, const char *list);

// Appends the JSON schema of the table.
void check_schema(const struct check_table *t, check_live_fn *live, void *ctx, struct buf *out);
// Appends the JSON schema of one field's values, without the description.
void check_schema_value(const struct check_field *f, struct buf *out);

#endif
