// What a sampler class is to samplers.c: its defaults, how it spaces timesteps, and the function
// that turns a list of timesteps into coefficients. Only the files of samplers include this.
#ifndef IMAGEND_SAMPLER_CLASS_H
#define IMAGEND_SAMPLER_CLASS_H

#include "noise_schedule.h"
#include "samplers.h"

// A sampler in the making. config has every key set; out->step is allocated by the plan function
// through sampler_plan_steps.
struct sampler_plan {
    const struct scheduler_config *config;
    const struct noise_schedule *schedule;
    int steps;            // wanted; the length of the list when there is one
    const int *timesteps; // a list of the caller's, or NULL
    double eta;
    double strength;
    int begin; // index of the first step that is run, once sampler_plan_begin has set it
    struct sampler *out;
    struct fault *why;
};

struct sampler_class {
    const char *name; // of the diffusers class
    const struct scheduler_config *defaults;
    enum err (*plan)(struct sampler_plan *p);
};

extern const struct sampler_class sampler_ddpm, sampler_ddim, sampler_dpm_multistep;

// Allocate out->step and set out->step[i].timestep from the caller's list or, as DDPM and DDIM do
// it, from the spacing. Errors: INVALID, NO_MEMORY.
enum err sampler_plan_steps(struct sampler_plan *p);

// Allocate out->step for n steps. Errors: NO_MEMORY.
enum err sampler_plan_alloc(struct sampler_plan *p, int n);

// Set begin from strength and the number of steps. Errors: INVALID when no step is left.
enum err sampler_plan_begin(struct sampler_plan *p);

// Check that every timestep lies in the schedule. Errors: INVALID.
enum err sampler_plan_check(struct sampler_plan *p);

// px and pm for a sample with signal sqrt(a) and noise sqrt(1 - a).
void sampler_predict_x0(struct sampler_step *s, enum prediction_type type, double signal,
                        double noise);

#endif
