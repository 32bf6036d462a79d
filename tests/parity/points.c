// Activations at named points: a tap that keeps those with a reference in the fixture, and their
// comparison after the recording has run. Called by the checks of T5 and of the U-Net.
#include "golden.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_POINTS = 2048 };

struct points {
    struct bundle *b;
    int count;
    struct {
        char name[128];
        struct tensor t;
    } at[MAX_POINTS];
};

struct points *points_create(struct bundle *b)
{
    struct points *p = calloc(1, sizeof *p);

    if (p)
        p->b = b;
    return p;
}

void points_keep(void *ctx, struct ops *o, const char *name, const struct tensor *t)
{
    struct points *p = ctx;
    char full[128];

    snprintf(full, sizeof full, "act.%s", name);
    if (p->count == MAX_POINTS || !bundle_find(p->b, "%s", full))
        return;
    if (tensor_create_mapped(p->b->g->dev, DT_F32, t->n, t->h, t->w, t->c, &p->at[p->count].t)) {
        ops_fail(o, ERR_NO_DEVICE_MEMORY);
        return;
    }
    snprintf(p->at[p->count].name, sizeof p->at[0].name, "%s", full);
    op_copy(o, t, &p->at[p->count++].t);
}

// T5's bias table is stored for three queries only: the first, the middle and the last.
static void compare_bias(struct bundle *b, const char *name, const struct tensor *t,
                         const float *got)
{
    const size_t row = (size_t)t->w * t->c, queries[3] = {0, t->h / 2, t->h - 1};
    float *part = malloc(3 * row * sizeof *part);

    for (int i = 0; part && i < 3; i++)
        memcpy(part + (size_t)i * row, got + queries[i] * row, row * sizeof *part);
    if (part)
        bundle_compare(b, name, part);
    free(part);
}

// Images and GroupNorm outputs are channels first in the fixtures, tokens are not; a fixture may
// hold only the first prompts.
static void compare_point(struct bundle *b, const char *name, const struct tensor *t)
{
    const struct safetensor *want = bundle_find(b, "%s", name);
    const char *last = strrchr(name, '.');
    const bool norm = !strcmp(last, ".group_norm") || !strcmp(last, ".norm_cross");
    float *got = malloc(sizeof(float) * tensor_pixels(t) * t->c);
    enum err e = !got                      ? ERR_NO_MEMORY
                 : norm || want->dims == 4 ? tensor_download_nchw(t, got)
                                           : tensor_download(t, got);

    if (e)
        golden_fail(b->g, b->name, name, "%s", err_text(e));
    else if (want->dims == 4)
        bundle_compare_images(b, name, got, (struct shape4){t->n, t->c, t->h, t->w});
    else if (!strcmp(last, ".relative_attention_bias"))
        compare_bias(b, name, t, got);
    else if (want->elements <= (uint64_t)tensor_pixels(t) * t->c)
        bundle_compare(b, name, got);
    else
        golden_fail(b->g, b->name, name, "has another shape");
    free(got);
}

void points_compare(struct points *p)
{
    for (int i = 0; i < p->count; i++)
        compare_point(p->b, p->at[i].name, &p->at[i].t);
}

void points_destroy(struct points **p)
{
    for (int i = 0; *p && i < (*p)->count; i++)
        tensor_destroy(&(*p)->at[i].t);
    free(*p);
    *p = NULL;
}
