// The store without persistence: jobs and images live as long as the process. Calls complete
// immediately, on the loop thread.
#include "store.h"

#include "hash.h"

#include <stdlib.h>
#include <string.h>

enum { BUCKETS = 4096 };

struct kept {
    struct job *job; // with its images
    struct kept *newer, *older, *by_id, *by_key;
};

struct store_memory {
    struct store store;
    struct kept *newest, *oldest, *by_id[BUCKETS], *by_key[BUCKETS];
    int64_t seq;
    struct store_stats stats;
};

static struct kept **place_of(struct store_memory *m, const char *id)
{
    struct kept **at = &m->by_id[hash_text(id).lo % BUCKETS];
    while (*at && strcmp((*at)->job->id, id))
        at = &(*at)->by_id;
    return at;
}

static struct kept **place_of_key(struct store_memory *m, const char *owner, const char *key)
{
    struct kept **at = &m->by_key[hash_join(hash_text(owner), hash_text(key)).lo % BUCKETS];
    while (*at &&
           (strcmp((*at)->job->spec.idempotency_key, key) || strcmp((*at)->job->spec.owner, owner)))
        at = &(*at)->by_key;
    return at;
}

static void add_copy(struct store_call *c, const struct kept *k)
{
    struct job *copy = k ? job_snapshot(k->job) : NULL;
    if (copy)
        store_call_add(c, copy);
    else if (k)
        fault_set(&c->why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
}

// Moves a job from the store into the results.
static void forget(struct store_memory *m, struct kept **place, struct store_call *c)
{
    struct kept *k = *place;
    const struct job_spec *s = &k->job->spec;
    *place = k->by_id;
    if (s->idempotency_key)
        *place_of_key(m, s->owner, s->idempotency_key) = k->by_key;
    *(k->newer ? &k->newer->older : &m->newest) = k->older;
    *(k->older ? &k->older->newer : &m->oldest) = k->newer;
    m->stats.jobs--;
    m->stats.ended -= job_ended(k->job);
    m->stats.bytes -= job_bytes(k->job);
    store_call_add(c, k->job);
    free(k);
}

// ---- the calls ----------------------------------------------------------------------------------

// Every job is leased when it is accepted, and stays so.
static void memory_nothing(struct store_memory *m, struct store_call *c) {}

static void memory_accept(struct store_memory *m, struct store_call *c)
{
    const struct job_spec *s = &c->job->spec;
    struct kept **key = s->idempotency_key ? place_of_key(m, s->owner, s->idempotency_key) : NULL;
    if (key && *key) {
        add_copy(c, *key);
        return;
    }
    struct kept *k = calloc(1, sizeof *k), **place = place_of(m, c->job->id);
    c->job->seq = m->seq + 1;
    if (!k || !(k->job = job_snapshot(c->job))) {
        free(k);
        fault_set(&c->why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
        return;
    }
    m->seq++;
    c->job->lease = k->job->lease = 1;
    *place = k;
    if (key)
        *key = k;
    k->older = m->newest;
    *(m->newest ? &m->newest->newer : &m->oldest) = k;
    m->newest = k;
    m->stats.jobs++;
}

// Replaces the stored job by a snapshot, except its images.
static void memory_update(struct store_memory *m, struct store_call *c)
{
    const struct kept *k = *place_of(m, c->job->id);
    if (!k)
        return;
    m->stats.ended += job_ended(c->job) - job_ended(k->job);
    m->stats.bytes += job_bytes(c->job) - job_bytes(k->job);
    job_update(k->job, c->job);
}

static void memory_drawn(struct store_memory *m, struct store_call *c)
{
    const struct kept *k = *place_of(m, c->job->id);
    if (!k)
        return;
    memory_update(m, c);
    blob_unref(&k->job->picture[c->picture].image);
    k->job->picture[c->picture].image = blob_ref(c->image);
}

static void memory_find(struct store_memory *m, struct store_call *c)
{
    add_copy(c, c->key ? *place_of_key(m, c->owner, c->key) : *place_of(m, c->id));
}

static void memory_watch(struct store_memory *m, struct store_call *c)
{
    for (int i = 0; i < c->n_watched; i++) {
        const struct kept *k = *place_of(m, c->watched[i].id);
        c->watched[i].now = k ? job_snapshot(k->job) : NULL;
    }
}

static bool has_state(const struct job *j, int state)
{
    return state == STORE_UNFINISHED ? !job_ended(j) : state < 0 || (int)j->state == state;
}

static bool on_page(const struct job *j, const char *owner, const struct store_page *p)
{
    return has_state(j, p->state) && !strcmp(j->spec.owner, owner) &&
           (j->created < p->created || (j->created == p->created && j->seq < p->seq));
}

static void memory_list(struct store_memory *m, struct store_call *c)
{
    for (const struct kept *k = m->newest; k && c->n < c->page.limit && !c->why.code; k = k->older)
        if (on_page(k->job, c->owner, &c->page))
            add_copy(c, k);
}

static void memory_image(struct store_memory *m, struct store_call *c)
{
    const struct kept *k = *place_of(m, c->id);
    struct blob *image = k ? k->job->picture[c->picture].image : NULL;
    if (image)
        c->image = blob_ref(image);
    else
        fault_set(&c->why, ERR_NOT_FOUND, "picture", "image %d of this job is no longer available",
                  c->picture);
}

static void memory_remove(struct store_memory *m, struct store_call *c)
{
    struct kept **place = place_of(m, c->id);
    if (*place)
        forget(m, place, c);
}

static void memory_expire(struct store_memory *m, struct store_call *c)
{
    struct kept *newer;
    for (struct kept *k = m->oldest; k; k = newer) {
        newer = k->newer;
        const bool over = m->stats.ended > c->keep.jobs || m->stats.bytes > c->keep.bytes;
        const bool untold = c->keep.webhooks && k->job->webhook_next;
        if (job_ended(k->job) && !untold && (over || k->job->expires <= c->keep.now))
            forget(m, place_of(m, k->job->id), c);
    }
}

typedef void run_fn(struct store_memory *m, struct store_call *c);

static void memory_call(struct store *s, struct store_call *c)
{
    static run_fn *const run[STORE_OPS] = {
        [STORE_ACCEPT] = memory_accept, [STORE_CLAIM] = memory_nothing,
        [STORE_BEAT] = memory_nothing,  [STORE_RELEASE] = memory_nothing,
        [STORE_DRAWN] = memory_drawn,   [STORE_FINISH] = memory_update,
        [STORE_NOTE] = memory_update,   [STORE_CANCEL] = memory_find,
        [STORE_WATCH] = memory_watch,   [STORE_FIND] = memory_find,
        [STORE_LIST] = memory_list,     [STORE_IMAGE] = memory_image,
        [STORE_REMOVE] = memory_remove, [STORE_EXPIRE] = memory_expire,
    };
    struct store_memory *m = (struct store_memory *)s;
    run[c->op](m, c);
    c->stats = m->stats;
    c->done(c);
}

static void memory_close(struct store *s, void (*closed)(void *ctx), void *ctx)
{
    struct store_memory *m = (struct store_memory *)s;
    for (struct kept *k = m->newest, *older; k; k = older) {
        older = k->older;
        job_free(&k->job);
        free(k);
    }
    free(m);
    if (closed)
        closed(ctx);
}

static const struct store_ops memory_ops = {
    .name = "memory",
    .call = memory_call,
    .close = memory_close,
};

enum err store_memory_open(struct store **out, struct fault *why)
{
    struct store_memory *m = calloc(1, sizeof *m);
    *out = NULL;
    if (!m)
        return fault_set(why, ERR_NO_MEMORY, "store", "%s", err_text(ERR_NO_MEMORY));
    m->store.ops = &memory_ops;
    *out = &m->store;
    return ERR_OK;
}
