// From a request to its handler, and from a fault to the client's words. Loop thread. Knows the
// shape of routes, fields and keys; not what any route does.
#include "router.h"

#include "body.h"
#include "buf.h"
#include "http.h"
#include "json.h"
#include "log.h"
#include "text.h"

#include <arpa/inet.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct router {
    struct router_params p;
    bool draining;
    double retry;
};

enum err router_create(const struct router_params *p, struct router **out)
{
    *out = calloc(1, sizeof **out);
    if (!*out)
        return ERR_NO_MEMORY;
    (*out)->p = *p;
    return ERR_OK;
}

void router_destroy(struct router **r)
{
    free(*r);
    *r = NULL;
}

void router_set_cors(struct router *r, const char *const *cors)
{
    r->p.cors = cors;
}

void router_set_hosts(struct router *r, const char *const *hosts)
{
    r->p.hosts = hosts;
}

void router_set_draining(struct router *r, double retry_seconds)
{
    r->draining = true;
    r->retry = retry_seconds;
}

const struct route *router_next(const struct router *r, int *at)
{
    int i = 0;
    for (const struct route *const *t = r->p.tables; *t; t++)
        for (const struct route *route = *t; route->path; route++)
            if (i++ == *at) {
                ++*at;
                return route;
            }
    return NULL;
}

// ---- answers ------------------------------------------------------------------------------------

void call_json(struct call *c, int status, struct buf *body)
{
    http_reply(c->http, status, "application/json", body);
}

static const char *error_type(int status)
{
    if (status == 401)
        return "authentication_error";
    if (status == 403)
        return "permission_error";
    if (status == 429)
        return "rate_limit_error";
    return status >= 500 ? "server_error" : "invalid_request_error";
}

static const char *error_code(int status)
{
    switch (status) {
    case 401: return "invalid_api_key";
    case 403: return "insufficient_scope";
    case 404: return "not_found";
    case 405: return "method_not_allowed";
    case 411: return "length_required";
    case 413: return "request_too_large";
    case 415: return "unsupported_media_type";
    case 421: return "unknown_host";
    case 429: return "rate_limit_exceeded";
    case 431: return "headers_too_large";
    case 503: return "unavailable";
    default: return status >= 500 ? "internal_error" : "invalid_value";
    }
}

void call_error(struct call *c, int status, const char *code, const char *param, const char *fmt,
                ...)
{
    char msg[512];
    struct buf b = {0};
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    if (c->route && c->route->errors == ERRORS_A1111) {
        buf_printf(&b, "{\"error\":\"%s\",\"detail\":",
                   status == 422 ? "RequestValidationError" : "HTTPException");
        text_json(&b, msg);
        buf_puts(&b, ",\"body\":\"\",\"errors\":");
        text_json(&b, msg);
        buf_puts(&b, "}");
    } else {
        buf_puts(&b, "{\"error\":{\"message\":");
        text_json(&b, msg);
        buf_printf(&b, ",\"type\":\"%s\",\"param\":", error_type(status));
        text_json(&b, param && *param ? param : NULL);
        buf_puts(&b, ",\"code\":");
        text_json(&b, code ? code : error_code(status));
        buf_puts(&b, "}}");
    }
    call_json(c, status, &b);
}

int fault_status(const struct fault *why)
{
    switch (why->code) {
    case ERR_INVALID:
    case ERR_UNSUPPORTED: return 400;
    case ERR_NOT_FOUND: return 404;
    case ERR_CANCELLED: return 410;
    case ERR_BUSY: return strcmp(why->param, "queue") ? 503 : 429;
    case ERR_TIMEOUT: return 504;
    case ERR_NO_DEVICE:
    case ERR_DEVICE_LOST: return 503;
    case ERR_IO: return 507;
    default: return 500;
    }
}

static void set_retry(struct http_request *r, double seconds)
{
    // Clients honour 1 to 60 seconds; a shorter wait would only make them knock more often.
    const double s = ceil(seconds);
    http_set_header(r, "Retry-After", "%d", s < 1 ? 1 : s > 60 ? 60 : (int)s);
}

