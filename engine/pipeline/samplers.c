// The sampler table, and the construction of a sampler: select a class, resolve every key of its
// config, space the timesteps, let the class compute its coefficients. Called when an image is
// admitted or checked, on any thread; knows nothing about devices except the layout of a lane.
#include "samplers.h"

#include "ops.h"
#include "sampler_class.h"
#include "timesteps.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct sampler_class *const classes[] = {
    [SCHEDULER_DDPM] = &sampler_ddpm,
    [SCHEDULER_DDIM] = &sampler_ddim,
    [SCHEDULER_DPM_MULTISTEP] = &sampler_dpm_multistep,
};

#define BIT(key) ((uint64_t)1 << SCHEDULER_KEY_##key)
#define DPM_KEYS (BIT(algorithm_type) | BIT(solver_order) | BIT(use_karras_sigmas))
#define DPM(algorithm, order, karras)                                                              \
    {.cls = SCHEDULER_DPM_MULTISTEP,                                                               \
     .set = DPM_KEYS,                                                                              \
     .algorithm_type = (algorithm),                                                                \
     .solver_order = (order),                                                                      \
     .use_karras_sigmas = (karras)}

// The samplers that a user can select: a class, and the keys that the name sets.
static const struct {
    const char *name;
    struct scheduler_config wants;
} table[] = {
    {"ddpm", {.cls = SCHEDULER_DDPM}},
    {"ddim", {.cls = SCHEDULER_DDIM}},
    {"dpm++2m", DPM(ALGORITHM_DPMPP, 2, false)},
    {"dpm++2m-karras", DPM(ALGORITHM_DPMPP, 2, true)},
    {"dpm++3m", DPM(ALGORITHM_DPMPP, 3, false)},
    {"dpm++3m-karras", DPM(ALGORITHM_DPMPP, 3, true)},
    {"dpm++sde", DPM(ALGORITHM_SDE_DPMPP, 2, false)},
    {"dpm++sde-karras", DPM(ALGORITHM_SDE_DPMPP, 2, true)},
};
enum { TABLE = sizeof table / sizeof *table };

const char *const *sampler_names(void)
{
    static const char *const names[] = {"ddpm",    "ddim",           "dpm++2m",  "dpm++2m-karras",
                                        "dpm++3m", "dpm++3m-karras", "dpm++sde", "dpm++sde-karras",
                                        NULL};
    _Static_assert(sizeof names / sizeof *names == TABLE + 1, "one name per row");
    return names;
}

const char *const *sampler_preset_names(void)
{
    return timesteps_preset_names();
}

// Copies every key that `from` sets.
static void merge(struct scheduler_config *to, const struct scheduler_config *from)
{
#define X(kind, type, key)                                                                         \
    if (SCHEDULER_CONFIG_HAS(from, key))                                                           \
        to->key = from->key;
    SCHEDULER_KEYS(X)
#undef X
    to->set |= from->set;
    to->trained_betas |= from->trained_betas;
}

// Resolves all keys: the class's defaults, then the file's keys, then those set by the sampler's
// name.
static void settle(const struct scheduler_config *file, const struct scheduler_config *wants,
                   struct scheduler_config *out)
{
    enum scheduler_class cls = wants ? wants->cls : file->cls;
    *out = *classes[cls]->defaults;
    merge(out, file);
    if (wants)
        merge(out, wants);
    out->cls = cls;
}

const char *sampler_default_name(const struct scheduler_config *config)
{
    struct scheduler_config c;
    settle(config, NULL, &c);
    for (int i = 0; i < TABLE; i++) {
        const struct scheduler_config *w = &table[i].wants;
        bool same = w->cls == c.cls;
        if (w->cls == SCHEDULER_DPM_MULTISTEP)
            same = same && w->algorithm_type == c.algorithm_type &&
                   w->solver_order == c.solver_order && w->use_karras_sigmas == c.use_karras_sigmas;
        if (same)
            return table[i].name;
    }
    return classes[config->cls]->name;
}

