// What the routes share: the parts of the running server, and the helpers that more than one API
// needs. Loop thread.
#ifndef IMAGEND_APP_H
#define IMAGEND_APP_H

#include "buf.h"
#include "jobs.h"
#include "router.h"

struct conf;
struct metrics;
struct http_server;

struct app {
    struct jobs *jobs;
    struct router *router;
    struct http_server *http;
    const struct conf *conf;
    struct metrics *metrics;
    int64_t started; // unix ms
    bool draining;
    // The last event as text (native_events.c).
    struct buf event_text;
    char event_job[JOB_ID_SIZE];
    uint64_t event_id; // 0: none
};

extern const struct route routes_admin[];
extern const struct route routes_openai[];
extern const struct route routes_native[];
extern const struct route routes_a1111[];
extern const struct route routes_openapi[];
extern const struct route routes_page[];
extern const struct route *const serve_routes[]; // all of these, NULL-terminated (serve.c)

// ---- shared by the APIs that draw (draw.c) ------------------------------------------------------

extern const char *const draw_formats[];   // in the order of job_format, then aliases
extern const char *const draw_qualities[]; // of the model's steps

enum draw_quality {
    DRAW_AUTO,
    DRAW_LOW,
    DRAW_MEDIUM,
    DRAW_STANDARD,
    DRAW_HIGH, // and whatever follows
    DRAW_HD,
    DRAW_XHIGH,
    DRAW_MAX,
};

// The format that an index of draw_formats stands for.
enum job_format draw_format(int choice);
// What a quality means: the model's preset "fast", or half its steps when it has none; its own
// settings; twice its steps. Steps or a preset that were given stay.
void draw_apply_quality(struct app *app, enum draw_quality quality, struct job_spec *spec);

// The job that the request's Idempotency-Key already made, if any; *job NULL when there is none.
// hash is filled for the new job. Errors: INVALID (malformed), BUSY (used with another body).
enum err draw_idempotent(struct call *c, char hash[65], struct job **job, struct fault *why);
// Answer to a request whose Idempotency-Key was used with another body, or is malformed.
void draw_reused(struct call *c, const struct fault *why);
// Submit, or answer with the error that applies (then NULL).
struct job *draw_submit(struct call *c, const struct job_spec *spec);
// The status and words for a job that failed or was cancelled.
void draw_job_error(struct call *c, const struct job *job);
// What draws one image of a job again by itself, and what its caller should know of how it was
// made: members of a JSON object, without a comma before.
void draw_add_origin(struct buf *b, const struct job *job, int picture);
void draw_add_warnings(struct buf *b, const struct job *job);
// The unguessable path of a picture, with the public prefix.
void draw_url(struct call *c, const struct job *job, int picture, struct buf *out);
// Answer with a picture's bytes.
void draw_reply_image(struct call *c, struct job *job, int picture);

#endif
