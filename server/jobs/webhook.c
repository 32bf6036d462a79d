// Webhook calls with libcurl on one thread: no redirects, short timeouts, addresses checked when
// connecting, so that a name cannot be redirected after the check. The job core decides when to
// call and when to retry.
#include "webhook.h"

#include "buf.h"
#include "clock.h"
#include "log.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <uv.h>

enum { WEBHOOK_CONNECT_MS = 3000, WEBHOOK_TOTAL_MS = 10000 };

struct delivery {
    struct delivery *next;
    char *id, *url, *body;
    bool ok;
};

struct webhook {
    struct webhook_params p; // without the secret
    char *secret;
    uv_thread_t thread;
    uv_mutex_t lock;
    uv_cond_t changed;
    uv_async_t async;
    struct delivery *todo, *done;
    atomic_bool stop;
    void (*closed)(void *ctx);
    void *closed_ctx;
};

static void delivery_free(struct delivery *d)
{
    if (!d)
        return;
    free(d->id);
    free(d->url);
    free(d->body);
    free(d);
}

// ---- which hosts --------------------------------------------------------------------------------

enum host_match { HOST_NO, HOST_PATTERN, HOST_LISTED };

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

static curl_socket_t open_socket(void *ctx, curlsocktype purpose, struct curl_sockaddr *address)
{
    const bool *any = ctx;
    if (!*any && webhook_is_private(&address->addr))
        return CURL_SOCKET_BAD;
    return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

// ---- one call -----------------------------------------------------------------------------------

static size_t drop(char *data, size_t size, size_t n, void *ctx)
{
    return size * n;
}

static int on_progress(void *ctx, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    const struct webhook *w = ctx;
    return atomic_load(&w->stop);
}

static void sign(struct webhook *w, const struct buf *text, char mac[65])
{
    uv_mutex_lock(&w->lock);
    w->p.sign(w->secret, text->data, text->len, mac);
    uv_mutex_unlock(&w->lock);
}

static struct curl_slist *signed_headers(struct webhook *w, const struct delivery *d)
{
    struct curl_slist *list = NULL;
    struct buf text = {0};
    char mac[65], header[160];
    const long long now = (long long)(clock_unix_ms() / 1000);
    buf_printf(&text, "%lld.%s", now, d->body);
    if (!text.failed) {
        sign(w, &text, mac);
        snprintf(header, sizeof header, "X-Imagend-Signature: t=%lld,v1=%s", now, mac);
        list = curl_slist_append(NULL, header);
        if (list)
            curl_slist_append(list, "Content-Type: application/json");
    }
    buf_deinit(&text);
    return list;
}

static bool run_call(struct webhook *w, const struct delivery *d)
{
    CURL *c = curl_easy_init();
    struct curl_slist *headers = signed_headers(w, d);
    char *host = url_host(d->url);
    bool any = host && host_match(w->p.allow, host) == HOST_LISTED;
    long status = 0;
    CURLcode code = CURLE_OUT_OF_MEMORY;
    // The configuration may have changed since the job was accepted.
    if (c && headers && host && host_match(w->p.allow, host) != HOST_NO) {
        curl_easy_setopt(c, CURLOPT_URL, d->url);
        curl_easy_setopt(c, CURLOPT_POSTFIELDS, d->body);
        curl_easy_setopt(c, CURLOPT_HTTPHEADER, headers);
        curl_easy_setopt(c, CURLOPT_USERAGENT, "imagend");
        curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
        curl_easy_setopt(c, CURLOPT_PROXY, "");
        curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
        curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT_MS, (long)WEBHOOK_CONNECT_MS);
        curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, (long)WEBHOOK_TOTAL_MS);
        curl_easy_setopt(c, CURLOPT_OPENSOCKETFUNCTION, open_socket);
        curl_easy_setopt(c, CURLOPT_OPENSOCKETDATA, &any);
        curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, drop);
        curl_easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
        curl_easy_setopt(c, CURLOPT_XFERINFOFUNCTION, on_progress);
        curl_easy_setopt(c, CURLOPT_XFERINFODATA, w);
        code = curl_easy_perform(c);
        curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &status);
    }
    if (code)
        log_msg(LOG_WARN, "webhook", "%s: %s", d->id, curl_easy_strerror(code));
    else if (status / 100 != 2)
        log_msg(LOG_WARN, "webhook", "%s: the receiver responded with status %ld", d->id, status);
    free(host);
    curl_slist_free_all(headers);
    curl_easy_cleanup(c);
    return !code && status / 100 == 2;
}

