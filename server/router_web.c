// Host names, forwarded headers, origins: host and origin checks, CORS, forwarded headers of
// proxies. Loop thread.
#include "router_impl.h"

#include "address.h"
#include "buf.h"
#include "http.h"
#include "proxy.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

enum { WEB_MAX_HEADERS = 1024 };

// ---- proxies ------------------------------------------------------------------------------------

static const char *call_scheme(const struct call *c)
{
    return *c->via.scheme ? c->via.scheme : http_is_tls(c->http) ? "https" : "http";
}

// A proxy may drop the port from the host and send it as X-Forwarded-Port. A port in the host
// itself takes precedence. Behind a second proxy the header may hold the port of an inner hop, so
// the default port of the other scheme is ignored.
static void complete_host(struct call *c)
{
    const char *host = *c->via.host ? c->via.host : http_header(c->http, "Host");
    const char *scheme = call_scheme(c), *other = scheme[4] ? "http" : "https";
    struct address a;
    struct buf b = {0};
    if (!c->via.port || !host || !address_parse_host(host, "", &a) || a.port ||
        c->via.port == address_default_port(scheme) || c->via.port == address_default_port(other))
        return;
    a.port = c->via.port;
    address_write_host(&a, &b);
    if (!b.failed && b.len < sizeof c->via.host)
        memcpy(c->via.host, b.data, b.len + 1);
    buf_deinit(&b);
}

void router_read_forwarded(struct call *c)
{
    const struct proxy_trust *trust = c->router->p.web.proxies;
    struct buf forwarded = {0}, client = {0};
    if (!trust || !proxy_trusts(trust, http_client(c->http)))
        return;
    http_join_header(c->http, "Forwarded", &forwarded);
    http_join_header(c->http, "X-Forwarded-For", &client);
    const struct proxy_headers h = {
        .forwarded = forwarded.data,
        .client = client.data,
        .scheme = http_header(c->http, "X-Forwarded-Proto"),
        .host = http_header(c->http, "X-Forwarded-Host"),
        .port = http_header(c->http, "X-Forwarded-Port"),
        .prefix = http_header(c->http, "X-Forwarded-Prefix"),
    };
    proxy_read(trust, &h, &c->via);
    complete_host(c);
    if (*c->via.client)
        http_set_client(c->http, c->via.client);
    buf_deinit(&forwarded);
    buf_deinit(&client);
}

const char *call_prefix(const struct call *c)
{
    return *c->via.prefix ? c->via.prefix : c->router->p.web.public_prefix;
}

void call_url(const struct call *c, struct buf *out)
{
    const struct router_web *w = &c->router->p.web;
    const char *host = *c->via.host ? c->via.host : http_header(c->http, "Host");
    const char *scheme = call_scheme(c);
    if (*w->public_url)
        buf_puts(out, w->public_url);
    else if (host)
        buf_printf(out, "%s://%s%s", scheme, host, c->via.prefix);
}

// ---- names --------------------------------------------------------------------------------------

// Rejecting unknown Host headers prevents DNS rebinding. Browsers always send the header; requests
// without one come from probes.
bool router_host_known(const char *host, const char *const *names)
{
    struct address a;
    if (!address_parse_host(host, "", &a))
        return false;
    bool known = address_is_ip(&a) || !strcmp(a.host, "localhost");
    for (int i = 0; !known && names[i]; i++)
        known = !strcasecmp(a.host, names[i]);
    return known;
}

static bool is_own_name(const struct router_web *w, const char *host)
{
    struct address a;
    return router_host_known(host, w->hosts) ||
           (w->public_origin && address_parse_host(host, "", &a) &&
            !strcmp(a.host, w->public_origin->host));
}

static bool origin_allowed(const struct call *c, const char *origin)
{
    const char *const *cors = c->router->p.web.cors;
    for (int i = 0; origin && cors && cors[i]; i++)
        if (!strcmp(cors[i], "*") || !strcmp(cors[i], origin))
            return true;
    return false;
}

static bool same_host(const struct address *origin, const char *host)
{
    struct address a;
    return host && *host && address_parse_host(host, origin->scheme, &a) &&
           address_same_host(origin, &a);
}

