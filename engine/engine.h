// The engine's face, and the only engine header that server/ may include.
//
//   struct engine *e;
//   engine_open(&(struct engine_params){.model = "models/default"}, &e, &why);
//   engine_admit(e, &(struct engine_request){.prompt = "a red sphere", .seed = 7}, &slot, &why);
//   while (engine_busy(e)) engine_step(e, on_event, ctx, &why);
//   engine_close(&e);
//
// One engine owns one Vulkan device. It holds `slots`, one per picture in flight; one engine_step
// runs one U-Net forward for up to N slots in the same stage, so that pictures join and leave
// between steps. Thread: every call on one engine comes from one thread at a time (its worker),
// except engine_info and engine_check, which only read what engine_open fixed.
#ifndef IMAGEND_ENGINE_H
#define IMAGEND_ENGINE_H

#include "err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    ENGINE_MAX_STAGES = 3,
    ENGINE_MAX_PRESETS = 8,
    ENGINE_MAX_PROMPT = 32000,
    ENGINE_MAX_STEPS = 1000,
};

struct engine;

struct engine_params {
    const char *model;     // a cascade folder (cascade.json), or pipeline folders separated by ','
    const char *variant;   // file variant such as "fp16"; NULL: the plain files, else what is there
    const char *device;    // index or part of a device name; NULL: the best one
    const char *cache_dir; // pipeline and shader caches; NULL: the user's cache folder
    const char *dtype;     // "f32", "f16"; NULL: what suits the device
    int slots;             // pictures in flight; 0: default
    size_t memory_limit;   // bytes of device memory; 0: what the device reports
    bool validation;       // Vulkan validation layers
    bool profile;          // time every dispatch (engine_profile)
};

// One picture. Pointers are read during engine_admit only. A zero field means what the preset says,
// or the model's own recommendation without one; values out of range are refused, never adjusted.
struct engine_request {
    const char *prompt;          // UTF-8, not NULL; may be empty
    const char *negative_prompt; // UTF-8; NULL: empty
    int size;                    // edge of the picture: one of engine_info.stage[].size; 0: largest
    uint64_t seed;
    uint32_t picture;                        // index within a request of n pictures
    const char *preset;                      // a name of engine_info.preset; NULL: none
    const char *sampler;                     // base stage: a name of engine_info.samplers
    int steps[ENGINE_MAX_STAGES];            // per stage
    const char *timesteps;                   // base stage: a named list ("fast27"), or NULL
    float guidance_scale[ENGINE_MAX_STAGES]; // per stage; 1 switches guidance off
    int noise_level[ENGINE_MAX_STAGES];      // super-resolution stages: -1..999; -1: the model's
    bool set_noise_level;                    // false: noise_level is ignored
    bool previews;                           // ask for ENGINE_PREVIEW events
};

enum engine_event_type {
    ENGINE_STEP,    // one denoising step is done
    ENGINE_PREVIEW, // image: the current x0 estimate of the stage (only when asked for)
    ENGINE_STAGE,   // a stage is done; image is its picture
    ENGINE_DONE,    // the picture is done; image is it; the slot is free again
    ENGINE_FAILED,  // error and fault say why; the slot is free again
};

struct engine_image {
    int width, height;
    const uint8_t *rgb; // [height, width, 3], valid during the callback only
};

struct engine_event {
    enum engine_event_type type;
    int slot;
    void *tag;            // what engine_admit was given
    int stage, stages;    // 0-based index, and how many this picture runs
    int step, steps;      // done so far, and in all, within this stage
    double stage_seconds; // ENGINE_STAGE: from the stage's first step to its picture
    struct engine_image image;
    const struct fault *fault;
};

typedef void engine_event_fn(void *ctx, const struct engine_event *ev);

// What a picture was really made with, for its metadata.
struct engine_used {
    char model[64];
    char preset[32]; // "": none
    char sampler[32];
    int size, stages;
    int steps[ENGINE_MAX_STAGES];
    float guidance_scale[ENGINE_MAX_STAGES];
    int noise_level[ENGINE_MAX_STAGES];
};

