// API keys, see auth.h. Only their SHA-256 is stored: keys are long random strings, so a slow
// password hash would add nothing. Every request is compared with every key, so that timing reveals
// nothing. Loop thread.
#include "auth.h"

#include "buf.h"
#include "clock.h"
#include "router.h"
#include "sha256.h"
#include "text.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

struct key {
    struct key *next;
    char name[64], hash[65];
    unsigned scopes;
    double rate, burst;    // requests per second; 0: no limit
    double tokens, filled; // the token bucket, and when it was last filled
};

struct auth {
    struct key *keys;
    struct key *retired; // requests in progress may still point to their names
    int count;
};

static const struct {
    const char *name;
    unsigned bit;
} scope_names[] = {{"read", SCOPE_READ}, {"generate", SCOPE_GENERATE}, {"admin", SCOPE_ADMIN}};

// ---- reading ------------------------------------------------------------------------------------

static bool parse_scopes(const char *list, unsigned *scopes)
{
    *scopes = 0;
    for (const char *at = list; *at;) {
        const size_t n = strcspn(at, ",");
        bool known = false;
        for (size_t i = 0; i < sizeof scope_names / sizeof scope_names[0]; i++) {
            if (strlen(scope_names[i].name) == n && !strncmp(scope_names[i].name, at, n)) {
                *scopes |= scope_names[i].bit;
                known = true;
            }
        }
        if (!known)
            return false;
        at += n + (at[n] == ',');
    }
    return *scopes != 0;
}

static bool parse_rate(const char *s, struct key *k)
{
    char *end;
    k->rate = strtod(s, &end);
    k->burst = k->rate < 1 ? 1 : k->rate;
    if (*end == '/')
        k->burst = strtod(end + 1, &end);
    return !*end && k->rate > 0 && k->rate < 1e9 && k->burst >= 1 && k->burst < 1e9;
}

static bool plain_name(const char *s)
{
    if (!*s || strlen(s) >= sizeof((struct key *)0)->name)
        return false;
    for (; *s; s++)
        if (!isalnum((unsigned char)*s) && !strchr("-_.@", *s))
            return false;
    return true;
}

static enum err parse_key(char *line, struct key *k, struct fault *why)
{
    char *save = NULL, *word[5] = {NULL};
    int n = 0;
    for (char *w = strtok_r(line, " \t\r", &save); w && n < 5; w = strtok_r(NULL, " \t\r", &save))
        word[n++] = w;
    if (n < 3 || n > 4)
        return fault_set(why, ERR_INVALID, "keys-file",
                         "expected: name sha256 scopes [rate/burst]");
    if (!plain_name(word[0]))
        return fault_set(why, ERR_INVALID, "keys-file",
                         "a key name may contain only letters, digits, -, _, . and @");
    if (strlen(word[1]) != 64 || strspn(word[1], "0123456789abcdef") != 64)
        return fault_set(why, ERR_INVALID, "keys-file",
                         "%s: the SHA-256 hash must be 64 lowercase hexadecimal digits", word[0]);
    if (!parse_scopes(word[2], &k->scopes))
        return fault_set(why, ERR_INVALID, "keys-file",
                         "%s: invalid scope; expected generate, read or admin", word[0]);
    if (word[3] && !parse_rate(word[3], k))
        return fault_set(why, ERR_INVALID, "keys-file",
                         "%s: invalid rate; expected requests per second and burst, such as 5/20",
                         word[0]);
    snprintf(k->name, sizeof k->name, "%s", word[0]);
    snprintf(k->hash, sizeof k->hash, "%s", word[1]);
    k->tokens = k->burst;
    k->filled = clock_seconds();
    return ERR_OK;
}

static void keys_free(struct key *k)
{
    while (k) {
        struct key *next = k->next;
        free(k);
        k = next;
    }
}

static struct key *key_find(struct key *k, const char *name)
{
    while (k && strcmp(k->name, name))
        k = k->next;
    return k;
}

static enum err parse_line(char *line, int number, struct key **keys, struct fault *why)
{
    struct fault inner = {0};
    char *s = line + strspn(line, " \t\r");
    if (!*s || *s == '#')
        return ERR_OK;
    struct key *k = calloc(1, sizeof *k);
    if (!k)
        return fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    if (parse_key(s, k, &inner) || key_find(*keys, k->name)) {
        fault_set(why, ERR_INVALID, "keys-file", "keys file, line %d: %s", number,
                  inner.code ? inner.msg : "duplicate key name");
        free(k);
        return ERR_INVALID;
    }
    k->next = *keys;
    *keys = k;
    return ERR_OK;
}

static enum err parse_keys(const char *text, size_t n, struct auth *a, struct fault *why)
{
    int number = 0;
    for (size_t at = 0; at < n;) {
        char line[512];
        const char *end = memchr(text + at, '\n', n - at);
        const size_t len = end ? (size_t)(end - (text + at)) : n - at;
        number++;
        if (len >= sizeof line)
            return fault_set(why, ERR_INVALID, "keys-file", "keys file, line %d is too long",
                             number);
        memcpy(line, text + at, len);
        line[len] = 0;
        const enum err err = parse_line(line, number, &a->keys, why);
        if (err)
            return err;
        at += len + 1;
    }
    for (const struct key *k = a->keys; k; k = k->next)
        a->count++;
    return a->count ? ERR_OK
                    : fault_set(why, ERR_INVALID, "keys-file",
                                "the keys file contains no keys; add one with `imagend config key "
                                "NAME`, or unset keys-file");
}

