// The life of a job: it is accepted, claimed from the store or as it is accepted, drawn by a
// worker, finished, or handed back when the program ends. Loop thread only. Encoding is in
// jobs_encode.c; finding, watching and removing jobs in jobs_find.c.
#include "jobs_impl.h"

#include "clock.h"
#include "log.h"
#include "webhook.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

bool job_busy(const struct job *job)
{
    for (int i = 0; i < job->spec.n; i++)
        if (job->picture[i].work || job->picture[i].encoding)
            return true;
    return job->pins > 0;
}

// ---- the end ------------------------------------------------------------------------------------

static void pictures_stop(struct jobs *j, struct job *job)
{
    bool poke = false;
    for (int i = 0; i < job->spec.n; i++) {
        struct job_picture *p = &job->picture[i];
        if (p->state == JOB_QUEUED || p->state == JOB_RUNNING)
            p->state = job->outcome;
        if (!p->work)
            continue;
        if (queue_remove(j->queue, p->work)) {
            free(p->work);
            p->work = NULL;
        } else {
            atomic_store(&p->work->cancelled, true);
            poke = true;
        }
    }
    for (int i = 0; poke && i < j->workers; i++)
        worker_poke(j->worker[i]);
}

void jobs_ended(struct jobs *j, struct job *job)
{
    job->ending = false;
    job->state = job->outcome;
    jobs_measure(j, JOBS_ENDED, (int)job->state, (double)(job->finished - job->created) * 1e-3);
    jobs_emit(j, job, (struct job_event){.type = JOB_EVENT_END});
    for (int i = 0; i < job->spec.n; i++) {
        blob_unref(&job->picture[i].latest);
        if (job->stored)
            blob_unref(&job->picture[i].image);
    }
}

static void on_finished(struct store_call *c)
{
    struct job *job = c->ctx;
    struct jobs *j = job->core;
    jobs_called(j, c);
    job->pins--;
    job->unsaved = c->why.code;
    if (c->why.code)
        log_msg(LOG_ERROR, "store", "%s: %s", job->id, c->why.msg);
    store_call_free(c);
    if (job->ending)
        jobs_ended(j, job);
    jobs_settle(j, job);
}

static bool save_end(struct jobs *j, struct job *job)
{
    struct store_call *c = store_call_about(STORE_FINISH, job, on_finished, job);
    if (!c)
        return false;
    c->job->state = job->outcome;
    c->again = job->end_stored;
    job->pins++;
    jobs_call(j, c);
    return true;
}

// The store could not take the end of a job: until it can, the job stays in memory.
void jobs_save_again(struct jobs *j, struct job *job)
{
    if (job->unsaved && !job->pins && !save_end(j, job))
        log_msg(LOG_ERROR, "store", "%s: %s", job->id, err_text(ERR_NO_MEMORY));
}

void jobs_begin_end(struct jobs *j, struct job *job, enum job_state outcome)
{
    job->ending = true;
    job->outcome = outcome;
    job->finished = clock_unix_ms();
    job->expires = job->finished + j->p.limits.keep_ms;
    job->webhook_next = job->spec.webhook_url ? job->finished : 0;
}

void jobs_end(struct jobs *j, struct job *job, enum job_state state, const struct fault *why)
{
    if (job->ending || job_ended(job))
        return;
    jobs_begin_end(j, job, state);
    if (why) {
        job->fault = *why;
        // Clients read it, also after a restart.
        if (fault_hide_paths(&job->fault))
            log_msg(LOG_ERROR, "jobs", "%s: %s", job->id, why->msg);
    }
    pictures_stop(j, job);
    job->pins++; // a store that answers at once must not free it under the caller
    if (!job->stored || !save_end(j, job)) {
        job->unsaved = job->stored;
        jobs_ended(j, job);
    }
    job->pins--;
}

void jobs_fail(struct jobs *j, struct job *job, const struct fault *why)
{
    jobs_end(j, job, JOB_FAILED, why);
}

// ---- accepting ----------------------------------------------------------------------------------

// Images that are about to wait, once the store has their jobs; owner NULL: of all.
static int accepting_images(const struct jobs *j, const char *owner)
{
    int n = 0;
    for (const struct jobs_ask *ask = j->asks; ask; ask = ask->next)
        if (ask->accepting && (!owner || !strcmp(ask->job->spec.owner, owner)))
            n += ask->accepting;
    return n;
}

