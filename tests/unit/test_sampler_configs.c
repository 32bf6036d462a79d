// The rules of samplers that no table of diffusers holds: kinds of predictions, keys and presets of
// scheduler configs, the orders of the last steps, refusals.
#include "hfconfig.h"
#include "noise_schedule.h"
#include "sampler_test.h"
#include "test.h"

#define PARSE(c, text)                                                                             \
    CHECK(!hfconfig_scheduler_parse("{" text "}", strlen("{" text "}"), "test", c, NULL))
#define DDPM_CLASS "\"_class_name\": \"DDPMScheduler\""
#define DPM_CLASS "\"_class_name\": \"DPMSolverMultistepScheduler\""

static double run_step(const struct sampler_step *s, double x, double m, const double h[2])
{
    double x0 = s->px * x + s->pm * m;
    return s->cx * x + s->cm * m + s->c0 * x0 + s->c1 * h[0] + s->c2 * h[1];
}

// Noise, clean picture and velocity say the same thing, so every kind of model takes the same step,
// but for the float rounding of 1 - alphas_cumprod (6e-8).
static void check_predictions(void)
{
    static const char *const kinds[] = {"epsilon", "sample", "v_prediction"};
    const double h[2] = {0.3, -0.2}, x = 0.7, x0 = 0.4;
    for (int n = 0; sampler_names()[n]; n++) {
        struct sampler *s[3] = {NULL};
        for (int k = 0; k < 3; k++) {
            struct scheduler_config c;
            char text[200];
            snprintf(text, sizeof text,
                     "{" DDPM_CLASS ", \"clip_sample\": false, \"prediction_type\": \"%s\"}",
                     kinds[k]);
            CHECK(!hfconfig_scheduler_parse(text, strlen(text), "test", &c, NULL));
            s[k] = make_sampler(
                &(struct sampler_params){.config = &c, .name = sampler_names()[n], .steps = 20},
                sampler_names()[n]);
        }
        for (int i = 0; s[0] && s[1] && s[2] && i < 20; i++) {
            const struct sampler_step *e = &s[0]->step[i];
            double signal = 1.0 / e->px, noise = -e->pm / e->px, eps = (x - signal * x0) / noise;
            double want = run_step(e, x, eps, h);
            CHECK_NEAR(run_step(&s[1]->step[i], x, x0, h), want, 1e-7);
            CHECK_NEAR(run_step(&s[2]->step[i], x, signal * eps - noise * x0, h), want, 1e-7);
            CHECK_STR(s[1]->name, sampler_names()[n]);
        }
        for (int k = 0; k < 3; k++)
            sampler_destroy(&s[k]);
    }
}

// The file's keys stay, absent ones take the new class's default.
static void check_rebase(void)
{
    struct scheduler_config c;
    PARSE(&c, DDPM_CLASS ", \"thresholding\": true, \"sample_max_value\": 1.5");
    CHECK_STR(sampler_default_name(&c), "ddpm");
    struct sampler_params p = {.config = &c, .name = "dpm++2m", .steps = 10};
    struct sampler *s = make_sampler(&p, "rebase");
    CHECK(s && s->step[0].timestep == 999 && s->threshold == THRESHOLD_DYNAMIC);
    CHECK(s && s->max_value == 1.5);
    sampler_destroy(&s);
    PARSE(&c, DDPM_CLASS ", \"timestep_spacing\": \"leading\"");
    s = make_sampler(&p, "rebase");
    CHECK(s && s->step[0].timestep == 900 && s->threshold == THRESHOLD_NONE);
    sampler_destroy(&s);
    PARSE(&c, DPM_CLASS ", \"variance_type\": null");
    p.name = "ddpm";
    s = make_sampler(&p, "no variance type");
    PARSE(&c, DPM_CLASS ", \"variance_type\": \"fixed_small\"");
    struct sampler *small = make_sampler(&p, "fixed_small");
    for (int i = 0; s && small && i < 10; i++)
        CHECK(s->step[i].noise == small->step[i].noise && (s->step[i].noise > 0.0) == (i < 9));
    sampler_destroy(&small);
    sampler_destroy(&s);
    PARSE(&c, DPM_CLASS ", \"use_karras_sigmas\": true");
    CHECK_STR(sampler_default_name(&c), "dpm++2m-karras");
    p.name = NULL;
    s = make_sampler(&p, "own");
    CHECK(s && s->cls == SCHEDULER_DPM_MULTISTEP);
    sampler_destroy(&s);
    PARSE(&c, DDPM_CLASS ", \"rescale_betas_zero_snr\": true, \"timestep_spacing\": "
                         "\"trailing\", \"prediction_type\": \"v_prediction\"");
    s = make_sampler(&p, "zero terminal SNR");
    CHECK(s && s->step[0].px == 0.0 && s->step[0].pm == -1.0 && isfinite(s->step[0].c0));
    sampler_destroy(&s);
}

