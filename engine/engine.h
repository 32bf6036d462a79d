// The public interface of the engine, and the only engine header that server/ may include.
//
//   struct engine *e;
//   engine_open(&(struct engine_params){.model = "models/default"}, &e, &why);
//   engine_admit(e, &(struct picture_request){.prompt = "a red sphere", .seed = 7}, &slot, &why);
//   while (engine_busy(e)) engine_step(e, on_event, ctx, &why);
//   engine_close(&e);
//
// One engine owns one Vulkan device. Each image being generated holds a slot. One engine_step runs
// one U-Net forward pass for up to N slots in the same stage, so images join and leave between
// steps. Thread: calls on one engine must not overlap (its worker makes them), except where a
// function says "Thread: any".
#ifndef IMAGEND_ENGINE_H
#define IMAGEND_ENGINE_H

#include "engine_params.h"
#include "picture.h"

struct engine;

enum engine_event_type {
    ENGINE_STEP,   // one denoising step is done
    ENGINE_STAGE,  // a stage has finished; image is its result
    ENGINE_DONE,   // image is the final result; the slot is free again
    ENGINE_FAILED, // fault says why; the slot is free again
};

struct engine_image {
    int width, height;
    const uint8_t *rgb; // [height, width, 3]; in an event: valid only during the callback
};

struct engine_event {
    enum engine_event_type type;
    int slot;
    void *tag;            // the tag passed to engine_admit
    int stage, stages;    // 0-based index, and the number of stages of this image
    int step, steps;      // steps done and total steps of this stage
    double stage_seconds; // ENGINE_STAGE: from the stage's first step to its image
    struct engine_image image;
    const struct fault *fault;
};

typedef void engine_event_fn(void *ctx, const struct engine_event *ev);

struct engine_stats {
    size_t device_bytes, device_peak_bytes;
    // The memory limit that it was opened with, or found, and the limit that its plan needs.
    size_t limit_bytes, need_bytes;
    uint64_t text_cache_hits, text_cache_misses;
    uint64_t steps[PICTURE_MAX_STAGES];         // forward passes
    uint64_t step_pictures[PICTURE_MAX_STAGES]; // images in those passes, summed
    double step_seconds[PICTURE_MAX_STAGES];
};

// Errors: NOT_FOUND, FORMAT, UNSUPPORTED, NO_DEVICE, NO_DEVICE_MEMORY, IO, with *why filled. Owner:
// the caller closes *out with engine_close.
enum err engine_open(const struct engine_params *p, struct engine **out, struct fault *why);
void engine_close(struct engine **e);

// Reads only the config files of a model, no weights, and needs no device. Used to refuse invalid
// requests before the model is loaded. Thread: one at a time.
struct engine_plan;
// Errors: NOT_FOUND, FORMAT, UNSUPPORTED, INVALID, IO, with *why filled. Owner: the caller closes
// *out with engine_plan_close.
enum err engine_plan_open(const struct engine_params *p, struct engine_plan **out,
                          struct fault *why);
// Like engine_resolve. Errors: INVALID, UNSUPPORTED with *why filled.
enum err engine_plan_resolve(const struct engine_plan *p, const struct picture_request *r,
                             struct picture_used *out, struct fault *why);
// Fills in what the config files say; device, driver, dtype, slots and the numbers of parameters
// stay empty.
void engine_plan_info(const struct engine_plan *p, struct model_info *out);
void engine_plan_close(struct engine_plan **p);

// Checks whether the request can be generated. Thread: any.
enum err engine_check(const struct engine *e, const struct picture_request *r, struct fault *why);

// Replaces the memory limit for images and networks that need more than the engine has planned for:
// engine_stats.need_bytes, below which it must not be. Thread: the worker's.
void engine_set_memory_limit(struct engine *e, size_t bytes);

// Takes a request into a free slot; its events carry tag. r and everything that it points to may be
// freed afterwards. The first image of a preset with its own network loads that network, which
// takes as long as in engine_open. Errors: INVALID with *why filled; BUSY if no slot is free; as
// engine_open for a network.
enum err engine_admit(struct engine *e, const struct picture_request *r, void *tag, int *slot,
                      struct fault *why);

// The resolved settings of the image in a slot, including its token counts. Owner: the engine;
// valid while the slot is in use, and during the last event of its image. Thread: the worker's.
const struct picture_used *engine_used(const struct engine *e, int slot);

// Runs one forward pass of one stage and posts its events to fn, on this thread. A slot that fails
// posts ENGINE_FAILED; the others continue. Errors: DEVICE_LOST, NO_DEVICE_MEMORY: the engine must
// be closed and opened again, and every admitted image is lost.
enum err engine_step(struct engine *e, engine_event_fn *fn, void *ctx, struct fault *why);

// Renders the current estimate of a slot's image. Call it between two steps; *out is valid until
// the next call. Errors: NOT_FOUND if the slot has not finished a step of its stage; as
// engine_step.
enum err engine_preview(struct engine *e, int slot, struct engine_image *out, struct fault *why);

// Frees a slot immediately; it posts no further events. Errors: NOT_FOUND if it is not in use.
enum err engine_evict(struct engine *e, int slot);

int engine_busy(const struct engine *e); // number of slots in use
int engine_free(const struct engine *e); // number of free slots

// Fixed by engine_open. Thread: any.
const struct model_info *engine_info(const struct engine *e);
// The settings that a request resolves to. Thread: any.
enum err engine_resolve(const struct engine *e, const struct picture_request *r,
                        struct picture_used *out, struct fault *why);
// Counters. Thread: the worker's.
void engine_stats(const struct engine *e, struct engine_stats *out);
// Time per operator class since the last call, one line each; NULL unless params.profile is set.
// Owner: the caller frees it. Thread: the worker's.
char *engine_profile(struct engine *e);

// Describes a model folder as text (`imagend inspect`), including missing parts. Owner: the caller
// frees *text. Thread: any.
enum err engine_inspect(const struct engine_params *p, char **text, struct fault *why);
// The Vulkan devices, one line each (`imagend devices`). Owner: the caller frees *text.
enum err engine_devices(char **text, struct fault *why);

#endif
