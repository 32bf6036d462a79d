// Enlarges an image with a super-resolution stage: in overlapping tiles if it is larger than the
// stage's input, one after the other, blended into the result. Called by engine.c on the engine's
// worker. Handles pixels only, not the generation.
#ifndef IMAGEND_ENLARGE_H
#define IMAGEND_ENLARGE_H

#include "err.h"

#include <stdbool.h>
#include <stdint.h>

struct enlarge;

// The number of tiles of an image for a stage with an input of low x low pixels.
int enlarge_count(int width, int height, int low);

// rgb [height, width, 3] is copied. The stage maps low x low to high x high pixels, a multiple.
// Until tiles are put in, the result is the image enlarged without a model. Errors: NO_MEMORY.
// Owner: the caller destroys *out.
enum err enlarge_create(const uint8_t *rgb, int width, int height, int low, int high,
                        struct enlarge **out);
void enlarge_destroy(struct enlarge **e);

int enlarge_done(const struct enlarge *e); // number of tiles put in
bool enlarge_is_done(const struct enlarge *e);
// The next tile: [low, low, 3] in [-1, 1], mirrored where it extends beyond the image.
void enlarge_tile(const struct enlarge *e, float *low);
// Puts in the enlarged tile, [high, high, 3]. It fades in over the part shared with its left and
// upper neighbors.
void enlarge_put(struct enlarge *e, const uint8_t *rgb);
// The result so far. Owner: e.
const uint8_t *enlarge_image(const struct enlarge *e, int *width, int *height);

#endif
