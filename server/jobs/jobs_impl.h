// What the files of the job core share. Nobody else includes this.
#ifndef IMAGEND_JOBS_IMPL_H
#define IMAGEND_JOBS_IMPL_H

#include "attachments.h"
#include "jobs.h"
#include "queue.h"
#include "store.h"

#include <uv.h>

enum { JOBS_MAX_WORKERS = 8, JOBS_BUCKETS = 4096, JOBS_TIMER_MS = 200 };

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
    struct webhook *webhook;
    struct job *newest, *oldest;
    struct job *by_id[JOBS_BUCKETS], *by_key[JOBS_BUCKETS];
    int count, kept, running, encoding;
    size_t kept_bytes;
    double busy_seconds, seconds_per_picture;
    bool draining, leaving;
    void (*closed)(void *ctx);
    void *closed_ctx;
    struct fault down; // why the last engine went away
};

// jobs.c
void jobs_measure(struct jobs *j, enum jobs_measure m, int which, double value);
void jobs_drop_if_idle(struct jobs *j, struct job *job);
void jobs_try_closed(struct jobs *j);
// Whether a job could be taken now, before its request is looked at. Errors: BUSY, INVALID.
enum err jobs_may_accept(struct jobs *j, const struct job_spec *spec, struct fault *why);

// jobs_run.c
enum err jobs_enqueue(struct jobs *j, struct job *job);
void jobs_on_worker(void *ctx, struct worker_event *ev);
void jobs_emit(struct jobs *j, struct job *job, struct job_event ev);
// End a job: take its images out of queue and slots, store it, tell its watchers.
void jobs_end(struct jobs *j, struct job *job, enum job_state state, const struct fault *why);
bool job_busy(const struct job *job); // a worker or the thread pool still has a part of it

// jobs_webhook.c
enum err jobs_webhook_open(struct jobs *j, struct fault *why);
void jobs_webhooks(struct jobs *j, int64_t now); // call those that are due

#endif