static enum err jobs_room(struct jobs *j, const struct job_spec *spec, struct fault *why)
{
    const struct jobs_limits *most = &j->p.limits;
    if (spec->n > most->queued || spec->n > most->queued_per_owner)
        return fault_set(why, ERR_INVALID, "n", "%d images exceed the capacity of the queue",
                         spec->n);
    if (queue_length(j->queue) + accepting_images(j, NULL) + spec->n > most->queued)
        return fault_set(why, ERR_BUSY, "queue", "the queue is full");
    if (queue_owner_length(j->queue, spec->owner) + accepting_images(j, spec->owner) + spec->n >
        most->queued_per_owner)
        return fault_set(why, ERR_BUSY, "queue", "this API key has too many images in the queue");
    return ERR_OK;
}

enum err jobs_may_accept(struct jobs *j, const struct job_spec *spec, struct fault *why)
{
    struct worker *w;
    const enum err err = jobs_accepting(j, &w, why);
    return err ? err : jobs_room(j, spec, why);
}

// Whether a request can be drawn, and with what. A full queue refuses before the samplers are
// computed, which is most of the work under overload.
static enum err jobs_check(struct jobs *j, const struct job_spec *spec, struct picture_used *used,
                           struct fault *why)
{
    struct worker *w;
    enum err err = ERR_OK;
    if (spec->deadline && spec->deadline <= clock_unix_ms())
        return fault_set(why, ERR_INVALID, "deadline", "\"deadline\" is in the past");
    err = jobs_accepting(j, &w, why);
    if (!err)
        err = jobs_room(j, spec, why);
    if (!err)
        err = worker_check(w, spec, used, why);
    if (!err && spec->webhook_url)
        err = webhook_check(j->p.webhook.allow, spec->webhook_url, why);
    return err;
}

static enum err random_id(const char *prefix, char *out, size_t n)
{
    static const char digits[] = "0123456789abcdef";
    unsigned char bytes[16];
    if (getrandom(bytes, sizeof bytes, 0) != sizeof bytes)
        return ERR_INTERNAL;
    size_t at = (size_t)snprintf(out, n, "%s", prefix);
    for (size_t i = 0; i < sizeof bytes && at + 2 < n; i++) {
        out[at++] = digits[bytes[i] >> 4];
        out[at++] = digits[bytes[i] & 15];
    }
    out[at] = 0;
    return ERR_OK;
}

static enum err jobs_enqueue(struct jobs *j, struct job *job)
{
    job->state = JOB_QUEUED;
    for (int i = 0; i < job->spec.n; i++) {
        struct job_picture *p = &job->picture[i];
        struct work *w = p->state == JOB_DONE ? NULL : calloc(1, sizeof *w);
        if (p->state == JOB_DONE)
            continue; // before a restart
        if (!w)
            return ERR_NO_MEMORY;
        w->job = job;
        w->spec = &job->spec;
        w->picture = i;
        atomic_init(&w->watched, job->spec.watched ? WATCHED_ALWAYS : WATCHED_NOT);
        p->state = JOB_QUEUED;
        if (queue_push(j->queue, w)) {
            free(w);
            return ERR_NO_MEMORY;
        }
        p->work = w;
    }
    return ERR_OK;
}

static enum err job_new(const struct job_spec *spec, struct job **out, struct fault *why)
{
    struct job *job = *out = job_create();
    if (!job || job_spec_copy(spec, &job->spec, &job->spec_text)) {
        job_free(out);
        return fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    }
    if (random_id("job_", job->id, sizeof job->id) ||
        random_id("", job->token, sizeof job->token)) {
        job_free(out);
        return fault_set(why, ERR_INTERNAL, "", "cannot read random numbers from the system");
    }
    job->position = -1;
    return ERR_OK;
}

