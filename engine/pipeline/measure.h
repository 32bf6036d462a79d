// Counts the device memory that the text encoders and networks of a cascade need, from the headers
// of their files, before anything is loaded. Called by engine.c and inspect.c. Thread: the engine's
// worker.
#ifndef IMAGEND_MEASURE_H
#define IMAGEND_MEASURE_H

#include "cascade.h"
#include "check.h"
#include "residency.h"

struct text;

struct measure_params {
    struct ops_device *dev;
    const struct cascade *cascade;
    int slots;
    bool stored; // as weights_params.stored, for the text encoders
    // By stage: the size of images that are not square, which are made beside squares; 0x0: none.
    struct check_size shape[CASCADE_MAX_STAGES];
};
// The units are the text encoders, then the networks, both in the cascade's order. Errors: as
// text_open and network_load.
enum err measure_units(const struct measure_params *p, struct residency *out, struct fault *why);
// Sets the peaks of units that are streamed, which need not fill their room, to what they are.
// Errors: as measure_units.
enum err measure_streams(const struct measure_params *p, const struct residency *need,
                         struct residency_plan *plan, struct fault *why);

// The network alone. text: its encoder. Errors: as network_load.
enum err measure_network(const struct measure_params *p, int index, const struct text *text,
                         struct residency_unit *out, struct fault *why);

#endif
