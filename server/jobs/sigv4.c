// AWS Signature Version 4 as S3 wants it: paths are encoded once, and x-amz-content-sha256 names
// the payload. Called by s3.c. Any thread.
#include "sigv4.h"

#include "buf.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

enum { DIGEST = 32 };

void sigv4_date(int64_t unix_ms, char out[SIGV4_DATE])
{
    const time_t t = (time_t)(unix_ms / 1000);
    struct tm tm = {0};
    gmtime_r(&t, &tm);
    strftime(out, SIGV4_DATE, "%Y%m%dT%H%M%SZ", &tm);
}

void sigv4_encode(struct buf *out, const char *text, bool path)
{
    static const char plain[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
    for (const char *p = text; *p; p++) {
        if (strchr(plain, *p) || (path && *p == '/'))
            buf_putc(out, *p);
        else
            buf_printf(out, "%%%02X", (unsigned)(unsigned char)*p);
    }
}

static void add_signed_names(const struct sigv4_request *r, struct buf *out)
{
    for (int i = 0; i < r->n_headers; i++)
        buf_printf(out, "%s%s", i ? ";" : "", r->headers[i][0]);
}

// The canonical request of the specification.
static void add_canonical(const struct sigv4_request *r, struct buf *out)
{
    buf_printf(out, "%s\n%s\n%s\n", r->method, r->path, r->query);
    for (int i = 0; i < r->n_headers; i++)
        buf_printf(out, "%s:%s\n", r->headers[i][0], r->headers[i][1]);
    buf_puts(out, "\n");
    add_signed_names(r, out);
    buf_printf(out, "\n%s", r->payload);
}

static void add_scope(const struct sigv4_key *k, const char *date, struct buf *out)
{
    buf_printf(out, "%.8s/%s/s3/aws4_request", date, k->region);
}

static unsigned digit(char c)
{
    return (unsigned)(c <= '9' ? c - '0' : c - 'a' + 10);
}

static void hmac(const struct sigv4_key *k, const void *key, size_t n, const char *text,
                 unsigned char out[DIGEST])
{
    char hex[2 * DIGEST + 1];
    k->hmac(key, n, text, strlen(text), hex);
    for (int i = 0; i < DIGEST; i++)
        out[i] = (unsigned char)(digit(hex[2 * i]) << 4 | digit(hex[2 * i + 1]));
}

static void add_signature(const struct sigv4_key *k, const struct sigv4_request *r,
                          const char *date, struct buf *out)
{
    struct buf canonical = {0}, text = {0}, first = {0};
    unsigned char key[DIGEST];
    char hash[2 * DIGEST + 1], day[9];
    add_canonical(r, &canonical);
    k->sha256(canonical.data ? canonical.data : "", canonical.len, hash);
    buf_printf(&text, "AWS4-HMAC-SHA256\n%s\n", date);
    add_scope(k, date, &text);
    buf_printf(&text, "\n%s", hash);
    buf_printf(&first, "AWS4%s", k->secret);
    snprintf(day, sizeof day, "%.8s", date);
    if (canonical.failed || text.failed || first.failed) {
        out->failed = true;
    } else {
        hmac(k, first.data, first.len, day, key);
        hmac(k, key, DIGEST, k->region, key);
        hmac(k, key, DIGEST, "s3", key);
        hmac(k, key, DIGEST, "aws4_request", key);
        k->hmac(key, DIGEST, text.data, text.len, hash);
        buf_puts(out, hash);
        explicit_bzero(first.data, first.len);
    }
    explicit_bzero(key, sizeof key);
    buf_deinit(&canonical);
    buf_deinit(&text);
    buf_deinit(&first);
}

void sigv4_authorize(const struct sigv4_key *k, const struct sigv4_request *r, const char *date,
                     struct buf *out)
{
    buf_printf(out, "AWS4-HMAC-SHA256 Credential=%s/", k->id);
    add_scope(k, date, out);
    buf_puts(out, ",SignedHeaders=");
    add_signed_names(r, out);
    buf_puts(out, ",Signature=");
    add_signature(k, r, date, out);
}
