// Parses scheduler_config.json into struct scheduler_config. Called while a model is loaded or
// inspected, on any thread. Source: the __init__ signatures of the diffusers schedulers, and how
// they load each other's files: a class reads the keys that it has and ignores the others.
#include "hfconfig.h"

#include "hfconfig_priv.h"

#include <math.h>
#include <string.h>

static const char *const scheduler_classes[] = {SCHEDULER_CLASS_NAMES, NULL};
static const char *const beta_schedule_names[] = {BETA_SCHEDULE_NAMES, NULL};
static const char *const prediction_type_names[] = {PREDICTION_TYPE_NAMES, NULL};
static const char *const variance_type_names[] = {VARIANCE_TYPE_NAMES, NULL};
static const char *const timestep_spacing_names[] = {TIMESTEP_SPACING_NAMES, NULL};
static const char *const algorithm_type_names[] = {ALGORITHM_TYPE_NAMES, NULL};
static const char *const solver_type_names[] = {SOLVER_TYPE_NAMES, NULL};
static const char *const final_sigmas_type_names[] = {FINAL_SIGMAS_TYPE_NAMES, NULL};

static const struct hfconfig_key scheduler_keys[] = {
#define X(kind, type, key) HFCONFIG_READ(#key),
    SCHEDULER_KEYS(X)
#undef X
        HFCONFIG_READ("trained_betas"),
    // keys of other diffusers schedulers, left in a file that was made for or converted from
    // another class; the selected class does not read them
    HFCONFIG_HARMLESS("alpha_cum_end"),
    HFCONFIG_HARMLESS("alpha_cum_start"),
    HFCONFIG_HARMLESS("base_image_seq_len"),
    HFCONFIG_HARMLESS("base_shift"),
    HFCONFIG_HARMLESS("block_length"),
    HFCONFIG_HARMLESS("clip_denoised"),
    HFCONFIG_HARMLESS("correct_steps"),
    HFCONFIG_HARMLESS("corrector_k"),
    HFCONFIG_HARMLESS("corrector_order"),
    HFCONFIG_HARMLESS("corrector_selection"),
    HFCONFIG_HARMLESS("corrector_selection_tau"),
    HFCONFIG_HARMLESS("corrector_steps"),
    HFCONFIG_HARMLESS("disable_corrector"),
    HFCONFIG_HARMLESS("editing_threshold"),
    HFCONFIG_HARMLESS("entropy_bound"),
    HFCONFIG_HARMLESS("eta"),
    HFCONFIG_HARMLESS("gamma"),
    HFCONFIG_HARMLESS("gamma_cum_end"),
    HFCONFIG_HARMLESS("gamma_cum_start"),
    HFCONFIG_HARMLESS("interpolation_type"),
    HFCONFIG_HARMLESS("invert_sigmas"),
    HFCONFIG_HARMLESS("mask_token_id"),
    HFCONFIG_HARMLESS("masking_schedule"),
    HFCONFIG_HARMLESS("max_image_seq_len"),
    HFCONFIG_HARMLESS("max_shift"),
    HFCONFIG_HARMLESS("minimal_topk"),
    HFCONFIG_HARMLESS("noise_sampler_seed"),
    HFCONFIG_HARMLESS("num_inference_steps"),
    HFCONFIG_HARMLESS("num_vec_classes"),
    HFCONFIG_HARMLESS("original_inference_steps"),
    HFCONFIG_HARMLESS("predict_x0"),
    HFCONFIG_HARMLESS("predictor_order"),
    HFCONFIG_HARMLESS("rho"),
    HFCONFIG_HARMLESS("s"),
    HFCONFIG_HARMLESS("s_noise"),
    HFCONFIG_HARMLESS("sampling_eps"),
    HFCONFIG_HARMLESS("scale_factors"),
    HFCONFIG_HARMLESS("scaler"),
    HFCONFIG_HARMLESS("scheduler_type"),
    HFCONFIG_HARMLESS("shift"),
    HFCONFIG_HARMLESS("shift_terminal"),
    HFCONFIG_HARMLESS("sigma_data"),
    HFCONFIG_HARMLESS("sigma_max"),
    HFCONFIG_HARMLESS("sigma_min"),
    HFCONFIG_HARMLESS("sigma_schedule"),
    HFCONFIG_HARMLESS("skip_prk_steps"),
    HFCONFIG_HARMLESS("snr"),
    HFCONFIG_HARMLESS("snr_shift_scale"),
    HFCONFIG_HARMLESS("solver_p"),
    HFCONFIG_HARMLESS("stage_range"),
    HFCONFIG_HARMLESS("stages"),
    HFCONFIG_HARMLESS("stochastic_sampling"),
    HFCONFIG_HARMLESS("t_max"),
    HFCONFIG_HARMLESS("t_min"),
    HFCONFIG_HARMLESS("tau_func"),
    HFCONFIG_HARMLESS("tensor_format"), // diffusers before 0.3
    HFCONFIG_HARMLESS("threshold"),
    HFCONFIG_HARMLESS("time_shift_type"), // used only with use_dynamic_shifting
    HFCONFIG_HARMLESS("timestep_scaling"),
    HFCONFIG_HARMLESS("timestep_type"),
    HFCONFIG_HARMLESS("timesteps"), // diffusers before 0.2
    HFCONFIG_HARMLESS("upscale_mode"),
    {NULL}};

