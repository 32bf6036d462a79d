// Trusted reverse proxies, and the original request according to their headers. Any thread.
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

// Parses a comma-separated list of addresses, networks in CIDR notation, "loopback" and "private".
// Errors: INVALID.
enum err proxy_parse(const char *list, struct proxy_trust *out, struct fault *why);
bool proxy_trusts(const struct proxy_trust *t, const char *ip);

// The headers of a request; NULL: absent. Repeated X-Forwarded-For and Forwarded headers are joined
// by commas.
struct proxy_headers {
    const char *forwarded, *client, *scheme, *host, *port, *prefix;
};

// The client's original request, according to the first proxy; "" and 0 if no header states it.
struct proxy_said {
    char scheme[8];          // "http" or "https"
    char host[ADDRESS_HOST]; // "host[:port]"
    int port;                // port for a host that names none
    char prefix[ADDRESS_PREFIX];
    char client[48];
};

// Only for a request whose peer is trusted. Malformed values count as absent. Source: RFC 7239;
// X-Forwarded-* as written by HAProxy, nginx, Caddy, Traefik and Envoy.
void proxy_read(const struct proxy_trust *t, const struct proxy_headers *h, struct proxy_said *out);

#endif