void call_fault(struct call *c, const struct fault *from, double retry)
{
    struct fault shown = *from, *why = &shown;
    int status = fault_status(why);
    const char *code = NULL;
    // What is INVALID repeats the request's own words; the rest may name files of this machine.
    if (why->code != ERR_INVALID && fault_hide_paths(why))
        log_msg(LOG_WARN, "http", "%s: %s", http_id(c->http), from->msg);
    if (status == 429 || status == 503)
        set_retry(c->http, retry);
    if (status == 429)
        code = "queue_full";
    if (status == 400 && c->route && c->route->errors == ERRORS_A1111)
        status = 422;
    call_error(c, status, code, status < 500 ? why->param : NULL, "%s", why->msg);
}

// ---- matching -----------------------------------------------------------------------------------

bool router_match(const char *pattern, char *path, const char *arg[2])
{
    int args = 0;
    char *at = path;
    arg[0] = arg[1] = NULL;
    for (; *pattern; pattern++) {
        if (*pattern != '{') {
            if (*pattern != *at++)
                return false;
            continue;
        }
        pattern = strchr(pattern, '}');
        const char *end = strchr(at, '/');
        const size_t n = end && pattern[1] ? (size_t)(end - at) : strlen(at);
        if (!n || (!pattern[1] && end) || args == 2)
            return false;
        arg[args++] = at;
        at += n;
    }
    if (*at)
        return false;
    for (int i = 0; i < args; i++)
        if (strchr(arg[i], '/'))
            *strchr(path + (arg[i] - path), '/') = 0;
    return true;
}

static const char *route_method(const char *method)
{
    return strcmp(method, "HEAD") ? method : "GET";
}

// Sets c->route and c->arg; allowed collects the methods of a path that matched otherwise.
static bool find_route(struct call *c, char *allowed, size_t n)
{
    const char *method = route_method(http_method(c->http));
    const struct route *route;
    int at = 0;
    allowed[0] = 0;
    while ((route = router_next(c->router, &at))) {
        free(c->path);
        c->path = strdup(http_path(c->http));
        if (!c->path || !router_match(route->path, c->path, c->arg))
            continue;
        if (!strcmp(route->method, method)) {
            c->route = route;
            return true;
        }
        const size_t len = strlen(allowed);
        snprintf(allowed + len, n - len, "%s%s", len ? ", " : "", route->method);
    }
    return false;
}

// ---- browsers -----------------------------------------------------------------------------------

// What a page of another site can reach under a name that it made to point here is told apart by
// that name. A browser always sends it; requests without one come from probes.
bool router_host_known(const char *host, const char *const *names)
{
    char name[256];
    unsigned char address[sizeof(struct in6_addr)];
    const bool v6 = *host == '[';
    host += v6;
    size_t n = strcspn(host, v6 ? "]" : ":");
    if (n >= sizeof name)
        return false;
    memcpy(name, host, n);
    name[n] = 0;
    if (v6)
        return host[n] && (!host[n + 1] || host[n + 1] == ':') &&
               inet_pton(AF_INET6, name, address) == 1;
    if (n && name[n - 1] == '.')
        name[n - 1] = 0;
    bool known = inet_pton(AF_INET, name, address) == 1 || !strcasecmp(name, "localhost");
    for (int i = 0; !known && names[i]; i++)
        known = !strcasecmp(name, names[i]);
    return known;
}

static bool origin_allowed(const struct call *c, const char *origin)
{
    const char *const *cors = c->router->p.cors;
    for (int i = 0; origin && cors && cors[i]; i++)
        if (!strcmp(cors[i], "*") || !strcmp(cors[i], origin))
            return true;
    return false;
}

// A page of another origin may send some requests without asking first, such as an empty POST, and
// a browser adds what it knows of keys. Browsers say so by Sec-Fetch-Site, older ones by Origin.
static bool is_foreign(const struct call *c)
{
    const char *method = http_method(c->http), *host = http_header(c->http, "Host");
    const char *origin = http_header(c->http, "Origin");
    const char *site = http_header(c->http, "Sec-Fetch-Site");
    if (!strcmp(method, "GET") || !strcmp(method, "HEAD") || !strcmp(method, "OPTIONS") ||
        origin_allowed(c, origin))
        return false;
    if (site)
        return strcmp(site, "same-origin") && strcmp(site, "none");
    const char *at = origin ? strstr(origin, "://") : NULL;
    return origin && !(at && host && !strcasecmp(at + 3, host));
}

