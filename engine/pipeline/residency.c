// See residency.h.
#include "residency.h"

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

// The room for the products of a unit that has `left` bytes for its weights; 0: it is not streamed.
static size_t room_for(const struct residency_unit *u, size_t left)
{
    const size_t others = u->weights - u->products, least = 2 * u->largest;

    return u->weights <= left || least >= u->products ? 0
           : left > others + least                    ? left - others
                                                      : least;
}

// Fills room, peak and most for what is kept.
static void predict(const struct residency *r, size_t limit, struct residency_plan *plan)
{
    size_t always = r->base, activations = 0;
    bool networks = false; // some are kept

    for (int i = 0; i < r->units; i++) {
        always += r->unit[i].state + (plan->keep[i] ? r->unit[i].weights : 0);
        activations = larger(activations, r->unit[i].activations);
        networks = networks || (plan->keep[i] && i >= r->texts);
    }
    always += activations;
    plan->most = 0;
    for (int i = 0; i < r->units; i++) {
        const struct residency_unit *u = &r->unit[i];
        const bool streams = limit && !plan->keep[i] && (i < r->texts || !networks);
        size_t weights = plan->keep[i] ? 0 : u->weights;
        plan->room[i] = streams ? room_for(u, limit > always ? limit - always : 0) : 0;
        if (plan->room[i])
            weights = u->weights - u->products + plan->room[i];
        plan->peak[i] = always + weights;
        plan->most = larger(plan->most, plan->peak[i]);
    }
}

// The unit to release next: those on demand first, then by order, then the largest; -1: none.
static int next(const struct residency *r, const struct residency_plan *plan, int texts)
{
    int best = -1;

    for (int i = 0; i < r->units; i++) {
        const struct residency_unit *u = &r->unit[i], *b = &r->unit[best < 0 ? 0 : best];
        const int rank = u->on_demand ? 0 : i < texts ? 1 : 2;
        const int than = best < 0 ? 3 : b->on_demand ? 0 : best < texts ? 1 : 2;
        if (plan->keep[i] && (rank < than || (rank == than && u->weights > b->weights)))
            best = i;
    }
    return best;
}

size_t residency_least(const struct residency *r)
{
    struct residency_plan plan = {.most = 0};

    predict(r, 1, &plan);
    return plan.most;
}

bool residency_plan(const struct residency *r, size_t limit, struct residency_plan *plan)
{
    for (int i = 0; i < r->units; i++)
        plan->keep[i] = true;
    for (predict(r, limit, plan); limit && plan->most > limit; predict(r, limit, plan)) {
        const int i = next(r, plan, r->texts);
        if (i < 0)
            return false;
        plan->keep[i] = false;
    }
    return true;
}
