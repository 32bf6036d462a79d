// An image being generated: its settings and its inputs to the stages. Called by engine.c, which
// moves it from stage to stage. Thread: the engine's worker.
#ifndef IMAGEND_SLOT_H
#define IMAGEND_SLOT_H

#include "enlarge.h"
#include "request.h"
#include "stage.h"
#include "text.h"

struct slot {
    bool used;
    void *tag;
    uint64_t order;                              // order of admission
    struct resolved what;                        // the request with all defaults resolved
    struct sampler *sampler[PICTURE_MAX_STAGES]; // NULL once the stage owns it
    float *text[CASCADE_MAX_TEXTS];              // by index into cascade.text: [2, L, D], prompt
                                                 // and negative prompt; NULL: not used
    float *picture;                              // output of the last stage, input of the next
    float *original[PICTURE_MAX_STAGES];         // edits: each stage's input, freed when used
    bool masked;                                 // an edit that keeps part of the input
    struct enlarge *enlarge;                     // the image that this stage enlarges; NULL: none
    int stage, entry;                            // entry -1: waiting for an entry of the stage
    int steps;                                   // of this stage, or of each tile in it
    double stage_began;
};

void slot_free(struct slot *s);

// Encodes the prompts with the text encoder of each stage; text: by index into cascade.text.
// Errors: as text_encode, NO_MEMORY.
enum err slot_encode(struct slot *s, const struct cascade *c, struct text *const *text,
                     const struct picture_request *r, struct fault *why);
// Converts the input image for the stages; edit: may be NULL. Errors: NO_MEMORY.
enum err slot_take_edit(struct slot *s, const struct cascade *c, const struct picture_edit *edit,
                        struct fault *why);
// Sets the image that the slot's stage enlarges, tile by tile. rgb may be the output of the
// previous stage. Errors: NO_MEMORY.
enum err slot_enlarge(struct slot *s, const struct cascade *c, const uint8_t *rgb, int width,
                      int height);
// Lets the image, or the next tile of the one that is enlarged, enter its stage, whose weights must
// be loaded. text: as for slot_encode. Errors: as stage_enter, NO_MEMORY.
enum err slot_enter(struct slot *s, const struct cascade *c, struct text *const *text,
                    struct stage *stage, struct fault *why);
// The number of the image, or of its tile, in the noise key.
uint32_t slot_number(const struct slot *s);

#endif
