// Runs libmicrohttpd inside libuv: its epoll descriptor is polled, its timeouts are a timer, and it
// runs only when one of them fires. This file contains limits and the life of the daemon;
// connections are in http_conn.c, requests in http_request.c. Loop thread; knows nothing about
// routes or jobs.
#include "http_impl.h"

#include "clock.h"
#include "log.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    HTTP_SWEEP_MS = 500,
    HTTP_POOL_EXTRA = 16 << 10,
    HTTP_BACKLOG = 4096,
    HTTP_WAKE_BATCH = 100,
    HTTP_OTHER_FILES = 128, // descriptors other than connections: store, images, devices
};

// ---- running the library ----------------------------------------------------------------------

static void on_timeout(uv_timer_t *timer);

static void http_run(struct http_server *s)
{
    MHD_UNSIGNED_LONG_LONG ms;
    // The library's callbacks must not run it again; it runs again right afterwards.
    if (s->running) {
        s->again = true;
        return;
    }
    s->running = true;
    do {
        s->again = false;
        MHD_run(s->daemon);
    } while (s->again && !s->closing);
    s->running = false;
    if (s->closing)
        return;
    if (MHD_get_timeout(s->daemon, &ms) == MHD_YES)
        uv_timer_start(&s->timer, on_timeout, ms < 60000 ? ms : 60000, 0);
    else
        uv_timer_stop(&s->timer);
}

static void on_timeout(uv_timer_t *timer)
{
    http_run(timer->data);
}

static void on_epoll(uv_poll_t *poll, int status, int events)
{
    http_run(poll->data);
}

void http_kick(struct http_server *s)
{
    if (s->running)
        s->again = true;
    else if (!s->closing)
        uv_timer_start(&s->timer, on_timeout, 0, 0);
}

void http_resume(struct http_request *r)
{
    if (!r->suspended)
        return;
    r->suspended = false;
    MHD_resume_connection(r->mhd);
    http_kick(r->server);
}

// One event may go to ten thousand streams. They are resumed in groups, with a turn of the loop
// after each, so that other clients do not wait for all of them.
static void on_waker(uv_idle_t *idle)
{
    struct http_server *s = idle->data;
    for (int i = 0; i < HTTP_WAKE_BATCH && s->wake; i++) {
        struct http_request *r = s->wake;
        http_unwake(r);
        http_resume(r);
    }
    if (!s->wake)
        uv_idle_stop(idle);
    http_run(s);
}

void http_wake(struct http_request *r)
{
    struct http_server *s = r->server;
    if (!r->suspended || r->wake_prev)
        return;
    r->wake_prev = s->wake_end;
    r->wake_next = NULL;
    *s->wake_end = r;
    s->wake_end = &r->wake_next;
    if (!s->closing)
        uv_idle_start(&s->waker, on_waker);
}

void http_unwake(struct http_request *r)
{
    if (!r->wake_prev)
        return;
    *r->wake_prev = r->wake_next;
    if (r->wake_next)
        r->wake_next->wake_prev = r->wake_prev;
    else
        r->server->wake_end = r->wake_prev;
    r->wake_prev = NULL;
}

static void on_sweep(uv_timer_t *timer)
{
    struct http_server *s = timer->data;
    const double now = clock_seconds();
    http_conn_sweep(s, now);
    http_keep_alive(s, now);
}

// ---- requests ---------------------------------------------------------------------------------

static enum MHD_Result http_answer(struct http_request *r)
{
    if (r->response && !r->queued && http_stream_ready(r)) {
        r->queued = true;
        if (!r->streaming)
            http_left(r);
        const enum MHD_Result ok = MHD_queue_response(r->mhd, (unsigned)r->status, r->response);
        MHD_destroy_response(r->response);
        r->response = NULL;
        return ok;
    }
    if (!r->queued && !r->suspended) {
        r->suspended = true;
        MHD_suspend_connection(r->mhd);
        http_watch(r);
    }
    return MHD_YES;
}

// A client that is still sending does not read an error response, so the rest of its body is read
// and discarded, within limits.
static enum MHD_Result http_upload(struct http_request *r, const char *data, size_t *n)
{
    struct http_server *s = r->server;
    const size_t whole = r->body.len + *n;
    r->received += *n;
    if (whole > r->max_body)
        r->refused = true;
    else if (!r->refused && !r->response && !http_claim_body(r, whole))
        r->refused = r->crowded = true;
    if (r->refused || r->response) {
        http_drop_body(r);
        http_unclaim_body(r);
        r->dropped += *n;
    } else {
        buf_add(&r->body, data, *n);
    }
    if (r->dropped > HTTP_DROP * s->p.max_body)
        return MHD_NO;
    *n = 0;
    return MHD_YES;
}

