// Records the fake engine's parameters as lines of JSON in the file that FAKE_SEEN names. Thread:
// any.
#ifndef IMAGEND_FAKE_SEEN_H
#define IMAGEND_FAKE_SEEN_H

#include "engine_params.h"
#include "picture.h"

void fake_see_open(const struct engine_params *p);
void fake_see_request(const char *model, const struct picture_request *r);

#endif
