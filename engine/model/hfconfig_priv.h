// Shared by the config parsers: the tables of known keys.
#ifndef IMAGEND_HFCONFIG_PRIV_H
#define IMAGEND_HFCONFIG_PRIV_H

#include "hfconfig.h"
#include "json.h"

enum { HFCONFIG_MAX_BYTES = 4 << 20 };

struct hfconfig_key {
    const char *name;
    const char *only; // the only supported value, as compact JSON; NULL: any
};
#define HFCONFIG_READ(key) {key, NULL}     // parsed and checked by the parser
#define HFCONFIG_HARMLESS(key) {key, NULL} // does not affect the arithmetic

// Checks that every key is in the table (which ends with a NULL name) and has its only value, if
// one is set. Keys that begin with '_' and unknown keys that are null are ignored. Errors:
// UNSUPPORTED, kept in r.
void hfconfig_check_keys(struct json_reader *r, const struct hfconfig_key *table);

// Records ERR_UNSUPPORTED for the key's value in r.
void hfconfig_unsupported(struct json_reader *r, const char *key);

// Parses the file or text and passes the object to read.
typedef void hfconfig_fn(struct json_reader *r, void *out);
enum err hfconfig_from_file(const char *path, hfconfig_fn *read, void *out, struct fault *why);
enum err hfconfig_from_text(const char *text, size_t len, const char *what, hfconfig_fn *read,
                            void *out, struct fault *why);

#endif
