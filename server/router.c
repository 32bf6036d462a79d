// From a request to its handler: the checks before and after the body arrives. Loop thread. Knows
// routes, fields and keys, but not what routes do.
#include "router_impl.h"

#include "body.h"
#include "buf.h"
#include "http.h"
#include "json.h"
#include "multipart.h"
#include "text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

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

void router_set_web(struct router *r, const struct router_web *web)
{
    r->p.web = *web;
}

void router_set_max_image_body(struct router *r, size_t max_image_body)
{
    r->p.max_image_body = max_image_body;
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
        call_over_rate(c, retry);
    } else if (err) {
        http_set_header(c->http, "WWW-Authenticate", "Bearer");
        call_error(c, 401, NULL, NULL,
                   given ? "invalid API key"
                         : "an API key is required: send Authorization: Bearer KEY");
    } else if (!(c->scopes & (unsigned)c->route->scope)) {
        call_error(c, 403, NULL, NULL, "this API key lacks the required scope");
    } else {
        return true;
    }
    return false;
}

static bool takes_images(const struct call *c)
{
    return c->route && c->route->flags & ROUTE_IMAGES;
}

static size_t body_limit(const struct call *c)
{
    return takes_images(c) ? c->router->p.max_image_body : c->router->p.max_body;
}

static void refuse_size(struct call *c)
{
    call_error(c, 413, NULL, NULL,
               takes_images(c) ? "the request body is larger than %zu bytes, the maximum for "
                                 "requests with images (input-bytes)"
                               : "the request body is larger than %zu bytes (max-body)",
               body_limit(c));
}

static void refuse_crowded(struct call *c)
{
    enum { RETRY_SECONDS = 5 };
    call_set_retry(c, RETRY_SECONDS);
    call_error(c, 503, NULL, NULL,
               "too many images are being uploaded at the same time; try again later");
}

static bool is_json(const char *type)
{
    static const char name[] = "application/json";
    const size_t n = sizeof name - 1;
    return type && !strncasecmp(type, name, n) && (!type[n] || strchr("; ", type[n]));
}

// Checks the body's size before it arrives, as far as it is known.
static bool check_body_size(struct call *c, unsigned long long n)
{
    if (n > body_limit(c))
        refuse_size(c);
    else if (!http_claim_body(c->http, (size_t)n))
        refuse_crowded(c);
    else
        return true;
    return false;
}

static bool check_body_headers(struct call *c)
{
    const char *length = http_header(c->http, "Content-Length");
    const char *type = http_header(c->http, "Content-Type");
    const bool chunked = http_header(c->http, "Transfer-Encoding");
    const bool optional = c->route->flags & ROUTE_EMPTY_BODY;
    const unsigned long long n = length ? strtoull(length, NULL, 10) : 0;
    struct fault why;
    if (takes_images(c))
        http_allow_body(c->http, body_limit(c));
    if (!check_body_size(c, n))
        return false;
    if (!(c->route->flags & ROUTE_BODY) || (optional && !n && !chunked))
        return true;
    if (!length && !chunked) {
        call_error(c, 411, NULL, NULL, "a request body with Content-Length is required");
        return false;
    }
    if (body_check_headers(http_header(c->http, "Content-Encoding"), type, &c->gzip, &why)) {
        http_set_header(c->http, "Accept-Encoding", "gzip");
        call_error(c, 415, NULL, why.param, "%s", why.msg);
        return false;
    }
    const bool form = c->route->flags & ROUTE_FORM;
    if (is_json(type) || (form && multipart_is(type)))
        return true;
    call_error(c, 415, NULL, NULL, "unsupported Content-Type; send the body as application/json%s",
               form ? " or multipart/form-data" : "");
    return false;
}

static void call_free(void *user)
{
    struct call *c = user;
    json_destroy(&c->body);
    router_form_free(c);
    free(c->fields);
    free(c->path);
    free(c);
}

void router_head(void *router, struct http_request *r)
{
    struct router *ro = router;
    char allowed[ROUTER_METHODS];
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
    router_read_forwarded(c);
    router_set_headers(c);
    const bool found = router_find(c, allowed);
    if (http_header_bytes(r) > ro->p.max_header) {
        call_error(c, 431, NULL, NULL, "the request headers are larger than %zu bytes (max-header)",
                   ro->p.max_header);
    } else if (!router_check_browser(c)) {
        return;
    } else if (ro->draining && !(found && c->route->flags & ROUTE_WHEN_DRAINING)) {
        call_set_retry(c, ro->retry);
        call_error(c, 503, NULL, NULL, "the server is shutting down");
    } else if (!found && !strcmp(http_method(r), "OPTIONS")) {
        router_preflight(c, allowed);
    } else if (!found) {
        router_refuse_path(c, allowed);
    } else if (!router_redirect(c) && authorize(c)) {
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

static bool takes_form(const struct call *c)
{
    return c->route->flags & ROUTE_FORM && multipart_is(http_header(c->http, "Content-Type"));
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
    if (takes_form(c))
        return router_take_form(c, why);
    err = body_text(body, &begin, why);
    if (!err)
        err = json_parse(body->data ? body->data + begin : "", body->len - begin, "request body",
                         ERR_INVALID, &c->body, why);
    if (err || !route->body)
        return err;
    return check_object(route->body, c->body, c->fields, why);
}

// A document takes many times the memory of its text, except for long strings. False: a response
// was sent.
static bool check_structure(struct call *c)
{
    enum { LEAST = 1 << 20 };
    const struct buf *body = http_body(c->http);
    const size_t most = c->router->p.max_body > LEAST ? c->router->p.max_body : LEAST;
    if (body->len <= most || takes_form(c) || json_structure(body->data, body->len) <= most)
        return true;
    call_error(c, 413, NULL, NULL,
               "the request body is larger than %zu bytes (max-body), apart from its images", most);
    return false;
}

// False: a response was sent.
static bool unpack_body(struct call *c)
{
    struct fault why = {0};
    const size_t most = c->router->p.max_body;
    if (http_crowded(c->http)) {
        refuse_crowded(c);
        return false;
    }
    if (http_too_large(c->http)) {
        refuse_size(c);
        return false;
    }
    // Images are not compressible, so the larger limit does not apply.
    const enum err err = c->gzip ? body_gunzip(http_body(c->http), most, &why) : ERR_OK;
    if (err == ERR_FORMAT)
        call_error(c, 413, NULL, NULL,
                   "the decompressed request body is larger than %zu bytes (max-body)", most);
    else if (err)
        call_fault(c, &why, 1);
    return !err && check_structure(c);
}

static void handle(struct call *c)
{
    struct fault why = {0};
    if (!unpack_body(c))
        return;
    if (take_fields(c, &why))
        call_fault(c, &why, 1);
    else
        c->route->handle(c);
}

void router_handle(void *router, struct http_request *r)
{
    const struct router *ro = router;
    struct call *c = http_user(r);
    if (!c || !c->route)
        return;
    if (ro->p.auth.spend && c->route->scope)
        ro->p.auth.spend(c, handle);
    else
        handle(c);
}

void router_finished(void *router, struct http_request *r)
{
    struct router *ro = router;
    const struct call *c = http_user(r);
    if (ro->p.done)
        ro->p.done(ro->p.app, r, c ? c->route : NULL, c ? c->owner : "");
}