static bool check_browser(struct call *c)
{
    const char *host = http_header(c->http, "Host");
    if (host && c->router->p.hosts && !router_host_known(host, c->router->p.hosts))
        call_error(c, 421, NULL, NULL,
                   "this server is not known as \"%.100s\"; host-names and public-url can name it",
                   host);
    else if (is_foreign(c))
        call_error(c, 403, "cross_origin", NULL,
                   "pages of another origin may not send this; cors-origins can allow them");
    else
        return true;
    return false;
}

static void set_common_headers(struct call *c)
{
    const char *origin = http_header(c->http, "Origin");
    http_set_header(c->http, "X-Content-Type-Options", "nosniff");
    http_set_header(c->http, "Referrer-Policy", "no-referrer");
    if (!origin_allowed(c, origin))
        return;
    http_set_header(c->http, "Access-Control-Allow-Origin", "%s", origin);
    http_set_header(c->http, "Vary", "Origin");
    http_set_header(c->http, "Access-Control-Expose-Headers",
                    "X-Request-Id, Retry-After, Location");
}

static void answer_preflight(struct call *c, const char *allowed)
{
    http_set_header(c->http, "Access-Control-Allow-Methods", "%s", allowed);
    http_set_header(c->http, "Access-Control-Allow-Headers",
                    "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, X-Request-Id");
    http_set_header(c->http, "Access-Control-Max-Age", "600");
    http_reply(c->http, 204, NULL, NULL);
}

// ---- before the body ----------------------------------------------------------------------------

// "Bearer KEY", or "Basic" with the key as the password, which is what A1111 clients can send.
static enum err take_key(struct call *c, char *key, size_t n)
{
    const char *a = http_header(c->http, "Authorization");
    key[0] = 0;
    if (!a)
        return ERR_NOT_FOUND;
    if (!strncasecmp(a, "Bearer ", 7)) {
        snprintf(key, n, "%s", a + 7);
        return ERR_OK;
    }
    if (strncasecmp(a, "Basic ", 6))
        return ERR_NOT_FOUND;
    struct buf plain = {0};
    const bool ok = text_unbase64(&plain, a + 6) && plain.len && strchr(plain.data, ':');
    if (ok)
        snprintf(key, n, "%s", strchr(plain.data, ':') + 1);
    buf_deinit(&plain);
    return ok ? ERR_OK : ERR_NOT_FOUND;
}

static bool authorize(struct call *c)
{
    char key[256];
    double retry = 1;
    const bool given = !take_key(c, key, sizeof key);
    const enum err err = c->router->p.auth.check(c->router->p.auth.ctx, given ? key : NULL,
                                                 &c->owner, &c->scopes, &retry);
    memset(key, 0, sizeof key);
    if (!c->route->scope)
        return true;
    if (err == ERR_BUSY) {
        set_retry(c->http, retry);
        call_error(c, 429, NULL, NULL, "this key sends requests faster than it may");
    } else if (err) {
        http_set_header(c->http, "WWW-Authenticate", "Bearer");
        call_error(c, 401, NULL, NULL,
                   given ? "the API key is not valid"
                         : "an API key is needed: Authorization: Bearer KEY");
    } else if (!(c->scopes & (unsigned)c->route->scope)) {
        call_error(c, 403, NULL, NULL, "this API key may not do that");
    } else {
        return true;
    }
    return false;
}

static void refuse_size(struct call *c, const char *what)
{
    call_error(c, 413, NULL, NULL, "%s is larger than %zu bytes (max-body)", what,
               c->router->p.max_body);
}

static bool check_body_headers(struct call *c)
{
    const char *length = http_header(c->http, "Content-Length");
    const char *type = http_header(c->http, "Content-Type");
    const bool chunked = http_header(c->http, "Transfer-Encoding");
    const bool optional = c->route->flags & ROUTE_EMPTY_BODY;
    const unsigned long long n = length ? strtoull(length, NULL, 10) : 0;
    struct fault why;
    if (n > c->router->p.max_body) {
        refuse_size(c, "the request body");
        return false;
    }
    if (!(c->route->flags & ROUTE_BODY) || (optional && !n && !chunked))
        return true;
    if (!length && !chunked) {
        call_error(c, 411, NULL, NULL, "a body with a Content-Length is needed");
        return false;
    }
    if (body_check_headers(http_header(c->http, "Content-Encoding"), type, &c->gzip, &why)) {
        http_set_header(c->http, "Accept-Encoding", "gzip");
        call_error(c, 415, NULL, why.param, "%s", why.msg);
        return false;
    }
    if (!type || strncasecmp(type, "application/json", 16) ||
        (type[16] && !strchr("; ", type[16]))) {
        call_error(c, 415, NULL, NULL, "the body must be sent as Content-Type: application/json");
        return false;
    }
    return true;
}

