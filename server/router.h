// The route table, and everything around a handler: method and path, API keys and scopes, rate
// limits, sizes, media types, JSON and field tables, CORS, and errors in the format of each API.
#ifndef IMAGEND_ROUTER_H
#define IMAGEND_ROUTER_H

#include "check.h"
#include "err.h"
#include "proxy.h"

#include <stdbool.h>
#include <stddef.h>

struct buf;
struct http_request;
struct multipart;
struct router;

enum scope { SCOPE_NONE = 0, SCOPE_READ = 1, SCOPE_GENERATE = 2, SCOPE_ADMIN = 4 };

// The error format of an API.
enum route_errors { ERRORS_OPENAI, ERRORS_A1111 };

enum route_flags {
    ROUTE_BODY = 1,   // takes a JSON body
    ROUTE_HIDDEN = 2, // not in the API description
    ROUTE_WHEN_DRAINING = 4,
    ROUTE_EMPTY_BODY = 8, // the body may be missing
    ROUTE_LINKS = 16,     // a page with relative links
    ROUTE_EXACT = 32,     // only the exact path matches, so that proxies can block it
    ROUTE_IMAGES = 64,    // the body may hold images: max_image_body instead of max_body
    ROUTE_FORM = 128,     // the body may be multipart/form-data instead of JSON
};

// One request on its way through a handler.
struct call {
    struct http_request *http;
    const struct route *route;
    struct router *router;
    void *app;          // router_params.app
    const char *arg[2]; // what "{...}" in the path matched
    const char *owner;  // name of the API key, "" without keys
    unsigned scopes;
    struct json_t *body;    // parsed; NULL without; of a form, its fields as text
    struct multipart *form; // the parts, where the body is a form; NULL: it is not
    void *fields;           // what the field table filled, route->fields_size bytes
    char *path;             // arg points into it
    bool gzip;              // the body has to be unpacked
    enum route_errors errors;
    struct proxy_said via;
};

struct route_answer {
    int status;
    const char *type; // media type; NULL: no body
    const char *help;
};

struct route {
    const char *method, *path; // "{id}" matches one segment
    void (*handle)(struct call *c);
    enum scope scope;
    unsigned flags;
    enum route_errors errors;
    const char *tag, *summary;
    const struct check_table *body, *query; // at most one of them
    size_t fields_size;
    struct route_answer answer[4];
};

// Lets the holder of a key in. Errors: INVALID (no such key), BUSY (too fast).
struct router_auth {
    // key NULL: none was given. *retry: seconds to wait when BUSY.
    enum err (*check)(void *ctx, const char *key, const char **owner, unsigned *scopes,
                      double *retry);
    void *ctx;
};

// The server as clients see it.
struct router_web {
    const char *const *cors;             // allowed origins, NULL-terminated; NULL: none; "*": all
    const char *const *hosts;            // names of router_host_known, NULL-terminated; NULL: any
    const struct proxy_trust *proxies;   // NULL: none
    const struct address *public_origin; // NULL: not configured
    const char *public_url, *public_prefix; // without a slash at the end; "": not configured
};

struct router_params {
    const struct route *const *tables; // NULL-terminated list of tables ending in a zero row
    void *app;
    struct router_auth auth;
    struct router_web web;
    size_t max_body, max_image_body, max_header;
    // A request is over, for log and metrics; route NULL when none matched.
    void (*done)(void *app, struct http_request *r, const struct route *route, const char *owner);
};

// Owner: the caller, router_destroy. Errors: NO_MEMORY.
enum err router_create(const struct router_params *p, struct router **out);
void router_destroy(struct router **r);
// To be http_params.head, .handle and .finished, with the router as ctx.
void router_head(void *router, struct http_request *r);
void router_handle(void *router, struct http_request *r);
void router_finished(void *router, struct http_request *r);
// After a reload. What it points to must outlive the router or the next call.
void router_set_web(struct router *r, const struct router_web *web);
void router_set_max_image_body(struct router *r, size_t max_image_body);
void router_set_draining(struct router *r, double retry_seconds);
// Whether path matches pattern; the segments of "{...}" are cut out of path.
bool router_match(const char *pattern, char *path, const char *arg[2]);
// Whether a Host header means this server: localhost, an address, or one of names; any port.
bool router_host_known(const char *host, const char *const *names);
// The route to suggest for an unknown path and method; NULL: none is close.
const struct route *router_nearest(const struct route *const *tables, const char *method,
                                   const char *path);
const char *scope_name(enum scope s); // "none" and so on
// Walks all routes: *at = 0 first; NULL at the end.
const struct route *router_next(const struct router *r, int *at);

// ---- answers for handlers ---------------------------------------------------------------------
void call_json(struct call *c, int status, struct buf *body);
// Responds with an error in the format of the route. code: OpenAI's error code, or NULL.
void call_error(struct call *c, int status, const char *code, const char *param, const char *fmt,
                ...) __attribute__((format(printf, 5, 6)));
// Responds with the status that belongs to the fault; BUSY sends retry as Retry-After.
void call_fault(struct call *c, const struct fault *why, double retry);
int fault_status(const struct fault *why);

// ---- how the client sees this server ------------------------------------------------------------
// The base URL without a final slash, from public-url or from the request; nothing if neither
// tells.
void call_url(const struct call *c, struct buf *out);
// The path prefix of all URLs, such as "/images"; usually "".
const char *call_prefix(const struct call *c);

#endif
