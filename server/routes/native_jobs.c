// The native API: create, list, show, cancel and delete jobs, fetch their images. Jobs created here
// are durable. native_events.c streams events. Loop thread.
#include "native.h"

#include "buf.h"
#include "http.h"
#include "input.h"
#include "json.h"
#include "text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum task { TASK_GENERATE, TASK_EDIT, TASK_UPSCALE };
static const char *const tasks[] = {"generate", "edit", "upscale", NULL};
static const char *const mask_kinds[] = {"light", "transparent", NULL};

struct jobs_fields {
    struct picture_request picture;
    const char *model;
    int task, mask_kind, feather;
    bool mask_invert;
    const char *webhook_url;
    int n, format, quality, previews, preview_format, priority;
    int64_t deadline;
};

#define F(field) offsetof(struct jobs_fields, field)
static const struct check_field jobs_table[] = {
    {"task", CHECK_ENUM, CHECK_NULL, F(task), .choices = tasks,
     .help = "generate an image from the prompt, edit the input image, or upscale it; defaults to "
             "edit with an image, and to generate without one"},
    {"model", CHECK_TEXT, CHECK_NULL, F(model), 0, 200, .live = "models",
     .help = "a name from /v1/models; defaults to the first of them"},
    {"prompt", CHECK_TEXT, CHECK_NULL, F(picture.prompt), 1, PICTURE_MAX_PROMPT,
     .help = "what the image shows; required to generate, optional to edit or upscale"},
    {"image", CHECK_FILE, CHECK_NULL, 0, .max = 1,
     .help =
         "the image to edit or upscale, as PNG, JPEG or WebP: base64, a data URL, or "
         "{\"job\": id, \"index\": i} for an image of one of your jobs, whose index defaults to "
         "0; in a form, a file"},
    {"mask", CHECK_FILE, CHECK_NULL, 0, .max = 1,
     .help = "an image of the same size that says which pixels to repaint; the others remain as "
             "they are"},
    {"mask_kind", CHECK_ENUM, CHECK_NULL, F(mask_kind), .choices = mask_kinds, .def = "light",
     .help = "repaint where the mask is light, or where it is transparent; requires a mask"},
    {"mask_invert", CHECK_BOOL, CHECK_NULL, F(mask_invert), .def = "false",
     .help = "repaint the other pixels instead"},
    {"feather", CHECK_INT, CHECK_NULL, F(feather), PICTURE_FEATHER_AUTO, PICTURE_MAX_FEATHER,
     .def = "-1",
     .help = "width in pixels of the blend between repainted and kept pixels; -1 selects it by the "
             "size of the image"},
    {"size", CHECK_SIZE, CHECK_NULL, F(picture.size), 1, 65536, .live = "sizes", .def = "auto",
     .help = "edge in pixels, WIDTHxHEIGHT, or auto for the size of the input image or, without "
             "one, the model's largest size; any other size is cropped and scaled down from the "
             "next larger stage"},
    {"n", CHECK_INT, 0, F(n), 1, JOB_MAX_PICTURES, .def = "1", .help = "number of images"},
    {"format", CHECK_ENUM, 0, F(format), .choices = draw_formats, .def = "png",
     .help = "file format of the images"},
    {"quality", CHECK_INT, 0, F(quality), 0, 100, .def = "90",
     .help = "encoding quality of jpeg and webp images; 100 is lossless for webp"},
    {"previews", CHECK_INT, 0, F(previews), 0, JOB_MAX_PREVIEWS, .def = "0",
     .help = "number of previews per image, sent as events and spread over the steps"},
    {"preview_format", CHECK_ENUM, 0, F(preview_format), .choices = draw_formats, .def = "jpeg",
     .help = "file format of the previews"},
    {"priority", CHECK_INT, 0, F(priority), 0, JOB_MAX_PRIORITY, .def = "0",
     .help = "jobs of one API key with a higher priority run first"},
    {"deadline", CHECK_TIME, CHECK_NULL, F(deadline),
     .help = "Unix seconds or RFC 3339; the job fails if it has not finished by then"},
    {"webhook_url", CHECK_TEXT, CHECK_NULL, F(webhook_url), 8, 2000,
     .help =
         "URL that receives the finished job in a POST request; the server must allow its host"},
};
#undef F
static const struct check_table jobs_check_table = {
    CHECK_ROWS("CreateJobRequest", jobs_table),
    .strict = true,
    .more = &picture_table,
    .more_at = offsetof(struct jobs_fields, picture),
};

