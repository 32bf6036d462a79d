// HTTP without the types of libmicrohttpd: one server on the libuv loop. A request gets an
// immediate response, a deferred one, or a stream. Thread: the loop's.
#ifndef IMAGEND_HTTP_H
#define IMAGEND_HTTP_H

#include "err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf;
struct uv_loop_s;
struct http_server;
struct http_request;
struct http_tls;

// A refused body is read and discarded up to this multiple of max_body, so that the connection
// stays open. If Content-Length exceeds that, the response is sent immediately and the connection
// closed.
enum { HTTP_DROP = 8 };
// Minimum bytes per second for the part of a body beyond max_body.
enum { HTTP_SLOWEST = 256 << 10 };

typedef void http_fn(void *ctx, struct http_request *r);

struct http_params {
    struct uv_loop_s *loop;
    const char *host;            // an address or a name
    int port;                    // 0: any free port
    struct http_tls *tls;        // NULL: plain HTTP. Owner: the server
    size_t max_body, max_header; // bytes
    size_t max_bodies;           // total bytes of all bodies larger than max_body
    int max_connections;
    double receive_seconds; // for a whole request to arrive
    double idle_seconds;    // without a request
    double send_seconds;    // without progress while sending
    http_fn *head;          // the headers have arrived; replying here discards the body
    http_fn *handle;        // the whole request has arrived; replies, defers or starts a stream
    http_fn *finished;      // the response was sent, or the client disconnected
    void *ctx;
};

// Errors: INVALID (host), IO (bind), INTERNAL; with *why filled. Owner: takes p->tls, also on
// error.
enum err http_open(const struct http_params *p, struct http_server **out, struct fault *why);
// Loads a certificate chain and its private key from PEM texts. Owner: the caller, until a server
// takes it. Errors: INVALID with the option in why->param, NO_MEMORY.
enum err http_tls_create(const char *cert, const char *key, struct http_tls **out,
                         struct fault *why);
void http_tls_destroy(struct http_tls **t);
void http_set_max_bodies(struct http_server *s, size_t max_bodies);
// Uses this certificate for new connections; only for a server with TLS. Owner: takes *tls and sets
// it to NULL.
void http_use_tls(struct http_server *s, struct http_tls **tls);
int http_port(const struct http_server *s);
// Stops accepting connections; open ones close after their current response.
void http_quiesce(struct http_server *s);
// The number of open connections, and of those with a request in progress.
int http_connections(const struct http_server *s);
int http_busy(const struct http_server *s);
// Closes every connection. closed is called when the last handle is closed.
void http_close(struct http_server *s, void (*closed)(void *ctx), void *ctx);

// ---- request: strings are valid as long as the request -----------------------------------------
const char *http_method(const struct http_request *r);
const char *http_path(const struct http_request *r);     // decoded, without the query
const char *http_raw_path(const struct http_request *r); // before http_set_path
void http_set_path(struct http_request *r, const char *path);
const char *http_header(const struct http_request *r, const char *name); // NULL: absent
// Appends the values of all headers with this name, joined by commas.
void http_join_header(const struct http_request *r, const char *name, struct buf *out);
// Calls fn for each query parameter.
void http_each_query(const struct http_request *r,
                     void (*fn)(void *ctx, const char *name, const char *value), void *ctx);
struct buf *http_body(struct http_request *r);     // may be modified in place
bool http_too_large(const struct http_request *r); // the body exceeded the limit
bool http_crowded(const struct http_request *r);   // other large bodies left no room for it
// Raises the limit for this request's body; only in params.head.
void http_allow_body(struct http_request *r, size_t max_body);
// Reserves memory for a body before it arrives, until the request ends or gives it back; false if
// other large bodies use all of it.
bool http_claim_body(struct http_request *r, size_t size);
void http_unclaim_body(struct http_request *r);
// Frees the body. What was made from it may still need the memory that it claimed.
void http_drop_body(struct http_request *r);
const char *http_id(const struct http_request *r);       // X-Request-Id, the client's or generated
const char *http_trace_id(const struct http_request *r); // from traceparent, or ""
const char *http_client(const struct http_request *r);   // address
void http_set_client(struct http_request *r, const char *address);
size_t http_header_bytes(const struct http_request *r);
bool http_is_tls(const struct http_request *r);
double http_started(const struct http_request *r); // clock_seconds
int http_status(const struct http_request *r);     // 0: no response yet
size_t http_sent(const struct http_request *r);    // body bytes sent

// User data of a request; free_fn is called when the request ends.
void http_set_user(struct http_request *r, void *user, void (*free_fn)(void *user));
void *http_user(const struct http_request *r);

// ---- response ----------------------------------------------------------------------------------

// Call before the reply. Invalid headers are omitted.
void http_set_header(struct http_request *r, const char *name, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
// Responds with the bytes of body and empties it. type NULL: no body, no Content-Type.
void http_reply(struct http_request *r, int status, const char *type, struct buf *body);
// Responds with bytes that stay valid until free_fn(owner) is called.
void http_reply_bytes(struct http_request *r, int status, const char *type, const void *data,
                      size_t n, void (*free_fn)(void *owner), void *owner);
// Defers the response to a later http_reply on the loop thread. If the client disconnects first,
// gone is called instead, and r must not be used afterwards.
void http_defer(struct http_request *r, void (*gone)(void *ctx), void *ctx);
// Starts a streamed response. gone: as in http_defer.
void http_stream(struct http_request *r, int status, const char *type, void (*gone)(void *ctx),
                 void *ctx);
// Sets the text to send after some seconds of silence, so that proxies keep the stream open.
void http_stream_keepalive(struct http_request *r, const char *text);
// False if the client reads too slowly; the stream is then aborted and gone called.
bool http_stream_write(struct http_request *r, const void *data, size_t n);
void http_stream_end(struct http_request *r);

#endif
