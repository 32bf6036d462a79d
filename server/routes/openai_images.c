// POST /v1/images/generations, and the parts that edits and variations share with it: responses as
// JSON (base64 or URLs), as the raw image, or as a stream with partial images. Loop thread.
#include "openai.h"

#include "buf.h"
#include "http.h"
#include "json.h"
#include "multipart.h"
#include "sse.h"
#include "text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char *const response_formats[] = {"b64_json", "url", NULL};
static const char *const backgrounds[] = {"auto", "opaque", "transparent", NULL};
enum { BACKGROUND_TRANSPARENT = 2 };

#define F(field) offsetof(struct images_fields, field)
static const struct check_field common_fields[] = {
    {"model", CHECK_TEXT, CHECK_NULL, F(model), 0, 200, .live = "models",
     .help = "a name from /v1/models; OpenAI's image model names, dated or prefixed with openai/, "
             "select the default model"},
    {"n", CHECK_INT, CHECK_NULL, F(n), 1, 10, .def = "1", .help = "number of images"},
    {"quality", CHECK_ENUM, CHECK_NULL, F(quality), .choices = draw_qualities, .def = "auto",
     .help = "low uses the model's preset fast, or half its steps if it has no such preset; high, "
             "hd, xhigh and max use twice its steps (with an input image, those of the first stage "
             "only)"},
    {"response_format", CHECK_ENUM, CHECK_NULL, F(response_format), .choices = response_formats,
     .help = "url returns links that are valid for as long as results are kept; defaults to url "
             "for dall-e-2 and dall-e-3, and to b64_json for every other model"},
    {"output_format", CHECK_ENUM, CHECK_NULL, F(output_format), .choices = draw_formats,
     .def = "png", .help = "file format of the images"},
    {"output_compression", CHECK_INT, CHECK_NULL, F(compression), 0, 100, .def = "100",
     .help = "encoding quality of jpeg and webp images; 100 is lossless for webp"},
    {"stream", CHECK_BOOL, CHECK_NULL, F(stream), .def = "false",
     .help = "stream the response as server-sent events"},
    {"partial_images", CHECK_INT, CHECK_NULL, F(partial_images), 0, 3, .def = "0",
     .help = "number of partial images to send when streaming"},
    {"background", CHECK_ENUM, CHECK_NULL, F(background), .choices = backgrounds, .def = "auto",
     .help = "transparent is not supported"},
    {"num_inference_steps", CHECK_INTS, CHECK_NULL, F(picture.steps), 1, PICTURE_MAX_STEPS,
     .help = "alias of steps"},
    {"style", CHECK_ANY, CHECK_IGNORED, 0, .help = "ignored"},
    {"moderation", CHECK_ANY, CHECK_IGNORED, 0, .help = "ignored"},
    {"user", CHECK_ANY, CHECK_IGNORED, 0, .help = "ignored"},
};
#undef F
const struct check_table openai_images_table = {
    CHECK_ROWS("Images", common_fields),
    .more = &picture_table,
    .more_at = offsetof(struct images_fields, picture),
};
static const char *const without_input[] = {"strength", "scale", NULL};
static const struct check_table images_check = {
    .name = "CreateImageRequest", .more = &openai_images_table, .without = without_input};

// A request that waits for its job.
struct images_wait {
    struct job_watch watch;
    struct call *call;
    struct images_fields fields;
    const char *raw_type; // respond with the bytes of this type
    int64_t created;      // unix seconds
    char text[IMAGES_MAX_UNUSED][160];
    const char *unused[IMAGES_MAX_UNUSED + 1]; // warnings about unused fields
};

// ---- responses ----------------------------------------------------------------------------------

static size_t image_tokens(const struct check_size *size)
{
    return ((size_t)size->width * (size_t)size->height + 255) / 256;
}

// Text tokens are counted by the tokenizer, once for all images; an image counts one token per
// 16x16 pixels.
static void add_usage(struct buf *b, const struct job *job)
{
    const size_t text = (size_t)(job->used.tokens + job->used.negative_tokens);
    const size_t in = text + image_tokens(&job->spec.input.size);
    const size_t out = image_tokens(&job->used.size) * (size_t)job->spec.n;
    buf_printf(b,
               "\"usage\":{\"input_tokens\":%zu,\"output_tokens\":%zu,\"total_tokens\":%zu,"
               "\"input_tokens_details\":{\"text_tokens\":%zu,\"image_tokens\":%zu},"
               "\"output_tokens_details\":{\"text_tokens\":0,\"image_tokens\":%zu}}",
               in, out, in + out, text, in - text, out);
}

