// Shared by the files of the job core. Private to them.
#ifndef IMAGEND_JOBS_IMPL_H
#define IMAGEND_JOBS_IMPL_H

#include "attachments.h"
#include "jobs.h"
#include "queue.h"
#include "store.h"

#include <uv.h>

enum { JOBS_MAX_WORKERS = 8, JOBS_BUCKETS = 4096, JOBS_TIMER_MS = 200, JOBS_EXPIRE_TICKS = 5 };

struct jobs_plan;
struct webhook;

struct jobs {
    struct jobs_params p;
    struct queue *queue;
    struct attachments *attachments;
    int intakes, decoding; // input images: jobs that are being accepted and files that are fetched;
                           // jobs decoded now
    struct jobs_intake *intake; // the first of those that wait to be decoded
    size_t intake_bytes;
    struct jobs_plan *plan; // of each model
    struct worker *worker[JOBS_MAX_WORKERS];
    int workers, closing; // closing: number of handles that jobs_close waits for
    char *devices;
    uv_timer_t timer;
    unsigned ticks;
    struct webhook *webhook;
    // Live jobs: running, waiting, watched, or with a pending webhook. All others are only in the
    // store.
    struct job *newest, *oldest;
    struct job *by_id[JOBS_BUCKETS];
    int unstored; // number of live jobs that are not stored
    struct jobs_ask *asks;
    struct store_stats kept; // as of the store's last result
    int running, encoding;
    double busy_seconds, seconds_per_picture;
    bool draining, leaving, expiring, store_closing;
    // A shared store: calls under way, whether it says that something changed, whether it failed.
    bool claiming, claim_again, beating, following, changed, unreachable;
    void (*closed)(void *ctx);
    void *closed_ctx;
    bool opened;       // some engine was, once
    struct fault down; // why the last engine failed
};

// A pending call to the core and its progress.
struct jobs_ask {
    struct jobs_ask *next;
    struct jobs *j;
    jobs_job_fn *done; // done, listed and spent NULL: forgotten
    jobs_list_fn *listed;
    jobs_spend_fn *spent;
    void *ctx;
    struct job *job;     // for jobs_submit, until accepted; later the result
    struct job *removed; // by jobs_remove, when the store has removed it
    int accepting;       // number of images that are about to be queued
    bool submitted;
    bool found;      // the idempotency key was used before
    bool refreshed;  // the live copy of another replica's job is up to date
    const char *api; // of jobs_current
    char *client;
    char id[JOB_ID_SIZE];
    char *owner;
    struct store_page page;
    int image, next_image; // as in jobs_lookup, and the first one not tried yet
};

// jobs.c
void jobs_measure(struct jobs *j, enum jobs_measure m, int which, double value);
void jobs_try_closed(struct jobs *j);
// A worker that can check requests. Errors: BUSY while loading or draining.
enum err jobs_accepting(struct jobs *j, struct worker **w, struct fault *why);
void jobs_call(struct jobs *j, struct store_call *c);
void jobs_called(struct jobs *j, const struct store_call *c); // call first in every done function
// Releases the input images of jobs that the store removed.
void jobs_release_inputs(struct jobs *j, const struct store_call *c);

// jobs_find.c
// NULL if out of memory; done has then been called, unless it is NULL.
struct jobs_ask *jobs_ask_create(struct jobs *j, jobs_job_fn *done, void *ctx,
                                 struct jobs_ask **out);
// Delivers the job once its images have been fetched.
void jobs_ask_found(struct jobs_ask *ask, struct job *job);
// Delivers the result and frees the ask. job NULL: failed, see why.
void jobs_ask_end(struct jobs_ask *ask, struct job *job, const struct fault *why);
void jobs_ask_no_memory(struct jobs_ask *ask);
// A call for one image of a job; the caller sets its number. NULL if out of memory.
struct store_call *jobs_image_call(struct jobs *j, const struct job *job,
                                   void (*done)(struct store_call *c), void *ctx);

