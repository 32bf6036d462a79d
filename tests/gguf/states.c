// The text states of prompts with a model's own encoder and with a GGUF file in its place:
// `states MODEL FILE PROMPT...` writes the size of the states, the largest and the mean difference
// and the bytes of the file's encoder on the device. Called by formats.py and test_gguf.py.
#include "cascade.h"
#include "ops.h"
#include "text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct encoder {
    struct cascade cascade;
    struct text *text;
    size_t bytes;
};

static enum err open_encoder(struct ops_device *dev, const char *model, const char *file,
                             struct encoder *out, struct fault *why)
{
    char dir[CASCADE_PATH + 8];
    struct ops_memory before, after;
    enum err e = cascade_read(&(struct cascade_files){.model = model, .text_encoder = file},
                              &out->cascade, why);

    if (e)
        return e;
    struct weights_params w = cascade_weights(&out->cascade, CASCADE_TEXT, 0, dir);
    w.stored = true;
    ops_device_memory(dev, &before);
    e = text_open(&(struct text_params){.dev = dev,
                                        .tokenizer_dir = out->cascade.text[0].tokenizer_dir,
                                        .weights = &w,
                                        .config = &out->cascade.text[0].config,
                                        .dtype = ops_device_info(dev)->dtype,
                                        .cached = 2},
                  &out->text, why);
    ops_device_memory(dev, &after);
    out->bytes = after.used - before.used;
    return e;
}

static enum err compare(struct encoder e[2], char **prompts, struct fault *why)
{
    double most = 0, sum = 0, square = 0, count = 0;

    for (; *prompts; prompts++) {
        struct text_states a, b;
        enum err err = text_encode(e[0].text, *prompts, &a, why);
        if (!err)
            err = text_encode(e[1].text, *prompts, &b, why);
        if (err)
            return err;
        if (a.tokens != b.tokens)
            return fault_set(why, ERR_INTERNAL, NULL, "the tokens differ");
        const size_t n = (size_t)a.tokens * (size_t)text_dim(e[0].text);
        for (size_t i = 0; i < n; i++) {
            const double d = fabs((double)a.v[i] - (double)b.v[i]);
            most = d > most ? d : most;
            sum += d;
            square += (double)a.v[i] * (double)a.v[i];
        }
        count += (double)n;
    }
    printf("%.4g %.4g %.4g %zu\n", sqrt(square / count), most, sum / count, e[1].bytes);
    return ERR_OK;
}

int main(int argc, char **argv)
{
    static struct encoder e[2];
    struct ops_device *dev = NULL;
    struct fault why = {0};
    enum err err;

    if (argc < 4)
        return 2;
    err = ops_device_open(&(struct ops_open_params){0}, &dev, &why);
    if (err == ERR_NO_DEVICE)
        return 77;
    if (!err)
        err = open_encoder(dev, argv[1], NULL, &e[0], &why);
    if (!err)
        err = open_encoder(dev, argv[1], argv[2], &e[1], &why);
    if (!err)
        err = compare(e, argv + 3, &why);
    if (err)
        fprintf(stderr, "%s\n", why.msg);
    text_close(&e[0].text);
    text_close(&e[1].text);
    ops_device_close(&dev);
    return err ? 1 : 0;
}
