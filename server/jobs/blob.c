// Reference-counted bytes, see blob.h. Any thread.
#include "blob.h"

#include <stdatomic.h>
#include <stdlib.h>

struct blob_counted {
    struct blob blob;
    atomic_int refs;
    uint8_t *data;
};

struct blob *blob_create(uint8_t *data, size_t size)
{
    struct blob_counted *b = malloc(sizeof *b);
    if (!b) {
        free(data);
        return NULL;
    }
    b->blob = (struct blob){size, data};
    b->data = data;
    atomic_init(&b->refs, 1);
    return &b->blob;
}

struct blob *blob_ref(struct blob *b)
{
    atomic_fetch_add(&((struct blob_counted *)b)->refs, 1);
    return b;
}

void blob_unref(struct blob **b)
{
    struct blob_counted *c = (struct blob_counted *)*b;
    *b = NULL;
    if (!c || atomic_fetch_sub(&c->refs, 1) > 1)
        return;
    free(c->data);
    free(c);
}
