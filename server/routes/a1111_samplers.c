// A1111's names of samplers and schedulers: one table for requests, responses and lists. Called by
// a1111.c on the loop thread; knows the engine's samplers by name only.
#include "a1111.h"

#include "text.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

enum { PLAIN, KARRAS, SCHEDULES, NAME_SIZE = 64 };

// Rows without engine names are A1111 samplers that the engine lacks; requests may still name them.
static const struct sampler {
    const char *label, *alias[2];
    const char *engine[SCHEDULES];
} samplers[] = {
    {"DDPM", {NULL}, {"ddpm"}},
    {"DDIM", {NULL}, {"ddim"}},
    {"DPM++ 2M", {"k_dpmpp_2m"}, {"dpm++2m", "dpm++2m-karras"}},
    {"DPM++ 3M", {NULL}, {"dpm++3m", "dpm++3m-karras"}},
    // Multistep, order 2: A1111's DPM++ SDE is the single-step variant.
    {"DPM++ 2M SDE", {"k_dpmpp_2m_sde"}, {"dpm++sde", "dpm++sde-karras"}},
    {.label = "DPM++ SDE", .alias = {"k_dpmpp_sde"}},
    {.label = "DPM++ 2M SDE Heun", .alias = {"k_dpmpp_2m_sde_heun"}},
    {.label = "DPM++ 2S a", .alias = {"k_dpmpp_2s_a"}},
    {.label = "DPM++ 3M SDE", .alias = {"k_dpmpp_3m_sde"}},
    {.label = "Euler a", .alias = {"k_euler_a", "k_euler_ancestral"}},
    {.label = "Euler", .alias = {"k_euler"}},
    {.label = "LMS", .alias = {"k_lms"}},
    {.label = "Heun", .alias = {"k_heun"}},
    {.label = "DPM2", .alias = {"k_dpm_2"}},
    {.label = "DPM2 a", .alias = {"k_dpm_2_a"}},
    {.label = "DPM fast", .alias = {"k_dpm_fast"}},
    {.label = "DPM adaptive", .alias = {"k_dpm_ad"}},
    {.label = "Restart"},
    {.label = "DDIM CFG++", .alias = {"ddim_cfgpp"}},
    {.label = "PLMS"},
    {.label = "UniPC"},
    {.label = "LCM", .alias = {"k_lcm"}},
};
enum { SAMPLERS = sizeof samplers / sizeof *samplers };

static const struct scheduler {
    const char *name, *label, *alias;
    int schedule; // index into sampler.engine; -1: not available
    double rho;
    bool inner_model;
} schedulers[] = {
    {"automatic", "Automatic", NULL, PLAIN, -1, false},
    {"uniform", "Uniform", NULL, PLAIN, -1, true},
    {"karras", "Karras", "ka", KARRAS, 7, false},
    {"exponential", "Exponential", NULL, -1, -1, false},
    {"polyexponential", "Polyexponential", NULL, -1, 1, false},
    {"sgm_uniform", "SGM Uniform", NULL, -1, -1, true},
    {"kl_optimal", "KL Optimal", NULL, -1, -1, false},
    {"align_your_steps", "Align Your Steps", NULL, -1, -1, false},
    {"simple", "Simple", NULL, -1, -1, true},
    {"normal", "Normal", NULL, -1, -1, true},
    {"ddim", "DDIM", "ddim_uniform", -1, -1, true},
    {"beta", "Beta", NULL, -1, -1, true},
};
enum { SCHEDULERS = sizeof schedulers / sizeof *schedulers, AUTOMATIC = 0 };

// Lowercases and removes word separators.
static void fold(const char *name, char out[NAME_SIZE])
{
    size_t n = 0;
    for (; name && *name && n < NAME_SIZE - 1; name++)
        if (!isspace((unsigned char)*name) && *name != '-' && *name != '_')
            out[n++] = (char)tolower((unsigned char)*name);
    out[n] = 0;
}

static bool is_folded(const char *name, const char *folded)
{
    char own[NAME_SIZE];
    fold(name, own);
    return *own && !strcmp(own, folded);
}

static const struct sampler *find_folded(const char *folded)
{
    for (int i = 0; i < SAMPLERS; i++)
        if (is_folded(samplers[i].label, folded) || is_folded(samplers[i].alias[0], folded) ||
            is_folded(samplers[i].alias[1], folded))
            return &samplers[i];
    return NULL;
}

static const struct sampler *find_engine(const char *name, int *schedule)
{
    for (int i = 0; i < SAMPLERS; i++)
        for (int k = 0; k < SCHEDULES; k++)
            if (samplers[i].engine[k] && !strcmp(samplers[i].engine[k], name)) {
                *schedule = k;
                return &samplers[i];
            }
    return NULL;
}

static const struct scheduler *find_scheduler(const char *name)
{
    char folded[NAME_SIZE];
    fold(name, folded);
    if (!*folded)
        return &schedulers[AUTOMATIC];
    for (int i = 0; i < SCHEDULERS; i++)
        if (is_folded(schedulers[i].name, folded) || is_folded(schedulers[i].label, folded) ||
            is_folded(schedulers[i].alias, folded))
            return &schedulers[i];
    return NULL;
}

