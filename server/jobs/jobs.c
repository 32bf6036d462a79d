// The job core as a whole: opening, closing, expiry and statistics. Loop thread only; jobs_accept.c
// and jobs_life.c contain the life of a job. Knows nothing about HTTP.
#include "jobs_impl.h"

#include "clock.h"
#include "log.h"
#include "webhook.h"

#include <stdlib.h>
#include <string.h>

// ---- the store ----------------------------------------------------------------------------------

const char *jobs_call_name(int which)
{
    static const char *const names[STORE_OPS] = {
        [STORE_ACCEPT] = "accept",   [STORE_CLAIM] = "claim",   [STORE_BEAT] = "beat",
        [STORE_RELEASE] = "release", [STORE_DRAWN] = "drawn",   [STORE_FINISH] = "finish",
        [STORE_NOTE] = "note",       [STORE_CANCEL] = "cancel", [STORE_WATCH] = "watch",
        [STORE_FIND] = "find",       [STORE_LIST] = "list",     [STORE_IMAGE] = "image",
        [STORE_REMOVE] = "remove",   [STORE_EXPIRE] = "expire", [STORE_AGE] = "age",
        [STORE_SPEND] = "spend",
    };
    return names[which];
}

// A full queue and a lease that another replica has are results, not failures of the store.
static bool store_failed(const struct fault *why)
{
    return why->code && why->code != ERR_STALE &&
           (why->code != ERR_BUSY || strcmp(why->param, "queue") != 0);
}

void jobs_call(struct jobs *j, struct store_call *c)
{
    c->made = clock_seconds();
    j->p.store->ops->call(j->p.store, c);
}

// The store of jobs, without which nothing is accepted.
static const struct store *job_store(const struct jobs *j)
{
    return j->p.store->base ? j->p.store->base : j->p.store;
}

void jobs_called(struct jobs *j, const struct store_call *c)
{
    j->kept = c->stats;
    if (store_failed(&c->why))
        jobs_measure(j, JOBS_STORE_FAILED, c->op, 1);
    else
        jobs_measure(j, JOBS_STORE_CALL, c->op, clock_seconds() - c->made);
}

void jobs_release_inputs(struct jobs *j, const struct store_call *c)
{
    for (int i = 0; i < c->n && !j->p.store->shared; i++) {
        attachments_release(j->attachments, c->jobs[i]->spec.input.image);
        attachments_release(j->attachments, c->jobs[i]->spec.input.mask);
    }
}

static void on_expired(struct store_call *c)
{
    struct jobs *j = c->ctx;
    jobs_called(j, c);
    j->expiring = false;
    jobs_round_failed(j, &c->why);
    jobs_release_inputs(j, c);
    store_call_free(c);
}

static void jobs_expire(struct jobs *j, int64_t now)
{
    const struct jobs_limits *most = &j->p.limits;
    struct store_call *c = j->expiring ? NULL : store_call_create(STORE_EXPIRE, on_expired, j);
    if (!c)
        return;
    c->keep = (struct store_keep){now, most->keep_jobs, most->keep_bytes, j->webhook};
    j->expiring = true;
    jobs_call(j, c);
}

// ---- what time brings ---------------------------------------------------------------------------

static void jobs_deadlines(struct jobs *j, int64_t now)
{
    struct job *older;
    for (struct job *job = j->newest; job; job = older) {
        older = job->older;
        if (jobs_late(j, job, now))
            jobs_settle(j, job);
    }
}

static void jobs_positions(struct jobs *j)
{
    queue_rank(j->queue);
    for (struct job *job = j->newest; job; job = job->older) {
        const struct work *first = NULL;
        for (int i = 0; i < job->spec.n && job->state == JOB_QUEUED; i++) {
            const struct work *w = job->picture[i].work;
            if (w && (!first || w->ahead < first->ahead))
                first = w;
        }
        if (!first || first->ahead == job->position)
            continue;
        job->position = first->ahead;
        jobs_emit(j, job, (struct job_event){.type = JOB_EVENT_QUEUED, .position = first->ahead});
    }
}

// Jobs whose end could not be stored, until they expire.
static void jobs_unsaved(struct jobs *j, int64_t now)
{
    struct job *older;
    for (struct job *job = j->newest; job; job = older) {
        older = job->older;
        if (job->unsaved && job_ended(job) && job->expires <= now) {
            job->unsaved = false;
            jobs_settle(j, job);
        } else if (job_ended(job)) {
            jobs_save_again(j, job);
        }
    }
}

