// One request: its properties and immediate responses. Loop thread; deferred responses are in
// http_stream.c.
#include "http_impl.h"

#include "clock.h"
#include "text.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <sys/socket.h>

// ---- identity -----------------------------------------------------------------------------------

static void make_id(char *out, size_t n)
{
    unsigned char bytes[12] = {0};
    if (getrandom(bytes, sizeof bytes, 0) < 0)
        bytes[0] = 0; // a repeated id does little harm
    struct buf b = {0};
    text_hex(&b, bytes, sizeof bytes);
    snprintf(out, n, "req_%s", b.data ? b.data : "0");
    buf_deinit(&b);
}

// A client's own id goes into headers and logs, so it must be short and plain.
static bool plain_id(const char *id, size_t max)
{
    size_t n = 0;
    for (; id[n]; n++)
        if (!isalnum((unsigned char)id[n]) && !strchr("-_.:/", id[n]))
            return false;
    return n > 0 && n < max;
}

// traceparent: 00-<32 hex trace id>-<16 hex parent>-<2 hex flags>
static void take_trace(struct http_request *r)
{
    const char *t = http_header(r, "traceparent");
    if (!t || strlen(t) < 55 || t[2] != '-' || t[35] != '-' || t[52] != '-')
        return;
    for (int i = 3; i < 35; i++)
        if (!isxdigit((unsigned char)t[i]))
            return;
    snprintf(r->trace, sizeof r->trace, "%.32s", t + 3);
}

// A socket for IPv4 and IPv6 shows IPv4 clients as ::ffff:a.b.c.d.
static void take_v6(const struct in6_addr *a, struct http_request *r)
{
    if (IN6_IS_ADDR_V4MAPPED(a))
        inet_ntop(AF_INET, a->s6_addr + 12, r->client, sizeof r->client);
    else
        inet_ntop(AF_INET6, a, r->client, sizeof r->client);
}

static void take_client(struct http_request *r)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(r->mhd, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    const struct sockaddr *a = info ? info->client_addr : NULL;
    if (a && a->sa_family == AF_INET)
        inet_ntop(AF_INET, &((const struct sockaddr_in *)(const void *)a)->sin_addr, r->client,
                  sizeof r->client);
    else if (a && a->sa_family == AF_INET6)
        take_v6(&((const struct sockaddr_in6 *)(const void *)a)->sin6_addr, r);
}

struct http_request *http_request_create(struct http_server *s, struct MHD_Connection *mhd,
                                         const char *path, const char *method)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct http_request *r = calloc(1, sizeof *r);
    if (!r || !(r->raw = strdup(path))) {
        free(r);
        return NULL;
    }
    r->server = s;
    r->mhd = mhd;
    r->conn = info ? info->socket_context : NULL;
    if (r->conn)
        r->conn->request = r;
    r->started = clock_seconds();
    r->max_body = s->p.max_body;
    snprintf(r->method, sizeof r->method, "%s", method);
    const char *id = http_header(r, "X-Request-Id");
    if (id && plain_id(id, sizeof r->id))
        snprintf(r->id, sizeof r->id, "%s", id);
    else
        make_id(r->id, sizeof r->id);
    take_trace(r);
    take_client(r);
    r->next = s->requests;
    r->prev = &s->requests;
    if (s->requests)
        s->requests->prev = &r->next;
    s->requests = r;
    return r;
}

void http_request_free(struct http_request *r)
{
    http_unwake(r);
    *r->prev = r->next;
    if (r->next)
        r->next->prev = r->prev;
    if (r->user_free)
        r->user_free(r->user);
    if (r->response)
        MHD_destroy_response(r->response);
    for (int i = 0; i < r->extras; i++) {
        free(r->extra[i].name);
        free(r->extra[i].value);
    }
    http_unclaim_body(r);
    buf_deinit(&r->body);
    buf_deinit(&r->stream);
    free(r->raw);
    free(r->path);
    free(r);
}

// ---- what the client sent -----------------------------------------------------------------------

const char *http_method(const struct http_request *r)
{
    return r->method;
}

const char *http_path(const struct http_request *r)
{
    return r->path ? r->path : r->raw;
}

const char *http_raw_path(const struct http_request *r)
{
    return r->raw;
}

void http_set_path(struct http_request *r, const char *path)
{
    free(r->path);
    r->path = strdup(path);
}

const char *http_header(const struct http_request *r, const char *name)
{
    return MHD_lookup_connection_value(r->mhd, MHD_HEADER_KIND, name);
}

struct join_header {
    const char *name;
    struct buf *out;
};

static enum MHD_Result on_join(void *cls, enum MHD_ValueKind kind, const char *name,
                               const char *value)
{
    const struct join_header *j = cls;
    if (value && !strcasecmp(name, j->name)) {
        buf_puts(j->out, j->out->len ? ", " : "");
        buf_puts(j->out, value);
    }
    return MHD_YES;
}

void http_join_header(const struct http_request *r, const char *name, struct buf *out)
{
    struct join_header j = {name, out};
    MHD_get_connection_values(r->mhd, MHD_HEADER_KIND, on_join, &j);
}

struct each_query {
    void (*fn)(void *ctx, const char *name, const char *value);
    void *ctx;
};

