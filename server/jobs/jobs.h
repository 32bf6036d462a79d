// The job core accepts, schedules, cancels, stores and deletes jobs. Everything here runs on the
// loop thread. HTTP handlers use this header and job.h only.
#ifndef IMAGEND_JOBS_H
#define IMAGEND_JOBS_H

#include "job.h"
#include "worker.h"

struct jobs;
struct store;

struct jobs_limits {
    int queued, queued_per_owner; // images
    int running_per_owner;        // images; 0: no limit
    int64_t keep_ms;              // how long results stay
    int keep_jobs;
    size_t keep_bytes;
    size_t input_bytes; // input images of all jobs
};

// What happened, for metrics.
enum jobs_measure {
    JOBS_WAITED,     // seconds from acceptance to the first slot
    JOBS_STEP,       // seconds of one step; which = stage
    JOBS_OCCUPANCY,  // images in that step
    JOBS_STAGE_DONE, // seconds of one image's stage; which = stage
    JOBS_PICTURE,    // 1 for each image drawn
    JOBS_FAILED,     // 1 for each image that failed; which: enum err
    JOBS_ENDED,      // seconds from acceptance to the end; which = enum job_state
    JOBS_REBUILT,    // 1 for each engine lost
};

struct jobs_webhook {
    const char *allow;  // host patterns, comma-separated; NULL or "": off
    const char *secret; // signs the body; copied
    void (*sign)(const char *secret, const void *data, size_t n, char out[65]); // any thread
};

struct jobs_params {
    struct uv_loop_s *loop;
    struct store *store; // taken over
    struct jobs_limits limits;
    struct engine_params engine; // of each worker, except for the device
    bool provenance;             // files say in XMP that a model made them
    const char *devices;         // comma-separated or NULL
    struct jobs_webhook webhook;
    void (*digest)(const void *data, size_t n, char out[65]); // SHA-256 in hexadecimal; any thread
    void (*measure)(void *ctx, enum jobs_measure m, int which, double value);
    // The model cannot be loaded, and retrying will not help. Thread: loop.
    void (*hopeless)(void *ctx, const struct fault *why);
    void *ctx;
};

struct jobs_stats {
    int queued, running; // images
    int jobs;
    size_t kept_bytes, input_bytes;
    int slots;
    double seconds_per_picture;
    struct worker_stats worker; // summed over the workers
};

// Loads the store and starts the workers. Errors: those of the store, NO_MEMORY.
enum err jobs_create(const struct jobs_params *p, struct jobs **out, struct fault *why);
// Stops the workers and their threads. closed is called when the last handle is closed; the jobs
// have been freed then. Implies jobs_abandon.
void jobs_close(struct jobs *j, void (*closed)(void *ctx), void *ctx);

// Errors: INVALID (it cannot be drawn); BUSY with param "queue" when full, "server" while loading
// or draining; IO when it cannot be stored.
enum err jobs_submit(struct jobs *j, const struct job_spec *spec, struct job **out,
                     struct fault *why);

// A job with an input image: spec, whose input says how a mask is read, and the files. A spec
// without them goes to jobs_submit.
struct jobs_input {
    const struct job_spec *spec;
    struct blob *image, *mask; // as the client sent them; mask NULL: none
};
struct jobs_intake;
// job NULL: refused, and *why says so: as jobs_submit, or INVALID with "image" or "mask".
typedef void jobs_submitted_fn(void *ctx, struct job *job, const struct fault *why);
// As jobs_submit, but the files are decoded, hashed and stored on the thread pool first; done is
// called later, once. Owner: blobs stay the caller's. Errors: BUSY, INVALID, NO_MEMORY, INTERNAL:
// done is not called.
enum err jobs_submit_input(struct jobs *j, const struct jobs_input *input, jobs_submitted_fn *done,
                           void *ctx, struct jobs_intake **out, struct fault *why);
// Nobody waits any more: done will not be called, and no job is made.
void jobs_intake_forget(struct jobs_intake *in);

struct job *jobs_find(struct jobs *j, const char *id); // NULL: none
struct job *jobs_find_key(struct jobs *j, const char *owner, const char *idempotency_key);
struct job *jobs_newest(struct jobs *j); // then job->older
void jobs_cancel(struct jobs *j, struct job *job);
// Delete a finished job and its images.
void jobs_remove(struct jobs *j, struct job *job);
// Owner: *out is a new reference. Errors: NOT_FOUND, IO.
enum err jobs_image(struct jobs *j, struct job *job, int picture, struct blob **out,
                    struct fault *why);

// The input image of a job as the client sent it, or its mask. Owner: *out is a new reference.
// Errors: NOT_FOUND, IO.
enum err jobs_input_file(struct jobs *j, const struct job *job, bool mask, struct blob **out,
                         struct fault *why);

void jobs_watch(struct jobs *j, struct job *job, struct job_watch *w);
// Requests one preview of an image; the next one that is due will be rendered.
void jobs_want_preview(struct job *job, int picture);
// A job that is not stored and has no watcher left is cancelled and deleted.
void jobs_unwatch(struct jobs *j, struct job_watch *w);

// From now on no new jobs are accepted; durable jobs wait for the restart, the others are finished.
void jobs_drain(struct jobs *j);
// Whether no job is left that must finish before jobs_close.
bool jobs_drained(struct jobs *j);
// Stop waiting: durable jobs stay stored for the restart, the others fail.
void jobs_abandon(struct jobs *j);

bool jobs_ready(struct jobs *j, struct fault *why);
const struct model_info *jobs_model(struct jobs *j); // NULL: not loaded yet
struct jobs_stats jobs_stats(struct jobs *j);
const struct jobs_limits *jobs_limits(const struct jobs *j);
void jobs_set_limits(struct jobs *j, const struct jobs_limits *limits);
// Signs the deliveries that follow. Copies the secret; the previous one stays if memory runs out.
void jobs_set_webhook_secret(struct jobs *j, const char *secret);
// Estimated seconds until this many images are finished.
double jobs_wait_estimate(struct jobs *j, int pictures);

#endif