// ---- a job as JSON ------------------------------------------------------------------------------

static void add_time(struct buf *b, const char *name, int64_t ms)
{
    if (ms)
        buf_printf(b, ",\"%s\":%.3f", name, (double)ms * 1e-3);
    else
        buf_printf(b, ",\"%s\":null", name);
}

static void add_request(struct buf *b, const struct job *j)
{
    const struct job_spec *s = &j->spec;
    buf_puts(b, ",\"request\":{");
    buf_printf(b, "\"task\":\"%s\",",
               tasks[s->request.scale  ? TASK_UPSCALE
                     : s->request.edit ? TASK_EDIT
                                       : TASK_GENERATE]);
    picture_json(b, &s->request, &j->used);
    if (s->request.edit)
        buf_printf(b, ",\"input_size\":\"%dx%d\",\"masked\":%s", s->input.size.width,
                   s->input.size.height, s->input.masked ? "true" : "false");
    buf_printf(b, ",\"n\":%d", s->n);
    buf_printf(b, ",\"format\":\"%s\",\"quality\":%d,\"previews\":%d,\"priority\":%d}",
               job_format_name(s->format), s->quality, s->previews, s->priority);
}

static void add_images(struct call *c, const struct job *j, struct buf *b)
{
    buf_puts(b, ",\"images\":[");
    for (int i = 0; i < j->spec.n; i++) {
        const struct job_picture *p = &j->picture[i];
        buf_printf(b, "%s{\"index\":%d,", i ? "," : "", i);
        draw_add_origin(b, j, i);
        buf_printf(b, ",\"status\":\"%s\",\"stage\":%d,\"step\":%d,\"steps\":%d",
                   job_state_name(p->state), p->stage, p->step, p->steps);
        if (p->state == JOB_DONE) {
            buf_printf(
                b, ",\"width\":%d,\"height\":%d,\"bytes\":%zu,\"href\":\"/v1/jobs/%s/images/%d\"",
                p->width, p->height, p->bytes, j->id, i);
            struct buf url = {0};
            draw_url(c, j, i, &url);
            buf_puts(b, ",\"url\":");
            text_json(b, url.data);
            buf_deinit(&url);
        }
        buf_puts(b, "}");
    }
    buf_puts(b, "]");
}

static void add_error(const struct job *j, struct buf *b)
{
    if (j->state != JOB_FAILED) {
        buf_puts(b, "null");
        return;
    }
    buf_printf(b, "{\"code\":\"%s\",\"message\":", err_name(j->fault.code));
    text_json(b, j->fault.msg);
    buf_puts(b, "}");
}

double native_estimate(const struct app *app, const struct job *j)
{
    const struct jobs_stats s = jobs_stats(app->jobs);
    return jobs_wait_estimate(app->jobs,
                              (j->position > 0 ? j->position : 0) + s.running + j->spec.n);
}

void native_add_job(struct call *c, const struct job *j, struct buf *b)
{
    buf_printf(b, "{\"id\":\"%s\",\"object\":\"job\",\"status\":\"%s\",\"api\":\"%s\"", j->id,
               job_state_name(j->state), j->spec.api);
    add_time(b, "created", j->created);
    add_time(b, "started", j->started);
    add_time(b, "finished", j->finished);
    add_time(b, "expires", j->expires);
    buf_printf(b, ",\"progress\":%.4f", job_progress(j));
    if (j->state == JOB_QUEUED)
        buf_printf(b, ",\"position\":%d,\"estimate_seconds\":%.3f",
                   j->position > 0 ? j->position : 0, native_estimate(c->app, j));
    buf_puts(b, ",\"model\":");
    text_json(b, j->used.model);
    add_request(b, j);
    add_images(c, j, b);
    buf_puts(b, ",");
    draw_add_warnings(b, j, NULL);
    buf_puts(b, ",\"error\":");
    add_error(j, b);
    buf_puts(b, "}");
}

static void reply_job(struct call *c, int status, const struct job *j)
{
    struct buf b = {0};
    native_add_job(c, j, &b);
    call_json(c, status, &b);
}

// ---- the routes ---------------------------------------------------------------------------------

static void no_such_job(struct call *c)
{
    call_error(c, 404, "job_not_found", NULL, "no such job");
}

void native_find(struct call *c, int image, asking_fn *then)
{
    // Do not reveal that a job of another key exists.
    asking_job(c, &(struct jobs_lookup){c->arg[0], NULL, c->owner, image}, then, no_such_job);
}

