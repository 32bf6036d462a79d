// Replicas that share a store: they claim jobs, renew their leases, hand jobs back, and cancel jobs
// of others. Loop thread only. jobs_mirror.c follows the jobs that others draw, and jobs_life.c has
// the life of a job that is drawn here.
#include "jobs_impl.h"

#include "clock.h"
#include "log.h"

#include <stdlib.h>
#include <string.h>

bool job_here(const struct job *job)
{
    return !job->stored || job->lease;
}

void jobs_round_failed(struct jobs *j, const struct fault *why)
{
    if (why->code && !j->unreachable)
        log_msg(LOG_ERROR, "store", "%s", why->msg);
    j->unreachable = why->code;
}

// ---- losing a job -------------------------------------------------------------------------------

void jobs_let_go(struct jobs *j, struct job *job)
{
    jobs_stop_images(j, job, JOB_QUEUED);
    job->lease = 0;
    job->cancel = job->ending = job->unsaved = false;
    if (job_ended(job))
        return;
    job->state = JOB_QUEUED;
    job->fault = (struct fault){0};
    job->finished = job->expires = job->webhook_next = 0;
    for (int i = 0; i < job->spec.n; i++) {
        struct job_picture *p = &job->picture[i];
        if (p->state == JOB_DONE)
            continue;
        p->bytes = 0;
        p->stage = p->step = 0;
        blob_unref(&p->image);
        blob_unref(&p->latest);
    }
}

void jobs_lost(struct jobs *j, struct job *job)
{
    log_msg(LOG_WARN, "jobs", "%s: the lease ended; another replica has the job", job->id);
    jobs_measure(j, JOBS_LOST, 0, 1);
    jobs_let_go(j, job);
    jobs_settle(j, job);
}

// ---- heartbeats ---------------------------------------------------------------------------------

static bool has_lease(const struct job *job)
{
    return job->lease && (!job_ended(job) || job->unsaved || job->webhook_next);
}

static struct store_call *lease_call(struct jobs *j, enum store_op op,
                                     void (*done)(struct store_call *c))
{
    size_t n = 0;
    for (const struct job *job = j->newest; job; job = job->older)
        n += has_lease(job);
    struct store_call *c = n ? store_call_create(op, done, j) : NULL;
    if (c && !(c->lease = calloc(n, sizeof *c->lease))) {
        store_call_free(c);
        c = NULL;
    }
    return c;
}

static struct store_lease *add_lease(struct store_call *c, const struct job *job)
{
    struct store_lease *lease = &c->lease[c->n_lease++];
    memcpy(lease->id, job->id, sizeof lease->id);
    lease->token = job->lease;
    return lease;
}

// A snapshot with the previews that other replicas have not seen. NULL: nothing is new.
static struct job *progress_of(struct job *job)
{
    struct job *s = job->told != job->events && !job_ended(job) ? job_snapshot(job) : NULL;
    for (int i = 0; s && i < job->spec.n; i++) {
        struct job_picture *p = &job->picture[i];
        if (!job->watched_there || !p->latest || p->told == p->previews)
            continue;
        s->picture[i].latest = blob_ref(p->latest);
        p->told = p->previews;
    }
    if (s)
        job->told = job->events;
    return s;
}

// Follows what the store says about a lease.
static void obey(struct jobs *j, const struct store_lease *lease, bool failed)
{
    struct job *job = jobs_live(j, lease->id);
    if (!job || job->lease != lease->token || !has_lease(job))
        return;
    if (failed) {
        job->told = 0;
    } else if (lease->lost) {
        jobs_lost(j, job);
    } else {
        job->watched_there = lease->previews;
        jobs_tell_watched(job);
        if (lease->cancel)
            jobs_cancel(j, job);
    }
}

