// API keys: a file of hashed keys with scopes and rates. Loop thread.
//
//   # name  sha256-of-key  scopes              requests-per-second/burst
//   alice   9f86d081...    generate,read       5/20
#ifndef IMAGEND_AUTH_H
#define IMAGEND_AUTH_H

#include "err.h"

#include <stddef.h>

struct auth;
struct buf;

// file NULL or "": no keys, everybody may do everything. Errors: NOT_FOUND, INVALID with the line.
enum err auth_create(const char *file, struct auth **out, struct fault *why);
void auth_destroy(struct auth **a);
// Read the keys again; on an error the old ones stay.
enum err auth_reload(struct auth *a, const char *file, struct fault *why);
int auth_count(const struct auth *a);

// For router_auth.check. *owner lives as long as a. Errors: INVALID (no such key), BUSY.
enum err auth_check(void *auth, const char *key, const char **owner, unsigned *scopes,
                    double *retry);

// Read keys from text, for tests: as auth_reload from a file with these bytes.
enum err auth_parse(struct auth *a, const char *text, size_t n, struct fault *why);

// Make a new key: the key itself, which is shown once, and its line for the file. Errors: INVALID
// (name or scopes), INTERNAL.
enum err auth_new_key(const char *name, const char *scopes, struct buf *key, struct buf *line,
                      struct fault *why);

#endif
