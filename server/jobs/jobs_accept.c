// How jobs come in: accepted from clients, or claimed from the store: when the program starts and,
// if replicas share the store, whenever there is room. Loop thread only. jobs_life.c contains what
// follows.
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
    const bool own = most->queued_per_owner < most->queued;
    const int largest = own ? most->queued_per_owner : most->queued;
    if (spec->n > largest)
        return fault_set(why, ERR_INVALID, "n", "\"n\": %d images are more than %s of %d", spec->n,
                         own ? "queue-limit-per-key" : "queue-limit", largest);
    // A shared store counts when it accepts the job, and each owner's images only then.
    const bool shared = j->p.store->shared;
    const int waiting = shared ? j->kept.queued : queue_length(j->queue);
    const int owned = shared ? 0 : queue_owner_length(j->queue, spec->owner);
    if (waiting + accepting_images(j, NULL) + spec->n > most->queued)
        return fault_set(why, ERR_BUSY, "queue", "the queue is full");
    if (owned + accepting_images(j, spec->owner) + spec->n > most->queued_per_owner)
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
        err = jobs_resolve(j, w, spec, used, why);
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

enum err jobs_enqueue(struct jobs *j, struct job *job)
{
    for (int i = 0; i < job->spec.n; i++) {
        struct job_picture *p = &job->picture[i];
        // Done before a restart or elsewhere, or queued, or about to be removed from its slot.
        if (p->state == JOB_DONE || p->work)
            continue;
        struct work *w = calloc(1, sizeof *w);
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
    job->core = j;
    if (job_here(job))
        jobs_link(j, job);
    // While the program is ending, the job waits in the store.
    if (job_here(job) && !j->leaving && jobs_enqueue(j, job)) {
        fault_set(&why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
        jobs_fail(j, job, &why);
    }
    const struct log_field fields[] = {{"job", job->id},
                                       {"request_id", job->spec.request_id},
                                       {"prompt", job->spec.request.prompt}};
    log_fields(LOG_DEBUG, "jobs", "accepted", fields, 3);
    jobs_ask_end(ask, job, NULL);
    if (j->draining && j->p.store->shared)
        jobs_release(j, j->leaving);
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
    const int64_t seq = c->job->seq, lease = c->job->lease;
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
        ask->job->lease = lease;
        accepted(ask);
    }
}

// Adds what can start here now, and the limits of the fleet.
static void set_quota(struct jobs *j, struct store_call *c)
{
    const struct jobs_limits *most = &j->p.limits;
    const int room = jobs_room_here(j) - accepting_images(j, NULL);
    c->room = j->draining || room < 0 ? 0 : room;
    c->quota = (struct store_quota){most->queued, most->queued_per_owner, most->running_per_owner};
    c->keep.now = clock_unix_ms();
    c->keep.webhooks = j->webhook;
    if (j->p.store->shared)
        c->models = jobs_model_names(j);
}

static void store_job(struct jobs_ask *ask, const struct picture_used *used)
{
    struct job *job = ask->job;
    const struct job_spec *s = &job->spec;
    job->used = *used;
    job->created = clock_unix_ms();
    if (!s->durable && !s->keep && !s->idempotency_key && !ask->j->p.store->shared) {
        accepted(ask);
        return;
    }
    struct store_call *c = store_call_about(STORE_ACCEPT, job, on_accepted, ask);
    if (c) {
        set_quota(ask->j, c);
        ask->accepting = s->n;
        jobs_call(ask->j, c);
    } else {
        jobs_ask_no_memory(ask);
    }
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
    struct job_spec s = *spec;
    struct fault why;
    struct picture_used used;
    enum err err = ERR_OK;
    if (!ask)
        return;
    ask->submitted = true;
    if (!s.model || !*s.model)
        s.model = j->p.engine->name; // another process may have another default
    if (!s.idempotency_key)
        err = jobs_check(j, &s, &used, &why);
    if (!err)
        err = job_new(&s, &ask->job, &why);
    if (!err && s.idempotency_key)
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

// Ends a claimed job that need not be drawn.
static bool is_finished(struct jobs *j, struct job *job)
{
    struct fault why;
    if (job->cancel) {
        jobs_end(j, job, JOB_CANCELLED, NULL);
    } else if (job->claims > JOB_MAX_CLAIMS) {
        fault_set(&why, ERR_INTERNAL, "",
                  "the job was given up after %d attempts, all of which"
                  " ended with the loss of their server",
                  JOB_MAX_CLAIMS);
        jobs_fail(j, job, &why);
    } else if (all_done(job)) {
        jobs_end(j, job, JOB_DONE, NULL);
    } else {
        return jobs_late(j, job, clock_unix_ms());
    }
    return true;
}

void jobs_begin(struct jobs *j, struct job *job, const struct job *now)
{
    struct fault why;
    job->pins++;
    job->lease = now->lease;
    job->claims = now->claims;
    job->cancel = now->cancel;
    job->told = 0;
    if (job_ended(job)) { // only its webhook must be called
        job->webhook_tries = now->webhook_tries;
        job->webhook_next = now->webhook_next;
    } else if (!job->ending && !is_finished(j, job)) {
        job->state = JOB_QUEUED;
        if (jobs_enqueue(j, job)) {
            fault_set(&why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
            jobs_fail(j, job, &why);
        }
        jobs_tell_watched(job);
    }
    job->pins--;
    jobs_settle(j, job);
}

// Takes a stored job into this process.
static void claim_job(struct jobs *j, struct job *job)
{
    const char *const inputs[] = {job->spec.input.image, job->spec.input.mask};
    const int64_t lease = job->lease;
    struct job *live = jobs_live(j, job->id);
    if (live) { // clients watch it here
        jobs_mirror(j, live, job);
        return;
    }
    for (int i = 0; i < 2 && !j->p.store->shared; i++)
        if (inputs[i] && attachments_adopt(j->attachments, inputs[i]))
            log_msg(LOG_ERROR, "jobs", "%s: %s", job->id, err_text(ERR_NO_MEMORY));
    jobs_loaded(j, job);
    job->lease = lease;
    job->position = -1;
    jobs_link(j, job);
    jobs_begin(j, job, job);
}

static void on_claimed(struct store_call *c)
{
    struct jobs *j = c->ctx;
    const bool shared = j->p.store->shared, more = shared && c->n;
    jobs_called(j, c);
    if (more)
        jobs_measure(j, JOBS_CLAIMED, 0, c->n);
    const bool again = j->claim_again;
    j->claiming = j->claim_again = false;
    jobs_round_failed(j, &c->why);
    for (int i = 0; i < c->n; i++) {
        claim_job(j, c->jobs[i]);
        c->jobs[i] = NULL;
    }
    store_call_free(c);
    if (!shared)
        attachments_sweep(j->attachments);
    else if (j->draining)
        jobs_release(j, j->leaving);
    else if (more || (shared && again))
        jobs_claim(j);
}

void jobs_claim(struct jobs *j)
{
    j->claim_again = j->claiming; // a slot may have become free since that call was made
    struct store_call *c =
        j->claiming || j->draining ? NULL : store_call_create(STORE_CLAIM, on_claimed, j);
    if (!c)
        return; // tried again, or not needed
    set_quota(j, c);
    j->claiming = true;
    jobs_call(j, c);
}
