// A loaded network of the cascade: the denoiser of one pipeline folder with its weights, its
// decoder if it works on latents, and the stages that sample with it, one per size. Two networks of
// one stage share only the noise keys of their images, so an image never depends on which networks
// are loaded. Called by engine.c. Thread: the engine's worker.
#ifndef IMAGEND_NETWORK_H
#define IMAGEND_NETWORK_H

#include "cascade.h"
#include "check.h"
#include "stage.h"

struct buf;
struct network;

struct network_params {
    struct ops_device *dev;
    const struct cascade *cascade; // must outlive the network
    int index;                     // index into cascade.network
    uint32_t text_length, text_dim;
    uint32_t slots;                    // images generated at once
    struct check_size shape;           // prepares for another size than the square, too; 0x0: none
    bool dry;                          // without values, while ops_device_count is on
    size_t room;                       // as weights_params.room, for the denoiser
    const struct cascade_loras *loras; // NULL: those that the cascade applies
};

// Reads the weights and makes the recordings that the first image of every preset with this network
// needs. Errors: NOT_FOUND, FORMAT, UNSUPPORTED, NO_DEVICE_MEMORY, DEVICE_LOST, NO_MEMORY, with
// *why filled. Owner: the caller destroys *out.
enum err network_load(const struct network_params *p, struct network **out, struct fault *why);
void network_destroy(struct network **n);

// Checks from their headers that the weight files contain what network_load needs. keep: NULL, or
// receives the denoiser's opened files, also on error (NULL if there are none); then the decoder's
// are not checked. Owner: the caller closes *keep. Errors: as network_load.
enum err network_check(const struct cascade *c, int index, struct weights **keep,
                       struct fault *why);
// Likewise, the decoder of a network that has one.
enum err network_check_decoder(const struct cascade *c, int index, struct weights **keep,
                               struct fault *why);

// Frees the weights; images in the stage stay. network_wake reads them again, then within this room
// and with these LoRAs; NULL: the same as before. It does nothing if network_has. On error, the
// network stays asleep. Errors: as network_load.
void network_sleep(struct network *n, size_t room);
enum err network_wake(struct network *n, const struct cascade_loras *loras, struct fault *why);
// Whether the weights are loaded with these LoRAs; NULL: with any.
bool network_has(const struct network *n, const struct cascade_loras *loras);
// The bytes of device memory that network_sleep frees.
size_t network_bytes(const struct network *n);

// The stage for images of this size; NULL: there is none now. Squares of the cascade's size have
// their own; all other sizes share one, which is made again when the size changes.
struct stage *network_stage(const struct network *n, const struct check_size *size);
// Whether an image of this size can enter: now, or after network_shape, which makes its stage.
bool network_has_room(const struct network *n, const struct check_size *size);
// Errors: NO_DEVICE_MEMORY, DEVICE_LOST, NO_MEMORY, with *why filled; others can go on.
enum err network_shape(struct network *n, const struct check_size *size, struct fault *why);
uint64_t network_parameters(const struct network *n);

// Calls stage_step for one of the network's stages and measures its time.
enum err network_step(struct network *n, struct stage *stage, const int *entries, int count,
                      double *seconds);
// Appends the time per operator class since the last call, one line each; nothing unless the device
// was opened with profile.
void network_profile(struct network *n, struct buf *text);

#endif