enum err auth_parse(const char *text, size_t n, struct auth **out, struct fault *why)
{
    *out = calloc(1, sizeof **out);
    const enum err err = *out ? parse_keys(text, n, *out, why)
                              : fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    if (err)
        auth_destroy(out);
    return err;
}

enum err auth_create(const char *file, struct auth **out, struct fault *why)
{
    struct buf b = {0};
    enum err err;
    *out = NULL;
    if (!file || !*file) {
        *out = calloc(1, sizeof **out);
        return *out ? ERR_OK : fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    }
    err = buf_read_file(&b, file, 1 << 20, why);
    if (!err)
        err = auth_parse(b.data ? b.data : "", b.len, out, why);
    buf_deinit(&b);
    return err;
}

void auth_replace(struct auth *a, struct auth **fresh)
{
    // Keep the token buckets: a reload must not reset rate limits.
    for (struct key *k = (*fresh)->keys; k; k = k->next) {
        const struct key *old = key_find(a->keys, k->name);
        if (old && old->rate > 0 && k->rate > 0) {
            k->tokens = old->tokens; // capped at the new burst when spent
            k->filled = old->filled;
        }
    }
    struct key **end = &a->retired;
    while (*end)
        end = &(*end)->next;
    *end = a->keys;
    a->keys = (*fresh)->keys;
    a->count = (*fresh)->count;
    (*fresh)->keys = NULL;
    auth_destroy(fresh);
}

void auth_destroy(struct auth **a)
{
    if (!*a)
        return;
    keys_free((*a)->keys);
    keys_free((*a)->retired);
    free(*a);
    *a = NULL;
}

int auth_count(const struct auth *a)
{
    return a->count;
}

// ---- checking -----------------------------------------------------------------------------------

static enum err key_spend(struct key *k, double *retry)
{
    const double now = clock_seconds();
    if (k->rate <= 0)
        return ERR_OK;
    k->tokens += (now - k->filled) * k->rate;
    k->tokens = k->tokens < k->burst ? k->tokens : k->burst;
    k->filled = now;
    if (k->tokens < 1) {
        *retry = (1 - k->tokens) / k->rate;
        return ERR_BUSY;
    }
    k->tokens -= 1;
    return ERR_OK;
}

bool auth_rate(const struct auth *a, const char *owner, double *per_second, double *burst)
{
    const struct key *k = key_find(a->keys, owner);
    if (!k || k->rate <= 0)
        return false;
    *per_second = k->rate;
    *burst = k->burst;
    return true;
}

enum err auth_check(void *auth, const char *key, const char **owner, unsigned *scopes,
                    double *retry)
{
    struct auth *a = auth;
    struct key *found = NULL;
    char hash[65];
    *owner = "";
    *scopes = 0;
    if (!a->count) {
        *scopes = SCOPE_READ | SCOPE_GENERATE | SCOPE_ADMIN;
        return ERR_OK;
    }
    if (!key)
        return ERR_INVALID;
    sha256_hex(key, strlen(key), hash);
    for (struct key *k = a->keys; k; k = k->next)
        if (sha256_same(k->hash, hash))
            found = k;
    if (!found)
        return ERR_INVALID;
    *owner = found->name;
    *scopes = found->scopes;
    return key_spend(found, retry);
}

enum err auth_new_key(const struct auth_key_params *p, struct buf *key, struct buf *line,
                      struct fault *why)
{
    struct key limits;
    unsigned char bytes[24];
    char hash[65];
    unsigned bits;
    if (!plain_name(p->name))
        return fault_set(why, ERR_INVALID, "name",
                         "a key name may contain only letters, digits, -, _, . and @");
    if (!parse_scopes(p->scopes, &bits))
        return fault_set(why, ERR_INVALID, "scopes",
                         "invalid scope; expected generate, read or admin, separated by commas");
    if (p->rate && (p->rate[strspn(p->rate, "0123456789./")] || !parse_rate(p->rate, &limits)))
        return fault_set(why, ERR_INVALID, "rate",
                         "invalid rate \"%.60s\"; expected requests per second and burst, such as "
                         "5/20",
                         p->rate);
    if (getrandom(bytes, sizeof bytes, 0) != sizeof bytes)
        return fault_set(why, ERR_INTERNAL, "", "cannot read random numbers from the system");
    buf_puts(key, "sk-imagend-");
    text_hex(key, bytes, sizeof bytes);
    if (key->failed)
        return fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    sha256_hex(key->data, key->len, hash);
    buf_printf(line, "%s %s %s%s%s", p->name, hash, p->scopes, p->rate ? " " : "",
               p->rate ? p->rate : "");
    return ERR_OK;
}