// Splits "DPM++ 2M Karras" into sampler and scheduler.
static const struct sampler *find_with_suffix(const char *folded, const struct scheduler **with)
{
    for (int i = 0; i < SCHEDULERS; i++) {
        const char *const suffixes[] = {schedulers[i].label, schedulers[i].alias};
        for (int k = 0; k < 2; k++) {
            char suffix[NAME_SIZE], name[NAME_SIZE];
            fold(suffixes[k], suffix);
            const size_t n = strlen(folded), cut = strlen(suffix);
            if (!cut || cut >= n || strcmp(folded + n - cut, suffix))
                continue;
            memcpy(name, folded, n - cut);
            name[n - cut] = 0;
            const struct sampler *found = find_folded(name);
            if (!found)
                continue;
            *with = &schedulers[i];
            return found;
        }
    }
    return NULL;
}

static bool model_has(const struct model_info *m, const char *engine)
{
    for (int i = 0; engine && m && m->samplers[i]; i++)
        if (!strcmp(m->samplers[i], engine))
            return true;
    return false;
}

// Finds a sampler that a request names. False if it is in no list.
static bool find_named(const struct model_info *m, const char *name, const char *scheduler,
                       struct a1111_sampler *out)
{
    const struct scheduler *with = NULL;
    char folded[NAME_SIZE];
    if (model_has(m, name)) {
        int schedule = PLAIN;
        const struct sampler *own = find_engine(name, &schedule);
        out->engine = name;
        with = find_scheduler(scheduler);
        if (own && with && with->schedule == KARRAS && model_has(m, own->engine[KARRAS]))
            out->engine = own->engine[KARRAS];
        else if (!with || (with != &schedulers[AUTOMATIC] && with->schedule != schedule))
            out->missing_scheduler = with ? with->label : scheduler;
        return true;
    }
    fold(name, folded);
    const struct sampler *s = find_folded(folded);
    if (!s)
        s = find_with_suffix(folded, &with);
    if (!s)
        return false;
    if (!model_has(m, s->engine[PLAIN])) {
        out->missing_sampler = s->label;
        return true;
    }
    if (!with)
        with = find_scheduler(scheduler);
    const int schedule = with ? with->schedule : -1;
    const bool has = schedule >= 0 && model_has(m, s->engine[schedule]);
    out->engine = s->engine[has ? schedule : PLAIN];
    if (!has)
        out->missing_scheduler = with ? with->label : scheduler;
    return true;
}

bool a1111_sampler_find(const struct model_info *m, const char *sampler, const char *scheduler,
                        struct a1111_sampler *out)
{
    const struct scheduler *with = find_scheduler(scheduler);
    *out = (struct a1111_sampler){0};
    if (sampler && *sampler && strcasecmp(sampler, "Automatic"))
        return find_named(m, sampler, scheduler, out);
    if (with == &schedulers[AUTOMATIC] || !m)
        return true;
    // A schedule for the model's default sampler, which stays unnamed if the schedule is its own.
    if (!find_named(m, m->stage[0].sampler, scheduler, out))
        out->missing_scheduler = with ? with->label : scheduler;
    if (out->engine && !strcmp(out->engine, m->stage[0].sampler))
        out->engine = NULL;
    return true;
}

const char *a1111_sampler_label(const char *engine, const char **scheduler)
{
    int schedule = PLAIN;
    const struct sampler *s = find_engine(engine, &schedule);
    *scheduler = s && schedule == KARRAS ? find_scheduler("karras")->label : NULL;
    return s ? s->label : engine;
}

// ---- lists --------------------------------------------------------------------------------------

static void add_alias(struct buf *b, const char *alias, bool *first)
{
    if (!alias)
        return;
    buf_puts(b, *first ? "" : ",");
    text_json(b, alias);
    *first = false;
}

void a1111_samplers_get(struct call *c)
{
    const struct app *app = c->app;
    const struct model_info *m = jobs_model(app->jobs, a1111_selected_model(c));
    struct buf b = {0};
    bool first = true;
    buf_puts(&b, "[");
    for (int i = 0; i < SAMPLERS; i++) {
        const struct sampler *s = &samplers[i];
        bool first_alias = true;
        if (!model_has(m, s->engine[PLAIN]))
            continue;
        buf_puts(&b, first ? "{\"name\":" : ",{\"name\":");
        text_json(&b, s->label);
        buf_puts(&b, ",\"aliases\":[");
        for (int k = 0; k < 2; k++)
            add_alias(&b, s->alias[k], &first_alias);
        for (int k = 0; k < SCHEDULES; k++)
            add_alias(&b, s->engine[k], &first_alias);
        buf_puts(&b, "],\"options\":{}}");
        first = false;
    }
    buf_puts(&b, "]");
    call_json(c, 200, &b);
}

void a1111_schedulers_get(struct call *c)
{
    struct buf b = {0};
    bool first = true;
    buf_puts(&b, "[");
    for (int i = 0; i < SCHEDULERS; i++) {
        const struct scheduler *s = &schedulers[i];
        if (s->schedule < 0)
            continue;
        buf_printf(&b,
                   "%s{\"name\":\"%s\",\"label\":\"%s\",\"aliases\":null,\"default_rho\":%g,"
                   "\"need_inner_model\":%s}",
                   first ? "" : ",", s->name, s->label, s->rho, s->inner_model ? "true" : "false");
        first = false;
    }
    buf_puts(&b, "]");
    call_json(c, 200, &b);
}
