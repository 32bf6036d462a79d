// See turns.h.
#include "turns.h"

// Whether an older image waits until its network's stage for shapes is free for another size, so
// that this one, which is not square, must not keep it in use.
static bool is_behind(const struct turns *t, const struct slot *s)
{
    if (request_is_square(t->cascade, &s->what, s->stage))
        return false;
    for (int i = 0; i < t->slots; i++) {
        const struct slot *o = &t->slot[i];
        if (o->used && o->entry < 0 && o->order < s->order &&
            turns_network_of(o) == turns_network_of(s) && !turns_stage_of(t, o))
            return true;
    }
    return false;
}

static bool has_room(const struct turns *t, const struct slot *s)
{
    const struct network *n = s->used && s->entry < 0 ? t->network[turns_network_of(s)] : NULL;

    return n && network_has_room(n, &s->what.size[s->stage]) && !is_behind(t, s);
}

// Entering a stage uses its weights, too.
static bool can_enter(const struct turns *t, const struct slot *s)
{
    return has_room(t, s) && network_has(t->network[turns_network_of(s)], turns_loras_of(s));
}

static bool is_in_stage(const struct turns *t, const struct slot *s)
{
    return s->used && s->entry >= 0;
}

static bool can_go_on(const struct turns *t, const struct slot *s)
{
    return is_in_stage(t, s) || has_room(t, s);
}

// The oldest of some images; -1: there are none.
static int oldest(const struct turns *t,
                  bool (*is_one)(const struct turns *t, const struct slot *s))
{
    int found = -1;

    for (int i = 0; i < t->slots; i++)
        if (is_one(t, &t->slot[i]) && (found < 0 || t->slot[i].order < t->slot[found].order))
            found = i;
    return found;
}

int turns_enter(const struct turns *t)
{
    return oldest(t, can_enter);
}

int turns_step(const struct turns *t)
{
    return oldest(t, is_in_stage);
}

int turns_first(const struct turns *t)
{
    return oldest(t, can_go_on);
}