static void add_properties(struct buf *b, const struct images_wait *w, enum job_format format)
{
    const int q = w->fields.quality;
    const struct job *job = w->watch.job;
    buf_printf(b,
               "\"background\":\"opaque\",\"output_format\":\"%s\",\"size\":\"%dx%d\","
               "\"quality\":\"%s\"",
               job_format_name(format), job->used.size.width, job->used.size.height,
               q == DRAW_LOW    ? "low"
               : q >= DRAW_HIGH ? "high"
                                : "medium");
}

static bool add_picture(struct buf *b, const struct images_wait *w, int i, struct fault *why)
{
    struct app *app = w->call->app;
    struct job *job = w->watch.job;
    struct blob *blob;
    if (w->fields.response_format == RESPONSE_URL) {
        struct buf url = {0};
        draw_url(w->call, job, i, &url);
        buf_puts(b, "{\"url\":");
        text_json(b, url.data);
        buf_deinit(&url);
    } else {
        if (jobs_image(app->jobs, job, i, &blob, why))
            return false;
        buf_puts(b, "{\"b64_json\":\"");
        text_base64(b, blob->data, blob->size);
        buf_puts(b, "\"");
        blob_unref(&blob);
    }
    buf_puts(b, ",");
    draw_add_origin(b, job, i);
    buf_puts(b, "}");
    return true;
}

static void reply_json(struct images_wait *w)
{
    const struct job *job = w->watch.job;
    struct buf b = {0};
    struct fault why;
    buf_printf(&b, "{\"created\":%lld,\"data\":[", (long long)w->created);
    for (int i = 0; i < job->spec.n; i++) {
        buf_puts(&b, i ? "," : "");
        if (!add_picture(&b, w, i, &why)) {
            buf_deinit(&b);
            call_fault(w->call, &why, 1);
            return;
        }
    }
    buf_puts(&b, "],");
    add_properties(&b, w, job->spec.format);
    buf_puts(&b, ",");
    add_usage(&b, job);
    buf_puts(&b, ",");
    draw_add_warnings(&b, job, w->unused);
    buf_printf(&b, ",\"seed\":%llu,\"model\":", (unsigned long long)job->spec.request.seed);
    text_json(&b, job->used.model);
    buf_puts(&b, "}");
    call_json(w->call, 200, &b);
}

static void stream_picture(struct images_wait *w, const struct job_event *ev)
{
    const struct job *job = w->watch.job;
    const bool partial = ev->type == JOB_EVENT_PREVIEW;
    struct buf b = {0};
    char type[48];
    snprintf(type, sizeof type, "%s.%s", job->spec.request.edit ? "image_edit" : "image_generation",
             partial ? "partial_image" : "completed");
    buf_printf(&b, "{\"type\":\"%s\",\"b64_json\":\"", type);
    text_base64(&b, ev->blob->data, ev->blob->size);
    buf_printf(&b, "\",\"created_at\":%lld,", (long long)w->created);
    add_properties(&b, w, partial ? job->spec.preview_format : job->spec.format);
    buf_printf(&b, ",\"image_index\":%d,", ev->picture);
    draw_add_origin(&b, job, ev->picture);
    if (partial) {
        buf_printf(&b, ",\"partial_image_index\":%d}", ev->preview);
    } else {
        buf_puts(&b, ",");
        add_usage(&b, job);
        buf_puts(&b, ",");
        draw_add_warnings(&b, job, w->unused);
        buf_puts(&b, "}");
    }
    if (!b.failed)
        sse_event(w->call->http, type, 0, b.data);
    buf_deinit(&b);
}

static void stream_error(struct images_wait *w)
{
    const struct job *job = w->watch.job;
    struct buf b = {0};
    const bool cancelled = job->state == JOB_CANCELLED;
    buf_puts(&b, "{\"type\":\"error\",\"error\":{\"message\":");
    text_json(&b, cancelled ? "the job was cancelled" : job->fault.msg);
    buf_printf(&b, ",\"type\":\"%s\",\"param\":null,\"code\":\"%s\"}}",
               cancelled ? "invalid_request_error" : "server_error",
               cancelled ? "job_cancelled" : err_name(job->fault.code));
    if (!b.failed)
        sse_event(w->call->http, "error", 0, b.data);
    buf_deinit(&b);
}

// ---- waiting ------------------------------------------------------------------------------------

static void wait_end(struct images_wait *w)
{
    struct app *app = w->call->app;
    jobs_unwatch(app->jobs, &w->watch);
    free(w);
}

static void on_gone(void *ctx)
{
    wait_end(ctx);
}

