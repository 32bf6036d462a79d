// The shared store of the tests, see shared_store.h. Calls run on the loop thread, one after the
// other, some time after they were made.
#include "shared_store.h"

#include <stdlib.h>
#include <string.h>
#include <uv.h>

enum { MOST_JOBS = 64, MOST_REPLICAS = 4 };

struct row {
    char id[JOB_ID_SIZE];
    int64_t token, until;
    bool cancel, previews;
    struct job *progress;
    struct shared_job log;
};

struct shared {
    struct store *base;
    uv_loop_t *loop;
    int64_t now, tokens;
    struct row row[MOST_JOBS]; // as accepted
    int rows;
    int calls[MOST_REPLICAS][STORE_OPS];
};

struct handle {
    struct store store;
    struct shared *s;
    int replica;
    uv_async_t async;
    struct store_call *first, **last;
    uv_mutex_t lock; // protects the next line
    bool held, asked;
    uv_sem_t answered;
    bool cut_off, closing;
    void (*closed)(void *ctx);
    void *ctx;
};

static void nothing(struct store_call *c) {}

// Runs a call in the store in memory.
static void base_run(struct shared *s, struct store_call *c)
{
    void (*done)(struct store_call *c) = c->done;
    c->done = nothing;
    s->base->ops->call(s->base, c);
    c->done = done;
}

static struct row *row_of(struct shared *s, const char *id)
{
    for (int i = 0; i < s->rows; i++)
        if (!strcmp(s->row[i].id, id))
            return &s->row[i];
    return NULL;
}

static bool is_leased(const struct shared *s, const struct row *r)
{
    return r->token && r->until > s->now;
}

static void lease(struct shared *s, struct row *r, int replica, struct job *job)
{
    r->token = job->lease = ++s->tokens;
    r->until = s->now + STORE_LEASE_MS;
    r->log.replica = replica;
    r->log.claims += !job_ended(job);
    job->claims = r->log.claims;
    job->cancel = r->cancel;
    job_free(&r->progress);
}

// Adds what the store in memory does not know to a result; seen: as in store_watched, or NULL.
static void complete(struct shared *s, struct job *job, const int *seen)
{
    const struct row *r = row_of(s, job->id);
    job->lease = 0;
    job->position = -1;
    if (!r || job_ended(job))
        return;
    job->state = is_leased(s, r) ? JOB_RUNNING : JOB_QUEUED;
    for (int i = 0; i < job->spec.n && r->progress; i++) {
        const struct job_picture *p = &r->progress->picture[i];
        struct job_picture *to = &job->picture[i];
        job->started = r->progress->started;
        job->used = r->progress->used;
        if (to->state == JOB_DONE)
            continue;
        to->state = p->state;
        to->stage = p->stage;
        to->stages = p->stages;
        to->step = p->step;
        to->steps = p->steps;
        to->previews = p->previews;
        to->preview = p->preview;
        if (p->latest && seen && seen[i] != p->previews)
            to->latest = blob_ref(p->latest);
    }
    if (job->state != JOB_QUEUED)
        return;
    job->position = 0;
    for (const struct row *before = s->row; before < r; before++)
        job->position += !is_leased(s, before) && !before->log.ends;
}

static struct job *fetch(struct shared *s, const char *id)
{
    struct store_call c = {.op = STORE_FIND};
    strcpy(c.id, id);
    base_run(s, &c);
    struct job *job = c.n ? c.jobs[0] : NULL;
    free(c.jobs);
    if (job)
        complete(s, job, NULL);
    return job;
}

// ---- the calls --------------------------------------------------------------------------------

static int missing(const struct job *job)
{
    int n = 0;
    for (int i = 0; i < job->spec.n; i++)
        n += job->picture[i].state != JOB_DONE;
    return n;
}

static void do_accept(struct handle *h, struct store_call *c)
{
    struct shared *s = h->s;
    int queued = 0;
    for (int i = 0; i < s->rows; i++) {
        struct job *job = fetch(s, s->row[i].id);
        queued += job && job->state == JOB_QUEUED ? missing(job) : 0;
        job_free(&job);
    }
    if (queued + c->job->spec.n > c->quota.queued) {
        fault_set(&c->why, ERR_BUSY, "queue", "the queue is full");
        return;
    }
    base_run(s, c);
    c->job->lease = 0;
    for (int i = 0; i < c->n; i++) // the owner's job with the same key
        complete(s, c->jobs[i], NULL);
    if (c->n || c->why.code || s->rows == MOST_JOBS)
        return;
    struct row *r = &s->row[s->rows++];
    memcpy(r->id, c->job->id, sizeof r->id);
    r->log.replica = -1;
    if (c->room > 0)
        lease(s, r, h->replica, c->job);
}

