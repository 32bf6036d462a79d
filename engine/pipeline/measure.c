// Makes every part of a cascade without values, on a device that only counts; see measure.h.
#include "measure.h"

#include "network.h"
#include "text.h"

struct size {
    int length, dim; // of text states
};

// Weights are what a release frees; of the rest, the activations belong to all units together.
static void note(struct residency_unit *u, const struct ops_counted *all,
                 const struct ops_counted *released)
{
    u->activations = all->activations;
    u->state = released->used - all->activations;
    u->weights = all->used - released->used;
    u->products = all->products;
    u->largest = all->largest;
}

static enum err count_text(const struct measure_params *p, int index, size_t room,
                           struct residency_unit *u, struct size *size, struct fault *why)
{
    const struct cascade_text *c = &p->cascade->text[index];
    char dir[CASCADE_PATH + 8];
    struct weights_params w = cascade_weights(p->cascade, CASCADE_TEXT, index, dir);
    struct ops_counted all, released;
    struct text *t = NULL;

    w.stored = p->stored;
    w.dry = true;
    w.room = room;
    enum err e = text_open(
        &(struct text_params){
            .dev = p->dev,
            .tokenizer_dir = c->tokenizer_dir,
            .weights = &w,
            .config = &c->config,
            .dtype = ops_device_info(p->dev)->dtype,
            .cached = 2,
        },
        &t, why);
    if (!e && (e = text_warm(t)))
        fault_set(why, e, NULL, "text encoder: %s", ops_device_why(p->dev, e));
    if (!e) {
        *size = (struct size){text_length(t), text_dim(t)};
        ops_device_counted(p->dev, &all);
        text_release(t, 0);
        ops_device_counted(p->dev, &released);
        note(u, &all, &released);
    }
    text_close(&t);
    return e;
}

static enum err count_network(const struct measure_params *p, int index, size_t room,
                              const struct size *size, struct residency_unit *u, struct fault *why)
{
    struct ops_counted all, released;
    struct network *n = NULL;
    enum err e = network_load(
        &(struct network_params){
            .dev = p->dev,
            .cascade = p->cascade,
            .index = index,
            .text_length = (uint32_t)size->length,
            .text_dim = (uint32_t)size->dim,
            .slots = (uint32_t)p->slots,
            .shape = p->shape[p->cascade->network[index].stage],
            .dry = true,
            .room = room,
        },
        &n, why);

    if (!e) {
        ops_device_counted(p->dev, &all);
        network_sleep(n, 0);
        ops_device_counted(p->dev, &released);
        note(u, &all, &released);
        u->on_demand = index >= p->cascade->stages;
    }
    network_destroy(&n);
    return e;
}

enum err measure_network(const struct measure_params *p, int index, const struct text *text,
                         struct residency_unit *out, struct fault *why)
{
    const struct size size = {text_length(text), text_dim(text)};
    enum err e = ops_device_count(p->dev, true);

    if (!e)
        e = count_network(p, index, 0, &size, out, why);
    (void)ops_device_count(p->dev, false);
    return e;
}

// size: of all texts; that of a text is filled. room: 0: whole.
static enum err measure_unit(const struct measure_params *p, int unit, size_t room,
                             struct size *size, struct residency_unit *out, struct fault *why)
{
    const int network = unit - p->cascade->texts;
    enum err e = ops_device_count(p->dev, true);

    if (!e && network < 0)
        e = count_text(p, unit, room, out, &size[unit], why);
    else if (!e)
        e = count_network(p, network, room, &size[p->cascade->network[network].text], out, why);
    (void)ops_device_count(p->dev, false);
    return e;
}

enum err measure_streams(const struct measure_params *p, const struct residency *need,
                         struct residency_plan *plan, struct fault *why)
{
    struct size size[CASCADE_MAX_TEXTS];
    enum err e = ERR_OK;

    for (int i = 0; !e && i < need->units; i++) {
        const struct residency_unit *u = &need->unit[i];
        struct residency_unit streamed = {0};
        if (i < need->texts || plan->room[i])
            e = measure_unit(p, i, plan->room[i], size, &streamed, why);
        if (!e && plan->room[i])
            plan->peak[i] -= u->weights - u->products + plan->room[i] - streamed.weights;
    }
    plan->most = 0;
    for (int i = 0; i < need->units; i++)
        plan->most = plan->peak[i] > plan->most ? plan->peak[i] : plan->most;
    return e;
}

enum err measure_units(const struct measure_params *p, struct residency *out, struct fault *why)
{
    struct size size[CASCADE_MAX_TEXTS];
    struct ops_memory now;
    enum err e = ERR_OK;

    ops_device_memory(p->dev, &now);
    *out = (struct residency){.base = now.used,
                              .texts = p->cascade->texts,
                              .units = p->cascade->texts + p->cascade->networks};
    for (int i = 0; !e && i < out->units; i++)
        e = measure_unit(p, i, 0, size, &out->unit[i], why);
    return e;
}
