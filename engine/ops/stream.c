// See ops.h: products that take turns in device memory, and recordings in parts. Called by weight.c
// when a network is loaded and by the recorder. Thread: the engine's worker, which reads products
// while the device works. Knows nothing about files.
#include "ops_internal.h"

#include "clock.h"
#include "trace.h"

#include <stdlib.h>
#include <string.h>

struct op_stream {
    struct ops_device *dev;
    struct op_weight **product;
    int products, room;
    // Two places for parts. If the CPU does not see the first, parts are read into the second and
    // copied from there.
    struct vk_buffer *place[2];
    bool copies;
    enum err (*fill)(void *ctx);
    void *ctx;
};

// Makes room for one more element of some size in *array.
static bool grow(void *array, int *room, int count, size_t size)
{
    void **at = array;
    const int more = *room ? 2 * *room : 16;
    if (count < *room)
        return true;
    void *p = realloc(*at, (size_t)more * size);
    if (!p)
        return false;
    *at = p;
    *room = more;
    return true;
}

// ---- products -----------------------------------------------------------------------------------

enum err op_stream_create(struct ops_device *dev, struct op_stream **out)
{
    struct op_stream *s = calloc(1, sizeof *s);
    *out = s;
    if (!s)
        return ERR_NO_MEMORY;
    s->dev = dev;
    return ERR_OK;
}

void op_stream_destroy(struct op_stream **sp)
{
    struct op_stream *s = *sp;
    if (!s)
        return;
    for (int i = 0; i < 2; i++)
        vk_buffer_destroy(&s->place[i]);
    free(s->product);
    free(s);
    *sp = NULL;
}

static size_t bias_at(const struct op_weight *w)
{
    return vk_buffer_span(w->stream->dev->vk, tensor_buffer_bytes(&w->packed));
}

enum err stream_add(struct op_stream *s, struct op_weight *w)
{
    if (!grow(&s->product, &s->room, s->products, sizeof(struct op_weight *)))
        return ERR_NO_MEMORY;
    w->stream = s;
    w->bytes = bias_at(w) + vk_buffer_span(s->dev->vk, tensor_buffer_bytes(&w->bias));
    s->product[s->products++] = w;
    return ERR_OK;
}

void stream_remove(struct op_stream *s, struct op_weight *w)
{
    for (int i = s->products - 1; i >= 0; i--)
        if (s->product[i] == w) {
            s->product[i] = s->product[--s->products];
            return;
        }
}

// Keeps products, in their order, while they fit. Returns the bytes that are left.
static size_t keep(const struct op_stream *s, bool seldom, size_t left)
{
    for (int i = 0; i < s->products; i++) {
        struct op_weight *w = s->product[i];
        if (w->seldom != seldom || w->bytes > left)
            continue;
        w->kept = true;
        left -= w->bytes;
    }
    return left;
}

// Decides what is kept; returns the bytes of each of the two places.
static size_t choose(const struct op_stream *s, size_t room)
{
    size_t all = 0, largest = 0, place = 0;
    for (int i = 0; i < s->products; i++) {
        all += s->product[i]->bytes;
        largest = s->product[i]->bytes > largest ? s->product[i]->bytes : largest;
    }
    largest = vk_buffer_span(s->dev->vk, largest);
    s->dev->products = all;
    s->dev->largest = largest;
    const size_t left = all <= room ? all : room > 2 * largest ? room - 2 * largest : 0;
    keep(s, true, keep(s, false, left));
    for (int i = 0; i < s->products; i++)
        if (!s->product[i]->kept && s->product[i]->bytes > place)
            place = s->product[i]->bytes;
    return place;
}

static enum err fill(const struct op_stream *s)
{
    enum err e = s->fill(s->ctx);
    for (int i = 0; i < s->products; i++) {
        if (!e && s->product[i]->wanted)
            e = ERR_INTERNAL;
        s->product[i]->wanted = false;
    }
    return e;
}

static enum err create_places(struct op_stream *s, size_t bytes)
{
    enum err e = vk_buffer_create(s->dev->vk, VK_DEVICE, bytes, &s->place[0]);
    if (e)
        return e;
    s->copies = !vk_buffer_map(s->place[0]);
    return vk_buffer_create(s->dev->vk, s->copies ? VK_UPLOAD : VK_DEVICE, bytes, &s->place[1]);
}

enum err op_stream_place(struct op_stream *s, const struct op_stream_params *p)
{
    s->fill = p->fill;
    s->ctx = p->ctx;
    const size_t place = choose(s, p->room);
    const size_t least = place ? 2 * vk_buffer_span(s->dev->vk, place) : 0;
    if (least > p->room)
        return vk_fail(s->dev->vk, ERR_NO_DEVICE_MEMORY,
                       "two of the largest matrices take %zu bytes, more than the %zu that the "
                       "limit leaves",
                       least, p->room);
    enum err e = place ? create_places(s, place) : ERR_OK;
    for (int i = 0; !e && i < s->products; i++) {
        struct op_weight *w = s->product[i];
        if (w->kept)
            e = op_weight_allocate(s->dev, w);
        w->wanted = w->kept;
    }
    return e || s->dev->real ? e : fill(s);
}

// ---- parts of a recording -----------------------------------------------------------------------

struct item {
    struct op_weight *w;
    size_t at; // in the place
};

struct part {
    int first; // dispatch
    int place; // that it reads from
    size_t bytes;
    struct item *item; // none in the part before the first streamed product
    int items, room;
    struct vk_cmd *copy, *cmd;
    uint64_t copied, done; // tickets
};

struct stream_parts {
    struct op_stream *s;
    struct part *part;
    int parts, room;
};