// Whether the core has to end or to call something, whatever its room.
static bool is_due(const struct row *r, const struct job *job, const struct store_call *c)
{
    if (job_ended(job))
        return c->keep.webhooks && job->webhook_next;
    return r->cancel || r->log.claims >= JOB_MAX_CLAIMS ||
           (job->spec.deadline && job->spec.deadline <= c->keep.now);
}

static void do_claim(struct handle *h, struct store_call *c)
{
    struct shared *s = h->s;
    for (int i = 0; i < s->rows; i++) {
        struct row *r = &s->row[i];
        struct job *job = is_leased(s, r) ? NULL : fetch(s, r->id);
        const bool waits = job && !job_ended(job) && c->room > 0;
        if (!job || !(waits || is_due(r, job, c))) {
            job_free(&job);
            continue;
        }
        c->room -= missing(job);
        lease(s, r, h->replica, job);
        store_call_add(c, job);
    }
}

// Keeps a snapshot, with those of the last one's previews for which it has no newer ones.
static void keep_progress(struct row *r, struct store_lease *l)
{
    for (int i = 0; r->progress && i < l->progress->spec.n; i++) {
        struct job_picture *p = &l->progress->picture[i], *old = &r->progress->picture[i];
        if (!p->latest && old->latest)
            p->latest = blob_ref(old->latest);
    }
    job_free(&r->progress);
    r->progress = l->progress;
    l->progress = NULL;
}

static void do_beat(struct handle *h, struct store_call *c)
{
    for (int i = 0; i < c->n_lease; i++) {
        struct store_lease *l = &c->lease[i];
        struct row *r = row_of(h->s, l->id);
        l->lost = !r || r->token != l->token;
        if (l->lost)
            continue;
        r->until = h->s->now + STORE_LEASE_MS;
        if (l->progress)
            keep_progress(r, l);
        l->cancel = r->cancel;
        l->previews = r->previews;
    }
}

static void do_release(struct handle *h, struct store_call *c)
{
    for (int i = 0; i < c->n_lease; i++) {
        struct row *r = row_of(h->s, c->lease[i].id);
        if (!r || r->token != c->lease[i].token)
            continue;
        r->token = 0;
        r->log.claims--;
        r->log.replica = -1;
        job_free(&r->progress);
    }
}

static void write_job(struct handle *h, struct store_call *c)
{
    struct row *r = row_of(h->s, c->job->id);
    if (!r || r->token != c->job->lease) {
        if (r)
            r->log.stale++;
        fault_set(&c->why, ERR_STALE, "", "%s", err_text(ERR_STALE));
        return;
    }
    r->log.drawn[c->picture] += c->op == STORE_DRAWN;
    r->log.ends += c->op != STORE_NOTE && job_ended(c->job);
    base_run(h->s, c);
    if (job_ended(c->job) && !c->job->webhook_next)
        r->until = 0;
}

static void do_cancel(struct handle *h, struct store_call *c)
{
    struct row *r = row_of(h->s, c->job->id);
    struct job *job = r ? fetch(h->s, r->id) : NULL;
    if (job && !job_ended(job) && is_leased(h->s, r)) {
        r->cancel = true;
    } else if (job && !job_ended(job)) {
        struct store_call end = {.op = STORE_FINISH, .job = job};
        job->state = c->job->state;
        job->finished = c->job->finished;
        job->expires = c->job->expires;
        job->webhook_next = c->job->webhook_next;
        r->log.ends++;
        base_run(h->s, &end);
    }
    if (job)
        store_call_add(c, job);
}

static void do_watch(struct handle *h, struct store_call *c)
{
    for (int i = 0; i < c->n_watched; i++) {
        struct store_watched *w = &c->watched[i];
        struct row *r = row_of(h->s, w->id);
        w->now = r ? fetch(h->s, w->id) : NULL;
        if (!w->now)
            continue;
        r->previews |= w->previews;
        complete(h->s, w->now, w->seen);
    }
}

static void read_jobs(struct handle *h, struct store_call *c)
{
    base_run(h->s, c);
    for (int i = 0; i < c->n; i++)
        complete(h->s, c->jobs[i], NULL);
}

static void others(struct handle *h, struct store_call *c)
{
    base_run(h->s, c);
}

typedef void call_fn(struct handle *h, struct store_call *c);