void sampler_predict_x0(struct sampler_step *s, enum prediction_type type, double signal,
                        double noise)
{
    switch (type) {
    case PREDICT_EPSILON:
        s->px = 1.0 / signal;
        s->pm = -noise / signal;
        break;
    case PREDICT_SAMPLE:
        s->px = 0.0;
        s->pm = 1.0;
        break;
    case PREDICT_V:
        s->px = signal;
        s->pm = -noise;
        break;
    }
}

enum err sampler_plan_alloc(struct sampler_plan *p, int n)
{
    p->out->step = calloc((size_t)n, sizeof *p->out->step);
    if (!p->out->step)
        return ERR_NO_MEMORY;
    p->out->steps = n;
    return ERR_OK;
}

enum err sampler_plan_check(struct sampler_plan *p)
{
    for (int i = 0; i < p->out->steps; i++) {
        int t = p->out->step[i].timestep;
        if (t < 0 || t >= p->schedule->count)
            return fault_set(p->why, ERR_INVALID, p->timesteps ? "timesteps" : "steps",
                             "timestep %d is outside 0 to %d", t, p->schedule->count - 1);
    }
    return ERR_OK;
}

enum err sampler_plan_begin(struct sampler_plan *p)
{
    const int steps = p->out->steps;
    const int run = p->strength > 0 ? (int)(steps * p->strength) : steps;

    if (run < 1)
        return fault_set(p->why, ERR_INVALID, "strength",
                         "strength %g leaves none of %d step%s to run; use at least %.2g",
                         p->strength, steps, steps > 1 ? "s" : "", ceil(100.0 / steps) / 100);
    p->begin = run < steps ? steps - run : 0;
    return ERR_OK;
}

// numpy.linspace(0, last, n)[i]
static double even(int last, int n, int i)
{
    if (i == 0)
        return 0.0;
    return i == n - 1 ? last : i * ((double)last / (n - 1));
}

enum err sampler_plan_steps(struct sampler_plan *p)
{
    const struct scheduler_config *c = p->config;
    int n = p->steps, train = c->num_train_timesteps;
    enum err e = sampler_plan_alloc(p, n);
    if (e)
        return e;
    for (int i = 0; i < n; i++) {
        int *t = &p->out->step[i].timestep;
        if (p->timesteps)
            *t = p->timesteps[i];
        else if (c->timestep_spacing == SPACING_LINSPACE)
            *t = (int)rint(even(train - 1, n, n - 1 - i));
        else if (c->timestep_spacing == SPACING_LEADING)
            *t = (n - 1 - i) * (train / n) + c->steps_offset;
        else
            *t = (int)rint(train - i * ((double)train / n)) - 1;
        if (p->timesteps && i && p->timesteps[i] >= p->timesteps[i - 1])
            return fault_set(p->why, ERR_INVALID, "timesteps",
                             "timesteps must decrease, but %d follows %d", p->timesteps[i],
                             p->timesteps[i - 1]);
    }
    return sampler_plan_check(p);
}

static enum err unknown_name(const char *param, const char *name, const char *const *names,
                             struct fault *why)
{
    char list[160] = "";
    size_t at = 0;

    for (int i = 0; names[i] && at < sizeof list; i++)
        at += (size_t)snprintf(list + at, sizeof list - at, "%s%s", i ? ", " : "", names[i]);
    return fault_set(why, ERR_INVALID, param, "unknown %s \"%.40s\"; use one of %s", param, name,
                     list);
}

static enum err find_row(const char *name, const struct scheduler_config **wants, struct fault *why)
{
    for (int i = 0; i < TABLE; i++)
        if (!strcmp(table[i].name, name)) {
            *wants = &table[i].wants;
            return ERR_OK;
        }
    return unknown_name("sampler", name, sampler_names(), why);
}

