// A thread for a store, see store_thread.h. Knows nothing about the content of calls.
#include "store_thread.h"

#include "store.h"

#include <stdbool.h>
#include <stdlib.h>
#include <uv.h>

// Calls in order of arrival.
struct line {
    struct store_call *first, **last;
};

// The most calls that run together: those that are first wait for the last to be answered.
enum { MOST_TOGETHER = 64 };

struct store_thread {
    struct store_thread_params p;
    uv_thread_t thread;
    uv_async_t async;
    uv_mutex_t lock; // protects the lines and stop
    uv_cond_t changed;
    struct line asked, answered;
    bool stop;
    // the loop thread's
    int under_way;
    bool closing;
    void (*closed)(void *ctx);
    void *ctx;
};

static void line_init(struct line *l)
{
    l->first = NULL;
    l->last = &l->first;
}

static void line_add(struct line *l, struct store_call *c)
{
    c->next = NULL;
    *l->last = c;
    l->last = &c->next;
}

// Moves the first calls of a line, at least one, into another.
static void line_take(struct line *l, struct line *out)
{
    *out = *l;
    struct store_call **end = &l->first;
    for (int i = 0; i < MOST_TOGETHER && *end; i++)
        end = &(*end)->next;
    if (!(l->first = *end))
        line_init(l);
    *end = NULL;
    out->last = end;
}

static void run_thread(void *arg)
{
    struct store_thread *t = arg;
    uv_mutex_lock(&t->lock);
    for (;;) {
        struct line now;
        while (!t->asked.first && !t->stop)
            uv_cond_wait(&t->changed, &t->lock);
        if (!t->asked.first)
            break;
        line_take(&t->asked, &now);
        uv_mutex_unlock(&t->lock);
        t->p.run(t->p.store, now.first);
        uv_mutex_lock(&t->lock);
        *t->answered.last = now.first;
        t->answered.last = now.last;
        uv_async_send(&t->async);
    }
    uv_mutex_unlock(&t->lock);
}

static void thread_on_closed(uv_handle_t *h)
{
    struct store_thread *t = h->data;
    void (*closed)(void *ctx) = t->closed;
    void *ctx = t->ctx;
    uv_cond_destroy(&t->changed);
    uv_mutex_destroy(&t->lock);
    free(t);
    if (closed)
        closed(ctx);
}

static void thread_try_end(struct store_thread *t)
{
    if (!t->closing || t->under_way || uv_is_closing((uv_handle_t *)&t->async))
        return;
    uv_mutex_lock(&t->lock);
    t->stop = true;
    uv_cond_signal(&t->changed);
    uv_mutex_unlock(&t->lock);
    uv_thread_join(&t->thread);
    uv_close((uv_handle_t *)&t->async, thread_on_closed);
}

static void thread_on_async(uv_async_t *async)
{
    struct store_thread *t = async->data;
    uv_mutex_lock(&t->lock);
    struct store_call *c = t->answered.first;
    line_init(&t->answered);
    uv_mutex_unlock(&t->lock);
    for (struct store_call *next; c; c = next) {
        next = c->next;
        t->under_way--;
        t->p.answered(t->p.store, c);
        c->done(c);
    }
    thread_try_end(t);
}

enum err store_thread_create(const struct store_thread_params *p, struct store_thread **out,
                             struct fault *why)
{
    struct store_thread *t = calloc(1, sizeof *t);
    *out = NULL;
    if (!t)
        return fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    t->p = *p;
    line_init(&t->asked);
    line_init(&t->answered);
    if (uv_mutex_init(&t->lock))
        goto no_lock;
    if (uv_cond_init(&t->changed))
        goto no_condition;
    if (uv_async_init(p->loop, &t->async, thread_on_async))
        goto no_handle;
    t->async.data = t;
    if (!uv_thread_create(&t->thread, run_thread, t)) {
        *out = t;
        return ERR_OK;
    }
    uv_close((uv_handle_t *)&t->async, thread_on_closed);
    return fault_set(why, ERR_INTERNAL, "store", "cannot start the thread of the job store");
no_handle:
    uv_cond_destroy(&t->changed);
no_condition:
    uv_mutex_destroy(&t->lock);
no_lock:
    free(t);
    return fault_set(why, ERR_INTERNAL, "store", "cannot start the thread of the job store");
}

void store_thread_post(struct store_thread *t, struct store_call *c)
{
    t->under_way++;
    uv_mutex_lock(&t->lock);
    if (!t->asked.first)
        uv_cond_signal(&t->changed);
    line_add(&t->asked, c);
    uv_mutex_unlock(&t->lock);
}

void store_thread_close(struct store_thread *t, void (*closed)(void *ctx), void *ctx)
{
    t->closing = true;
    t->closed = closed;
    t->ctx = ctx;
    thread_try_end(t);
}
