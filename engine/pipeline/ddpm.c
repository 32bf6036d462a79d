// DDPMScheduler: ancestral sampling, DeepFloyd IF's own scheduler. Used through the class table in
// samplers.c; turns timesteps into coefficients and knows nothing about images or devices.
#include "sampler_class.h"

#include <math.h>

static const struct scheduler_config defaults = {
    .cls = SCHEDULER_DDPM,
    .num_train_timesteps = 1000,
    .beta_start = 0.0001,
    .beta_end = 0.02,
    .beta_schedule = BETA_LINEAR,
    .prediction_type = PREDICT_EPSILON,
    .variance_type = VARIANCE_FIXED_SMALL,
    .timestep_spacing = SPACING_LEADING,
    .clip_sample = true,
    .clip_sample_range = 1.0,
    .dynamic_thresholding_ratio = 0.995,
    .sample_max_value = 1.0,
};

static enum err check_variance(const struct sampler_plan *p)
{
    // For this type diffusers takes the square root of a negative logarithm.
    if (p->config->variance_type == VARIANCE_FIXED_LARGE_LOG)
        return fault_set(
            p->why, ERR_UNSUPPORTED, "variance_type",
            "variance_type fixed_large_log is not supported; diffusers computes NaN with it");
    return ERR_OK;
}

// Sets the standard deviation of the noise that a step adds. Without a type, which another class's
// config may lack, diffusers uses fixed_small.
static void set_variance(struct sampler_step *s, enum variance_type type, double beta,
                         double variance)
{
    s->noise = 1.0;
    switch (type) {
    case VARIANCE_LEARNED_RANGE:
        s->learned = LEARNED_RANGE;
        s->logvar_min = log(variance);
        s->logvar_max = log(beta);
        break;
    case VARIANCE_LEARNED: s->learned = LEARNED_DIRECT; break;
    case VARIANCE_FIXED_LARGE: s->noise = sqrt(beta); break;
    default: s->noise = sqrt(variance); break;
    }
}

static enum err plan(struct sampler_plan *p)
{
    const struct scheduler_config *c = p->config;
    enum err e = check_variance(p);
    if (!e)
        e = sampler_plan_steps(p);
    if (e)
        return e;
    p->out->needs_variance =
        c->variance_type == VARIANCE_LEARNED || c->variance_type == VARIANCE_LEARNED_RANGE;

    for (int i = 0; i < p->out->steps; i++) {
        struct sampler_step *s = &p->out->step[i];
        const float *table = p->schedule->alphas_cumprod;
        float a = table[s->timestep];
        float a_prev = i + 1 < p->out->steps ? table[s[1].timestep] : 1.0f;
        // Rounding the quotient to float first is part of diffusers' result.
        float quotient = a / a_prev;
        double alpha = (double)quotient, beta = (double)(1.0f - quotient);
        double noise = (double)(1.0f - a), noise_prev = (double)(1.0f - a_prev);
        sampler_predict_x0(s, c->prediction_type, sqrt((double)a), sqrt(noise));
        s->c0 = sqrt((double)a_prev) * beta / noise;
        s->cx = sqrt(alpha) * noise_prev / noise;
        if (s->timestep > 0) {
            set_variance(s, c->variance_type, beta, fmax(noise_prev / noise * beta, 1e-20));
            p->out->stochastic = true;
        }
    }
    return ERR_OK;
}

const struct sampler_class sampler_ddpm = {"DDPMScheduler", &defaults, plan};