// null is a value of its own if the table lists it ("null" comes first).
static int read_word(struct json_reader *r, const char *key, const char *const *names)
{
    if (json_key(r, key) == JSON_NONE && !strcmp(names[0], "null"))
        return 0;
    if (!strcmp(names[0], "null"))
        return 1 + json_read_enum(r, key, 0, names + 1);
    return json_read_enum(r, key, 0, names);
}

// null is false, as in Python.
static bool read_bool(struct json_reader *r, const char *key)
{
    return json_key(r, key) != JSON_NONE && json_read_bool(r, key, false);
}

#define READ_INT(r, key) json_read_int(r, #key, 0, 0, 1000000)
#define READ_REAL(r, key) json_read_number(r, #key, 0, -INFINITY, INFINITY)
#define READ_BOOL(r, key) read_bool(r, #key)
#define READ_WORD(r, key) read_word(r, #key, key##_names)

// Whether the value belongs to another class's key of the same name. DPMSolverMultistep replaces
// some such values by its default; our other classes do not have these keys.
static bool is_other_word(const struct json_reader *r, enum scheduler_class cls, const char *key)
{
    static const char *const words[][3] = {
        // key, value, whether DPMSolverMultistep replaces it by its default
        {"solver_type", "logrho", "yes"},      {"solver_type", "bh1", "yes"},
        {"solver_type", "bh2", "yes"},         {"algorithm_type", "deis", "yes"},
        {"algorithm_type", "data_prediction"}, {"algorithm_type", "noise_prediction"},
    };
    const char *s = json_text(json_find(r->map, key), NULL);

    for (size_t i = 0; s && i < sizeof words / sizeof *words; i++)
        if (!strcmp(words[i][0], key) && !strcmp(words[i][1], s))
            return words[i][2] || cls != SCHEDULER_DPM_MULTISTEP;
    return false;
}

// flow_shift is Optional in diffusers and read only with use_flow_sigmas.
static bool is_set(const struct json_reader *r, enum scheduler_class cls, const char *key)
{
    const enum json_kind kind = json_key(r, key);

    return kind != JSON_ABSENT && !is_other_word(r, cls, key) &&
           !(kind == JSON_NONE && !strcmp(key, "flow_shift"));
}

struct target {
    int cls; // -1: the file's class
    struct scheduler_config *config;
};

static void read_scheduler(struct json_reader *r, void *out)
{
    const struct target *to = out;
    struct scheduler_config *c = to->config;

    *c = (struct scheduler_config){0};
    if (to->cls >= 0)
        c->cls = (enum scheduler_class)to->cls;
    else if (json_key(r, "_class_name") == JSON_ABSENT)
        json_fail(r, ERR_FORMAT, "_class_name", "is missing");
    else
        c->cls = (enum scheduler_class)json_read_enum(r, "_class_name", 0, scheduler_classes);
    hfconfig_check_keys(r, scheduler_keys);
#define X(kind, type, key)                                                                         \
    if (is_set(r, c->cls, #key)) {                                                                 \
        c->key = (type)READ_##kind(r, key);                                                        \
        c->set |= (uint64_t)1 << SCHEDULER_KEY_##key;                                              \
    }
    SCHEDULER_KEYS(X)
#undef X
    c->trained_betas =
        json_key(r, "trained_betas") != JSON_ABSENT && json_key(r, "trained_betas") != JSON_NONE;
}

enum err hfconfig_scheduler_read(const char *path, struct scheduler_config *out, struct fault *why)
{
    struct target to = {-1, out};

    return hfconfig_from_file(path, read_scheduler, &to, why);
}

enum err hfconfig_scheduler_read_as(const char *path, enum scheduler_class cls,
                                    struct scheduler_config *out, struct fault *why)
{
    struct target to = {(int)cls, out};

    return hfconfig_from_file(path, read_scheduler, &to, why);
}

enum err hfconfig_scheduler_parse(const char *text, size_t len, const char *what,
                                  struct scheduler_config *out, struct fault *why)
{
    struct target to = {-1, out};

    return hfconfig_from_text(text, len, what, read_scheduler, &to, why);
}
