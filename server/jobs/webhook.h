// Delivers webhooks. Disabled unless hosts are allowed; private addresses are
// called only if the host is listed by its full name.
#ifndef IMAGEND_WEBHOOK_H
#define IMAGEND_WEBHOOK_H

#include "err.h"

#include <stdbool.h>
#include <stddef.h>

struct uv_loop_s;
struct webhook;

struct webhook_params {
    struct uv_loop_s *loop;
    const char *allow;  // "hooks.example.com, *.example.org"; must outlive the webhook
    const char *secret; // copied
    // 64 hexadecimal digits of HMAC-SHA-256.
    void (*sign)(const char *secret, const void *data, size_t n, char out[65]);
    // A delivery finished; ok: the status was 2xx. Thread: loop.
    void (*done)(void *ctx, const char *id, bool ok);
    void *ctx;
};

// Errors: NO_MEMORY, INTERNAL.
enum err webhook_create(const struct webhook_params *p, struct webhook **out, struct fault *why);
// Replaces the secret for later deliveries. Errors: NO_MEMORY (nothing changes). Thread: loop.
enum err webhook_set_secret(struct webhook *w, const char *secret);
// Aborts deliveries in progress; closed is called when the last handle is closed.
void webhook_close(struct webhook *w, void (*closed)(void *ctx), void *ctx);

// Checks that the URL is valid and its host allowed. allow NULL or "": no host.
enum err webhook_check(const char *allow, const char *url, struct fault *why);
struct sockaddr;
// Whether an address is local, private or multicast. Thread: any.
bool webhook_is_private(const struct sockaddr *address);
// Copies its arguments. Errors: NO_MEMORY. Thread: loop.
enum err webhook_send(struct webhook *w, const char *id, const char *url, const char *body);

#endif