static struct part *add_part(struct stream_parts *p, int first)
{
    if (!grow(&p->part, &p->room, p->parts, sizeof *p->part))
        return NULL;
    const int place = p->parts && !p->s->copies ? !p->part[p->parts - 1].place : 0;
    p->part[p->parts] = (struct part){.first = first, .place = place};
    return &p->part[p->parts++];
}

static struct item *find_item(const struct part *part, const struct op_weight *w)
{
    for (int i = 0; i < part->items; i++)
        if (part->item[i].w == w)
            return &part->item[i];
    return NULL;
}

static struct stream_parts *begin_parts(struct op_stream *s, int at)
{
    struct stream_parts *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    p->s = s;
    if (!add_part(p, 0) || (at && !add_part(p, at)))
        stream_parts_destroy(&p);
    return p;
}

static struct op_weight *product_of(const struct op_stream *s, const struct op_weight *w)
{
    for (int i = 0; i < s->products; i++)
        if (s->product[i] == w)
            return s->product[i];
    return NULL;
}

enum err stream_use(struct stream_parts **parts, const struct op_weight *w, int at,
                    struct tensor *packed, struct tensor *bias)
{
    struct op_stream *s = w->stream;
    struct stream_parts *p = *parts = *parts ? *parts : begin_parts(s, at);
    if (!p || p->s != s)
        return p ? ERR_INVALID : ERR_NO_MEMORY;
    struct part *part = &p->part[p->parts - 1];
    struct item *item = find_item(part, w);
    if (!item && part->bytes + w->bytes > vk_buffer_bytes(s->place[0]))
        part = add_part(p, at);
    if (!part || (!item && !grow(&part->item, &part->room, part->items, sizeof *part->item)))
        return ERR_NO_MEMORY;
    if (!item) {
        item = &part->item[part->items++];
        *item = (struct item){product_of(s, w), part->bytes};
        part->bytes += w->bytes;
    }
    packed->buf = bias->buf = s->place[part->place];
    packed->offset = item->at / tensor_dtype_bytes(packed->dtype);
    bias->offset = (item->at + bias_at(w)) / tensor_dtype_bytes(bias->dtype);
    return ERR_OK;
}

void stream_parts_destroy(struct stream_parts **pp)
{
    struct stream_parts *p = *pp;
    if (!p)
        return;
    for (int i = 0; i < p->parts; i++) {
        vk_cmd_destroy(&p->part[i].copy);
        vk_cmd_destroy(&p->part[i].cmd);
        free(p->part[i].item);
    }
    free(p->part);
    free(p);
    *pp = NULL;
}

int stream_parts_count(const struct stream_parts *p)
{
    return p->parts;
}

int stream_part_first(const struct stream_parts *p, int part)
{
    return p->part[part].first;
}

struct vk_cmd **stream_part_cmd(struct stream_parts *p, int part)
{
    return &p->part[part].cmd;
}

// ---- running ------------------------------------------------------------------------------------

static enum err record_copy(const struct op_stream *s, struct part *part)
{
    enum err e = vk_cmd_create(s->dev->vk, &part->copy);
    if (e)
        return e;
    vk_cmd_copy(part->copy, s->place[1], 0, s->place[0], 0, part->bytes);
    return vk_cmd_end(part->copy);
}

static enum err submit(const struct op_stream *s, struct part *part)
{
    enum err e = ERR_OK;
    if (s->copies && part->items && !part->copy)
        e = record_copy(s, part);
    if (!e && part->copy)
        e = vk_submit(part->copy, &part->copied);
    return e ? e : vk_submit(part->cmd, &part->done);
}

// Waits until nothing reads the memory that the products of a part are read into: all parts before
// it but the last have run, or their copies, the last one's too.
static enum err wait_for_place(const struct stream_parts *p, int next, double seconds)
{
    const struct op_stream *s = p->s;
    if (s->copies)
        return p->part[next - 1].copy ? vk_wait(s->dev->vk, p->part[next - 1].copied, seconds)
                                      : ERR_OK;
    return next > 1 ? vk_wait(s->dev->vk, p->part[next - 2].done, seconds) : ERR_OK;
}

static enum err read_products(const struct stream_parts *p, int index)
{
    const struct part *part = &p->part[index];
    struct vk_buffer *to = p->s->place[p->s->copies ? 1 : part->place];
    const double began = clock_seconds();
    if (!part->items)
        return ERR_OK;
    for (int i = 0; i < part->items; i++) {
        struct op_weight *w = part->item[i].w;
        const size_t at = part->item[i].at;
        w->packed.buf = w->bias.buf = to;
        w->packed.offset = at / tensor_dtype_bytes(w->packed.dtype);
        w->bias.offset = (at + bias_at(w)) / tensor_dtype_bytes(w->bias.dtype);
        w->wanted = true;
    }
    const enum err e = fill(p->s);
    trace_span("upload", began, TRACE_OWN, "part %d of %d, %.1f MB", index + 1, p->parts,
               (double)part->bytes / 1e6);
    return e;
}

enum err stream_run(struct stream_parts *p, double seconds)
{
    struct vk_device *vk = p->s->dev->vk;
    uint64_t last = 0;
    enum err e = read_products(p, 0);
    for (int i = 0; !e && i < p->parts; i++) {
        if ((e = submit(p->s, &p->part[i])))
            break;
        last = p->part[i].done;
        if (i + 1 == p->parts)
            break;
        e = wait_for_place(p, i + 1, seconds);
        if (!e)
            e = read_products(p, i + 1);
    }
    // Submitted work uses memory that the caller may free.
    const enum err end = last ? vk_wait(vk, last, seconds) : ERR_OK;
    return e ? e : end;
}
