// The table of all jobs: accept, find, watch, expire, drain, close. Loop thread only; what happens
// while a job is drawn is in jobs_run.c. Knows nothing of HTTP.
#include "jobs_impl.h"

#include "clock.h"
#include "hash.h"
#include "log.h"
#include "text.h"
#include "webhook.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

// ---- the tables -----------------------------------------------------------------------------

static size_t bucket_of(const char *a, const char *b)
{
    return hash_join(hash_text(a), hash_text(b)).lo % JOBS_BUCKETS;
}

struct job *job_create(void)
{
    return calloc(1, sizeof(struct job));
}

static void ring_free(struct job *job)
{
    for (int i = 0; i < JOB_RING; i++)
        blob_unref(&job->ring[i].blob);
}

void job_free(struct job **j)
{
    if (!*j)
        return;
    for (int i = 0; i < JOB_MAX_PICTURES; i++) {
        blob_unref(&(*j)->picture[i].image);
        blob_unref(&(*j)->picture[i].latest);
    }
    ring_free(*j);
    free((*j)->spec_text);
    free(*j);
    *j = NULL;
}

static void jobs_link(struct jobs *j, struct job *job)
{
    struct job **id = &j->by_id[bucket_of(job->id, "")];
    job->by_id = *id;
    *id = job;
    if (job->spec.idempotency_key) {
        struct job **key = &j->by_key[bucket_of(job->spec.owner, job->spec.idempotency_key)];
        job->by_key = *key;
        *key = job;
    }
    job->older = j->newest;
    if (j->newest)
        j->newest->newer = job;
    else
        j->oldest = job;
    j->newest = job;
    j->count++;
}

static void jobs_unlink(struct jobs *j, struct job *job)
{
    struct job **at = &j->by_id[bucket_of(job->id, "")];
    while (*at != job)
        at = &(*at)->by_id;
    *at = job->by_id;
    if (job->spec.idempotency_key) {
        at = &j->by_key[bucket_of(job->spec.owner, job->spec.idempotency_key)];
        while (*at != job)
            at = &(*at)->by_key;
        *at = job->by_key;
    }
    *(job->newer ? &job->newer->older : &j->newest) = job->older;
    *(job->older ? &job->older->newer : &j->oldest) = job->newer;
    j->count--;
}

struct job *jobs_find(struct jobs *j, const char *id)
{
    struct job *job = j->by_id[bucket_of(id, "")];
    while (job && strcmp(job->id, id))
        job = job->by_id;
    return job;
}

struct job *jobs_find_key(struct jobs *j, const char *owner, const char *idempotency_key)
{
    struct job *job = j->by_key[bucket_of(owner, idempotency_key)];
    while (job &&
           (strcmp(job->spec.idempotency_key, idempotency_key) || strcmp(job->spec.owner, owner)))
        job = job->by_key;
    return job;
}

struct job *jobs_newest(struct jobs *j)
{
    return j->newest;
}

// ---- leaving --------------------------------------------------------------------------------

void jobs_remove(struct jobs *j, struct job *job)
{
    struct fault why;
    if (!job->removing) {
        if (job->stored && j->p.store->ops->remove(j->p.store, job, &why))
            log_msg(LOG_WARN, "store", "%s: %s", job->id, why.msg);
        for (int i = 0; i < job->spec.n; i++)
            j->kept_bytes -= job->picture[i].bytes;
        j->kept -= job_ended(job);
        jobs_unlink(j, job);
        job->removing = true;
    }
    if (job_busy(job))
        return;
    attachments_release(j->attachments, job->spec.input.image);
    attachments_release(j->attachments, job->spec.input.mask);
    job_free(&job);
}

void jobs_drop_if_idle(struct jobs *j, struct job *job)
{
    if (job->removing)
        jobs_remove(j, job);
    else if (job_ended(job) && !job->spec.keep && !job->watches && !job_busy(job))
        jobs_remove(j, job);
}

static void tell_watched(struct job *job)
{
    bool any = false;
    for (const struct job_watch *w = job->watches; w; w = w->next)
        any |= w->previews;
    for (int i = 0; i < job->spec.n; i++) {
        struct work *work = job->picture[i].work;
        int always = WATCHED_ALWAYS;
        if (work && any)
            atomic_store(&work->watched, WATCHED_ALWAYS);
        else if (work)
            atomic_compare_exchange_strong(&work->watched, &always, WATCHED_NOT);
    }
}