// Whether the client must get a response before its body: the body is too large, or the client
// waits for "100 Continue".
static bool http_answers_early(const struct http_request *r)
{
    const char *length = http_header(r, MHD_HTTP_HEADER_CONTENT_LENGTH);
    return http_header(r, MHD_HTTP_HEADER_EXPECT) ||
           (length && strtoull(length, NULL, 10) > HTTP_DROP * r->server->p.max_body);
}

static void http_handle(struct http_request *r)
{
    struct http_server *s = r->server;
    r->handled = true;
    s->busy++;
    http_conn_mark(r->conn);
    if (!r->response)
        s->p.handle(s->p.ctx, r);
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *mhd, const char *url,
                                  const char *method, const char *version, const char *data,
                                  size_t *n, void **context)
{
    struct http_server *s = cls;
    struct http_request *r = *context;
    if (!r) {
        r = *context = http_request_create(s, mhd, url, method);
        if (!r)
            return MHD_NO;
        s->p.head(s->p.ctx, r);
        if (!r->response || !http_answers_early(r))
            return MHD_YES;
        // The library closes the connection after a response to half a request.
        if (r->conn)
            r->conn->linger = true;
    } else if (*n) {
        return http_upload(r, data, n);
    }
    if (!r->handled)
        http_handle(r);
    return http_answer(r);
}

static void on_completed(void *cls, struct MHD_Connection *mhd, void **context,
                         enum MHD_RequestTerminationCode how)
{
    struct http_server *s = cls;
    struct http_request *r = *context;
    if (!r)
        return;
    *context = NULL;
    if (r->handled)
        s->busy--;
    http_conn_idle(r->conn);
    http_left(r);
    s->p.finished(s->p.ctx, r);
    http_request_free(r);
}

static void on_library_log(void *cls, const char *fmt, va_list ap)
{
    char msg[256];
    if (!log_enabled(LOG_DEBUG))
        return;
    vsnprintf(msg, sizeof msg, fmt, ap);
    msg[strcspn(msg, "\n")] = 0;
    log_msg(LOG_DEBUG, "http", "%s", msg);
}

// ---- opening and closing ----------------------------------------------------------------------

static enum err http_listen(struct http_server *s, struct fault *why)
{
    const struct addrinfo hints = {.ai_family = AF_UNSPEC,
                                   .ai_socktype = SOCK_STREAM,
                                   .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *list = NULL;
    struct sockaddr_storage bound;
    socklen_t size = sizeof bound;
    char port[16];
    const int one = 1;
    snprintf(port, sizeof port, "%d", s->p.port);
    if (getaddrinfo(s->p.host, port, &hints, &list) || !list)
        return fault_set(why, ERR_INVALID, "listen", "cannot resolve %s", s->p.host);
    s->listen_fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (s->listen_fd >= 0)
        setsockopt(s->listen_fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    const bool ok = s->listen_fd >= 0 && !bind(s->listen_fd, list->ai_addr, list->ai_addrlen) &&
                    !listen(s->listen_fd, HTTP_BACKLOG) &&
                    !getsockname(s->listen_fd, (struct sockaddr *)&bound, &size);
    freeaddrinfo(list);
    if (!ok)
        return fault_set(why, ERR_IO, "listen", "cannot listen on %s:%d: %s", s->p.host, s->p.port,
                         strerror(errno));
    s->port = ntohs(bound.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&bound)->sin6_port
                                                : ((struct sockaddr_in *)&bound)->sin_port);
    return ERR_OK;
}

// Without free descriptors the library stops accepting and does not always resume, so there must be
// enough for every allowed connection.
static void http_make_room(struct http_server *s)
{
    const rlim_t wanted = (rlim_t)s->p.max_connections + HTTP_OTHER_FILES;
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) || files.rlim_cur >= wanted)
        return;
    const struct rlimit more = {files.rlim_max < wanted ? files.rlim_max : wanted, files.rlim_max};
    if (!setrlimit(RLIMIT_NOFILE, &more))
        files = more;
    if (files.rlim_cur >= wanted)
        return;
    const int fits = (int)(files.rlim_cur > 2 * HTTP_OTHER_FILES ? files.rlim_cur - HTTP_OTHER_FILES
                                                                 : files.rlim_cur / 2);
    log_msg(LOG_WARN, "http",
            "max-connections %d does not fit into the limit of %llu open files: %d connections "
            "at most; raise the limit to %llu (ulimit -n, LimitNOFILE)",
            s->p.max_connections, (unsigned long long)files.rlim_cur, fits,
            (unsigned long long)wanted);
    s->p.max_connections = fits;
}

