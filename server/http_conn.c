// Connections: timeouts, and closing connections that were refused while the client was still
// sending. Loop thread; knows only whether a request is in progress.
#include "http_impl.h"

#include "clock.h"
#include "http_tcp.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    LINGER_MAX = 64,        // maximum number of connections
    LINGER_BYTES = 1 << 28, // per connection
    LINGER_CHUNK = 64 << 10,
    LINGER_READS = 16, // per turn, so that other clients need not wait
    CONN_ENDED_SECONDS = 1,
};

struct http_linger {
    struct http_linger *next, **prev;
    struct http_server *server;
    uv_poll_t poll;
    int fd;
    size_t left;
    double until;
};

// ---- refused while still sending ----------------------------------------------------------------

// Closing a socket with unread bytes resets it, and the client may lose the response. So the bytes
// are read and discarded until the client has received the whole response, or until a timeout.

static void on_linger_closed(uv_handle_t *h)
{
    struct http_linger *l = h->data;
    struct http_server *s = l->server;
    close(l->fd);
    free(l);
    http_handle_closed(s);
}

static void linger_end(struct http_linger *l)
{
    *l->prev = l->next;
    if (l->next)
        l->next->prev = l->prev;
    l->server->lingers--;
    uv_poll_stop(&l->poll);
    uv_close((uv_handle_t *)&l->poll, on_linger_closed);
}

static void on_linger(uv_poll_t *poll, int status, int events)
{
    static char bytes[LINGER_CHUNK];
    struct http_linger *l = poll->data;
    for (int i = 0; i < LINGER_READS && !status; i++) {
        const ssize_t n = recv(l->fd, bytes, sizeof bytes, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n <= 0 || (size_t)n >= l->left)
            status = -1;
        else
            l->left -= (size_t)n;
    }
    if (status)
        linger_end(l);
}

// The library closes its descriptor after this; a copy keeps the socket.
static void linger_begin(struct http_server *s, const struct http_conn *c)
{
    struct http_linger *l = s->lingers < LINGER_MAX ? calloc(1, sizeof *l) : NULL;
    if (!l)
        return;
    l->fd = fcntl(c->fd, F_DUPFD_CLOEXEC, 0);
    if (l->fd < 0 || uv_poll_init(s->p.loop, &l->poll, l->fd)) {
        if (l->fd >= 0)
            close(l->fd);
        free(l);
        return;
    }
    s->handles++;
    s->lingers++;
    l->server = s;
    l->poll.data = l;
    l->left = LINGER_BYTES;
    l->until = clock_seconds() + s->p.receive_seconds;
    l->next = s->linger;
    l->prev = &s->linger;
    if (l->next)
        l->next->prev = &l->next;
    s->linger = l;
    uv_poll_start(&l->poll, UV_READABLE, on_linger);
}

void http_conn_close_all(struct http_server *s)
{
    while (s->linger)
        linger_end(s->linger);
    for (struct http_conn *c = s->conns; c; c = c->next) {
        c->linger = false;
        shutdown(c->fd, SHUT_RDWR);
    }
}

// ---- opened and closed ------------------------------------------------------------------------

static void conn_open(struct http_server *s, struct MHD_Connection *mhd, void **context)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct http_conn *c = *context = calloc(1, sizeof *c);
    if (!c)
        return;
    c->fd = info ? info->connect_fd : -1;
    c->since = clock_seconds();
    c->tls = http_tls_begin(s);
    c->next = s->conns;
    c->prev = &s->conns;
    if (s->conns)
        s->conns->prev = &c->next;
    s->conns = c;
    s->connections++;
}

void http_on_connection(void *cls, struct MHD_Connection *mhd, void **context,
                        enum MHD_ConnectionNotificationCode what)
{
    struct http_server *s = cls;
    struct http_conn *c = *context;
    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        conn_open(s, mhd, context);
        return;
    }
    if (!c)
        return;
    *c->prev = c->next;
    if (c->next)
        c->next->prev = c->prev;
    // At its limit the library removes the listening socket from its epoll set, and adds it again
    // only when it runs.
    if (s->connections-- >= s->p.max_connections)
        http_kick(s);
    if (c->linger && !s->closing)
        linger_begin(s, c);
    http_tls_end(s, c->tls);
    free(c);
    *context = NULL;
}

// ---- how long ---------------------------------------------------------------------------------

void http_conn_mark(struct http_conn *c)
{
    struct http_tcp tcp = {0};
    if (!c)
        return;
    http_tcp_look(c->fd, &tcp);
    c->received = tcp.received;
}

void http_conn_idle(struct http_conn *c)
{
    if (!c)
        return;
    c->request = NULL;
    c->receiving = false;
    c->since = clock_seconds();
}

// The end of a response may still be in transit when the connection is already idle. Streams
// without new data are suspended and do not count.
static bool conn_stuck(const struct http_server *s, struct http_conn *c, const struct http_tcp *tcp,
                       double now)
{
    if (!c->sending || !tcp->pending || tcp->acked != c->acked) {
        c->acked = tcp->acked;
        c->moved = now;
    }
    c->sending = tcp->pending;
    return now - c->moved > s->p.send_seconds;
}

// The time allowed for a request to arrive; longer for a large body.
static double receive_time(const struct http_server *s, const struct http_request *r)
{
    const double beyond = r ? (double)r->received - (double)s->p.max_body : 0;
    return s->p.receive_seconds + (beyond > 0 ? beyond / HTTP_SLOWEST : 0);
}

// A connection without a request is idle until bytes arrive; from then on the whole request must
// arrive in time, so that slow clients cannot hold connections.
static bool conn_late(const struct http_server *s, struct http_conn *c, const struct http_tcp *tcp,
                      double now)
{
    const bool receiving = tcp->received != c->received;
    if ((receiving && !c->receiving) || (tcp->ended && !c->ended))
        c->since = now;
    c->receiving |= receiving;
    c->ended = tcp->ended;
    const double limit = c->ended       ? CONN_ENDED_SECONDS // the rest will never arrive
                         : c->receiving ? receive_time(s, c->request)
                                        : s->p.idle_seconds;
    return now - c->since > limit;
}

void http_conn_sweep(struct http_server *s, double now)
{
    for (struct http_linger *l = s->linger, *next; l; l = next) {
        next = l->next;
        if (now > l->until)
            linger_end(l);
    }
    for (struct http_conn *c = s->conns; c; c = c->next) {
        const bool answering = c->request && c->request->handled;
        if (c->fd < 0 || (answering && (!c->request->queued || c->request->suspended)))
            continue;
        struct http_tcp tcp = {.received = c->received};
        http_tcp_look(c->fd, &tcp);
        if (conn_stuck(s, c, &tcp, now) || (!answering && conn_late(s, c, &tcp, now)))
            shutdown(c->fd, SHUT_RDWR);
    }
}