// Checks the task itself; the job core checks it against the model.
static enum err check_task(struct call *c, const struct jobs_fields *f, const struct input *in,
                           struct fault *why)
{
    const char *name = tasks[f->task];
    const bool image = input_given(&in->image);
    if (f->task == TASK_GENERATE && image)
        return fault_set(why, ERR_INVALID, "image", "the task generate takes no \"image\"");
    if (f->task != TASK_GENERATE && !image)
        return fault_set(why, ERR_INVALID, "image", "the task %s requires an \"image\"", name);
    if (f->task == TASK_GENERATE && !f->picture.prompt)
        return fault_set(why, ERR_INVALID, "prompt", "\"prompt\" is required");
    if (f->task != TASK_UPSCALE && f->picture.scale)
        return fault_set(why, ERR_INVALID, "scale",
                         "\"scale\" applies to the task upscale only, not to %s", name);
    if (f->task == TASK_UPSCALE && f->picture.size.width)
        return fault_set(why, ERR_INVALID, "size",
                         "\"size\" does not apply to the task upscale; use \"scale\"");
    if (f->task != TASK_EDIT && json_given(c->body, "strength"))
        return fault_set(why, ERR_INVALID, "strength",
                         "\"strength\" applies to the task edit only, not to %s", name);
    if (f->task == TASK_UPSCALE && input_given(&in->mask))
        return fault_set(why, ERR_INVALID, "mask", "the task upscale takes no \"mask\"");
    // An image may have a mask of its own, its transparent pixels.
    static const char *const of_edits[] = {"mask_invert", "feather"};
    if (json_given(c->body, "mask_kind") && !input_given(&in->mask))
        return fault_set(why, ERR_INVALID, "mask_kind", "\"mask_kind\" requires a \"mask\"");
    for (size_t i = 0; f->task != TASK_EDIT && i < sizeof of_edits / sizeof *of_edits; i++)
        if (json_given(c->body, of_edits[i]))
            return fault_set(why, ERR_INVALID, of_edits[i],
                             "\"%s\" applies to the task edit only, not to %s", of_edits[i], name);
    return ERR_OK;
}

// Takes the images of the request and determines the task.
static enum err take_task(struct call *c, struct jobs_fields *f, struct input *in,
                          struct fault *why)
{
    const struct app *app = c->app;
    const struct model_info *m = jobs_model(app->jobs, f->model);
    enum err err = input_take(c, "image", &in->image, why);
    if (!err)
        err = input_take(c, "mask", &in->mask, why);
    if (err)
        return err;
    if (!json_given(c->body, "task"))
        f->task = input_given(&in->image) ? TASK_EDIT : TASK_GENERATE;
    err = check_task(c, f, in, why);
    if (err)
        return err;
    if (f->task == TASK_UPSCALE && !f->picture.scale && m && !m->scale[0])
        return fault_set(why, ERR_UNSUPPORTED, "task",
                         "this model cannot enlarge images: it has no super-resolution stage");
    if (f->task == TASK_UPSCALE && !f->picture.scale && m)
        f->picture.scale = m->scale[0];
    if (!f->picture.prompt)
        f->picture.prompt = "";
    return ERR_OK;
}

static void accepted(struct call *c, struct job *job)
{
    http_set_header(c->http, "Location", "%s/v1/jobs/%s", call_prefix(c), job->id);
    reply_job(c, 202, job);
}

static struct job_spec jobs_spec(const struct jobs_fields *f)
{
    return (struct job_spec){
        .request = f->picture,
        .input = {.mask_kind = f->mask_kind, .mask_invert = f->mask_invert, .feather = f->feather},
        .n = f->n,
        .format = draw_format(f->format),
        .quality = f->quality,
        .previews = f->previews,
        .preview_format = draw_format(f->preview_format),
        .priority = f->priority,
        .deadline = f->deadline,
        .webhook_url = f->webhook_url,
        .api = "jobs",
        .durable = true,
        .keep = true,
    };
}

static void jobs_post(struct call *c)
{
    struct jobs_fields *f = c->fields;
    struct input in = {0};
    struct job_spec spec;
    struct fault why = {0};
    char hash[65];
    const char *model;
    if (!draw_find_model(c->app, f->model, &model)) {
        draw_no_model(c, f->model);
        return;
    }
    if (take_task(c, f, &in, &why)) {
        input_deinit(&in);
        call_fault(c, &why, 1);
        return;
    }
    spec = jobs_spec(f);
    spec.model = model;
    if (draw_idempotent(c, hash, &spec, &why)) {
        input_deinit(&in);
        draw_reused(c, &why);
        return;
    }
    input_submit(c, &spec, &in, accepted);
}

