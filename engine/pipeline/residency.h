// Decides which networks stay in device memory, which are released after use, which are streamed
// while they work, and what each part of an image then needs at most. A unit is a text encoder or a
// network with its stage. Only one unit works at a time, in the order in which an image needs them:
// encode, release, draw. Called by engine.c and inspect.c. Thread: any; plain numbers.
#ifndef IMAGEND_RESIDENCY_H
#define IMAGEND_RESIDENCY_H

#include <stdbool.h>
#include <stddef.h>

enum { RESIDENCY_UNITS = 32 };

struct residency_unit {
    size_t weights;     // bytes that are released and loaded again
    size_t products;    // of weights: what can be streamed, see ops.h
    size_t largest;     // streaming them takes at least twice as many bytes
    size_t state;       // bytes that stay: images in progress, prompts
    size_t activations; // while it works; all units share the memory of the largest
    bool on_demand;     // may never be used, so it is the first to be released
};

struct residency {
    size_t base;      // bytes of the device besides the units
    int units, texts; // the first `texts` units are text encoders
    struct residency_unit unit[RESIDENCY_UNITS];
};

struct residency_plan {
    bool keep[RESIDENCY_UNITS];   // else: loaded before use, released when another unit needs room
    size_t room[RESIDENCY_UNITS]; // bytes for its products, which are streamed; 0: they are not
    size_t peak[RESIDENCY_UNITS]; // while this unit works; at most, if it is streamed
    size_t most;                  // the largest of them
};

// Keeps as much as fits the limit (0: no limit): text encoders are released first, because an image
// needs them once, then networks, the largest first. A text encoder that is not kept is streamed if
// it does not fit beside what is, which costs no more than loading it; a network only if it does
// not even fit alone, because it works many times. False: not even that fits; plan->most is then
// the smallest limit that works.
bool residency_plan(const struct residency *r, size_t limit, struct residency_plan *plan);

// The smallest `most` of any plan.
size_t residency_least(const struct residency *r);

// Allocations come in slabs of a 64th of the limit, of which one of each kind of memory may be
// partly unused: the bytes of a limit that can be planned with, and the limit for such bytes.
static inline size_t residency_usable(size_t limit)
{
    return limit - limit / 16;
}

static inline size_t residency_limit(size_t bytes)
{
    return bytes + bytes / 15 + 1;
}

// The limit for a device with so much free memory: a margin is left to others who use it.
static inline size_t residency_automatic(size_t free)
{
    return free - free / 16;
}

#endif
