// Loads and releases the models of a worker within one memory limit. With a single model, the limit
// is the engine's own business. On the worker's thread.
#include "worker_impl.h"

#include "log.h"

#include <string.h>

static bool is_shared(const struct worker *w)
{
    return w->p.models > 1;
}

// The bytes that all loaded models but one may use.
static size_t need_of_others(const struct worker *w, const struct worker_model *m)
{
    size_t n = 0;
    for (int i = 0; i < w->p.models; i++)
        if (&w->model[i] != m && w->model[i].engine)
            n += w->model[i].need;
    return n;
}

bool worker_others_loaded(const struct worker *w, const struct worker_model *m)
{
    for (int i = 0; i < w->p.models; i++)
        if (&w->model[i] != m && w->model[i].engine)
            return true;
    return false;
}

static size_t room_for(const struct worker *w, const struct worker_model *m)
{
    const size_t taken = need_of_others(w, m);
    return w->limit > taken ? w->limit - taken : 0;
}

void worker_lend_room(struct worker *w, struct worker_model *m)
{
    if (is_shared(w))
        engine_set_memory_limit(m->engine, room_for(w, m));
}

void worker_return_room(struct worker *w, struct worker_model *m)
{
    struct engine_stats s;
    if (!is_shared(w))
        return;
    engine_stats(m->engine, &s);
    m->need = s.need_bytes;
    engine_set_memory_limit(m->engine, m->need);
}

// ---- releasing ------------------------------------------------------------------------------

void worker_unload(struct worker *w, struct worker_model *m)
{
    struct engine_stats s;
    if (!m->engine)
        return;
    engine_stats(m->engine, &s);
    w->past_hits += s.text_cache_hits;
    w->past_misses += s.text_cache_misses;
    uv_mutex_lock(&w->lock);
    struct engine *e = m->engine;
    m->engine = NULL;
    uv_mutex_unlock(&w->lock);
    engine_close(&e);
}

static struct worker_model *least_used(const struct worker *w, const struct worker_model *keep)
{
    struct worker_model *found = NULL;
    for (int i = 0; i < w->p.models; i++) {
        struct worker_model *m = &w->model[i];
        if (m != keep && m->engine && !m->active && (!found || m->used < found->used))
            found = m;
    }
    return found;
}

bool worker_may_retry(const struct worker *w, const struct worker_model *m)
{
    return least_used(w, m) || !worker_others_loaded(w, m);
}

bool worker_release(struct worker *w, const struct worker_model *keep)
{
    struct worker_model *m = least_used(w, keep);
    if (!m)
        return false;
    worker_unload(w, m);
    struct worker_event *ev = worker_event_create(WORKER_RELEASED, NULL);
    ev->model = (int)(m - w->model);
    worker_event_post(w, ev);
    return true;
}

// ---- loading --------------------------------------------------------------------------------

// Written before WORKER_READY is posted and read after it, so the list's lock orders the two.
static void describe(struct worker_model *m)
{
    if (m->described)
        return; // the same model on the same device: leave the data that the loop reads unchanged
    m->described = true;
    m->info = *engine_info(m->engine);
    (void)vocabulary_ref(m->info.vocabulary); // outlives this engine
    if (*m->info.notice)
        log_msg(LOG_WARN, "engine", "%s", m->info.notice);
}

// Opens the engine where it fits beside the others, whole, or has the memory for itself.
static enum err open_engine(struct worker *w, struct worker_model *m, struct engine **out,
                            struct fault *why)
{
    for (;;) {
        struct engine_params p = m->params;
        const bool beside = worker_others_loaded(w, m);
        enum err err = ERR_NO_DEVICE_MEMORY;
        p.shared = is_shared(w);
        p.whole = beside;
        if (beside)
            p.memory_limit = room_for(w, m);
        if (!beside || p.memory_limit)
            err = engine_open(&p, out, why);
        if (err != ERR_NO_DEVICE_MEMORY || !beside)
            return err;
        if (!worker_release(w, m))
            return fault_set(why, ERR_BUSY, "", "other models are in use");
    }
}

enum err worker_load(struct worker *w, int index, struct fault *why)
{
    struct worker_model *m = &w->model[index];
    struct engine_stats s;
    struct engine *e = NULL;
    const enum err err = open_engine(w, m, &e, why);
    if (err)
        return err;
    engine_stats(e, &s);
    if (!worker_others_loaded(w, m))
        w->limit = s.limit_bytes;
    m->need = s.need_bytes;
    m->used = ++w->uses;
    uv_mutex_lock(&w->lock);
    m->engine = e;
    uv_mutex_unlock(&w->lock);
    w->slots = engine_info(e)->slots;
    describe(m);
    struct worker_event *ev = worker_event_create(WORKER_READY, NULL);
    ev->model = index;
    worker_event_post(w, ev);
    return ERR_OK;
}
