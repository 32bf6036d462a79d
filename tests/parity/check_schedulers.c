// Noise schedules, timestep lists and step tables compared with diffusers; the steps run on the
// device, through op_sampler_step, from x_init to the last sample.
#include "golden.h"

#include "hfconfig.h"
#include "noise_schedule.h"
#include "sampler_class.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- betas ------------------------------------------------------------------------------------

// The manifest says "betas of {json}" what each table was made from.
static struct noise_schedule *schedule_of(struct bundle *b, const char *name)
{
    const char *meaning = json_text(json_find(json_find(b->meta, name), "meaning"), NULL);
    const char *brace = meaning ? strchr(meaning, '{') : NULL;
    struct scheduler_config file, c = *sampler_ddpm.defaults;
    struct noise_schedule *s = NULL;
    struct fault why = {0};
    char text[512];

    snprintf(text, sizeof text, "{\"_class_name\": \"DDPMScheduler\", %.400s",
             brace ? brace + 1 : "}");
    if (hfconfig_scheduler_parse(text, strlen(text), name, &file, &why)) {
        golden_fail(b->g, b->name, name, "%s", why.msg);
        return NULL;
    }
    if (SCHEDULER_CONFIG_HAS(&file, beta_schedule))
        c.beta_schedule = file.beta_schedule;
    if (SCHEDULER_CONFIG_HAS(&file, beta_start))
        c.beta_start = file.beta_start;
    if (SCHEDULER_CONFIG_HAS(&file, beta_end))
        c.beta_end = file.beta_end;
    if (noise_schedule_create(&c, &s, &why))
        golden_fail(b->g, b->name, name, "%s", why.msg);
    return s;
}

static void check_add_noise(struct bundle *b)
{
    float *x = bundle_floats(b, "add_noise.sample"), *z = bundle_floats(b, "add_noise.noise");
    int64_t *t = bundle_ints(b, "add_noise.timesteps");
    const struct safetensor *shape = bundle_find(b, "add_noise.sample");
    struct scheduler_config c = {
        .cls = SCHEDULER_DDPM,
        .set = UINT64_C(1) << SCHEDULER_KEY_beta_schedule,
        .beta_schedule = BETA_SQUAREDCOS,
    };
    float *got = NULL;

    if (x && z && t)
        got = malloc(shape->elements * sizeof *got);
    for (uint64_t i = 0; got && i < shape->shape[0]; i++) {
        const uint64_t span = shape->elements / shape->shape[0];
        double signal, noise;
        if (sampler_noise_mix(&c, (int)t[i], &signal, &noise, NULL))
            signal = noise = NAN;
        for (uint64_t k = i * span; k < (i + 1) * span; k++)
            got[k] = (float)(signal * (double)x[k] + noise * (double)z[k]);
    }
    if (got)
        bundle_compare(b, "add_noise.out", got);
    free(x);
    free(z);
    free(t);
    free(got);
}

void check_betas(struct golden *g, const char *name, const struct json_t *fixture)
{
    const struct json_t *meta;
    const char *tensor;
    struct bundle b;
    void *at = NULL;

    if (!bundle_open(g, name, fixture, &b))
        return;
    while (json_next(b.meta, &at, &tensor, &meta)) {
        const char *last = strrchr(tensor, '.');
        const bool betas = last && !strcmp(last, ".betas");
        if (!betas && !(last && !strcmp(last, ".alphas_cumprod")))
            continue;
        struct noise_schedule *s = schedule_of(&b, tensor);
        const struct safetensor *want = bundle_find(&b, "%s", tensor);
        if (s && want && want->elements == (uint64_t)s->count)
            bundle_compare(&b, tensor, betas ? s->beta : s->alphas_cumprod);
        else
            golden_fail(g, name, tensor, "another count");
        noise_schedule_destroy(&s);
    }
    check_add_noise(&b);
    bundle_close(&b);
}

// ---- timesteps --------------------------------------------------------------------------------

