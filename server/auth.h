// API keys: a file of hashed keys with scopes and rates. Loop thread.
//
//   # name  sha256-of-key  scopes              requests-per-second/burst
//   alice   9f86d081...    generate,read       5/20
#ifndef IMAGEND_AUTH_H
#define IMAGEND_AUTH_H

#include "err.h"

#include <stdbool.h>
#include <stddef.h>

struct auth;
struct buf;

// file NULL or "": authentication is disabled. Errors: NOT_FOUND, IO, INVALID (a bad line, or a
// file without keys).
enum err auth_create(const char *file, struct auth **out, struct fault *why);
void auth_destroy(struct auth **a);
// Replaces the keys of a by those of *fresh. Owner: takes *fresh and sets it to NULL.
void auth_replace(struct auth *a, struct auth **fresh);
int auth_count(const struct auth *a);

// For router_auth.check. *owner lives as long as a. Errors: INVALID (unknown key), BUSY (rate
// limit).
enum err auth_check(void *auth, const char *key, const char **owner, unsigned *scopes,
                    double *retry);

// The rate of a key by its name. False: it has none.
bool auth_rate(const struct auth *a, const char *owner, double *per_second, double *burst);

// Like auth_create, from text. Errors: INVALID, NO_MEMORY.
enum err auth_parse(const char *text, size_t n, struct auth **out, struct fault *why);

struct auth_key_params {
    const char *name, *scopes; // scopes: separated by commas
    const char *rate;          // requests per second and burst, such as "5/20"; NULL: no limit
};

// Creates a key: the key itself, which is shown only once, and its line for the keys file. Errors:
// INVALID (name, scopes or rate), INTERNAL.
enum err auth_new_key(const struct auth_key_params *p, struct buf *key, struct buf *line,
                      struct fault *why);

#endif
