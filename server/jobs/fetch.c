// libcurl's multi interface on libuv: curl says which sockets it waits for and until when. Used by
// s3.c and webhook.c. Loop thread.
#include "fetch.h"

#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <uv.h>

enum {
    FETCH_SILENT_SECONDS = 10, // with less than one byte per second
    FETCH_MOST_CONNECTIONS = 16,
};

struct fetch_call {
    struct fetch_call *next;
    struct fetch *f;
    CURL *curl;
    struct curl_slist *headers;
    struct blob *body;
    struct buf got;
    size_t most;
    bool (*allowed)(void *ctx, const struct sockaddr *address);
    void (*done)(void *ctx, const struct fetch_result *r);
    void *ctx;
};

struct fetch {
    uv_loop_t *loop;
    CURLM *multi;
    uv_timer_t timer;
    struct fetch_call *calls;
    int handles; // that are not closed yet
    bool inside, closing;
    void (*closed)(void *ctx);
    void *ctx;
};

// One socket of curl's.
struct fetch_poll {
    uv_poll_t h;
    struct fetch *f;
    curl_socket_t socket;
};

// ---- results ------------------------------------------------------------------------------------

static void call_free(struct fetch_call *c)
{
    curl_easy_cleanup(c->curl);
    curl_slist_free_all(c->headers);
    blob_unref(&c->body);
    buf_deinit(&c->got);
    free(c);
}

static void end_call(struct fetch *f, struct fetch_call *c, CURLcode code)
{
    struct fetch_call **at = &f->calls;
    long status = 0;
    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
    curl_easy_getinfo(c->curl, CURLINFO_RESPONSE_CODE, &status);
    curl_multi_remove_handle(f->multi, c->curl);
    const struct fetch_result r = {
        .status = code ? 0 : (int)status,
        .why = curl_easy_strerror(code),
        .body = &c->got,
    };
    c->done(c->ctx, &r);
    call_free(c);
}

static void on_handle_closed(struct fetch *f)
{
    if (--f->handles)
        return;
    void (*closed)(void *ctx) = f->closed;
    void *ctx = f->ctx;
    free(f);
    curl_global_cleanup();
    if (closed)
        closed(ctx);
}

static void on_timer_closed(uv_handle_t *h)
{
    on_handle_closed(h->data);
}

static void finish_closing(struct fetch *f)
{
    while (f->calls)
        end_call(f, f->calls, CURLE_ABORTED_BY_CALLBACK);
    curl_multi_cleanup(f->multi);
    f->multi = NULL;
    uv_close((uv_handle_t *)&f->timer, on_timer_closed);
}

static void read_results(struct fetch *f)
{
    CURLMsg *m;
    int more;
    f->inside = true;
    while (!f->closing && (m = curl_multi_info_read(f->multi, &more))) {
        const CURLcode code = m->data.result;
        struct fetch_call *c = NULL;
        curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&c);
        if (m->msg == CURLMSG_DONE)
            end_call(f, c, code);
    }
    f->inside = false;
    if (f->closing)
        finish_closing(f);
}

// ---- what curl waits for ------------------------------------------------------------------------

static void on_poll(uv_poll_t *h, int status, int events)
{
    const struct fetch_poll *p = h->data;
    struct fetch *f = p->f;
    const int flags = (events & UV_READABLE ? CURL_CSELECT_IN : 0) |
                      (events & UV_WRITABLE ? CURL_CSELECT_OUT : 0) |
                      (status < 0 ? CURL_CSELECT_ERR : 0);
    int running;
    curl_multi_socket_action(f->multi, p->socket, flags, &running);
    read_results(f);
}

