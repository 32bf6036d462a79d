// Deferred responses and streams, and detection of clients that disconnect while the library does
// not watch their socket. Loop thread.
#include "http_impl.h"

#include "clock.h"

#include <stdlib.h>
#include <string.h>

enum { HTTP_KEEPALIVE_SECONDS = 15 };
#define HTTP_START_SECONDS .05 // time for a proxy to finish reading a request

// ---- disconnects -------------------------------------------------------------------------------

static void on_watch_closed(uv_handle_t *h)
{
    free(h);
}

static void http_unwatch(struct http_request *r)
{
    if (!r->watch)
        return;
    uv_poll_stop(r->watch);
    uv_close((uv_handle_t *)r->watch, on_watch_closed);
    r->watch = NULL;
}

void http_left(struct http_request *r)
{
    void (*gone)(void *ctx) = r->gone;
    http_unwatch(r);
    r->gone = NULL;
    if (gone)
        gone(r->gone_ctx);
}

void http_abandon(struct http_request *r)
{
    r->broken = r->close = true;
    http_left(r);
    if (!r->queued && !r->response)
        http_set_response(r, 503, NULL,
                          MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT));
    http_resume(r);
}

// A client that closes only its sending half is treated as disconnected: the two look the same
// until something is sent.
static void on_watch(uv_poll_t *poll, int status, int events)
{
    if (status < 0 || events & UV_DISCONNECT)
        http_abandon(poll->data);
}

void http_watch(struct http_request *r)
{
    if (r->watch || !r->conn || r->conn->fd < 0)
        return;
    uv_poll_t *poll = malloc(sizeof *poll);
    if (!poll || uv_poll_init(r->server->p.loop, poll, r->conn->fd)) {
        free(poll);
        return;
    }
    poll->data = r;
    r->watch = poll;
    uv_poll_start(poll, UV_DISCONNECT, on_watch);
}

// ---- streams -----------------------------------------------------------------------------------

void http_defer(struct http_request *r, void (*gone)(void *ctx), void *ctx)
{
    r->gone = gone;
    r->gone_ctx = ctx;
}

// Called by the library for more bytes. If there are none, suspend before returning 0; otherwise it
// calls again immediately.
static ssize_t on_read(void *cls, uint64_t pos, char *to, size_t max)
{
    struct http_request *r = cls;
    size_t n = r->stream.len - r->stream_at;
    if (r->broken)
        return MHD_CONTENT_READER_END_WITH_ERROR;
    if (!n && r->stream_done)
        return MHD_CONTENT_READER_END_OF_STREAM;
    if (!n) {
        r->suspended = true;
        MHD_suspend_connection(r->mhd);
        http_watch(r);
        return 0;
    }
    n = n < max ? n : max;
    memcpy(to, r->stream.data + r->stream_at, n);
    r->stream_at += n;
    r->sent += n;
    if (r->stream_at == r->stream.len) {
        // An idle stream keeps no buffer, because there may be ten thousand of them.
        buf_deinit(&r->stream);
        r->stream_at = 0;
    }
    return (ssize_t)n;
}

void http_stream(struct http_request *r, int status, const char *type, void (*gone)(void *ctx),
                 void *ctx)
{
    r->streaming = true;
    r->written = clock_seconds();
    r->gone = gone;
    r->gone_ctx = ctx;
    http_set_response(r, status, type,
                      MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 16384, on_read, r, NULL));
}

// Go's HTTP server closes a request's body when the response starts. A proxy in Go (seen with Caddy
// 2.6) that has forwarded the body, but not read its end yet, then breaks off. Therefore the
// headers wait for the first data, or for a sweep some time later.
bool http_stream_ready(const struct http_request *r)
{
    return !r->streaming || !r->received || r->stream.len || r->stream_done || r->stream_due ||
           r->broken;
}

void http_stream_keepalive(struct http_request *r, const char *text)
{
    r->keepalive = text;
    r->written = clock_seconds();
}

void http_keep_alive(struct http_server *s, double now)
{
    for (struct http_request *r = s->requests, *next; r; r = next) {
        next = r->next;
        if (r->streaming && !r->queued && now - r->written > HTTP_START_SECONDS) {
            r->stream_due = true;
            http_resume(r);
        }
        if (r->keepalive && !r->stream_done && now - r->written > HTTP_KEEPALIVE_SECONDS)
            http_stream_write(r, r->keepalive, strlen(r->keepalive));
    }
}

bool http_stream_write(struct http_request *r, const void *data, size_t n)
{
    if (r->broken || r->stream_done)
        return false;
    // One event may be larger: an image in base64.
    if (r->stream.len - r->stream_at > HTTP_STREAM_MAX || r->stream.failed) {
        http_abandon(r);
        return false;
    }
    if (r->stream_at > r->stream.len / 2) {
        memmove(r->stream.data, r->stream.data + r->stream_at, r->stream.len - r->stream_at);
        r->stream.len -= r->stream_at;
        r->stream_at = 0;
    }
    buf_add(&r->stream, data, n);
    if (r->keepalive)
        r->written = clock_seconds();
    http_wake(r);
    return true;
}

void http_stream_end(struct http_request *r)
{
    r->gone = NULL;
    r->stream_done = true;
    http_wake(r);
}
