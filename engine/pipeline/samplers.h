// Samplers: turn a scheduler config and a number of steps into one set of coefficients per step. In
// every class a step is the same linear combination of the image, the model's output, the estimates
// of the clean image (x0) of this and the last two steps, and noise; op_sampler_step runs it on the
// device. The coefficients are computed here once, when an image is admitted.
//
//   x0 = threshold(px x + pm m)
//   x' = cx x + cm m + c0 x0 + c1 h1 + c2 h2 + noise s z
//
// with m the guided model output, h1 and h2 the x0 of the last two steps, z ~ N(0, 1),
// and s = 1 unless the variance is learned. Thread: any; a finished sampler is read-only.
#ifndef IMAGEND_SAMPLERS_H
#define IMAGEND_SAMPLERS_H

#include "err.h"
#include "scheduler_config.h"
#include "shared.h"

#include <stdbool.h>
#include <stdint.h>

// The factor of z in addition to `noise`, from the variance channels v of the model's output.
enum sampler_learned {
    LEARNED_NONE,   // 1
    LEARNED_RANGE,  // exp(.5 (f logvar_max + (1 - f) logvar_min)), f = (v + 1) / 2
    LEARNED_DIRECT, // sqrt(v)
};

struct sampler_step {
    int timestep;
    double px, pm, cx, cm, c0, c1, c2, noise;
    enum sampler_learned learned;
    double logvar_min, logvar_max;
    double next_signal, next_noise; // parts of clean image and noise after the step
};

struct sampler {
    enum scheduler_class cls;
    char name[32]; // name in the sampler table, or the class's name
    int steps;
    int skipped; // edits only: number of steps left out at the start
    struct sampler_step *step;
    double *sigma; // [steps + 1] if the class has sigmas, else NULL
    // An edit starts from signal x + noise z with a clean image x; a new image starts from noise.
    double start_signal, start_noise;
    enum op_threshold threshold;
    double max_value;    // THRESHOLD_CLIP: the range; THRESHOLD_DYNAMIC: the cap
    double quantile;     // THRESHOLD_DYNAMIC
    bool stochastic;     // some step adds noise
    bool needs_variance; // the model must have 6 output channels; otherwise the last 3 are unused
};

struct sampler_params {
    const struct scheduler_config *config;
    const char *name;     // a name in the sampler table; NULL: the config's class and settings
    int steps;            // used if the next two are NULL
    const char *preset;   // a named list of timesteps ("fast27"); NULL: none
    const int *timesteps; // a strictly decreasing list of timesteps; NULL: none
    int timestep_count;
    double eta; // DDIM: 0 deterministic .. 1 like DDPM
    // Edits only: only the last steps * strength, rounded down, are run; 0: all. double, as in
    // diffusers, so that 0.29 of 100 steps is 28.
    double strength;
};

// Owner: the caller destroys *out. Errors: INVALID (steps, preset, timesteps, name, strength),
// UNSUPPORTED (a config setting that is not implemented, named), NO_MEMORY. Source: diffusers
// from_config, set_timesteps, add_noise and step of the three classes, get_timesteps of IF's
// img2img pipelines.
enum err sampler_create(const struct sampler_params *p, struct sampler **out, struct fault *why);
void sampler_destroy(struct sampler **s);
// Errors: NO_MEMORY. Owner: the caller destroys *out.
enum err sampler_copy(const struct sampler *s, struct sampler **out);

// Writes step i's part of a lane: coefficients, threshold, timestep, step, and the history tensor
// that receives this step's x0. Does not touch slot, seed, picture, stage, guidance and
// noise_level.
void sampler_fill_lane(const struct sampler *s, int i, struct op_lane *lane);

// The names of the samplers and of the timestep presets, each NULL-terminated.
const char *const *sampler_names(void);
const char *const *sampler_preset_names(void);

// The sampler name for a config's own settings, such as "ddpm".
const char *sampler_default_name(const struct scheduler_config *config);

// The parts a of clean image and b of noise for a super-resolution stage's input at noise_level:
// noisy = a x + b z. Errors: INVALID, UNSUPPORTED. Source: diffusers DDPMScheduler.add_noise.
enum err sampler_noise_mix(const struct scheduler_config *config, int noise_level, double *a,
                           double *b, struct fault *why);

#endif
