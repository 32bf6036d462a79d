// The native API: create, list, show, cancel and delete jobs, fetch their images. Jobs created here
// are durable. native_events.c streams events. Loop thread.
#include "native.h"

#include "buf.h"
#include "clock.h"
#include "http.h"
#include "program.h"
#include "text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct jobs_fields {
    struct picture_request picture;
    const char *webhook_url;
    int n, format, quality, previews, preview_format, priority;
    int64_t deadline;
};

#define F(field) offsetof(struct jobs_fields, field)
static const struct check_field jobs_table[] = {
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
    picture_json(b, &s->request, &j->used);
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
    draw_add_warnings(b, j);
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

struct job *native_find(struct call *c)
{
    const struct app *app = c->app;
    struct job *j = jobs_find(app->jobs, c->arg[0]);
    // Do not reveal that a job of another key exists.
    if (j && !strcmp(j->spec.owner, c->owner))
        return j;
    call_error(c, 404, "job_not_found", NULL, "no such job");
    return NULL;
}

static void jobs_post(struct call *c)
{
    const struct jobs_fields *f = c->fields;
    struct job *job;
    struct fault why = {0};
    char hash[65];
    if (draw_idempotent(c, hash, &job, &why)) {
        draw_reused(c, &why);
        return;
    }
    struct job_spec spec = {
        .request = f->picture,
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
        .idempotency_key = *hash ? http_header(c->http, "Idempotency-Key") : NULL,
        .body_hash = *hash ? hash : NULL,
    };
    if (spec.deadline && spec.deadline <= clock_unix_ms()) {
        call_error(c, 400, NULL, "deadline", "\"deadline\" is in the past");
        return;
    }
    if (!job)
        job = draw_submit(c, &spec);
    if (!job)
        return;
    http_set_header(c->http, "Location", "%s/v1/jobs/%s", call_prefix(c), job->id);
    reply_job(c, 202, job);
}

static void job_get(struct call *c)
{
    const struct job *j = native_find(c);
    if (j)
        reply_job(c, 200, j);
}

static void job_delete(struct call *c)
{
    const struct app *app = c->app;
    struct job *j = native_find(c);
    if (!j)
        return;
    if (job_ended(j)) {
        jobs_remove(app->jobs, j);
        http_reply(c->http, 204, NULL, NULL);
        return;
    }
    jobs_cancel(app->jobs, j);
    // A job that is not stored may have been deleted.
    j = jobs_find(app->jobs, c->arg[0]);
    if (j)
        reply_job(c, 200, j);
    else
        http_reply(c->http, 204, NULL, NULL);
}

static void job_image(struct call *c)
{
    char *end;
    struct job *j = native_find(c);
    const long i = strtol(c->arg[1], &end, 10);
    if (!j)
        return;
    if (*end || i < 0 || i >= j->spec.n)
        call_error(c, 404, NULL, NULL, "the job has %d image%s; indexes start at 0", j->spec.n,
                   j->spec.n > 1 ? "s" : "");
    else
        draw_reply_image(c, j, (int)i);
}

// /v1/files/{id}/{token}-{i}.{format}: anyone with the URL may fetch the image.
static void file_get(struct call *c)
{
    const struct app *app = c->app;
    struct job *j = jobs_find(app->jobs, c->arg[0]);
    char name[JOB_ID_SIZE + 16];
    for (int i = 0; j && i < j->spec.n; i++) {
        snprintf(name, sizeof name, "%s-%d.%s", j->token, i, job_format_name(j->spec.format));
        if (strcmp(name, c->arg[1]))
            continue;
        http_set_header(c->http, "Content-Security-Policy", "default-src 'none'");
        draw_reply_image(c, j, i);
        return;
    }
    call_error(c, 404, NULL, NULL, "this file does not exist or has expired");
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

static void jobs_list(struct call *c)
{
    const struct app *app = c->app;
    const struct list_fields *f = c->fields;
    const struct job *j = jobs_newest(app->jobs);
    struct buf b = {0};
    int n = 0;
    if (f->after) {
        j = jobs_find(app->jobs, f->after);
        if (!j || strcmp(j->spec.owner, c->owner)) {
            call_error(c, 400, NULL, "after", "no such job");
            return;
        }
        j = j->older;
    }
    buf_puts(&b, "{\"object\":\"list\",\"data\":[");
    for (; j && n <= f->limit; j = j->older) {
        if (strcmp(j->spec.owner, c->owner) ||
            (f->status && strcmp(f->status, job_state_name(j->state))))
            continue;
        if (n++ == f->limit)
            break;
        buf_puts(&b, n > 1 ? "," : "");
        native_add_job(c, j, &b);
    }
    buf_printf(&b, "],\"has_more\":%s}", n > f->limit ? "true" : "false");
    call_json(c, 200, &b);
}

// ---- model and device --------------------------------------------------------------------------

static void add_names(struct buf *b, const char *name, const char *const *list)
{
    buf_printf(b, ",\"%s\":[", name);
    for (int i = 0; list[i]; i++) {
        buf_puts(b, i ? "," : "");
        text_json(b, list[i]);
    }
    buf_puts(b, "]");
}

static void add_stages(struct buf *b, const struct model_info *m)
{
    buf_puts(b, ",\"stages\":[");
    for (int i = 0; i < m->stages; i++) {
        const struct model_stage *s = &m->stage[i];
        buf_printf(b,
                   "%s{\"size\":%d,\"steps\":%d,\"guidance_scale\":%.6g,\"noise_level\":%d,"
                   "\"sampler\":",
                   i ? "," : "", s->size, s->steps, (double)s->guidance_scale, s->noise_level);
        text_json(b, s->sampler);
        buf_puts(b, ",\"name\":");
        text_json(b, s->name);
        buf_puts(b, "}");
    }
    buf_puts(b, "]");
}

static void add_presets(struct buf *b, const struct model_info *m)
{
    buf_puts(b, ",\"presets\":[");
    for (int i = 0; i < m->presets; i++) {
        const struct model_preset *p = &m->preset[i];
        buf_printf(b, "%s{\"name\":", i ? "," : "");
        text_json(b, p->name);
        buf_puts(b, ",\"sampler\":");
        text_json(b, p->sampler);
        buf_puts(b, ",\"steps\":[");
        for (int s = 0; s < m->stages; s++)
            buf_printf(b, "%s%d", s ? "," : "", p->steps[s]);
        buf_puts(b, "],\"guidance_scale\":[");
        for (int s = 0; s < m->stages; s++)
            buf_printf(b, "%s%.6g", s ? "," : "", (double)p->guidance_scale[s]);
        buf_puts(b, "]}");
    }
    buf_puts(b, "]");
}

static void capabilities_get(struct call *c)
{
    const struct app *app = c->app;
    const struct model_info *m = jobs_model(app->jobs);
    const struct jobs_limits *limits = jobs_limits(app->jobs);
    const struct jobs_stats s = jobs_stats(app->jobs);
    struct buf b = {0};
    if (!m) {
        struct fault why = {0};
        jobs_ready(app->jobs, &why);
        call_fault(c, &why, 2);
        return;
    }
    buf_puts(&b, "{\"version\":");
    text_json(&b, program_version);
    buf_puts(&b, ",\"model\":");
    text_json(&b, m->name);
    buf_puts(&b, ",\"device\":");
    text_json(&b, m->device);
    buf_puts(&b, ",\"sizes\":[");
    for (int i = 0; i < m->stages; i++)
        buf_printf(&b, "%s%d", i ? "," : "", m->stage[i].size);
    buf_puts(&b, "]");
    add_stages(&b, m);
    add_presets(&b, m);
    add_names(&b, "samplers", m->samplers);
    add_names(&b, "timesteps", m->timesteps);
    buf_printf(
        &b,
        ",\"formats\":[\"png\",\"jpeg\",\"webp\"],\"limits\":{\"n\":%d,\"prompt_bytes\":32000,"
        "\"steps\":1000,\"previews\":%d,\"priority\":%d,\"queue\":%d,\"queue_per_key\":%d,"
        "\"keep_seconds\":%lld},",
        JOB_MAX_PICTURES, JOB_MAX_PREVIEWS, JOB_MAX_PRIORITY, limits->queued,
        limits->queued_per_owner, (long long)(limits->keep_ms / 1000));
    buf_printf(&b,
               "\"slots\":%d,\"queued\":%d,\"running\":%d,\"seconds_per_picture\":%.4f,"
               "\"features\":{\"batching\":\"step\",\"streaming\":true,\"cancel\":true,"
               "\"idempotency\":true,\"img2img\":false}}",
               s.slots, s.queued, s.running, s.seconds_per_picture);
    call_json(c, 200, &b);
}

#define JSON_ANSWER(help)                                                                          \
    {                                                                                              \
        {                                                                                          \
            200, "application/json", help                                                          \
        }                                                                                          \
    }
const struct route routes_native[] = {
    {"POST", "/v1/jobs", jobs_post, SCOPE_GENERATE, ROUTE_BODY, ERRORS_OPENAI, "jobs",
     "Submit a background job", .body = &jobs_check_table,
     .fields_size = sizeof(struct jobs_fields),
     .answer = {{202, "application/json", "the accepted job; the Location header holds its URL"}}},
    {"GET", "/v1/jobs", jobs_list, SCOPE_READ, 0, ERRORS_OPENAI, "jobs",
     "List your jobs, newest first", .query = &list_check,
     .fields_size = sizeof(struct list_fields), .answer = JSON_ANSWER("a page of jobs")},
    {"GET", "/v1/jobs/{id}", job_get, SCOPE_READ, 0, ERRORS_OPENAI, "jobs", "One job",
     .answer = JSON_ANSWER("the job")},
    {"DELETE", "/v1/jobs/{id}", job_delete, SCOPE_GENERATE, 0, ERRORS_OPENAI, "jobs",
     "Cancel a job, or delete one that has finished",
     .answer = {{200, "application/json", "the cancelled job"}, {204, NULL, "deleted"}}},
    {"GET", "/v1/jobs/{id}/events", native_events, SCOPE_READ, 0, ERRORS_OPENAI, "jobs",
     "Stream the events of a job; Last-Event-ID resumes a broken stream",
     .answer = {{200, "text/event-stream",
                 "the events status, queued, started, step, preview, stage and picture, then done, "
                 "failed, cancelled or shutdown"}}},
    {"GET", "/v1/jobs/{id}/images/{index}", job_image, SCOPE_READ, 0, ERRORS_OPENAI, "jobs",
     "One image of a job", .answer = {{200, "image/png", "the image, in the format of the job"}}},
    {"GET", "/v1/files/{id}/{name}", file_get, SCOPE_NONE, 0, ERRORS_OPENAI, "jobs",
     "An image by its unguessable URL, without an API key",
     .answer = {{200, "image/png", "the image, in the format of the job"}}},
    {"GET", "/v1/capabilities", capabilities_get, SCOPE_READ, 0, ERRORS_OPENAI, "jobs",
     "Model, sizes, samplers, limits and current load", .answer = JSON_ANSWER("the capabilities")},
    {0},
};