static void jobs_on_timer(uv_timer_t *timer)
{
    struct jobs *j = timer->data;
    const int64_t now = clock_unix_ms();
    jobs_deadlines(j, now);
    jobs_positions(j);
    if (j->p.store->shared)
        jobs_share(j);
    jobs_webhooks(j, now);
    if (j->ticks++ % JOBS_EXPIRE_TICKS)
        return;
    jobs_unsaved(j, now);
    jobs_expire(j, now);
}

// ---- life of the whole --------------------------------------------------------------------------

static struct worker *jobs_any_worker(struct jobs *j)
{
    for (int i = 0; i < j->workers; i++)
        if (worker_ready(j->worker[i]))
            return j->worker[i];
    return NULL;
}

enum err jobs_accepting(struct jobs *j, struct worker **w, struct fault *why)
{
    *w = jobs_any_worker(j);
    if (j->draining)
        return fault_set(why, ERR_BUSY, "server", "the server is shutting down");
    if (job_store(j)->away.code)
        return fault_set(why, ERR_BUSY, "server",
                         "the job store cannot be reached; try again later");
    if (!*w && j->down.code)
        return fault_set(why, ERR_BUSY, "server", "no device is available: %s", j->down.msg);
    if (!*w)
        return fault_set(why, ERR_BUSY, "server", "the model is still loading");
    return ERR_OK;
}

// A shared store applies the limit to the whole fleet, except within a job: it may have more
// images.
static void jobs_limit_running(struct jobs *j)
{
    queue_set_running_limit(j->queue, j->p.limits.running_per_owner);
}

static enum err jobs_start_workers(struct jobs *j, struct fault *why)
{
    struct worker_params p = {
        .loop = j->p.loop,
        .queue = j->queue,
        .attachments = j->attachments,
        .engine = j->p.engine,
        .models = j->p.models,
        .event = jobs_on_worker,
        .ctx = j,
    };
    char *save = NULL, *device = j->devices ? strtok_r(j->devices, ",", &save) : NULL;
    do {
        if (j->workers == JOBS_MAX_WORKERS)
            return fault_set(why, ERR_INVALID, "device", "device: at most %d devices are supported",
                             JOBS_MAX_WORKERS);
        p.device = device;
        const enum err err = worker_create(&p, &j->worker[j->workers], why);
        if (err)
            return err;
        j->workers++;
    } while (device && (device = strtok_r(NULL, ",", &save)));
    return ERR_OK;
}

enum err jobs_create(const struct jobs_params *p, struct jobs **out, struct fault *why)
{
    struct jobs *j = calloc(1, sizeof *j);
    enum err err = ERR_NO_MEMORY;
    *out = NULL;
    fault_set(why, err, "", "%s", err_text(err));
    if (!j || uv_timer_init(p->loop, &j->timer)) {
        free(j);
        p->store->ops->close(p->store, NULL, NULL);
        return err;
    }
    j->p = *p;
    p->store->changed = jobs_on_changed;
    p->store->ctx = j;
    j->timer.data = j;
    j->queue = queue_create();
    j->devices = p->devices && *p->devices ? strdup(p->devices) : NULL;
    if (attachments_create(p->store, p->limits.input_bytes, &j->attachments) || !j->queue ||
        (p->devices && *p->devices && !j->devices))
        goto fail;
    jobs_limit_running(j);
    err = jobs_models_open(j, why);
    if (!err)
        err = jobs_webhook_open(j, why);
    if (!err)
        err = jobs_start_workers(j, why);
    if (err)
        goto fail;
    uv_timer_start(&j->timer, jobs_on_timer, JOBS_TIMER_MS, JOBS_TIMER_MS);
    jobs_claim(j);
    *out = j;
    return ERR_OK;
fail:
    jobs_close(j, NULL, NULL);
    return err;
}

