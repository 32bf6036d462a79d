// A picture in flight: what it is made with, and what it brings to its stages. Called by engine.c,
// which moves it through them. Thread: the engine's worker.
#ifndef IMAGEND_SLOT_H
#define IMAGEND_SLOT_H

#include "enlarge.h"
#include "request.h"
#include "text.h"

struct slot {
    bool used;
    void *tag;
    uint64_t order;                              // of admission
    struct resolved what;                        // the request, every default filled in
    struct sampler *sampler[PICTURE_MAX_STAGES]; // NULL once the stage has taken it
    float *text;                                 // [2, L, D]: prompt, negative prompt
    int tokens;                                  // of the texts that were given
    float *picture;                              // of the last stage, input of the next
    float *original[PICTURE_MAX_STAGES];         // an edit: what each stage starts from, until then
    bool masked;                                 // an edit that keeps some of the input
    struct enlarge *enlarge;                     // an image that this stage enlarges; NULL: none
    int stage, entry;                            // entry -1: waits for a place in the stage
    int steps;                                   // of this stage, or of each of its tiles
    double stage_began;
};

void slot_free(struct slot *s);

// The prompts, as the stages take them. Errors: those of text_encode, NO_MEMORY.
enum err slot_encode(struct slot *s, struct text *text, const struct picture_request *r,
                     struct fault *why);
// The input image in the form that the stages take; edit: NULL for none. Errors: NO_MEMORY.
enum err slot_take_edit(struct slot *s, const struct cascade *c, const struct picture_edit *edit,
                        struct fault *why);
// An image that the slot's stage enlarges: its tiles go through it one after the other. rgb may be
// what the stage before made. Errors: NO_MEMORY.
enum err slot_enlarge(struct slot *s, const struct cascade *c, const uint8_t *rgb, int width,
                      int height);
// The number by which noise is drawn: of the image, or of its tile.
uint32_t slot_number(const struct slot *s);

#endif