static void on_timer(uv_timer_t *t)
{
    struct fetch *f = t->data;
    int running;
    curl_multi_socket_action(f->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    read_results(f);
}

static int set_timer(CURLM *multi, long ms, void *ctx)
{
    struct fetch *f = ctx;
    if (ms < 0)
        uv_timer_stop(&f->timer);
    else
        uv_timer_start(&f->timer, on_timer, (uint64_t)ms, 0);
    return 0;
}

static void on_poll_closed(uv_handle_t *h)
{
    struct fetch_poll *p = h->data;
    struct fetch *f = p->f;
    free(p);
    on_handle_closed(f);
}

static struct fetch_poll *watch(struct fetch *f, curl_socket_t socket)
{
    struct fetch_poll *p = calloc(1, sizeof *p);
    if (!p || uv_poll_init_socket(f->loop, &p->h, socket)) {
        free(p);
        return NULL;
    }
    p->h.data = p;
    p->f = f;
    p->socket = socket;
    f->handles++;
    curl_multi_assign(f->multi, socket, p);
    return p;
}

static int set_socket(CURL *easy, curl_socket_t socket, int what, void *ctx, void *known)
{
    struct fetch *f = ctx;
    struct fetch_poll *p = known;
    if (what == CURL_POLL_REMOVE) {
        if (p)
            uv_close((uv_handle_t *)&p->h, on_poll_closed);
        curl_multi_assign(f->multi, socket, NULL);
        return 0;
    }
    if (!p && !(p = watch(f, socket)))
        return -1; // the transfer fails
    uv_poll_start(
        &p->h, (what & CURL_POLL_IN ? UV_READABLE : 0) | (what & CURL_POLL_OUT ? UV_WRITABLE : 0),
        on_poll);
    return 0;
}

// ---- requests -----------------------------------------------------------------------------------

static size_t receive(char *data, size_t size, size_t n, void *ctx)
{
    struct fetch_call *c = ctx;
    if (!c->most)
        return size * n;
    if (size * n > c->most - c->got.len)
        return 0; // the transfer fails
    buf_add(&c->got, data, size * n);
    return c->got.failed ? 0 : size * n;
}

static curl_socket_t open_socket(void *ctx, curlsocktype purpose, struct curl_sockaddr *a)
{
    const struct fetch_call *c = ctx;
    if (c->allowed && !c->allowed(c->ctx, &a->addr))
        return CURL_SOCKET_BAD;
    return socket(a->family, a->socktype | SOCK_CLOEXEC, a->protocol);
}

static bool set_options(struct fetch_call *c, const struct fetch_request *r)
{
    CURL *h = c->curl;
    for (int i = 0; r->headers[i]; i++) {
        struct curl_slist *more = curl_slist_append(c->headers, r->headers[i]);
        if (!more)
            return false;
        c->headers = more;
    }
    bool ok = !curl_easy_setopt(h, CURLOPT_URL, r->url) &&
              !curl_easy_setopt(h, CURLOPT_CUSTOMREQUEST, r->method) &&
              !curl_easy_setopt(h, CURLOPT_PROTOCOLS_STR, "http,https");
    if (r->body) {
        curl_easy_setopt(h, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)r->body->size);
        curl_easy_setopt(h, CURLOPT_POSTFIELDS, (const char *)r->body->data);
    }
    curl_easy_setopt(h, CURLOPT_HTTPHEADER, c->headers);
    curl_easy_setopt(h, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(h, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(h, CURLOPT_USERAGENT, "imagend");
    curl_easy_setopt(h, CURLOPT_PROXY, "");
    curl_easy_setopt(h, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(h, CURLOPT_CONNECTTIMEOUT_MS, (long)r->connect_ms);
    curl_easy_setopt(h, CURLOPT_TIMEOUT_MS, (long)r->total_ms);
    curl_easy_setopt(h, CURLOPT_OPENSOCKETFUNCTION, open_socket);
    curl_easy_setopt(h, CURLOPT_OPENSOCKETDATA, c);
    curl_easy_setopt(h, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(h, CURLOPT_LOW_SPEED_TIME, (long)FETCH_SILENT_SECONDS);
    curl_easy_setopt(h, CURLOPT_WRITEFUNCTION, receive);
    curl_easy_setopt(h, CURLOPT_WRITEDATA, c);
    curl_easy_setopt(h, CURLOPT_PRIVATE, c);
    return ok;
}

enum err fetch_send(struct fetch *f, const struct fetch_request *r,
                    void (*done)(void *ctx, const struct fetch_result *r), void *ctx)
{
    struct fetch_call *c = f->closing ? NULL : calloc(1, sizeof *c);
    if (!c)
        return ERR_NO_MEMORY;
    c->f = f;
    c->most = r->most;
    c->allowed = r->allowed;
    c->done = done;
    c->ctx = ctx;
    c->curl = curl_easy_init();
    c->body = r->body ? blob_ref(r->body) : NULL;
    if (!c->curl || !set_options(c, r) || curl_multi_add_handle(f->multi, c->curl)) {
        call_free(c);
        return ERR_NO_MEMORY;
    }
    c->next = f->calls;
    f->calls = c;
    return ERR_OK;
}

// ---- opening and closing ------------------------------------------------------------------------

enum err fetch_open(struct uv_loop_s *loop, struct fetch **out, struct fault *why)
{
    struct fetch *f = calloc(1, sizeof *f);
    *out = NULL;
    if (!f || curl_global_init(CURL_GLOBAL_DEFAULT)) {
        free(f);
        return fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    }
    f->multi = curl_multi_init();
    if (!f->multi || uv_timer_init(loop, &f->timer)) {
        curl_multi_cleanup(f->multi);
        curl_global_cleanup();
        free(f);
        return fault_set(why, ERR_INTERNAL, "", "cannot set up libcurl");
    }
    f->loop = loop;
    f->handles = 1;
    f->timer.data = f;
    curl_multi_setopt(f->multi, CURLMOPT_SOCKETFUNCTION, set_socket);
    curl_multi_setopt(f->multi, CURLMOPT_SOCKETDATA, f);
    curl_multi_setopt(f->multi, CURLMOPT_TIMERFUNCTION, set_timer);
    curl_multi_setopt(f->multi, CURLMOPT_TIMERDATA, f);
    curl_multi_setopt(f->multi, CURLMOPT_MAX_HOST_CONNECTIONS, (long)FETCH_MOST_CONNECTIONS);
    *out = f;
    return ERR_OK;
}

void fetch_close(struct fetch *f, void (*closed)(void *ctx), void *ctx)
{
    f->closed = closed;
    f->ctx = ctx;
    f->closing = true;
    if (!f->inside)
        finish_closing(f);
}
