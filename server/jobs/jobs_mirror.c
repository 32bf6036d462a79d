// Jobs that other replicas draw, or that wait for one, while clients of this replica watch them:
// the store's snapshots become the events that a job drawn here would have. Steps may be missing
// among them, images and the end never. Loop thread only.
#include "jobs_impl.h"

#include "log.h"

#include <stdlib.h>
#include <string.h>

// ---- events -------------------------------------------------------------------------------------

static void tell_progress(struct jobs *j, struct job *job, int picture, struct job_picture *now)
{
    struct job_picture *p = &job->picture[picture];
    struct job_event ev = {.picture = picture, .stages = now->stages};
    if (now->stage == p->stage && now->step == p->step)
        return;
    // A replica that begins again begins with the first stage.
    for (; p->stage < now->stage; p->stage++) {
        ev.type = JOB_EVENT_STAGE;
        ev.stage = p->stage;
        ev.step = ev.steps = picture_steps(&job->used, p->stage);
        jobs_emit(j, job, ev);
    }
    p->stage = ev.stage = now->stage;
    p->stages = now->stages;
    p->step = ev.step = now->step;
    p->steps = ev.steps = now->steps;
    ev.type = JOB_EVENT_STEP;
    jobs_emit(j, job, ev);
}

static void tell_preview(struct jobs *j, struct job *job, int picture, struct job_picture *now)
{
    struct job_picture *p = &job->picture[picture];
    if (!now->latest || now->previews == p->previews)
        return;
    blob_unref(&p->latest);
    p->latest = now->latest;
    now->latest = NULL;
    p->preview = now->preview;
    p->previews = now->previews;
    jobs_emit(j, job,
              (struct job_event){.type = JOB_EVENT_PREVIEW,
                                 .picture = picture,
                                 .stage = p->stage,
                                 .stages = p->stages,
                                 .step = p->step,
                                 .steps = p->steps,
                                 .preview = p->previews - 1,
                                 .width = p->preview.width,
                                 .height = p->preview.height,
                                 .blob = p->latest});
}

static void tell_picture(struct jobs *j, struct job *job, int picture,
                         const struct job_picture *now)
{
    struct job_picture *p = &job->picture[picture];
    p->state = JOB_DONE;
    p->stage = now->stage;
    p->stages = now->stages;
    p->step = now->step;
    p->steps = now->steps;
    p->bytes = now->bytes;
    p->width = now->width;
    p->height = now->height;
    jobs_emit(j, job,
              (struct job_event){.type = JOB_EVENT_PICTURE,
                                 .picture = picture,
                                 .width = p->width,
                                 .height = p->height,
                                 .blob = p->image});
}

static void tell_pictures(struct jobs *j, struct job *job, struct job *now)
{
    for (int i = 0; i < job->spec.n && !job_ended(job); i++) {
        struct job_picture *p = &job->picture[i], *to = &now->picture[i];
        if (p->state == JOB_DONE)
            continue;
        if (!job_ended(now)) {
            tell_progress(j, job, i, to);
            tell_preview(j, job, i, to);
        }
        if (to->state == JOB_DONE)
            tell_picture(j, job, i, to);
        else
            p->state = to->state;
    }
}

static void tell_end(struct jobs *j, struct job *job, const struct job *now)
{
    job->state = now->state;
    job->fault = now->fault;
    job->finished = now->finished;
    job->expires = now->expires;
    jobs_emit(j, job, (struct job_event){.type = JOB_EVENT_END});
    for (int i = 0; i < job->spec.n; i++)
        blob_unref(&job->picture[i].latest);
    jobs_drop_images(job);
}

static void tell_all(struct jobs *j, struct job *job, struct job *now)
{
    const bool starts = now->started && !job->started;
    job->used = now->used;
    if (now->started)
        job->started = now->started;
    if (!job_ended(now))
        job->state = now->state;
    if (now->state == JOB_QUEUED && now->position >= 0 && now->position != job->position) {
        job->position = now->position;
        jobs_emit(j, job, (struct job_event){.type = JOB_EVENT_QUEUED, .position = job->position});
    }
    if (starts)
        jobs_emit(j, job, (struct job_event){.type = JOB_EVENT_STARTED});
    tell_pictures(j, job, now);
    if (job_ended(now) && !job_ended(job))
        tell_end(j, job, now);
}

// ---- images -------------------------------------------------------------------------------------

