// The job core accepts, schedules, cancels, stores and deletes jobs. HTTP handlers use only this
// header and job.h. Thread: the loop's.
#ifndef IMAGEND_JOBS_H
#define IMAGEND_JOBS_H

#include "job.h"
#include "worker.h"

struct jobs;
struct store;

struct jobs_limits {
    int queued, queued_per_owner; // images
    int running_per_owner;        // images; 0: no limit
    int64_t keep_ms;              // how long results are kept
    int keep_jobs;
    size_t keep_bytes;
    size_t input_bytes; // total of the input images of all jobs
};

// Measurements for metrics.
enum jobs_measure {
    JOBS_WAITED,      // seconds from acceptance to the first slot
    JOBS_STEP,        // seconds of one step; which = stage
    JOBS_OCCUPANCY,   // number of images in that step
    JOBS_STAGE_DONE,  // seconds of one image's stage; which = stage
    JOBS_PICTURE,     // 1 for each generated image; which = model
    JOBS_FAILED,      // 1 for each image that failed; which: enum err
    JOBS_ENDED,       // seconds from acceptance to the end; which = enum job_state
    JOBS_REBUILT,     // 1 for each lost engine
    JOBS_LOADED,      // 1 for each time that a model was loaded; which = model
    JOBS_LOAD_FAILED, // 1 for each time that one of several models was not; which = model
    JOBS_CLAIMED,     // 1 for each job claimed from a shared store
    JOBS_LOST,        // 1 for each lease that ended before its job
    // which: see jobs_call_name
    JOBS_STORE_CALL,   // seconds from a call to the store to its result
    JOBS_STORE_FAILED, // 1 for each call that the store could not answer
};

struct jobs_webhook {
    const char *allow;  // host patterns, comma-separated; NULL or "": off
    const char *secret; // signs the body; copied
    void (*sign)(const char *secret, const void *data, size_t n, char out[65]); // any thread
};

struct jobs_params {
    struct uv_loop_s *loop;
    struct store *store; // Owner: the job core
    struct jobs_limits limits;
    const struct engine_params *engine; // one per model, the default first, without the device;
                                        // must outlive the core. Several models have names.
    int models;
    bool provenance;     // images are marked as generated in their XMP metadata
    const char *devices; // comma-separated or NULL
    struct jobs_webhook webhook;
    void (*digest)(const void *data, size_t n, char out[65]); // SHA-256 in hexadecimal; any thread
    void (*measure)(void *ctx, enum jobs_measure m, int which, double value);
    // The default model cannot be loaded, and retrying will not help. Thread: loop.
    void (*hopeless)(void *ctx, const struct fault *why);
    void *ctx;
};

struct jobs_stats {
    int queued, running; // images: of all replicas that share the store, and of this one
    int fleet_running;   // of all replicas
    bool shared;
    int jobs; // stored or live
    size_t kept_bytes, input_bytes;
    int slots;
    double seconds_per_picture;
    struct worker_stats worker; // summed over the workers
};

// Claims the store's unfinished jobs and starts the workers. Errors: INVALID, NO_MEMORY.
enum err jobs_create(const struct jobs_params *p, struct jobs **out, struct fault *why);
// Stops the workers and their threads. closed is called when the last handle is closed and the jobs
// have been freed. Implies jobs_abandon.
void jobs_close(struct jobs *j, void (*closed)(void *ctx), void *ctx);

// A pending call whose result is delivered later, on the loop thread.
struct jobs_ask;
// job NULL: failed, see *why. The job is valid only during the call; to keep it, watch it.
typedef void jobs_job_fn(void *ctx, struct job *job, const struct fault *why);
// Cancels the delivery of the result. A job that only this call was waiting for is cancelled.
void jobs_forget(struct jobs_ask *ask);

// Accepts a job, or finds the owner's job with the same idempotency key. Calls done, possibly
// before returning; *out is set before that. Errors: INVALID (cannot be generated); BUSY with param
// "queue" if full, "server" while loading or draining, "Idempotency-Key" if the key was used for
// another request; IO if it cannot be stored.
void jobs_submit(struct jobs *j, const struct job_spec *spec, jobs_job_fn *done, void *ctx,
                 struct jobs_ask **out);

// A job with an input image: spec, whose input describes the mask, and the files. For a job without
// files, use jobs_submit.
struct jobs_input {
    const struct job_spec *spec;
    struct blob *image, *mask; // as sent by the client; mask NULL: none
};
struct jobs_intake;
// Like jobs_submit, but decodes, hashes and stores the files on the thread pool first; done is
// called later, once, also with INVALID for "image" or "mask". Owner: the caller keeps its blobs.
// Errors: BUSY, INVALID, NO_MEMORY, INTERNAL; done is then not called.
enum err jobs_submit_input(struct jobs *j, const struct jobs_input *input, jobs_job_fn *done,
                           void *ctx, struct jobs_intake **out, struct fault *why);
// Cancels the call: done will not be called, and no job is created.
void jobs_intake_forget(struct jobs_intake *in);

