// Every sampler compared with tables made by diffusers: betas, lists of timesteps, step-by-step
// trajectories; then test_sampler_configs.c. Argument: a folder with the layout of tests/golden.
// Needs no device; the plain C reference runs the steps.
#include "hfconfig.h"
#include "json.h"
#include "noise_schedule.h"
#include "ops.h"
#include "ref_maps.h"
#include "safetensors.h"
#include "sampler_test.h"
#include "test.h"

#include <stdlib.h>

static struct json_t *manifest;
static const char *dir;

static const char *path_of(const char *a, const char *b)
{
    static char path[2][1024];
    static int turn;
    turn = !turn;
    snprintf(path[turn], sizeof path[turn], "%s/%s%s", dir, a, b);
    return path[turn];
}

static const struct json_t *fixture(const char *file)
{
    return json_find(json_find(manifest, "fixtures"), file);
}

static double meta(const char *file, const char *tensor, const char *key)
{
    return json_number(json_find(json_find(json_find(fixture(file), "tensors"), tensor), key));
}

// A tensor as floats, freed by the caller; NULL when the file has none. len may be NULL.
static float *load(const struct safetensors *st, const char *a, const char *b, size_t *len)
{
    char name[160];
    snprintf(name, sizeof name, "%s%s", a, b);
    const struct safetensor *t = safetensors_find(st, name);
    if (!t)
        return NULL;
    float *v = malloc(t->elements * sizeof *v + 1);
    if (t->dtype == ST_I64)
        for (size_t i = 0; i < t->elements; i++) {
            int64_t x;
            memcpy(&x, (const char *)t->data + i * sizeof x, sizeof x);
            v[i] = (float)x;
        }
    else
        safetensors_f32(t, 0, t->elements, v);
    if (len)
        *len = t->elements;
    return v;
}

struct sampler *make_sampler(const struct sampler_params *p, const char *what)
{
    struct sampler *s = NULL;
    struct fault why = {0};
    enum err e = sampler_create(p, &s, &why);
    CHECK_MSG(!e, "%s: %s", what, why.msg);
    return s;
}

// ---- betas ----------------------------------------------------------------------------------

static void check_betas_of(const struct safetensors *st, const char *name)
{
    const char *file = "schedulers/betas.safetensors";
    const struct json_t *about = json_find(json_find(fixture(file), "tensors"), name);
    const char *meaning = json_text(json_find(about, "meaning"), NULL), *text, *dot;
    struct scheduler_config c = {0};
    struct noise_schedule *s = NULL;
    struct fault why = {0};
    size_t n;
    char config[256];
    text = meaning ? strchr(meaning, '{') : NULL;
    dot = strrchr(name, '.');
    CHECK_MSG(text && dot, "%s does not say its config", name);
    if (!text || !dot)
        return;
    snprintf(config, sizeof config, "{\"_class_name\": \"DDPMScheduler\", %s", text + 1);
    CHECK_MSG(!hfconfig_scheduler_parse(config, strlen(config), name, &c, &why), "%s: %s", name,
              why.msg);
    c.num_train_timesteps = 1000;
    if (!SCHEDULER_CONFIG_HAS(&c, beta_start))
        c.beta_start = 0.0001;
    if (!SCHEDULER_CONFIG_HAS(&c, beta_end))
        c.beta_end = 0.02;
    CHECK_MSG(!noise_schedule_create(&c, &s, &why), "%s: %s", name, why.msg);
    float *want = load(st, name, "", &n);
    if (s && want && n == (size_t)s->count) {
        const float *got = strcmp(dot, ".betas") ? s->alphas_cumprod : s->beta;
        double atol = meta(file, name, "atol"), rtol = meta(file, name, "rtol"), worst = 0;
        for (size_t i = 0; i < n; i++)
            worst = fmax(worst, fabs((double)got[i] - (double)want[i]) /
                                    fmin(atol + 1e-12, rtol * fabs((double)want[i]) + 1e-12));
        printf("%-40s %8.4f of the tolerance\n", name, worst);
        CHECK_MSG(worst <= 1.0, "%s", name);
    } else {
        CHECK_MSG(0, "%s has not the right length", name);
    }
    free(want);
    noise_schedule_destroy(&s);
}