void jobs_want_preview(struct job *job, int picture)
{
    struct work *work = job->picture[picture].work;
    int not_yet = WATCHED_NOT;
    if (work)
        atomic_compare_exchange_strong(&work->watched, &not_yet, WATCHED_ONCE);
}

void jobs_watch(struct jobs *j, struct job *job, struct job_watch *w)
{
    w->job = job;
    w->next = job->watches;
    job->watches = w;
    tell_watched(job);
}

void jobs_unwatch(struct jobs *j, struct job_watch *w)
{
    struct job *job = w->job;
    struct job_watch **at = &job->watches;
    while (*at != w)
        at = &(*at)->next;
    *at = w->next;
    w->job = NULL;
    tell_watched(job);
    // A client that sent an Idempotency-Key will ask for the result again.
    const bool wanted = job->watches || job->spec.durable || job->spec.idempotency_key;
    if (!wanted && !job_ended(job))
        jobs_cancel(j, job);
    else
        jobs_drop_if_idle(j, job);
}

void jobs_cancel(struct jobs *j, struct job *job)
{
    if (!job_ended(job))
        jobs_end(j, job, JOB_CANCELLED, NULL);
    jobs_drop_if_idle(j, job);
}

static void jobs_expire(struct jobs *j, int64_t now)
{
    struct job *newer;
    for (struct job *job = j->oldest; job; job = newer) {
        newer = job->newer;
        const bool over = j->kept > j->p.limits.keep_jobs || j->kept_bytes > j->p.limits.keep_bytes;
        const bool untold = j->webhook && job->webhook_next;
        if (job_ended(job) && !job->watches && !untold && (over || job->expires <= now))
            jobs_remove(j, job);
    }
}

