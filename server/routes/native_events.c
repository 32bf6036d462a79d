// GET /v1/jobs/{id}/events: the events of a job as server-sent events. A stream that reconnects
// with Last-Event-ID gets the events that it missed, or the job's state if that was too long ago.
// Loop thread.
#include "native.h"

#include "buf.h"
#include "http.h"
#include "sse.h"
#include "text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct events_watch {
    struct job_watch watch;
    struct call *call;
};

static const char *const event_names[] = {
    [JOB_EVENT_QUEUED] = "queued", [JOB_EVENT_STARTED] = "started",
    [JOB_EVENT_STEP] = "step",     [JOB_EVENT_PREVIEW] = "preview",
    [JOB_EVENT_STAGE] = "stage",   [JOB_EVENT_PICTURE] = "picture",
    [JOB_EVENT_END] = NULL,        [JOB_EVENT_SHUTDOWN] = "shutdown",
};

static void add_blob(struct buf *b, const struct job_event *ev, enum job_format format)
{
    buf_printf(b, ",\"preview\":%d,\"width\":%d,\"height\":%d,\"format\":\"%s\",\"b64_json\":\"",
               ev->preview, ev->width, ev->height, job_format_name(format));
    text_base64(b, ev->blob->data, ev->blob->size);
    buf_puts(b, "\"");
}

static void add_data(struct call *c, const struct job *j, const struct job_event *ev, struct buf *b)
{
    if (ev->type == JOB_EVENT_END) {
        native_add_job(c, j, b);
        return;
    }
    buf_printf(b, "{\"job\":\"%s\"", j->id);
    if (ev->type == JOB_EVENT_QUEUED)
        buf_printf(b, ",\"position\":%d,\"estimate_seconds\":%.3f", ev->position,
                   native_estimate(c->app, j));
    if (ev->type == JOB_EVENT_STEP || ev->type == JOB_EVENT_STAGE || ev->type == JOB_EVENT_PREVIEW)
        buf_printf(
            b, ",\"picture\":%d,\"index\":%d,\"stage\":%d,\"stages\":%d,\"step\":%d,\"steps\":%d",
            ev->picture, ev->picture, ev->stage, ev->stages, ev->step, ev->steps);
    if (ev->type == JOB_EVENT_PREVIEW)
        add_blob(b, ev, j->spec.preview_format);
    if (ev->type == JOB_EVENT_PICTURE)
        buf_printf(b,
                   ",\"picture\":%d,\"index\":%d,\"width\":%d,\"height\":%d,"
                   "\"href\":\"/v1/jobs/%s/images/%d\"",
                   ev->picture, ev->picture, ev->width, ev->height, j->id, ev->picture);
    buf_printf(b, ",\"progress\":%.4f}", job_progress(j));
}

// Events for all watchers of a job are formatted once. The end is not shared, because its URLs
// depend on how the client reached the server; nor are previews, because a stream may get an older
// one.
static bool send_event(struct call *c, const struct job *j, const struct job_event *ev)
{
    struct app *app = c->app;
    struct buf *b = &app->event_text;
    const bool shared = ev->type != JOB_EVENT_END && ev->type != JOB_EVENT_PREVIEW;
    const char *name = ev->type == JOB_EVENT_END ? job_state_name(j->state) : event_names[ev->type];
    if (!shared || app->event_id != ev->id || strcmp(app->event_job, j->id)) {
        buf_clear(b);
        add_data(c, j, ev, b);
        app->event_id = shared ? ev->id : 0;
        snprintf(app->event_job, sizeof app->event_job, "%s", j->id);
    }
    if (b->failed) {
        app->event_id = 0;
        return false;
    }
    return sse_event(c->http, name, ev->id, b->data);
}

static bool send_state(struct call *c, const struct job *j)
{
    struct buf b = {0};
    bool ok = false;
    native_add_job(c, j, &b);
    if (!b.failed)
        ok = sse_event(c->http, "status", j->events, b.data);
    buf_deinit(&b);
    return ok;
}

static void end_watch(struct events_watch *w)
{
    const struct app *app = w->call->app;
    jobs_unwatch(app->jobs, &w->watch);
    free(w);
}

static void on_gone(void *ctx)
{
    end_watch(ctx);
}

static void on_event(struct job_watch *watch, const struct job_event *ev)
{
    struct events_watch *w = watch->ctx;
    struct call *c = w->call;
    // An aborted stream has called on_gone, which freed w.
    if (!send_event(c, watch->job, ev))
        return;
    if (ev->type == JOB_EVENT_END || ev->type == JOB_EVENT_SHUTDOWN) {
        http_stream_end(c->http);
        end_watch(w);
    }
}

// Sends the events missed since event `last`. Only the latest preview of each image is sent again.
static bool send_missed(struct call *c, const struct job *j, uint64_t last)
{
    const bool known = last > j->events_begin && last <= j->events && j->events - last <= JOB_RING;
    bool ok = known || send_state(c, j);
    for (uint64_t id = last + 1; ok && known && id <= j->events; id++) {
        const struct job_event *ev = &j->ring[(id - 1) % JOB_RING];
        if (ev->type != JOB_EVENT_PREVIEW && ev->type != JOB_EVENT_END)
            ok = send_event(c, j, ev);
    }
    for (int i = 0; ok && i < j->spec.n; i++) {
        const struct job_picture *p = &j->picture[i];
        if (p->latest)
            ok = send_event(c, j,
                            &(struct job_event){.id = j->events,
                                                .type = JOB_EVENT_PREVIEW,
                                                .picture = i,
                                                .stage = p->stage,
                                                .stages = p->stages,
                                                .step = p->step,
                                                .steps = p->steps,
                                                .width = p->preview.width,
                                                .height = p->preview.height,
                                                .blob = p->latest});
    }
    return ok;
}

static void events_follow(struct call *c, struct job *j)
{
    const struct app *app = c->app;
    const char *last = http_header(c->http, "Last-Event-ID");
    struct events_watch *w = calloc(1, sizeof *w);
    if (!w) {
        call_error(c, 500, NULL, NULL, "%s", err_text(ERR_NO_MEMORY));
        return;
    }
    w->call = c;
    w->watch.previews = true;
    w->watch.event = on_event;
    w->watch.ctx = w;
    jobs_watch(app->jobs, j, &w->watch);
    sse_start(c->http, on_gone, w);
    if (send_missed(c, j, last ? strtoull(last, NULL, 10) : 0) && job_ended(j))
        on_event(&w->watch,
                 &(struct job_event){.id = j->events + !j->events, .type = JOB_EVENT_END});
}

void native_events(struct call *c)
{
    native_find(c, JOBS_NO_IMAGE, events_follow);
}
