// Shared by worker.c, worker_run.c and worker_load.c. Private to them.
#ifndef IMAGEND_WORKER_IMPL_H
#define IMAGEND_WORKER_IMPL_H

#include "engine.h"
#include "queue.h"
#include "worker.h"

#include <stdatomic.h>
#include <uv.h>

enum { WORKER_MAX_SLOTS = 256 };

// One of the models, with its engine and images while it is loaded.
struct worker_model {
    struct engine_params params;
    struct engine *engine; // NULL: not loaded; the thread changes it under the worker's lock
    // the worker thread's
    struct work *slots[WORKER_MAX_SLOTS];
    int active;
    size_t need;   // bytes of the memory limit that its engine may use
    uint64_t used; // worker.uses when it last took an image
    bool described;
    // the loop thread's
    struct model_info info;
    bool known;
    struct worker_state state;
};

struct worker {
    struct worker_params p;
    uv_thread_t thread;
    uv_async_t async;
    uv_mutex_t lock; // engines, stats, events, ended
    struct worker_model *model;
    struct worker_stats stats;
    struct worker_event *first, **last;
    atomic_bool stop;
    bool ended; // the thread has nothing left to do
    // the worker thread's
    bool up;      // the device works
    int opening;  // the model to open while it does not
    int slots;    // images in progress at most, of all models
    size_t limit; // of the device memory for all models; 0: not known yet
    uint64_t uses;
    double wait, retry;   // while it does not: seconds between attempts, and the time of the next
    struct work *pending; // taken, but its model waits until another one is idle
    uint64_t seen;        // queue changes
    uint64_t past_hits, past_misses; // of engines that are closed
    // the loop thread's
    bool ready;
    void (*closed)(void *ctx);
    void *closed_ctx;
};

// worker.c
struct worker_event *worker_event_create(enum worker_event_type type, struct work *work);
void worker_event_post(struct worker *w, struct worker_event *ev);

// worker_run.c
void worker_run(void *worker); // the thread's function

// worker_load.c, on the worker's thread
// Loads a model into the room that others leave; releases idle ones for it, the least recently used
// first. Errors: BUSY while it has to wait for others to become idle; as engine_open.
enum err worker_load(struct worker *w, int index, struct fault *why);
// Releases the least recently used model that is loaded and idle, but not this one. False: there is
// none.
bool worker_release(struct worker *w, const struct worker_model *keep);
void worker_unload(struct worker *w, struct worker_model *m);
bool worker_others_loaded(const struct worker *w, const struct worker_model *m);
// Whether a model that had to wait for room may find some now: another one is idle, or none is
// left.
bool worker_may_retry(const struct worker *w, const struct worker_model *m);
// Lets an engine grow into the room that others leave while it takes an image.
void worker_lend_room(struct worker *w, struct worker_model *m);
void worker_return_room(struct worker *w, struct worker_model *m);

#endif
