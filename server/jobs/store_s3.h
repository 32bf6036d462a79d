// A store of results laid over a store of jobs: images are objects in an S3-compatible store, and
// the store of jobs has everything else. Thread: as store.h.
#ifndef IMAGEND_STORE_S3_H
#define IMAGEND_STORE_S3_H

#include "s3.h"
#include "store.h"

struct store_s3_params {
    struct s3_params s3;
    size_t waiting_bytes; // of images that wait for a store that is away; 0: 512 MB
};

// Opens at once and connects later. Owner: takes base, and closes it with itself or on error.
// Errors: as s3_open.
enum err store_s3_open(const struct store_s3_params *p, struct store *base, struct store **out,
                       struct fault *why);

#endif
