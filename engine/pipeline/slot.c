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
    free(s->text);
    free(s->picture);
    memset(s, 0, sizeof *s);
}

enum err slot_encode(struct slot *s, struct text *text, const struct picture_request *r,
                     struct fault *why)
{
    const size_t floats = (size_t)text_length(text) * (size_t)text_dim(text);
    struct picture_used *used = &s->what.used;
    const char *prompts[2] = {r->prompt, r->negative_prompt ? r->negative_prompt : ""};

    s->text = malloc(2 * floats * sizeof *s->text);
    if (!s->text)
        return fault_set(why, ERR_NO_MEMORY, NULL, "no memory for the text");
    for (int i = 0; i < 2; i++) {
        struct text_states states;
        enum err e = text_encode(text, prompts[i], &states, why);
        if (e)
            return e;
        memcpy(s->text + (size_t)i * floats, states.v, floats * sizeof *states.v);
        if (i && !r->negative_prompt)
            break;
        *(i ? &used->negative_tokens : &used->tokens) = states.tokens;
        *(i ? &used->negative_tokens_cut : &used->tokens_cut) = states.cut;
    }
    return ERR_OK;
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
        const size_t size = (size_t)c->size[i];
        s->original[i] = malloc(4 * size * size * sizeof *s->original[i]);
        e = s->original[i] ? picture_edit_stage(edit, (int)size, s->original[i]) : ERR_NO_MEMORY;
    }
    return e ? fault_set(why, e, "image", "out of memory for the input image") : ERR_OK;
}

uint32_t slot_number(const struct slot *s)
{
    const int tile = s->enlarge ? enlarge_done(s->enlarge) : 0;

    return s->what.picture + ((uint32_t)tile << TILE_SHIFT);
}