static void check_add_noise(const struct safetensors *st)
{
    struct scheduler_config c = {.set = 1u << SCHEDULER_KEY_beta_schedule,
                                 .beta_schedule = BETA_SQUAREDCOS};
    size_t n = 0, steps = 0;
    float *x = load(st, "add_noise.", "sample", NULL), *z = load(st, "add_noise.", "noise", NULL);
    float *t = load(st, "add_noise.", "timesteps", &steps);
    float *want = load(st, "add_noise.", "out", &n);
    double tolerance = meta("schedulers/betas.safetensors", "add_noise.out", "atol"), worst = 0;
    CHECK(x && z && t && want && steps && tolerance > 0.0);
    for (size_t i = 0; want && i < n; i++) {
        double a, b;
        CHECK(!sampler_noise_mix(&c, (int)t[i / (n / steps)], &a, &b, NULL));
        worst = fmax(worst, fabs(a * (double)x[i] + b * (double)z[i] - (double)want[i]));
    }
    printf("%-40s %8.4f of the tolerance\n", "add_noise", worst / tolerance);
    CHECK(worst <= tolerance);
    free(x);
    free(z);
    free(t);
    free(want);
}

static void check_betas(void)
{
    struct safetensors *st = NULL;
    struct fault why = {0};
    enum err e = safetensors_open_file(path_of("schedulers/betas.safetensors", ""), &st, &why);
    CHECK_MSG(!e, "%s", why.msg);
    for (size_t i = 0; st && i < safetensors_count(st); i++) {
        const char *name = safetensors_at(st, i)->name;
        if (strncmp(name, "add_noise.", 10))
            check_betas_of(st, name);
    }
    if (st)
        check_add_noise(st);
    safetensors_close(&st);
}

// ---- lists of timesteps ---------------------------------------------------------------------

#define CONFIG(label, text) {label, sizeof label - 1, text}
static const struct {
    const char *label;
    size_t length;
    const char *config;
} lists[] = {
    CONFIG("ddpm/", "\"_class_name\": \"DDPMScheduler\", \"beta_schedule\": \"squaredcos_cap_v2\""),
    CONFIG("ddim/", "\"_class_name\": \"DDIMScheduler\", \"beta_schedule\": \"squaredcos_cap_v2\""),
    CONFIG("ddim_offset1/", "\"_class_name\": \"DDIMScheduler\", \"beta_schedule\": "
                            "\"scaled_linear\", \"steps_offset\": 1, \"set_alpha_to_one\": false"),
    CONFIG("dpm/", "\"_class_name\": \"DPMSolverMultistepScheduler\", \"beta_schedule\": "
                   "\"squaredcos_cap_v2\""),
    CONFIG("dpm_karras/", "\"_class_name\": \"DPMSolverMultistepScheduler\", \"beta_schedule\": "
                          "\"squaredcos_cap_v2\", \"use_karras_sigmas\": true"),
    CONFIG("dpm_linear/", "\"_class_name\": \"DPMSolverMultistepScheduler\", \"beta_schedule\": "
                          "\"linear\""),
    CONFIG("dpm_karras_linear/", "\"_class_name\": \"DPMSolverMultistepScheduler\", "
                                 "\"beta_schedule\": \"linear\", \"use_karras_sigmas\": true"),
};

static bool config_of(const char *label, struct scheduler_config *c)
{
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        if (strncmp(label, lists[i].label, lists[i].length))
            continue;
        char text[512];
        snprintf(text, sizeof text, "{%s, \"timestep_spacing\": \"%s\"}", lists[i].config,
                 label + lists[i].length);
        struct fault why = {0};
        enum err e = hfconfig_scheduler_parse(text, strlen(text), label, c, &why);
        CHECK_MSG(!e, "%s: %s", label, why.msg);
        return !e;
    }
    CHECK_MSG(0, "no config is known for the lists of %s", label);
    return false;
}

