// The interface of a sampler class: its defaults, its spacing of timesteps, and the function that
// turns a list of timesteps into coefficients. Only the sampler files include this.
#ifndef IMAGEND_SAMPLER_CLASS_H
#define IMAGEND_SAMPLER_CLASS_H

#include "noise_schedule.h"
#include "samplers.h"

// A sampler under construction. config has every key set; the plan function allocates out->step
// with sampler_plan_steps.
struct sampler_plan {
    const struct scheduler_config *config;
    const struct noise_schedule *schedule;
    int steps;            // requested number, or the length of the list
    const int *timesteps; // the caller's list, or NULL
    double eta;
    double strength;
    int begin; // index of the first step to run; set by sampler_plan_begin
    struct sampler *out;
    struct fault *why;
};

struct sampler_class {
    const char *name; // name of the diffusers class
    const struct scheduler_config *defaults;
    enum err (*plan)(struct sampler_plan *p);
};

extern const struct sampler_class sampler_ddpm, sampler_ddim, sampler_dpm_multistep;

// Allocates out->step and sets out->step[i].timestep from the caller's list or, as DDPM and DDIM
// do, from the spacing. Errors: INVALID, NO_MEMORY.
enum err sampler_plan_steps(struct sampler_plan *p);

// Allocates out->step for n steps. Errors: NO_MEMORY.
enum err sampler_plan_alloc(struct sampler_plan *p, int n);

// Sets begin from strength and the number of steps. Errors: INVALID if no step is left.
enum err sampler_plan_begin(struct sampler_plan *p);

// Checks that every timestep is within the schedule. Errors: INVALID.
enum err sampler_plan_check(struct sampler_plan *p);

// Sets px and pm for a sample with signal sqrt(a) and noise sqrt(1 - a).
void sampler_predict_x0(struct sampler_step *s, enum prediction_type type, double signal,
                        double noise);

#endif
