// Enlarging an image by a super-resolution stage: in tiles that overlap when it is larger than what
// the stage takes, one after the other, blended into the result. Called by engine.c on the engine's
// worker. Knows pixels only, not what draws them.
#ifndef IMAGEND_ENLARGE_H
#define IMAGEND_ENLARGE_H

#include "err.h"

#include <stdbool.h>
#include <stdint.h>

struct enlarge;

// Tiles of an image for a stage that takes low x low pixels.
int enlarge_count(int width, int height, int low);

// rgb [height, width, 3] is copied. A stage takes low x low pixels and gives high x high, a
// multiple. The result is the image itself, enlarged without a model, until tiles are put in.
// Errors: NO_MEMORY. Owner: the caller destroys *out.
enum err enlarge_create(const uint8_t *rgb, int width, int height, int low, int high,
                        struct enlarge **out);
void enlarge_destroy(struct enlarge **e);

int enlarge_done(const struct enlarge *e); // tiles put in
bool enlarge_is_done(const struct enlarge *e);
// The next tile: [low, low, 3] in [-1, 1]. Where it reaches beyond the image, that is mirrored.
void enlarge_tile(const struct enlarge *e, float *low);
// What became of it, [high, high, 3]. Over the width that it shares with its left and upper
// neighbours it fades in.
void enlarge_put(struct enlarge *e, const uint8_t *rgb);
// The result so far. Owner: e.
const uint8_t *enlarge_image(const struct enlarge *e, int *width, int *height);

#endif
