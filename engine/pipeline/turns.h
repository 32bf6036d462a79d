// Whose turn it is: the oldest image's, so that none waits forever. Called by engine.c on the
// engine's worker. Only looks.
#ifndef IMAGEND_TURNS_H
#define IMAGEND_TURNS_H

#include "network.h"
#include "slot.h"

struct turns {
    const struct cascade *cascade;
    const struct slot *slot; // the engine's
    int slots;
    struct network *const *network; // likewise, by index into cascade.network
};

// The slot whose image enters a stage next; -1: none can.
int turns_enter(const struct turns *t);
// The slot whose stage takes a step next; -1: no image is in a stage.
int turns_step(const struct turns *t);
// The slot of the oldest image that is in a stage or could enter one if its weights were loaded;
// -1: none.
int turns_first(const struct turns *t);

static inline int turns_network_of(const struct slot *s)
{
    return s->what.preset->stage[s->stage].network;
}

static inline const struct cascade_loras *turns_loras_of(const struct slot *s)
{
    return &s->what.loras[s->stage];
}

// The stage for the image in its present size; NULL: its network has none for that now.
static inline struct stage *turns_stage_of(const struct turns *t, const struct slot *s)
{
    return network_stage(t->network[turns_network_of(s)], &s->what.size[s->stage]);
}

#endif
