// What the configuration means for the running server beyond plain values: keys, certificate, lists
// of names. Read and checked as a whole at the start, on reload and by `imagend config check`, so
// that nothing of it is in force before all of it is right.
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
// As the router takes them. Owner: s, which must stay where it is.
struct router_web settings_web(const struct settings *s);

#endif
