// What the files of the job core share. Nobody else includes this.
#ifndef IMAGEND_JOBS_IMPL_H
#define IMAGEND_JOBS_IMPL_H

#include "attachments.h"
#include "jobs.h"
#include "queue.h"
#include "store.h"

#include <uv.h>

enum { JOBS_MAX_WORKERS = 8, JOBS_BUCKETS = 4096, JOBS_TIMER_MS = 200, JOBS_EXPIRE_TICKS = 5 };

struct webhook;

struct jobs {
    struct jobs_params p;
    struct queue *queue;
    struct attachments *attachments;
    int intakes,
        decoding; // jobs with an input image that are on their way in, and those on the pool
    struct jobs_intake *intake; // that wait to be decoded
    size_t intake_bytes;
    struct worker *worker[JOBS_MAX_WORKERS];
    int workers, closing; // handles that jobs_close waits for
    char *devices;
    uv_timer_t timer;
    unsigned ticks;
    struct webhook *webhook;
    // Live: drawn, waiting, watched, or with a webhook to call. Everything else is in the store.
    struct job *newest, *oldest;
    struct job *by_id[JOBS_BUCKETS];
    int unstored; // live jobs that the store does not have
    struct jobs_ask *asks;
    struct store_stats kept; // as of the store's last answer
    int running, encoding;
    double busy_seconds, seconds_per_picture;
    bool draining, leaving, expiring, store_closing;
    void (*closed)(void *ctx);
    void *closed_ctx;
    struct fault down; // why the last engine went away
};

// What was asked of the core, and how far the answer got.
struct jobs_ask {
    struct jobs_ask *next;
    struct jobs *j;
    jobs_job_fn *done; // NULL, as listed: forgotten
    jobs_list_fn *listed;
    void *ctx;
    struct job *job; // of jobs_submit until it is accepted; later the answer
    int accepting;   // images that are about to wait
    bool submitted;
    bool found; // the key was used before
    char id[JOB_ID_SIZE];
    char *owner;
    struct store_page page;
    int image, next_image; // as in jobs_lookup, and the first that was not tried
};

// jobs.c
void jobs_measure(struct jobs *j, enum jobs_measure m, int which, double value);
void jobs_try_closed(struct jobs *j);
// A worker that can say whether a request could be drawn. Errors: BUSY while loading or draining.
enum err jobs_accepting(struct jobs *j, struct worker **w, struct fault *why);
void jobs_call(struct jobs *j, struct store_call *c);
void jobs_called(struct jobs *j, const struct store_call *c); // first thing in an answer
// References of jobs that the store removed.
void jobs_release_inputs(struct jobs *j, const struct store_call *c);

// jobs_find.c
struct jobs_ask *jobs_ask_create(struct jobs *j, void *ctx, struct jobs_ask **out);
// Answers with the job, once its images are there.
void jobs_ask_found(struct jobs_ask *ask, struct job *job);
// Answers, and frees the ask. job NULL: why.
void jobs_ask_end(struct jobs_ask *ask, struct job *job, const struct fault *why);
struct job *jobs_live(struct jobs *j, const char *id); // NULL: none
void jobs_link(struct jobs *j, struct job *job);
// Frees the job, if it is nobody's business any more.
void jobs_settle(struct jobs *j, struct job *job);

void jobs_emit(struct jobs *j, struct job *job, struct job_event ev);

// jobs_life.c
// Whether a job could be taken now, before its request is looked at. Errors: BUSY, INVALID.
enum err jobs_may_accept(struct jobs *j, const struct job_spec *spec, struct fault *why);
void jobs_claim(struct jobs *j);
void jobs_on_worker(void *ctx, struct worker_event *ev);
// End a job: take its images out of queue and slots, store it, then tell its watchers.
void jobs_end(struct jobs *j, struct job *job, enum job_state state, const struct fault *why);
// The two halves of it: what the store is to know, and what follows once it knows.
void jobs_begin_end(struct jobs *j, struct job *job, enum job_state outcome);
void jobs_ended(struct jobs *j, struct job *job);
void jobs_fail(struct jobs *j, struct job *job, const struct fault *why);
void jobs_save_again(struct jobs *j, struct job *job);
bool job_busy(const struct job *job); // a worker, the pool or a watcher still has a part of it

// jobs_encode.c
// Encodes what a worker drew, keeps it and tells the watchers. preview: -1 for the finished image.
void jobs_encode(struct jobs *j, struct worker_event *ev, int preview);

// jobs_webhook.c
enum err jobs_webhook_open(struct jobs *j, struct fault *why);
void jobs_webhooks(struct jobs *j, int64_t now); // call those that are due

#endif
