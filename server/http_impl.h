// Shared by http*.c: the types of libmicrohttpd. Private to these files.
#ifndef IMAGEND_HTTP_IMPL_H
#define IMAGEND_HTTP_IMPL_H

#include "buf.h"
#include "http.h"

#include <gnutls/abstract.h>
#include <microhttpd.h>
#include <uv.h>

enum { HTTP_STREAM_MAX = 16 << 20, HTTP_MAX_HEADERS = 24 };

struct http_conn {
    struct http_conn *next, **prev;
    int fd;
    struct http_request *request; // in progress
    double since;                 // when it became idle, or its next request began to arrive
    double moved;                 // when the client last received part of the response
    uint64_t received, acked;     // byte counts at that time
    bool receiving, sending, ended;
    bool linger; // it will be closed while the client is still sending
    struct http_tls *tls;
};

struct http_linger;

struct http_server {
    struct http_params p;
    struct MHD_Daemon *daemon;
    int listen_fd, port;
    uv_poll_t epoll;
    uv_timer_t timer;     // the library's timeouts
    uv_idle_t waker;      // runs while streams wait in `wake`
    uv_timer_t sweep;     // our own timeouts
    struct http_tls *tls; // list from the oldest in use to the newest; NULL: plain HTTP
    struct http_conn *conns;
    struct http_request *requests;
    struct http_request *wake, **wake_end;
    struct http_linger *linger;
    int connections, busy, lingers, handles;
    size_t bodies; // bytes reserved for large bodies
    bool quiet, closing, running, again;
    void (*closed)(void *ctx);
    void *closed_ctx;
};

struct http_extra {
    char *name, *value;
};

struct http_request {
    struct http_request *next, **prev; // list of all requests
    struct http_server *server;
    struct MHD_Connection *mhd;
    struct http_conn *conn;
    char *raw, *path; // path: rewritten path; NULL: same as raw
    char method[16];
    char id[72], trace[40], client[48];
    struct buf body;
    double started;
    size_t max_body, claimed, received, dropped, sent;
    int status;
    bool handled, refused, crowded, queued, suspended, close;
    struct MHD_Response *response;
    struct http_extra extra[HTTP_MAX_HEADERS];
    int extras;
    uv_poll_t *watch; // detects a disconnect while the library does not watch
    void (*gone)(void *ctx);
    void *gone_ctx;
    struct buf stream;
    size_t stream_at;
    struct http_request *wake_next, **wake_prev; // list of streams with new data
    bool streaming, stream_done, broken;
    bool stream_due; // the response starts even without data
    const char *keepalive;
    double written; // when the stream was last written to
    void *user;
    void (*user_free)(void *user);
};

// http.c
void http_resume(struct http_request *r); // immediately
void http_wake(struct http_request *r);   // later, in turn; for streams
void http_unwake(struct http_request *r);
void http_kick(struct http_server *s); // makes the library check its connections soon
void http_handle_closed(struct http_server *s);

// http_conn.c
void http_on_connection(void *cls, struct MHD_Connection *mhd, void **context,
                        enum MHD_ConnectionNotificationCode what);
void http_conn_mark(struct http_conn *c); // its request is complete; later bytes are the next
void http_conn_idle(struct http_conn *c); // its request has ended
void http_conn_sweep(struct http_server *s, double now);
void http_conn_close_all(struct http_server *s);

// http_request.c
struct http_request *http_request_create(struct http_server *s, struct MHD_Connection *mhd,
                                         const char *path, const char *method);
void http_request_free(struct http_request *r);
void http_set_response(struct http_request *r, int status, const char *type,
                       struct MHD_Response *response);

// http_stream.c
void http_watch(struct http_request *r); // until http_left
void http_left(struct http_request *r);  // stops watching; calls gone if it was not called yet
bool http_stream_ready(const struct http_request *r);    // whether its headers may be sent
void http_keep_alive(struct http_server *s, double now); // also starts the streams that are due
void http_abandon(struct http_request *r); // makes the library end it, whatever its state

// http_tls.c
int http_tls_choose(gnutls_session_t session, const gnutls_datum_t *ca, int n,
                    const gnutls_pk_algorithm_t *algorithms, int algorithm_count,
                    gnutls_pcert_st **chain, unsigned *count, gnutls_privkey_t *key);
struct http_tls *http_tls_begin(struct http_server *s); // for a new connection
void http_tls_end(struct http_server *s, struct http_tls *t);
void http_tls_close(struct http_server *s);

#endif
