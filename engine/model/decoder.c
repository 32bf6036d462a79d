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

enum err decoder_load(struct ops_device *dev, const struct decoder_config *c, struct weights *w,
                      enum dtype dtype, struct decoder **out, struct fault *why)
{
    struct loader l = load_begin(dev, w, dtype);
    struct decoder *d = calloc(1, c->cls->bytes);
    enum err e;

    *out = NULL;
    if (!d)
        return fault_set(why, ERR_NO_MEMORY, NULL, "no memory for the decoder");
    d->cls = c->cls;
    d->config = *c;
    e = c->cls->load(d, &l, why);
    if (!e)
        e = load_finish(&l, "VAE", &d->parameters, why);
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
    return d->cls->record(d, o, z, tap);
}
