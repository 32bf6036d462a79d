// A client for one bucket of an S3-compatible store, on the event loop. Each call is one request;
// store_s3.c repeats those that fail. Never logs or returns the secret. Thread: loop.
#ifndef IMAGEND_S3_H
#define IMAGEND_S3_H

#include "blob.h"
#include "buf.h"
#include "err.h"

#include <stdbool.h>

struct s3;
struct uv_loop_s;

enum s3_verb {
    S3_PUT,    // blob, type
    S3_GET,    // blob
    S3_DELETE, // succeeds if there is no such object
    S3_LIST,   // found: the keys after key, at most `most` of them
};

struct s3_call {
    enum s3_verb verb;
    char *key; // without the bucket's prefix
    const char *type;
    struct blob *blob;
    int most;
    void (*done)(struct s3_call *c); // frees the call with s3_call_free
    void *ctx;
    // Results. BUSY: the store is away, or refuses everything; NOT_FOUND; IO: it refuses this
    // request. The message is for the log.
    struct fault why;
    struct buf found; // for s3_found
    struct s3 *s3;    // private
};

struct s3_params {
    struct uv_loop_s *loop;
    const char *endpoint; // "https://s3.example.org:9000"
    const char *host;     // the same without the scheme, and without the scheme's own port
    const char *bucket, *prefix, *region; // prefix: "" or "a/b/", characters that need no encoding
    const char *key_file;                 // two lines: the ID of the access key, its secret
    void (*sha256)(const void *data, size_t n, char out[65]);
    void (*hmac)(const void *key, size_t key_size, const void *data, size_t n, char out[65]);
};

// Copies the texts. Errors: INVALID (the key file), NOT_FOUND, IO, NO_MEMORY, INTERNAL.
enum err s3_open(const struct s3_params *p, struct s3 **out, struct fault *why);
// NULL if out of memory. Owner: takes key.
struct s3_call *s3_call_create(enum s3_verb verb, char *key, void (*done)(struct s3_call *c),
                               void *ctx);
void s3_call_free(struct s3_call *c);
void s3_send(struct s3 *s, struct s3_call *c);
// The next key that a list found, without the prefix; *at begins with 0. False: there is none.
bool s3_found(const struct s3_call *c, size_t *at, char *key, size_t size);
// Aborts all calls, whose done is called, then calls closed.
void s3_close(struct s3 *s, void (*closed)(void *ctx), void *ctx);

#endif
