// Samplers: from a scheduler config and a number of steps to one line of coefficients per step.
// Whatever the class, a step is the same linear combination of the image, the model's output, the
// estimates of the clean image (x0) of this and the last two steps, and noise; op_sampler_step
// runs it on the device. The coefficients are computed here, once, when an image is admitted.
//
//   x0 = threshold(px x + pm m)
//   x' = cx x + cm m + c0 x0 + c1 h1 + c2 h2 + noise s z
//
// with m the guided model output, h1 and h2 the x0 of the last and last but one step, z ~ N(0, 1),
// and s = 1 unless the variance is learned. Thread: any; a finished sampler is only read.
#ifndef IMAGEND_SAMPLERS_H
#define IMAGEND_SAMPLERS_H

#include "err.h"
#include "scheduler_config.h"

#include <stdbool.h>
#include <stdint.h>

struct op_lane;

enum sampler_threshold { THRESHOLD_NONE, THRESHOLD_CLIP, THRESHOLD_DYNAMIC };

// How much z is scaled besides `noise`, from the variance half v of the model's output.
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
    double next_signal, next_noise; // of what it leaves: of a clean image, of noise
};

struct sampler {
    enum scheduler_class cls;
    char name[32]; // the name of the sampler table, or the class's own
    int steps;
    int skipped; // of an edit: before the first step
    struct sampler_step *step;
    double *sigma; // [steps + 1] where the class has sigmas, else NULL
    // An edit starts from signal x + noise z, of a clean image x; a new image from noise alone.
    double start_signal, start_noise;
    enum sampler_threshold threshold;
    double max_value;    // THRESHOLD_CLIP: the range; THRESHOLD_DYNAMIC: the cap
    double quantile;     // THRESHOLD_DYNAMIC
    bool stochastic;     // some step adds noise
    bool needs_variance; // the model must have 6 output channels; else the last 3 go unused
};

struct sampler_params {
    const struct scheduler_config *config;
    const char *name;     // a row of the sampler table; NULL: the config's own class and settings
    int steps;            // used when neither of the next two is given
    const char *preset;   // a named list of timesteps ("fast27"); NULL: none
    const int *timesteps; // a list of timesteps, strictly falling; NULL: none
    int timestep_count;
    double eta; // DDIM: 0 deterministic .. 1 like DDPM
    // Of an edit: only the last steps * strength, rounded down, are run; 0: all. diffusers
    // multiplies in double, so 0.29 of 100 steps are 28.
    double strength;
};

// Owner: *out belongs to the caller. Errors: INVALID (steps, preset, timesteps, name, strength),
// UNSUPPORTED (a config this program does not have, named), NO_MEMORY. Source: diffusers
// from_config, set_timesteps, add_noise and step of the three classes, get_timesteps of IF's
// img2img pipelines.
enum err sampler_create(const struct sampler_params *p, struct sampler **out, struct fault *why);
void sampler_destroy(struct sampler **s);
// Errors: NO_MEMORY. Owner: *out belongs to the caller.
enum err sampler_copy(const struct sampler *s, struct sampler **out);

// Write step i's part of a lane: coefficients, threshold, timestep, step, and which history tensor
// receives this step's x0. Slot, seed, picture, stage, guidance and noise_level stay untouched.
void sampler_fill_lane(const struct sampler *s, int i, struct op_lane *lane);

// The sampler table's names and the presets', each NULL-terminated.
const char *const *sampler_names(void);
const char *const *sampler_preset_names(void);

// The name of the table that stands for what a config runs by itself, such as "ddpm".
const char *sampler_default_name(const struct scheduler_config *config);

// How much of a clean image and of noise a super-resolution stage mixes at noise_level:
// noisy = a x + b z. Errors: INVALID, UNSUPPORTED. Source: diffusers DDPMScheduler.add_noise.
enum err sampler_noise_mix(const struct scheduler_config *config, int noise_level, double *a,
                           double *b, struct fault *why);

#endif