static void on_beaten(struct store_call *c)
{
    struct jobs *j = c->ctx;
    jobs_called(j, c);
    j->beating = false;
    jobs_round_failed(j, &c->why);
    for (int i = 0; i < c->n_lease; i++)
        obey(j, &c->lease[i], c->why.code);
    store_call_free(c);
}

static void beat(struct jobs *j)
{
    struct store_call *c = j->beating ? NULL : lease_call(j, STORE_BEAT, on_beaten);
    if (!c)
        return;
    for (struct job *job = j->newest; job; job = job->older) {
        if (!has_lease(job))
            continue;
        struct store_lease *lease = add_lease(c, job);
        lease->progress = progress_of(job);
        lease->wanted = job->watches;
        for (int i = 0; i < job->spec.n; i++)
            lease->backlog += job->picture[i].work && !job->picture[i].work->in_slot;
    }
    j->beating = true;
    jobs_call(j, c);
}

// ---- handing back -------------------------------------------------------------------------------

static void on_released(struct store_call *c)
{
    struct jobs *j = c->ctx;
    jobs_called(j, c);
    if (c->why.code)
        log_msg(LOG_ERROR, "store", "%s", c->why.msg);
    store_call_free(c);
}

void jobs_release(struct jobs *j, bool running)
{
    struct store_call *c = lease_call(j, STORE_RELEASE, on_released);
    struct job *older;
    for (struct job *job = c ? j->newest : NULL; job; job = older) {
        older = job->older;
        const bool waits = job->state == JOB_QUEUED && job->spec.durable;
        if (!has_lease(job) || job->ending || job->unsaved || !(running || waits))
            continue;
        add_lease(c, job);
        jobs_let_go(j, job);
        jobs_settle(j, job);
    }
    if (c && c->n_lease)
        jobs_call(j, c);
    else
        store_call_free(c);
}

// ---- cancelling a job of another replica --------------------------------------------------------

static void on_cancelled(struct store_call *c)
{
    struct job *job = c->ctx, *now = c->n ? c->jobs[0] : NULL;
    struct jobs *j = job->core;
    jobs_called(j, c);
    job->pins--;
    job->cancelling = false;
    job->cancel = c->why.code; // tried again while somebody watches it
    if (c->why.code)
        log_msg(LOG_ERROR, "store", "%s: %s", job->id, c->why.msg);
    else if (now)
        c->jobs[0] = NULL;
    if (now && c->ended)
        jobs_measure(j, JOBS_ENDED, (int)now->state, (double)(now->finished - now->created) * 1e-3);
    store_call_free(c);
    if (now)
        jobs_mirror(j, job, now);
    else
        jobs_settle(j, job);
}

void jobs_cancel_there(struct jobs *j, struct job *job)
{
    struct store_call *c = job_ended(job) || job->cancelling
                               ? NULL
                               : store_call_about(STORE_CANCEL, job, on_cancelled, job);
    job->cancel = !job_ended(job);
    if (!c)
        return;
    c->job->state = JOB_CANCELLED;
    c->job->finished = clock_unix_ms();
    c->job->expires = c->job->finished + jobs_keep_ms(j, job);
    c->job->webhook_next = job->spec.webhook_url ? c->job->finished : 0;
    for (int i = 0; i < job->spec.n; i++)
        if (c->job->picture[i].state != JOB_DONE)
            c->job->picture[i].state = JOB_CANCELLED;
    job->cancelling = true;
    job->pins++;
    jobs_call(j, c);
}

// ---- the rounds ---------------------------------------------------------------------------------

int jobs_room_here(struct jobs *j)
{
    return jobs_stats(j).slots - queue_demand(j->queue);
}

void jobs_on_changed(void *ctx)
{
    struct jobs *j = ctx;
    j->changed = true;
}

void jobs_share(struct jobs *j)
{
    if (!j->changed && j->ticks % JOBS_EXPIRE_TICKS)
        return;
    j->changed = false;
    jobs_claim(j);
    beat(j);
    jobs_follow(j);
}
