// The noise level of each training timestep: a scheduler config's betas and the values derived from
// them. The tables are float32, as in diffusers, because the rounding of the last entries of a
// cosine schedule affects the images. Thread: any; a finished table is read-only.
#ifndef IMAGEND_NOISE_SCHEDULE_H
#define IMAGEND_NOISE_SCHEDULE_H

#include "err.h"
#include "scheduler_config.h"

struct noise_schedule {
    int count;             // training timesteps
    float *beta;           // [count]
    float *alphas_cumprod; // [count]; 1: clean image, 0: pure noise
};

enum { NOISE_SCHEDULE_MAX = 100000 };

// c must have every key set. Owner: the caller destroys *out. Errors: UNSUPPORTED, NO_MEMORY.
// Source: the constructors of the diffusers schedulers.
enum err noise_schedule_create(const struct scheduler_config *c, struct noise_schedule **out,
                               struct fault *why);
void noise_schedule_destroy(struct noise_schedule **s);

#endif
