// Settings that are more than plain values: keys, certificate, webhook secret, lists of names. They
// are read and checked together at startup, on reload and by `imagend config check`, and take
// effect only if all of them are valid.
#ifndef IMAGEND_SETTINGS_H
#define IMAGEND_SETTINGS_H

#include "address.h"
#include "err.h"
#include "models_file.h"
#include "proxy.h"
#include "router.h"

#include <stdbool.h>

struct auth;
struct conf;
struct http_tls;

enum { SETTINGS_MAX_NAMES = 64 };

struct settings_list {
    char *text;
    const char *item[SETTINGS_MAX_NAMES + 1]; // into text; NULL at the end
};

// The bucket of result-store.
struct settings_bucket {
    char *endpoint, *host; // "https://s3.example.org:9000" and "s3.example.org:9000"
    char *name, *prefix;   // prefix: "" or "a/b/"; name NULL: images are in the database
};

struct settings {
    struct auth *auth;
    struct http_tls *tls; // NULL: plain HTTP
    char *webhook_secret; // NULL: webhooks are disabled
    struct settings_list origins, hosts;
    struct proxy_trust proxies;
    struct address public_origin;
    char *public_url, public_prefix[ADDRESS_PREFIX]; // normalized; "": not configured
    bool any_host;                                   // any Host header is accepted
    struct settings_bucket bucket;
    struct models_file models; // n = 0: a single model, that of the option model
};

// Owner: the caller calls settings_deinit, also on error. Errors: INVALID, NOT_FOUND, IO, with the
// option in why->param; INVALID also for a server that would be open to everyone.
enum err settings_read(const struct conf *c, struct settings *out, struct fault *why);
void settings_deinit(struct settings *s);
// Borrows the router's part of s, which must not move.
struct router_web settings_web(const struct settings *s);

#endif
