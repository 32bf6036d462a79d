// Immutable bytes with a reference count: an encoded image, shared by the thread pool, the store
// and any number of clients. Thread: any.
#ifndef IMAGEND_BLOB_H
#define IMAGEND_BLOB_H

#include <stddef.h>
#include <stdint.h>

struct blob {
    size_t size;
    const uint8_t *data;
};

// Owner: takes data (from malloc), even on failure; the caller holds one reference. NULL if out of
// memory.
struct blob *blob_create(uint8_t *data, size_t size);
struct blob *blob_ref(struct blob *b);
void blob_unref(struct blob **b);

#endif
