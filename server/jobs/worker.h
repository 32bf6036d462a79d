// A worker is the thread that owns one engine. Between steps it moves images from the queue into
// free slots, and it reports to the loop thread by events.
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

// Counters since the worker started; one snapshot per step.
struct worker_stats {
    uint64_t device_bytes, device_peak_bytes;
    uint64_t text_cache_hits, text_cache_misses;
};

enum worker_event_type {
    WORKER_READY,     // the engine is open
    WORKER_DOWN,      // opening failed, see fault; the worker keeps trying
    WORKER_TICK,      // a step ran: stage, seconds, step = images in it
    WORKER_ADMITTED,  // work got a slot: used
    WORKER_STEP,      // of one image
    WORKER_PREVIEW,   // rgb
    WORKER_STAGE,     // a stage of one image is done, seconds long
    WORKER_DRAWN,     // rgb; work is the loop's again, as for the three below
    WORKER_FAILED,    // fault
    WORKER_CANCELLED, // as asked by work->cancelled
    WORKER_LOST,      // the device was lost under it
};

struct worker_event {
    struct worker_event *next;
    enum worker_event_type type;
    struct work *work;
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
    struct engine_params engine; // its strings must outlive the worker
    // Called on the loop thread; the event is freed afterwards, its rgb by the callee.
    void (*event)(void *ctx, struct worker_event *ev);
    void *ctx;
};

// Starts the thread, which opens the engine. Errors: NO_MEMORY, INTERNAL.
enum err worker_create(const struct worker_params *p, struct worker **out, struct fault *why);
// Evicts all slots, joins the thread and delivers the last events. The loop must run until closed
// is called; the worker has been freed then. Thread: loop.
void worker_stop(struct worker *w, void (*closed)(void *ctx), void *ctx);

// Checks whether the engine can generate the request, and resolves its settings. Thread: any.
// Errors: INVALID with *why filled; BUSY while there is no engine.
enum err worker_check(struct worker *w, const struct job_spec *spec, struct picture_used *used,
                      struct fault *why);
// Thread: any.
struct worker_stats worker_stats(struct worker *w);
// What the last engine told; NULL before the first one was ready. Thread: loop.
const struct model_info *worker_model(const struct worker *w);
bool worker_ready(const struct worker *w); // Thread: loop.
// Look at cancellations soon. Thread: any.
void worker_poke(struct worker *w);

#endif