static void apply(struct jobs *j, struct job *job)
{
    struct job *now = job->news, *later = job->later;
    job->news = job->later = NULL;
    job->pins++; // a watcher may leave
    if (!job_here(job) && !job_ended(job))
        tell_all(j, job, now);
    if (now->lease)
        jobs_begin(j, job, now);
    if (later)
        jobs_mirror(j, job, later);
    job->pins--;
    job_free(&now);
    jobs_settle(j, job);
}

static void on_fetched(struct store_call *c)
{
    struct job *job = c->ctx;
    struct jobs *j = job->core;
    jobs_called(j, c);
    job->pins--;
    if (c->why.code)
        job->lost = c->why;
    else if (!job->picture[c->picture].image)
        job->picture[c->picture].image = blob_ref(c->image);
    store_call_free(c);
    if (!--job->fetching)
        apply(j, job);
}

static void fetch(struct jobs *j, struct job *job, int picture)
{
    struct store_call *c = jobs_image_call(j, job->news, on_fetched, job);
    if (!c) {
        fault_set(&job->lost, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
        return;
    }
    c->picture = picture;
    job->fetching++;
    job->pins++;
    jobs_call(j, c);
}

void jobs_mirror(struct jobs *j, struct job *job, struct job *now)
{
    if (job->news && (!job->later || !job->later->lease)) {
        job_free(&job->later);
        job->later = now;
        return;
    }
    if (job->news || ((job_here(job) || job_ended(job)) && !now->lease)) {
        job_free(&now);
        jobs_settle(j, job);
        return;
    }
    const bool images = jobs_wants_images(job);
    job->news = now;
    job->fetching = 1; // a store may respond immediately
    for (int i = 0; images && i < job->spec.n; i++)
        if (now->picture[i].state == JOB_DONE && !job->picture[i].image)
            fetch(j, job, i);
    if (!--job->fetching)
        apply(j, job);
}

// ---- asking -------------------------------------------------------------------------------------

static bool is_followed(const struct job *job)
{
    return job->watches && !job_here(job) && !job_ended(job) && !job->news;
}

// The store no longer has the job, for example because its owner deleted it.
static void gone(struct jobs *j, struct job *job)
{
    struct job *now = job_snapshot(job);
    if (!now)
        return; // told in the next round
    now->state = JOB_FAILED;
    fault_set(&now->fault, ERR_NOT_FOUND, "", "the job was deleted");
    for (int i = 0; i < now->spec.n; i++)
        if (now->picture[i].state != JOB_DONE)
            now->picture[i].state = JOB_FAILED;
    jobs_mirror(j, job, now);
}

static void on_followed(struct store_call *c)
{
    struct jobs *j = c->ctx;
    jobs_called(j, c);
    j->following = false;
    jobs_round_failed(j, &c->why);
    for (int i = 0; i < c->n_watched && !c->why.code; i++) {
        struct store_watched *w = &c->watched[i];
        struct job *job = jobs_live(j, w->id), *now = w->now;
        w->now = NULL;
        if (!job || !is_followed(job))
            job_free(&now);
        else if (now)
            jobs_mirror(j, job, now);
        else
            gone(j, job);
    }
    store_call_free(c);
}

static void add_watched(struct store_call *c, const struct job *job)
{
    struct store_watched *to = &c->watched[c->n_watched++];
    memcpy(to->id, job->id, sizeof to->id);
    to->leaves = !job->spec.durable && !job->spec.idempotency_key;
    for (const struct job_watch *w = job->watches; w; w = w->next)
        to->previews |= w->previews;
    for (int i = 0; i < job->spec.n; i++)
        to->seen[i] = job->picture[i].previews;
}

void jobs_follow(struct jobs *j)
{
    size_t n = 0;
    struct job *older;
    for (struct job *job = j->newest; job; job = older) {
        older = job->older;
        n += is_followed(job);
        if (is_followed(job) && job->cancel)
            jobs_cancel_there(j, job);
    }
    struct store_call *c =
        n && !j->following ? store_call_create(STORE_WATCH, on_followed, j) : NULL;
    if (c && !(c->watched = calloc(n, sizeof *c->watched))) {
        store_call_free(c);
        return;
    }
    for (const struct job *job = c ? j->newest : NULL; job; job = job->older)
        if (is_followed(job))
            add_watched(c, job);
    j->following = c;
    if (c)
        jobs_call(j, c);
}
