// Calls the class of a text encoder, with the parts of loading that all have in common. Called when
// an engine opens and when a prompt is not in the text cache. Knows nothing about tokenizers.
#include "text_encoder.h"

#include "classes.h"
#include "gguf_t5.h"

#include <stdlib.h>
#include <string.h>

enum err text_encoder_read(const char *cls, const char *path, struct text_encoder_config *out,
                           struct fault *why)
{
    memset(out, 0, sizeof *out);
    out->cls = class_find(CLASS_TEXT_ENCODER, cls);
    if (!out->cls)
        return class_unknown(CLASS_TEXT_ENCODER, cls, why);
    return out->cls->read(path, out, why);
}

enum err text_encoder_read_gguf(const char *path, struct text_encoder_config *out,
                                struct fault *why)
{
    struct gguf *g = NULL;
    enum err e = gguf_open(path, &g, why);

    memset(out, 0, sizeof *out);
    out->cls = &t5_encoder;
    if (!e)
        e = gguf_t5_config(g, &out->t5, why);
    gguf_close(&g);
    out->width = out->t5.d_model;
    out->vocab = out->t5.vocab_size;
    return e;
}

void text_encoder_describe(const struct text_encoder_config *c, char *out, size_t n)
{
    c->cls->describe(c, out, n);
}

static enum err load_layers(void *network, struct loader *l, struct fault *why)
{
    struct text_encoder *t = network;

    return t->cls->load(t, &t->config, l, why);
}

enum err text_encoder_load(struct ops_device *dev, const struct text_encoder_config *c,
                           struct weights *w, enum dtype dtype, struct text_encoder **out,
                           struct fault *why)
{
    struct text_encoder *t = calloc(1, c->cls->bytes);
    enum err e;

    if (!t)
        return fault_set(why, ERR_NO_MEMORY, NULL, "no memory for the text encoder");
    t->cls = c->cls;
    t->width = c->width;
    t->config = *c;
    e = load_checkpoint(
        &(struct load_params){
            .dev = dev,
            .w = w,
            .dtype = dtype,
            .what = "text encoder",
            .load = load_layers,
            .network = t,
        },
        &t->parameters, &t->stream, why);
    if (e)
        text_encoder_destroy(&t);
    *out = t;
    return e;
}

void text_encoder_destroy(struct text_encoder **t)
{
    if (!*t)
        return;
    (*t)->cls->deinit(*t);
    load_stream_destroy(&(*t)->stream);
    free(*t);
    *t = NULL;
}

struct tensor text_encoder_record(const struct text_encoder *t, struct ops *o,
                                  const struct tensor *ids, const struct tensor *valid,
                                  const struct tap *tap)
{
    return t->cls->record(t, o, ids, valid, tap);
}
