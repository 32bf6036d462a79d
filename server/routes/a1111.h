// Shared by the files of the A1111 API.
#ifndef IMAGEND_A1111_H
#define IMAGEND_A1111_H

#include "app.h"

// The sampler that a request's sampler and scheduler names select.
struct a1111_sampler {
    const char *engine;            // the engine's name; NULL: the model's own sampler
    const char *missing_sampler;   // label of a sampler of A1111 that the engine lacks, or NULL
    const char *missing_scheduler; // scheduler that cannot be had with this sampler, or NULL
};

// sampler and scheduler are names, labels or aliases of A1111 or the engine, without regard to case
// and spacing; NULL, "" and Automatic: the model's own. False for a sampler that is in no list.
bool a1111_sampler_find(const struct model_info *m, const char *sampler, const char *scheduler,
                        struct a1111_sampler *out);
// A1111's label of an engine's sampler and, as *scheduler, of its schedule; NULL: the plain one.
const char *a1111_sampler_label(const char *engine, const char **scheduler);

void a1111_samplers_get(struct call *c);
void a1111_schedulers_get(struct call *c);
void a1111_options_get(struct call *c);
void a1111_options_post(struct call *c);
void a1111_sd_models_get(struct call *c);
void a1111_fixed_get(struct call *c);
void a1111_refresh_post(struct call *c);

#endif
