// Requests to an S3-compatible store: the bucket is in the path, the body is signed. Used by
// store_s3.c. Loop thread.
#include "s3.h"

#include "clock.h"
#include "fetch.h"
#include "s3_xml.h"
#include "sigv4.h"

#include <stdlib.h>
#include <string.h>

enum {
    S3_MOST_BYTES = 256 << 20,
    S3_MOST_TEXT = 2 << 20,
    S3_MOST_KEY = 4096,
    S3_CONNECT_MS = 3000,
    S3_TOTAL_MS = 60000
};

struct s3 {
    struct fetch *fetch;
    char *endpoint, *host, *bucket, *prefix, *region, *key_file;
    struct buf key;          // the access key ID, NUL, the secret, NUL
    struct sigv4_key signer; // points into key
    void (*closed)(void *ctx);
    void *ctx;
};

// ---- the key ------------------------------------------------------------------------------------

// The first line of the file is the access key's ID, the second one its secret.
static enum err read_key(struct s3 *s, struct fault *why)
{
    struct buf b = {0};
    const enum err err = buf_read_file(&b, s->key_file, S3_MOST_KEY, why);
    char *id = b.data, *save = NULL;
    if (err)
        return err;
    id = id ? strtok_r(id, " \t\r\n", &save) : NULL;
    char *secret = id ? strtok_r(NULL, " \t\r\n", &save) : NULL;
    if (!secret) {
        buf_deinit(&b);
        return fault_set(why, ERR_INVALID, "s3-key-file",
                         "s3-key-file must contain two lines: the access key's ID and its secret");
    }
    if (s->key.data)
        explicit_bzero(s->key.data, s->key.cap);
    buf_deinit(&s->key);
    s->key = b;
    s->signer.id = id;
    s->signer.secret = secret;
    return ERR_OK;
}

// ---- answers ------------------------------------------------------------------------------------

static const char *const methods[] = {"PUT", "GET", "DELETE", "GET"};

static void read_answer(struct s3_call *c, const struct fetch_result *r)
{
    char code[S3_CODE];
    struct fault ignored;
    const int status = r->status;
    if (!status) {
        fault_set(&c->why, ERR_BUSY, "", "%s", r->why);
        return;
    }
    if (status / 100 == 2)
        return;
    s3_xml_code(r->body->data ? r->body->data : "", r->body->len, code);
    const bool none = status == 404 && strcmp(code, "NoSuchBucket");
    if (none && c->verb == S3_DELETE)
        return;
    const bool again = status / 100 != 4 || status == 401 || status == 403 || status == 404 ||
                       status == 408 || status == 429;
    fault_set(&c->why,
              none && c->verb == S3_GET ? ERR_NOT_FOUND
              : again                   ? ERR_BUSY
                                        : ERR_IO,
              "", "%s was answered with status %d%s%s", methods[c->verb], status, *code ? " " : "",
              code);
    if (status == 401 || status == 403) // the key may have been replaced
        read_key(c->s3, &ignored);
}

