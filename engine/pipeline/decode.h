// Decodes latents into an image. A decoder needs hundreds of times the memory of the latents, most
// of it in the layers behind its last global one; of a large image, these run on bands of rows.
// Their norms need statistics of the whole image, so the bands are run again with the statistics
// that all of them had together, until these do not change: each run settles at least one more
// norm. Called by stage_look.c, on the engine's worker.
#ifndef IMAGEND_DECODE_H
#define IMAGEND_DECODE_H

#include "decoder.h"

enum {
    DECODE_LATENTS = 16384
}; // that are decoded at once; 128 x 128, which gives 512 x 512 pixels

struct decode;

struct decode_params {
    struct ops_device *dev;
    const struct decoder *decoder; // must outlive the struct decode
    uint32_t height, width;        // of the latents
    uint32_t most;                 // latents at once; 0: DECODE_LATENTS
};
// Errors: NO_DEVICE_MEMORY, NO_MEMORY. Owner: the caller destroys *out.
enum err decode_create(const struct decode_params *p, struct decode **out);
void decode_destroy(struct decode **d);
// Makes every recording once, so that the memory that an image takes is there. Errors: as
// decode_run.
enum err decode_warm(struct decode *d);

// latents f32 [1, height, width, channels], as sampled -> [height factor, width factor, 3], about
// in [-1, 1]. Errors: NOT_FINITE, DEVICE_LOST, TIMEOUT, NO_DEVICE_MEMORY, NO_MEMORY.
enum err decode_run(struct decode *d, const struct tensor *latents, float *image);
// The same as RGB. draft: bands are run once, for a preview; the image may have seams. Owner: d;
// valid until the next call.
enum err decode_rgb(struct decode *d, const struct tensor *latents, bool draft,
                    const uint8_t **rgb);

int decode_bands(const struct decode *d);  // 1: the image is decoded at once
int decode_passes(const struct decode *d); // of the last image over its bands
// A band's statistics are settled when no norm's input moves by more than this part of its standard
// deviation.
extern const double decode_tolerance;

#endif
