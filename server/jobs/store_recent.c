// See store_recent.h: a table with one place for the ids of each hash, in which a job replaces the
// one before it. A job that any call may have changed is dropped when that call is answered: until
// then, nobody can know about the change.
#include "store_recent.h"

#include "hash.h"

#include <stdlib.h>
#include <string.h>

struct store_recent {
    struct job *job[STORE_RECENT];
};

struct store_recent *store_recent_create(void)
{
    return calloc(1, sizeof(struct store_recent));
}

void store_recent_destroy(struct store_recent **r)
{
    for (int i = 0; *r && i < STORE_RECENT; i++)
        job_free(&(*r)->job[i]);
    free(*r);
    *r = NULL;
}

static struct job **recent_place(struct store_recent *r, const char *id)
{
    return &r->job[hash_text(id).lo % STORE_RECENT];
}

static void recent_drop(struct store_recent *r, const char *id)
{
    struct job **at = recent_place(r, id);
    if (*at && !strcmp((*at)->id, id))
        job_free(at);
}

bool store_recent_find(struct store_recent *r, struct store_call *c)
{
    if (c->op != STORE_FIND || c->key)
        return false;
    const struct job *j = *recent_place(r, c->id);
    struct job *copy = j && !strcmp(j->id, c->id) ? job_snapshot(j) : NULL;
    if (!copy || !store_call_add(c, copy))
        return copy;
    c->why = (struct fault){0}; // the store may have memory for it
    return false;
}

void store_recent_learn(struct store_recent *r, const struct store_call *c)
{
    if (c->op == STORE_FIND && c->n == 1 && job_ended(c->jobs[0])) {
        struct job **at = recent_place(r, c->jobs[0]->id);
        job_free(at);
        *at = job_snapshot(c->jobs[0]);
    } else if (c->op == STORE_DRAWN || c->op == STORE_FINISH || c->op == STORE_NOTE) {
        recent_drop(r, c->job->id);
    } else if (c->op == STORE_REMOVE || c->op == STORE_EXPIRE) {
        for (int i = 0; i < c->n; i++)
            recent_drop(r, c->jobs[i]->id);
    }
}
