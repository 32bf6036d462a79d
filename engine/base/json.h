// Strict JSON parsing over jansson: duplicate keys, invalid UTF-8, and documents that are too large
// or too deeply nested are refused. Files (FORMAT) may contain the extensions that Python's json
// writes: Infinity and integers of any length, both read as JSON_NUMBER. A json_reader reads an
// object key by key and keeps the first error. Thread: a document belongs to one thread at a time.
#ifndef IMAGEND_JSON_H
#define IMAGEND_JSON_H

#include "err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct json_t; // jansson's value; only json.c accesses it
struct buf;

enum { JSON_MAX_DEPTH = 64 };

// NONE: null.
enum json_kind {
    JSON_ABSENT,
    JSON_NONE,
    JSON_BOOL,
    JSON_INT,
    JSON_NUMBER,
    JSON_TEXT,
    JSON_LIST,
    JSON_MAP
};

// `what` names the text in messages (a file's path, "request body").
// Owner: the caller destroys *out with json_destroy. Errors: code (FORMAT for files, INVALID for
// requests) for malformed text, NO_MEMORY.
enum err json_parse(const char *text, size_t len, const char *what, enum err code,
                    struct json_t **out, struct fault *why);
// Errors: NOT_FOUND, IO, FORMAT (also when the file is larger than max_bytes), NO_MEMORY.
enum err json_parse_file(const char *path, size_t max_bytes, struct json_t **out,
                         struct fault *why);
// The size of a text without its long strings of ASCII. What it has besides these may take forty
// times its size as a document.
size_t json_structure(const char *text, size_t len);
void json_destroy(struct json_t **doc);

// ---- values ---------------------------------------------------------------------------------

enum json_kind json_kind(const struct json_t *v);           // NULL: JSON_ABSENT
const char *json_text(const struct json_t *v, size_t *len); // NULL unless JSON_TEXT; len: or NULL
double json_number(const struct json_t *v);                 // 0 unless JSON_INT or JSON_NUMBER
int64_t json_int(const struct json_t *v);                   // 0 unless JSON_INT
bool json_bool(const struct json_t *v);                     // false unless JSON_BOOL
size_t json_count(const struct json_t *v);                  // of a list or map, else 0
const struct json_t *json_item(const struct json_t *list, size_t i);       // NULL past the end
const struct json_t *json_find(const struct json_t *map, const char *key); // NULL: absent
bool json_given(const struct json_t *map, const char *key);                // present and not null
// Iterates over a map in its order: start with *at = NULL; false at the end.
bool json_next(const struct json_t *map, void **at, const char **key, const struct json_t **value);

// Appends a value as compact JSON.
void json_write(const struct json_t *v, struct buf *b);

// ---- changing a document --------------------------------------------------------------------

struct json_t *json_map_create(void); // NULL: out of memory
// Adds or replaces a text. False: it is not UTF-8, or memory ran out.
bool json_put_text(struct json_t *map, const char *key, const char *text, size_t len);
void json_remove(struct json_t *map, const char *key); // what was found in it is gone

// ---- reading an object ----------------------------------------------------------------------

struct json_reader {
    const struct json_t *map;
    const char *what; // the file or the part of the request, for messages
    enum err code;    // error code of a wrong value: FORMAT or INVALID
    struct fault *why;
    enum err err; // the first error; once set, every read returns its default
};

// Sets err immediately if v is not an object.
struct json_reader json_reader(const struct json_t *v, const char *what, enum err code,
                               struct fault *why);
enum json_kind json_key(const struct json_reader *r, const char *key);
// Refuses keys that are not in names (NULL-terminated), except those that begin with '_'. Errors:
// UNSUPPORTED for a file.
void json_only_keys(struct json_reader *r, const char *const *names);
// Absent keys return def. A value of another type or outside min..max is an error that names the
// key.
int64_t json_read_int(struct json_reader *r, const char *key, int64_t def, int64_t min,
                      int64_t max);
double json_read_number(struct json_reader *r, const char *key, double def, double min, double max);
bool json_read_bool(struct json_reader *r, const char *key, bool def);
// Owner: the document; valid until json_destroy. Text with an embedded NUL is an error.
const char *json_read_text(struct json_reader *r, const char *key, const char *def);
// Index of the text in names (NULL-terminated). Errors: UNSUPPORTED for an unknown value in a file.
int json_read_enum(struct json_reader *r, const char *key, int def, const char *const *names);
// Reads a list of integers, or one integer for all entries; always writes count values.
void json_read_ints(struct json_reader *r, const char *key, int64_t def, int64_t min, int64_t max,
                    int count, int *out);
// Records an error about key (NULL: about the whole object) unless there already is one; returns
// r->err.
enum err json_fail(struct json_reader *r, enum err code, const char *key, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

// Formats a value for messages ("null", "[1,2]"), truncated to n bytes.
void json_show(const struct json_t *v, char *out, size_t n);

#endif
