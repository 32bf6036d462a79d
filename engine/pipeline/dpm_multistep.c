// DPMSolverMultistepScheduler: DPM-Solver++ of order 1 to 3, deterministic or with noise. Used
// through the class table in samplers.c; turns timesteps into coefficients and knows nothing about
// devices. Sigmas are rounded to float before use, as in diffusers; values derived from them are
// double.
#include "sampler_class.h"

#include <math.h>
#include <stdlib.h>

static const struct scheduler_config defaults = {
    .cls = SCHEDULER_DPM_MULTISTEP,
    .num_train_timesteps = 1000,
    .beta_start = 0.0001,
    .beta_end = 0.02,
    .beta_schedule = BETA_LINEAR,
    .prediction_type = PREDICT_EPSILON,
    .variance_type = VARIANCE_NONE,
    .timestep_spacing = SPACING_LINSPACE,
    .dynamic_thresholding_ratio = 0.995,
    .sample_max_value = 1.0,
    .solver_order = 2,
    .algorithm_type = ALGORITHM_DPMPP,
    .solver_type = SOLVER_MIDPOINT,
    .lower_order_final = true,
    .final_sigmas_type = FINAL_ZERO,
    .lambda_min_clipped = -INFINITY,
};

static enum err check(const struct sampler_plan *p)
{
    const struct scheduler_config *c = p->config;
    const struct {
        bool on;
        const char *key;
    } missing[] = {
        {c->use_exponential_sigmas, "use_exponential_sigmas"},
        {c->use_beta_sigmas, "use_beta_sigmas"},
        {c->use_lu_lambdas, "use_lu_lambdas"},
        {c->use_flow_sigmas, "use_flow_sigmas"},
        {c->use_dynamic_shifting, "use_dynamic_shifting"},
    };
    for (size_t i = 0; i < sizeof missing / sizeof *missing; i++)
        if (missing[i].on)
            return fault_set(p->why, ERR_UNSUPPORTED, missing[i].key, "%s is not supported",
                             missing[i].key);
    if (c->algorithm_type != ALGORITHM_DPMPP && c->algorithm_type != ALGORITHM_SDE_DPMPP)
        return fault_set(p->why, ERR_UNSUPPORTED, "algorithm_type",
                         "algorithm_type must be dpmsolver++ or sde-dpmsolver++");
    if (c->solver_order < 1 || c->solver_order > 3)
        return fault_set(p->why, ERR_UNSUPPORTED, "solver_order",
                         "solver_order %d is not 1, 2 or 3", c->solver_order);
    if (p->timesteps && c->use_karras_sigmas)
        return fault_set(p->why, ERR_INVALID, "timesteps",
                         "Karras sigmas determine the timesteps and cannot be combined with a list "
                         "of timesteps");
    return ERR_OK;
}

static float sigma_of(const struct noise_schedule *ns, int t)
{
    float a = ns->alphas_cumprod[t];
    return sqrtf((1.0f - a) / a);
}

// The number of training timesteps above lambda_min_clipped.
static int last_timestep(const struct sampler_plan *p)
{
    const float *a = p->schedule->alphas_cumprod;
    int n = p->schedule->count;
    while (n > 0 && (double)(logf(sqrtf(a[n - 1])) - logf(sqrtf(1.0f - a[n - 1]))) <
                        p->config->lambda_min_clipped)
        n--;
    return n;
}

static enum err spaced_timesteps(struct sampler_plan *p)
{
    const struct scheduler_config *c = p->config;
    int n = p->steps, last = last_timestep(p), count = n;
    double stride = (double)c->num_train_timesteps / n;
    if (c->timestep_spacing == SPACING_TRAILING)
        count = (int)ceil(last / stride - 1e-9); // a rounded stride must not add timestep -1
    if (last < 1 || count < 1)
        return fault_set(p->why, ERR_UNSUPPORTED, "lambda_min_clipped",
                         "lambda_min_clipped %g leaves no timesteps", c->lambda_min_clipped);
    enum err e = sampler_plan_alloc(p, count);
    if (e)
        return e;
    for (int i = 0; i < count; i++) {
        double t;
        if (c->timestep_spacing == SPACING_LINSPACE)
            t = i ? (double)(n - i) * ((double)(last - 1) / n) : last - 1;
        else if (c->timestep_spacing == SPACING_LEADING)
            t = (double)(n - i) * (last / (n + 1)) + c->steps_offset;
        else
            t = rint(last - i * stride) - 1.0;
        p->out->step[i].timestep = (int)rint(t);
    }
    return ERR_OK;
}

// The fractional training timestep that has this sigma.
static double timestep_of_sigma(const struct noise_schedule *ns, double sigma)
{
    double wanted = log(fmax(sigma, 1e-10));
    int low = 0;
    while (low < ns->count - 2 && wanted >= (double)logf(sigma_of(ns, low + 1)))
        low++;
    double a = (double)logf(sigma_of(ns, low)), b = (double)logf(sigma_of(ns, low + 1));
    double w = fmin(fmax((a - wanted) / (a - b), 0.0), 1.0);
    return (1.0 - w) * low + w * (low + 1);
}