enum { JOBS_NO_IMAGE = -1, JOBS_ALL_IMAGES = -2 };
struct jobs_lookup {
    const char *id, *key; // set one of them; key: an idempotency key
    const char *owner;    // NULL: any owner; required with key
    int image;            // image that jobs_image must return during done
};
// Fills *why for an idempotency key that was used for another request.
enum err jobs_key_reused(struct fault *why);
// Finds a job. Calls done, possibly before returning; *out is set before that. Errors: NOT_FOUND,
// IO.
void jobs_find(struct jobs *j, const struct jobs_lookup *what, jobs_job_fn *done, void *ctx,
               struct jobs_ask **out);

struct jobs_rate {
    const char *owner;
    double per_second, burst;
};
// wait: seconds until the next request is allowed; 0: this one is. Ignore it if why is not NULL.
typedef void jobs_spend_fn(void *ctx, double wait, const struct fault *why);
// Counts a request against a rate that all replicas share; a store that is not shared allows each.
// Calls done, possibly before returning; *out is set before that. Errors: BUSY, NO_MEMORY.
void jobs_spend(struct jobs *j, const struct jobs_rate *rate, jobs_spend_fn *done, void *ctx,
                struct jobs_ask **out);

struct jobs_query {
    const char *owner;
    const char *after; // id of the last job on the previous page; NULL: none
    int state;         // enum job_state; -1: any
    int limit;
};
// more: there is another page. The jobs are valid only during the call.
typedef void jobs_list_fn(void *ctx, struct job *const *jobs, int n, bool more,
                          const struct fault *why);
// Lists jobs, newest first. Calls done, possibly before returning; *out is set before that.
// Errors: INVALID with "after", IO.
void jobs_list(struct jobs *j, const struct jobs_query *q, jobs_list_fn *done, void *ctx,
               struct jobs_ask **out);

struct jobs_who {
    const char *owner, *client; // client: as in job_spec; preferred if owner is not ""
    const char *api;            // Owner: static
};
// Finds the oldest unfinished job of a client. Calls done, possibly before returning; *out is set
// before that. Errors: NOT_FOUND, IO.
void jobs_current(struct jobs *j, const struct jobs_who *who, jobs_job_fn *done, void *ctx,
                  struct jobs_ask **out);
// Its watchers are told once this is stored. The job may be freed when this returns.
void jobs_cancel(struct jobs *j, struct job *job);
// Deletes a finished job and its images; done gets job NULL, and why NULL on success. The job may
// be freed when this returns.
void jobs_remove(struct jobs *j, struct job *job, jobs_job_fn *done, void *ctx,
                 struct jobs_ask **out);
// An image of a job that is running, is ending, or was looked up with this image. Owner: *out is a
// new reference. Errors: NOT_FOUND, IO.
enum err jobs_image(struct jobs *j, struct job *job, int picture, struct blob **out,
                    struct fault *why);

// The input image of a job as the client sent it, and its mask; NULL: it has none. The job and the
// files are valid only during the call. why: BUSY, NOT_FOUND, IO; NULL on success.
typedef void jobs_files_fn(void *ctx, struct job *job, struct blob *const file[2],
                           const struct fault *why);
struct jobs_files;
// Fetches them on the thread pool. done is called later, once. Errors: NO_MEMORY; done is then not
// called.
enum err jobs_input_files(struct jobs *j, struct job *job, jobs_files_fn *done, void *ctx,
                          struct jobs_files **out, struct fault *why);
// Cancels the call: done will not be called.
void jobs_files_forget(struct jobs_files *files);

void jobs_watch(struct jobs *j, struct job *job, struct job_watch *w);
// Requests one preview of an image; the next one that is due will be rendered.
void jobs_want_preview(struct job *job, int picture);
// Removes a watcher. A job that is not stored and has no other watcher is cancelled and deleted.
void jobs_unwatch(struct jobs *j, struct job_watch *w);

// Stops accepting jobs; durable jobs wait for the restart, others are finished.
void jobs_drain(struct jobs *j);
// Whether no job is left that must finish before jobs_close.
bool jobs_drained(struct jobs *j);
// Stops waiting: durable jobs stay stored for the restart, others fail.
void jobs_abandon(struct jobs *j);

bool jobs_ready(struct jobs *j, struct fault *why);

// A model as a client sees it.
struct jobs_model {
    const char *name; // NULL: not known before it is loaded
    enum worker_model_state state;
    const struct model_info *info; // NULL: not known
    struct fault why;              // MODEL_FAILED
};
int jobs_models(const struct jobs *j); // the first is the default
struct jobs_model jobs_model_at(const struct jobs *j, int index);
const char *jobs_model_state_name(enum worker_model_state s);
// name: of a model; NULL or "": the default. find: its index; -1: unknown. model: NULL: unknown, or
// not known yet.
int jobs_model_find(const struct jobs *j, const char *name);
const struct model_info *jobs_model(const struct jobs *j, const char *name);

// Reads the config files of a model, none of its weights. Errors: as engine_plan_open.
enum err jobs_check_model(const struct engine_params *p, struct fault *why);

struct jobs_stats jobs_stats(struct jobs *j);
const char *jobs_call_name(int which); // a kind of call to the store
const struct jobs_limits *jobs_limits(const struct jobs *j);
void jobs_set_limits(struct jobs *j, const struct jobs_limits *limits);
// Sets the secret for later deliveries. Copies it; if out of memory, the previous one stays.
void jobs_set_webhook_secret(struct jobs *j, const char *secret);
// Estimated seconds until this many images are finished.
double jobs_wait_estimate(struct jobs *j, int pictures);

#endif
