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
    int jobs;            // in the store or live
    size_t kept_bytes, input_bytes;
    int slots;
    double seconds_per_picture;
    struct worker_stats worker; // summed over the workers
};

// Claims what the store has to be drawn, and starts the workers. Errors: INVALID, NO_MEMORY.
enum err jobs_create(const struct jobs_params *p, struct jobs **out, struct fault *why);
// Stops the workers and their threads. closed is called when the last handle is closed; the jobs
// have been freed then. Implies jobs_abandon.
void jobs_close(struct jobs *j, void (*closed)(void *ctx), void *ctx);

// Something that was asked and is answered later, on the loop thread.
struct jobs_ask;
// job NULL: *why says why. The job is there during the call; who needs it longer watches it.
typedef void jobs_job_fn(void *ctx, struct job *job, const struct fault *why);
// Nobody waits for the answer any more. A job that only this one was waiting for is cancelled.
void jobs_forget(struct jobs_ask *ask);

// Accepts a job, or finds the one that its owner gave the same idempotency key to. Answers by done,
// perhaps before it returns; *out is set before. Errors: INVALID (it cannot be drawn); BUSY with
// param "queue" when full, "server" while loading or draining, "Idempotency-Key" when the key was
// used for another request; IO when it cannot be stored.
void jobs_submit(struct jobs *j, const struct job_spec *spec, jobs_job_fn *done, void *ctx,
                 struct jobs_ask **out);

// A job with an input image: spec, whose input says how a mask is read, and the files. A spec
// without them goes to jobs_submit.
struct jobs_input {
    const struct job_spec *spec;
    struct blob *image, *mask; // as the client sent them; mask NULL: none
};
struct jobs_intake;
// As jobs_submit, but the files are decoded, hashed and stored on the thread pool first; done is
// called later, once, also with INVALID for "image" or "mask". Owner: blobs stay the caller's.
// Errors: BUSY, INVALID, NO_MEMORY, INTERNAL: done is not called.
enum err jobs_submit_input(struct jobs *j, const struct jobs_input *input, jobs_job_fn *done,
                           void *ctx, struct jobs_intake **out, struct fault *why);
// Nobody waits any more: done will not be called, and no job is made.
void jobs_intake_forget(struct jobs_intake *in);

enum { JOBS_NO_IMAGE = -1, JOBS_ALL_IMAGES = -2 };
struct jobs_lookup {
    const char *id, *key; // one of them; key: an idempotency key
    const char *owner;    // NULL: anybody's; not with key
    int image;            // that jobs_image is to give during the answer
};
// The error of an idempotency key that was used for another request.
enum err jobs_key_reused(struct fault *why);
// Answers by done, perhaps before it returns; *out is set before. Errors: NOT_FOUND, IO.
void jobs_find(struct jobs *j, const struct jobs_lookup *what, jobs_job_fn *done, void *ctx,
               struct jobs_ask **out);

struct jobs_query {
    const char *owner;
    const char *after; // id of the last job on the page before; NULL: none
    int state;         // enum job_state; -1: any
    int limit;
};
// more: there is another page. The jobs are there during the call.
typedef void jobs_list_fn(void *ctx, struct job *const *jobs, int n, bool more,
                          const struct fault *why);
// Newest first. Answers by done, perhaps before it returns; *out is set before. Errors: INVALID
// with "after", IO.
void jobs_list(struct jobs *j, const struct jobs_query *q, jobs_list_fn *done, void *ctx,
               struct jobs_ask **out);

// The newest of those that are drawn, wait or are watched here; then job->older.
struct job *jobs_newest(struct jobs *j);
// Its watchers learn of it once it is stored. The job may be gone when this returns.
void jobs_cancel(struct jobs *j, struct job *job);
// Deletes a finished job and its images; answers with a job of NULL, and with why NULL if it is
// gone. The job may be gone when this returns.
void jobs_remove(struct jobs *j, struct job *job, jobs_job_fn *done, void *ctx,
                 struct jobs_ask **out);
// Of a job that runs, ends just now, or was looked up with this image. Owner: *out is a new
// reference. Errors: NOT_FOUND, IO.
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
