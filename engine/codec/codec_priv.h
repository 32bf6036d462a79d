// The encoders behind codec_encode, which has checked their parameters, and the decoders behind
// codec_decode, which has recognized the format.
#ifndef IMAGEND_CODEC_PRIV_H
#define IMAGEND_CODEC_PRIV_H

#include "buf.h"
#include "codec.h"

// Append the file to *out. Errors: NO_MEMORY, INTERNAL.
enum err codec_encode_png(const struct codec_params *p, struct buf *out);
enum err codec_encode_jpeg(const struct codec_params *p, struct buf *out);
enum err codec_encode_webp(const struct codec_params *p, struct buf *out);

// A file that is being decoded.
struct codec_reader {
    const uint8_t *data;
    size_t size;
    struct codec_limits limits; // every field set
    struct codec_image *out;
    int orientation; // of EXIF, 1..8
    struct fault *why;
};

// Before any memory is spent: check the size against the limits and allocate out->rgba. extra:
// bytes that decoding takes besides. Errors: INVALID, NO_MEMORY, with *r->why filled.
enum err codec_begin(struct codec_reader *r, uint32_t width, uint32_t height, uint64_t extra);
// "the image is truncated" and its like. Returns INVALID.
enum err codec_refuse(struct codec_reader *r, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

// Fill out->rgba. Errors: INVALID, NO_MEMORY, with *r->why filled.
enum err codec_read_png(struct codec_reader *r);
enum err codec_read_jpeg(struct codec_reader *r);
enum err codec_read_webp(struct codec_reader *r);

// The orientation that EXIF data says, with or without "Exif" before it; 1 when it says none.
int codec_exif_orientation(const uint8_t *data, size_t size);
// Turn the image as seen. Errors: NO_MEMORY.
enum err codec_turn(struct codec_image *i, int orientation);

#endif
