// The thread around one engine: admit, step, evict, and open again after a lost device. Called by
// the job core on the loop thread; everything named run_ or on_ here runs on the worker's thread.
// Must not touch jobs beyond their spec, nor HTTP.
#include "worker.h"

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
    uv_mutex_t lock; // engine, stats, events
    struct engine *engine;
    struct worker_stats stats;
    struct worker_event *first, **last;
    atomic_bool stop;
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
        abort(); // a few hundred bytes; without them a client would wait for ever
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

static void worker_on_async(uv_async_t *async)
{
    event_drain(async->data);
}

// ---- the worker's thread --------------------------------------------------------------------

static void copy_names(char *to, size_t width, int max, const char *const *from)
{
    for (int i = 0; i < max - 1 && from && from[i]; i++)
        snprintf(to + (size_t)i * width, width, "%s", from[i]);
}

// Written before WORKER_READY is posted and read after it, so the list's lock orders the two.
static void run_describe(struct worker *w)
{
    const struct engine_info *i = engine_info(w->engine);
    struct model_info *m = &w->model;
    if (w->described)
        return; // the same model on the same device: what the loop reads stays untouched
    w->described = true;
    snprintf(m->name, sizeof m->name, "%s", i->model);
    snprintf(m->device, sizeof m->device, "%s", i->device);
    snprintf(m->driver, sizeof m->driver, "%s", i->driver);
    snprintf(m->dtype, sizeof m->dtype, "%s", i->dtype);
    m->slots = i->slots;
    m->stages = i->stages;
    for (int s = 0; s < i->stages; s++) {
        const struct engine_stage_info *from = &i->stage[s];
        struct model_stage *to = &m->stage[s];
        snprintf(to->name, sizeof to->name, "%s", from->name);
        snprintf(to->sampler, sizeof to->sampler, "%s", from->sampler);
        to->size = from->size;
        to->steps = from->steps;
        to->noise_level = from->noise_level;
        to->guidance_scale = from->guidance_scale;
    }
    copy_names(m->samplers[0], sizeof m->samplers[0], 16, i->samplers);
    _Static_assert(sizeof m->preset / sizeof *m->preset == ENGINE_MAX_PRESETS, "one for each");
    m->presets = i->presets;
    for (int p = 0; p < i->presets; p++) {
        const struct engine_preset_info *from = &i->preset[p];
        struct model_preset *to = &m->preset[p];
        snprintf(to->name, sizeof to->name, "%s", from->name);
        snprintf(to->sampler, sizeof to->sampler, "%s", from->sampler);
        memcpy(to->steps, from->steps, sizeof to->steps);
        memcpy(to->guidance_scale, from->guidance_scale, sizeof to->guidance_scale);
    }
    copy_names(m->timesteps[0], sizeof m->timesteps[0], 16, i->timesteps);
}