// Compares with the Host header, with the host that the proxy reports, and with public-url.
static bool is_own_origin(const struct call *c, const char *text)
{
    const struct address *ours = c->router->p.web.public_origin;
    struct address origin;
    if (!address_parse(text, &origin, NULL))
        return false;
    return same_host(&origin, http_header(c->http, "Host")) || same_host(&origin, c->via.host) ||
           (ours && !strcmp(origin.scheme, ours->scheme) && address_same_host(&origin, ours));
}

// A page of another origin may send some requests without a preflight, such as an empty POST, and
// the browser may add stored credentials. Browsers report this in Sec-Fetch-Site, older ones and
// those on plain HTTP in Origin.
static bool is_foreign(const struct call *c)
{
    const char *method = http_method(c->http), *origin = http_header(c->http, "Origin");
    const char *site = http_header(c->http, "Sec-Fetch-Site");
    if (!strcmp(method, "GET") || !strcmp(method, "HEAD") || !strcmp(method, "OPTIONS") ||
        origin_allowed(c, origin))
        return false;
    if (site)
        return strcmp(site, "same-origin") && strcmp(site, "none");
    return origin && !is_own_origin(c, origin);
}

bool router_check_browser(struct call *c)
{
    const char *host = http_header(c->http, "Host");
    const struct router_web *w = &c->router->p.web;
    if (host && w->hosts && !is_own_name(w, host))
        call_error(c, 421, NULL, NULL,
                   "unknown host \"%.100s\"; add it to host-names, or set public-url", host);
    else if (is_foreign(c))
        call_error(c, 403, "cross_origin", NULL,
                   "cross-origin request from \"%.100s\"; add the origin to cors-origins, or set "
                   "public-url if it is this server's own",
                   http_header(c->http, "Origin") ? http_header(c->http, "Origin") : "");
    else
        return true;
    return false;
}

// ---- CORS ---------------------------------------------------------------------------------------

void router_set_headers(struct call *c)
{
    const char *const *cors = c->router->p.web.cors;
    const char *origin = http_header(c->http, "Origin");
    http_set_header(c->http, "X-Content-Type-Options", "nosniff");
    http_set_header(c->http, "Referrer-Policy", "no-referrer");
    if (cors && *cors)
        http_set_header(c->http, "Vary", "Origin");
    if (!origin_allowed(c, origin))
        return;
    http_set_header(c->http, "Access-Control-Allow-Origin", "%s", origin);
    http_set_header(c->http, "Access-Control-Expose-Headers", "*");
}

// Whether it is a list of header names; anything else is not echoed to the client.
static bool plain_list(const char *s)
{
    size_t n = 0;
    for (; s[n]; n++)
        if (!isalnum((unsigned char)s[n]) && !strchr("-_, ", s[n]))
            return false;
    return n && n <= WEB_MAX_HEADERS;
}

// Unknown paths are allowed too, so that the page can see the 404.
void router_preflight(struct call *c, const char *allowed)
{
    const char *origin = http_header(c->http, "Origin");
    const char *method = http_header(c->http, "Access-Control-Request-Method");
    const char *headers = http_header(c->http, "Access-Control-Request-Headers");
    if (!*allowed && method && plain_list(method))
        allowed = method;
    http_set_header(c->http, "Allow", "%s", allowed);
    if (origin && method && !origin_allowed(c, origin)) {
        call_error(c, 403, "cross_origin", NULL,
                   "the origin \"%.100s\" is not listed in cors-origins", origin);
        return;
    }
    if (origin) {
        http_set_header(c->http, "Access-Control-Allow-Methods", "%s", allowed);
        http_set_header(c->http, "Access-Control-Max-Age", "7200");
        if (headers && plain_list(headers))
            http_set_header(c->http, "Access-Control-Allow-Headers", "%s", headers);
        if (http_header(c->http, "Access-Control-Request-Private-Network"))
            http_set_header(c->http, "Access-Control-Allow-Private-Network", "true");
    }
    http_reply(c->http, 204, NULL, NULL);
}
