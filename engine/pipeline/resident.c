// See resident.h.
#include "resident.h"

#include <stdio.h>

enum err resident_plan(struct residents *r, const struct measure_params *p, size_t limit,
                       struct fault *why)
{
    struct residency *need = &r->need;
    enum err e;

    r->texts = p->cascade->texts;
    r->networks = p->cascade->networks;
    r->measure = *p;
    r->limit = limit ? limit : residency_automatic(ops_device_info(p->dev)->memory_bytes);
    e = measure_units(p, need, why);
    if (e || residency_plan(need, residency_usable(r->limit), &r->plan))
        return e;
    if (!limit)
        return fault_set(why, ERR_NO_DEVICE_MEMORY, "memory-limit",
                         "the %zu MB that %.60s has free are too few: this model needs at least "
                         "%zu MB; free some, store the weights as f16 or q8, load fewer stages, or "
                         "raise memory-limit",
                         r->limit / 1000000, ops_device_info(p->dev)->name,
                         residency_limit(r->plan.most) / 1000000 + 1);
    return fault_set(why, ERR_NO_DEVICE_MEMORY, "memory-limit",
                     "the memory limit of %zu MB is too small: this model needs at least %zu MB; "
                     "raise memory-limit, store the weights as f16 or q8, or load fewer stages",
                     limit / 1000000, residency_limit(r->plan.most) / 1000000 + 1);
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

enum err resident_shape(struct residents *r, int network, const struct text *text,
                        const struct check_size *shape, struct fault *why)
{
    struct check_size *last = &r->shape[network];
    struct residency need = r->need;
    struct residency_unit with, *u = &need.unit[r->texts + network];
    struct measure_params p = r->measure;
    struct residency_plan plan;
    enum err e;

    if (last->width == shape->width && last->height == shape->height)
        return ERR_OK;
    p.shape[p.cascade->network[network].stage] = *shape;
    e = measure_network(&p, network, text, &with, why);
    if (e)
        return e;
    u->state = larger(u->state, with.state);
    u->activations = larger(u->activations, with.activations);
    if (!residency_plan(&need, residency_usable(r->limit), &plan))
        return fault_set(why, ERR_INVALID, "size",
                         "\"size\": stage %d cannot make %dx%d within the memory limit of %zu MB: "
                         "it needs at least %zu MB; raise memory-limit, or request a smaller size",
                         r->measure.cascade->network[network].stage + 1, shape->width,
                         shape->height, r->limit / 1000000,
                         residency_limit(plan.most) / 1000000 + 1);
    r->need = need;
    r->plan = plan;
    *last = *shape;
    resident_make_room(r);
    return ERR_OK;
}

size_t resident_need(const struct residents *r)
{
    const size_t need = residency_limit(r->plan.most);

    return need < r->limit ? need : r->limit;
}

bool resident_is_whole(const struct residents *r)
{
    for (int i = 0; i < r->need.units; i++)
        if (!r->plan.keep[i] && !r->need.unit[i].on_demand)
            return false;
    return true;
}

void resident_set_limit(struct residents *r, size_t limit)
{
    r->limit = limit;
    ops_device_set_memory_limit(r->measure.dev, limit);
}

bool resident_keeps_text(const struct residents *r, int text)
{
    return r->plan.keep[text];
}

size_t resident_text_room(const struct residents *r, int text)
{
    return r->plan.room[text];
}

size_t resident_network_room(const struct residents *r, int network)
{
    return r->plan.room[r->texts + network];
}

void resident_release_texts(struct residents *r)
{
    for (int i = 0; i < r->texts; i++)
        if (!r->plan.keep[i] && r->text[i])
            text_release(r->text[i], r->plan.room[i]);
}

void resident_make_room(void *residents)
{
    struct residents *r = residents;

    resident_release_texts(r);
    for (int i = 0; i < r->networks; i++)
        if (r->network[i] && !r->plan.keep[r->texts + i])
            network_sleep(r->network[i], r->plan.room[r->texts + i]);
}

enum err resident_wake(struct residents *r, int network, const struct cascade_loras *loras,
                       struct fault *why)
{
    struct network *n = r->network[network];

    if (network_has(n, loras))
        return ERR_OK;
    network_sleep(n, resident_network_room(r, network));
    resident_make_room(r);
    return network_wake(n, loras, why);
}

void resident_explain(const struct ops_device *dev, struct fault *why)
{
    const bool halves = ops_device_info(dev)->dtype == DT_F16;
    struct ops_memory m;
    char what[200];

    ops_device_memory(dev, &m);
    snprintf(what, sizeof what, "%.199s", why->msg);
    fault_set(why, ERR_NO_DEVICE_MEMORY, "memory-limit",
              "%s; %zu MB of %zu MB were in use; raise memory-limit%s, or load fewer stages", what,
              m.peak / 1000000, m.limit / 1000000, halves ? "" : ", use fp16 weights (dtype f16)");
}