static void run_open(struct worker *w)
{
    const struct engine_params p = {
        .model = w->p.model,
        .variant = w->p.variant,
        .device = w->p.device,
        .cache_dir = w->p.cache_dir,
        .dtype = w->p.dtype,
        .slots = w->p.slots,
        .memory_limit = w->p.memory_limit,
    };
    double wait = 0.5;
    while (!atomic_load(&w->stop)) {
        struct engine *e = NULL;
        struct fault why = {0};
        const enum err err = engine_open(&p, &e, &why);
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

// The picture is no longer the worker's after this.
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

static struct engine_request run_request(const struct job_spec *s, int picture)
{
    struct engine_request r = {
        .prompt = s->prompt,
        .negative_prompt = s->negative_prompt,
        .size = s->size,
        .seed = s->seed,
        .picture = (uint32_t)picture,
        .preset = s->preset,
        .sampler = s->sampler,
        .timesteps = s->timesteps,
        .set_noise_level = s->set_noise_level,
        .previews = s->previews > 0,
    };
    for (int i = 0; i < ENGINE_MAX_STAGES; i++) {
        r.steps[i] = s->steps[i];
        r.guidance_scale[i] = s->guidance_scale[i];
        r.noise_level[i] = s->noise_level[i];
    }
    return r;
}

static void run_admit(struct worker *w)
{
    while (engine_free(w->engine) > 0) {
        struct work *work = queue_take(w->p.queue);
        if (!work)
            return;
        const struct engine_request r = run_request(work->spec, work->picture);
        struct worker_event *ev = event_create(WORKER_ADMITTED, work);
        work->previews = 0;
        work->slot = 0;
        if (engine_admit(w->engine, &r, work, &work->slot, &ev->fault)) {
            ev->type = WORKER_FAILED;
            run_leave(w, ev);
            continue;
        }
        ev->tokens = engine_tokens(w->engine, work->slot);
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

// Which of the picture's previews is due at this step, counted over all stages; false for none.
static bool preview_due(struct work *work, const struct engine_event *ev, struct engine *e)
{
    struct engine_used used;
    const struct engine_request r = run_request(work->spec, work->picture);
    int total = 0, done = ev->step;
    if (engine_resolve(e, &r, &used, NULL))
        return false;
    for (int s = 0; s < used.stages; s++) {
        total += used.steps[s];
        done += s < ev->stage ? used.steps[s] : 0;
    }
    // The last step's estimate is the picture itself, which comes by its own event.
    if (done >= total || work->previews >= work->spec->previews)
        return false;
    return done * (work->spec->previews + 1) >= (work->previews + 1) * total;
}

static void on_engine_event(void *ctx, const struct engine_event *from)
{
    static const enum worker_event_type types[] = {
        [ENGINE_STEP] = WORKER_STEP,     [ENGINE_PREVIEW] = WORKER_PREVIEW,
        [ENGINE_STAGE] = WORKER_STAGE,   [ENGINE_DONE] = WORKER_DRAWN,
        [ENGINE_FAILED] = WORKER_FAILED,
    };
    struct worker *w = ctx;
    struct work *work = from->tag;
    if (from->type == ENGINE_PREVIEW && !preview_due(work, from, w->engine))
        return;
    struct worker_event *ev = event_create(types[from->type], work);
    ev->stage = from->stage;
    ev->stages = from->stages;
    ev->step = from->step;
    ev->steps = from->steps;
    ev->seconds = from->stage_seconds;
    if (from->fault)
        ev->fault = *from->fault;
    if (ev->type == WORKER_PREVIEW) {
        ev->preview = work->previews++;
        event_take_image(ev, &from->image);
    }
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
    for (int s = 0; s < ENGINE_MAX_STAGES; s++) {
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
        if (w->active)
            run_step(w);
        else
            queue_wait(w->p.queue, &w->seen, 60);
    }
    if (w->engine)
        run_evict(w);
    run_close(w);
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
        return fault_set(why, ERR_INTERNAL, "", "cannot make a lock");
    }
    if (uv_async_init(p->loop, &w->async, worker_on_async)) {
        uv_mutex_destroy(&w->lock);
        free(w);
        return fault_set(why, ERR_INTERNAL, "", "cannot watch the worker");
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
    if (!atomic_exchange(&w->stop, true)) {
        queue_wake(w->p.queue);
        uv_thread_join(&w->thread);
        event_drain(w);
    }
    uv_close((uv_handle_t *)&w->async, worker_on_closed);
}

enum err worker_check(struct worker *w, const struct job_spec *spec, struct job_used *used,
                      struct fault *why)
{
    const struct engine_request r = run_request(spec, 0);
    struct engine_used u;
    enum err err = ERR_BUSY;
    uv_mutex_lock(&w->lock);
    if (w->engine)
        err = engine_resolve(w->engine, &r, &u, why);
    else
        fault_set(why, ERR_BUSY, "", "the model is being loaded");
    uv_mutex_unlock(&w->lock);
    if (err)
        return err;
    *used = (struct job_used){.size = u.size, .stages = u.stages};
    snprintf(used->model, sizeof used->model, "%s", u.model);
    snprintf(used->sampler, sizeof used->sampler, "%s", u.sampler);
    for (int s = 0; s < JOB_MAX_STAGES; s++) {
        used->steps[s] = u.steps[s];
        used->guidance_scale[s] = u.guidance_scale[s];
        used->noise_level[s] = u.noise_level[s];
    }
    return ERR_OK;
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