static void on_answer(void *ctx, const struct fetch_result *r)
{
    struct s3_call *c = ctx;
    read_answer(c, r);
    if (!c->why.code && c->verb == S3_GET) {
        const size_t n = r->body->len;
        char *data = n ? buf_take(r->body) : NULL;
        c->blob = data ? blob_create((uint8_t *)data, n) : NULL;
        if (!n)
            fault_set(&c->why, ERR_NOT_FOUND, "", "the object is empty");
        else if (!c->blob)
            fault_set(&c->why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    } else if (!c->why.code && c->verb == S3_LIST) {
        c->found = *r->body;
        *r->body = (struct buf){0};
    }
    c->done(c);
}

bool s3_found(const struct s3_call *c, size_t *at, char *key, size_t size)
{
    char whole[1100];
    const size_t skip = strlen(c->s3->prefix);
    while (s3_xml_key(c->found.data ? c->found.data : "", c->found.len, at, whole, sizeof whole)) {
        if (strncmp(whole, c->s3->prefix, skip) || strlen(whole + skip) >= size)
            continue;
        memcpy(key, whole + skip, strlen(whole + skip) + 1);
        return true;
    }
    return false;
}

// ---- requests -----------------------------------------------------------------------------------

static void add_path(const struct s3 *s, const struct s3_call *c, struct buf *out)
{
    buf_puts(out, "/");
    sigv4_encode(out, s->bucket, false);
    if (c->verb == S3_LIST)
        return;
    buf_puts(out, "/");
    sigv4_encode(out, s->prefix, true);
    sigv4_encode(out, c->key, true);
}

// Sorted by name, as it is signed.
static void add_query(const struct s3 *s, const struct s3_call *c, struct buf *out)
{
    if (c->verb != S3_LIST)
        return;
    buf_printf(out, "list-type=2&max-keys=%d&prefix=", c->most);
    sigv4_encode(out, s->prefix, false);
    if (*c->key) {
        buf_puts(out, "&start-after=");
        sigv4_encode(out, s->prefix, false);
        sigv4_encode(out, c->key, false);
    }
}

// The texts of one request.
struct s3_request {
    struct buf path, query, url, authorization, lines;
};

static void request_deinit(struct s3_request *r)
{
    buf_deinit(&r->path);
    buf_deinit(&r->query);
    buf_deinit(&r->url);
    buf_deinit(&r->authorization);
    buf_deinit(&r->lines);
}

// The headers as lines, each ended by a NUL.
static void add_lines(const struct sigv4_request *r, struct s3_request *texts)
{
    for (int i = 0; i < r->n_headers; i++)
        buf_printf(&texts->lines, "%s: %s%c", r->headers[i][0], r->headers[i][1], 0);
    buf_printf(&texts->lines, "Authorization: %s%c", texts->authorization.data, 0);
    buf_printf(&texts->lines, "Expect:%c", 0);
}

static bool make_request(struct s3 *s, const struct s3_call *c, struct s3_request *texts)
{
    char date[SIGV4_DATE], hash[65];
    const bool put = c->verb == S3_PUT;
    sigv4_date(clock_unix_ms(), date);
    s->signer.sha256(put ? (const void *)c->blob->data : "", put ? c->blob->size : 0, hash);
    const char *const headers[][2] = {{"content-type", put ? c->type : ""},
                                      {"host", s->host},
                                      {"x-amz-content-sha256", hash},
                                      {"x-amz-date", date}};
    add_path(s, c, &texts->path);
    add_query(s, c, &texts->query);
    buf_printf(&texts->url, "%s%s", s->endpoint, texts->path.data);
    if (texts->query.len)
        buf_printf(&texts->url, "?%s", texts->query.data);
    const struct sigv4_request r = {
        .method = methods[c->verb],
        .path = texts->path.data,
        .query = texts->query.len ? texts->query.data : "",
        .headers = headers + !put,
        .n_headers = 3 + put,
        .payload = hash,
    };
    if (texts->path.failed || texts->query.failed)
        return false;
    sigv4_authorize(&s->signer, &r, date, &texts->authorization);
    if (!texts->authorization.failed)
        add_lines(&r, texts);
    return !texts->authorization.failed && !texts->lines.failed && !texts->url.failed;
}

void s3_send(struct s3 *s, struct s3_call *c)
{
    struct s3_request texts = {0};
    const char *headers[8];
    int n = 0;
    c->s3 = s;
    c->why = (struct fault){0};
    bool ok = make_request(s, c, &texts);
    for (size_t at = 0; ok && at < texts.lines.len; at += strlen(texts.lines.data + at) + 1)
        headers[n++] = texts.lines.data + at;
    headers[n] = NULL;
    const struct fetch_request r = {
        .method = methods[c->verb],
        .url = texts.url.data,
        .headers = headers,
        .body = c->verb == S3_PUT ? c->blob : NULL,
        .most = c->verb == S3_GET ? S3_MOST_BYTES : S3_MOST_TEXT,
        .connect_ms = S3_CONNECT_MS,
        .total_ms = S3_TOTAL_MS,
    };
    ok = ok && !fetch_send(s->fetch, &r, on_answer, c);
    request_deinit(&texts);
    if (ok)
        return;
    fault_set(&c->why, ERR_BUSY, "", "%s", err_text(ERR_NO_MEMORY));
    c->done(c);
}

struct s3_call *s3_call_create(enum s3_verb verb, char *key, void (*done)(struct s3_call *c),
                               void *ctx)
{
    struct s3_call *c = key ? calloc(1, sizeof *c) : NULL;
    if (!c) {
        free(key);
        return NULL;
    }
    c->verb = verb;
    c->key = key;
    c->done = done;
    c->ctx = ctx;
    return c;
}

void s3_call_free(struct s3_call *c)
{
    if (!c)
        return;
    free(c->key);
    blob_unref(&c->blob);
    buf_deinit(&c->found);
    free(c);
}

// ---- opening and closing ------------------------------------------------------------------------

static void s3_free(void *ctx)
{
    struct s3 *s = ctx;
    if (s->key.data)
        explicit_bzero(s->key.data, s->key.cap);
    buf_deinit(&s->key);
    free(s->endpoint);
    free(s->host);
    free(s->bucket);
    free(s->prefix);
    free(s->region);
    free(s->key_file);
    void (*closed)(void *ctx) = s->closed;
    void *closed_ctx = s->ctx;
    free(s);
    if (closed)
        closed(closed_ctx);
}

enum err s3_open(const struct s3_params *p, struct s3 **out, struct fault *why)
{
    struct s3 *s = calloc(1, sizeof *s);
    *out = NULL;
    if (!s)
        return fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    s->endpoint = strdup(p->endpoint);
    s->host = strdup(p->host);
    s->bucket = strdup(p->bucket);
    s->prefix = strdup(p->prefix);
    s->region = strdup(p->region);
    s->key_file = strdup(p->key_file);
    s->signer = (struct sigv4_key){.region = s->region, .sha256 = p->sha256, .hmac = p->hmac};
    enum err err = ERR_OK;
    if (!s->endpoint || !s->host || !s->bucket || !s->prefix || !s->region || !s->key_file)
        err = fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    if (!err)
        err = read_key(s, why);
    if (!err)
        err = fetch_open(p->loop, &s->fetch, why);
    if (err)
        s3_free(s);
    else
        *out = s;
    return err;
}

void s3_close(struct s3 *s, void (*closed)(void *ctx), void *ctx)
{
    s->closed = closed;
    s->ctx = ctx;
    fetch_close(s->fetch, s3_free, s);
}
