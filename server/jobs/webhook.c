// Webhook calls on the event loop: no redirects, short timeouts, addresses checked when connecting,
// so that a name cannot be redirected after the check. The job core decides when to call and when
// to retry.
#include "webhook.h"

#include "blob.h"
#include "buf.h"
#include "clock.h"
#include "fetch.h"
#include "log.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <uv.h>

enum { WEBHOOK_CONNECT_MS = 3000, WEBHOOK_TOTAL_MS = 10000, WEBHOOK_MOST = 16 };

enum host_match { HOST_NO, HOST_PATTERN, HOST_LISTED };

struct delivery {
    struct delivery *next;
    struct webhook *w;
    char *id, *url;
    struct blob *body;
    enum host_match host;
};

struct webhook {
    struct webhook_params p; // without the secret
    char *secret;
    struct fetch *fetch;
    uv_timer_t timer;
    struct delivery *todo;
    int flying;
    bool closing;
    void (*closed)(void *ctx);
    void *closed_ctx;
};

static void delivery_free(struct delivery *d)
{
    if (!d)
        return;
    free(d->id);
    free(d->url);
    blob_unref(&d->body);
    free(d);
}

// ---- which hosts --------------------------------------------------------------------------------

static enum host_match host_match(const char *allow, const char *host)
{
    enum host_match found = HOST_NO;
    for (const char *at = allow; at && *at;) {
        at += strspn(at, ", ");
        const size_t n = strcspn(at, ", ");
        if (n == strlen(host) && !strncasecmp(at, host, n))
            return HOST_LISTED;
        if (n > 2 && !strncmp(at, "*.", 2) && strlen(host) > n - 1 &&
            !strncasecmp(host + strlen(host) - (n - 1), at + 1, n - 1))
            found = HOST_PATTERN;
        at += n;
    }
    return found;
}

static char *url_host(const char *url)
{
    CURLU *u = curl_url();
    char *host = NULL, *scheme = NULL, *copy = NULL;
    if (u && !curl_url_set(u, CURLUPART_URL, url, 0) &&
        !curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) &&
        (!strcmp(scheme, "http") || !strcmp(scheme, "https")) &&
        !curl_url_get(u, CURLUPART_HOST, &host, 0))
        copy = strdup(host);
    curl_free(host);
    curl_free(scheme);
    curl_url_cleanup(u);
    return copy;
}

enum err webhook_check(const char *allow, const char *url, struct fault *why)
{
    enum err err = ERR_OK;
    char *host;
    if (!allow || !*allow)
        return fault_set(why, ERR_INVALID, "webhook_url", "webhooks are disabled on this server");
    host = url_host(url);
    if (!host)
        err = fault_set(why, ERR_INVALID, "webhook_url",
                        "\"webhook_url\" must be an http or https URL");
    else if (host_match(allow, host) == HOST_NO)
        err = fault_set(why, ERR_INVALID, "webhook_url",
                        "the webhook host \"%.100s\" is not allowed on this server", host);
    free(host);
    return err;
}

static bool private_v4(uint32_t a)
{
    return a >> 24 == 0 || a >> 24 == 10 || a >> 24 == 127 || a >> 20 == 0xac1 ||
           a >> 16 == 0xc0a8 || a >> 16 == 0xa9fe || a >> 22 == 0x191 || a >> 28 >= 0xe;
}

static bool private_v6(const struct in6_addr *a)
{
    uint32_t v4;
    if (IN6_IS_ADDR_V4MAPPED(a)) {
        memcpy(&v4, a->s6_addr + 12, 4);
        return private_v4(ntohl(v4));
    }
    return IN6_IS_ADDR_UNSPECIFIED(a) || IN6_IS_ADDR_LOOPBACK(a) || IN6_IS_ADDR_LINKLOCAL(a) ||
           IN6_IS_ADDR_MULTICAST(a) || (a->s6_addr[0] & 0xfe) == 0xfc;
}

bool webhook_is_private(const struct sockaddr *address)
{
    const void *a = address;
    if (address->sa_family == AF_INET)
        return private_v4(ntohl(((const struct sockaddr_in *)a)->sin_addr.s_addr));
    return address->sa_family != AF_INET6 ||
           private_v6(&((const struct sockaddr_in6 *)a)->sin6_addr);
}

// ---- one call -----------------------------------------------------------------------------------

// The configuration may have changed since the job was accepted: no address is called then.
static bool may_call(void *ctx, const struct sockaddr *address)
{
    const struct delivery *d = ctx;
    return d->host == HOST_LISTED || (d->host == HOST_PATTERN && !webhook_is_private(address));
}

static void send_next(struct webhook *w);

