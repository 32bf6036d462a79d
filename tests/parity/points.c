// Activations at named points: a tap that keeps those with a reference in the fixture, and their
// comparison after the recording has run. Called by the checks of the networks.
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

// ---- values that only a fused dispatch has
// -------------------------------------------------------

// The program never stores these values of the reference: one dispatch computes them and what
// follows. The first stored value that they are part of is compared in their place.
static const struct fusion {
    const char *end, *stored; // endings of the two names
} fusions[] = {
    {".norm1", ".nonlinearity"},
    {".norm2", ""}, // of the residual block: conv2 reads it, and is added to the shortcut
    {".conv2", ""},
    {".to_out.0", ""}, // of the attention: added to its input
    {"time_embedding", "emb"},
    {"class_embedding", "emb"},
    {".SelfAttention.o", ""}, // of layer.0 and layer.1: added to their input
    {".DenseReluDense.wi_0", ""},
    {".DenseReluDense.act", ""},
    {".DenseReluDense.wo", ""},
    {".transformer_blocks.0.attn1.to_out.0", ""}, // of a transformer: added one after another
    {".transformer_blocks.0.attn1", ""},
    {".transformer_blocks.0.attn2", ""},
    {"act.conv_norm_out", "out"}, // with its activation
    {".self_attn", ""},           // of a layer of CLIP
    {".mlp", ""},
};

static bool was_compared(const struct points *p, const char *name)
{
    if (!strcmp(name, "out")) // of the network, which its check compares
        return true;
    for (int i = 0; i < p->count; i++) {
        if (!strcmp(p->at[i].name, name))
            return true;
    }
    return false;
}

// Whether the reference `name` is part of a point that was compared.
static bool is_fused(const struct points *p, const char *name)
{
    char stored[256];

    for (size_t i = 0; i < sizeof fusions / sizeof *fusions; i++) {
        const size_t n = strlen(name), m = strlen(fusions[i].end);
        if (n < m || strcmp(name + n - m, fusions[i].end))
            continue;
        snprintf(stored, sizeof stored, "%.*s%s", (int)(n - m), name, fusions[i].stored);
        if (was_compared(p, stored))
            return true;
    }
    return false;
}

void points_compare(struct points *p)
{
    struct bundle *b = p->b;

    for (int i = 0; i < p->count; i++)
        compare_point(b, p->at[i].name, &p->at[i].t);
    for (size_t i = 0; i < safetensors_count(b->file); i++) {
        const char *name = safetensors_at(b->file, i)->name;
        if (!b->seen[i] && is_fused(p, name)) {
            b->seen[i] = true;
            golden_fused(b->g, b->name, name);
        }
    }
}

void points_destroy(struct points **p)
{
    for (int i = 0; *p && i < (*p)->count; i++)
        tensor_destroy(&(*p)->at[i].t);
    free(*p);
    *p = NULL;
}
