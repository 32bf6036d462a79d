// Shared by the files of the A1111 API. Loop thread.
#ifndef IMAGEND_A1111_H
#define IMAGEND_A1111_H

#include "app.h"

// The sampler selected by a request's sampler and scheduler names.
struct a1111_sampler {
    const char *engine;            // the engine's sampler name; NULL: the model's default sampler
    const char *missing_sampler;   // label of an A1111 sampler that the engine lacks, or NULL
    const char *missing_scheduler; // scheduler that this sampler does not support, or NULL
};

// sampler and scheduler are names, labels or aliases of A1111 or the engine, ignoring case and
// spacing; NULL, "" and Automatic: the model's default. False for an unknown sampler.
bool a1111_sampler_find(const struct model_info *m, const char *sampler, const char *scheduler,
                        struct a1111_sampler *out);
// A1111's label of an engine's sampler and, in *scheduler, of its schedule; NULL: the default
// schedule.
const char *a1111_sampler_label(const char *engine, const char **scheduler);

void a1111_samplers_get(struct call *c);
void a1111_schedulers_get(struct call *c);
void a1111_options_get(struct call *c);
void a1111_options_post(struct call *c);
void a1111_sd_models_get(struct call *c);
void a1111_fixed_get(struct call *c);
void a1111_refresh_post(struct call *c);

#endif