// The meaning of the labels in timesteps.json, as in the fixtures' generator.
static const struct label {
    const char *name, *json;
} labels[] = {
    {"ddpm", "\"DDPMScheduler\", \"beta_schedule\": \"squaredcos_cap_v2\""},
    {"ddim", "\"DDIMScheduler\", \"beta_schedule\": \"squaredcos_cap_v2\""},
    {"ddim_offset1", "\"DDIMScheduler\", \"beta_schedule\": \"scaled_linear\", "
                     "\"steps_offset\": 1, \"set_alpha_to_one\": false"},
    {"dpm", "\"DPMSolverMultistepScheduler\", \"beta_schedule\": \"squaredcos_cap_v2\""},
    {"dpm_karras", "\"DPMSolverMultistepScheduler\", \"beta_schedule\": \"squaredcos_cap_v2\", "
                   "\"use_karras_sigmas\": true"},
    {"dpm_linear", "\"DPMSolverMultistepScheduler\", \"beta_schedule\": \"linear\""},
    {"dpm_karras_linear", "\"DPMSolverMultistepScheduler\", \"beta_schedule\": \"linear\", "
                          "\"use_karras_sigmas\": true"},
};

static bool config_of(const char *list, struct scheduler_config *out, struct fault *why)
{
    const char *slash = strchr(list, '/');
    char text[512];

    for (size_t i = 0; slash && i < sizeof labels / sizeof *labels; i++) {
        if (strlen(labels[i].name) == (size_t)(slash - list) &&
            !strncmp(list, labels[i].name, (size_t)(slash - list))) {
            snprintf(text, sizeof text, "{\"_class_name\": %s, \"timestep_spacing\": \"%s\"}",
                     labels[i].json, slash + 1);
            return !hfconfig_scheduler_parse(text, strlen(text), list, out, why);
        }
    }
    fault_set(why, ERR_INVALID, list, "unknown label");
    return false;
}

static bool same_timesteps(const struct sampler *s, const struct json_t *want)
{
    bool same = json_count(want) == (size_t)s->steps;

    for (int i = 0; same && i < s->steps; i++)
        same = json_int(json_item(want, (size_t)i)) == s->step[i].timestep;
    return same;
}

// Sigmas to 1e-5, the first one to 1e-3: under a cosine schedule 1 - alpha has lost its digits.
static bool same_sigmas(const struct sampler *s, const struct json_t *want)
{
    bool same = json_count(want) == (size_t)s->steps + 1 && s->sigma;

    for (int i = 0; same && i <= s->steps; i++) {
        const double w = json_number(json_item(want, (size_t)i));
        same = fabs(s->sigma[i] - w) <= (i ? 1e-5 : 1e-3) * fabs(w) + 1e-9;
    }
    return same;
}

static void check_list(struct golden *g, const char *name, const char *list,
                       const struct json_t *rows)
{
    const struct json_t *want;
    const char *key;
    char what[96];
    void *at = NULL;
    int wrong = 0, total = 0;

    while (json_next(rows, &at, &key, &want)) {
        const bool sigmas = !strncmp(key, "sigmas_", 7);
        struct scheduler_config c;
        struct sampler *s = NULL;
        struct fault why = {0};
        bool same = false;
        if (config_of(list, &c, &why) &&
            !sampler_create(
                &(struct sampler_params){.config = &c, .steps = atoi(sigmas ? key + 7 : key)}, &s,
                &why))
            same = sigmas ? same_sigmas(s, want) : same_timesteps(s, want);
        // A count that diffusers refuses must be refused here.
        if (json_kind(want) == JSON_TEXT)
            same = !s;
        snprintf(what, sizeof what, "%s %s", list, key);
        if (!same)
            golden_fail(g, name, what, "%s", why.msg[0] ? why.msg : "differs");
        wrong += !same;
        total++;
        sampler_destroy(&s);
    }
    snprintf(what, sizeof what, "%s, %d lists", list, total);
    if (!wrong)
        golden_pass(g, name, what, 0);
}

static void check_preset(struct golden *g, const char *name, const char *preset,
                         const struct json_t *want)
{
    const char *end = strstr(preset, "_timesteps");
    struct scheduler_config c;
    struct sampler *s = NULL;
    struct fault why = {0};
    char own[64];

    snprintf(own, sizeof own, "%.*s", end ? (int)(end - preset) : 0, preset);
    if (config_of("ddpm/leading", &c, &why) &&
        !sampler_create(&(struct sampler_params){.config = &c, .preset = own}, &s, &why) &&
        same_timesteps(s, want))
        golden_pass(g, name, preset, 0);
    else
        golden_fail(g, name, preset, "%s", why.msg[0] ? why.msg : "differs");
    sampler_destroy(&s);
}

