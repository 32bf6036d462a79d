// The thread of a worker: takes images from the queue, loads their models, steps, evicts, and
// reopens an engine after a lost device. Must not access jobs beyond their spec, nor HTTP. worker.c
// has the loop's side, worker_load.c the models.
#include "worker_impl.h"

#include "attachments.h"

#include "clock.h"
#include "job.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// After this, the image no longer belongs to the worker.
static void run_leave(struct worker *w, struct worker_event *ev)
{
    struct work *work = ev->work;
    struct worker_model *m = &w->model[work->model];
    if (m->slots[work->slot] == work) {
        m->slots[work->slot] = NULL;
        m->active--;
    }
    queue_leave(w->p.queue, work);
    worker_event_post(w, ev);
}

// Computes the first step of each stage, counted over all stages.
static void run_count_steps(struct work *work, const struct picture_used *used)
{
    work->stage = work->step = work->previews_due = work->previews = 0;
    for (int s = 0; s < PICTURE_MAX_STAGES; s++)
        work->first_step[s + 1] =
            work->first_step[s] + (s < used->stages ? picture_steps(used, s) : 0);
}

// ---- admitting ------------------------------------------------------------------------------

static int run_active(const struct worker *w)
{
    int n = 0;
    for (int i = 0; i < w->p.models; i++)
        n += w->model[i].active;
    return n;
}

// The index of the model with this name; NULL or "": the default. -1: unknown.
static int run_find(const struct worker *w, const char *name)
{
    if (!name || !*name)
        return 0;
    for (int i = 0; i < w->p.models; i++) {
        const struct worker_model *m = &w->model[i];
        const char *own = m->params.name ? m->params.name : m->described ? m->info.name : "";
        if (!strcmp(own, name))
            return i;
    }
    return -1;
}

static void run_fail(struct worker *w, struct work *work, const struct fault *why)
{
    struct worker_event *ev = worker_event_create(WORKER_FAILED, work);
    ev->fault = *why;
    run_leave(w, ev);
}

// Admits an image into a slot, with the pixels of its input image.
static enum err run_take(struct worker *w, struct worker_model *m, struct work *work,
                         struct fault *why)
{
    struct picture_request r = picture_at(&work->spec->request, work->picture);
    struct picture_edit *edit = NULL;
    enum err err = attachments_open(w->p.attachments, work->spec, &edit, why);
    if (!err) {
        r.edit = edit;
        worker_lend_room(w, m);
        err = engine_admit(m->engine, &r, work, &work->slot, why);
        worker_return_room(w, m);
    }
    picture_edit_destroy(&edit);
    return err;
}

// The image has a slot.
static void run_admitted(struct worker *w, struct worker_model *m, struct work *work)
{
    struct worker_event *ev = worker_event_create(WORKER_ADMITTED, work);
    ev->used = *engine_used(m->engine, work->slot);
    run_count_steps(work, &ev->used);
    m->slots[work->slot] = work;
    m->active++;
    m->used = ++w->uses;
    worker_event_post(w, ev);
}

// The request itself has been checked: only memory is missing.
static bool lacks_memory(enum err err, const struct fault *why)
{
    return err == ERR_NO_DEVICE_MEMORY || (err == ERR_INVALID && !strcmp(why->param, "size"));
}

// Nothing is wrong with the model, so that it is tried again.
static bool is_of_device(enum err err)
{
    return err == ERR_NO_DEVICE || err == ERR_DEVICE_LOST || err == ERR_TIMEOUT;
}

// Tells the loop about a model. why: NULL for no fault.
static void run_tell(struct worker *w, enum worker_event_type type, int index,
                     const struct fault *why)
{
    struct worker_event *ev = worker_event_create(type, NULL);
    ev->model = index;
    if (why)
        ev->fault = *why;
    worker_event_post(w, ev);
}

// The device fails: the image waits in the queue while run_open tries again.
static void run_put_back(struct worker *w, struct work *work, int index, struct fault *why)
{
    queue_leave(w->p.queue, work);
    if (queue_push(w->p.queue, work)) {
        fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
        struct worker_event *ev = worker_event_create(WORKER_FAILED, work);
        ev->fault = *why;
        worker_event_post(w, ev);
    }
    w->up = false;
    w->opening = index;
}

