// Signatures of requests to S3-compatible stores: AWS Signature Version 4. Thread: any.
#ifndef IMAGEND_SIGV4_H
#define IMAGEND_SIGV4_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf;

enum { SIGV4_DATE = 17 }; // "20130524T000000Z" and a NUL

struct sigv4_key {
    const char *id, *secret, *region;
    // 64 hexadecimal digits and a NUL.
    void (*sha256)(const void *data, size_t n, char out[65]);
    void (*hmac)(const void *key, size_t key_size, const void *data, size_t n, char out[65]);
};

// Path and query as in the request line, with percent encoding; the query sorted by name.
struct sigv4_request {
    const char *method, *path, *query; // query: "" if none
    const char *const (*headers)[2]; // names in lower case and values, sorted by name, with "host"
    int n_headers;
    const char *payload; // SHA-256 of the body in hexadecimal
};

void sigv4_date(int64_t unix_ms, char out[SIGV4_DATE]);
// Appends the value of the header Authorization. The headers include x-amz-date, with this date.
void sigv4_authorize(const struct sigv4_key *k, const struct sigv4_request *r, const char *date,
                     struct buf *out);
// Appends text for use in a path (slashes stay) or a query.
void sigv4_encode(struct buf *out, const char *text, bool path);

#endif
