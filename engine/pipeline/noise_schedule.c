// Computes betas and their cumulative products. Called by samplers.c when an image is admitted;
// knows nothing about steps. Uses float where torch does, in torch's order of operations.
#include "noise_schedule.h"

#include <math.h>
#include <stdlib.h>

// torch.linspace: counts from both ends, so that both are exact.
static float linspace(float start, float end, int n, int i)
{
    float step = n > 1 ? (end - start) / (float)(n - 1) : 0.0f;
    return i < n / 2 || n == 1 ? start + step * (float)i : end - step * (float)(n - 1 - i);
}

static double cosine_alpha_bar(double t)
{
    double c = cos((t + 0.008) / 1.008 * M_PI / 2.0);
    return c * c;
}

static float beta_at(const struct scheduler_config *c, int i)
{
    int n = c->num_train_timesteps;
    switch (c->beta_schedule) {
    case BETA_LINEAR: return linspace((float)c->beta_start, (float)c->beta_end, n, i);
    case BETA_SCALED_LINEAR: {
        float root = linspace((float)sqrt(c->beta_start), (float)sqrt(c->beta_end), n, i);
        return root * root;
    }
    case BETA_SQUAREDCOS: {
        double a = cosine_alpha_bar((double)i / n), b = cosine_alpha_bar((double)(i + 1) / n);
        return (float)fmin(1.0 - b / a, 0.999);
    }
    case BETA_SIGMOID: {
        float x = linspace(-6.0f, 6.0f, n, i);
        return 1.0f / (1.0f + expf(-x)) * (float)(c->beta_end - c->beta_start) +
               (float)c->beta_start;
    }
    }
    return 0.0f;
}

// torch.cumprod accumulates floats in double precision.
static void accumulate(struct noise_schedule *s)
{
    double product = 1.0;
    for (int i = 0; i < s->count; i++) {
        product *= (double)(1.0f - s->beta[i]);
        s->alphas_cumprod[i] = (float)product;
    }
}

// Shifts and scales sqrt(alphas_cumprod) so that the last value is zero and the first is unchanged.
static void rescale_zero_terminal_snr(struct noise_schedule *s)
{
    float first = sqrtf(s->alphas_cumprod[0]), last = sqrtf(s->alphas_cumprod[s->count - 1]);
    float stretch = first / (first - last), before = 0.0f;
    for (int i = 0; i < s->count; i++) {
        float root = (sqrtf(s->alphas_cumprod[i]) - last) * stretch;
        float bar = root * root;
        s->beta[i] = 1.0f - (i ? bar / before : bar);
        before = bar;
    }
    accumulate(s);
}

enum err noise_schedule_create(const struct scheduler_config *c, struct noise_schedule **out,
                               struct fault *why)
{
    *out = NULL;
    int n = c->num_train_timesteps;
    if (n < 1 || n > NOISE_SCHEDULE_MAX)
        return fault_set(why, ERR_UNSUPPORTED, "num_train_timesteps",
                         "num_train_timesteps %d is not within 1 to %d", n, NOISE_SCHEDULE_MAX);
    if (c->beta_schedule == BETA_SIGMOID && c->cls != SCHEDULER_DDPM)
        return fault_set(why, ERR_UNSUPPORTED, "beta_schedule",
                         "beta_schedule sigmoid is supported for DDPMScheduler only");
    if (!(c->beta_start >= 0.0 && c->beta_start < 1.0 && c->beta_end >= 0.0 && c->beta_end < 1.0))
        return fault_set(why, ERR_UNSUPPORTED, "beta_start",
                         "beta_start %g and beta_end %g must lie in [0, 1)", c->beta_start,
                         c->beta_end);
    if (c->rescale_betas_zero_snr && n < 2)
        return fault_set(why, ERR_UNSUPPORTED, "rescale_betas_zero_snr",
                         "rescale_betas_zero_snr needs at least two training timesteps");

    struct noise_schedule *s = calloc(1, sizeof *s);
    if (!s)
        return ERR_NO_MEMORY;
    s->count = n;
    s->beta = calloc((size_t)n, sizeof *s->beta);
    s->alphas_cumprod = calloc((size_t)n, sizeof *s->alphas_cumprod);
    if (!s->beta || !s->alphas_cumprod)
        goto fail;
    for (int i = 0; i < n; i++)
        s->beta[i] = beta_at(c, i);
    accumulate(s);
    if (c->rescale_betas_zero_snr) {
        rescale_zero_terminal_snr(s);
        // The solver divides by the signal, so diffusers uses fp16's smallest number instead of
        // zero.
        if (c->cls == SCHEDULER_DPM_MULTISTEP)
            s->alphas_cumprod[n - 1] = 0x1p-24f;
    }
    *out = s;
    return ERR_OK;

fail:
    noise_schedule_destroy(&s);
    return ERR_NO_MEMORY;
}

void noise_schedule_destroy(struct noise_schedule **s)
{
    if (!*s)
        return;
    free((*s)->beta);
    free((*s)->alphas_cumprod);
    free(*s);
    *s = NULL;
}
