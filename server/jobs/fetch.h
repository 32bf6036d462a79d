// HTTP requests to other servers by libcurl on the event loop: no redirects, no proxy. Thread:
// loop.
#ifndef IMAGEND_FETCH_H
#define IMAGEND_FETCH_H

#include "blob.h"
#include "buf.h"
#include "err.h"

struct fetch;
struct sockaddr;
struct uv_loop_s;

struct fetch_request {
    const char *method, *url;
    const char *const *headers; // "Name: value"; NULL at the end
    struct blob *body;          // NULL: none
    size_t most;                // bytes of the response that are accepted; 0: they are dropped
    int connect_ms, total_ms;   // time limits
    // Whether an address may be called, so that a name cannot be redirected after a check. NULL:
    // any. ctx: as for done.
    bool (*allowed)(void *ctx, const struct sockaddr *address);
};

struct fetch_result {
    int status;       // 0: no response, see why
    const char *why;  // one sentence without the URL
    struct buf *body; // Owner: the fetch; the receiver may take the contents
};

// Errors: NO_MEMORY, INTERNAL.
enum err fetch_open(struct uv_loop_s *loop, struct fetch **out, struct fault *why);
// Starts a request; done is called later, also when it is aborted. Copies the request. Errors:
// NO_MEMORY.
enum err fetch_send(struct fetch *f, const struct fetch_request *r,
                    void (*done)(void *ctx, const struct fetch_result *r), void *ctx);
// Aborts all requests, then calls closed.
void fetch_close(struct fetch *f, void (*closed)(void *ctx), void *ctx);

#endif