// jobs_live.c
struct job *jobs_live(struct jobs *j, const char *id); // NULL: none
// Prepares a job that the store has delivered.
void jobs_loaded(struct jobs *j, struct job *job);
void jobs_link(struct jobs *j, struct job *job);
void jobs_unlink(struct jobs *j, struct job *job);
// The live copy of a job that was loaded twice, with the images of both. Owner: takes the job.
struct job *jobs_only_copy(struct jobs *j, struct job *job);
// Frees the job if it is no longer live.
void jobs_settle(struct jobs *j, struct job *job);
void jobs_emit(struct jobs *j, struct job *job, struct job_event ev);
// Tells the workers whether the job's previews are watched.
void jobs_tell_watched(struct job *job);
bool jobs_wants_images(const struct job *job); // a watcher needs them
// Frees the images of an ended job that the store has, unless a watcher needs them: one that waits
// for several jobs takes them at the end of the last.
void jobs_drop_images(struct job *job);
// Cancels a job that nobody waits for or asks for later; otherwise settles it.
void jobs_cancel_unwanted(struct jobs *j, struct job *job);

// jobs_accept.c
// Whether a job could be accepted now, before its request is checked. Errors: BUSY, INVALID.
enum err jobs_may_accept(struct jobs *j, const struct job_spec *spec, struct fault *why);
// Queues the images that are not done and not queued. Errors: NO_MEMORY.
enum err jobs_enqueue(struct jobs *j, struct job *job);
// Draws a job that this process has claimed. now: as claimed. The job may be freed.
void jobs_begin(struct jobs *j, struct job *job, const struct job *now);
// Claims jobs from the store, unless that is under way.
void jobs_claim(struct jobs *j);

// jobs_models.c
enum err jobs_models_open(struct jobs *j, struct fault *why);
void jobs_models_close(struct jobs *j);
// The models whose jobs this process may claim, as in store_call. Owner: the caller. NULL if out of
// memory.
char *jobs_model_names(const struct jobs *j);
// Checks a request against its model, and resolves its settings. Errors: INVALID, NOT_FOUND with
// "model", BUSY.
enum err jobs_resolve(struct jobs *j, struct worker *w, const struct job_spec *spec,
                      struct picture_used *used, struct fault *why);

// jobs_share.c
bool job_here(const struct job *job); // this process draws it
// Every JOBS_TIMER_MS: claims, heartbeats and what other replicas do.
void jobs_share(struct jobs *j);
void jobs_on_changed(void *ctx);    // the store says so
int jobs_room_here(struct jobs *j); // images that can start now
// Stops drawing a job that stays in the store, without telling its watchers.
void jobs_let_go(struct jobs *j, struct job *job);
// Likewise, because its lease is no longer valid. The job may be freed.
void jobs_lost(struct jobs *j, struct job *job);
// Hands jobs back: all, or the durable ones that have not started.
void jobs_release(struct jobs *j, bool running);
void jobs_cancel_there(struct jobs *j, struct job *job);
// Logs the error of a periodic call, once until it succeeds.
void jobs_round_failed(struct jobs *j, const struct fault *why);

// jobs_mirror.c
// Tells the watchers of another replica's job what is new, and draws it here if now has a lease.
// Owner: takes now. The job may be freed.
void jobs_mirror(struct jobs *j, struct job *job, struct job *now);
void jobs_follow(struct jobs *j); // asks the store about all such jobs

// jobs_life.c
void jobs_on_worker(void *ctx, struct worker_event *ev);
// Ends a job: removes its images from queue and slots, stores it, then tells its watchers.
void jobs_end(struct jobs *j, struct job *job, enum job_state state, const struct fault *why);
// The two parts of jobs_end: before and after the store has saved the end.
void jobs_begin_end(struct jobs *j, struct job *job, enum job_state outcome);
void jobs_ended(struct jobs *j, struct job *job);
void jobs_fail(struct jobs *j, struct job *job, const struct fault *why);
void jobs_save_again(struct jobs *j, struct job *job);
// Takes a job's images from queue and slots; those that are not done get the state.
void jobs_stop_images(struct jobs *j, struct job *job, enum job_state state);
// Fails a job that is past its deadline.
bool jobs_late(struct jobs *j, struct job *job, int64_t now);
int64_t jobs_keep_ms(const struct jobs *j, const struct job *job);
bool job_busy(const struct job *job); // a worker, the pool or a watcher still uses it

// jobs_encode.c
// Encodes a worker's image, stores it and tells the watchers. preview: -1 for the finished image.
void jobs_encode(struct jobs *j, struct worker_event *ev, int preview);

// jobs_webhook.c
enum err jobs_webhook_open(struct jobs *j, struct fault *why);
void jobs_webhooks(struct jobs *j, int64_t now); // calls those that are due

#endif
