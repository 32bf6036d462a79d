// The thread of a store with a blocking library: runs the calls that have arrived together, in
// order, and delivers their results on the loop thread.
#ifndef IMAGEND_STORE_THREAD_H
#define IMAGEND_STORE_THREAD_H

#include "err.h"

struct store;
struct store_call;
struct store_thread;
struct uv_loop_s;

struct store_thread_params {
    struct uv_loop_s *loop;
    struct store *store;
    // Executes a list of calls, linked by next, on the store's thread; none is answered before it
    // returns.
    void (*run)(struct store *s, struct store_call *first);
    // Sees each call before its done. Thread: loop.
    void (*answered)(struct store *s, struct store_call *c);
};
// Errors: NO_MEMORY, INTERNAL.
enum err store_thread_create(const struct store_thread_params *p, struct store_thread **out,
                             struct fault *why);
// Thread: loop.
void store_thread_post(struct store_thread *t, struct store_call *c);
// Finishes all posted calls, including those posted by done functions. closed is called when the
// thread has ended and the last handle is closed. Thread: loop.
void store_thread_close(struct store_thread *t, void (*closed)(void *ctx), void *ctx);

#endif