static enum MHD_Result on_query(void *cls, enum MHD_ValueKind kind, const char *name,
                                const char *value)
{
    const struct each_query *e = cls;
    e->fn(e->ctx, name, value ? value : "");
    return MHD_YES;
}

void http_each_query(const struct http_request *r,
                     void (*fn)(void *ctx, const char *name, const char *value), void *ctx)
{
    struct each_query e = {fn, ctx};
    MHD_get_connection_values(r->mhd, MHD_GET_ARGUMENT_KIND, on_query, &e);
}

static enum MHD_Result on_header_size(void *cls, enum MHD_ValueKind kind, const char *name,
                                      const char *value)
{
    *(size_t *)cls += strlen(name) + (value ? strlen(value) : 0) + 4;
    return MHD_YES;
}

size_t http_header_bytes(const struct http_request *r)
{
    size_t n = strlen(r->raw);
    MHD_get_connection_values(r->mhd, MHD_HEADER_KIND, on_header_size, &n);
    MHD_get_connection_values(r->mhd, MHD_GET_ARGUMENT_KIND, on_header_size, &n);
    return n;
}

struct buf *http_body(struct http_request *r)
{
    return &r->body;
}

bool http_too_large(const struct http_request *r)
{
    return r->refused;
}

bool http_crowded(const struct http_request *r)
{
    return r->crowded;
}

void http_allow_body(struct http_request *r, size_t max_body)
{
    r->max_body = max_body;
}

bool http_claim_body(struct http_request *r, size_t size)
{
    struct http_server *s = r->server;
    const size_t more = size > r->claimed ? size - r->claimed : 0;
    // Smaller bodies are bounded by their size and the number of connections, and must not wait for
    // large ones.
    if (size <= s->p.max_body || !more)
        return true;
    if (s->bodies > s->p.max_bodies || more > s->p.max_bodies - s->bodies)
        return false;
    s->bodies += more;
    r->claimed += more;
    return true;
}

void http_unclaim_body(struct http_request *r)
{
    r->server->bodies -= r->claimed;
    r->claimed = 0;
}

void http_drop_body(struct http_request *r)
{
    buf_deinit(&r->body);
}

void http_set_max_bodies(struct http_server *s, size_t max_bodies)
{
    s->p.max_bodies = max_bodies;
}

const char *http_id(const struct http_request *r)
{
    return r->id;
}

const char *http_trace_id(const struct http_request *r)
{
    return r->trace;
}

const char *http_client(const struct http_request *r)
{
    return r->client;
}

void http_set_client(struct http_request *r, const char *address)
{
    snprintf(r->client, sizeof r->client, "%s", address);
}

bool http_is_tls(const struct http_request *r)
{
    return r->server->tls;
}

double http_started(const struct http_request *r)
{
    return r->started;
}

int http_status(const struct http_request *r)
{
    return r->status;
}

size_t http_sent(const struct http_request *r)
{
    return r->sent;
}

void http_set_user(struct http_request *r, void *user, void (*free_fn)(void *user))
{
    r->user = user;
    r->user_free = free_fn;
}

void *http_user(const struct http_request *r)
{
    return r->user;
}

// ---- the answer ---------------------------------------------------------------------------------

void http_set_header(struct http_request *r, const char *name, const char *fmt, ...)
{
    struct buf b = {0};
    va_list ap;
    va_start(ap, fmt);
    buf_vprintf(&b, fmt, ap);
    va_end(ap);
    char *value = buf_take(&b);
    if (r->extras == HTTP_MAX_HEADERS || !value || strpbrk(value, "\r\n")) {
        free(value);
        return;
    }
    struct http_extra *x = &r->extra[r->extras];
    x->name = strdup(name);
    x->value = value;
    r->extras += x->name != NULL;
    if (!x->name)
        free(value);
}

void http_set_response(struct http_request *r, int status, const char *type,
                       struct MHD_Response *response)
{
    r->status = status;
    r->response = response;
    if (!response)
        return;
    if (type)
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    MHD_add_response_header(response, "X-Request-Id", r->id);
    for (int i = 0; i < r->extras; i++)
        MHD_add_response_header(response, r->extra[i].name, r->extra[i].value);
    if (r->close || r->server->quiet)
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
    http_resume(r);
}

void http_reply(struct http_request *r, int status, const char *type, struct buf *body)
{
    const size_t n = body ? body->len : 0;
    char *data = n ? buf_take(body) : NULL;
    if (body && !data)
        buf_deinit(body);
    if (n && !data)
        status = 500;
    r->gone = NULL;
    r->sent = data ? n : 0;
    http_set_response(
        r, status, type,
        MHD_create_response_from_buffer(data ? n : 0, data,
                                        data ? MHD_RESPMEM_MUST_FREE : MHD_RESPMEM_PERSISTENT));
}

void http_reply_bytes(struct http_request *r, int status, const char *type, const void *data,
                      size_t n, void (*free_fn)(void *owner), void *owner)
{
    r->gone = NULL;
    r->sent = n;
    http_set_response(
        r, status, type,
        MHD_create_response_from_buffer_with_free_callback_cls(n, (void *)data, free_fn, owner));
}