static void finish_raw(struct images_wait *w)
{
    struct http_request *http = w->call->http;
    const struct job *job = w->watch.job;
    char text[PICTURE_WARNING];
    http_set_header(http, "X-Imagend-Seed", "%llu", (unsigned long long)job->spec.request.seed);
    http_set_header(http, "X-Imagend-Picture", "%d", job->spec.request.picture);
    for (int i = 0; picture_warning(&job->used, i, text); i++)
        http_set_header(http, "X-Imagend-Warning", "%s", text);
    for (int i = 0; w->unused[i]; i++)
        http_set_header(http, "X-Imagend-Warning", "%s", w->unused[i]);
    draw_reply_image(w->call, w->watch.job, 0);
}

static void finish(struct images_wait *w)
{
    struct job *job = w->watch.job;
    if (w->fields.stream) {
        if (job->state != JOB_DONE)
            stream_error(w);
        http_stream_end(w->call->http);
    } else if (job->state != JOB_DONE) {
        draw_job_error(w->call, job);
    } else if (w->raw_type) {
        finish_raw(w);
    } else {
        reply_json(w);
    }
    wait_end(w);
}

static void on_event(struct job_watch *watch, const struct job_event *ev)
{
    struct images_wait *w = watch->ctx;
    if (ev->type == JOB_EVENT_END)
        finish(w);
    else if (w->fields.stream && (ev->type == JOB_EVENT_PICTURE || ev->type == JOB_EVENT_PREVIEW))
        stream_picture(w, ev);
}

// A job found through an Idempotency-Key may already have progressed or finished.
static void catch_up(struct images_wait *w)
{
    struct app *app = w->call->app;
    struct job *job = w->watch.job;
    for (int i = 0; w->fields.stream && i < job->spec.n; i++) {
        struct job_event ev = {.type = JOB_EVENT_PICTURE, .picture = i};
        if (jobs_image(app->jobs, job, i, &ev.blob, NULL))
            continue;
        stream_picture(w, &ev);
        blob_unref(&ev.blob);
    }
    if (job_ended(job))
        finish(w);
}

// The image type that an Accept header requests, and its format.
static const char *accept_picture(const struct http_request *r, int *format)
{
    const char *accept = http_header(r, "Accept");
    static const char image[] = "image/";
    if (!accept || strncasecmp(accept, image, sizeof image - 1))
        return NULL;
    accept += sizeof image - 1;
    for (int i = 0; draw_formats[i]; i++) {
        if (strncasecmp(accept, draw_formats[i], strlen(draw_formats[i])))
            continue;
        *format = i;
        return job_format_type(draw_format(i));
    }
    return NULL;
}

// ---- fields without effect ----------------------------------------------------------------------

static bool has_field(const struct call *c, const char *name)
{
    const struct json_t *v = json_find(c->body, name);
    size_t n = 0;
    if (json_given(c->body, name) && (!json_text(v, &n) || n))
        return true;
    const struct multipart_part *part;
    for (int i = 0; c->form && (part = multipart_find(c->form, name, i)); i++)
        if (part->size)
            return true;
    return false;
}

static void note_unused(const struct call *c, const char *const *names, struct images_fields *f)
{
    f->unused_names = names;
    for (int i = 0; names && names[i]; i++)
        f->unused |= has_field(c, names[i]) ? 1U << i : 0;
}

static void warn_unused(struct images_wait *w)
{
    const struct images_fields *f = &w->fields;
    for (int i = 0, n = 0; f->unused >> i; i++) {
        if (!(f->unused >> i & 1))
            continue;
        snprintf(w->text[n], sizeof w->text[n],
                 "\"%s\" has no effect on %s; to edit an image with it, use /v1/images/edits",
                 f->unused_names[i], w->call->route->path);
        w->unused[n] = w->text[n];
        n++;
    }
}

static void follow(struct call *c, struct job *job)
{
    struct app *app = c->app;
    struct images_wait *w = calloc(1, sizeof *w);
    int format;
    if (!w) {
        jobs_cancel(app->jobs, job);
        call_error(c, 500, NULL, NULL, "%s", err_text(ERR_NO_MEMORY));
        return;
    }
    w->fields = *(const struct images_fields *)c->fields;
    w->call = c;
    w->raw_type = accept_picture(c->http, &format);
    w->created = job->created / 1000;
    warn_unused(w);
    w->watch.previews = w->fields.stream;
    w->watch.images = true;
    w->watch.event = on_event;
    w->watch.ctx = w;
    jobs_watch(app->jobs, job, &w->watch);
    http_set_header(c->http, "X-Imagend-Job", "%s", job->id);
    if (w->fields.stream)
        sse_start(c->http, on_gone, w);
    else
        http_defer(c->http, on_gone, w);
    catch_up(w);
}

// ---- the request --------------------------------------------------------------------------------

