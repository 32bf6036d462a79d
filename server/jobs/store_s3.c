// Images as objects: an image is stored as an object before its row says that it exists, and its
// object is deleted after its row. Everything else passes through to the store of jobs. What the
// store of objects cannot take now waits in memory. Loop thread; s3.c makes the requests.
//
// The name of an object contains the lease under which the image was drawn, so that a replica that
// has lost the lease does not replace the object of the one that has it now. store_s3_sweep.c
// deletes objects.
#include "store_s3_impl.h"

#include "buf.h"
#include "clock.h"
#include "log.h"

#include <stdlib.h>
#include <string.h>
#include <uv.h>

// A call to the base whose result is looked at.
struct s3_through {
    struct store_s3 *s;
    void (*done)(struct store_call *c);
    void *ctx;
};

// ---- whether the store is there -----------------------------------------------------------------

static void is_here(struct store_s3 *s)
{
    s->heard = clock_seconds();
    if (!s->store.away.code)
        return;
    if (s->failures)
        log_msg(LOG_INFO, "s3", "the result store is available again");
    s->store.away = (struct fault){0};
    s->failures = 0;
    s->backoff = 0;
}

static void is_away(struct store_s3 *s, const struct fault *why)
{
    s->heard = clock_seconds();
    if (s->closing)
        return;
    if (s->failures++ % S3_LOG_EVERY == 0)
        log_msg(LOG_ERROR, "s3", "the result store is not available: %s", why->msg);
    if (!s->backoff)
        uv_timer_stop(&s->timer); // it waits for longer
    fault_set(&s->store.away, ERR_BUSY, "store", "the result store is not available");
    if (s->flying) // the others fail with the first
        return;
    const uint64_t longer = s->backoff * 2;
    s->backoff = longer < S3_FIRST_BACKOFF_MS  ? S3_FIRST_BACKOFF_MS
                 : longer < S3_MOST_BACKOFF_MS ? longer
                                               : S3_MOST_BACKOFF_MS;
}

// Takes the result of a request that writes or asks. True: it must be repeated.
bool store_s3_landed(struct store_s3 *s, const struct s3_call *c)
{
    const bool again = c->why.code == ERR_BUSY || c->why.code == ERR_NO_MEMORY;
    s->flying--;
    if (again)
        is_away(s, &c->why);
    else
        is_here(s);
    return again;
}

static void on_probed(struct s3_call *c)
{
    struct store_s3 *s = c->ctx;
    s->probing = false;
    store_s3_landed(s, c);
    s3_call_free(c);
    store_s3_go_on(s);
}

static void probe(struct store_s3 *s)
{
    struct s3_call *c = s->probing ? NULL : s3_call_create(S3_LIST, strdup(""), on_probed, s);
    if (!c)
        return;
    c->most = 1;
    s->probing = true;
    s->flying++;
    s3_send(s->s3, c);
}

// ---- calls that wait ----------------------------------------------------------------------------

static bool is_about(const struct store_call *c, const char *id)
{
    for (int i = 0; i < c->n_lease; i++)
        if (!strcmp(c->lease[i].id, id))
            return true;
    return !strcmp(c->id, id);
}

// Whether an image of the call's job waits, up to an entry.
static bool must_wait(const struct store_s3 *s, const struct store_call *c,
                      const struct s3_waiting *end)
{
    for (const struct s3_waiting *w = s->first; w && w != end; w = w->next)
        if (is_about(c, w->call->id) || (w->call->n_lease && is_about(w->call, c->id)))
            return true;
    return false;
}

static struct store_call *take_out(struct store_s3 *s, struct s3_waiting *w)
{
    struct s3_waiting **at = &s->first;
    struct store_call *c = w->call;
    while (*at != w)
        at = &(*at)->next;
    *at = w->next;
    if (s->last == &w->next)
        s->last = at;
    if (c->op == STORE_DRAWN)
        s->waiting -= c->image->size;
    free(w);
    return c;
}

