// Immutable bytes with a reference count: an encoded image on its way from the thread pool to
// the store and to several clients at once.
#ifndef IMAGEND_BLOB_H
#define IMAGEND_BLOB_H

#include <stddef.h>
#include <stdint.h>

struct blob {
    size_t size;
    const uint8_t *data;
};

// Takes over data (malloc), also when it fails. Owner: the caller holds one reference; NULL when
// out of memory. Thread: any, as for all of these.
struct blob *blob_create(uint8_t *data, size_t size);
struct blob *blob_ref(struct blob *b);
void blob_unref(struct blob **b);

#endif
