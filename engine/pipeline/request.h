// Resolves a picture_request: fills unset fields from its preset or the model's own settings and
// checks every value. Called by engine.c on any thread. Knows nothing of devices.
#ifndef IMAGEND_REQUEST_H
#define IMAGEND_REQUEST_H

#include "cascade.h"
#include "engine.h"
#include "samplers.h"

struct resolved {
    const struct cascade_preset *preset; // of the cascade
    struct picture_used used;
    uint64_t seed;
    uint32_t picture;
};

// Errors: INVALID with the parameter named. out->used.steps holds the base stage's count only once
// request_samplers has run, when a list of timesteps is asked for.
enum err request_resolve(const struct cascade *c, const struct picture_request *r,
                         struct resolved *out, struct fault *why);
// Its part about an input image: stages, size, strength, scale. Errors: INVALID, UNSUPPORTED.
enum err request_resolve_edit(const struct cascade *c, const struct picture_request *r,
                              struct picture_used *out, struct fault *why);
// Multiply the steps that are run by the tiles of an image that is enlarged.
void request_count_tiles(const struct cascade *c, const struct picture_request *r,
                         struct picture_used *used);
// All of model_info that the config files say.
void request_describe(const struct cascade *c, struct model_info *to);
// What images can be enlarged by, as model_info has it.
void request_scales(const struct cascade *c, int out[2]);
// The decimal number that a float was written as, since 0.29F is not 0.29.
double request_decimal(float v);
// One sampler per stage that the image runs. Owner: the caller destroys each, also on error.
// Errors: INVALID, UNSUPPORTED, NO_MEMORY.
enum err request_samplers(const struct cascade *c, const struct picture_request *r,
                          struct resolved *what, struct sampler **sampler, struct fault *why);
// Both of these, for what the request comes to; the samplers are not kept. Errors: as theirs.
enum err request_check(const struct cascade *c, const struct picture_request *r,
                       struct resolved *what, struct fault *why);

#endif