void check_timesteps(struct golden *g, const char *name)
{
    const struct json_t *rows, *want;
    const char *list, *preset;
    char path[GOLDEN_PATH];
    struct json_t *doc = NULL;
    struct fault why = {0};
    void *at = NULL, *inner = NULL;

    snprintf(path, sizeof path, "%s/%s", g->root, name);
    if (json_parse_file(path, 16 << 20, &doc, &why))
        golden_fail(g, name, "open", "%s", why.msg);
    while (json_next(doc, &at, &list, &rows)) {
        if (strcmp(list, "if_named"))
            check_list(g, name, list, rows);
        else
            while (json_next(rows, &inner, &preset, &want))
                check_preset(g, name, preset, want);
    }
    json_destroy(&doc);
}

// ---- step tables ------------------------------------------------------------------------------

struct table {
    struct bundle *b;
    const char *name;
    struct sampler *sampler;
    uint32_t n, h, w, channels; // channels of the model output
    float *m, *z, *x, *x0;      // all steps; z and x0 may be NULL
    struct tensor lanes, output, sample, history[3], noise;
    struct ops *o;
};

static enum err record(struct table *t)
{
    struct ops_device *dev = t->b->g->dev;
    struct tensor *slots[] = {&t->sample, &t->history[0], &t->history[1], &t->history[2],
                              &t->noise};
    enum err e =
        tensor_create_mapped(dev, DT_U32, t->n, 1, 1, sizeof(struct op_lane) / 4, &t->lanes);

    for (size_t i = 0; !e && i < sizeof slots / sizeof *slots; i++)
        e = tensor_create(dev, DT_F32, t->n, t->h, t->w, 3, slots[i]);
    if (!e)
        e = tensor_create(dev, DT_F32, t->n, t->h, t->w, t->channels, &t->output);
    if (!e)
        e = ops_begin(dev, DT_F32, &t->o);
    if (e)
        return e;
    op_sampler_step(t->o, &(struct op_sampler_params){
                              .lanes = &t->lanes,
                              .m = &t->output,
                              .dynamic = t->sampler->threshold == THRESHOLD_DYNAMIC,
                              .x = &t->sample,
                              .history = {&t->history[0], &t->history[1], &t->history[2]},
                              .noise = &t->noise,
                          });
    return ops_end(t->o);
}

static enum err run_step(struct table *t, int step)
{
    const size_t span = (size_t)t->n * t->h * t->w;
    struct op_lane *lanes = tensor_map(&t->lanes);
    enum err e;

    for (uint32_t i = 0; i < t->n; i++) {
        memset(&lanes[i], 0, sizeof lanes[i]);
        sampler_fill_lane(t->sampler, step, &lanes[i]);
        lanes[i].slot = i;
        lanes[i].guidance = 1;
    }
    const uint32_t history = lanes[0].history;
    e = tensor_upload_nchw(&t->output, t->m + (size_t)step * span * t->channels);
    if (!e && t->z)
        e = tensor_upload_nchw(&t->noise, t->z + (size_t)step * span * 3);
    if (!e)
        e = ops_run(t->o);
    if (!e)
        e = tensor_download_nchw(&t->sample, t->x + (size_t)step * span * 3);
    if (!e)
        e = tensor_download_nchw(&t->history[history], t->x0 + (size_t)step * span * 3);
    return e;
}

// |got - want| <= rtol_per_step * max |want| of the same step: early samples may be huge.
static void compare_steps(struct table *t, const char *name)
{
    const double rtol = json_number(json_find(json_find(t->b->meta, name), "rtol_per_step"));
    const size_t span = (size_t)t->n * t->h * t->w * 3;
    float *want = bundle_floats(t->b, "%s", name);
    double worst = 0;

    for (int s = 0; want && s < t->sampler->steps; s++) {
        double error = 0, largest = 0;
        for (size_t i = (size_t)s * span; i < (size_t)(s + 1) * span; i++) {
            const double d = fabs((double)t->x[i] - (double)want[i]);
            if (!(d <= error))
                error = d;
            largest = fmax(largest, fabs((double)want[i]));
        }
        if (!(error / (rtol * largest) <= worst))
            worst = error / (rtol * largest);
    }
    if (want && worst <= 1)
        golden_pass(t->b->g, t->b->name, name, worst);
    else
        golden_fail(t->b->g, t->b->name, name, "%.2f x rtol_per_step", worst);
    free(want);
}