static void run_thread(void *arg)
{
    struct webhook *w = arg;
    uv_mutex_lock(&w->lock);
    while (!atomic_load(&w->stop)) {
        struct delivery *d = w->todo;
        if (!d) {
            uv_cond_wait(&w->changed, &w->lock);
            continue;
        }
        w->todo = d->next;
        uv_mutex_unlock(&w->lock);
        d->ok = run_call(w, d);
        uv_mutex_lock(&w->lock);
        d->next = w->done;
        w->done = d;
        uv_async_send(&w->async);
    }
    uv_mutex_unlock(&w->lock);
}

// ---- the loop's side ----------------------------------------------------------------------------

static void on_async(uv_async_t *async)
{
    struct webhook *w = async->data;
    uv_mutex_lock(&w->lock);
    struct delivery *d = w->done;
    w->done = NULL;
    uv_mutex_unlock(&w->lock);
    while (d) {
        struct delivery *next = d->next;
        w->p.done(w->p.ctx, d->id, d->ok);
        delivery_free(d);
        d = next;
    }
}

enum err webhook_set_secret(struct webhook *w, const char *secret)
{
    char *copy = strdup(secret), *old;
    if (!copy)
        return ERR_NO_MEMORY;
    uv_mutex_lock(&w->lock);
    old = w->secret;
    w->secret = copy;
    uv_mutex_unlock(&w->lock);
    free(old);
    return ERR_OK;
}

enum err webhook_send(struct webhook *w, const char *id, const char *url, const char *body)
{
    struct delivery *d = calloc(1, sizeof *d);
    if (!d || !(d->id = strdup(id)) || !(d->url = strdup(url)) || !(d->body = strdup(body))) {
        delivery_free(d);
        return ERR_NO_MEMORY;
    }
    uv_mutex_lock(&w->lock);
    struct delivery **at = &w->todo;
    while (*at)
        at = &(*at)->next;
    *at = d;
    uv_cond_signal(&w->changed);
    uv_mutex_unlock(&w->lock);
    return ERR_OK;
}

enum err webhook_create(const struct webhook_params *p, struct webhook **out, struct fault *why)
{
    struct webhook *w = calloc(1, sizeof *w);
    *out = NULL;
    if (!w || !(w->secret = strdup(p->secret)) || curl_global_init(CURL_GLOBAL_DEFAULT)) {
        free(w ? w->secret : NULL);
        free(w);
        return fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    }
    w->p = *p;
    w->p.secret = NULL;
    if (uv_mutex_init(&w->lock) || uv_cond_init(&w->changed) ||
        uv_async_init(p->loop, &w->async, on_async)) {
        free(w->secret);
        free(w);
        return fault_set(why, ERR_INTERNAL, "", "cannot create the webhook locks");
    }
    w->async.data = w;
    if (uv_thread_create(&w->thread, run_thread, w)) {
        atomic_store(&w->stop, true);
        webhook_close(w, NULL, NULL);
        return fault_set(why, ERR_INTERNAL, "", "cannot start the webhook thread");
    }
    *out = w;
    return ERR_OK;
}

static void on_closed(uv_handle_t *h)
{
    struct webhook *w = h->data;
    void (*closed)(void *ctx) = w->closed;
    void *ctx = w->closed_ctx;
    struct delivery *lists[] = {w->todo, w->done};
    for (int i = 0; i < 2; i++) {
        for (struct delivery *d = lists[i], *next; d; d = next) {
            next = d->next;
            delivery_free(d);
        }
    }
    uv_cond_destroy(&w->changed);
    uv_mutex_destroy(&w->lock);
    curl_global_cleanup();
    free(w->secret);
    free(w);
    if (closed)
        closed(ctx);
}

void webhook_close(struct webhook *w, void (*closed)(void *ctx), void *ctx)
{
    w->closed = closed;
    w->closed_ctx = ctx;
    if (!atomic_exchange(&w->stop, true)) {
        uv_mutex_lock(&w->lock);
        uv_cond_signal(&w->changed);
        uv_mutex_unlock(&w->lock);
        uv_thread_join(&w->thread);
    }
    uv_close((uv_handle_t *)&w->async, on_closed);
}