// Selects the list of timesteps that the caller passed or named; p->timesteps stays NULL if
// neither.
static enum err choose_timesteps(const struct sampler_params *given, int *preset,
                                 struct sampler_plan *p)
{
    p->timesteps = given->timesteps;
    p->steps = given->timesteps ? given->timestep_count : given->steps;
    if (given->preset) {
        p->timesteps = preset;
        p->steps = timesteps_preset(given->preset, preset);
        if (!p->steps)
            return unknown_name("timesteps", given->preset, sampler_preset_names(), p->why);
        if (p->config->num_train_timesteps != TIMESTEPS_PRESET_RANGE)
            return fault_set(
                p->why, ERR_INVALID, "timesteps",
                "named timestep lists require %d training timesteps, but the model has %d",
                TIMESTEPS_PRESET_RANGE, p->config->num_train_timesteps);
    }
    if (p->steps < 1 || p->steps > p->config->num_train_timesteps)
        return fault_set(p->why, ERR_INVALID, "steps", "steps must be 1 to %d, not %d",
                         p->config->num_train_timesteps, p->steps);
    return ERR_OK;
}

// DPM-Solver ignores clip_sample, which a file may keep from another class.
static bool clips(const struct scheduler_config *c)
{
    return c->clip_sample && c->cls != SCHEDULER_DPM_MULTISTEP;
}

static enum err check_threshold(const struct scheduler_config *c, struct fault *why)
{
    if (c->thresholding &&
        !(c->dynamic_thresholding_ratio >= 0.0 && c->dynamic_thresholding_ratio <= 1.0))
        return fault_set(why, ERR_UNSUPPORTED, "dynamic_thresholding_ratio",
                         "dynamic_thresholding_ratio %g is not within 0 to 1",
                         c->dynamic_thresholding_ratio);
    if (c->thresholding && !(c->sample_max_value >= 1.0 && isfinite(c->sample_max_value)))
        return fault_set(why, ERR_UNSUPPORTED, "sample_max_value",
                         "sample_max_value %g must be finite and at least 1", c->sample_max_value);
    if (clips(c) && !(c->clip_sample_range > 0.0))
        return fault_set(why, ERR_UNSUPPORTED, "clip_sample_range",
                         "clip_sample_range %g must be above 0", c->clip_sample_range);
    return ERR_OK;
}

static void set_threshold(const struct scheduler_config *c, struct sampler *s)
{
    if (c->thresholding) {
        // With a cap of 1 the quantile has no effect: dynamic thresholding is clipping, which is
        // free.
        bool cap = c->sample_max_value > 1.0;
        s->threshold = cap ? THRESHOLD_DYNAMIC : THRESHOLD_CLIP;
        s->max_value = c->sample_max_value;
        s->quantile = c->dynamic_thresholding_ratio;
    } else if (clips(c)) {
        s->threshold = THRESHOLD_CLIP;
        s->max_value = c->clip_sample_range;
    }
}

// The parts of clean image and noise before step i.
static void mix_before(const struct sampler_plan *p, int i, double *signal, double *noise)
{
    const struct sampler *s = p->out;
    if (s->sigma) {
        *signal = 1.0 / sqrt(s->sigma[i] * s->sigma[i] + 1.0);
        *noise = s->sigma[i] * *signal;
    } else {
        const float bar = p->schedule->alphas_cumprod[s->step[i].timestep];
        *signal = (double)sqrtf(bar);
        *noise = (double)sqrtf(1.0f - bar);
    }
}

// Removes the steps before the first one to run.
static void drop_steps(struct sampler_plan *p)
{
    struct sampler *s = p->out;
    s->skipped = p->begin;
    s->steps -= p->begin;
    memmove(s->step, s->step + p->begin, (size_t)s->steps * sizeof *s->step);
    if (s->sigma)
        memmove(s->sigma, s->sigma + p->begin, ((size_t)s->steps + 1) * sizeof *s->sigma);
    mix_before(p, 0, &s->start_signal, &s->start_noise);
    for (int i = 0; i + 1 < s->steps; i++)
        mix_before(p, i + 1, &s->step[i].next_signal, &s->step[i].next_noise);
    s->step[s->steps - 1].next_signal = 1;
    s->step[s->steps - 1].next_noise = 0;
}

enum err sampler_create(const struct sampler_params *p, struct sampler **out, struct fault *why)
{
    struct scheduler_config c;
    struct noise_schedule *schedule = NULL;
    struct sampler *s = NULL;
    const struct scheduler_config *wants = NULL;
    int preset[TIMESTEPS_PRESET_MAX];
    enum err e = ERR_OK;

