// Settings that are more than plain values: keys, certificate, webhook secret, lists of names. They
// are read and checked as a whole at startup, on reload and by `imagend config check`, and take
// effect only if all of them are valid.
#ifndef IMAGEND_SETTINGS_H
#define IMAGEND_SETTINGS_H

#include "address.h"
#include "err.h"
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

struct settings {
    struct auth *auth;
    struct http_tls *tls; // NULL: plain HTTP
    char *webhook_secret; // NULL: webhooks are disabled
    struct settings_list origins, hosts;
    struct proxy_trust proxies;
    struct address public_origin;
    char *public_url, public_prefix[ADDRESS_PREFIX]; // normalised; "": not configured
    bool any_host;                                   // hosts do not matter
};

// Owner: the caller, settings_deinit, also after an error. Errors: INVALID, NOT_FOUND, IO, with the
// option in why->param; among them INVALID for a server that would be open to everyone.
enum err settings_read(const struct conf *c, struct settings *out, struct fault *why);
void settings_deinit(struct settings *s);
// For the router. Owner: s, which must not move.
struct router_web settings_web(const struct settings *s);

#endif