// The store has finished all calls; nothing uses a job any longer.
static void jobs_on_store_closed(void *ctx)
{
    struct jobs *j = ctx;
    struct job *newer;
    for (struct job *job = j->oldest; job; job = newer) {
        newer = job->newer;
        job_free(&job);
    }
    void (*closed)(void *ctx) = j->closed;
    void *closed_ctx = j->closed_ctx;
    queue_destroy(&j->queue);
    attachments_destroy(&j->attachments);
    jobs_models_close(j);
    free(j->devices);
    free(j);
    if (closed)
        closed(closed_ctx);
}

void jobs_try_closed(struct jobs *j)
{
    if (!j->leaving || j->closing || j->encoding || j->intakes || j->store_closing)
        return;
    j->store_closing = true;
    j->p.store->ops->close(j->p.store, jobs_on_store_closed, j);
}

static void jobs_on_part_closed(void *ctx)
{
    struct jobs *j = ctx;
    j->closing--;
    jobs_try_closed(j);
}

static void jobs_on_timer_closed(uv_handle_t *h)
{
    jobs_on_part_closed(h->data);
}

void jobs_close(struct jobs *j, void (*closed)(void *ctx), void *ctx)
{
    j->closed = closed;
    j->closed_ctx = ctx;
    j->draining = j->leaving = true;
    jobs_abandon(j);
    if (j->p.store->ops->leave)
        j->p.store->ops->leave(j->p.store);
    j->closing = j->workers + 1 + (j->webhook != NULL);
    for (int i = 0; i < j->workers; i++)
        worker_stop(j->worker[i], jobs_on_part_closed, j);
    j->workers = 0;
    if (j->webhook)
        webhook_close(j->webhook, jobs_on_part_closed, j);
    j->webhook = NULL;
    uv_close((uv_handle_t *)&j->timer, jobs_on_timer_closed);
}

// ---- what others ask ----------------------------------------------------------------------------

bool jobs_ready(struct jobs *j, struct fault *why)
{
    const bool away = job_store(j)->away.code, results = j->p.store->away.code;
    if (!j->draining && !away && !results && jobs_any_worker(j))
        return true;
    if (j->draining)
        fault_set(why, ERR_BUSY, "server", "draining");
    else if (away)
        fault_set(why, ERR_BUSY, "server", "the job store cannot be reached");
    else if (results)
        fault_set(why, ERR_BUSY, "server", "the result store cannot be reached");
    else if (j->down.code)
        fault_set(why, ERR_NO_DEVICE, "server", "%s", j->down.msg);
    else
        fault_set(why, ERR_BUSY, "server", "loading");
    return false;
}

// The images that a worker can have in progress; one, while none of its models was loaded.
static int slots_of(const struct jobs *j, const struct worker *w)
{
    for (int i = 0; i < j->p.models; i++)
        if (worker_model(w, i))
            return worker_model(w, i)->slots;
    return 1;
}

struct jobs_stats jobs_stats(struct jobs *j)
{
    struct jobs_stats s = {
        .queued = j->p.store->shared ? j->kept.queued : queue_length(j->queue),
        .running = j->running,
        .fleet_running = j->p.store->shared ? j->kept.running : j->running,
        .shared = j->p.store->shared,
        .jobs = j->kept.jobs + j->unstored,
        .kept_bytes = j->kept.bytes,
        .input_bytes = attachments_bytes(j->attachments),
        .seconds_per_picture = j->seconds_per_picture,
    };
    for (int i = 0; i < j->workers; i++) {
        const struct worker_stats w = worker_stats(j->worker[i]);
        s.slots += worker_ready(j->worker[i]) ? slots_of(j, j->worker[i]) : 0;
        s.worker.device_bytes += w.device_bytes;
        s.worker.device_peak_bytes += w.device_peak_bytes;
        s.worker.text_cache_hits += w.text_cache_hits;
        s.worker.text_cache_misses += w.text_cache_misses;
    }
    return s;
}

const struct jobs_limits *jobs_limits(const struct jobs *j)
{
    return &j->p.limits;
}

void jobs_set_limits(struct jobs *j, const struct jobs_limits *limits)
{
    j->p.limits = *limits;
    attachments_set_most(j->attachments, limits->input_bytes);
    jobs_limit_running(j);
}

double jobs_wait_estimate(struct jobs *j, int pictures)
{
    return pictures * j->seconds_per_picture;
}

void jobs_measure(struct jobs *j, enum jobs_measure m, int which, double value)
{
    if (j->p.measure)
        j->p.measure(j->p.ctx, m, which, value);
}
