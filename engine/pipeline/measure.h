// Counts the device memory that the text encoders and networks of a cascade need, from the headers
// of their files, before anything is loaded. Called by engine.c and inspect.c. Thread: the engine's
// worker.
#ifndef IMAGEND_MEASURE_H
#define IMAGEND_MEASURE_H

#include "cascade.h"
#include "residency.h"

struct measure_params {
    struct ops_device *dev;
    const struct cascade *cascade;
    int slots;
    bool stored; // as weights_params.stored, for the text encoders
};
// The units are the text encoders, then the networks, both in the cascade's order. Errors: as
// text_open and network_load.
enum err measure_units(const struct measure_params *p, struct residency *out, struct fault *why);

#endif