static struct MHD_Daemon *http_start(struct http_server *s)
{
    const unsigned flags = MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ITC |
                           MHD_USE_ERROR_LOG | (s->tls ? MHD_USE_TLS : 0);
    struct MHD_OptionItem options[] = {
        {MHD_OPTION_LISTEN_SOCKET, s->listen_fd, NULL},
        {MHD_OPTION_CONNECTION_LIMIT, s->p.max_connections, NULL},
        {MHD_OPTION_CONNECTION_TIMEOUT, 0, NULL}, // http_conn.c implements it
        {MHD_OPTION_CONNECTION_MEMORY_LIMIT, (intptr_t)(s->p.max_header + HTTP_POOL_EXTRA), NULL},
        {MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, NULL},
        {MHD_OPTION_STRICT_FOR_CLIENT, 1, NULL},
        {s->tls ? MHD_OPTION_HTTPS_CERT_CALLBACK : MHD_OPTION_END, 0,
         (void *)(intptr_t)http_tls_choose},
        {MHD_OPTION_END, 0, NULL},
    };
    return MHD_start_daemon(flags, 0, NULL, NULL, on_request, s, MHD_OPTION_EXTERNAL_LOGGER,
                            on_library_log, s, MHD_OPTION_NOTIFY_COMPLETED, on_completed, s,
                            MHD_OPTION_NOTIFY_CONNECTION, http_on_connection, s, MHD_OPTION_ARRAY,
                            options, MHD_OPTION_END);
}

static enum err http_attach(struct http_server *s)
{
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(s->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    if (!info || uv_timer_init(s->p.loop, &s->timer) || uv_timer_init(s->p.loop, &s->sweep))
        return ERR_INTERNAL;
    uv_idle_init(s->p.loop, &s->waker);
    s->timer.data = s->sweep.data = s->epoll.data = s->waker.data = s;
    s->handles = 3;
    if (uv_poll_init(s->p.loop, &s->epoll, info->epoll_fd))
        return ERR_INTERNAL;
    s->handles = 4;
    uv_poll_start(&s->epoll, UV_READABLE, on_epoll);
    uv_timer_start(&s->sweep, on_sweep, HTTP_SWEEP_MS, HTTP_SWEEP_MS);
    return ERR_OK;
}

enum err http_open(const struct http_params *p, struct http_server **out, struct fault *why)
{
    struct http_server *s = calloc(1, sizeof *s);
    struct http_tls *tls = p->tls;
    enum err err;
    *out = NULL;
    if (!s) {
        http_tls_destroy(&tls);
        return fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    }
    s->p = *p;
    if (tls)
        http_use_tls(s, &tls);
    s->listen_fd = -1;
    s->wake_end = &s->wake;
    err = http_listen(s, why);
    if (err)
        goto fail;
    http_make_room(s);
    s->daemon = http_start(s);
    if (!s->daemon) {
        err = fault_set(why, ERR_INTERNAL, "listen", "cannot start the HTTP server; see the log");
        goto fail;
    }
    err = http_attach(s);
    if (err) {
        fault_set(why, err, "", "%s", err_text(err));
        goto fail;
    }
    *out = s;
    return ERR_OK;
fail:
    http_close(s, NULL, NULL);
    return err;
}

int http_port(const struct http_server *s)
{
    return s->port;
}

int http_connections(const struct http_server *s)
{
    return s->connections;
}

int http_busy(const struct http_server *s)
{
    return s->busy;
}

void http_quiesce(struct http_server *s)
{
    if (s->quiet)
        return;
    s->quiet = true;
    MHD_quiesce_daemon(s->daemon);
    close(s->listen_fd);
    s->listen_fd = -1;
}

static void http_free(struct http_server *s)
{
    void (*closed)(void *ctx) = s->closed;
    void *ctx = s->closed_ctx;
    http_tls_close(s);
    free(s);
    if (closed)
        closed(ctx);
}

void http_handle_closed(struct http_server *s)
{
    if (!--s->handles && s->closing)
        http_free(s);
}

static void on_closed(uv_handle_t *h)
{
    http_handle_closed(h->data);
}

void http_close(struct http_server *s, void (*closed)(void *ctx), void *ctx)
{
    s->closed = closed;
    s->closed_ctx = ctx;
    s->closing = true;
    if (s->daemon) {
        // The library must not be stopped while connections are suspended.
        for (struct http_request *r = s->requests; r; r = r->next)
            http_abandon(r);
        http_conn_close_all(s);
        MHD_run(s->daemon);
        MHD_stop_daemon(s->daemon);
    }
    if (s->listen_fd >= 0 && !s->daemon)
        close(s->listen_fd);
    if (!s->handles) {
        http_free(s);
        return;
    }
    if (s->handles >= 4) {
        uv_poll_stop(&s->epoll);
        uv_close((uv_handle_t *)&s->epoll, on_closed);
    }
    uv_close((uv_handle_t *)&s->timer, on_closed);
    uv_close((uv_handle_t *)&s->sweep, on_closed);
    uv_close((uv_handle_t *)&s->waker, on_closed);
}
