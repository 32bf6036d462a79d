// The contents of a diffusers scheduler_config.json: only the keys that are present, no defaults.
// hfconfig.c fills it; pipeline/samplers.c applies the defaults of the selected class, which may
// not be the file's: an absent key takes the selected class's default.
#ifndef IMAGEND_SCHEDULER_CONFIG_H
#define IMAGEND_SCHEDULER_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

enum scheduler_class { SCHEDULER_DDPM, SCHEDULER_DDIM, SCHEDULER_DPM_MULTISTEP };
#define SCHEDULER_CLASS_NAMES "DDPMScheduler", "DDIMScheduler", "DPMSolverMultistepScheduler"

// Values of the enumerated keys. The names are in enum order, spelled as in the files.
enum beta_schedule { BETA_LINEAR, BETA_SCALED_LINEAR, BETA_SQUAREDCOS, BETA_SIGMOID };
#define BETA_SCHEDULE_NAMES "linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"

enum prediction_type { PREDICT_EPSILON, PREDICT_SAMPLE, PREDICT_V };
#define PREDICTION_TYPE_NAMES "epsilon", "sample", "v_prediction"

// NONE stands for null.
enum variance_type {
    VARIANCE_NONE,
    VARIANCE_FIXED_SMALL,
    VARIANCE_FIXED_SMALL_LOG,
    VARIANCE_FIXED_LARGE,
    VARIANCE_FIXED_LARGE_LOG,
    VARIANCE_LEARNED,
    VARIANCE_LEARNED_RANGE,
};
#define VARIANCE_TYPE_NAMES                                                                        \
    "null", "fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log", "learned",         \
        "learned_range"

enum timestep_spacing { SPACING_LEADING, SPACING_TRAILING, SPACING_LINSPACE };
#define TIMESTEP_SPACING_NAMES "leading", "trailing", "linspace"

enum algorithm_type { ALGORITHM_DPMPP, ALGORITHM_SDE_DPMPP, ALGORITHM_DPM, ALGORITHM_SDE_DPM };
#define ALGORITHM_TYPE_NAMES "dpmsolver++", "sde-dpmsolver++", "dpmsolver", "sde-dpmsolver"

enum solver_type { SOLVER_MIDPOINT, SOLVER_HEUN };
#define SOLVER_TYPE_NAMES "midpoint", "heun"

enum final_sigmas_type { FINAL_ZERO, FINAL_SIGMA_MIN };
#define FINAL_SIGMAS_TYPE_NAMES "zero", "sigma_min"

// Every key of the three classes: X(kind, C type, key). Kinds: INT, REAL (Python writes a bare
// -Infinity for lambda_min_clipped), BOOL, WORD (an enum above). Other keys are refused unless they
// begin with '_' or affect no scheduler's arithmetic.
#define SCHEDULER_KEYS(X)                                                                          \
    X(INT, int, num_train_timesteps)                                                               \
    X(REAL, double, beta_start)                                                                    \
    X(REAL, double, beta_end)                                                                      \
    X(WORD, enum beta_schedule, beta_schedule)                                                     \
    X(WORD, enum prediction_type, prediction_type)                                                 \
    X(WORD, enum variance_type, variance_type)                                                     \
    X(WORD, enum timestep_spacing, timestep_spacing)                                               \
    X(INT, int, steps_offset)                                                                      \
    X(BOOL, bool, clip_sample)                                                                     \
    X(REAL, double, clip_sample_range)                                                             \
    X(BOOL, bool, thresholding)                                                                    \
    X(REAL, double, dynamic_thresholding_ratio)                                                    \
    X(REAL, double, sample_max_value)                                                              \
    X(BOOL, bool, rescale_betas_zero_snr)                                                          \
    X(BOOL, bool, set_alpha_to_one)                                                                \
    X(INT, int, solver_order)                                                                      \
    X(WORD, enum algorithm_type, algorithm_type)                                                   \
    X(WORD, enum solver_type, solver_type)                                                         \
    X(BOOL, bool, lower_order_final)                                                               \
    X(BOOL, bool, euler_at_final)                                                                  \
    X(WORD, enum final_sigmas_type, final_sigmas_type)                                             \
    X(REAL, double, lambda_min_clipped)                                                            \
    X(BOOL, bool, use_karras_sigmas)                                                               \
    X(BOOL, bool, use_exponential_sigmas)                                                          \
    X(BOOL, bool, use_beta_sigmas)                                                                 \
    X(BOOL, bool, use_lu_lambdas)                                                                  \
    X(BOOL, bool, use_flow_sigmas)                                                                 \
    X(BOOL, bool, use_dynamic_shifting)                                                            \
    X(REAL, double, flow_shift)

enum scheduler_key {
#define X(kind, type, key) SCHEDULER_KEY_##key,
    SCHEDULER_KEYS(X)
#undef X
        SCHEDULER_KEY_COUNT
};

struct scheduler_config {
    enum scheduler_class cls;
    uint64_t set;       // bit SCHEDULER_KEY_x: the file contains x
    bool trained_betas; // the file contains its own betas, not null
#define X(kind, type, key) type key;
    SCHEDULER_KEYS(X)
#undef X
};

#define SCHEDULER_CONFIG_HAS(config, key) (((config)->set >> SCHEDULER_KEY_##key) & 1u)

#endif
