// See loras.h. Source of the variance: diffusers' training scripts for DeepFloyd IF train the
// predicted noise alone, so their documentation samples with variance_type "fixed_small".
#include "loras.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_SCALE = 100 };

// The file's name without its ending, or its folder's if it has the name that diffusers gives to
// all of them; other characters than letters, digits, '.', '-' and '_' become '_'.
static void name_of(const char *path, char *out, size_t n)
{
    static const char usual[] = "pytorch_lora_weights.safetensors", end[] = ".safetensors";
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_";
    const char *slash = strrchr(path, '/'), *at = slash ? slash + 1 : path;
    size_t length = strlen(at);

    if (slash && slash > path && !strcmp(at, usual)) {
        length = (size_t)(slash - path);
        for (at = slash; at > path && at[-1] != '/'; at--)
            ;
        length -= (size_t)(at - path);
    } else if (length > strlen(end) && !strcmp(at + length - strlen(end), end)) {
        length -= strlen(end);
    }
    snprintf(out, n, "%.*s", (int)length, at);
    for (char *c = out; *c; c++)
        if (!strchr(plain, *c))
            *c = '_';
}

// One entry of the list. A path may contain ':' where no number follows.
static enum err read_entry(struct cascade *c, char *entry, struct fault *why)
{
    struct cascade_lora *l = &c->lora[c->loras];
    char *colon = strrchr(entry, ':'), *end = NULL;

    l->scale = 1;
    if (colon && colon[1]) {
        const double scale = strtod(colon + 1, &end);
        if (!*end) {
            *colon = 0;
            l->scale = scale;
        }
    }
    // NaN fails every comparison.
    if (!(fabs(l->scale) <= MAX_SCALE))
        return fault_set(why, ERR_INVALID, "lora", "the scale of lora %.200s must be -%d to %d",
                         entry, MAX_SCALE, MAX_SCALE);
    if (!*entry || strlen(entry) >= sizeof l->path)
        return fault_set(why, ERR_INVALID, "lora",
                         *entry ? "the path %.200s... is too long" : "lora has an empty path%s",
                         *entry ? entry : "");
    snprintf(l->path, sizeof l->path, "%s", entry);
    name_of(l->path, l->name, sizeof l->name);
    c->loras++;
    return ERR_OK;
}

static enum err read_list(struct cascade *c, const char *list, struct fault *why)
{
    char *copy = strdup(list), *rest = NULL;
    enum err e = copy ? ERR_OK : fault_set(why, ERR_NO_MEMORY, "lora", "no memory");

    for (char *entry = e ? NULL : strtok_r(copy, ",", &rest); entry && !e;
         entry = strtok_r(NULL, ",", &rest))
        e = c->loras == WEIGHTS_MAX_LORAS
                ? fault_set(why, ERR_INVALID, "lora", "lora names more than %d files",
                            WEIGHTS_MAX_LORAS)
                : read_entry(c, entry, why);
    free(copy);
    return e;
}

// Whether a network has all weights that the LoRA changes.
static enum err check_fit(const struct cascade *c, const struct cascade_lora *l, int network,
                          struct fault *why)
{
    const struct lora_params one = {l->path, l->scale};
    char dir[CASCADE_PATH + 8];
    struct weights_params p = cascade_weights(c, CASCADE_DENOISER, network, dir);
    struct weights *w = NULL;

    p.dry = true;
    p.lora = &one;
    p.loras = 1;
    const enum err e = weights_open(&p, &w, why);
    weights_close(&w);
    return e;
}

static enum err find_stage(const struct cascade *c, struct cascade_lora *l, struct fault *why)
{
    struct fault later;
    enum err e = check_fit(c, l, 0, why);

    // If it fits none, the error is that of the first stage.
    for (int i = 1; e == ERR_FORMAT && i < c->stages; i++)
        if (!check_fit(c, l, i, &later)) {
            l->stage = i;
            e = ERR_OK;
        }
    for (int i = c->stages; !e && i < c->networks; i++)
        if (c->network[i].stage == l->stage)
            e = check_fit(c, l, i, why);
    return e;
}

static void fix_variance(struct cascade *c, int stage)
{
    for (int i = 0; i < c->networks; i++) {
        struct scheduler_config *s = &c->network[i].scheduler;
        const bool learned =
            s->variance_type == VARIANCE_LEARNED || s->variance_type == VARIANCE_LEARNED_RANGE;
        if (c->network[i].stage == stage && SCHEDULER_CONFIG_HAS(s, variance_type) && learned)
            s->variance_type = VARIANCE_FIXED_SMALL;
    }
}

enum err loras_read(struct cascade *c, const char *list, struct fault *why)
{
    enum err e = read_list(c, list, why);

    for (int i = 0; !e && i < c->loras; i++)
        e = find_stage(c, &c->lora[i], why);
    for (int i = 0; !e && i < c->loras; i++) {
        struct cascade_lora *l = &c->lora[i];
        c->stage_lora[l->stage][c->stage_loras[l->stage]++] =
            (struct lora_params){l->path, l->scale};
        fix_variance(c, l->stage);
    }
    return e;
}