// ---- names --------------------------------------------------------------------------------------

static bool same_steps(const struct sampler *a, const struct sampler *b)
{
    bool same = a->steps == b->steps && a->stochastic == b->stochastic;

    for (int i = 0; same && i < a->steps; i++) {
        const struct sampler_step *x = &a->step[i], *y = &b->step[i];
        same = x->timestep == y->timestep && x->cx == y->cx && x->c0 == y->c0 && x->c1 == y->c1 &&
               x->c2 == y->c2 && x->noise == y->noise;
    }
    return same;
}

// A name stands for the keys that are written out here, whatever the file says of them; a file with
// just these keys runs what the name says.
static void check_names(void)
{
    static const struct {
        const char *name, *keys;
        bool stochastic;
    } rows[] = {
        {"ddpm", DDPM_CLASS, true},
        {"ddim", "\"_class_name\": \"DDIMScheduler\"", false},
        {"dpm++2m", DPM_CLASS ", \"solver_order\": 2", false},
        {"dpm++2m-karras", DPM_CLASS ", \"solver_order\": 2, \"use_karras_sigmas\": true", false},
        {"dpm++3m", DPM_CLASS ", \"solver_order\": 3", false},
        {"dpm++3m-karras", DPM_CLASS ", \"solver_order\": 3, \"use_karras_sigmas\": true", false},
        {"dpm++sde", DPM_CLASS ", \"algorithm_type\": \"sde-dpmsolver++\"", true},
        {"dpm++sde-karras",
         DPM_CLASS ", \"algorithm_type\": \"sde-dpmsolver++\", \"use_karras_sigmas\": true", true},
    };
    enum { ROWS = sizeof rows / sizeof *rows };
    struct scheduler_config file, contrary;
    struct sampler *own[ROWS];
    int names = 0;

    PARSE(&contrary, DPM_CLASS ", \"solver_order\": 1, \"use_karras_sigmas\": true, "
                               "\"algorithm_type\": \"dpmsolver++\"");
    for (int i = 0; i < ROWS; i++) {
        char text[200];
        snprintf(text, sizeof text, "{%s}", rows[i].keys);
        CHECK(!hfconfig_scheduler_parse(text, strlen(text), "test", &file, NULL));
        CHECK_STR(sampler_default_name(&file), rows[i].name);
        own[i] = make_sampler(&(struct sampler_params){.config = &file, .steps = 20}, rows[i].name);
        CHECK_STR(own[i]->name, rows[i].name);
        CHECK_INT(own[i]->stochastic, rows[i].stochastic);
        struct sampler *named = make_sampler(
            &(struct sampler_params){.config = &contrary, .name = rows[i].name, .steps = 20},
            "named");
        CHECK_MSG(same_steps(named, own[i]), "%s", rows[i].name);
        for (int k = 0; k < i; k++)
            CHECK_MSG(!same_steps(own[k], own[i]), "%s and %s", rows[k].name, rows[i].name);
        sampler_destroy(&named);
        CHECK_STR(sampler_names()[i], rows[i].name);
    }
    while (sampler_names()[names])
        names++;
    CHECK_INT(names, ROWS);
    // Order 1 has no name in the table, so it is called what diffusers calls it.
    CHECK_STR(sampler_default_name(&contrary), "DPMSolverMultistepScheduler");
    for (int i = 0; i < ROWS; i++)
        sampler_destroy(&own[i]);
}