static void run(struct handle *h, struct store_call *c)
{
    static call_fn *const calls[STORE_OPS] = {
        [STORE_ACCEPT] = do_accept,   [STORE_CLAIM] = do_claim,   [STORE_BEAT] = do_beat,
        [STORE_RELEASE] = do_release, [STORE_DRAWN] = write_job,  [STORE_FINISH] = write_job,
        [STORE_NOTE] = write_job,     [STORE_CANCEL] = do_cancel, [STORE_WATCH] = do_watch,
        [STORE_FIND] = read_jobs,     [STORE_LIST] = read_jobs,   [STORE_IMAGE] = others,
        [STORE_REMOVE] = read_jobs,   [STORE_EXPIRE] = read_jobs,
    };
    h->s->calls[h->replica][c->op]++;
    calls[c->op](h, c);
    c->stats.queued = c->stats.running = 0;
    c->done(c);
}

// ---- a replica's store ------------------------------------------------------------------------

static void on_handle_closed(uv_handle_t *async)
{
    struct handle *h = async->data;
    void (*closed)(void *ctx) = h->closed;
    void *ctx = h->ctx;
    uv_sem_destroy(&h->answered);
    uv_mutex_destroy(&h->lock);
    free(h);
    closed(ctx);
}

static void answer_file(struct handle *h)
{
    uv_mutex_lock(&h->lock);
    if (h->asked && !h->held) {
        h->asked = false;
        uv_sem_post(&h->answered);
    }
    uv_mutex_unlock(&h->lock);
}

static void on_async(uv_async_t *async)
{
    struct handle *h = async->data;
    answer_file(h);
    for (struct store_call *c; !h->cut_off && (c = h->first);) {
        h->first = c->next;
        if (!h->first)
            h->last = &h->first;
        run(h, c);
    }
    if (h->closing && !h->first && !uv_is_closing((uv_handle_t *)async))
        uv_close((uv_handle_t *)async, on_handle_closed);
}

static void shared_call(struct store *store, struct store_call *c)
{
    struct handle *h = (struct handle *)store;
    c->next = NULL;
    *h->last = c;
    h->last = &c->next;
    uv_async_send(&h->async);
}

static void shared_close(struct store *store, void (*closed)(void *ctx), void *ctx)
{
    struct handle *h = (struct handle *)store;
    h->closing = true;
    h->closed = closed;
    h->ctx = ctx;
    uv_async_send(&h->async);
}

static enum err shared_put_file(struct store *store, const char *name, const struct blob *file,
                                struct fault *why)
{
    return ERR_OK;
}

// There are no files, but that takes a while to find out.
static enum err shared_get_file(struct store *store, const char *name, struct blob **out,
                                struct fault *why)
{
    struct handle *h = (struct handle *)store;
    uv_mutex_lock(&h->lock);
    h->asked = true;
    uv_mutex_unlock(&h->lock);
    uv_async_send(&h->async);
    uv_sem_wait(&h->answered);
    return fault_set(why, ERR_NOT_FOUND, "image", "the input image is missing");
}

void shared_hold_files(struct store *store, bool hold)
{
    struct handle *h = (struct handle *)store;
    uv_mutex_lock(&h->lock);
    h->held = hold;
    uv_mutex_unlock(&h->lock);
    uv_async_send(&h->async);
}

static const struct store_ops shared_ops = {
    .name = "shared",
    .call = shared_call,
    .close = shared_close,
    .put_file = shared_put_file,
    .get_file = shared_get_file,
};

struct store *shared_open(struct shared *s, int replica)
{
    struct handle *h = calloc(1, sizeof *h);
    h->store.ops = &shared_ops;
    h->store.shared = true;
    h->s = s;
    h->replica = replica;
    h->last = &h->first;
    uv_mutex_init(&h->lock);
    uv_sem_init(&h->answered, 0);
    uv_async_init(s->loop, &h->async, on_async);
    h->async.data = h;
    return &h->store;
}

void shared_cut_off(struct store *store, bool cut_off)
{
    struct handle *h = (struct handle *)store;
    h->cut_off = cut_off;
    uv_async_send(&h->async);
}

// ---- what the test knows ----------------------------------------------------------------------

struct shared *shared_create(struct uv_loop_s *loop)
{
    struct shared *s = calloc(1, sizeof *s);
    s->loop = loop;
    s->now = 1;
    return store_memory_open(&s->base, NULL) ? NULL : s;
}

void shared_destroy(struct shared *s)
{
    for (int i = 0; i < s->rows; i++)
        job_free(&s->row[i].progress);
    s->base->ops->close(s->base, NULL, NULL);
    free(s);
}

void shared_pass(struct shared *s, int64_t ms)
{
    s->now += ms;
}

struct shared_job shared_job(struct shared *s, const char *id)
{
    const struct row *r = row_of(s, id);
    struct shared_job log = r ? r->log : (struct shared_job){.replica = -1};
    if (r && !is_leased(s, r))
        log.replica = -1;
    return log;
}

int shared_calls(const struct shared *s, int replica, enum store_op op)
{
    return s->calls[replica][op];
}