// Loads the model of an image. False: it has to wait, or has left the worker.
static bool run_need_model(struct worker *w, struct work *work, bool *waits)
{
    struct fault why = {0}, shown;
    const int index = work->model;
    run_tell(w, WORKER_LOADING, index, NULL);
    const enum err err = worker_load(w, index, &why);
    *waits = err == ERR_BUSY;
    if (!err || *waits)
        return !err;
    if (is_of_device(err)) {
        run_put_back(w, work, index, &why);
        return false;
    }
    run_tell(w, WORKER_BROKEN, index, &why);
    // Clients cannot help it, whatever the code says about the files.
    const bool of_client = err == ERR_NOT_FOUND || err == ERR_INVALID || err == ERR_UNSUPPORTED;
    fault_set(&shown, of_client ? ERR_INTERNAL : err, "model",
              "the model \"%s\" cannot be loaded: %s", w->model[index].params.name, why.msg);
    run_fail(w, work, &shown);
    return false;
}

// Finds a place for an image that was taken from the queue. True: it has to wait until another
// model is idle. An image that has a slot, or has failed, does not.
static bool run_waits(struct worker *w, struct work *work)
{
    struct fault why = {0};
    bool waits;
    const int index = run_find(w, work->spec->model);
    if (index < 0) {
        fault_set(&why, ERR_NOT_FOUND, "model", "this server does not have the model \"%.63s\"",
                  work->spec->model);
        run_fail(w, work, &why);
        return false;
    }
    struct worker_model *m = &w->model[index];
    work->model = index;
    work->slot = 0;
    if (!m->engine && !run_need_model(w, work, &waits))
        return waits;
    enum err err = run_take(w, m, work, &why);
    while (err && lacks_memory(err, &why) && worker_release(w, m))
        err = run_take(w, m, work, &why);
    if (err && lacks_memory(err, &why) && worker_others_loaded(w, m))
        return true;
    if (err)
        run_fail(w, work, &why);
    else
        run_admitted(w, m, work);
    return false;
}

static bool is_unwanted(struct worker *w, const struct work *work)
{
    return atomic_load(&work->cancelled) || atomic_load(&w->stop);
}

// Images get their places in the order of the queue: none overtakes one that waits for its model,
// which therefore becomes idle soon enough.
static void run_admit(struct worker *w)
{
    while (w->up && run_active(w) < w->slots) {
        struct work *work = w->pending ? w->pending : queue_take(w->p.queue);
        if (!work)
            return;
        if (w->pending && !worker_may_retry(w, &w->model[work->model]))
            return;
        w->pending = NULL;
        if (!run_waits(w, work))
            continue;
        w->pending = work;
        return;
    }
}

static void run_evict(struct worker *w)
{
    struct work *work = w->pending;
    if (work && is_unwanted(w, work)) {
        w->pending = NULL;
        if (!w->model[work->model].engine)
            run_tell(w, WORKER_RELEASED, work->model, NULL);
        run_leave(w, worker_event_create(WORKER_CANCELLED, work));
    }
    for (int k = 0; k < w->p.models; k++) {
        struct worker_model *m = &w->model[k];
        for (int i = 0; m->active && i < WORKER_MAX_SLOTS; i++) {
            if (!m->slots[i] || !is_unwanted(w, m->slots[i]))
                continue;
            engine_evict(m->engine, i);
            run_leave(w, worker_event_create(WORKER_CANCELLED, m->slots[i]));
        }
    }
}

// ---- stepping -------------------------------------------------------------------------------

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
    struct worker_event *ev = worker_event_create(types[from->type], work);
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
        worker_event_post(w, ev);
}

static void run_lost(struct worker *w, struct worker_model *m, const struct fault *why)
{
    run_tell(w, WORKER_DOWN, (int)(m - w->model), why);
    for (int i = 0; i < WORKER_MAX_SLOTS; i++) {
        if (!m->slots[i])
            continue;
        struct worker_event *ev = worker_event_create(WORKER_LOST, m->slots[i]);
        ev->fault = *why;
        run_leave(w, ev);
    }
    worker_unload(w, m);
    w->up = false;
    w->opening = (int)(m - w->model);
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
    struct engine *e = w->model[work->model].engine;
    const int due = previews_due(work);
    int watched = atomic_load(&work->watched);
    struct engine_image image;
    if (due <= work->previews_due || watched == WATCHED_NOT)
        return ERR_OK;
    const enum err err = engine_preview(e, work->slot, &image, why);
    if (err)
        return err == ERR_NOT_FOUND ? ERR_OK : err; // between two stages: after the next step
    if (watched == WATCHED_ONCE)
        atomic_compare_exchange_strong(&work->watched, &watched, WATCHED_NOT);
    struct worker_event *ev = worker_event_create(WORKER_PREVIEW, work);
    ev->stage = work->stage;
    ev->stages = work->stages;
    ev->step = work->step;
    ev->steps = work->steps;
    ev->preview = work->previews++;
    event_take_image(ev, &image);
    work->previews_due = due;
    worker_event_post(w, ev);
    return ERR_OK;
}

