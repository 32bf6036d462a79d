// How jobs come in: accepted from clients, or claimed from the store when the program starts. Loop
// thread only. jobs_life.c contains what follows.
#include "jobs_impl.h"

#include "clock.h"
#include "log.h"
#include "webhook.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

// ---- accepting ----------------------------------------------------------------------------------

// The number of images that will be queued once their jobs are stored; owner NULL: of all owners.
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

// Checks whether a request can be generated, and resolves its settings. A full queue refuses before
// the samplers are computed, which is most of the work under overload.
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

// The job is stored, or need not be.
static void accepted(struct jobs_ask *ask)
{
    struct jobs *j = ask->j;
    struct job *job = ask->job;
    struct fault why;
    ask->accepting = 0;
    jobs_link(j, job);
    // While the program is ending, the job waits in the store.
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

// The owner has used the key before, for the same request or for another.
static void found_key(struct jobs_ask *ask, struct job *job)
{
    const char *hash = ask->job->spec.body_hash;
    struct fault why;
    jobs_loaded(ask->j, job);
    ask->found = true;
    ask->submitted = false;
    if (!strcmp(job->spec.body_hash ? job->spec.body_hash : "", hash ? hash : "")) {
        // A waiting client needs the images now; others fetch them later.
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
    const int64_t seq = c->job->seq;
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
    job->used = *used;
    job->created = clock_unix_ms();
    ask->accepting = s->n;
    if (!s->durable && !s->keep && !s->idempotency_key) {
        accepted(ask);
        return;
    }
    struct store_call *c = store_call_about(STORE_ACCEPT, job, on_accepted, ask);
    if (c)
        jobs_call(ask->j, c);
    else
        jobs_ask_no_memory(ask);
}

// Handles the lookup of an idempotency key. Only a new request is checked now, so that a repeated
// one succeeds even if the queue is full.
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
    struct jobs_ask *ask = jobs_ask_create(j, done, ctx, out);
    struct fault why;
    struct picture_used used;
    enum err err = ERR_OK;
    if (!ask)
        return;
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

// Takes a stored job into this process.
static void claim_job(struct jobs *j, struct job *job)
{
    const char *const inputs[] = {job->spec.input.image, job->spec.input.mask};
    for (int i = 0; i < 2; i++)
        if (inputs[i] && attachments_adopt(j->attachments, inputs[i]))
            log_msg(LOG_ERROR, "jobs", "%s: %s", job->id, err_text(ERR_NO_MEMORY));
    jobs_loaded(j, job);
    jobs_link(j, job);
    if (job_ended(job))
        jobs_settle(j, job); // stays if its webhook must be called
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
