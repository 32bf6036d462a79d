// Jobs of A1111's API: input images, waiting until they are done, progress and interruption. Called
// by the other files of this API on the loop thread.
#include "a1111.h"

#include "asking.h"
#include "buf.h"
#include "http.h"
#include "json.h"
#include "text.h"

#include <stdlib.h>
#include <string.h>

// ---- images -------------------------------------------------------------------------------------

bool a1111_take_image(struct call *c, const char *name, const struct json_t *v,
                      struct a1111_image *out)
{
    struct fault why = {0};
    struct input_file *f = &out->file;
    enum err e = v ? input_read(name, v, f, &why) : input_take(c, name, f, &why);
    if (!e && f->blob)
        e = picture_file_measure(f->blob->data, f->blob->size,
                                 strcmp(name, "mask") ? "image" : "mask", &out->size, &why);
    if (e == ERR_INVALID)
        call_error(c, 422, NULL, name, "%sInvalid encoded image: %s", out->which, why.msg);
    else if (e)
        call_fault(c, &why, 1);
    return !e;
}

// ---- waiting ------------------------------------------------------------------------------------

struct waiting;

struct part {
    struct waiting *all;
    struct jobs_intake *intake; // NULL: it has become a job
    char which[sizeof(((struct a1111_image *)NULL)->which)];
    struct job *job;
    struct job_watch watch;
};

// A call and the jobs that it waits for.
struct waiting {
    struct call *call;
    a1111_done_fn *done;
    int n, left;
    struct part part[];
};

static struct waiting *waiting_create(struct call *c, int n, a1111_done_fn *done)
{
    struct waiting *w = calloc(1, sizeof *w + (size_t)n * sizeof w->part[0]);
    if (!w) {
        call_error(c, 500, NULL, NULL, "%s", err_text(ERR_NO_MEMORY));
        return NULL;
    }
    w->call = c;
    w->done = done;
    w->n = w->left = n;
    for (int i = 0; i < n; i++)
        w->part[i].all = w;
    return w;
}

// Unfinished jobs without a watcher are cancelled; finished ones are deleted.
static void waiting_end(struct waiting *w)
{
    const struct app *app = w->call->app;
    for (int i = 0; i < w->n; i++) {
        if (w->part[i].intake)
            jobs_intake_forget(w->part[i].intake);
        if (w->part[i].job)
            jobs_unwatch(app->jobs, &w->part[i].watch);
    }
    free(w);
}

static void on_gone(void *ctx)
{
    waiting_end(ctx);
}

static void on_event(struct job_watch *watch, const struct job_event *ev)
{
    struct part *p = watch->ctx;
    struct waiting *w = p->all;
    struct job *jobs[JOB_MAX_PICTURES];
    if (ev->type != JOB_EVENT_END)
        return;
    w->left--;
    if (p->job->state == JOB_DONE && w->left)
        return;
    for (int i = 0; i < w->n; i++)
        jobs[i] = w->part[i].job;
    if (p->job->state == JOB_DONE)
        w->done(w->call, jobs, w->n);
    else
        draw_job_error(w->call, p->job);
    waiting_end(w);
}

static void watch(struct part *p, struct job *job)
{
    const struct app *app = p->all->call->app;
    p->job = job;
    p->watch.images = true;
    p->watch.event = on_event;
    p->watch.ctx = p;
    jobs_watch(app->jobs, job, &p->watch);
}

void a1111_wait(struct call *c, struct job *job, a1111_done_fn *done)
{
    const struct app *app = c->app;
    struct waiting *w = waiting_create(c, 1, done);
    if (!w) {
        jobs_cancel(app->jobs, job);
        return;
    }
    watch(&w->part[0], job);
    http_defer(c->http, on_gone, w);
}

static void on_submitted(void *ctx, struct job *job, const struct fault *why)
{
    struct part *p = ctx;
    struct call *c = p->all->call;
    p->intake = NULL;
    if (job) {
        watch(p, job);
        return;
    }
    struct fault named = *why;
    if (why->code == ERR_INVALID)
        fault_set(&named, why->code, why->param, "%s%s", p->which, why->msg);
    waiting_end(p->all);
    http_defer(c->http, NULL, NULL);
    draw_refuse(c, &named);
}

void a1111_submit_all(struct call *c, const struct job_spec *specs,
                      const struct a1111_image *images, int n, a1111_done_fn *done)
{
    const struct app *app = c->app;
    struct fault why = {0};
    struct waiting *w = waiting_create(c, n, done);
    for (int i = 0; w && i < n; i++) {
        struct part *p = &w->part[i];
        const struct jobs_input from = {&specs[i], images[i].file.blob, NULL};
        memcpy(p->which, images[i].which, sizeof p->which);
        if (!jobs_submit_input(app->jobs, &from, on_submitted, p, &p->intake, &why))
            continue;
        waiting_end(w);
        draw_refuse(c, &why);
        return;
    }
    if (!w)
        return;
    http_drop_body(c->http);
    http_defer(c->http, on_gone, w);
}

// ---- progress -----------------------------------------------------------------------------------

// Progress, interrupt and skip apply to the caller's oldest unfinished job, preferring the same key
// and address over the same key. Without keys, only the address identifies a client.
static const struct check_field progress_table[] = {
    {"skip_current_image", CHECK_BOOL, 0, offsetof(struct progress_fields, skip_current_image),
     .def = "false", .help = "true sets current_image to null"},
};
const struct check_table a1111_progress_check = CHECK_TABLE_LAX("ProgressQuery", progress_table);

static void reply_progress(struct call *c, struct job *j)
{
    const struct app *app = c->app;
    const struct progress_fields *f = c->fields;
    const struct job_picture *p = j ? &j->picture[0] : NULL;
    const double progress = j ? job_progress(j) : 0;
    struct buf b = {0};
    buf_printf(&b,
               "{\"progress\":%.4f,\"eta_relative\":%.3f,\"state\":{\"skipped\":false,"
               "\"interrupted\":false,\"stopping_generation\":false,\"job\":\"%s\","
               "\"job_count\":%d,\"job_timestamp\":\"0\",\"job_no\":0,\"sampling_step\":%d,"
               "\"sampling_steps\":%d},\"current_image\":",
               progress, j ? jobs_wait_estimate(app->jobs, j->spec.n) * (1 - progress) : 0,
               j ? j->id : "", j ? 1 : 0, p ? p->step : 0, p ? p->steps : 0);
    if (j && !f->skip_current_image)
        jobs_want_preview(j, 0);
    if (p && p->latest && !f->skip_current_image) {
        buf_puts(&b, "\"");
        text_base64(&b, p->latest->data, p->latest->size);
        buf_puts(&b, "\"");
    } else {
        buf_puts(&b, "null");
    }
    buf_puts(&b, ",\"textinfo\":null}");
    call_json(c, 200, &b);
}

static void reply_no_progress(struct call *c)
{
    reply_progress(c, NULL);
}

void a1111_progress_get(struct call *c)
{
    asking_current(c, "a1111", reply_progress, reply_no_progress);
}

static void reply_empty(struct call *c)
{
    struct buf b = {0};
    buf_puts(&b, "{}");
    call_json(c, 200, &b);
}

static void interrupt(struct call *c, struct job *j)
{
    const struct app *app = c->app;
    jobs_cancel(app->jobs, j);
    reply_empty(c);
}

void a1111_interrupt_post(struct call *c)
{
    asking_current(c, "a1111", interrupt, reply_empty);
}
