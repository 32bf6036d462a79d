// Calls the class of a decoder, see decoder.h, with the parts of loading that all have in common.
// Called when an engine opens and while a stage records. Knows nothing about bands.
#include "decoder.h"

#include "classes.h"

#include <stdlib.h>
#include <string.h>

enum err decoder_read(const char *cls, const char *path, struct decoder_config *out,
                      struct fault *why)
{
    memset(out, 0, sizeof *out);
    out->cls = class_find(CLASS_DECODER, cls);
    if (!out->cls)
        return class_unknown(CLASS_DECODER, cls, why);
    return out->cls->read(path, out, why);
}

void decoder_describe(const struct decoder_config *c, char *out, size_t n)
{
    c->cls->describe(c, out, n);
}

static enum err load_layers(void *network, struct loader *l, struct fault *why)
{
    struct decoder *d = network;

    return d->cls->load(d, l, why);
}

enum err decoder_load(struct ops_device *dev, const struct decoder_config *c, struct weights *w,
                      enum dtype dtype, struct decoder **out, struct fault *why)
{
    struct decoder *d = calloc(1, c->cls->bytes);
    enum err e;

    *out = NULL;
    if (!d)
        return fault_set(why, ERR_NO_MEMORY, NULL, "no memory for the decoder");
    d->cls = c->cls;
    d->config = *c;
    e = load_checkpoint(
        &(struct load_params){
            .dev = dev, .w = w, .dtype = dtype, .what = "VAE", .load = load_layers, .network = d},
        &d->parameters, NULL, why);
    if (e)
        decoder_destroy(&d);
    *out = d;
    return e;
}

void decoder_destroy(struct decoder **d)
{
    if (!*d)
        return;
    (*d)->cls->deinit(*d);
    free(*d);
    *d = NULL;
}

struct tensor decoder_record(const struct decoder *d, struct ops *o, const struct tensor *z,
                             const struct tap *tap)
{
    struct tensor x = d->cls->head(d, o, z, tap), before = x;

    for (int i = 0; i < d->cls->segments(d); i++) {
        const bool adds = d->cls->segment(d, i).added;
        const struct tensor y = d->cls->record_segment(
            d, o, i, &(struct decoder_input){.x = &x, .added = adds ? &before : NULL}, tap);
        before = x;
        x = y;
    }
    return x;
}

struct tensor decoder_record_head(const struct decoder *d, struct ops *o, const struct tensor *z)
{
    return d->cls->head(d, o, z, NULL);
}

struct tensor decoder_record_segment(const struct decoder *d, struct ops *o, int index,
                                     const struct decoder_input *in)
{
    return d->cls->record_segment(d, o, index, in, NULL);
}

int decoder_segments(const struct decoder *d)
{
    return d->cls->segments(d);
}

struct decoder_segment decoder_segment(const struct decoder *d, int index)
{
    return d->cls->segment(d, index);
}