static void on_answer(void *ctx, const struct fetch_result *r)
{
    struct delivery *d = ctx;
    struct webhook *w = d->w;
    const bool ok = r->status / 100 == 2;
    w->flying--;
    if (!w->closing) {
        if (!r->status)
            log_msg(LOG_WARN, "webhook", "%s: %s", d->id, r->why);
        else if (!ok)
            log_msg(LOG_WARN, "webhook", "%s: the receiver responded with status %d", d->id,
                    r->status);
        w->p.done(w->p.ctx, d->id, ok);
    }
    delivery_free(d);
    send_next(w);
}

// "X-Imagend-Signature: t=TIME,v1=MAC"; false if out of memory.
static bool sign(const struct webhook *w, const struct delivery *d, char header[160])
{
    struct buf text = {0};
    char mac[65];
    const long long now = (long long)(clock_unix_ms() / 1000);
    buf_printf(&text, "%lld.", now);
    buf_add(&text, d->body->data, d->body->size);
    const bool ok = !text.failed;
    if (ok) {
        w->p.sign(w->secret, text.data, text.len, mac);
        snprintf(header, 160, "X-Imagend-Signature: t=%lld,v1=%s", now, mac);
    }
    buf_deinit(&text);
    return ok;
}

static void start(struct webhook *w, struct delivery *d)
{
    char header[160];
    const char *const headers[] = {header, "Content-Type: application/json", NULL};
    char *host = url_host(d->url);
    const struct fetch_request r = {
        .method = "POST",
        .url = d->url,
        .headers = headers,
        .body = d->body,
        .connect_ms = WEBHOOK_CONNECT_MS,
        .total_ms = WEBHOOK_TOTAL_MS,
        .allowed = may_call,
    };
    d->host = host ? host_match(w->p.allow, host) : HOST_NO;
    free(host);
    w->flying++;
    if (!sign(w, d, header) || fetch_send(w->fetch, &r, on_answer, d))
        on_answer(d, &(struct fetch_result){.why = err_text(ERR_NO_MEMORY)});
}

static void send_next(struct webhook *w)
{
    while (w->todo && w->flying < WEBHOOK_MOST && !w->closing) {
        struct delivery *d = w->todo;
        w->todo = d->next;
        start(w, d);
    }
}

// ---- the core's side ----------------------------------------------------------------------------

enum err webhook_set_secret(struct webhook *w, const char *secret)
{
    char *copy = strdup(secret);
    if (!copy)
        return ERR_NO_MEMORY;
    free(w->secret);
    w->secret = copy;
    return ERR_OK;
}

static void on_timer(uv_timer_t *t)
{
    send_next(t->data);
}

enum err webhook_send(struct webhook *w, const char *id, const char *url, const char *body)
{
    struct delivery *d = calloc(1, sizeof *d), **at = &w->todo;
    char *copy = strdup(body);
    if (!d || !copy || !(d->id = strdup(id)) || !(d->url = strdup(url)) ||
        !(d->body = blob_create((uint8_t *)copy, strlen(body)))) {
        if (!d || !d->url) // blob_create takes the copy
            free(copy);
        delivery_free(d);
        return ERR_NO_MEMORY;
    }
    d->w = w;
    while (*at)
        at = &(*at)->next;
    *at = d;
    uv_timer_start(&w->timer, on_timer, 0, 0); // the caller is not told before it has returned
    return ERR_OK;
}

enum err webhook_create(const struct webhook_params *p, struct webhook **out, struct fault *why)
{
    struct webhook *w = calloc(1, sizeof *w);
    *out = NULL;
    if (!w || !(w->secret = strdup(p->secret)) || uv_timer_init(p->loop, &w->timer)) {
        free(w ? w->secret : NULL);
        free(w);
        return fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    }
    w->p = *p;
    w->p.secret = NULL;
    w->timer.data = w;
    const enum err err = fetch_open(p->loop, &w->fetch, why);
    if (err)
        webhook_close(w, NULL, NULL);
    else
        *out = w;
    return err;
}

static void on_timer_closed(uv_handle_t *h)
{
    struct webhook *w = h->data;
    void (*closed)(void *ctx) = w->closed;
    void *ctx = w->closed_ctx;
    for (struct delivery *d = w->todo, *next; d; d = next) {
        next = d->next;
        delivery_free(d);
    }
    free(w->secret);
    free(w);
    if (closed)
        closed(ctx);
}

static void on_fetch_closed(void *ctx)
{
    struct webhook *w = ctx;
    uv_close((uv_handle_t *)&w->timer, on_timer_closed);
}

void webhook_close(struct webhook *w, void (*closed)(void *ctx), void *ctx)
{
    w->closed = closed;
    w->closed_ctx = ctx;
    w->closing = true;
    if (w->fetch)
        fetch_close(w->fetch, on_fetch_closed, w);
    else
        on_fetch_closed(w);
}
