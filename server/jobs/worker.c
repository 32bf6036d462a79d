// The thread of one engine: admits, steps, evicts, and reopens the engine after a lost device.
// Called by the job core on the loop thread; functions named run_ or on_ run on the worker's
// thread. Must not access jobs beyond their spec, nor HTTP.
#include "worker.h"

#include "attachments.h"

#include "clock.h"
#include "engine.h"
#include "job.h"
#include "log.h"
#include "queue.h"

#include <stdlib.h>
#include <string.h>
#include <uv.h>

enum { WORKER_MAX_SLOTS = 256 };

struct worker {
    struct worker_params p;
    uv_thread_t thread;
    uv_async_t async;
    uv_mutex_t lock; // engine, stats, events, ended
    struct engine *engine;
    struct worker_stats stats;
    struct worker_event *first, **last;
    atomic_bool stop;
    bool ended; // the thread has nothing left to do
    // the worker thread's
    struct work *slots[WORKER_MAX_SLOTS];
    int active;
    bool described;
    uint64_t seen; // queue changes
    // the loop thread's
    struct model_info model;
    bool known, ready;
    void (*closed)(void *ctx);
    void *closed_ctx;
};

// ---- telling the loop -----------------------------------------------------------------------

static struct worker_event *event_create(enum worker_event_type type, struct work *work)
{
    struct worker_event *ev = calloc(1, sizeof *ev);
    if (!ev)
        abort(); // a few hundred bytes; without them a client would wait forever
    ev->type = type;
    ev->work = work;
    return ev;
}