// ---- the last steps of DPM-Solver ---------------------------------------------------------------

// Of which order a step is shows in the estimates that it looks at.
static int order_of(const struct sampler_step *s)
{
    return s->c2 != 0 ? 3 : s->c1 != 0 ? 2 : 1;
}

// Source: diffusers' step(): lower_order_final counts below 15 steps, euler_at_final and a last
// sigma of zero at any number of them.
static void check_last_orders(void)
{
    static const struct {
        const char *keys;
        int steps, second, last; // orders of the last but one and of the last step
    } rows[] = {
        {"\"final_sigmas_type\": \"sigma_min\"", 14, 2, 1},
        {"\"final_sigmas_type\": \"sigma_min\"", 15, 3, 3},
        {"\"final_sigmas_type\": \"sigma_min\", \"lower_order_final\": false", 14, 3, 3},
        {"\"final_sigmas_type\": \"sigma_min\", \"euler_at_final\": true", 20, 3, 1},
        {"\"final_sigmas_type\": \"zero\", \"lower_order_final\": false", 14, 3, 1},
        {"\"final_sigmas_type\": \"zero\"", 14, 2, 1},
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct scheduler_config c;
        char text[300];
        snprintf(text, sizeof text, "{" DPM_CLASS ", \"solver_order\": 3, %s}", rows[i].keys);
        CHECK(!hfconfig_scheduler_parse(text, strlen(text), "test", &c, NULL));
        struct sampler *s = make_sampler(
            &(struct sampler_params){.config = &c, .steps = rows[i].steps}, rows[i].keys);
        CHECK_INT(order_of(&s->step[0]), 1);
        CHECK_INT(order_of(&s->step[1]), 2);
        CHECK_INT(order_of(&s->step[2]), 3);
        CHECK_MSG(order_of(&s->step[rows[i].steps - 2]) == rows[i].second, "row %zu", i);
        CHECK_MSG(order_of(&s->step[rows[i].steps - 1]) == rows[i].last, "row %zu", i);
        sampler_destroy(&s);
    }
}

// ---- variance, thresholds, the ends of the schedule ---------------------------------------------

static void check_keys(void)
{
    static const struct {
        const char *variance;
        bool needed;
    } rows[] = {{"fixed_small", false},
                {"fixed_small_log", false},
                {"fixed_large", false},
                {"learned_range", true},
                {"learned", true}};
    struct scheduler_config c;

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[200];
        snprintf(text, sizeof text, "{" DDPM_CLASS ", \"variance_type\": \"%s\"}",
                 rows[i].variance);
        CHECK(!hfconfig_scheduler_parse(text, strlen(text), "test", &c, NULL));
        struct sampler *s = make_sampler(&(struct sampler_params){.config = &c, .steps = 5}, text);
        CHECK_MSG(s->needs_variance == rows[i].needed, "%s", rows[i].variance);
        sampler_destroy(&s);
    }
    // DPM-Solver does not know clip_sample.
    PARSE(&c, DPM_CLASS ", \"clip_sample\": true");
    struct sampler *s = make_sampler(&(struct sampler_params){.config = &c, .steps = 5}, "clip");
    CHECK_INT(s->threshold, THRESHOLD_NONE);
    sampler_destroy(&s);
    // No timestep whose log of signal to noise lies below the clip, as far up as there are others.
    PARSE(&c, DPM_CLASS ", \"lambda_min_clipped\": -2");
    struct sampler *clipped =
        make_sampler(&(struct sampler_params){.config = &c, .steps = 5}, "lambda");
    PARSE(&c, DPM_CLASS);
    s = make_sampler(&(struct sampler_params){.config = &c, .steps = 5}, "lambda");
    CHECK(s->step[0].timestep == 999 && log(s->sigma[0]) > 2);
    CHECK(clipped->step[0].timestep < 999 && log(clipped->sigma[0]) <= 2 &&
          log(clipped->sigma[0]) > 1.98);
    sampler_destroy(&clipped);
    sampler_destroy(&s);
}

