// An image being generated and its inputs to the stages, see slot.h. Called by engine.c.
#include "slot.h"

#include "clock.h"
#include "picture_edit.h"

#include <stdlib.h>
#include <string.h>

enum { TILE_SHIFT = 18 }; // bit position of the tile's number in the image's number

void slot_free(struct slot *s)
{
    for (int i = 0; i < PICTURE_MAX_STAGES; i++) {
        sampler_destroy(&s->sampler[i]);
        free(s->original[i]);
    }
    enlarge_destroy(&s->enlarge);
    for (int i = 0; i < CASCADE_MAX_TEXTS; i++)
        free(s->text[i]);
    free(s->picture);
    memset(s, 0, sizeof *s);
}

// The counts of the encoder that cuts off most are reported.
static void count_tokens(const struct text_states *states, int *tokens, int *cut)
{
    if (*tokens && states->cut <= *cut)
        return;
    *tokens = states->tokens;
    *cut = states->cut;
}

static enum err encode(struct slot *s, struct text *text, const struct picture_request *r,
                       float **out, struct fault *why)
{
    const size_t floats = (size_t)text_length(text) * (size_t)text_dim(text);
    struct picture_used *used = &s->what.used;
    const char *prompts[2] = {r->prompt, r->negative_prompt ? r->negative_prompt : ""};

    *out = malloc(2 * floats * sizeof **out);
    if (!*out)
        return fault_set(why, ERR_NO_MEMORY, NULL, "no memory for the text");
    for (int i = 0; i < 2; i++) {
        struct text_states states;
        enum err e = text_encode(text, prompts[i], &states, why);
        if (e)
            return e;
        memcpy(*out + (size_t)i * floats, states.v, floats * sizeof *states.v);
        if (!i)
            count_tokens(&states, &used->tokens, &used->tokens_cut);
        else if (r->negative_prompt)
            count_tokens(&states, &used->negative_tokens, &used->negative_tokens_cut);
    }
    return ERR_OK;
}

enum err slot_encode(struct slot *s, const struct cascade *c, struct text *const *text,
                     const struct picture_request *r, struct fault *why)
{
    enum err e = ERR_OK;

    for (int i = s->what.used.first; !e && i < s->what.used.stages; i++) {
        const int index = c->network[s->what.preset->stage[i].network].text;
        if (!s->text[index])
            e = encode(s, text[index], r, &s->text[index], why);
    }
    return e;
}

enum err slot_enlarge(struct slot *s, const struct cascade *c, const uint8_t *rgb, int width,
                      int height)
{
    const int low = c->size[s->stage - 1], high = c->size[s->stage];
    struct enlarge *next;
    enum err e = enlarge_create(rgb, width, height, low, high, &next);

    if (e)
        return e;
    enlarge_destroy(&s->enlarge); // only now: it may own rgb
    s->enlarge = next;
    free(s->picture);
    s->picture = malloc(3 * (size_t)low * (size_t)low * sizeof *s->picture);
    return s->picture ? ERR_OK : ERR_NO_MEMORY;
}

enum err slot_take_edit(struct slot *s, const struct cascade *c, const struct picture_edit *edit,
                        struct fault *why)
{
    enum err e = ERR_OK;

    s->stage = s->what.used.first;
    s->masked = edit && edit->masked;
    if (edit && s->what.used.scale)
        e = slot_enlarge(s, c, edit->rgb, edit->width, edit->height);
    for (int i = 0; !e && edit && !s->what.used.scale && i < s->what.used.stages; i++) {
        const struct check_size *size = &s->what.size[i];
        const size_t pixels = (size_t)size->width * (size_t)size->height;
        if (cascade_is_latent(c, i))
            continue;
        s->original[i] = malloc(4 * pixels * sizeof *s->original[i]);
        e = s->original[i] ? picture_edit_stage(edit, size, s->original[i]) : ERR_NO_MEMORY;
    }
    return e ? fault_set(why, e, "image", "out of memory for the input image") : ERR_OK;
}

uint32_t slot_number(const struct slot *s)
{
    const int tile = s->enlarge ? enlarge_done(s->enlarge) : 0;

    return s->what.picture + ((uint32_t)tile << TILE_SHIFT);
}

enum err slot_enter(struct slot *s, const struct cascade *c, struct text *const *text,
                    struct stage *stage, struct fault *why)
{
    const struct cascade_settings *settings = &s->what.preset->stage[s->stage];
    const int index = c->network[settings->network].text;
    const size_t floats = (size_t)text_length(text[index]) * (size_t)text_dim(text[index]);
    struct sampler *sampler;
    const float guidance = s->what.used.guidance_scale[s->stage];
    enum err e = sampler_copy(s->sampler[s->stage], &sampler);

    if (e)
        return e;
    s->steps = sampler->steps;
    if (!s->enlarge || !enlarge_done(s->enlarge))
        s->stage_began = clock_seconds();
    if (s->enlarge)
        enlarge_tile(s->enlarge, s->picture);
    e = stage_enter(
        stage,
        &(struct stage_start){
            .sampler = sampler,
            .text = s->text[index],
            .negative = guidance == 1 ? NULL : s->text[index] + floats,
            .guidance = guidance,
            .guidance_interval = {settings->guidance_interval[0], settings->guidance_interval[1]},
            .low = s->picture,
            .original = s->original[s->stage],
            .noised = s->masked && c->noised_edits,
            .noise_level = s->what.used.noise_level[s->stage],
            .seed = s->what.seed,
            .picture = slot_number(s),
        },
        &s->entry, why);
    free(s->original[s->stage]);
    s->original[s->stage] = NULL;
    return e;
}
