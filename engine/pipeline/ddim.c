// DDIMScheduler: the same marginals as DDPM, with the amount of noise that eta selects. Used
// through the class table in samplers.c; turns timesteps into coefficients and knows nothing about
// images or devices.
#include "sampler_class.h"

#include <math.h>

static const struct scheduler_config defaults = {
    .cls = SCHEDULER_DDIM,
    .num_train_timesteps = 1000,
    .beta_start = 0.0001,
    .beta_end = 0.02,
    .beta_schedule = BETA_LINEAR,
    .prediction_type = PREDICT_EPSILON,
    .timestep_spacing = SPACING_LEADING,
    .clip_sample = true,
    .clip_sample_range = 1.0,
    .dynamic_thresholding_ratio = 0.995,
    .sample_max_value = 1.0,
    .set_alpha_to_one = true,
};

// Adds weight times the predicted noise, derived from the x0 before clipping, to the step.
static void add_direction(struct sampler_step *s, enum prediction_type type, double signal,
                          double noise, double weight)
{
    switch (type) {
    case PREDICT_EPSILON: s->cm = weight; break;
    case PREDICT_SAMPLE:
        s->cx = weight / noise;
        s->cm = -weight * signal / noise;
        break;
    case PREDICT_V:
        s->cx = weight * noise;
        s->cm = weight * signal;
        break;
    }
}

static enum err plan(struct sampler_plan *p)
{
    const struct scheduler_config *c = p->config;
    if (p->timesteps)
        return fault_set(p->why, ERR_INVALID, "timesteps",
                         "DDIMScheduler does not support lists of timesteps");
    enum err e = sampler_plan_steps(p);
    if (e)
        return e;

    const float *table = p->schedule->alphas_cumprod;
    float last = c->set_alpha_to_one ? 1.0f : table[0];
    int stride = c->num_train_timesteps / p->steps;
    for (int i = 0; i < p->out->steps; i++) {
        struct sampler_step *s = &p->out->step[i];
        int prev = s->timestep - stride;
        float a = table[s->timestep], a_prev = prev >= 0 ? table[prev] : last;
        // Rounding the quotient to float first is part of diffusers' result.
        float quotient = a / a_prev;
        double noise = (double)(1.0f - a), noise_prev = (double)(1.0f - a_prev);
        double variance = noise_prev / noise * (double)(1.0f - quotient);
        double deviation = p->eta > 0.0 ? p->eta * sqrt(fmax(variance, 0.0)) : 0.0;
        double signal = sqrt((double)a);
        sampler_predict_x0(s, c->prediction_type, signal, sqrt(noise));
        s->c0 = sqrt((double)a_prev);
        add_direction(s, c->prediction_type, signal, sqrt(noise),
                      sqrt(fmax(noise_prev - deviation * deviation, 0.0)));
        s->noise = deviation;
        p->out->stochastic |= deviation > 0.0;
    }
    return ERR_OK;
}

const struct sampler_class sampler_ddim = {"DDIMScheduler", &defaults, plan};
