// Pictures into files: PNG by the engine (with its text chunks), JPEG and WebP by the codecs.
#ifndef IMAGEND_ENCODE_H
#define IMAGEND_ENCODE_H

#include "job.h"

struct encode_params {
    enum job_format format;
    int quality; // 0..100, jpeg and webp; 100 is lossless in webp
    int width, height;
    const uint8_t *rgb;          // [height, width, 3]
    const struct job_spec *spec; // for the text chunks, as used and picture
    const struct job_used *used;
    int picture;
};

// Owner: *out is one reference. Thread: any. Errors: NO_MEMORY, INTERNAL.
enum err encode_picture(const struct encode_params *p, struct blob **out, struct fault *why);

#endif