static void check_list(const struct sampler *s, const struct json_t *want, const char *what)
{
    CHECK_MSG((size_t)s->steps == json_count(want), "%s: %d steps", what, s->steps);
    for (int i = 0; i < s->steps && (size_t)i < json_count(want); i++)
        CHECK_MSG(s->step[i].timestep == json_int(json_item(want, (size_t)i)),
                  "%s, step %d: timestep %d", what, i, s->step[i].timestep);
}

static void check_sigmas(const struct sampler *s, const struct json_t *want, const char *what)
{
    CHECK_MSG((size_t)s->steps + 1 == json_count(want), "%s: %d steps", what, s->steps);
    for (int i = 0; i <= s->steps && (size_t)i < json_count(want); i++) {
        double x = json_number(json_item(want, (size_t)i));
        CHECK_MSG(fabs(s->sigma[i] - x) <= 1e-5 * x, "%s, step %d: sigma %.9g, expected %.9g", what,
                  i, s->sigma[i], x);
    }
}

static void check_lists_of(const char *label, const struct json_t *list)
{
    struct scheduler_config c;
    const char *key;
    const struct json_t *want;
    if (!config_of(label, &c))
        return;
    for (void *at = NULL; json_next(list, &at, &key, &want);) {
        bool sigmas = !strncmp(key, "sigmas_", 7);
        char what[200];
        snprintf(what, sizeof what, "%s/%s", label, key);
        struct sampler *s = make_sampler(
            &(struct sampler_params){.config = &c, .steps = atoi(sigmas ? key + 7 : key)}, what);
        if (s && sigmas)
            check_sigmas(s, want, what);
        else if (s)
            check_list(s, want, what);
        sampler_destroy(&s);
    }
}

static void check_presets(const struct json_t *named)
{
    struct scheduler_config c = {.cls = SCHEDULER_DDPM};
    const char *key;
    const struct json_t *want;
    size_t known = 0;
    for (void *at = NULL; json_next(named, &at, &key, &want);) {
        char name[40];
        snprintf(name, sizeof name, "%.*s", (int)strcspn(key, "_"), key);
        struct sampler *s =
            make_sampler(&(struct sampler_params){.config = &c, .preset = name}, name);
        if (s)
            check_list(s, want, name);
        sampler_destroy(&s);
    }
    while (sampler_preset_names()[known])
        known++;
    CHECK_INT(known, json_count(named));
}

static void check_timesteps(void)
{
    struct json_t *doc = NULL;
    struct fault why = {0};
    const char *key;
    const struct json_t *v;
    enum err e = json_parse_file(path_of("schedulers/timesteps.json", ""), 1 << 24, &doc, &why);
    CHECK_MSG(!e, "%s", why.msg);
    for (void *at = NULL; doc && json_next(doc, &at, &key, &v);) {
        if (!strcmp(key, "if_named"))
            check_presets(v);
        else
            check_lists_of(key, v);
    }
    json_destroy(&doc);
}

// ---- steps ----------------------------------------------------------------------------------

struct step_case {
    const char *name;
    struct sampler *sampler;
    size_t batch, channels, pixels; // model output [steps, batch, channels, pixels]
    float *init, *m, *noise, *x, *x0;
};

static size_t at_nchw(size_t pixels, size_t channels, size_t i, size_t c, size_t p)
{
    return (i * channels + c) * pixels + p;
}

