// Keeps the text encoders and networks of an engine within its memory limit: what the plan does not
// keep is released as soon as another of them needs the room. Called by engine.c. Thread: the
// engine's worker.
#ifndef IMAGEND_RESIDENT_H
#define IMAGEND_RESIDENT_H

#include "measure.h"
#include "network.h"
#include "text.h"

struct residents {
    struct residency_plan plan; // by unit: the texts, then the networks
    struct residency need;      // what it is made for
    struct measure_params measure;
    size_t limit;                                  // never 0
    struct check_size shape[CASCADE_MAX_NETWORKS]; // the last that is planned for
    int texts, networks;
    struct text **text; // the engine's; NULL entries are not open yet
    struct network **network;
};

// Plans for a limit in bytes; 0: for what the device has free. Errors: NO_DEVICE_MEMORY, naming the
// least limit that works; as measure_units.
enum err resident_plan(struct residents *r, const struct measure_params *p, size_t limit,
                       struct fault *why);
// Plans for images of another size than the network's square, in addition to all before. Errors:
// INVALID, naming the least limit that works; as measure_network.
enum err resident_shape(struct residents *r, int network, const struct text *text,
                        const struct check_size *shape, struct fault *why);
// The limit that the plan needs, and whether it keeps everything in memory, except networks that
// may never be used.
size_t resident_need(const struct residents *r);
bool resident_is_whole(const struct residents *r);
// Replaces the limit for later shapes, which must not be below resident_need.
void resident_set_limit(struct residents *r, size_t limit);
bool resident_keeps_text(const struct residents *r, int text);
// As weights_params.room.
size_t resident_text_room(const struct residents *r, int text);
size_t resident_network_room(const struct residents *r, int network);
// Releases what is not kept. residents: a struct residents.
void resident_make_room(void *residents);
void resident_release_texts(struct residents *r);
// Reads a network's weights again if they were released, or have other LoRAs. Errors: as
// network_wake.
enum err resident_wake(struct residents *r, int network, const struct cascade_loras *loras,
                       struct fault *why);

// Completes the error for a model that does not fit after all: how far loading came, and what the
// user can do.
void resident_explain(const struct ops_device *dev, struct fault *why);

#endif