static void run_previews(struct worker *w, struct worker_model *m)
{
    struct fault why = {0};
    for (int i = 0; m->active && i < WORKER_MAX_SLOTS; i++) {
        if (!m->slots[i] || !run_preview(w, m->slots[i], &why))
            continue;
        run_lost(w, m, &why);
        return;
    }
}

// after: of the engine that has made a step.
static void run_count(struct worker *w, const struct worker_model *m,
                      const struct engine_stats *after)
{
    struct worker_stats all = {after->device_bytes, after->device_peak_bytes,
                               after->text_cache_hits + w->past_hits,
                               after->text_cache_misses + w->past_misses};
    for (int i = 0; i < w->p.models; i++) {
        const struct worker_model *other = &w->model[i];
        struct engine_stats s;
        if (other == m || !other->engine)
            continue;
        engine_stats(other->engine, &s);
        all.device_bytes += s.device_bytes;
        all.device_peak_bytes += s.device_bytes;
        all.text_cache_hits += s.text_cache_hits;
        all.text_cache_misses += s.text_cache_misses;
    }
    uv_mutex_lock(&w->lock);
    if (all.device_peak_bytes < w->stats.device_peak_bytes)
        all.device_peak_bytes = w->stats.device_peak_bytes;
    w->stats = all;
    uv_mutex_unlock(&w->lock);
}

static void run_step(struct worker *w, struct worker_model *m)
{
    struct engine_stats before, after;
    struct fault why = {0};
    const double start = clock_seconds();
    engine_stats(m->engine, &before);
    const enum err err = engine_step(m->engine, on_engine_event, w, &why);
    if (err) {
        if (!why.code)
            fault_set(&why, err, "", "%s", err_text(err));
        run_lost(w, m, &why);
        return;
    }
    engine_stats(m->engine, &after);
    struct worker_event *ev = worker_event_create(WORKER_TICK, NULL);
    ev->model = (int)(m - w->model);
    ev->seconds = clock_seconds() - start;
    for (int s = 0; s < PICTURE_MAX_STAGES; s++) {
        if (after.steps[s] == before.steps[s])
            continue;
        ev->stage = s;
        ev->step = (int)(after.step_pictures[s] - before.step_pictures[s]);
    }
    run_count(w, m, &after);
    worker_event_post(w, ev);
}

static void run_steps(struct worker *w)
{
    for (int i = 0; i < w->p.models; i++) {
        struct worker_model *m = &w->model[i];
        if (!m->active)
            continue;
        run_step(w, m);
        run_previews(w, m);
    }
}

// ---- the thread -----------------------------------------------------------------------------

// Opens the default model, or the one that was lost; the device works if that succeeds. Of several
// models, one that cannot be loaded does not concern the others.
static void run_open(struct worker *w)
{
    const int index = w->opening;
    struct fault why = {0};
    run_tell(w, WORKER_LOADING, index, NULL);
    const enum err err = worker_load(w, index, &why);
    const bool several = w->p.models > 1;
    w->up = !err || (several && !is_of_device(err));
    if (err == ERR_BUSY)
        run_tell(w, WORKER_RELEASED, index, NULL);
    else if (err && w->up)
        run_tell(w, WORKER_BROKEN, index, &why);
    if (w->up) {
        w->wait = 0;
        return;
    }
    run_tell(w, WORKER_DOWN, index, &why);
    w->wait = w->wait <= 0 ? 0.5 : w->wait < 15 ? w->wait * 2 : 30;
    w->retry = clock_seconds() + w->wait;
}

// Waits until there may be something to do.
static void run_rest(struct worker *w)
{
    const double left = w->up ? 60 : w->retry - clock_seconds();
    if (left > 0)
        queue_wait(w->p.queue, &w->seen, left);
}

void worker_run(void *worker)
{
    struct worker *w = worker;
    while (!atomic_load(&w->stop)) {
        if (!w->up && clock_seconds() >= w->retry)
            run_open(w);
        run_evict(w);
        run_admit(w);
        if (run_active(w))
            run_steps(w);
        else
            run_rest(w);
    }
    run_evict(w);
    for (int i = 0; i < w->p.models; i++)
        worker_unload(w, &w->model[i]);
    uv_mutex_lock(&w->lock);
    w->ended = true;
    uv_mutex_unlock(&w->lock);
    uv_async_send(&w->async);
}