// One picture of the batch through all steps; worst[step] takes the largest error of x.
static void run_picture(const struct step_case *k, size_t picture, double *worst, double *worst_x0)
{
    size_t values = k->pixels * 3;
    float *x = calloc(values * 6 + k->pixels * k->channels, sizeof *x);
    float *z = x + values, *m = z + values, *h[3];
    for (int i = 0; i < 3; i++)
        h[i] = m + k->pixels * k->channels + values * (size_t)i;
    for (size_t i = 0; i < values; i++)
        x[i] = k->init[at_nchw(k->pixels, 3, picture, i % 3, i / 3)];
    for (int s = 0; s < k->sampler->steps; s++) {
        struct op_lane lane = {.guidance = 1};
        size_t sample = (size_t)s * k->batch + picture;
        sampler_fill_lane(k->sampler, s, &lane);
        for (size_t i = 0; i < k->pixels * k->channels; i++)
            m[i] = k->m[at_nchw(k->pixels, k->channels, sample, i % k->channels, i / k->channels)];
        for (size_t i = 0; k->noise && i < values; i++)
            z[i] = k->noise[at_nchw(k->pixels, 3, sample, i % 3, i / 3)];
        ref_sampler_step(&(struct ref_step_params){.lane = &lane,
                                                   .pixels = (uint32_t)k->pixels,
                                                   .channels = 3,
                                                   .mc = (uint32_t)k->channels,
                                                   .m = m,
                                                   .h1 = h[(s + 2) % 3],
                                                   .h2 = h[(s + 1) % 3],
                                                   .z = z,
                                                   .x = x,
                                                   .x0 = h[s % 3]});
        for (size_t i = 0; i < values; i++) {
            size_t j = at_nchw(k->pixels, 3, sample, i % 3, i / 3);
            worst[s] = fmax(worst[s], fabs((double)x[i] - (double)k->x[j]));
            if (k->x0)
                *worst_x0 = fmax(*worst_x0, fabs((double)h[s % 3][i] - (double)k->x0[j]));
        }
    }
    free(x);
}

static void check_steps(const struct step_case *k)
{
    const char *file = "schedulers/steps.safetensors";
    char name[160];
    int steps = k->sampler->steps;
    size_t values = k->batch * 3 * k->pixels;
    double *worst = calloc((size_t)steps, sizeof *worst), worst_x0 = 0, ratio = 0;
    for (size_t i = 0; i < k->batch; i++)
        run_picture(k, i, worst, &worst_x0);
    snprintf(name, sizeof name, "%s.x", k->name);
    double rtol = meta(file, name, "rtol_per_step");
    CHECK_MSG(rtol > 0, "%s has no rtol_per_step", name);
    for (int s = 0; s < steps; s++) {
        double most = 0;
        for (size_t i = 0; i < values; i++)
            most = fmax(most, fabs((double)k->x[(size_t)s * values + i]));
        CHECK_MSG(worst[s] <= rtol * most, "%s, step %d: error %.3g, allowed %.3g", k->name, s,
                  worst[s], rtol * most);
        ratio = fmax(ratio, worst[s] / (rtol * most));
    }
    snprintf(name, sizeof name, "%s.pred_x0", k->name);
    double atol = meta(file, name, "atol");
    CHECK_MSG(!k->x0 || worst_x0 <= atol, "%s: error %.3g, allowed %.3g", name, worst_x0, atol);
    printf("%-40s %8.4f of the tolerance, x0 %8.4f\n", k->name, ratio,
           k->x0 ? worst_x0 / atol : 0.0);
    free(worst);
}

static void check_table(const struct safetensors *st, const struct step_case *k)
{
    size_t n = 0;
    float *t = load(st, k->name, ".timesteps", &n), *sigma;
    CHECK_INT(k->sampler->steps, n);
    for (size_t i = 0; i < n && i < (size_t)k->sampler->steps; i++)
        CHECK_MSG(k->sampler->step[i].timestep == (int)t[i], "%s, step %zu: timestep %d", k->name,
                  i, k->sampler->step[i].timestep);
    free(t);
    sigma = load(st, k->name, ".sigmas", &n);
    char name[160];
    snprintf(name, sizeof name, "%s.sigmas", k->name);
    double rtol = meta("schedulers/steps.safetensors", name, "rtol");
    for (size_t i = 0; sigma && k->sampler->sigma && i < n; i++)
        CHECK_MSG(fabs(k->sampler->sigma[i] - (double)sigma[i]) <= rtol * (double)sigma[i],
                  "%s, sigma %zu: %.9g", k->name, i, k->sampler->sigma[i]);
    CHECK(!sigma == !k->sampler->sigma);
    free(sigma);
}

