// Checks a request against the model. Called when a request arrives and when it is admitted, on any
// thread. Knows nothing about devices.
#include "request.h"

#include "loras.h"
#include "utf8.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX_GUIDANCE = 100 };

static enum err check_prompt(const char *text, const char *param, struct fault *why)
{
    size_t length;

    if (!text)
        return fault_set(why, ERR_INVALID, param, "%s is missing", param);
    length = strnlen(text, PICTURE_MAX_PROMPT + 1);
    if (length > PICTURE_MAX_PROMPT)
        return fault_set(why, ERR_INVALID, param, "%s is longer than %d bytes", param,
                         PICTURE_MAX_PROMPT);
    if (!utf8_valid(text, length, NULL))
        return fault_set(why, ERR_INVALID, param, "%s is not valid UTF-8", param);
    return ERR_OK;
}

static enum err resolve_stage(const struct cascade_settings *c, const struct picture_request *r,
                              int i, struct picture_used *out, struct fault *why)
{
    const int steps = r->steps[i];
    const float guidance = r->guidance_scale[i];

    if (steps < 0 || steps > PICTURE_MAX_STEPS)
        return fault_set(why, ERR_INVALID, "steps", "steps must be 1 to %d, not %d",
                         PICTURE_MAX_STEPS, steps);
    // NaN fails every comparison.
    if (guidance != 0 && !(guidance >= 1 && guidance <= MAX_GUIDANCE))
        return fault_set(why, ERR_INVALID, "guidance_scale",
                         "guidance_scale must be 1 to %d, not %g", MAX_GUIDANCE, (double)guidance);
    out->steps[i] = steps ? steps : c->steps;
    out->guidance_scale[i] = guidance != 0 ? guidance : c->guidance_scale;
    // The scheduler's schedule says later which levels there are.
    out->noise_level[i] =
        r->set_noise_level && r->noise_level[i] != -1 ? r->noise_level[i] : c->noise_level;
    return ERR_OK;
}

static enum err resolve_loras(const struct cascade *c, const struct picture_request *r,
                              struct resolved *out, struct fault *why)
{
    struct picture_loras chosen;
    const enum err e = picture_choose_loras(c->lora, c->loras, &r->loras, &chosen, why);

    for (int i = 0; !e && i < c->stages; i++)
        loras_of_stage(c, &chosen, i, &out->loras[i]);
    if (!e)
        picture_list_loras(c->lora, &chosen, &out->used);
    return e;
}

enum err request_resolve(const struct cascade *c, const struct picture_request *r,
                         struct resolved *out, struct fault *why)
{
    enum err e = check_prompt(r->prompt, "prompt", why);
    int preset = 0;

    memset(out, 0, sizeof *out);
    if (!e && r->negative_prompt)
        e = check_prompt(r->negative_prompt, "negative_prompt", why);
    if (!e)
        e = request_resolve_edit(c, r, &out->used, why);
    if (!e)
        e = picture_check_stages(r, out->used.stages, why);
    if (!e)
        e = cascade_preset_find(c, r->preset, &preset, why);
    out->preset = &c->preset[preset];
    for (int i = 0; i < out->used.first; i++)
        out->used.noise_level[i] = -1;
    for (int i = out->used.first; !e && i < out->used.stages; i++)
        e = resolve_stage(&out->preset->stage[i], r, i, &out->used, why);
    if (!e)
        e = resolve_loras(c, r, out, why);
    if (e)
        return e;
    if (r->timesteps && r->steps[0])
        return fault_set(why, ERR_INVALID, "timesteps", "give either steps or timesteps, not both");
    snprintf(out->used.model, sizeof out->used.model, "%s", c->name);
    snprintf(out->used.preset, sizeof out->used.preset, "%s", out->preset->name);
    const struct picture_sizes sizes = request_sizes(c);
    for (int i = 0; i < out->used.stages; i++)
        out->size[i] = out->used.scale ? (struct check_size){c->size[i], c->size[i]}
                                       : picture_stage_size(&sizes, &out->used, i);
    request_describe_modules(c, out->preset, &out->used);
    if (c->vocabulary && !r->scale)
        vocabulary_miss(c->vocabulary, r->prompt, out->used.nearest);
    out->seed = r->seed;
    out->picture = r->picture;
    return ERR_OK;
}

bool request_is_square(const struct cascade *c, const struct resolved *what, int stage)
{
    return what->size[stage].width == c->size[stage] && what->size[stage].height == c->size[stage];
}

enum err request_samplers(const struct cascade *c, const struct picture_request *r,
                          struct resolved *what, struct sampler **sampler, struct fault *why)
{
    for (int i = what->used.first; i < what->used.stages; i++) {
        const struct cascade_settings *s = &what->preset->stage[i];
        const struct cascade_network *n = &c->network[s->network];
        const struct scheduler_config scheduler = loras_scheduler(n, &what->loras[i]);
        const char *recommended = s->sampler[0] ? s->sampler : NULL;
        const char *other = i == 0 ? r->sampler : NULL, *preset = i == 0 ? r->timesteps : NULL;
        const bool own = !other || !strcmp(other, cascade_sampler_name(c, s));
        // An equal step count selects the recommended list, so that PNG metadata reproduces the
        // image.
        const bool listed = own && !preset && what->used.steps[i] == s->timestep_count;
        enum err e = sampler_create(
            &(struct sampler_params){
                .config = &scheduler,
                .name = other ? other : recommended,
                .steps = what->used.steps[i],
                .preset = preset,
                .timesteps = listed ? s->timesteps : NULL,
                .timestep_count = listed ? s->timestep_count : 0,
                .strength = request_decimal(what->used.strength[i]),
            },
            &sampler[i], why);
        if (e)
            return e;
        if (sampler[i]->needs_variance && !n->variance)
            return fault_set(why, ERR_UNSUPPORTED, "sampler",
                             "the scheduler of stage %d (%s) requires a learned variance, which "
                             "its U-Net does not predict",
                             i + 1, n->name);
        what->used.run[i] = sampler[i]->steps;
        what->used.steps[i] = sampler[i]->steps + sampler[i]->skipped;
        if (i > 0)
            e = cascade_check_level(n, what->used.noise_level[i], why);
        if (e)
            return e;
    }
    if (what->used.scale)
        request_count_tiles(c, r, &what->used);
    // The sampler of the first stage; an image that is enlarged has none.
    if (!what->used.first)
        snprintf(what->used.sampler, sizeof what->used.sampler, "%s", sampler[0]->name);
    return ERR_OK;
}

enum err request_check(const struct cascade *c, const struct picture_request *r,
                       struct resolved *what, struct fault *why)
{
    struct sampler *sampler[PICTURE_MAX_STAGES] = {0};
    enum err e = request_resolve(c, r, what, why);

    if (!e)
        e = request_samplers(c, r, what, sampler, why);
    for (int i = 0; i < PICTURE_MAX_STAGES; i++)
        sampler_destroy(&sampler[i]);
    return e;
}
