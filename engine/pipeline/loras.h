// The LoRAs of a model: reads a list of files, finds the stage that each belongs to, and selects
// those of an image's stages. Called by cascade.c, request.c, network.c and turns.c, on any thread.
#ifndef IMAGEND_LORAS_H
#define IMAGEND_LORAS_H

#include "cascade.h"

// list: FILE[:SCALE], several separated by ','; reads the headers of these files and of the
// networks' weights. A LoRA belongs to the first stage whose network it fits, and then to all
// networks of that stage. applied: to images whose request names none; the others must have names
// of their own. Errors: INVALID (the list), as weights_open.
enum err loras_read(struct cascade *c, const char *list, bool applied, struct fault *why);

// Those of one stage.
void loras_of_stage(const struct cascade *c, const struct picture_loras *chosen, int stage,
                    struct cascade_loras *out);
bool loras_are_same(const struct cascade_loras *a, const struct cascade_loras *b);

// The scheduler of a network with these LoRAs: with any, a learned variance becomes a fixed one.
// Source: diffusers' training scripts for DeepFloyd IF train the predicted noise alone, so their
// documentation samples with variance_type "fixed_small".
struct scheduler_config loras_scheduler(const struct cascade_network *n,
                                        const struct cascade_loras *loras);

#endif