// The sampler that the manifest's case asks for, with the config from the case's folder.
static struct sampler *sampler_of(const char *name, const struct json_t *what)
{
    struct scheduler_config c;
    struct fault why = {0};
    const struct json_t *steps = json_find(what, "steps");
    int list[1000], n = (int)json_count(steps);
    char sub[256];
    snprintf(sub, sizeof sub, "%s/scheduler_config.json", name);
    enum err e = hfconfig_scheduler_read(path_of("schedulers/configs/", sub), &c, &why);
    CHECK_MSG(!e && n <= 1000, "%s: %s", name, why.msg);
    if (e || n > 1000)
        return NULL;
    for (int i = 0; i < n; i++)
        list[i] = (int)json_int(json_item(steps, (size_t)i));
    return make_sampler(&(struct sampler_params){.config = &c,
                                                 .steps = (int)json_int(steps),
                                                 .timesteps = n ? list : NULL,
                                                 .timestep_count = n,
                                                 .eta = json_number(json_find(what, "eta"))},
                        name);
}

static void check_case(const struct safetensors *st, const char *name, const struct json_t *what)
{
    struct step_case k = {.name = name, .sampler = sampler_of(name, what)};
    char full[160];
    snprintf(full, sizeof full, "%s.model_output", name);
    const struct safetensor *t = safetensors_find(st, full);
    CHECK_MSG(t && t->dims == 5, "%s is not there", full);
    if (!k.sampler || !t || t->dims != 5 || t->shape[0] != (uint64_t)k.sampler->steps)
        return;
    k.batch = t->shape[1];
    k.channels = t->shape[2];
    k.pixels = t->shape[3] * t->shape[4];
    k.init = load(st, name, ".x_init", NULL);
    k.m = load(st, name, ".model_output", NULL);
    k.noise = load(st, name, ".noise", NULL);
    k.x = load(st, name, ".x", NULL);
    k.x0 = load(st, name, ".pred_x0", NULL);
    CHECK_MSG(k.init && k.x, "%s is incomplete", name);
    CHECK_MSG(!k.sampler->stochastic || k.noise, "%s wants noise", name);
    check_table(st, &k);
    if (k.init && k.x)
        check_steps(&k);
    free(k.init);
    free(k.m);
    free(k.noise);
    free(k.x);
    free(k.x0);
    sampler_destroy(&k.sampler);
}

static void check_cases(void)
{
    const char *file = "schedulers/steps.safetensors", *name;
    const struct json_t *what, *cases = json_find(fixture(file), "cases");
    struct safetensors *st = NULL;
    struct fault why = {0};
    enum err e = safetensors_open_file(path_of(file, ""), &st, &why);
    CHECK_MSG(!e, "%s", why.msg);
    CHECK(json_count(cases) > 0);
    for (void *at = NULL; st && json_next(cases, &at, &name, &what);)
        check_case(st, name, what);
    safetensors_close(&st);
}

int main(int argc, char **argv)
{
    struct fault why = {0};
    dir = argc > 1 ? argv[1] : "tests/golden";
    if (json_parse_file(path_of("manifest.json", ""), 1 << 26, &manifest, &why)) {
        fprintf(stderr, "%s\n", why.msg);
        return 1;
    }
    check_betas();
    check_timesteps();
    check_cases();
    check_configs();
    json_destroy(&manifest);
    return test_end();
}
