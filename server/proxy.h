// Which reverse proxies are trusted, and what their headers say about the original request. Any
// thread.
#ifndef IMAGEND_PROXY_H
#define IMAGEND_PROXY_H

#include "address.h"
#include "err.h"

#include <stdbool.h>

enum { PROXY_MAX_NETS = 64 };

struct proxy_net {
    unsigned char ip[16]; // IPv4 as ::ffff:a.b.c.d
    int bits;
};

struct proxy_trust {
    struct proxy_net net[PROXY_MAX_NETS];
    int count;
};

// Addresses, networks in CIDR notation, "loopback" and "private", with commas. Errors: INVALID.
enum err proxy_parse(const char *list, struct proxy_trust *out, struct fault *why);
bool proxy_trusts(const struct proxy_trust *t, const char *ip);

// The headers of a request; NULL: absent. The lines of X-Forwarded-For and Forwarded are joined by
// commas.
struct proxy_headers {
    const char *forwarded, *client, *scheme, *host, *port, *prefix;
};

// What the client requested, according to the first proxy; "" and 0 when no header says.
struct proxy_said {
    char scheme[8];          // "http" or "https"
    char host[ADDRESS_HOST]; // "host[:port]"
    int port;                // completes a host that names none
    char prefix[ADDRESS_PREFIX];
    char client[48];
};

// Call it only for a request whose peer is trusted. Malformed values count as absent.
// Source: RFC 7239; X-Forwarded-* as HAProxy, nginx, Caddy, Traefik and Envoy write them.
void proxy_read(const struct proxy_trust *t, const struct proxy_headers *h, struct proxy_said *out);

#endif