// Karras et al. 2022, rho 7. For the cosine schedule timesteps are truncated, for others rounded.
static enum err karras(struct sampler_plan *p)
{
    const struct noise_schedule *ns = p->schedule;
    if (ns->count < 2)
        return fault_set(p->why, ERR_UNSUPPORTED, "use_karras_sigmas",
                         "use_karras_sigmas needs at least two training timesteps");
    enum err e = sampler_plan_alloc(p, p->steps);
    if (e)
        return e;
    double high = pow((double)sigma_of(ns, ns->count - 1), 1.0 / 7.0);
    double low = pow((double)sigma_of(ns, 0), 1.0 / 7.0);
    for (int i = 0; i < p->steps; i++) {
        double ramp = p->steps > 1 ? i * (1.0 / (p->steps - 1)) : 0.0;
        if (i && i == p->steps - 1)
            ramp = 1.0;
        double sigma = pow(high + ramp * (low - high), 7.0), t = timestep_of_sigma(ns, sigma);
        p->out->sigma[i] = (double)(float)sigma;
        p->out->step[i].timestep =
            (int)(p->config->beta_schedule == BETA_SQUAREDCOS ? trunc(t) : rint(t));
    }
    return ERR_OK;
}

static enum err plan_sigmas(struct sampler_plan *p)
{
    const struct scheduler_config *c = p->config;
    struct sampler *s = p->out;
    int most = p->steps + 1;
    s->sigma = calloc((size_t)most + 1, sizeof *s->sigma);
    if (!s->sigma)
        return ERR_NO_MEMORY;
    enum err e = c->use_karras_sigmas ? karras(p)
                 : p->timesteps       ? sampler_plan_steps(p)
                                      : spaced_timesteps(p);
    if (!e)
        e = sampler_plan_check(p);
    if (e)
        return e;
    if (!c->use_karras_sigmas)
        for (int i = 0; i < s->steps; i++)
            s->sigma[i] = (double)sigma_of(p->schedule, s->step[i].timestep);
    s->sigma[s->steps] =
        c->final_sigmas_type == FINAL_SIGMA_MIN ? (double)sigma_of(p->schedule, 0) : 0.0;
    return ERR_OK;
}

// The order of step i. done: number of steps run before; not i for an edit.
static int order_at(const struct scheduler_config *c, int i, int done, int steps)
{
    bool few = c->lower_order_final && steps < 15;
    if (i == steps - 1 && (c->euler_at_final || few || c->final_sigmas_type == FINAL_ZERO))
        return 1;
    int order = done + 1 < c->solver_order ? done + 1 : c->solver_order;
    if (i == steps - 2 && few && order > 2)
        order = 2;
    return order;
}

// Log signal-to-noise ratio for sigma = noise / signal.
static double lambda(double sigma)
{
    return -log(sigma);
}

// x' = .. + d0 D0 + d1 D1 + d2 D2, with D1 and D2 the first and second divided differences of x0.
struct taylor {
    double d0, d1, d2;
};

static struct taylor weights(const struct scheduler_config *c, int order, double h, double signal)
{
    bool sde = c->algorithm_type == ALGORITHM_SDE_DPMPP;
    // The decay over the step: exp(-h), or exp(-2h) if added noise makes up for it.
    double k = sde ? 2.0 * h : h, gone = -expm1(-k);
    struct taylor w = {.d0 = signal * gone};
    if (order == 2 && c->solver_type == SOLVER_MIDPOINT)
        w.d1 = 0.5 * signal * gone;
    else if (order >= 2)
        w.d1 = signal * (1.0 - gone / k);
    if (order == 3)
        w.d2 = sde ? signal * ((gone - k) / (k * k) - 0.5) : -signal * ((k - gone) / (k * k) - 0.5);
    return w;
}

static void set_step(const struct sampler_plan *p, int i)
{
    const struct scheduler_config *c = p->config;
    const double *sigma = p->out->sigma + i;
    struct sampler_step *s = &p->out->step[i];
    int order = order_at(c, i, i - p->begin, p->out->steps);
    double signal = 1.0 / sqrt(sigma[0] * sigma[0] + 1.0), noise = sigma[0] * signal;
    double signal_to = 1.0 / sqrt(sigma[1] * sigma[1] + 1.0), noise_to = sigma[1] * signal_to;
    double h = lambda(sigma[1]) - lambda(sigma[0]);
    sampler_predict_x0(s, c->prediction_type, signal, noise);

    s->cx = noise_to / noise;
    if (c->algorithm_type == ALGORITHM_SDE_DPMPP) {
        s->cx *= exp(-h);
        s->noise = noise_to * sqrt(-expm1(-2.0 * h));
        p->out->stochastic |= s->noise > 0.0;
    }
    struct taylor w = weights(c, order, h, signal_to);
    s->c0 = w.d0;
    if (order == 1)
        return;
    double r0 = (lambda(sigma[0]) - lambda(sigma[-1])) / h;
    if (order == 2) {
        s->c0 += w.d1 / r0;
        s->c1 = -w.d1 / r0;
        return;
    }
    double r1 = (lambda(sigma[-1]) - lambda(sigma[-2])) / h;
    // D1 = a + r0 / (r0 + r1) (a - b), D2 = (a - b) / (r0 + r1), with
    // a = (x0 - h1) / r0 and b = (h1 - h2) / r1.
    double both = (w.d1 * r0 + w.d2) / (r0 + r1), a = (w.d1 + both) / r0, b = -both / r1;
    s->c0 += a;
    s->c1 = b - a;
    s->c2 = -b;
}

static enum err plan(struct sampler_plan *p)
{
    enum err e = check(p);
    if (!e)
        e = plan_sigmas(p);
    if (!e)
        e = sampler_plan_begin(p);
    if (e)
        return e;
    for (int i = p->begin; i < p->out->steps; i++) {
        if (!(p->out->sigma[i] > p->out->sigma[i + 1]))
            return fault_set(p->why, ERR_INVALID, "steps",
                             "%d steps are too many for this schedule: no noise is removed between "
                             "steps %d and %d",
                             p->out->steps, i + 1, i + 2);
        set_step(p, i);
    }
    return ERR_OK;
}

const struct sampler_class sampler_dpm_multistep = {"DPMSolverMultistepScheduler", &defaults, plan};
