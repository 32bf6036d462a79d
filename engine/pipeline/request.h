// Resolves a picture_request: fills unset fields from its preset or the model's own settings and
// checks every value. Called by engine.c on any thread. Knows nothing about devices.
#ifndef IMAGEND_REQUEST_H
#define IMAGEND_REQUEST_H

#include "cascade.h"
#include "engine.h"
#include "samplers.h"

struct resolved {
    const struct cascade_preset *preset; // borrowed from the cascade
    struct picture_used used;
    struct check_size size[PICTURE_MAX_STAGES]; // of each stage's output; enlarging: of a tile's
    struct cascade_loras loras[PICTURE_MAX_STAGES];
    uint64_t seed;
    uint32_t picture;
};

// Errors: INVALID with the parameter named. If a timestep list is requested, out->used.steps of the
// base stage is not set until request_samplers has run.
enum err request_resolve(const struct cascade *c, const struct picture_request *r,
                         struct resolved *out, struct fault *why);
// The part of request_resolve for input images: stages, size, strength, scale. Errors: INVALID,
// UNSUPPORTED.
enum err request_resolve_edit(const struct cascade *c, const struct picture_request *r,
                              struct picture_used *out, struct fault *why);
// Multiplies the steps to run by the number of tiles of an enlarged image.
void request_count_tiles(const struct cascade *c, const struct picture_request *r,
                         struct picture_used *used);
struct picture_sizes request_sizes(const struct cascade *c);
// Whether a stage's image is the square that its networks are prepared for when they are loaded.
bool request_is_square(const struct cascade *c, const struct resolved *what, int stage);
// Fills the fields of model_info that the config files determine.
void request_describe(const struct cascade *c, struct model_info *to);
// States the modules that are not applied, of the stages that run.
void request_describe_modules(const struct cascade *c, const struct cascade_preset *p,
                              struct picture_used *used);
// The enlargement factors, as in model_info.
void request_scales(const struct cascade *c, int out[2]);
// The shortest decimal number with the float's value, because 0.29F is not 0.29.
double request_decimal(float v);
// Creates one sampler per stage that the image runs. Owner: the caller destroys each, also on
// error. Errors: INVALID, UNSUPPORTED, NO_MEMORY.
enum err request_samplers(const struct cascade *c, const struct picture_request *r,
                          struct resolved *what, struct sampler **sampler, struct fault *why);
// Calls request_resolve and request_samplers and keeps only the resolved settings. Errors: as
// theirs.
enum err request_check(const struct cascade *c, const struct picture_request *r,
                       struct resolved *what, struct fault *why);

#endif