static void found(struct call *c, struct job *j)
{
    reply_job(c, 200, j);
}

static void job_get(struct call *c)
{
    native_find(c, JOBS_NO_IMAGE, found);
}

// ---- cancelling ---------------------------------------------------------------------------------

// Waits for the end of the job that it cancels.
struct cancelling {
    struct job_watch watch;
    struct call *call;
};

static void cancelling_end(struct cancelling *w)
{
    const struct app *app = w->call->app;
    jobs_unwatch(app->jobs, &w->watch);
    free(w);
}

static void on_cancel_gone(void *ctx)
{
    cancelling_end(ctx);
}

static void on_cancelled(struct job_watch *watch, const struct job_event *ev)
{
    struct cancelling *w = watch->ctx;
    if (ev->type != JOB_EVENT_END)
        return;
    reply_job(w->call, 200, watch->job);
    cancelling_end(w);
}

static void cancel_or_remove(struct call *c, struct job *j)
{
    const struct app *app = c->app;
    struct cancelling *w;
    if (job_ended(j)) {
        asking_remove(c, j);
        return;
    }
    w = calloc(1, sizeof *w);
    if (!w) {
        call_error(c, 500, NULL, NULL, "%s", err_text(ERR_NO_MEMORY));
        return;
    }
    w->call = c;
    w->watch.event = on_cancelled;
    w->watch.ctx = w;
    jobs_watch(app->jobs, j, &w->watch);
    http_defer(c->http, on_cancel_gone, w);
    jobs_cancel(app->jobs, j);
}

static void job_delete(struct call *c)
{
    native_find(c, JOBS_NO_IMAGE, cancel_or_remove);
}

// ---- images -------------------------------------------------------------------------------------

static void job_image_found(struct call *c, struct job *j)
{
    char *end;
    const long i = strtol(c->arg[1], &end, 10);
    if (*end || i < 0 || i >= j->spec.n)
        call_error(c, 404, NULL, NULL, "the job has %d image%s; indexes start at 0", j->spec.n,
                   j->spec.n > 1 ? "s" : "");
    else
        draw_reply_image(c, j, (int)i);
}

static void job_image(struct call *c)
{
    const long i = strtol(c->arg[1], NULL, 10);
    native_find(c, i >= 0 && i < JOB_MAX_PICTURES ? (int)i : JOBS_NO_IMAGE, job_image_found);
}

// /v1/files/{id}/{token}-{i}.{format}: anyone with the URL may fetch the image.
static void no_such_file(struct call *c)
{
    call_error(c, 404, NULL, NULL, "this file does not exist or has expired");
}

static void file_found(struct call *c, struct job *j)
{
    char name[JOB_ID_SIZE + 16];
    for (int i = 0; i < j->spec.n; i++) {
        snprintf(name, sizeof name, "%s-%d.%s", j->token, i, job_format_name(j->spec.format));
        if (strcmp(name, c->arg[1]))
            continue;
        http_set_header(c->http, "Content-Security-Policy", "default-src 'none'");
        draw_reply_image(c, j, i);
        return;
    }
    no_such_file(c);
}

static void file_get(struct call *c)
{
    const char *dash = strrchr(c->arg[1], '-');
    const long i = dash ? strtol(dash + 1, NULL, 10) : -1;
    const int image = i >= 0 && i < JOB_MAX_PICTURES ? (int)i : JOBS_NO_IMAGE;
    asking_job(c, &(struct jobs_lookup){c->arg[0], NULL, NULL, image}, file_found, no_such_file);
}

// ---- the list -----------------------------------------------------------------------------------

struct list_fields {
    int limit;
    const char *after, *status;
};

#define F(field) offsetof(struct list_fields, field)
static const struct check_field list_table[] = {
    {"limit", CHECK_INT, 0, F(limit), 1, 100, .def = "20",
     .help = "maximum number of jobs per page"},
    {"after", CHECK_TEXT, 0, F(after), 1, 64, .help = "id of the last job on the previous page"},
    {"status", CHECK_TEXT, 0, F(status), 1, 16, .help = "only jobs in this state"},
};
#undef F
static const struct check_table list_check = CHECK_TABLE("ListJobsQuery", list_table, true);

