// Selects the weight files of a model when a variant such as fp16 is requested. Called by
// cascade.c. Thread: any.
#ifndef IMAGEND_VARIANT_H
#define IMAGEND_VARIANT_H

#include "cascade.h"

// Sets variant, notice, and each component's plain flag. variant: NULL for none. Errors:
// INVALID (not a plain word), NOT_FOUND (no component has such files).
enum err variant_choose(struct cascade *c, const char *variant, struct fault *why);

#endif