    *out = NULL;
    if (p->name && (e = find_row(p->name, &wants, why)) != ERR_OK)
        return e;
    settle(p->config, wants, &c);
    if (c.trained_betas)
        return fault_set(why, ERR_UNSUPPORTED, "trained_betas", "trained_betas is not supported");
    if (!(p->eta >= 0.0 && p->eta <= 1.0))
        return fault_set(why, ERR_INVALID, "eta", "eta must be 0 to 1");
    if (!(p->strength >= 0.0 && p->strength <= 1.0))
        return fault_set(why, ERR_INVALID, "strength", "strength must be above 0 and at most 1");
    struct sampler_plan plan = {.config = &c, .eta = p->eta, .strength = p->strength, .why = why};
    e = check_threshold(&c, why);
    if (!e)
        e = noise_schedule_create(&c, &schedule, why);
    if (!e)
        e = choose_timesteps(p, preset, &plan);
    if (e)
        goto fail;
    e = ERR_NO_MEMORY;
    s = calloc(1, sizeof *s);
    if (!s)
        goto fail;
    s->cls = c.cls;
    snprintf(s->name, sizeof s->name, "%s", p->name ? p->name : sampler_default_name(p->config));
    set_threshold(&c, s);
    plan.schedule = schedule;
    plan.out = s;
    e = classes[c.cls]->plan(&plan);
    if (!e)
        e = sampler_plan_begin(&plan);
    if (e)
        goto fail;
    drop_steps(&plan);
    *out = s;
    s = NULL;
fail:
    sampler_destroy(&s);
    noise_schedule_destroy(&schedule);
    return e;
}

void sampler_destroy(struct sampler **s)
{
    if (!*s)
        return;
    free((*s)->step);
    free((*s)->sigma);
    free(*s);
    *s = NULL;
}

enum err sampler_copy(const struct sampler *s, struct sampler **out)
{
    struct sampler *c = malloc(sizeof *c);

    *out = NULL;
    if (!c)
        return ERR_NO_MEMORY;
    *c = *s;
    c->sigma = NULL; // not needed after planning
    c->step = malloc((size_t)s->steps * sizeof *c->step);
    if (!c->step) {
        free(c);
        return ERR_NO_MEMORY;
    }
    memcpy(c->step, s->step, (size_t)s->steps * sizeof *c->step);
    *out = c;
    return ERR_OK;
}

void sampler_fill_lane(const struct sampler *s, int i, struct op_lane *lane)
{
    const struct sampler_step *t = &s->step[i];
    lane->step = (uint32_t)i;
    lane->history = (uint32_t)(i % 3);
    lane->threshold = (uint32_t)s->threshold;
    lane->px = (float)t->px;
    lane->pm = (float)t->pm;
    lane->cx = (float)t->cx;
    lane->cm = (float)t->cm;
    lane->c0 = (float)t->c0;
    lane->c1 = (float)t->c1;
    lane->c2 = (float)t->c2;
    lane->noise = (float)t->noise;
    lane->learned = (float)t->learned;
    lane->logvar_min = (float)t->logvar_min;
    lane->logvar_max = (float)t->logvar_max;
    lane->max_value = (float)s->max_value;
    lane->quantile = (float)s->quantile;
    lane->timestep = (float)t->timestep;
}

enum err sampler_noise_mix(const struct scheduler_config *config, int noise_level, double *a,
                           double *b, struct fault *why)
{
    struct scheduler_config c;
    struct noise_schedule *schedule = NULL;
    settle(config, NULL, &c);
    if (c.trained_betas)
        return fault_set(why, ERR_UNSUPPORTED, "trained_betas", "trained_betas is not supported");
    enum err e = noise_schedule_create(&c, &schedule, why);
    if (e)
        return e;
    if (noise_level < 0 || noise_level >= schedule->count) {
        e = fault_set(why, ERR_INVALID, "noise_level", "noise_level must be 0 to %d, not %d",
                      schedule->count - 1, noise_level);
    } else {
        float bar = schedule->alphas_cumprod[noise_level];
        *a = (double)sqrtf(bar);
        *b = (double)sqrtf(1.0f - bar);
    }
    noise_schedule_destroy(&schedule);
    return e;
}