// A call that waits for its page.
struct listing {
    struct call *call;
    struct jobs_ask *ask;
};

static void on_list_gone(void *ctx)
{
    struct listing *l = ctx;
    jobs_forget(l->ask);
    free(l);
}

static void on_list(void *ctx, struct job *const *jobs, int n, bool more, const struct fault *why)
{
    struct listing *l = ctx;
    struct call *c = l->call;
    struct buf b = {0};
    free(l);
    http_defer(c->http, NULL, NULL);
    if (why) {
        call_fault(c, why, 1);
        return;
    }
    buf_puts(&b, "{\"object\":\"list\",\"data\":[");
    for (int i = 0; i < n; i++) {
        buf_puts(&b, i ? "," : "");
        native_add_job(c, jobs[i], &b);
    }
    buf_printf(&b, "],\"has_more\":%s}", more ? "true" : "false");
    call_json(c, 200, &b);
}

static void jobs_list_get(struct call *c)
{
    const struct app *app = c->app;
    const struct list_fields *f = c->fields;
    enum job_state state;
    struct jobs_query q = {c->owner, f->after, -1, f->limit};
    struct listing *l = calloc(1, sizeof *l);
    if (!l) {
        call_error(c, 500, NULL, NULL, "%s", err_text(ERR_NO_MEMORY));
        return;
    }
    l->call = c;
    http_defer(c->http, on_list_gone, l);
    if (f->status && job_state_find(f->status, &state)) {
        on_list(l, NULL, 0, false, NULL); // no job is in a state that there is not
        return;
    }
    if (f->status)
        q.state = (int)state;
    jobs_list(app->jobs, &q, on_list, l, &l->ask);
}

#define JSON_ANSWER(help, schema)                                                                  \
    {                                                                                              \
        {                                                                                          \
            200, "application/json", help, schema                                                  \
        }                                                                                          \
    }
const struct route routes_native[] = {
    {"POST", "/v1/jobs", jobs_post, SCOPE_GENERATE, ROUTE_BODY | ROUTE_IMAGES | ROUTE_FORM,
     ERRORS_OPENAI, "jobs", "Submit a background job", .body = &jobs_check_table,
     .fields_size = sizeof(struct jobs_fields),
     .answer = {{202, "application/json", "the accepted job; the Location header holds its URL",
                 "Job"}}},
    {"GET", "/v1/jobs", jobs_list_get, SCOPE_READ, 0, ERRORS_OPENAI, "jobs",
     "List your jobs, newest first", .query = &list_check,
     .fields_size = sizeof(struct list_fields), .answer = JSON_ANSWER("a page of jobs", "JobList")},
    {"GET", "/v1/jobs/{id}", job_get, SCOPE_READ, 0, ERRORS_OPENAI, "jobs", "One job",
     .answer = JSON_ANSWER("the job", "Job")},
    {"DELETE", "/v1/jobs/{id}", job_delete, SCOPE_GENERATE, 0, ERRORS_OPENAI, "jobs",
     "Cancel a job, or delete one that has finished",
     .answer = {{200, "application/json", "the cancelled job", "Job"}, {204, NULL, "deleted"}}},
    {"GET", "/v1/jobs/{id}/events", native_events, SCOPE_READ, 0, ERRORS_OPENAI, "jobs",
     "Stream the events of a job; Last-Event-ID resumes a broken stream",
     .answer = {{200, "text/event-stream",
                 "the events status, queued, started, step, preview, stage and picture, then done, "
                 "failed, cancelled or shutdown",
                 "JobEvent"}}},
    {"GET", "/v1/jobs/{id}/images/{index}", job_image, SCOPE_READ, 0, ERRORS_OPENAI, "jobs",
     "One image of a job", .answer = {{200, "image/png", "the image, in the format of the job"}}},
    {"GET", "/v1/files/{id}/{name}", file_get, SCOPE_NONE, 0, ERRORS_OPENAI, "jobs",
     "An image by its unguessable URL, without an API key",
     .answer = {{200, "image/png", "the image, in the format of the job"}}},
    {"GET", "/v1/capabilities", native_capabilities, SCOPE_READ, 0, ERRORS_OPENAI, "jobs",
     "Models, sizes, samplers, limits and current load", .query = &native_capabilities_check,
     .fields_size = sizeof(struct native_capabilities_fields),
     .answer = JSON_ANSWER("the capabilities", "Capabilities")},
    {0},
};
