// Fills model_info. Called by engine.c when it opens.
#include "request.h"

#include <stdio.h>

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
}

struct picture_sizes request_sizes(const struct cascade *c)
{
    struct picture_sizes s = {.stages = c->stages, .step = c->shape_step};

    for (int i = 0; i < c->stages; i++)
        s.edge[i] = c->size[i];
    return s;
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
    to->presets = c->presets - 1;
    for (int i = 0; i < to->presets; i++)
        describe_preset(c, &c->preset[i + 1], &to->preset[i]);
}
