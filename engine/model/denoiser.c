// Calls the class of a denoiser, see denoiser.h. Called when an engine opens and while a stage
// records. Knows nothing about samplers.
#include "denoiser.h"

#include "classes.h"

#include <stdlib.h>
#include <string.h>

struct denoiser {
    struct denoiser_config config;
    void *network;
};

struct denoiser_text {
    const struct denoiser_class *cls;
    void *text;
};

enum err denoiser_read(const char *cls, const char *path, struct denoiser_config *out,
                       struct fault *why)
{
    memset(out, 0, sizeof *out);
    out->cls = class_find(CLASS_DENOISER, cls);
    if (!out->cls)
        return class_unknown(CLASS_DENOISER, cls, why);
    return out->cls->read(path, out, why);
}

void denoiser_describe(const struct denoiser_config *c, char *out, size_t n)
{
    c->cls->describe(c, out, n);
}

enum err denoiser_load(struct ops_device *dev, const struct denoiser_config *c, struct weights *w,
                       enum dtype dtype, struct denoiser **out, struct fault *why)
{
    struct denoiser *d = calloc(1, sizeof *d);
    enum err e;

    *out = NULL;
    if (!d)
        return fault_set(why, ERR_NO_MEMORY, NULL, "no memory for the denoiser");
    d->config = *c;
    e = c->cls->load(dev, c, w, dtype, &d->network, why);
    if (e)
        denoiser_destroy(&d);
    *out = d;
    return e;
}

void denoiser_destroy(struct denoiser **d)
{
    if (!*d)
        return;
    (*d)->config.cls->destroy((*d)->network);
    free(*d);
    *d = NULL;
}

const struct denoiser_config *denoiser_get_config(const struct denoiser *d)
{
    return &d->config;
}

uint64_t denoiser_parameters(const struct denoiser *d)
{
    return d->config.cls->parameters(d->network);
}

enum err denoiser_text_create(const struct denoiser *d, uint32_t entries, uint32_t length,
                              struct denoiser_text **out)
{
    struct denoiser_text *t = calloc(1, sizeof *t);
    enum err e =
        t ? d->config.cls->text_create(d->network, entries, length, &t->text) : ERR_NO_MEMORY;

    if (e)
        free(t);
    else
        t->cls = d->config.cls;
    *out = e ? NULL : t;
    return e;
}

void denoiser_text_destroy(struct denoiser_text **t)
{
    if (!*t)
        return;
    (*t)->cls->text_destroy((*t)->text);
    free(*t);
    *t = NULL;
}

void denoiser_record_text(const struct denoiser *d, struct ops *o, const struct tensor *states,
                          struct denoiser_text *text, uint32_t first)
{
    d->config.cls->record_text(d->network, o, states, text->text, first);
}

struct tensor denoiser_record(const struct denoiser *d, struct ops *o,
                              const struct denoiser_inputs *in)
{
    return d->config.cls->record(d->network, o, in, in->text->text);
}
