// Decodes latents into an image. A decoder needs hundreds of times the memory of the latents, most
// of it in the layers behind its last global one. Of a large image, these run segment by segment:
// the map between two segments is in the memory of the CPU, a band of it at a time on the device,
// and the next norm takes the statistics that all bands have together. Called by stage_look.c, on
// the engine's worker.
#ifndef IMAGEND_DECODE_H
#define IMAGEND_DECODE_H

#include "decoder.h"

enum {
    DECODE_LATENTS = 16384,     // that are decoded at once; 128 x 128, which gives 512 x 512 pixels
    DECODE_BAND_BYTES = 1 << 26 // of a band's largest map, unless that has fewer than 8 rows
};

struct decode;

struct decode_params {
    struct ops_device *dev;
    const struct decoder *decoder; // must outlive the struct decode
    uint32_t height, width;        // of the latents
    uint32_t most;                 // latents at once; 0: DECODE_LATENTS
    size_t band;                   // bytes of a band's largest map; 0: DECODE_BAND_BYTES
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
// The same as RGB. Owner: d; valid until the next call.
enum err decode_rgb(struct decode *d, const struct tensor *latents, const uint8_t **rgb);

// The bands of the last image, of all segments. 0: it was decoded at once.
int decode_bands(const struct decode *d);

#endif
