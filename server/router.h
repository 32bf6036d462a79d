// The route table, and everything around a handler: method and path, API keys and scopes, rate
// limits, sizes, media types, JSON and field tables, CORS, and errors in the format of each API.
// Loop thread.
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
    ROUTE_IMAGES = 64,    // the body may contain images: max_image_body applies
    ROUTE_FORM = 128,     // the body may be multipart/form-data instead of JSON
};

// A request during its processing.
struct call {
    struct http_request *http;
    const struct route *route;
    struct router *router;
    void *app;          // router_params.app
    const char *arg[2]; // the parts of the path that matched "{...}"
    const char *owner;  // name of the API key; "" without keys
    unsigned scopes;
    struct json_t *body;    // parsed; NULL if none; for a form, its fields as text
    struct multipart *form; // the parts of a form; NULL: not a form
    void *fields;           // filled by the field table, route->fields_size bytes
    char *path;             // arg points into it
    bool gzip;              // the body must be decompressed
    enum route_errors errors;
    struct proxy_said via;
};

struct route_answer {
    int status;
    const char *type; // media type; NULL: no body
    const char *help;
    const char
        *schema; // of JSON, and of the data of an event: a name in server/routes/responses*.json
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

// Authenticates a request. Errors: INVALID (unknown key), BUSY (rate limit).
struct router_auth {
    // key NULL: none was sent. *retry: seconds to wait, if BUSY.
    enum err (*check)(void *ctx, const char *key, const char **owner, unsigned *scopes,
                      double *retry);
    void *ctx;
    // For a request that check allowed and that has arrived: counts it against a rate that several
    // processes share, then calls `then`, possibly later, or responds. NULL: there is none.
    void (*spend)(struct call *c, void (*then)(struct call *c));
};

// The server as clients see it.
struct router_web {
    const char *const *cors;             // allowed origins, NULL-terminated; NULL: none; "*": all
    const char *const *hosts;            // names of router_host_known, NULL-terminated; NULL: any
    const struct proxy_trust *proxies;   // NULL: none
    const struct address *public_origin; // NULL: not configured
    const char *public_url, *public_prefix; // without a final slash; "": not configured
};

struct router_params {
    const struct route *const *tables; // NULL-terminated list of tables ending in a zero row
    void *app;
    struct router_auth auth;
    struct router_web web;
    size_t max_body, max_image_body, max_header;
    // Called when a request has ended, for log and metrics; route NULL if none matched.
    void (*done)(void *app, struct http_request *r, const struct route *route, const char *owner);
};

// Owner: the caller destroys *out with router_destroy. Errors: NO_MEMORY.
enum err router_create(const struct router_params *p, struct router **out);
void router_destroy(struct router **r);
// For http_params.head, .handle and .finished; ctx is the router.
void router_head(void *router, struct http_request *r);
void router_handle(void *router, struct http_request *r);
void router_finished(void *router, struct http_request *r);
// For a reload. Everything that it points to must outlive the router or the next call.
void router_set_web(struct router *r, const struct router_web *web);
void router_set_max_image_body(struct router *r, size_t max_image_body);
void router_set_draining(struct router *r, double retry_seconds);
// Whether path matches pattern; writes NULs into path to separate the segments of "{...}".
bool router_match(const char *pattern, char *path, const char *arg[2]);
// Whether a Host header names this server: localhost, an address, or one of names; any port.
bool router_host_known(const char *host, const char *const *names);
// The route to suggest for an unknown path and method; NULL if none is close.
const struct route *router_nearest(const struct route *const *tables, const char *method,
                                   const char *path);
const char *scope_name(enum scope s); // "none" and so on
// Iterates over all routes: *at = 0 first; NULL at the end.
const struct route *router_next(const struct router *r, int *at);

// ---- responses of handlers ---------------------------------------------------------------------
void call_json(struct call *c, int status, struct buf *body);
// Responds with an error in the format of the route. code: OpenAI's error code, or NULL.
void call_error(struct call *c, int status, const char *code, const char *param, const char *fmt,
                ...) __attribute__((format(printf, 5, 6)));
// Responds with the fault and its status; BUSY sends retry as Retry-After.
void call_fault(struct call *c, const struct fault *why, double retry);
int fault_status(const struct fault *why);
// Responds that the key has exceeded its rate; retry: seconds until it may continue.
void call_over_rate(struct call *c, double retry);

// ---- how the client sees this server ------------------------------------------------------------
// Appends the base URL without a final slash, from public-url or from the request; nothing if
// neither has one.
void call_url(const struct call *c, struct buf *out);
// The path prefix of all URLs, such as "/images"; usually "".
const char *call_prefix(const struct call *c);

#endif
