// Lanes, one per owner with waiting or running images, in a ring that is served in turn. The loop
// thread pushes and removes, workers take. Knows nothing about HTTP, engines or results.
#include "queue.h"

#include "job.h"

#include <stdlib.h>
#include <string.h>
#include <uv.h>

struct lane {
    struct lane *next;
    char *owner;
    struct work *first; // by priority, then order
    int waiting, running;
    // queue_rank's cursor
    struct work *cursor;
};

struct queue {
    uv_mutex_t lock;
    uv_cond_t changed;
    struct lane *lanes; // the next to be served comes first
    int waiting, running_limit;
    uint64_t next_order, changes;
    bool hold;
};

struct queue *queue_create(void)
{
    struct queue *q = calloc(1, sizeof *q);
    if (!q || uv_mutex_init(&q->lock)) {
        free(q);
        return NULL;
    }
    if (uv_cond_init(&q->changed)) {
        uv_mutex_destroy(&q->lock);
        free(q);
        return NULL;
    }
    q->next_order = 1;
    q->changes = 1;
    return q;
}

void queue_destroy(struct queue **q)
{
    if (!*q)
        return;
    while ((*q)->lanes) {
        struct lane *lane = (*q)->lanes;
        (*q)->lanes = lane->next;
        free(lane->owner);
        free(lane);
    }
    uv_cond_destroy(&(*q)->changed);
    uv_mutex_destroy(&(*q)->lock);
    free(*q);
    *q = NULL;
}

static struct lane *lane_find(struct queue *q, const char *owner)
{
    for (struct lane *l = q->lanes; l; l = l->next)
        if (!strcmp(l->owner, owner))
            return l;
    return NULL;
}

static struct lane *lane_get(struct queue *q, const char *owner)
{
    struct lane *lane = lane_find(q, owner), **end = &q->lanes;
    if (lane)
        return lane;
    lane = calloc(1, sizeof *lane);
    if (!lane || !(lane->owner = strdup(owner))) {
        free(lane);
        return NULL;
    }
    while (*end)
        end = &(*end)->next;
    return *end = lane;
}

static void lane_drop_empty(struct queue *q, struct lane *lane)
{
    struct lane **at = &q->lanes;
    if (lane->waiting || lane->running)
        return;
    while (*at != lane)
        at = &(*at)->next;
    *at = lane->next;
    free(lane->owner);
    free(lane);
}

static void lane_to_end(struct queue *q, struct lane *lane)
{
    struct lane **at = &q->lanes;
    while (*at != lane)
        at = &(*at)->next;
    *at = lane->next;
    lane->next = NULL;
    while (*at)
        at = &(*at)->next;
    *at = lane;
}

static bool work_before(const struct work *a, const struct work *b)
{
    if (a->spec->priority != b->spec->priority)
        return a->spec->priority > b->spec->priority;
    return a->order < b->order;
}

// Every change that may let a worker take an image calls this, under the lock.
static void queue_changed(struct queue *q)
{
    q->changes++;
    uv_cond_broadcast(&q->changed);
}

enum err queue_push(struct queue *q, struct work *w)
{
    uv_mutex_lock(&q->lock);
    struct lane *lane = lane_get(q, w->spec->owner);
    if (!lane) {
        uv_mutex_unlock(&q->lock);
        return ERR_NO_MEMORY;
    }
    struct work **at = &lane->first;
    if (!w->order)
        w->order = q->next_order++;
    while (*at && !work_before(w, *at))
        at = &(*at)->next;
    w->next = *at;
    *at = w;
    lane->waiting++;
    q->waiting++;
    queue_changed(q);
    uv_mutex_unlock(&q->lock);
    return ERR_OK;
}

bool queue_remove(struct queue *q, struct work *w)
{
    bool found = false;
    uv_mutex_lock(&q->lock);
    struct lane *lane = lane_find(q, w->spec->owner);
    for (struct work **at = lane ? &lane->first : NULL; at && *at; at = &(*at)->next) {
        if (*at != w)
            continue;
        *at = w->next;
        w->next = NULL;
        lane->waiting--;
        q->waiting--;
        lane_drop_empty(q, lane);
        found = true;
        break;
    }
    uv_mutex_unlock(&q->lock);
    return found;
}

struct work *queue_take(struct queue *q)
{
    struct work *w = NULL;
    uv_mutex_lock(&q->lock);
    for (struct lane *lane = q->lanes; lane && !w; lane = lane->next) {
        if (q->running_limit && lane->running >= q->running_limit)
            continue;
        struct work **at = &lane->first;
        while (*at && q->hold && (*at)->spec->durable)
            at = &(*at)->next;
        if (!*at)
            continue;
        w = *at;
        *at = w->next;
        w->next = NULL;
        lane->waiting--;
        lane->running++;
        q->waiting--;
        lane_to_end(q, lane);
        break;
    }
    uv_mutex_unlock(&q->lock);
    return w;
}

void queue_leave(struct queue *q, const struct work *w)
{
    uv_mutex_lock(&q->lock);
    struct lane *lane = lane_find(q, w->spec->owner);
    lane->running--;
    lane_drop_empty(q, lane);
    queue_changed(q); // the owner may have been at its limit
    uv_mutex_unlock(&q->lock);
}

void queue_wait(struct queue *q, uint64_t *seen, double seconds)
{
    uv_mutex_lock(&q->lock);
    if (*seen == q->changes)
        uv_cond_timedwait(&q->changed, &q->lock, (uint64_t)(seconds * 1e9));
    *seen = q->changes;
    uv_mutex_unlock(&q->lock);
}

void queue_wake(struct queue *q)
{
    uv_mutex_lock(&q->lock);
    queue_changed(q);
    uv_mutex_unlock(&q->lock);
}

void queue_set_running_limit(struct queue *q, int per_owner)
{
    uv_mutex_lock(&q->lock);
    q->running_limit = per_owner;
    queue_changed(q);
    uv_mutex_unlock(&q->lock);
}

void queue_hold(struct queue *q, bool hold)
{
    uv_mutex_lock(&q->lock);
    q->hold = hold;
    queue_changed(q);
    uv_mutex_unlock(&q->lock);
}

int queue_length(struct queue *q)
{
    uv_mutex_lock(&q->lock);
    const int n = q->waiting;
    uv_mutex_unlock(&q->lock);
    return n;
}

int queue_demand(struct queue *q)
{
    int n = 0;
    uv_mutex_lock(&q->lock);
    for (const struct lane *l = q->lanes; l; l = l->next) {
        const int most = q->running_limit ? q->running_limit - l->running : l->waiting;
        n += l->running + (most < 0 ? 0 : most < l->waiting ? most : l->waiting);
    }
    uv_mutex_unlock(&q->lock);
    return n;
}

int queue_owner_length(struct queue *q, const char *owner)
{
    uv_mutex_lock(&q->lock);
    const struct lane *lane = lane_find(q, owner);
    const int n = lane ? lane->waiting : 0;
    uv_mutex_unlock(&q->lock);
    return n;
}

void queue_rank(struct queue *q)
{
    int ahead = 0;
    uv_mutex_lock(&q->lock);
    for (struct lane *l = q->lanes; l; l = l->next)
        l->cursor = l->first;
    for (bool more = true; more;) {
        more = false;
        for (struct lane *l = q->lanes; l; l = l->next) {
            if (!l->cursor)
                continue;
            l->cursor->ahead = ahead++;
            l->cursor = l->cursor->next;
            more = true;
        }
    }
    uv_mutex_unlock(&q->lock);
}
