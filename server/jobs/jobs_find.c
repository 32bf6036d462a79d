// Queries for jobs, which the store answers, except for those that are drawn here, and their
// removal. Loop thread only. Knows nothing about HTTP or the generation of images.
#include "jobs_impl.h"

#include <stdlib.h>
#include <string.h>

// ---- questions ----------------------------------------------------------------------------------

struct jobs_ask *jobs_ask_create(struct jobs *j, jobs_job_fn *done, void *ctx,
                                 struct jobs_ask **out)
{
    struct jobs_ask *ask = *out = calloc(1, sizeof *ask);
    struct fault why;
    if (!ask) {
        fault_set(&why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
        if (done)
            done(ctx, NULL, &why);
        return NULL;
    }
    ask->j = j;
    ask->done = done;
    ask->ctx = ctx;
    ask->image = JOBS_NO_IMAGE;
    ask->next = j->asks;
    j->asks = ask;
    return ask;
}

void jobs_forget(struct jobs_ask *ask)
{
    ask->done = NULL;
    ask->listed = NULL;
    ask->spent = NULL;
}

static void ask_free(struct jobs_ask *ask)
{
    struct jobs_ask **at = &ask->j->asks;
    while (*at != ask)
        at = &(*at)->next;
    *at = ask->next;
    free(ask->owner);
    free(ask->client);
    free(ask);
}

void jobs_ask_no_memory(struct jobs_ask *ask)
{
    struct fault why;
    fault_set(&why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    jobs_ask_end(ask, NULL, &why);
}

void jobs_ask_end(struct jobs_ask *ask, struct job *job, const struct fault *why)
{
    struct jobs *j = ask->j;
    jobs_job_fn *done = ask->done;
    void *ctx = ask->ctx;
    const bool submitted = ask->submitted;
    if (ask->job != job)
        job_free(&ask->job); // was never accepted
    if (job && !job->linked)
        job = jobs_only_copy(j, job);
    if (job)
        job->pins++;
    if (done)
        done(ctx, job, why);
    ask_free(ask);
    if (!job)
        return;
    job->pins--;
    if (job_ended(job) && !job->pins)
        jobs_drop_images(job);
    if (!job->linked && job->watches && !job->removing)
        jobs_link(j, job);
    if (submitted)
        jobs_cancel_unwanted(j, job);
    else
        jobs_settle(j, job);
}

struct store_call *jobs_image_call(struct jobs *j, const struct job *job,
                                   void (*done)(struct store_call *c), void *ctx)
{
    struct store_call *c = j->p.store->base ? store_call_about(STORE_IMAGE, job, done, ctx)
                                            : store_call_create(STORE_IMAGE, done, ctx);
    if (!c)
        return NULL;
    memcpy(c->id, job->id, sizeof c->id);
    c->format = job->spec.format;
    return c;
}

static void ask_images(struct jobs_ask *ask);

static void on_image(struct store_call *c)
{
    struct jobs_ask *ask = c->ctx;
    struct job *job = ask->job;
    jobs_called(ask->j, c);
    job->pins--;
    if (c->why.code)
        job->lost = c->why;
    else if (!job->picture[c->picture].image)
        job->picture[c->picture].image = blob_ref(c->image);
    store_call_free(c);
    ask_images(ask);
}

// Fetches the next requested image, or delivers the result.
static void ask_images(struct jobs_ask *ask)
{
    struct job *job = ask->job;
    while (ask->next_image < job->spec.n) {
        const int i = ask->next_image++;
        const struct job_picture *p = &job->picture[i];
        if ((ask->image != JOBS_ALL_IMAGES && ask->image != i) || p->state != JOB_DONE ||
            p->image || !job->stored)
            continue;
        struct store_call *c = jobs_image_call(ask->j, job, on_image, ask);
        if (!c)
            continue; // jobs_image will report that it is missing
        c->picture = i;
        job->pins++;
        jobs_call(ask->j, c);
        return;
    }
    jobs_ask_end(ask, job, NULL);
}

void jobs_ask_found(struct jobs_ask *ask, struct job *job)
{
    struct job *live = jobs_live(ask->j, job->id);
    if (live && live != job) {
        job_free(&job);
        job = live;
    }
    job_free(&ask->job); // was never accepted
    ask->job = job;
    ask_images(ask);
}

static void on_found(struct store_call *c);

static void ask_again(struct jobs_ask *ask)
{
    struct store_call *c = store_call_create(STORE_FIND, on_found, ask);
    if (!c) {
        jobs_ask_no_memory(ask);
        return;
    }
    memcpy(c->id, ask->id, sizeof c->id);
    jobs_call(ask->j, c);
}

static void on_found(struct store_call *c)
{
    struct jobs_ask *ask = c->ctx;
    struct job *job = c->n ? c->jobs[0] : NULL;
    struct fault why = c->why;
    jobs_called(ask->j, c);
    if (job && ask->owner && strcmp(job->spec.owner, ask->owner))
        job = NULL;
    if (job) {
        c->jobs[0] = NULL;
        jobs_loaded(ask->j, job);
    } else if (!why.code) {
        fault_set(&why, ERR_NOT_FOUND, "", "no such job");
    }
    struct job *live = job ? jobs_live(ask->j, job->id) : NULL;
    if (live && !job_here(live) && !job_ended(live) && (!ask->refreshed || live->news)) {
        // Its watchers are told first; then it is asked for again.
        memcpy(ask->id, job->id, sizeof ask->id);
        jobs_mirror(ask->j, live, job);
        ask->refreshed = true;
        ask_again(ask);
    } else if (job) {
        jobs_ask_found(ask, job);
    } else {
        jobs_ask_end(ask, NULL, &why);
    }
    store_call_free(c);
}

void jobs_find(struct jobs *j, const struct jobs_lookup *what, jobs_job_fn *done, void *ctx,
               struct jobs_ask **out)
{
    struct jobs_ask *ask = jobs_ask_create(j, done, ctx, out);
    struct store_call *c;
    if (!ask)
        return;
    ask->image = what->image;
    if (what->owner && !(ask->owner = strdup(what->owner))) {
        jobs_ask_no_memory(ask);
        return;
    }
    struct job *live = what->id ? jobs_live(j, what->id) : NULL;
    const bool current = live && (job_here(live) || job_ended(live));
    if (current && (!what->owner || !strcmp(live->spec.owner, what->owner))) {
        jobs_ask_found(ask, live);
        return;
    }
    c = store_call_create(STORE_FIND, on_found, ask);
    if (!c || (what->key && (!(c->owner = strdup(what->owner)) || !(c->key = strdup(what->key))))) {
        store_call_free(c);
        jobs_ask_no_memory(ask);
        return;
    }
    // A longer text is not an id.
    if (what->id && strlen(what->id) < sizeof c->id)
        memcpy(c->id, what->id, strlen(what->id) + 1);
    jobs_call(j, c);
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
    if (job->lost.code && why)
        *why = job->lost;
    return job->lost.code ? job->lost.code
                          : fault_set(why, ERR_INTERNAL, "", "%s", err_text(ERR_INTERNAL));
}

// ---- the job of a client ------------------------------------------------------------------------

// The oldest of the client's jobs, or else, with keys, of the key's.
static struct job *preferred(const struct jobs_ask *ask, struct job *so_far, struct job *job)
{
    const struct job_spec *s = &job->spec;
    if (job_ended(job) || strcmp(s->owner, ask->owner) || strcmp(s->api, ask->api))
        return so_far;
    const bool same = s->client && !strcmp(s->client, ask->client);
    const bool best = so_far && so_far->spec.client && !strcmp(so_far->spec.client, ask->client);
    // Without keys, only the address identifies a client.
    return same || (*ask->owner && !best) ? job : so_far;
}

static void end_current(struct jobs_ask *ask, struct job *job)
{
    struct fault why;
    if (!job)
        fault_set(&why, ERR_NOT_FOUND, "", "no such job");
    ask->job = job;
    jobs_ask_end(ask, job, job ? NULL : &why);
}

static void on_unfinished(struct store_call *c)
{
    struct jobs_ask *ask = c->ctx;
    struct jobs *j = ask->j;
    struct job *job = NULL;
    const struct fault why = c->why;
    jobs_called(j, c);
    for (int i = 0; i < c->n; i++)
        job = preferred(ask, job, c->jobs[i]);
    for (int i = 0; job && i < c->n; i++)
        if (c->jobs[i] == job)
            c->jobs[i] = NULL;
    store_call_free(c);
    if (job)
        jobs_loaded(j, job);
    if (why.code)
        jobs_ask_end(ask, NULL, &why);
    else
        end_current(ask, job);
}

void jobs_current(struct jobs *j, const struct jobs_who *who, jobs_job_fn *done, void *ctx,
                  struct jobs_ask **out)
{
    enum { MANY = 1000 };
    struct jobs_ask *ask = jobs_ask_create(j, done, ctx, out);
    struct job *job = NULL;
    if (!ask)
        return;
    ask->api = who->api;
    ask->owner = strdup(who->owner);
    ask->client = strdup(who->client);
    struct store_call *c = NULL;
    const bool shared = j->p.store->shared;
    bool ok = ask->owner && ask->client;
    if (ok && shared) {
        c = store_call_create(STORE_LIST, on_unfinished, ask);
        ok = c && (c->owner = strdup(who->owner));
    }
    if (!ok) {
        store_call_free(c);
        jobs_ask_no_memory(ask);
    } else if (c) {
        c->page = (struct store_page){INT64_MAX, INT64_MAX, STORE_UNFINISHED, MANY};
        jobs_call(j, c);
    } else {
        for (struct job *live = j->newest; live; live = live->older)
            job = preferred(ask, job, live);
        end_current(ask, job);
    }
}

// ---- removing -----------------------------------------------------------------------------------

static void on_removed(struct store_call *c)
{
    struct jobs_ask *ask = c->ctx;
    struct jobs *j = ask->j;
    struct job *job = ask->removed;
    const struct fault why = c->why;
    jobs_called(j, c);
    jobs_release_inputs(j, c);
    store_call_free(c);
    job->pins--;
    if (!why.code) {
        if (job->linked)
            jobs_unlink(j, job);
        job->removing = true;
        job->unsaved = false;
    }
    jobs_settle(j, job);
    jobs_ask_end(ask, NULL, why.code ? &why : NULL);
}

void jobs_remove(struct jobs *j, struct job *job, jobs_job_fn *done, void *ctx,
                 struct jobs_ask **out)
{
    struct jobs_ask *ask = jobs_ask_create(j, done, ctx, out);
    struct store_call *c = ask ? store_call_create(STORE_REMOVE, on_removed, ask) : NULL;
    if (!ask)
        return;
    if (!c) {
        jobs_ask_no_memory(ask);
        return;
    }
    memcpy(c->id, job->id, sizeof c->id);
    // If it cannot be removed, it stays as it is here: its end may not be stored yet.
    ask->removed = job;
    job->pins++;
    jobs_call(j, c);
}

// ---- lists --------------------------------------------------------------------------------------

static bool is_listed(const struct job *job, const struct jobs_ask *ask)
{
    return ask->page.state < 0 || (int)job->state == ask->page.state;
}

static bool is_before(const struct job *job, const struct store_page *p)
{
    return job->created < p->created || (job->created == p->created && job->seq < p->seq);
}

// Unfinished jobs are all live here, and only their live state is current, unless replicas share
// the store.
static bool only_live(const struct jobs_ask *ask)
{
    const bool unfinished = ask->page.state == JOB_QUEUED || ask->page.state == JOB_RUNNING;
    return unfinished && !ask->j->p.store->shared;
}

// The next live job of the page that the store's result lacks.
static struct job *next_live(struct job *job, const struct jobs_ask *ask)
{
    while (job && ((job->stored && !only_live(ask)) || strcmp(job->spec.owner, ask->owner) ||
                   !is_listed(job, ask) || !is_before(job, &ask->page)))
        job = job->older;
    return job;
}

// Merges the store's jobs, replaced by live ones where they exist, with live jobs that are not
// stored.
static int merge(struct jobs_ask *ask, struct store_call *c, struct job **to)
{
    struct job *other = next_live(ask->j->newest, ask);
    int n = 0, at = 0;
    while (n < ask->page.limit) {
        struct job *row = at < c->n ? c->jobs[at] : NULL;
        if (other && (!row || other->created > row->created)) {
            to[n++] = other;
            other = next_live(other->older, ask);
            continue;
        }
        if (!row)
            break;
        at++;
        row->stored = true;
        struct job *live = jobs_live(ask->j, row->id);
        if (live && !job_here(live))
            live = NULL; // the row is newer
        if (!live || is_listed(live, ask))
            to[n++] = live ? live : row;
    }
    return n;
}

static void list_end(struct jobs_ask *ask, struct job *const *jobs, int n, bool more,
                     const struct fault *why)
{
    jobs_list_fn *listed = ask->listed;
    void *ctx = ask->ctx;
    ask_free(ask);
    if (listed)
        listed(ctx, jobs, n, more, why);
}

static void list_no_memory(struct jobs_ask *ask)
{
    struct fault why;
    fault_set(&why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    list_end(ask, NULL, 0, false, &why);
}

static void list_merged(struct jobs_ask *ask, struct store_call *c)
{
    const int limit = ask->page.limit - 1;
    struct job **jobs = calloc((size_t)ask->page.limit, sizeof *jobs);
    if (jobs) {
        const int n = merge(ask, c, jobs);
        list_end(ask, jobs, n < limit ? n : limit, n > limit || c->n > limit, NULL);
    } else {
        list_no_memory(ask);
    }
    free(jobs);
}

static void on_listed(struct store_call *c)
{
    struct jobs_ask *ask = c->ctx;
    jobs_called(ask->j, c);
    if (c->why.code)
        list_end(ask, NULL, 0, false, &c->why);
    else
        list_merged(ask, c);
    store_call_free(c);
}

static void list_page(struct jobs_ask *ask)
{
    struct store_call none = {0};
    if (only_live(ask)) {
        list_merged(ask, &none);
        return;
    }
    struct store_call *c = store_call_create(STORE_LIST, on_listed, ask);
    if (c && (c->owner = strdup(ask->owner))) {
        c->page = ask->page;
        jobs_call(ask->j, c);
        return;
    }
    store_call_free(c);
    list_no_memory(ask);
}

// Found the job after which the page begins.
static void on_after(void *ctx, struct job *job, const struct fault *why)
{
    struct jobs_ask *ask = ctx;
    struct fault none;
    if (job) {
        ask->page.created = job->created;
        ask->page.seq = job->seq; // 0 if it is not stored: below all others
        list_page(ask);
        return;
    }
    if (why->code == ERR_NOT_FOUND)
        fault_set(&none, ERR_INVALID, "after", "no such job");
    list_end(ask, NULL, 0, false, why->code == ERR_NOT_FOUND ? &none : why);
}

void jobs_list(struct jobs *j, const struct jobs_query *q, jobs_list_fn *done, void *ctx,
               struct jobs_ask **out)
{
    struct jobs_ask *ask = jobs_ask_create(j, NULL, ctx, out), *after;
    struct fault why;
    if (ask)
        ask->listed = done;
    if (!ask) {
        fault_set(&why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
        done(ctx, NULL, 0, false, &why);
        return;
    }
    if (!(ask->owner = strdup(q->owner))) {
        list_no_memory(ask);
        return;
    }
    ask->page = (struct store_page){INT64_MAX, INT64_MAX, q->state, q->limit + 1};
    if (q->after)
        jobs_find(j, &(struct jobs_lookup){q->after, NULL, q->owner, JOBS_NO_IMAGE}, on_after, ask,
                  &after);
    else
        list_page(ask);
}

// ---- rates --------------------------------------------------------------------------------------

static void spend_end(struct jobs_ask *ask, double wait, const struct fault *why)
{
    jobs_spend_fn *spent = ask->spent;
    void *ctx = ask->ctx;
    ask_free(ask);
    if (spent)
        spent(ctx, wait, why);
}

static void on_spent(struct store_call *c)
{
    jobs_called(((struct jobs_ask *)c->ctx)->j, c);
    spend_end(c->ctx, c->rate.wait, c->why.code ? &c->why : NULL);
    store_call_free(c);
}

void jobs_spend(struct jobs *j, const struct jobs_rate *rate, jobs_spend_fn *done, void *ctx,
                struct jobs_ask **out)
{
    struct jobs_ask *ask = jobs_ask_create(j, NULL, ctx, out);
    struct fault why;
    if (!ask) {
        fault_set(&why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
        done(ctx, 0, &why);
        return;
    }
    ask->spent = done;
    if (!j->p.store->shared) {
        spend_end(ask, 0, NULL);
        return;
    }
    struct store_call *c = store_call_create(STORE_SPEND, on_spent, ask);
    if (c && (c->owner = strdup(rate->owner))) {
        c->rate = (struct store_rate){rate->per_second, rate->burst, 0};
        jobs_call(j, c);
        return;
    }
    store_call_free(c);
    fault_set(&why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    spend_end(ask, 0, &why);
}
