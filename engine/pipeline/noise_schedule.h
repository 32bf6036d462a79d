// How much noise a training timestep carries: the betas of a scheduler config and what follows from
// them. The tables are float32, as diffusers holds them, because the rounding of the last entries
// of a cosine schedule reaches the images. Thread: any; a finished table is only read.
#ifndef IMAGEND_NOISE_SCHEDULE_H
#define IMAGEND_NOISE_SCHEDULE_H

#include "err.h"
#include "scheduler_config.h"

struct noise_schedule {
    int count;             // training timesteps
    float *beta;           // [count]
    float *alphas_cumprod; // [count]; 1 is a clean image, 0 nothing but noise
};

enum { NOISE_SCHEDULE_MAX = 100000 };

// c has every key set. Owner: *out belongs to the caller. Errors: UNSUPPORTED, NO_MEMORY.
// Source: the constructors of the diffusers schedulers.
enum err noise_schedule_create(const struct scheduler_config *c, struct noise_schedule **out,
                               struct fault *why);
void noise_schedule_destroy(struct noise_schedule **s);

#endif
