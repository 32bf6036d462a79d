// See loras.h.
#include "loras.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

// One that is chosen by name needs a name of its own.
static enum err check_name(const struct cascade *c, const struct model_lora *l, struct fault *why)
{
    for (int i = 0; i < c->loras; i++)
        if (!strcmp(c->lora[i].name, l->name))
            return fault_set(why, ERR_INVALID, "lora-choices",
                             "two LoRAs have the name \"%s\", by which requests select one of "
                             "lora-choices; rename a file",
                             l->name);
    return ERR_OK;
}

// One entry of the list. A path may contain ':' where no number follows.
static enum err read_entry(struct cascade *c, char *entry, bool applied, struct fault *why)
{
    struct model_lora *l = &c->lora[c->loras];
    char *colon = strrchr(entry, ':'), *end = NULL, *path = c->lora_path[c->loras];

    l->scale = 1;
    if (colon && colon[1]) {
        const double scale = strtod(colon + 1, &end);
        if (!*end) {
            *colon = 0;
            l->scale = scale;
        }
    }
    // NaN fails every comparison.
    if (!(fabs(l->scale) <= PICTURE_MAX_LORA_SCALE))
        return fault_set(why, ERR_INVALID, "lora", "the scale of lora %.200s must be -%d to %d",
                         entry, PICTURE_MAX_LORA_SCALE, PICTURE_MAX_LORA_SCALE);
    if (!*entry || strlen(entry) >= CASCADE_PATH)
        return fault_set(why, ERR_INVALID, "lora",
                         *entry ? "the path %.200s... is too long" : "lora has an empty path%s",
                         *entry ? entry : "");
    snprintf(path, CASCADE_PATH, "%s", entry);
    name_of(path, l->name, sizeof l->name);
    l->applied = applied;
    const enum err e = applied ? ERR_OK : check_name(c, l, why);
    c->loras++;
    return e;
}

static enum err read_list(struct cascade *c, const char *list, bool applied, struct fault *why)
{
    const int first = c->loras, most = applied ? WEIGHTS_MAX_LORAS : PICTURE_KNOWN_LORAS - first;
    char *copy = strdup(list), *rest = NULL;
    enum err e = copy ? ERR_OK : fault_set(why, ERR_NO_MEMORY, "lora", "no memory");

    for (char *entry = e ? NULL : strtok_r(copy, ",", &rest); entry && !e;
         entry = strtok_r(NULL, ",", &rest))
        e = c->loras - first == most
                ? fault_set(why, ERR_INVALID, "lora", "%s names more than %d files",
                            applied ? "lora" : "lora-choices", most)
                : read_entry(c, entry, applied, why);
    free(copy);
    return e;
}

// Whether a network has all weights that the LoRA changes.
static enum err check_fit(const struct cascade *c, int lora, int network, struct fault *why)
{
    const struct lora_params one = {c->lora_path[lora], c->lora[lora].scale};
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

static enum err find_stage(struct cascade *c, int lora, struct fault *why)
{
    struct fault later;
    int *stage = &c->lora[lora].stage;
    enum err e = check_fit(c, lora, 0, why);

    // If it fits none, the error is that of the first stage.
    for (int i = 1; e == ERR_FORMAT && i < c->stages; i++)
        if (!check_fit(c, lora, i, &later)) {
            *stage = i;
            e = ERR_OK;
        }
    for (int i = c->stages; !e && i < c->networks; i++)
        if (c->network[i].stage == *stage)
            e = check_fit(c, lora, i, why);
    return e;
}

enum err loras_read(struct cascade *c, const char *list, bool applied, struct fault *why)
{
    const struct check_scales none = {.given = false};
    const int first = c->loras;
    struct picture_loras chosen;
    enum err e = read_list(c, list, applied, why);

    for (int i = first; !e && i < c->loras; i++)
        e = find_stage(c, i, why);
    if (!e)
        e = picture_choose_loras(c->lora, c->loras, &none, &chosen, why);
    for (int i = 0; !e && i < c->stages; i++)
        loras_of_stage(c, &chosen, i, &c->applied[i]);
    return e;
}

void loras_of_stage(const struct cascade *c, const struct picture_loras *chosen, int stage,
                    struct cascade_loras *out)
{
    out->count = 0;
    for (int i = 0; i < chosen->count; i++) {
        const int index = chosen->item[i].index;
        if (c->lora[index].stage == stage)
            out->lora[out->count++] =
                (struct lora_params){c->lora_path[index], chosen->item[i].scale};
    }
}

bool loras_are_same(const struct cascade_loras *a, const struct cascade_loras *b)
{
    bool same = a->count == b->count;

    // A path is the cascade's own text, of which there is one for each file.
    for (int i = 0; same && i < a->count; i++)
        same = a->lora[i].path == b->lora[i].path && a->lora[i].scale == b->lora[i].scale;
    return same;
}

struct scheduler_config loras_scheduler(const struct cascade_network *n,
                                        const struct cascade_loras *loras)
{
    struct scheduler_config s = n->scheduler;
    const bool learned =
        s.variance_type == VARIANCE_LEARNED || s.variance_type == VARIANCE_LEARNED_RANGE;

    if (loras->count && SCHEDULER_CONFIG_HAS(&s, variance_type) && learned)
        s.variance_type = VARIANCE_FIXED_SMALL;
    return s;
}