static void check_table_lists(struct table *t)
{
    int64_t *timesteps = bundle_ints(t->b, "%s.timesteps", t->name);
    char name[128];

    for (int i = 0; timesteps && i < t->sampler->steps; i++) {
        if (timesteps[i] != t->sampler->step[i].timestep) {
            golden_fail(t->b->g, t->b->name, t->name, "timestep %d is %d", i,
                        t->sampler->step[i].timestep);
            break;
        }
    }
    free(timesteps);
    snprintf(name, sizeof name, "%s.sigmas", t->name);
    if (!bundle_find(t->b, "%s", name))
        return;
    float *sigmas = malloc(((size_t)t->sampler->steps + 1) * sizeof *sigmas);
    float *want = bundle_floats(t->b, "%s", name);
    bool same = sigmas && want && t->sampler->sigma;
    for (int i = 0; same && i <= t->sampler->steps; i++)
        same = fabs(t->sampler->sigma[i] - (double)want[i]) <=
               (i ? 1e-5 : 1e-3) * fabs((double)want[i]) + 1e-9;
    if (same)
        golden_pass(t->b->g, t->b->name, name, 0);
    else
        golden_fail(t->b->g, t->b->name, name, "differs");
    free(sigmas);
    free(want);
}

static bool open_table(struct table *t, const struct json_t *spec)
{
    const struct json_t *steps = json_find(spec, "steps"), *eta = json_find(spec, "eta");
    const struct safetensor *m = bundle_find(t->b, "%s.model_output", t->name);
    struct scheduler_config c;
    struct sampler_params p = {.config = &c, .eta = json_number(eta)};
    int list[1000];
    char path[GOLDEN_PATH], file[256];
    struct fault why = {0};

    snprintf(file, sizeof file, "configs/%.180s/scheduler_config.json", t->name);
    golden_path(t->b->g, t->b->name, file, path);
    p.steps = (int)json_int(steps);
    for (size_t i = 0; i < json_count(steps) && i < 1000; i++)
        list[p.timestep_count++] = (int)json_int(json_item(steps, i));
    p.timesteps = p.timestep_count ? list : NULL;
    if (!m || m->dims != 5 || hfconfig_scheduler_read(path, &c, &why) ||
        sampler_create(&p, &t->sampler, &why)) {
        golden_fail(t->b->g, t->b->name, t->name, "%s", why.msg);
        return false;
    }
    t->n = (uint32_t)m->shape[1];
    t->channels = (uint32_t)m->shape[2];
    t->h = (uint32_t)m->shape[3];
    t->w = (uint32_t)m->shape[4];
    const size_t all = (size_t)t->sampler->steps * t->n * t->h * t->w * 3;
    t->m = bundle_floats(t->b, "%s.model_output", t->name);
    t->z = bundle_floats(t->b, "%s.noise", t->name);
    t->x = malloc(all * sizeof *t->x);
    t->x0 = malloc(all * sizeof *t->x0);
    return t->m && t->x && t->x0 && m->shape[0] == (uint64_t)t->sampler->steps;
}

static void check_case(struct bundle *b, const char *name, const struct json_t *spec)
{
    struct table t = {.b = b, .name = name};
    float *x = bundle_floats(b, "%s.x_init", name);
    char tensor[128];
    enum err e = ERR_FORMAT;

    if (x && open_table(&t, spec))
        e = record(&t);
    if (!e)
        e = tensor_upload_nchw(&t.sample, x);
    for (int s = 0; !e && s < t.sampler->steps; s++)
        e = run_step(&t, s);
    if (e) {
        golden_fail(b->g, b->name, name, "%s", err_text(e));
    } else {
        check_table_lists(&t);
        snprintf(tensor, sizeof tensor, "%s.x", name);
        compare_steps(&t, tensor);
        snprintf(tensor, sizeof tensor, "%s.pred_x0", name);
        if (bundle_find(b, "%s", tensor))
            bundle_compare(b, tensor, t.x0);
    }
    ops_destroy(&t.o);
    struct tensor *tensors[] = {&t.lanes,      &t.output,     &t.sample, &t.history[0],
                                &t.history[1], &t.history[2], &t.noise};
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++)
        tensor_destroy(tensors[i]);
    sampler_destroy(&t.sampler);
    free(x);
    free(t.m);
    free(t.z);
    free(t.x);
    free(t.x0);
}

void check_steps(struct golden *g, const char *name, const struct json_t *fixture)
{
    const struct json_t *spec;
    const char *key;
    struct bundle b;
    void *at = NULL;

    if (!bundle_open(g, name, fixture, &b))
        return;
    while (json_next(json_find(fixture, "cases"), &at, &key, &spec))
        check_case(&b, key, spec);
    bundle_close(&b);
}