struct engine_stage_info {
    char name[64];
    int size;
    int steps;
    float guidance_scale;
    int noise_level; // -1: the stage takes none
    char sampler[32];
    uint64_t parameters;
};

// Settings that the model has under a name, for all of its stages.
struct engine_preset_info {
    char name[32];
    char sampler[32]; // of the base stage
    int steps[ENGINE_MAX_STAGES];
    float guidance_scale[ENGINE_MAX_STAGES];
};

struct engine_info {
    char model[64];
    char device[256];
    char driver[256];
    char dtype[8];
    int slots;
    int stages;
    struct engine_stage_info stage[ENGINE_MAX_STAGES];
    int presets;
    struct engine_preset_info preset[ENGINE_MAX_PRESETS];
    const char *const *samplers;  // NULL-terminated
    const char *const *timesteps; // named lists, NULL-terminated
    uint64_t text_parameters;
};

struct engine_stats {
    size_t device_bytes, device_peak_bytes;
    uint64_t text_cache_hits, text_cache_misses;
    uint64_t steps[ENGINE_MAX_STAGES];         // forwards run
    uint64_t step_pictures[ENGINE_MAX_STAGES]; // pictures in those forwards
    double step_seconds[ENGINE_MAX_STAGES];
};

// Errors: NOT_FOUND, FORMAT, UNSUPPORTED, NO_DEVICE, NO_DEVICE_MEMORY, IO, with *why filled.
// Owner: *out belongs to the caller, who gives it to engine_close.
enum err engine_open(const struct engine_params *p, struct engine **out, struct fault *why);
void engine_close(struct engine **e);

// Whether the request could be drawn, without drawing. Thread: any.
enum err engine_check(const struct engine *e, const struct engine_request *r, struct fault *why);

// Take a request into a free slot; tag comes back with each of its events. The first picture of a
// preset with a network of its own loads that network, which takes as long as at engine_open.
// Errors: INVALID with *why filled; BUSY when no slot is free; those of engine_open for a network.
enum err engine_admit(struct engine *e, const struct engine_request *r, void *tag, int *slot,
                      struct fault *why);

// What the text encoder reads for a slot in use: tokens of the prompt and of the negative prompt if
// one was given, each with its end token; what does not fit is cut off. Thread: the worker's.
int engine_tokens(const struct engine *e, int slot);

// Run one forward for one stage and post its events to fn, on this thread. A slot that fails posts
// ENGINE_FAILED and the others go on. Errors: DEVICE_LOST, NO_DEVICE_MEMORY: the engine must be
// closed and opened again, and every admitted picture is lost.
enum err engine_step(struct engine *e, engine_event_fn *fn, void *ctx, struct fault *why);

// Leave a slot at once; no further events come for it. Errors: NOT_FOUND when it is not in use.
enum err engine_evict(struct engine *e, int slot);

int engine_busy(const struct engine *e); // slots in use
int engine_free(const struct engine *e); // slots free

// Thread: any (what engine_open fixed).
const struct engine_info *engine_info(const struct engine *e);
// What a request resolves to. Thread: any.
enum err engine_resolve(const struct engine *e, const struct engine_request *r,
                        struct engine_used *out, struct fault *why);
// Counters. Thread: the worker's.
void engine_stats(const struct engine *e, struct engine_stats *out);
// Time per operator class since the last call, one line each, to be freed by the caller; NULL when
// params.profile was off. Thread: the worker's.
char *engine_profile(struct engine *e);

// A PNG of an RGB picture, with the text chunks of engine_png_text; *png is freed by the caller.
// Thread: any. Errors: NO_MEMORY, INVALID.
struct engine_png_text {
    const char *prompt, *negative_prompt;
    uint64_t seed;
    uint32_t picture;
    const struct engine_used *used;
};
enum err engine_png(const struct engine_image *image, const struct engine_png_text *text,
                    uint8_t **png, size_t *size);

// What is behind a model folder, as text for people (`imagend inspect`); also says what is missing.
// Owner: *text is freed by the caller. Thread: any.
enum err engine_inspect(const char *model, const char *variant, char **text, struct fault *why);
// The Vulkan devices, one line each (`imagend devices`). Owner: *text is freed by the caller.
enum err engine_devices(char **text, struct fault *why);

#endif
