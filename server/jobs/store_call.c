// Calls to a store: created by the job core on the loop thread, filled in by a store on its own
// thread.
#include "store.h"

#include <stdlib.h>
#include <string.h>

struct store_call *store_call_create(enum store_op op, void (*done)(struct store_call *c),
                                     void *ctx)
{
    struct store_call *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->op = op;
    c->done = done;
    c->ctx = ctx;
    return c;
}

struct store_call *store_call_about(enum store_op op, const struct job *j,
                                    void (*done)(struct store_call *c), void *ctx)
{
    struct store_call *c = store_call_create(op, done, ctx);
    if (!c || !(c->job = job_snapshot(j))) {
        store_call_free(c);
        return NULL;
    }
    memcpy(c->id, j->id, sizeof c->id);
    return c;
}

void store_call_free(struct store_call *c)
{
    if (!c)
        return;
    for (int i = 0; i < c->n; i++)
        job_free(&c->jobs[i]);
    free(c->jobs);
    for (int i = 0; i < c->n_lease; i++)
        job_free(&c->lease[i].progress);
    free(c->lease);
    for (int i = 0; i < c->n_watched; i++)
        job_free(&c->watched[i].now);
    free(c->watched);
    job_free(&c->job);
    blob_unref(&c->image);
    free(c->owner);
    free(c->key);
    free(c->models);
    free(c);
}

enum err store_call_add(struct store_call *c, struct job *j)
{
    struct job **more = c->n & (c->n - 1) ? c->jobs : NULL; // the array is full at powers of two
    if (!more)
        more = realloc(c->jobs, (c->n ? (size_t)c->n * 2 : 1) * sizeof *more);
    if (!more) {
        job_free(&j);
        return fault_set(&c->why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    }
    c->jobs = more;
    c->jobs[c->n++] = j;
    return ERR_OK;
}
