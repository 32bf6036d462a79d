// A network of the cascade at work: the U-Net of one pipeline folder with its weights, and the
// stage that samples images with it. What two networks of one stage share is nothing but the
// images' keys, so an image never depends on which networks are loaded. Called by engine.c.
// Thread: the engine's worker.
#ifndef IMAGEND_NETWORK_H
#define IMAGEND_NETWORK_H

#include "cascade.h"
#include "stage.h"

struct buf;
struct network;

struct network_params {
    struct ops_device *dev;
    const struct cascade *cascade; // must outlive the network
    int index;                     // of cascade.network
    uint32_t text_length, text_dim;
    uint32_t slots; // images in flight
};

// Reads the weights, and makes ready what the first images of every preset that uses the network
// will need. Errors: NOT_FOUND, FORMAT, UNSUPPORTED, NO_DEVICE_MEMORY, DEVICE_LOST, NO_MEMORY, with
// *why filled. Owner: the caller destroys *out.
enum err network_load(const struct network_params *p, struct network **out, struct fault *why);
void network_destroy(struct network **n);

// Whether the weight files have what the network wants, from their headers, as network_load would
// find out. keep: NULL, or takes the opened files, also on error (NULL when there are none).
// Owner: the caller closes *keep. Errors: as above.
enum err network_check(const struct cascade *c, int index, struct weights **keep,
                       struct fault *why);

struct stage *network_stage(const struct network *n);
uint64_t network_parameters(const struct network *n);

// stage_step, timed.
enum err network_step(struct network *n, const int *entries, int count, double *seconds);
// Time per operator class since the last call, one line each; nothing unless the device is opened
// with profile.
void network_profile(struct network *n, struct buf *text);

#endif
