// Shared by the routes: the parts of the running server, and helpers that several APIs need. Loop
// thread.
#ifndef IMAGEND_APP_H
#define IMAGEND_APP_H

#include "buf.h"
#include "jobs.h"
#include "router.h"

struct a1111_choice;
struct auth;
struct conf;
struct metrics;
struct http_server;

struct app {
    struct jobs *jobs;
    struct router *router;
    struct http_server *http;
    const struct conf *conf;
    struct metrics *metrics;
    struct auth *auth;
    int64_t started; // unix ms
    bool draining;
    struct a1111_choice *a1111_choices; // a1111_lists.c
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

void a1111_forget_choices(struct app *app); // frees what API keys have selected

// ---- shared by the APIs that generate images (draw.c) ------------------------------------------

extern const char *const draw_formats[];   // in the order of job_format, then aliases
extern const char *const draw_qualities[]; // relative to the model's steps

enum draw_quality {
    DRAW_AUTO,
    DRAW_LOW,
    DRAW_MEDIUM,
    DRAW_STANDARD,
    DRAW_HIGH, // includes the following ones
    DRAW_HD,
    DRAW_XHIGH,
    DRAW_MAX,
};

// Finds the model that a request names; NULL or "": the default. *model is for job_spec: NULL if
// there is only one. False: unknown.
bool draw_find_model(const struct app *app, const char *name, const char **model);
// Responds that there is no such model, and which ones there are.
void draw_no_model(struct call *c, const char *name);
// Adds the state of a model, and why it cannot be loaded: members of a JSON object, with a leading
// comma.
void draw_add_state(struct buf *b, const struct jobs_model *m);
// The format of an index of draw_formats.
enum job_format draw_format(int choice);
// Applies a quality. low: the preset "fast", or half the model's steps without one; high and above:
// twice its steps; otherwise the model's own settings. An explicit preset or explicit steps take
// precedence.
// edit: how many stages it uses is not known before its image has been read; only the first one's
// steps change.
void draw_apply_quality(struct app *app, enum draw_quality quality, bool edit,
                        struct job_spec *spec);

// Sets the request's Idempotency-Key and the hash of its body in spec; hash is empty without one.
// Errors: INVALID (malformed), NO_MEMORY.
enum err draw_idempotent(struct call *c, char hash[65], struct job_spec *spec, struct fault *why);
// Responds to a request whose Idempotency-Key was used with another body, or is malformed.
void draw_reused(struct call *c, const struct fault *why);
// Responds with the reason why a job was not accepted, a reused key included.
void draw_refuse(struct call *c, const struct fault *why);
// Responds with the error of a job that failed or was cancelled.
void draw_job_error(struct call *c, const struct job *job);
// Adds the seed and number that reproduce one image of a job, and its warnings: members of a JSON
// object, without a leading comma. more: further warnings, NULL-terminated; NULL: none.
void draw_add_origin(struct buf *b, const struct job *job, int picture);
void draw_add_warnings(struct buf *b, const struct job *job, const char *const *more);
// The unguessable URL of an image.
void draw_url(struct call *c, const struct job *job, int picture, struct buf *out);
// Responds with the bytes of an image.
void draw_reply_image(struct call *c, struct job *job, int picture);

#endif
