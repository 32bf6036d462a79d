// The engine's face, and the only engine header that server/ may include.
//
//   struct engine *e;
//   engine_open(&(struct engine_params){.model = "models/default"}, &e, &why);
//   engine_admit(e, &(struct picture_request){.prompt = "a red sphere", .seed = 7}, &slot, &why);
//   while (engine_busy(e)) engine_step(e, on_event, ctx, &why);
//   engine_close(&e);
//
// One engine owns one Vulkan device. It holds `slots`, one per image in flight; one engine_step
// runs one U-Net forward for up to N slots in the same stage, so that images join and leave
// between steps. Thread: every call on one engine comes from one thread at a time (its worker),
// except engine_info and engine_check, which only read what engine_open fixed.
#ifndef IMAGEND_ENGINE_H
#define IMAGEND_ENGINE_H

#include "engine_params.h"
#include "picture.h"

struct engine;

enum engine_event_type {
    ENGINE_STEP,   // one denoising step is done
    ENGINE_STAGE,  // a stage has finished; image is its result
    ENGINE_DONE,   // the image is finished, in image; the slot is free again
    ENGINE_FAILED, // error and fault say why; the slot is free again
};

struct engine_image {
    int width, height;
    const uint8_t *rgb; // [height, width, 3]; of an event: valid during the callback only
};

struct engine_event {
    enum engine_event_type type;
    int slot;
    void *tag;                 // what engine_admit was given
    int stage, stages;         // 0-based index, and how many of the model's this image goes through
    int step, steps;           // done so far, and in all, within this stage
    double stage_seconds;      // ENGINE_STAGE: from the stage's first step to its image
    struct engine_image image; // square, except of an image that is enlarged
    const struct fault *fault;
};

typedef void engine_event_fn(void *ctx, const struct engine_event *ev);

struct engine_stats {
    size_t device_bytes, device_peak_bytes;
    uint64_t text_cache_hits, text_cache_misses;
    uint64_t steps[PICTURE_MAX_STAGES];         // forwards run
    uint64_t step_pictures[PICTURE_MAX_STAGES]; // images in those forwards
    double step_seconds[PICTURE_MAX_STAGES];
};

// Errors: NOT_FOUND, FORMAT, UNSUPPORTED, NO_DEVICE, NO_DEVICE_MEMORY, IO, with *why filled.
// Owner: *out belongs to the caller, who gives it to engine_close.
enum err engine_open(const struct engine_params *p, struct engine **out, struct fault *why);
void engine_close(struct engine **e);

// Reads only the config files of a model, no weights, and needs no device. Used to refuse invalid
// requests before the model is loaded. Thread: one at a time.
struct engine_plan;
// Errors: NOT_FOUND, FORMAT, UNSUPPORTED, INVALID, IO, with *why filled.
// Owner: *out belongs to the caller, who gives it to engine_plan_close.
enum err engine_plan_open(const struct engine_params *p, struct engine_plan **out,
                          struct fault *why);
// As engine_resolve. Errors: INVALID, UNSUPPORTED with *why filled.
enum err engine_plan_resolve(const struct engine_plan *p, const struct picture_request *r,
                             struct picture_used *out, struct fault *why);
void engine_plan_close(struct engine_plan **p);

// Checks whether the request can be generated. Thread: any.
enum err engine_check(const struct engine *e, const struct picture_request *r, struct fault *why);

// Take a request into a free slot; tag comes back with each of its events. What r points at, its
// edit included, is not used after this. The first image of a
// preset with a network of its own loads that network, which takes as long as at engine_open.
// Errors: INVALID with *why filled; BUSY when no slot is free; those of engine_open for a network.
enum err engine_admit(struct engine *e, const struct picture_request *r, void *tag, int *slot,
                      struct fault *why);

// The resolved settings of the image in a slot, including its token counts. Owner: the engine;
// valid while the slot is in use, and during the last event of its image. Thread: the worker's.
const struct picture_used *engine_used(const struct engine *e, int slot);

// Run one forward for one stage and post its events to fn, on this thread. A slot that fails posts
// ENGINE_FAILED and the others go on. Errors: DEVICE_LOST, NO_DEVICE_MEMORY: the engine must be
// closed and opened again, and every admitted image is lost.
enum err engine_step(struct engine *e, engine_event_fn *fn, void *ctx, struct fault *why);

// Renders the current estimate of a slot's image. Call it between two steps; *out is valid until
// the next call. Errors: NOT_FOUND when the slot has not finished a step of its stage; those of
// engine_step.
enum err engine_preview(struct engine *e, int slot, struct engine_image *out, struct fault *why);

// Frees a slot immediately; it posts no further events. Errors: NOT_FOUND when it is not in use.
enum err engine_evict(struct engine *e, int slot);

int engine_busy(const struct engine *e); // slots in use
int engine_free(const struct engine *e); // slots free

// Thread: any (what engine_open fixed).
const struct model_info *engine_info(const struct engine *e);
// The settings that a request resolves to. Thread: any.
enum err engine_resolve(const struct engine *e, const struct picture_request *r,
                        struct picture_used *out, struct fault *why);
// Counters. Thread: the worker's.
void engine_stats(const struct engine *e, struct engine_stats *out);
// Time per operator class since the last call, one line each; NULL when params.profile was off.
// Owner: the caller frees it. Thread: the worker's.
char *engine_profile(struct engine *e);

// Describes a model folder as text (`imagend inspect`), including missing parts. Owner: the caller
// frees *text. Thread: any.
enum err engine_inspect(const char *model, const char *variant, char **text, struct fault *why);
// The Vulkan devices, one line each (`imagend devices`). Owner: the caller frees *text.
enum err engine_devices(char **text, struct fault *why);

#endif
