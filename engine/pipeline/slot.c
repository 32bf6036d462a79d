// An image being generated and its inputs to the stages, see slot.h. Called by engine.c.
#include "slot.h"

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