static void expect_refusal(const struct sampler_params *p, enum err e, const char *param)
{
    struct sampler *s = NULL;
    struct fault why = {0};
    CHECK_INT(sampler_create(p, &s, &why), e);
    CHECK_STR(why.param, param);
    CHECK(!s && why.msg[0]);
    sampler_destroy(&s);
}

static void check_refusals(void)
{
    static const int rising[] = {10, 20}, far[] = {1000, 10}, good[] = {900, 10};
    struct scheduler_config c;
    PARSE(&c, DDPM_CLASS);
    struct sampler_params p = {.config = &c, .steps = 10};
    p.name = "euler";
    expect_refusal(&p, ERR_INVALID, "sampler");
    p.name = NULL;
    p.preset = "fast28";
    expect_refusal(&p, ERR_INVALID, "timesteps");
    p.preset = NULL;
    p.steps = 0;
    expect_refusal(&p, ERR_INVALID, "steps");
    p.steps = 1001;
    expect_refusal(&p, ERR_INVALID, "steps");
    p.timestep_count = 2;
    p.timesteps = rising;
    expect_refusal(&p, ERR_INVALID, "timesteps");
    p.timesteps = far;
    expect_refusal(&p, ERR_INVALID, "timesteps");
    p.timesteps = good;
    p.name = "ddim";
    expect_refusal(&p, ERR_INVALID, "timesteps");
    p.name = "dpm++2m-karras";
    expect_refusal(&p, ERR_INVALID, "timesteps");
    p = (struct sampler_params){.config = &c, .steps = 10, .eta = 1.5};
    expect_refusal(&p, ERR_INVALID, "eta");
    p.eta = 0.0;
    static const char *const missing[] = {"use_exponential_sigmas", "use_beta_sigmas",
                                          "use_lu_lambdas", "use_flow_sigmas",
                                          "use_dynamic_shifting"};
    for (size_t i = 0; i < sizeof missing / sizeof *missing; i++) {
        char text[200];
        snprintf(text, sizeof text, "{" DPM_CLASS ", \"%s\": true}", missing[i]);
        CHECK(!hfconfig_scheduler_parse(text, strlen(text), "test", &c, NULL));
        expect_refusal(&p, ERR_UNSUPPORTED, missing[i]);
    }
    static const char *const betas[] = {"1", "1.5", "-0.1"};
    for (size_t i = 0; i < 2 * sizeof betas / sizeof *betas; i++) {
        char text[200];
        snprintf(text, sizeof text, "{" DDPM_CLASS ", \"%s\": %s}",
                 i % 2 ? "beta_end" : "beta_start", betas[i / 2]);
        CHECK(!hfconfig_scheduler_parse(text, strlen(text), "test", &c, NULL));
        expect_refusal(&p, ERR_UNSUPPORTED, "beta_start");
    }
    // The named lists are made for a thousand timesteps.
    PARSE(&c, DDPM_CLASS ", \"num_train_timesteps\": 1001");
    p.preset = "fast27";
    expect_refusal(&p, ERR_INVALID, "timesteps");
    p.preset = NULL;
    PARSE(&c, DPM_CLASS ", \"algorithm_type\": \"dpmsolver\"");
    expect_refusal(&p, ERR_UNSUPPORTED, "algorithm_type");
    PARSE(&c, DPM_CLASS ", \"solver_order\": 4");
    expect_refusal(&p, ERR_UNSUPPORTED, "solver_order");
    PARSE(&c, DDPM_CLASS ", \"variance_type\": \"fixed_large_log\"");
    expect_refusal(&p, ERR_UNSUPPORTED, "variance_type");
}

void check_configs(void)
{
    check_predictions();
    check_rebase();
    check_names();
    check_last_orders();
    check_keys();
    check_refusals();
}
