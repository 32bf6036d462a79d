// Fills model_info. Called by engine.c when it opens.
#include "request.h"

#include <stdio.h>
#include <string.h>

_Static_assert((int)PICTURE_MAX_LORAS == (int)WEIGHTS_MAX_LORAS, "each has its place");

static void describe_preset(const struct cascade *c, const struct cascade_preset *from,
                            struct model_preset *to)
{
    const struct cascade_settings *base = &from->stage[0];

    snprintf(to->name, sizeof to->name, "%s", from->name);
    snprintf(to->sampler, sizeof to->sampler, "%s", cascade_sampler_name(c, base));
    for (int i = 0; i < c->stages; i++) {
        to->steps[i] = from->stage[i].steps;
        to->guidance_scale[i] = from->stage[i].guidance_scale;
    }
}

static void describe_stage(const struct cascade *c, int i, struct model_stage *to)
{
    const struct cascade_settings *from = &c->preset[0].stage[i];

    snprintf(to->name, sizeof to->name, "%s", c->network[i].name);
    snprintf(to->sampler, sizeof to->sampler, "%s", cascade_sampler_name(c, from));
    to->size = c->size[i];
    to->steps = from->steps;
    to->guidance_scale = from->guidance_scale;
    to->noise_level = from->noise_level;
    to->safety_checker = c->network[i].safety_checker;
    to->watermarker = c->network[i].watermarker;
}

struct picture_sizes request_sizes(const struct cascade *c)
{
    struct picture_sizes s = {.stages = c->stages, .step = c->shape_step};

    for (int i = 0; i < c->stages; i++)
        s.edge[i] = c->size[i];
    return s;
}

// Appends an item to a list; a list that is too long ends early.
static void add_item(char *list, size_t n, const char *item)
{
    const size_t length = strlen(list);

    snprintf(list + length, n - length, "%s%s", length ? ", " : "", item);
}

void request_describe_modules(const struct cascade *c, const struct cascade_preset *p,
                              struct picture_used *used)
{
    bool checker = false, marker = false;

    for (int i = used->first; i < used->stages; i++) {
        checker |= c->network[p->stage[i].network].safety_checker;
        marker |= c->network[p->stage[i].network].watermarker;
    }
    if (checker)
        add_item(used->modules, sizeof used->modules, "safety_checker not applied");
    if (marker)
        add_item(used->modules, sizeof used->modules, "watermarker not applied");
}

void request_describe(const struct cascade *c, struct model_info *to)
{
    snprintf(to->name, sizeof to->name, "%s", c->name);
    snprintf(to->notice, sizeof to->notice, "%s", c->notice);
    to->stages = c->stages;
    to->samplers = sampler_names();
    to->timesteps = sampler_preset_names();
    request_scales(c, to->scale);
    to->sizes = request_sizes(c);
    for (int i = 0; i < c->stages; i++)
        describe_stage(c, i, &to->stage[i]);
    to->loras = c->loras;
    memcpy(to->lora, c->lora, sizeof to->lora);
    to->vocabulary = c->vocabulary;
    to->presets = c->presets - 1;
    for (int i = 0; i < to->presets; i++)
        describe_preset(c, &c->preset[i + 1], &to->preset[i]);
}