// The store has the job, or need not have it.
static void accepted(struct jobs_ask *ask)
{
    struct jobs *j = ask->j;
    struct job *job = ask->job;
    struct fault why;
    ask->accepting = 0;
    jobs_link(j, job);
    // While the program ends, the job waits in the store.
    if (!j->leaving && jobs_enqueue(j, job)) {
        fault_set(&why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
        jobs_fail(j, job, &why);
    }
    const struct log_field fields[] = {{"job", job->id},
                                       {"request_id", job->spec.request_id},
                                       {"prompt", job->spec.request.prompt}};
    log_fields(LOG_DEBUG, "jobs", "accepted", fields, 3);
    jobs_ask_end(ask, job, NULL);
}

enum err jobs_key_reused(struct fault *why)
{
    return fault_set(why, ERR_BUSY, "Idempotency-Key",
                     "this Idempotency-Key was already used for a different request");
}

// The owner used the key before: for the same request, or not.
static void found_key(struct jobs_ask *ask, struct job *job)
{
    const char *hash = ask->job->spec.body_hash;
    struct fault why;
    job->core = ask->j;
    job->stored = true;
    job->position = -1;
    ask->found = true;
    ask->submitted = false;
    if (!strcmp(job->spec.body_hash ? job->spec.body_hash : "", hash ? hash : "")) {
        // Who waits for the result needs it; others come back for it.
        ask->image = ask->job->spec.durable ? JOBS_NO_IMAGE : JOBS_ALL_IMAGES;
        jobs_ask_found(ask, job);
        return;
    }
    job_free(&job);
    jobs_key_reused(&why);
    jobs_ask_end(ask, NULL, &why);
}

static void on_accepted(struct store_call *c)
{
    struct jobs_ask *ask = c->ctx;
    struct job *same = c->n ? c->jobs[0] : NULL;
    const struct fault why = c->why;
    const int64_t seq = c->job ? c->job->seq : ask->job->seq;
    jobs_called(ask->j, c);
    if (same)
        c->jobs[0] = NULL;
    store_call_free(c);
    if (why.code) {
        jobs_ask_end(ask, NULL, &why);
    } else if (same) {
        ask->accepting = 0;
        found_key(ask, same);
    } else {
        ask->job->stored = true;
        ask->job->seq = seq;
        accepted(ask);
    }
}

static void store_job(struct jobs_ask *ask, const struct picture_used *used)
{
    struct job *job = ask->job;
    const struct job_spec *s = &job->spec;
    struct fault why;
    job->used = *used;
    job->created = clock_unix_ms();
    ask->accepting = s->n;
    if (!s->durable && !s->keep && !s->idempotency_key) {
        accepted(ask);
        return;
    }
    struct store_call *c = store_call_about(STORE_ACCEPT, job, on_accepted, ask);
    if (c) {
        jobs_call(ask->j, c);
        return;
    }
    fault_set(&why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    jobs_ask_end(ask, NULL, &why);
}

// Whether the key was used. If not, the request is looked at only now: one that is repeated has its
// answer even if the queue is full.
static void on_key(struct store_call *c)
{
    struct jobs_ask *ask = c->ctx;
    struct job *same = c->n ? c->jobs[0] : NULL;
    struct fault why = c->why;
    struct picture_used used;
    jobs_called(ask->j, c);
    if (same)
        c->jobs[0] = NULL;
    store_call_free(c);
    if (same)
        found_key(ask, same);
    else if (why.code || jobs_check(ask->j, &ask->job->spec, &used, &why))
        jobs_ask_end(ask, NULL, &why);
    else
        store_job(ask, &used);
}

static enum err find_key(struct jobs_ask *ask, struct fault *why)
{
    const struct job_spec *s = &ask->job->spec;
    struct store_call *c = store_call_create(STORE_FIND, on_key, ask);
    if (c && (c->owner = strdup(s->owner)) && (c->key = strdup(s->idempotency_key))) {
        jobs_call(ask->j, c);
        return ERR_OK;
    }
    store_call_free(c);
    return fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
}

void jobs_submit(struct jobs *j, const struct job_spec *spec, jobs_job_fn *done, void *ctx,
                 struct jobs_ask **out)
{
    struct jobs_ask *ask = jobs_ask_create(j, ctx, out);
    struct fault why;
    struct picture_used used;
    enum err err = ERR_OK;
    if (!ask) {
        fault_set(&why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
        done(ctx, NULL, &why);
        return;
    }
    ask->done = done;
    ask->submitted = true;
    if (!spec->idempotency_key)
        err = jobs_check(j, spec, &used, &why);
    if (!err)
        err = job_new(spec, &ask->job, &why);
    if (!err && spec->idempotency_key)
        err = find_key(ask, &why);
    else if (!err)
        store_job(ask, &used);
    if (err)
        jobs_ask_end(ask, NULL, &why);
}

// ---- claiming -----------------------------------------------------------------------------------

static bool all_done(const struct job *job)
{
    for (int i = 0; i < job->spec.n; i++)
        if (job->picture[i].state != JOB_DONE)
            return false;
    return true;
}

// A job of the store that is this process's now.
static void claim_job(struct jobs *j, struct job *job)
{
    const char *const inputs[] = {job->spec.input.image, job->spec.input.mask};
    for (int i = 0; i < 2; i++)
        if (inputs[i] && attachments_adopt(j->attachments, inputs[i]))
            log_msg(LOG_ERROR, "jobs", "%s: %s", job->id, err_text(ERR_NO_MEMORY));
    job->stored = true;
    job->position = -1;
    jobs_link(j, job);
    if (job_ended(job))
        jobs_settle(j, job); // stays if its webhook is to be called
    else if (all_done(job))
        jobs_end(j, job, JOB_DONE, NULL);
    else if (jobs_enqueue(j, job))
        log_msg(LOG_ERROR, "jobs", "%s: %s", job->id, err_text(ERR_NO_MEMORY));
}

static void on_claimed(struct store_call *c)
{
    struct jobs *j = c->ctx;
    jobs_called(j, c);
    if (c->why.code)
        log_msg(LOG_ERROR, "store", "%s", c->why.msg);
    for (int i = 0; i < c->n; i++) {
        claim_job(j, c->jobs[i]);
        c->jobs[i] = NULL;
    }
    store_call_free(c);
    attachments_sweep(j->attachments);
}

void jobs_claim(struct jobs *j)
{
    struct store_call *c = store_call_create(STORE_CLAIM, on_claimed, j);
    if (c)
        jobs_call(j, c);
    else
        log_msg(LOG_ERROR, "store", "%s", err_text(ERR_NO_MEMORY));
}

// ---- drawing ------------------------------------------------------------------------------------

// Nothing that is drawn of it matters any more.
static bool is_over(const struct job *job)
{
    return job->ending || job_ended(job);
}

static void on_admitted(struct jobs *j, struct job *job, const struct worker_event *ev)
{
    struct job_picture *p = &job->picture[ev->work->picture];
    char warning[160];
    for (int i = 0; !job->used.tokens && picture_warning(&ev->used, i, warning); i++)
        log_msg(LOG_WARN, "jobs", "%s: %s", job->id, warning);
    job->used = ev->used;
    p->state = JOB_RUNNING;
    p->attempts++;
    if (job->state != JOB_QUEUED)
        return;
    job->state = JOB_RUNNING;
    if (!job->started) {
        job->started = clock_unix_ms();
        jobs_measure(j, JOBS_WAITED, 0, (double)(job->started - job->created) * 1e-3);
    }
    jobs_emit(j, job, (struct job_event){.type = JOB_EVENT_STARTED});
}

static void on_progress(struct jobs *j, const struct worker_event *ev)
{
    struct job *job = ev->work->job;
    struct job_picture *p = &job->picture[ev->work->picture];
    p->stage = ev->stage;
    p->stages = ev->stages;
    p->step = ev->step;
    p->steps = ev->steps;
    jobs_emit(j, job,
              (struct job_event){.type = ev->type == WORKER_STEP ? JOB_EVENT_STEP : JOB_EVENT_STAGE,
                                 .picture = ev->work->picture,
                                 .stage = ev->stage,
                                 .stages = ev->stages,
                                 .step = ev->step,
                                 .steps = ev->steps});
}

// An image whose device was lost goes back into the queue, once: an image that takes the device
// with it would otherwise do so for ever.
static bool requeue_lost(struct jobs *j, struct work *work)
{
    struct job *job = work->job;
    struct job_picture *p = &job->picture[work->picture];
    if (is_over(job) || p->attempts > 1 || j->leaving)
        return false;
    p->state = JOB_QUEUED;
    p->step = p->stage = 0;
    if (queue_push(j->queue, work))
        return false;
    log_msg(LOG_INFO, "jobs", "%s: image %d returned to the queue", job->id, work->picture);
    return true;
}

// The worker has returned the image for the last time.
static void on_returned(struct jobs *j, struct worker_event *ev)
{
    struct job *job = ev->work->job;
    struct job_picture *p = &job->picture[ev->work->picture];
    p->work = NULL;
    if (ev->type == WORKER_DRAWN) {
        j->seconds_per_picture +=
            (j->seconds_per_picture > 0 ? 0.1 : 1) * (j->busy_seconds - j->seconds_per_picture);
        j->busy_seconds = 0;
        jobs_measure(j, JOBS_PICTURE, 0, 1);
        if (!is_over(job))
            jobs_encode(j, ev, -1);
    } else if (ev->type != WORKER_CANCELLED) {
        jobs_measure(j, JOBS_FAILED, ev->fault.code, 1);
        jobs_fail(j, job, &ev->fault);
    }
    free(ev->work);
    jobs_settle(j, job);
}

static void on_worker_work(struct jobs *j, struct worker_event *ev)
{
    struct job *job = ev->work->job;
    switch (ev->type) {
    case WORKER_ADMITTED:
        j->running++;
        ev->work->in_slot = true;
        if (!is_over(job))
            on_admitted(j, job, ev);
        break;
    case WORKER_STEP:
    case WORKER_STAGE:
        if (ev->type == WORKER_STAGE)
            jobs_measure(j, JOBS_STAGE_DONE, ev->stage, ev->seconds);
        if (!is_over(job))
            on_progress(j, ev);
        break;
    case WORKER_PREVIEW:
        if (!is_over(job))
            jobs_encode(j, ev, ev->preview);
        break;
    default:
        j->running -= ev->work->in_slot;
        ev->work->in_slot = false;
        if (ev->type != WORKER_LOST || !requeue_lost(j, ev->work))
            on_returned(j, ev);
        break;
    }
}

void jobs_on_worker(void *ctx, struct worker_event *ev)
{
    struct jobs *j = ctx;
    switch (ev->type) {
    case WORKER_READY:
        j->down = (struct fault){0};
        log_msg(LOG_INFO, "worker", "ready: %s on %s", jobs_model(j)->name, jobs_model(j)->device);
        break;
    case WORKER_DOWN:
        j->down = ev->fault;
        fault_hide_paths(&j->down); // clients read it
        jobs_measure(j, JOBS_REBUILT, 0, 1);
        log_msg(LOG_ERROR, "worker", "cannot open the engine: %s", ev->fault.msg);
        // A lost device may recover; an invalid model folder at startup will not.
        if (!jobs_model(j) && j->p.hopeless &&
            (ev->fault.code == ERR_NOT_FOUND || ev->fault.code == ERR_FORMAT ||
             ev->fault.code == ERR_UNSUPPORTED || ev->fault.code == ERR_INVALID))
            j->p.hopeless(j->p.ctx, &ev->fault);
        break;
    case WORKER_TICK:
        j->busy_seconds += ev->seconds;
        jobs_measure(j, JOBS_STEP, ev->stage, ev->seconds);
        jobs_measure(j, JOBS_OCCUPANCY, ev->stage, ev->step);
        break;
    default: on_worker_work(j, ev); break;
    }
    free(ev->rgb);
}

// ---- handing back -------------------------------------------------------------------------------

void jobs_abandon(struct jobs *j)
{
    struct fault why;
    struct job *older;
    fault_set(&why, ERR_BUSY, "server", "the server is shutting down");
    for (struct job *job = j->newest; job; job = older) {
        older = job->older;
        if (job_ended(job))
            continue;
        if (job->spec.durable) {
            jobs_emit(j, job, (struct job_event){.type = JOB_EVENT_SHUTDOWN});
            for (int i = 0; i < job->spec.n; i++) {
                struct work *w = job->picture[i].work;
                if (w && queue_remove(j->queue, w)) {
                    free(w);
                    job->picture[i].work = NULL;
                }
            }
        } else {
            jobs_end(j, job, JOB_FAILED, &why);
        }
    }
}

void jobs_drain(struct jobs *j)
{
    j->draining = true;
    queue_hold(j->queue, true);
    for (struct job *job = j->newest; job; job = job->older)
        if (job->state == JOB_QUEUED && job->spec.durable)
            jobs_emit(j, job, (struct job_event){.type = JOB_EVENT_SHUTDOWN});
}

bool jobs_drained(struct jobs *j)
{
    for (const struct job *job = j->newest; job; job = job->older)
        if (!job_ended(job) && (!job->spec.durable || job->state == JOB_RUNNING))
            return false;
    return !j->encoding && !j->intakes && !j->asks;
}
