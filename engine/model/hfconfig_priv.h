// What the readers of the config files share: the table of the keys that a file may hold.
#ifndef IMAGEND_HFCONFIG_PRIV_H
#define IMAGEND_HFCONFIG_PRIV_H

#include "hfconfig.h"
#include "json.h"

enum { HFCONFIG_MAX_BYTES = 4 << 20 };

struct hfconfig_key {
    const char *name;
    const char *only; // the one value we have, as compact JSON; NULL: any
};
#define HFCONFIG_READ(key) {key, NULL}     // read and checked by the reader
#define HFCONFIG_HARMLESS(key) {key, NULL} // changes nothing that is computed here

// Every key must be in the table (ends with a NULL name) and have its only value; keys that begin
// with '_' are the library's notes, and null in a key that is not in the table changes nothing.
// Errors: UNSUPPORTED, kept in r.
void hfconfig_check_keys(struct json_reader *r, const struct hfconfig_key *table);

// ERR_UNSUPPORTED about a key's value, kept in r.
void hfconfig_unsupported(struct json_reader *r, const char *key);

// Parses the file or text and hands the object to read.
typedef void hfconfig_fn(struct json_reader *r, void *out);
enum err hfconfig_from_file(const char *path, hfconfig_fn *read, void *out, struct fault *why);
enum err hfconfig_from_text(const char *text, size_t len, const char *what, hfconfig_fn *read,
                            void *out, struct fault *why);

#endif