// Answers a call in place of the base.
static void answer(struct store_s3 *s, struct store_call *c)
{
    c->stats = s->stats;
    c->done(c);
}

static void on_removed(struct store_call *c);

// Passes a call to the base.
static void forward(struct store_s3 *s, struct store_call *c)
{
    struct s3_through *t = NULL;
    if (c->op == STORE_REMOVE || c->op == STORE_EXPIRE) {
        if (!(t = malloc(sizeof *t))) {
            fault_set(&c->why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
            answer(s, c);
            return;
        }
        *t = (struct s3_through){s, c->done, c->ctx};
        c->done = on_removed;
        c->ctx = t;
    }
    s->base->ops->call(s->base, c);
}

// Passes on what no longer waits. Each call may bring others.
static void pass_on(struct store_s3 *s)
{
    for (struct s3_waiting *w = s->first; w;) {
        if (w->state != S3_READY || must_wait(s, w->call, w)) {
            w = w->next;
            continue;
        }
        forward(s, take_out(s, w));
        w = s->first;
    }
}

static bool hold(struct store_s3 *s, struct store_call *c, enum s3_state state)
{
    struct s3_waiting *w = calloc(1, sizeof *w);
    if (!w)
        return false;
    *w = (struct s3_waiting){NULL, s, c, state};
    *s->last = w;
    s->last = &w->next;
    return true;
}

// ---- writing ------------------------------------------------------------------------------------

static void on_put(struct s3_call *c)
{
    struct s3_waiting *w = c->ctx;
    struct store_s3 *s = w->s;
    const bool again = store_s3_landed(s, c);
    w->state = again ? S3_WAITS : S3_READY;
    if (!again && c->why.code) {
        struct store_call *call = take_out(s, w);
        log_msg(LOG_ERROR, "s3", "%s: %s", call->id, c->why.msg);
        fault_set(&call->why, ERR_IO, "store", "the result store has refused the image");
        answer(s, call);
    }
    s3_call_free(c);
    pass_on(s);
    store_s3_go_on(s);
}

static void put(struct store_s3 *s, struct s3_waiting *w)
{
    const struct job *j = w->call->job;
    struct s3_call *c = s3_call_create(S3_PUT, store_s3_key(j, w->call->picture), on_put, w);
    if (!c)
        return; // tried again
    c->blob = blob_ref(w->call->image);
    c->type = job_format_type(j->spec.format);
    w->state = S3_FLIES;
    s->flying++;
    s3_send(s->s3, c);
}

static struct s3_waiting *next_image(const struct store_s3 *s)
{
    struct s3_waiting *w = s->first;
    while (w && w->state != S3_WAITS)
        w = w->next;
    return w;
}

// Starts one request. False: there is nothing to do.
static bool start_one(struct store_s3 *s)
{
    struct s3_waiting *w = next_image(s);
    if (w)
        put(s, w);
    else if (s->gone && !s->closing)
        store_s3_delete_next(s);
    else
        return false;
    return true;
}

// ---- what time brings ---------------------------------------------------------------------------

static void try_closed(struct store_s3 *s);

// Images that cannot be stored before the program ends are drawn again by another replica.
static void give_up(struct store_s3 *s)
{
    for (struct s3_waiting *w; (w = next_image(s));) {
        struct store_call *c = take_out(s, w);
        fault_set(&c->why, ERR_STALE, "store", "the result store is not available");
        answer(s, c);
    }
    pass_on(s);
}

static void on_timer(uv_timer_t *t)
{
    struct store_s3 *s = t->data;
    if (s->leaving && clock_seconds() >= s->give_up)
        give_up(s); // which may close the store
    const bool idle = (clock_seconds() - s->heard) * 1000 >= S3_IDLE_MS;
    if (!s->closing && !s->flying && (s->store.away.code ? !start_one(s) : idle))
        probe(s);
    store_s3_go_on(s);
}

// While the store is away, one request at a time asks for it, after a pause that grows.
void store_s3_go_on(struct store_s3 *s)
{
    for (int i = 0; !s->store.away.code && s->flying < S3_MOST_FLYING && i < S3_MOST_FLYING; i++)
        if (!start_one(s))
            break;
    if (!s->store.away.code && !s->closing)
        store_s3_sweep(s);
    const uint64_t pause = s->leaving   ? S3_FIRST_BACKOFF_MS
                           : s->backoff ? s->backoff / 2 + uv_hrtime() % s->backoff
                                        : S3_IDLE_MS;
    if (s->closing)
        try_closed(s);
    else if (!s->store.away.code || !uv_is_active((uv_handle_t *)&s->timer))
        uv_timer_start(&s->timer, on_timer, pause, 0);
}

// ---- calls --------------------------------------------------------------------------------------

// Deletes the objects of jobs that the base has removed.
static void on_removed(struct store_call *c)
{
    struct s3_through *t = c->ctx;
    struct store_s3 *s = t->s;
    c->done = t->done;
    c->ctx = t->ctx;
    free(t);
    s->stats = c->stats;
    for (int i = 0; i < c->n; i++)
        for (int k = 0; k < c->jobs[i]->spec.n; k++)
            if (c->jobs[i]->picture[k].bytes && c->jobs[i]->picture[k].object)
                store_s3_add_gone(s, store_s3_key(c->jobs[i], k));
    const bool work = s->gone;
    c->done(c);
    if (work)
        store_s3_go_on(s);
}

static void on_got(struct s3_call *o)
{
    struct s3_through *t = o->ctx;
    struct store_s3 *s = t->s;
    struct store_call *c = t->ctx;
    free(t);
    c->image = o->blob;
    o->blob = NULL;
    if (o->why.code && o->why.code != ERR_NOT_FOUND) {
        is_away(s, &o->why);
        fault_set(&c->why, ERR_BUSY, "store", "the result store is not available; try again later");
    } else {
        is_here(s);
    }
    if (o->why.code == ERR_NOT_FOUND) {
        log_msg(LOG_ERROR, "s3", "%s: image %d has no object: %s", c->id, c->picture, o->why.msg);
        fault_set(&c->why, ERR_NOT_FOUND, "", "image %d of this job is missing from the store",
                  c->picture);
    }
    s3_call_free(o);
    answer(s, c);
    store_s3_go_on(s);
}

static void get_object(struct store_s3 *s, struct store_call *c)
{
    struct s3_through *t = malloc(sizeof *t);
    struct s3_call *o = t && !s->store.away.code
                            ? s3_call_create(S3_GET, store_s3_key(c->job, c->picture), on_got, t)
                            : NULL;
    if (!o) {
        free(t);
        fault_set(&c->why, ERR_BUSY, "store", "the result store is not available; try again later");
        answer(s, c);
        return;
    }
    *t = (struct s3_through){s, NULL, c};
    s3_send(s->s3, o);
}

static void call_drawn(struct store_s3 *s, struct store_call *c)
{
    if (s->waiting + c->image->size > s->most_waiting || !hold(s, c, S3_WAITS)) {
        fault_set(&c->why, ERR_BUSY, "store", "too many images wait for the result store");
        answer(s, c);
        return;
    }
    s->waiting += c->image->size;
    store_s3_go_on(s);
}

static void s3_call(struct store *store, struct store_call *c)
{
    struct store_s3 *s = (struct store_s3 *)store;
    const bool ordered = c->op == STORE_FINISH || c->op == STORE_NOTE || c->op == STORE_RELEASE ||
                         c->op == STORE_REMOVE;
    if (s->waiting > s->most_waiting / 2)
        c->room = 0; // others may have room for more images
    if (c->op == STORE_DRAWN && c->job->picture[c->picture].object)
        call_drawn(s, c);
    else if (c->op == STORE_IMAGE && c->job && c->job->picture[c->picture].object)
        get_object(s, c);
    else if (ordered && must_wait(s, c, NULL) && hold(s, c, S3_READY))
        pass_on(s);
    else
        forward(s, c);
}

static void on_changed(void *ctx)
{
    const struct store_s3 *s = ctx;
    if (s->store.changed)
        s->store.changed(s->store.ctx);
}

// ---- input images, which stay with the jobs -----------------------------------------------------

static enum err s3_put_file(struct store *store, const char *name, const struct blob *file,
                            struct fault *why)
{
    struct store *base = store->base;
    return base->ops->put_file(base, name, file, why);
}

static enum err s3_get_file(struct store *store, const char *name, struct blob **out,
                            struct fault *why)
{
    struct store *base = store->base;
    return base->ops->get_file(base, name, out, why);
}

// ---- opening and closing ------------------------------------------------------------------------

static void on_base_closed(void *ctx)
{
    struct store_s3 *s = ctx;
    void (*closed)(void *ctx) = s->closed;
    void *closed_ctx = s->ctx;
    store_s3_forget_gone(s);
    free(s);
    if (closed)
        closed(closed_ctx);
}

static void on_timer_closed(uv_handle_t *h)
{
    struct store_s3 *s = h->data;
    s->base->ops->close(s->base, on_base_closed, s);
}

static void on_s3_closed(void *ctx)
{
    struct store_s3 *s = ctx;
    uv_close((uv_handle_t *)&s->timer, on_timer_closed);
}

static void s3_leave(struct store *store)
{
    struct store_s3 *s = (struct store_s3 *)store;
    s->leaving = true;
    s->give_up = clock_seconds() + S3_LEAVE_SECONDS;
    if (s->base->ops->leave)
        s->base->ops->leave(s->base);
}

// Images have been answered for when a store is closed, because the core waits for them.
static void try_closed(struct store_s3 *s)
{
    struct s3 *s3 = s->s3;
    if (s->first || !s3)
        return;
    s->s3 = NULL;
    uv_timer_stop(&s->timer);
    s3_close(s3, on_s3_closed, s);
}

static void s3_store_close(struct store *store, void (*closed)(void *ctx), void *ctx)
{
    struct store_s3 *s = (struct store_s3 *)store;
    s->closed = closed;
    s->ctx = ctx;
    s->closing = true;
    give_up(s);
    try_closed(s);
}

static const struct store_ops ops = {
    .name = "s3",
    .call = s3_call,
    .close = s3_store_close,
    .leave = s3_leave,
    .put_file = s3_put_file,
    .get_file = s3_get_file,
};

enum err store_s3_open(const struct store_s3_params *p, struct store *base, struct store **out,
                       struct fault *why)
{
    struct store_s3 *s = calloc(1, sizeof *s);
    enum err err = ERR_OK;
    *out = NULL;
    if (!s || uv_timer_init(p->s3.loop, &s->timer))
        err = fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    if (!err && (err = s3_open(&p->s3, &s->s3, why))) {
        s->base = base;
        s->timer.data = s;
        on_s3_closed(s);
        return err;
    }
    if (err) {
        free(s);
        base->ops->close(base, NULL, NULL);
        return err;
    }
    s->store = (struct store){.ops = &ops, .shared = base->shared, .base = base};
    s->base = base;
    s->most_waiting = p->waiting_bytes ? p->waiting_bytes : S3_WAITING;
    s->last = &s->first;
    s->gone_last = &s->gone;
    s->timer.data = s;
    fault_set(&s->store.away, ERR_BUSY, "store", "the result store is not available");
    base->changed = on_changed;
    base->ctx = s;
    uv_timer_start(&s->timer, on_timer, 0, 0);
    *out = &s->store;
    return ERR_OK;
}
