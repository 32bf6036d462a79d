// Decodes latents into an image, in overlapping tiles: a decoder needs hundreds of times the memory
// of the latents, and a tile bounds it whatever the image's size. Tiles are blended linearly where
// they overlap. Called by stage_look.c and the golden program, on the engine's worker.
#ifndef IMAGEND_DECODE_H
#define IMAGEND_DECODE_H

#include "decoder.h"

enum { DECODE_TILE = 64 }; // latents along the edge of a tile

struct decode;

// Of latents [height, width]. Errors: NO_DEVICE_MEMORY, NO_MEMORY. Owner: the caller destroys *out;
// d must outlive it.
enum err decode_create(struct ops_device *dev, const struct decoder *d, uint32_t height,
                       uint32_t width, struct decode **out);
// Likewise, with tiles of another size.
enum err decode_create_tiled(struct ops_device *dev, const struct decoder *d, uint32_t height,
                             uint32_t width, uint32_t tile, struct decode **out);
void decode_destroy(struct decode **d);

// latents f32 [1, height, width, channels], as sampled -> [height factor, width factor, 3], about
// in [-1, 1]. Errors: NOT_FINITE, DEVICE_LOST, TIMEOUT, NO_DEVICE_MEMORY, NO_MEMORY.
enum err decode_run(struct decode *d, const struct tensor *latents, float *image);
// The same as RGB. Owner: d; valid until the next call.
enum err decode_rgb(struct decode *d, const struct tensor *latents, const uint8_t **rgb);

#endif
