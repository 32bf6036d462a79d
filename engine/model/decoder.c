// Calls the class of a decoder, see decoder.h, with the parts of loading that all have in common.
// Called when an engine opens and while a stage records. Knows nothing about tiles.
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
    return d->cls->tail(d, o, d->cls->head(d, o, z, tap), NULL, tap);
}

struct tensor decoder_record_head(const struct decoder *d, struct ops *o, const struct tensor *z)
{
    return d->cls->head(d, o, z, NULL);
}

struct tensor decoder_record_tail(const struct decoder *d, struct ops *o,
                                  const struct tensor *features, const struct decoder_bands *b)
{
    return d->cls->tail(d, o, *features, b, NULL);
}

uint32_t decoder_halo(const struct decoder *d)
{
    return d->cls->halo(d);
}

uint32_t decoder_features(const struct decoder *d)
{
    return d->cls->features(d);
}

int decoder_norms(const struct decoder *d)
{
    return d->cls->norms(d);
}

struct decoder_norm decoder_norm(const struct decoder *d, int index)
{
    return d->cls->norm(d, index);
}