static void call_free(void *user)
{
    struct call *c = user;
    json_destroy(&c->body);
    free(c->fields);
    free(c->path);
    free(c);
}

void router_head(void *router, struct http_request *r)
{
    struct router *ro = router;
    char allowed[128];
    struct call *c = calloc(1, sizeof *c);
    if (!c) {
        http_reply(r, 500, NULL, NULL);
        return;
    }
    c->http = r;
    c->router = ro;
    c->app = ro->p.app;
    c->owner = "";
    http_set_user(r, c, call_free);
    set_common_headers(c);
    const bool found = find_route(c, allowed, sizeof allowed);
    if (http_header_bytes(r) > ro->p.max_header) {
        call_error(c, 431, NULL, NULL, "the request's headers have more than %zu bytes",
                   ro->p.max_header);
    } else if (!check_browser(c)) {
        return;
    } else if (ro->draining && !(found && c->route->flags & ROUTE_WHEN_DRAINING)) {
        set_retry(r, ro->retry);
        http_set_close(r);
        call_error(c, 503, NULL, NULL, "the server is shutting down");
    } else if (!found && !*allowed) {
        call_error(c, 404, NULL, NULL, "there is nothing at %.200s", http_path(r));
    } else if (!found && !strcmp(http_method(r), "OPTIONS")) {
        answer_preflight(c, allowed);
    } else if (!found) {
        http_set_header(r, "Allow", "%s", allowed);
        call_error(c, 405, NULL, NULL, "%s allows %s", http_path(r), allowed);
    } else if (authorize(c)) {
        check_body_headers(c);
    }
}

// ---- with the body ------------------------------------------------------------------------------

struct query_check {
    struct call *c;
    struct fault why;
};

static void on_query(void *ctx, const char *name, const char *value)
{
    struct query_check *q = ctx;
    if (!q->why.code)
        check_query(q->c->route->query, name, value, q->c->fields, &q->why);
}

static enum err take_fields(struct call *c, struct fault *why)
{
    const struct route *route = c->route;
    const struct buf *body = http_body(c->http);
    size_t begin;
    enum err err;
    if (route->fields_size && !(c->fields = calloc(1, route->fields_size)))
        return fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    if (route->query) {
        struct query_check q = {.c = c};
        check_defaults(route->query, c->fields);
        http_each_query(c->http, on_query, &q);
        *why = q.why;
        return q.why.code;
    }
    if (!(route->flags & ROUTE_BODY))
        return ERR_OK;
    if (!body->len && route->flags & ROUTE_EMPTY_BODY) {
        if (route->body)
            check_defaults(route->body, c->fields);
        return ERR_OK;
    }
    err = body_text(body, &begin, why);
    if (!err)
        err = json_parse(body->data ? body->data + begin : "", body->len - begin, "request body",
                         ERR_INVALID, &c->body, why);
    if (err || !route->body)
        return err;
    return check_object(route->body, c->body, c->fields, why);
}

// False: the call is answered.
static bool unpack_body(struct call *c)
{
    struct fault why = {0};
    if (http_too_large(c->http)) {
        refuse_size(c, "the request body");
        return false;
    }
    const enum err err =
        c->gzip ? body_gunzip(http_body(c->http), c->router->p.max_body, &why) : ERR_OK;
    if (err == ERR_FORMAT)
        refuse_size(c, "the decompressed request body");
    else if (err)
        call_fault(c, &why, 1);
    return !err;
}

void router_handle(void *router, struct http_request *r)
{
    struct call *c = http_user(r);
    struct fault why = {0};
    if (!c || !c->route || !unpack_body(c))
        return;
    if (take_fields(c, &why))
        call_fault(c, &why, 1);
    else
        c->route->handle(c);
}

void router_finished(void *router, struct http_request *r)
{
    struct router *ro = router;
    const struct call *c = http_user(r);
    if (ro->p.done)
        ro->p.done(ro->p.app, r, c ? c->route : NULL, c ? c->owner : "");
}
