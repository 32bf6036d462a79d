// A worker is the thread that owns one device and the engines on it: one, or one for each loaded
// model of several. Between steps it moves images from the queue into free slots; it reports to the
// loop thread by events.
#ifndef IMAGEND_WORKER_H
#define IMAGEND_WORKER_H

#include "engine_params.h"
#include "err.h"
#include "picture.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct attachments;
struct queue;
struct work;
struct job_spec;
struct uv_loop_s;
struct worker;

// Counters since the worker started, updated after each step.
struct worker_stats {
    uint64_t device_bytes, device_peak_bytes;
    uint64_t text_cache_hits, text_cache_misses;
};

enum worker_event_type {
    WORKER_READY,     // model is loaded
    WORKER_DOWN,      // the device or the only model failed, see fault; the worker keeps trying
    WORKER_LOADING,   // model is being loaded, or waits for room
    WORKER_RELEASED,  // model is not loaded any longer
    WORKER_BROKEN,    // model, one of several, cannot be loaded, see fault
    WORKER_TICK,      // a step ran: stage, seconds, step = number of images in it
    WORKER_ADMITTED,  // work entered a slot: used
    WORKER_STEP,      // one image advanced by a step
    WORKER_PREVIEW,   // rgb
    WORKER_STAGE,     // one image finished a stage, after `seconds`
    WORKER_DRAWN,     // rgb; work belongs to the loop again, as for the next three
    WORKER_FAILED,    // fault
    WORKER_CANCELLED, // in response to work->cancelled
    WORKER_LOST,      // the device was lost
};

struct worker_event {
    struct worker_event *next;
    enum worker_event_type type;
    struct work *work;
    int model; // index, except in events of an image
    int stage, stages, step, steps, preview;
    double seconds;
    int width, height;
    uint8_t *rgb; // Owner: the receiver
    struct picture_used used;
    struct fault fault;
};

struct worker_params {
    struct uv_loop_s *loop;
    struct queue *queue;
    struct attachments *attachments;
    const struct engine_params *engine; // one per model, the default first
    int models;
    const char *device; // as in engine_params; strings must outlive the worker
    // Called on the loop thread. The worker frees the event afterwards, the callee its rgb.
    void (*event)(void *ctx, struct worker_event *ev);
    void *ctx;
};

enum worker_model_state { MODEL_UNLOADED, MODEL_LOADING, MODEL_LOADED, MODEL_FAILED };
struct worker_state {
    enum worker_model_state model;
    struct fault why; // MODEL_FAILED
};

// Starts the thread, which opens the default model. Errors: NO_MEMORY, INTERNAL.
enum err worker_create(const struct worker_params *p, struct worker **out, struct fault *why);
// Ends the thread, which evicts all slots. The loop must run, and gets the last events, until
// closed is called; the worker has been freed then. Thread: loop.
void worker_stop(struct worker *w, void (*closed)(void *ctx), void *ctx);

// Checks whether the only model can generate the request, and resolves its settings. Thread: any.
// Errors: INVALID with *why filled; BUSY if there is no engine.
enum err worker_check(struct worker *w, const struct job_spec *spec, struct picture_used *used,
                      struct fault *why);
// Thread: any.
struct worker_stats worker_stats(struct worker *w);
// A model as its last engine described it; NULL before the first was ready. Thread: loop.
const struct model_info *worker_model(const struct worker *w, int model);
struct worker_state worker_state(const struct worker *w, int model); // Thread: loop.
bool worker_ready(const struct worker *w); // it takes images. Thread: loop.
// Makes the worker check for cancellations soon. Thread: any.
void worker_poke(struct worker *w);

#endif
