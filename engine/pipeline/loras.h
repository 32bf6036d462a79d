// The LoRAs of a model: reads the list of files and finds the stage that each belongs to. Called by
// cascade.c, on any thread.
#ifndef IMAGEND_LORAS_H
#define IMAGEND_LORAS_H

#include "cascade.h"

// list: FILE[:SCALE], several separated by ','; reads the headers of these files and of the
// networks' weights. A LoRA belongs to the first stage whose network it fits, and then to all
// networks of that stage. Their schedulers with a learned variance use a fixed one. Errors: INVALID
// (the list), as weights_open.
enum err loras_read(struct cascade *c, const char *list, struct fault *why);

#endif
