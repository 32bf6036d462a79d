// Memory of the recordings' activations. Takes and releases happen in recording order, which is
// also execution order, so a released range may be handed out again at once: the command layer
// orders the later write after the earlier reads. Recordings run one at a time and each starts from
// the whole of it, so that the largest one sets the size. Called by the recorder only.
#include "ops_internal.h"

#include <stdlib.h>
#include <string.h>

enum { ALIGN = 256, FIRST_CHUNK = 4 << 20 };

struct block {
    size_t offset, bytes;
    bool used;
    struct tensor t; // who has it
};

struct chunk {
    struct vk_buffer *buf;
    size_t bytes;
    struct block *blocks; // sorted by offset, gapless; no two free ones are neighbours
    int count, room;
};

struct activations {
    struct ops_device *dev;
    struct chunk *chunks;
    int count;
    size_t total, align;
};

enum err activations_create(struct ops_device *dev, struct activations **out)
{
    struct activations *a = calloc(1, sizeof *a);
    if (!a)
        return ERR_NO_MEMORY;
    a->dev = dev;
    a->align = dev->caps->offset_alignment > ALIGN ? dev->caps->offset_alignment : ALIGN;
    *out = a;
    return ERR_OK;
}

void activations_destroy(struct activations **ap)
{
    struct activations *a = *ap;
    if (!a)
        return;
    for (int i = 0; i < a->count; i++) {
        vk_buffer_destroy(&a->chunks[i].buf);
        free(a->chunks[i].blocks);
    }
    free(a->chunks);
    free(a);
    *ap = NULL;
}

size_t activations_bytes(const struct activations *a)
{
    return a->total;
}

void activations_reset(struct activations *a)
{
    for (int i = 0; i < a->count; i++) {
        struct chunk *c = &a->chunks[i];
        c->blocks[0] = (struct block){.bytes = c->bytes};
        c->count = 1;
    }
}

static enum err insert_block(struct chunk *c, int at, struct block b)
{
    if (c->count == c->room) {
        int room = c->room ? 2 * c->room : 16;
        struct block *blocks = realloc(c->blocks, (size_t)room * sizeof *blocks);
        if (!blocks)
            return ERR_NO_MEMORY;
        c->blocks = blocks;
        c->room = room;
    }
    memmove(&c->blocks[at + 1], &c->blocks[at], (size_t)(c->count - at) * sizeof b);
    c->blocks[at] = b;
    c->count++;
    return ERR_OK;
}

static void remove_block(struct chunk *c, int at)
{
    c->count--;
    memmove(&c->blocks[at], &c->blocks[at + 1], (size_t)(c->count - at) * sizeof c->blocks[0]);
}

// Chunks grow with what is in use, so that a large network needs few and a small one wastes little.
static enum err add_chunk(struct activations *a, size_t bytes)
{
    struct chunk *chunks = realloc(a->chunks, (size_t)(a->count + 1) * sizeof *chunks);
    if (!chunks)
        return ERR_NO_MEMORY;
    a->chunks = chunks;
    struct chunk c = {.bytes = bytes};
    size_t more = a->total / 4 < FIRST_CHUNK ? FIRST_CHUNK : a->total / 4 / ALIGN * ALIGN;
    if (c.bytes < more)
        c.bytes = more;
    enum err e = vk_buffer_create(a->dev->vk, VK_DEVICE, c.bytes, &c.buf);
    if (!e)
        e = insert_block(&c, 0, (struct block){.bytes = c.bytes});
    if (e) {
        vk_buffer_destroy(&c.buf);
        return e;
    }
    a->total += c.bytes;
    a->chunks[a->count++] = c;
    return ERR_OK;
}

static bool take_from(struct chunk *c, size_t bytes, struct tensor *t, enum err *e)
{
    for (int i = 0; i < c->count; i++) {
        struct block *b = &c->blocks[i];
        if (b->used || b->bytes < bytes)
            continue;
        if (b->bytes > bytes) {
            struct block rest = {.offset = b->offset + bytes, .bytes = b->bytes - bytes};
            *e = insert_block(c, i + 1, rest);
            if (*e)
                return true;
            b = &c->blocks[i];
            b->bytes = bytes;
        }
        t->buf = c->buf;
        t->offset = b->offset / tensor_dtype_bytes(t->dtype);
        b->used = true;
        b->t = *t;
        return true;
    }
    return false;
}

enum err activations_take(struct activations *a, struct tensor *t)
{
    size_t bytes = tensor_span(t) * tensor_dtype_bytes(t->dtype);
    if (!bytes)
        return ERR_INVALID;
    bytes = (bytes + a->align - 1) / a->align * a->align;
    enum err e = ERR_OK;
    for (int i = 0; i < a->count; i++)
        if (take_from(&a->chunks[i], bytes, t, &e))
            return e;
    e = add_chunk(a, bytes);
    if (!e && !take_from(&a->chunks[a->count - 1], bytes, t, &e))
        e = ERR_INTERNAL;
    return e;
}

// A view starts where its tensor does when it shows the first channels or samples.
static bool whole(const struct tensor *t, const struct tensor *of)
{
    return t->buf == of->buf && t->offset == of->offset && t->dtype == of->dtype && t->c == of->c &&
           t->cs == of->cs && tensor_pixels(t) == tensor_pixels(of);
}

bool activations_release(struct activations *a, const struct tensor *t)
{
    for (int i = 0; i < a->count; i++) {
        struct chunk *c = &a->chunks[i];
        if (c->buf != t->buf)
            continue;
        for (int j = 0; j < c->count; j++) {
            if (!c->blocks[j].used || !whole(t, &c->blocks[j].t))
                continue;
            c->blocks[j].used = false;
            if (j + 1 < c->count && !c->blocks[j + 1].used) {
                c->blocks[j].bytes += c->blocks[j + 1].bytes;
                remove_block(c, j + 1);
            }
            if (j && !c->blocks[j - 1].used) {
                c->blocks[j - 1].bytes += c->blocks[j].bytes;
                remove_block(c, j);
            }
            return true;
        }
    }
    return false;
}