static enum err images_spec(struct call *c, struct images_fields *f, const char *raw_type,
                            struct job_spec *spec, struct fault *why)
{
    const char *format = json_text(json_find(c->body, "response_format"), NULL);
    if ((!format || !*format) && openai_model_gives_urls(f->model))
        f->response_format = RESPONSE_URL;
    if (f->background == BACKGROUND_TRANSPARENT)
        return fault_set(why, ERR_INVALID, "background",
                         "\"background\": transparent is not supported; use opaque or auto");
    if (raw_type && (f->n > 1 || f->stream))
        return fault_set(why, ERR_INVALID, "n",
                         "Accept: %s returns a single image; use \"n\": 1 and no \"stream\"",
                         raw_type);
    if (json_given(c->body, "steps") && json_given(c->body, "num_inference_steps"))
        return fault_set(why, ERR_INVALID, "num_inference_steps",
                         "\"num_inference_steps\" is an alias of \"steps\"; send only one of them");
    if (f->partial_images && !f->stream)
        return fault_set(why, ERR_INVALID, "partial_images",
                         "\"partial_images\" requires \"stream\": true");
    *spec = (struct job_spec){
        .request = f->picture,
        .n = f->n,
        .api = "openai",
        .format = draw_format(f->output_format),
        .quality = f->compression,
        .previews = f->partial_images,
        .watched = f->stream,
        .preview_format = draw_format(f->output_format),
        .keep = f->response_format == RESPONSE_URL && !raw_type && !f->stream,
    };
    return ERR_OK;
}

void openai_images_run(struct call *c, openai_take_fn *take, const char *const *unused)
{
    struct images_fields *f = c->fields;
    struct job_spec spec;
    struct input in = {0};
    struct fault why = {0};
    char hash[65];
    const char *raw_type = accept_picture(c->http, &f->output_format);
    const char *model;
    if (!openai_model_find(c->app, f->model, &model)) {
        draw_no_model(c, f->model);
        return;
    }
    if (images_spec(c, f, raw_type, &spec, &why)) {
        call_fault(c, &why, 1);
        return;
    }
    spec.model = model;
    note_unused(c, unused, f);
    if (draw_idempotent(c, hash, &spec, &why)) {
        draw_reused(c, &why);
        return;
    }
    if (take && take(c, &spec, &in, &why)) {
        input_deinit(&in);
        call_fault(c, &why, 1);
        return;
    }
    draw_apply_quality(c->app, (enum draw_quality)f->quality, take != NULL, &spec);
    input_submit(c, &spec, &in, follow);
}

static void images_post(struct call *c)
{
    static const char *const unused[] = {"image",    "images",         "mask",
                                         "strength", "input_fidelity", NULL};
    openai_images_run(c, NULL, unused);
}

#define ANSWER_STREAM                                                                              \
    {200, "text/event-stream", "partial and final images, if stream is true", "ImageEvent"}
#define ANSWER_RAW                                                                                 \
    {200, "image/png", "the image itself, if Accept is image/png, image/jpeg or image/webp"}
const struct route routes_openai[] = {
    {"POST", "/v1/images/generations", images_post, SCOPE_GENERATE, ROUTE_BODY, ERRORS_OPENAI,
     "images", "Generate images and wait for them", .body = &images_check,
     .fields_size = sizeof(struct images_fields),
     .answer = {{200, "application/json", "the images", "Images"}, ANSWER_STREAM, ANSWER_RAW}},
    {"POST", "/v1/images/edits", openai_edits_post, SCOPE_GENERATE,
     ROUTE_BODY | ROUTE_IMAGES | ROUTE_FORM, ERRORS_OPENAI, "images",
     "Edit an image and wait for the result", .body = &openai_edits_check,
     .fields_size = sizeof(struct edits_fields),
     .answer = {{200, "application/json", "the edited images", "Images"},
                ANSWER_STREAM,
                ANSWER_RAW}},
    {"POST", "/v1/images/variations", openai_variations_post, SCOPE_GENERATE,
     ROUTE_BODY | ROUTE_IMAGES | ROUTE_FORM, ERRORS_OPENAI, "images",
     "Vary an image without a prompt", .body = &openai_variations_check,
     .fields_size = sizeof(struct images_fields),
     .answer = {{200, "application/json", "the images", "Images"}, ANSWER_RAW}},
    {"GET", "/v1/models", openai_models_list, SCOPE_READ, 0, ERRORS_OPENAI, "models",
     "List the models", .answer = {{200, "application/json", "the models", "ModelList"}}},
    {"GET", "/v1/models/{id}", openai_models_get, SCOPE_READ, 0, ERRORS_OPENAI, "models",
     "One model", .answer = {{200, "application/json", "the model", "Model"}}},
    {"GET", "/v1/models/{owner}/{id}", openai_models_get, SCOPE_READ, 0, ERRORS_OPENAI, "models",
     "One model whose name contains a slash",
     .answer = {{200, "application/json", "the model", "Model"}}},
    {0},
};