static void jobs_deadlines(struct jobs *j, int64_t now)
{
    struct job *older;
    for (struct job *job = j->newest; job; job = older) {
        older = job->older;
        if (job_ended(job) || !job->spec.deadline || job->spec.deadline > now)
            continue;
        struct fault why;
        fault_set(&why, ERR_TIMEOUT, "deadline", "the deadline passed before the job finished");
        jobs_end(j, job, JOB_FAILED, &why);
        jobs_drop_if_idle(j, job);
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

static void jobs_on_timer(uv_timer_t *timer)
{
    struct jobs *j = timer->data;
    const int64_t now = clock_unix_ms();
    jobs_deadlines(j, now);
    jobs_expire(j, now);
    jobs_positions(j);
    jobs_webhooks(j, now);
}

// ---- accepting ------------------------------------------------------------------------------

static struct worker *jobs_any_worker(struct jobs *j)
{
    for (int i = 0; i < j->workers; i++)
        if (worker_ready(j->worker[i]))
            return j->worker[i];
    return NULL;
}

// The worker that can say whether a request could be drawn.
static enum err jobs_accepting(struct jobs *j, struct worker **w, struct fault *why)
{
    *w = jobs_any_worker(j);
    if (j->draining)
        return fault_set(why, ERR_BUSY, "server", "the server is shutting down");
    if (!*w && j->down.code)
        return fault_set(why, ERR_BUSY, "server", "no device is available: %s", j->down.msg);
    if (!*w)
        return fault_set(why, ERR_BUSY, "server", "the model is still loading");
    return ERR_OK;
}

static enum err jobs_room(struct jobs *j, const struct job_spec *spec, struct fault *why)
{
    if (spec->n > j->p.limits.queued || spec->n > j->p.limits.queued_per_owner)
        return fault_set(why, ERR_INVALID, "n", "%d images exceed the capacity of the queue",
                         spec->n);
    if (queue_length(j->queue) + spec->n > j->p.limits.queued)
        return fault_set(why, ERR_BUSY, "queue", "the queue is full");
    if (queue_owner_length(j->queue, spec->owner) + spec->n > j->p.limits.queued_per_owner)
        return fault_set(why, ERR_BUSY, "queue", "this API key has too many images in the queue");
    return ERR_OK;
}

enum err jobs_may_accept(struct jobs *j, const struct job_spec *spec, struct fault *why)
{
    struct worker *w;
    const enum err err = jobs_accepting(j, &w, why);
    return err ? err : jobs_room(j, spec, why);
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

static enum err jobs_store_new(struct jobs *j, struct job *job, struct fault *why)
{
    if (!job->spec.durable)
        return ERR_OK;
    const enum err err = j->p.store->ops->put(j->p.store, job, why);
    job->stored = !err;
    return err;
}

enum err jobs_submit(struct jobs *j, const struct job_spec *spec, struct job **out,
                     struct fault *why)
{
    struct job *job = NULL;
    struct picture_used used;
    struct worker *w;
    enum err err = jobs_accepting(j, &w, why);
    // A full queue refuses before the samplers are computed, which is most of the work under
    // overload.
    if (!err)
        err = jobs_room(j, spec, why);
    if (!err)
        err = worker_check(w, spec, &used, why);
    if (!err && spec->webhook_url)
        err = webhook_check(j->p.webhook.allow, spec->webhook_url, why);
    if (err)
        return err;
    job = job_create();
    if (!job || (err = job_spec_copy(spec, &job->spec, &job->spec_text))) {
        err = fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
        goto fail;
    }
    if (random_id("job_", job->id, sizeof job->id) ||
        random_id("", job->token, sizeof job->token)) {
        err = fault_set(why, ERR_INTERNAL, "", "cannot read random numbers from the system");
        goto fail;
    }
    job->used = used;
    job->position = -1;
    job->created = clock_unix_ms();
    err = jobs_store_new(j, job, why);
    if (err)
        goto fail;
    jobs_link(j, job);
    err = jobs_enqueue(j, job);
    if (err) {
        fault_set(why, err, "", "%s", err_text(err));
        jobs_end(j, job, JOB_FAILED, why);
        jobs_remove(j, job);
        return err;
    }
    const struct log_field fields[] = {
        {"job", job->id}, {"request_id", spec->request_id}, {"prompt", spec->request.prompt}};
    log_fields(LOG_DEBUG, "jobs", "accepted", fields, 3);
    *out = job;
    return ERR_OK;
fail:
    job_free(&job);
    return err;
}

enum err jobs_image(struct jobs *j, struct job *job, int picture, struct blob **out,
                    struct fault *why)
{
    *out = NULL;
    if (picture >= 0 && picture < job->spec.n && job->state == JOB_DONE &&
        job->picture[picture].state == JOB_FAILED)
        return fault_set(why, ERR_NOT_FOUND, "picture",
                         "image %d of this job is no longer available", picture);
    if (picture < 0 || picture >= job->spec.n || job->picture[picture].state != JOB_DONE)
        return fault_set(why, ERR_NOT_FOUND, "picture",
                         "this image does not exist or is not finished yet");
    if (job->picture[picture].image) {
        *out = blob_ref(job->picture[picture].image);
        return ERR_OK;
    }
    return j->p.store->ops->get_image(j->p.store, job->id, picture, job->spec.format, out, why);
}

// ---- life of the whole ----------------------------------------------------------------------

static void jobs_on_row(void *ctx, struct job *job)
{
    struct jobs *j = ctx;
    job->stored = true;
    job->position = -1;
    const char *const inputs[] = {job->spec.input.image, job->spec.input.mask};
    for (int i = 0; i < 2; i++)
        if (inputs[i] && attachments_adopt(j->attachments, inputs[i]))
            log_msg(LOG_ERROR, "jobs", "%s: %s", job->id, err_text(ERR_NO_MEMORY));
    jobs_link(j, job);
    if (job_ended(job)) {
        j->kept++;
        for (int i = 0; i < job->spec.n; i++)
            j->kept_bytes += job->picture[i].bytes;
    } else if (jobs_enqueue(j, job)) {
        log_msg(LOG_ERROR, "jobs", "%s: %s", job->id, err_text(ERR_NO_MEMORY));
    }
}

static enum err jobs_start_workers(struct jobs *j, struct fault *why)
{
    struct worker_params p = {
        .loop = j->p.loop,
        .queue = j->queue,
        .attachments = j->attachments,
        .engine = j->p.engine,
        .event = jobs_on_worker,
        .ctx = j,
    };
    char *save = NULL, *device = j->devices ? strtok_r(j->devices, ",", &save) : NULL;
    do {
        if (j->workers == JOBS_MAX_WORKERS)
            return fault_set(why, ERR_INVALID, "device", "device: at most %d devices are supported",
                             JOBS_MAX_WORKERS);
        p.engine.device = device;
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
    if (!j)
        return err;
    j->p = *p;
    if (uv_timer_init(p->loop, &j->timer)) {
        free(j);
        return err;
    }
    j->timer.data = j;
    j->queue = queue_create();
    j->devices = p->devices && *p->devices ? strdup(p->devices) : NULL;
    if (attachments_create(p->store, p->limits.input_bytes, &j->attachments) || !j->queue ||
        (p->devices && *p->devices && !j->devices))
        goto fail;
    queue_set_running_limit(j->queue, p->limits.running_per_owner);
    err = p->store->ops->load(p->store, jobs_on_row, j, why);
    if (err)
        goto fail;
    attachments_sweep(j->attachments);
    err = jobs_webhook_open(j, why);
    if (!err)
        err = jobs_start_workers(j, why);
    if (err)
        goto fail;
    uv_timer_start(&j->timer, jobs_on_timer, JOBS_TIMER_MS, JOBS_TIMER_MS);
    *out = j;
    return ERR_OK;
fail:
    jobs_close(j, NULL, NULL);
    return err;
}

void jobs_try_closed(struct jobs *j)
{
    if (!j->leaving || j->closing || j->encoding || j->intakes)
        return;
    struct job *newer;
    for (struct job *job = j->oldest; job; job = newer) {
        newer = job->newer;
        job_free(&job);
    }
    void (*closed)(void *ctx) = j->closed;
    void *ctx = j->closed_ctx;
    queue_destroy(&j->queue);
    attachments_destroy(&j->attachments);
    j->p.store->ops->close(&j->p.store);
    free(j->devices);
    free(j);
    if (closed)
        closed(ctx);
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

void jobs_close(struct jobs *j, void (*closed)(void *ctx), void *ctx)
{
    j->closed = closed;
    j->closed_ctx = ctx;
    j->draining = j->leaving = true;
    jobs_abandon(j);
    j->closing = j->workers + 1 + (j->webhook != NULL);
    for (int i = 0; i < j->workers; i++)
        worker_stop(j->worker[i], jobs_on_part_closed, j);
    j->workers = 0;
    if (j->webhook)
        webhook_close(j->webhook, jobs_on_part_closed, j);
    j->webhook = NULL;
    uv_close((uv_handle_t *)&j->timer, jobs_on_timer_closed);
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
    return !j->encoding && !j->intakes;
}

// ---- what others ask ------------------------------------------------------------------------

bool jobs_ready(struct jobs *j, struct fault *why)
{
    if (!j->draining && jobs_any_worker(j))
        return true;
    if (j->draining)
        fault_set(why, ERR_BUSY, "server", "draining");
    else if (j->down.code)
        fault_set(why, ERR_NO_DEVICE, "server", "%s", j->down.msg);
    else
        fault_set(why, ERR_BUSY, "server", "loading");
    return false;
}

const struct model_info *jobs_model(struct jobs *j)
{
    for (int i = 0; i < j->workers; i++)
        if (worker_model(j->worker[i]))
            return worker_model(j->worker[i]);
    return NULL;
}

struct jobs_stats jobs_stats(struct jobs *j)
{
    struct jobs_stats s = {
        .queued = queue_length(j->queue),
        .running = j->running,
        .jobs = j->count,
        .kept_bytes = j->kept_bytes,
        .input_bytes = attachments_bytes(j->attachments),
        .seconds_per_picture = j->seconds_per_picture,
    };
    for (int i = 0; i < j->workers; i++) {
        const struct worker_stats w = worker_stats(j->worker[i]);
        const struct model_info *m = worker_model(j->worker[i]);
        s.slots += m && worker_ready(j->worker[i]) ? m->slots : 0;
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
    queue_set_running_limit(j->queue, limits->running_per_owner);
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
