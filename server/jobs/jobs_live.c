// The table of live jobs, and their watchers. Loop thread only. Knows nothing about HTTP or the
// generation of images.
#include "jobs_impl.h"

#include "clock.h"
#include "hash.h"

#include <string.h>

// ---- live jobs ----------------------------------------------------------------------------------

static struct job **place_of(struct jobs *j, const char *id)
{
    struct job **at = &j->by_id[hash_text(id).lo % JOBS_BUCKETS];
    while (*at && strcmp((*at)->id, id))
        at = &(*at)->by_id;
    return at;
}

struct job *jobs_live(struct jobs *j, const char *id)
{
    return *place_of(j, id);
}

// Lets the ids of events begin above those that another process gave the job before: a stream that
// comes back with one of these must not take others for what it missed.
static void begin_events(struct job *job)
{
    job->events = job->events_begin = (uint64_t)clock_unix_ms() * 1000;
}

void jobs_loaded(struct jobs *j, struct job *job)
{
    job->core = j;
    job->stored = true;
    job->lease = 0; // the copy of a job that is found
    if (!j->p.store->shared)
        job->position = -1;
    begin_events(job);
}

void jobs_link(struct jobs *j, struct job *job)
{
    if (!job->events)
        begin_events(job);
    *place_of(j, job->id) = job;
    job->older = j->newest;
    *(j->newest ? &j->newest->newer : &j->oldest) = job;
    j->newest = job;
    job->core = j;
    job->linked = true;
    j->unstored += !job->stored;
}

void jobs_unlink(struct jobs *j, struct job *job)
{
    *place_of(j, job->id) = job->by_id;
    *(job->newer ? &job->newer->older : &j->newest) = job->older;
    *(job->older ? &job->older->newer : &j->oldest) = job->newer;
    job->linked = false;
    j->unstored -= !job->stored;
}

struct job *jobs_only_copy(struct jobs *j, struct job *job)
{
    struct job *live = jobs_live(j, job->id);
    if (!live || live == job)
        return job;
    for (int i = 0; i < job->spec.n; i++) {
        if (!live->picture[i].image && job->picture[i].image)
            live->picture[i].image = blob_ref(job->picture[i].image);
    }
    if (job->lost.code)
        live->lost = job->lost;
    job_free(&job);
    return live;
}

void jobs_settle(struct jobs *j, struct job *job)
{
    const bool untold = j->webhook && job->webhook_next;
    const bool unfinished = !job_ended(job) || job->unsaved || untold;
    if (job_busy(job) || job->watches || (job->linked && job_here(job) && unfinished))
        return;
    if (job->linked)
        jobs_unlink(j, job);
    if (!job->stored) {
        attachments_release(j->attachments, job->spec.input.image);
        attachments_release(j->attachments, job->spec.input.mask);
    }
    job_free(&job);
}

// ---- watching -----------------------------------------------------------------------------------

void jobs_tell_watched(struct job *job)
{
    bool any = job->watched_there;
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
    j->changed |= !job_here(job); // it is asked for soon
    jobs_tell_watched(job);
}

void jobs_emit(struct jobs *j, struct job *job, struct job_event ev)
{
    struct job_event *slot = &job->ring[job->events % JOB_RING];
    ev.id = ++job->events;
    blob_unref(&slot->blob);
    *slot = ev;
    // Reconnecting streams get the latest preview from the image, not from the ring.
    slot->blob = NULL;
    job->pins++;
    for (struct job_watch *w = job->watches, *next; w; w = next) {
        next = w->next;
        w->event(w, &ev);
    }
    job->pins--;
}

// A client that sent an Idempotency-Key will ask for the result again.
void jobs_cancel_unwanted(struct jobs *j, struct job *job)
{
    const bool wanted = job->watches || job->spec.durable || job->spec.idempotency_key;
    if (!wanted && !job_ended(job))
        jobs_cancel(j, job);
    else
        jobs_settle(j, job);
}

bool jobs_wants_images(const struct job *job)
{
    for (const struct job_watch *w = job->watches; w; w = w->next)
        if (w->images)
            return true;
    return false;
}

void jobs_drop_images(struct job *job)
{
    if (!job->stored || !job_ended(job) || job->answering || jobs_wants_images(job))
        return;
    for (int i = 0; i < job->spec.n; i++)
        blob_unref(&job->picture[i].image);
}

void jobs_unwatch(struct jobs *j, struct job_watch *w)
{
    struct job *job = w->job;
    struct job_watch **at = &job->watches;
    while (*at != w)
        at = &(*at)->next;
    *at = w->next;
    w->job = NULL;
    if (!job->pins)
        jobs_drop_images(job);
    jobs_tell_watched(job);
    jobs_cancel_unwanted(j, job);
}

void jobs_cancel(struct jobs *j, struct job *job)
{
    if (job_here(job))
        jobs_end(j, job, JOB_CANCELLED, NULL);
    else
        jobs_cancel_there(j, job);
    jobs_settle(j, job);
}
