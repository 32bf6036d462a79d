// A worker as the job core sees it: its life, its events and what it knows about the models. Called
// on the loop thread. worker_run.c is its thread, worker_load.c its models.
#include "worker_impl.h"

#include "job.h"

#include <stdlib.h>
#include <string.h>

// ---- telling the loop -----------------------------------------------------------------------

struct worker_event *worker_event_create(enum worker_event_type type, struct work *work)
{
    struct worker_event *ev = calloc(1, sizeof *ev);
    if (!ev)
        abort(); // a few hundred bytes; without them a client would wait forever
    ev->type = type;
    ev->work = work;
    return ev;
}

void worker_event_post(struct worker *w, struct worker_event *ev)
{
    uv_mutex_lock(&w->lock);
    *w->last = ev;
    w->last = &ev->next;
    uv_mutex_unlock(&w->lock);
    uv_async_send(&w->async);
}

// Keeps what the events say about the worker and its models.
static void event_note(struct worker *w, const struct worker_event *ev)
{
    struct worker_model *m = &w->model[ev->model];
    struct worker_state s = {.model = MODEL_UNLOADED};
    switch (ev->type) {
    case WORKER_READY: s.model = MODEL_LOADED; break;
    case WORKER_LOADING: s.model = MODEL_LOADING; break;
    case WORKER_BROKEN:
        s.model = MODEL_FAILED;
        s.why = ev->fault;
        break;
    case WORKER_DOWN:
    case WORKER_RELEASED: break;
    default: return;
    }
    m->state = s;
    m->known |= ev->type == WORKER_READY;
    if (ev->type == WORKER_DOWN)
        w->ready = false;
    else if (ev->type == WORKER_READY || ev->type == WORKER_BROKEN)
        w->ready = true;
}

static void event_drain(struct worker *w)
{
    uv_mutex_lock(&w->lock);
    struct worker_event *ev = w->first;
    w->first = NULL;
    w->last = &w->first;
    uv_mutex_unlock(&w->lock);
    while (ev) {
        struct worker_event *next = ev->next;
        event_note(w, ev);
        w->p.event(w->p.ctx, ev);
        free(ev);
        ev = next;
    }
}

static void worker_on_closed(uv_handle_t *h);

static void worker_on_async(uv_async_t *async)
{
    struct worker *w = async->data;
    uv_mutex_lock(&w->lock);
    const bool ended = w->ended;
    uv_mutex_unlock(&w->lock);
    event_drain(w);
    if (!ended)
        return;
    uv_thread_join(&w->thread);
    uv_close((uv_handle_t *)async, worker_on_closed);
}

// ---- the loop's side ------------------------------------------------------------------------

static void worker_free(struct worker *w)
{
    for (int i = 0; w->model && i < w->p.models; i++)
        vocabulary_unref(&w->model[i].info.vocabulary);
    free(w->model);
    free(w);
}

enum err worker_create(const struct worker_params *p, struct worker **out, struct fault *why)
{
    struct worker *w = calloc(1, sizeof *w);
    *out = NULL;
    if (!w || !(w->model = calloc((size_t)p->models, sizeof *w->model))) {
        free(w);
        return fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    }
    w->p = *p;
    w->slots = 1;
    for (int i = 0; i < p->models; i++) {
        w->model[i].params = p->engine[i];
        w->model[i].params.device = p->device;
    }
    w->last = &w->first;
    if (uv_mutex_init(&w->lock)) {
        worker_free(w);
        return fault_set(why, ERR_INTERNAL, "", "cannot create the worker's lock");
    }
    if (uv_async_init(p->loop, &w->async, worker_on_async)) {
        uv_mutex_destroy(&w->lock);
        worker_free(w);
        return fault_set(why, ERR_INTERNAL, "", "cannot create the worker's event handle");
    }
    w->async.data = w;
    if (uv_thread_create(&w->thread, worker_run, w)) {
        atomic_store(&w->stop, true);
        worker_stop(w, NULL, NULL);
        return fault_set(why, ERR_INTERNAL, "", "cannot start the worker's thread");
    }
    *out = w;
    return ERR_OK;
}

static void worker_on_closed(uv_handle_t *h)
{
    struct worker *w = h->data;
    void (*closed)(void *ctx) = w->closed;
    void *ctx = w->closed_ctx;
    uv_mutex_destroy(&w->lock);
    worker_free(w);
    if (closed)
        closed(ctx);
}

void worker_stop(struct worker *w, void (*closed)(void *ctx), void *ctx)
{
    w->closed = closed;
    w->closed_ctx = ctx;
    // The thread may be waiting for the loop, so the loop does not wait for the thread.
    if (!atomic_exchange(&w->stop, true))
        queue_wake(w->p.queue);
    else
        uv_close((uv_handle_t *)&w->async, worker_on_closed); // it did not start
}

enum err worker_check(struct worker *w, const struct job_spec *spec, struct picture_used *used,
                      struct fault *why)
{
    enum err err = ERR_BUSY;
    uv_mutex_lock(&w->lock);
    if (w->model->engine)
        err = engine_resolve(w->model->engine, &spec->request, used, why);
    else
        fault_set(why, ERR_BUSY, "", "the model is still loading");
    uv_mutex_unlock(&w->lock);
    return err;
}

struct worker_stats worker_stats(struct worker *w)
{
    uv_mutex_lock(&w->lock);
    const struct worker_stats s = w->stats;
    uv_mutex_unlock(&w->lock);
    return s;
}

const struct model_info *worker_model(const struct worker *w, int model)
{
    return w->model[model].known ? &w->model[model].info : NULL;
}

struct worker_state worker_state(const struct worker *w, int model)
{
    return w->model[model].state;
}

bool worker_ready(const struct worker *w)
{
    return w->ready;
}

void worker_poke(struct worker *w)
{
    queue_wake(w->p.queue);
}
