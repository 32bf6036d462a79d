// Pictures into files: PNG by the engine (with its text chunks), JPEG and WebP by the codecs.
#ifndef IMAGEND_ENCODE_H
#define IMAGEND_ENCODE_H

#include "job.h"

struct encode_params {
    enum job_format format;
    int quality; // 0..100, jpeg and webp; 100 is lossless in webp
    int width, height;
    const uint8_t *rgb;             // [height, width, 3]
    struct picture_request request; // for the text chunks, as used
    const struct picture_used *used;
};

// Owner: *out is one reference. Thread: any. Errors: NO_MEMORY, INTERNAL.
enum err encode_picture(const struct encode_params *p, struct blob **out, struct fault *why);

#endif