static void event_post(struct worker *w, struct worker_event *ev)
{
    uv_mutex_lock(&w->lock);
    *w->last = ev;
    w->last = &ev->next;
    uv_mutex_unlock(&w->lock);
    uv_async_send(&w->async);
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
        if (ev->type == WORKER_READY)
            w->known = w->ready = true;
        else if (ev->type == WORKER_DOWN)
            w->ready = false;
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

// ---- the worker's thread --------------------------------------------------------------------

// Written before WORKER_READY is posted and read after it, so the list's lock orders the two.
static void run_describe(struct worker *w)
{
    if (w->described)
        return; // the same model on the same device: leave the data that the loop reads unchanged
    w->described = true;
    w->model = *engine_info(w->engine);
    if (*w->model.notice)
        log_msg(LOG_WARN, "engine", "%s", w->model.notice);
}

static void run_open(struct worker *w)
{
    double wait = 0.5;
    while (!atomic_load(&w->stop)) {
        struct engine *e = NULL;
        struct fault why = {0};
        const enum err err = engine_open(&w->p.engine, &e, &why);
        if (!err) {
            uv_mutex_lock(&w->lock);
            w->engine = e;
            uv_mutex_unlock(&w->lock);
            run_describe(w);
            event_post(w, event_create(WORKER_READY, NULL));
            return;
        }
        struct worker_event *ev = event_create(WORKER_DOWN, NULL);
        ev->fault = why;
        event_post(w, ev);
        const double until = clock_seconds() + wait;
        while (!atomic_load(&w->stop) && clock_seconds() < until)
            queue_wait(w->p.queue, &w->seen, until - clock_seconds());
        wait = wait < 15 ? wait * 2 : 30;
    }
}

static void run_close(struct worker *w)
{
    uv_mutex_lock(&w->lock);
    struct engine *e = w->engine;
    w->engine = NULL;
    uv_mutex_unlock(&w->lock);
    engine_close(&e);
}

// After this, the image no longer belongs to the worker.
static void run_leave(struct worker *w, struct worker_event *ev)
{
    struct work *work = ev->work;
    if (w->slots[work->slot] == work) {
        w->slots[work->slot] = NULL;
        w->active--;
    }
    queue_leave(w->p.queue, work);
    event_post(w, ev);
}

// Computes the first step of each stage, counted over all stages.
static void run_count_steps(struct work *work, const struct picture_used *used)
{
    work->stage = work->step = work->previews_due = work->previews = 0;
    for (int s = 0; s < PICTURE_MAX_STAGES; s++)
        work->first_step[s + 1] =
            work->first_step[s] + (s < used->stages ? picture_steps(used, s) : 0);
}

// Admits an image into a slot, with the pixels of its input image.
static enum err run_take(struct worker *w, struct work *work, struct fault *why)
{
    struct picture_request r = picture_at(&work->spec->request, work->picture);
    struct picture_edit *edit = NULL;
    enum err err = attachments_open(w->p.attachments, work->spec, &edit, why);
    if (!err) {
        r.edit = edit;
        err = engine_admit(w->engine, &r, work, &work->slot, why);
    }
    picture_edit_destroy(&edit);
    return err;
}

static void run_admit(struct worker *w)
{
    while (engine_free(w->engine) > 0) {
        struct work *work = queue_take(w->p.queue);
        if (!work)
            return;
        struct worker_event *ev = event_create(WORKER_ADMITTED, work);
        work->slot = 0;
        if (run_take(w, work, &ev->fault)) {
            ev->type = WORKER_FAILED;
            run_leave(w, ev);
            continue;
        }
        ev->used = *engine_used(w->engine, work->slot);
        run_count_steps(work, &ev->used);
        w->slots[work->slot] = work;
        w->active++;
        event_post(w, ev);
    }
}

static void run_evict(struct worker *w)
{
    for (int i = 0; w->active && i < WORKER_MAX_SLOTS; i++) {
        struct work *work = w->slots[i];
        if (!work || !(atomic_load(&work->cancelled) || atomic_load(&w->stop)))
            continue;
        engine_evict(w->engine, i);
        run_leave(w, event_create(WORKER_CANCELLED, work));
    }
}

static bool event_take_image(struct worker_event *to, const struct engine_image *image)
{
    const size_t n = (size_t)image->width * (size_t)image->height * 3;
    to->width = image->width;
    to->height = image->height;
    to->rgb = malloc(n);
    if (to->rgb)
        memcpy(to->rgb, image->rgb, n);
    return to->rgb;
}

static void on_engine_event(void *ctx, const struct engine_event *from)
{
    static const enum worker_event_type types[] = {
        [ENGINE_STEP] = WORKER_STEP,
        [ENGINE_STAGE] = WORKER_STAGE,
        [ENGINE_DONE] = WORKER_DRAWN,
        [ENGINE_FAILED] = WORKER_FAILED,
    };
    struct worker *w = ctx;
    struct work *work = from->tag;
    struct worker_event *ev = event_create(types[from->type], work);
    ev->stage = work->stage = from->stage;
    ev->stages = work->stages = from->stages;
    ev->step = work->step = from->step;
    ev->steps = work->steps = from->steps;
    ev->seconds = from->stage_seconds;
    if (from->fault)
        ev->fault = *from->fault;
    if (ev->type == WORKER_DRAWN && !event_take_image(ev, &from->image)) {
        ev->type = WORKER_FAILED;
        fault_set(&ev->fault, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    }
    if (ev->type == WORKER_DRAWN || ev->type == WORKER_FAILED)
        run_leave(w, ev);
    else
        event_post(w, ev);
}

static void run_lost(struct worker *w, const struct fault *why)
{
    struct worker_event *down = event_create(WORKER_DOWN, NULL);
    down->fault = *why;
    event_post(w, down);
    for (int i = 0; i < WORKER_MAX_SLOTS; i++) {
        if (!w->slots[i])
            continue;
        struct worker_event *ev = event_create(WORKER_LOST, w->slots[i]);
        ev->fault = *why;
        run_leave(w, ev);
    }
    run_close(w);
}

// The number of the image's previews that are due: they are spread evenly over all steps, and the
// last step gives the image itself.
static int previews_due(const struct work *work)
{
    const int total = work->first_step[PICTURE_MAX_STAGES];
    const int done = work->first_step[work->stage] + work->step;
    return done * (work->spec->previews + 1) / total;
}

// Renders a preview if one is due and watched. Several that became due unwatched are rendered as
// one. Errors: as engine_preview; they concern the whole device.
static enum err run_preview(struct worker *w, struct work *work, struct fault *why)
{
    const int due = previews_due(work);
    int watched = atomic_load(&work->watched);
    struct engine_image image;
    if (due <= work->previews_due || watched == WATCHED_NOT)
        return ERR_OK;
    const enum err err = engine_preview(w->engine, work->slot, &image, why);
    if (err)
        return err == ERR_NOT_FOUND ? ERR_OK : err; // between two stages: after the next step
    if (watched == WATCHED_ONCE)
        atomic_compare_exchange_strong(&work->watched, &watched, WATCHED_NOT);
    struct worker_event *ev = event_create(WORKER_PREVIEW, work);
    ev->stage = work->stage;
    ev->stages = work->stages;
    ev->step = work->step;
    ev->steps = work->steps;
    ev->preview = work->previews++;
    event_take_image(ev, &image);
    work->previews_due = due;
    event_post(w, ev);
    return ERR_OK;
}

static void run_previews(struct worker *w)
{
    struct fault why = {0};
    for (int i = 0; w->active && i < WORKER_MAX_SLOTS; i++) {
        if (!w->slots[i] || !run_preview(w, w->slots[i], &why))
            continue;
        run_lost(w, &why);
        return;
    }
}

static void run_step(struct worker *w)
{
    struct engine_stats before, after;
    struct fault why = {0};
    const double start = clock_seconds();
    engine_stats(w->engine, &before);
    const enum err err = engine_step(w->engine, on_engine_event, w, &why);
    if (err) {
        if (!why.code)
            fault_set(&why, err, "", "%s", err_text(err));
        run_lost(w, &why);
        return;
    }
    engine_stats(w->engine, &after);
    struct worker_event *ev = event_create(WORKER_TICK, NULL);
    ev->seconds = clock_seconds() - start;
    for (int s = 0; s < PICTURE_MAX_STAGES; s++) {
        if (after.steps[s] == before.steps[s])
            continue;
        ev->stage = s;
        ev->step = (int)(after.step_pictures[s] - before.step_pictures[s]);
    }
    uv_mutex_lock(&w->lock);
    w->stats = (struct worker_stats){after.device_bytes, after.device_peak_bytes,
                                     after.text_cache_hits, after.text_cache_misses};
    uv_mutex_unlock(&w->lock);
    event_post(w, ev);
}

static void run_worker(void *arg)
{
    struct worker *w = arg;
    while (!atomic_load(&w->stop)) {
        if (!w->engine)
            run_open(w);
        if (!w->engine)
            break;
        run_evict(w);
        run_admit(w);
        if (w->active) {
            run_step(w);
            run_previews(w);
        } else
            queue_wait(w->p.queue, &w->seen, 60);
    }
    if (w->engine)
        run_evict(w);
    run_close(w);
    uv_mutex_lock(&w->lock);
    w->ended = true;
    uv_mutex_unlock(&w->lock);
    uv_async_send(&w->async);
}

// ---- the loop's side ------------------------------------------------------------------------

enum err worker_create(const struct worker_params *p, struct worker **out, struct fault *why)
{
    struct worker *w = calloc(1, sizeof *w);
    *out = NULL;
    if (!w)
        return fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    w->p = *p;
    w->last = &w->first;
    if (uv_mutex_init(&w->lock)) {
        free(w);
        return fault_set(why, ERR_INTERNAL, "", "cannot create the worker's lock");
    }
    if (uv_async_init(p->loop, &w->async, worker_on_async)) {
        uv_mutex_destroy(&w->lock);
        free(w);
        return fault_set(why, ERR_INTERNAL, "", "cannot create the worker's event handle");
    }
    w->async.data = w;
    if (uv_thread_create(&w->thread, run_worker, w)) {
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
    free(w);
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
    if (w->engine)
        err = engine_resolve(w->engine, &spec->request, used, why);
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

const struct model_info *worker_model(const struct worker *w)
{
    return w->known ? &w->model : NULL;
}

bool worker_ready(const struct worker *w)
{
    return w->ready;
}

void worker_poke(struct worker *w)
{
    queue_wake(w->p.queue);
}
