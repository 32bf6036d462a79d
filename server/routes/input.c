// Input images of requests, see input.h. Called by the routes that accept images, on the loop
// thread.
#include "input.h"

#include "buf.h"
#include "http.h"
#include "json.h"
#include "multipart.h"
#include "text.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

// ---- from text ----------------------------------------------------------------------------------

static bool begins(const char *s, const char *with)
{
    return !strncasecmp(s, with, strlen(with));
}

// Whether it is a URL ("scheme://"); the server does not fetch URLs on behalf of clients.
static bool is_url(const char *s)
{
    const size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ+.-");
    return n && !strncmp(s + n, "://", 3);
}

static enum err take_blob(struct buf *b, struct input_file *out, struct fault *why)
{
    const size_t size = b->len;
    out->blob = b->failed ? NULL : blob_create((uint8_t *)buf_take(b), size);
    buf_deinit(b);
    return out->blob ? ERR_OK : fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
}

static enum err read_text(const char *name, const char *s, struct input_file *out,
                          struct fault *why)
{
    struct buf b = {0};
    if (is_url(s))
        return fault_set(why, ERR_INVALID, name,
                         "\"%s\" is the URL %.60s, but this server does not fetch images: send the "
                         "image itself, as base64 or a data URL",
                         name, s);
    if (begins(s, "data:")) {
        const char *comma = strchr(s, ',');
        static const char base64[] = ";base64";
        const size_t n = sizeof base64 - 1;
        if (!comma || comma - s < (int)n || strncasecmp(comma - n, base64, n))
            return fault_set(why, ERR_INVALID, name,
                             "\"%s\" must be a data URL in base64, such as "
                             "data:image/png;base64,iVBORw0...",
                             name);
        s = comma + 1;
    }
    if (!*s)
        return fault_set(why, ERR_INVALID, name, "\"%s\" is empty", name);
    if (!text_unbase64(&b, s) && !b.failed) {
        buf_deinit(&b);
        return fault_set(why, ERR_INVALID, name, "\"%s\" is not valid base64 or a data URL", name);
    }
    return take_blob(&b, out, why);
}

// ---- from JSON ----------------------------------------------------------------------------------

static enum err read_job(const char *name, const struct json_t *v, struct input_file *out,
                         struct fault *why)
{
    static const char *const keys[] = {"job", "index", NULL};
    struct fault inner = {0};
    struct json_reader r = json_reader(v, name, ERR_INVALID, &inner);
    json_only_keys(&r, keys);
    const char *job = json_read_text(&r, "job", "");
    out->index = (int)json_read_int(&r, "index", 0, 0, JOB_MAX_PICTURES - 1);
    if (r.err)
        return fault_set(why, r.err, name, "\"%s\": %s", name, inner.msg);
    if (!*job)
        return fault_set(why, ERR_INVALID, name,
                         "\"%s\" must be base64, a data URL, or an object with \"job\" and, "
                         "unless it is 0, \"index\"",
                         name);
    // A longer id is truncated and matches no job.
    strncpy(out->job, job, sizeof out->job - 1);
    return ERR_OK;
}

static enum err read_reference(const char *name, const struct json_t *v, struct input_file *out,
                               struct fault *why)
{
    static const char *const keys[] = {"image_url", NULL};
    struct fault inner = {0};
    struct json_reader r = json_reader(v, name, ERR_INVALID, &inner);
    if (json_given(v, "file_id"))
        return fault_set(why, ERR_INVALID, name,
                         "\"%s\": file_id is not supported, because this server keeps no uploaded "
                         "files; send image_url with a data URL",
                         name);
    json_only_keys(&r, keys);
    const char *url = json_read_text(&r, "image_url", "");
    return r.err ? fault_set(why, r.err, name, "\"%s\": %s", name, inner.msg)
                 : read_text(name, url, out, why);
}

enum err input_read(const char *name, const struct json_t *v, struct input_file *out,
                    struct fault *why)
{
    size_t n = 0;
    const char *text = json_text(v, &n);
    *out = (struct input_file){.name = name};
    if (text && strlen(text) != n)
        return fault_set(why, ERR_INVALID, name, "\"%s\" is not valid base64 or a data URL", name);
    if (text)
        return read_text(name, text, out, why);
    if (json_find(v, "image_url") || json_find(v, "file_id"))
        return read_reference(name, v, out, why);
    return read_job(name, v, out, why);
}

// ---- from a form --------------------------------------------------------------------------------

// Reads text that may be the name of a file, as curl sends it without the @.
static enum err read_plain(const char *name, const char *s, struct input_file *out,
                           struct fault *why)
{
    const enum err err = read_text(name, s, out, why);
    if (err != ERR_INVALID || !*s || strlen(s) > 255 || strchr(s, ':'))
        return err;
    return fault_set(why, err, name,
                     "\"%s\" is not valid base64 or a data URL; to send the file %.60s with curl, "
                     "write @ before its name",
                     name, s);
}

// Reads a text field, with the content that a JSON body would have.
static enum err read_field(const char *name, const struct multipart_part *part,
                           struct input_file *out, struct fault *why)
{
    struct json_t *doc = NULL;
    struct buf text = {0};
    enum err err;
    buf_add(&text, part->data, part->size);
    if (text.failed)
        return fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    if (part->size && *part->data == '{') {
        err = json_parse(text.data, text.len, name, ERR_INVALID, &doc, why);
        if (err)
            fault_set(why, err, name, "\"%s\" is not valid JSON", name);
        else
            err = input_read(name, doc, out, why);
        json_destroy(&doc);
    } else {
        err = read_plain(name, text.data ? text.data : "", out, why);
    }
    buf_deinit(&text);
    return err;
}

static enum err read_part(const char *name, const struct multipart_part *part,
                          struct input_file *out, struct fault *why)
{
    struct buf b = {0};
    // Clients that omit the file name still send the type, or bytes that are not text.
    const bool text =
        !part->filename && strncmp(part->type, "image/", 6) && !memchr(part->data, 0, part->size);
    *out = (struct input_file){0};
    if (text)
        return read_field(name, part, out, why);
    if (!part->size)
        return fault_set(why, ERR_INVALID, name, "\"%s\" is an empty file", name);
    buf_add(&b, part->data, part->size);
    return take_blob(&b, out, why);
}

// ---- from a request -----------------------------------------------------------------------------

static enum err refuse_many(const char *name, size_t n, struct fault *why)
{
    return fault_set(why, ERR_INVALID, name,
                     "\"%s\" holds %zu images; this server takes one image per request", name, n);
}

static enum err take_part(struct call *c, const char *name, struct input_file *out,
                          struct fault *why)
{
    int n = 0;
    while (multipart_find(c->form, name, n))
        n++;
    if (n > 1)
        return refuse_many(name, (size_t)n, why);
    return n ? read_part(name, multipart_find(c->form, name, 0), out, why) : ERR_OK;
}

enum err input_take(struct call *c, const char *name, struct input_file *out, struct fault *why)
{
    const struct json_t *v = json_find(c->body, name);
    *out = (struct input_file){0};
    if (c->form)
        return take_part(c, name, out, why);
    if (!json_given(c->body, name))
        return ERR_OK;
    if (json_kind(v) == JSON_LIST && json_count(v) != 1)
        return refuse_many(name, json_count(v), why);
    const enum err err =
        input_read(name, json_kind(v) == JSON_LIST ? json_item(v, 0) : v, out, why);
    json_remove(c->body, name);
    return err;
}

void input_deinit(struct input *in)
{
    blob_unref(&in->image.blob);
    blob_unref(&in->mask.blob);
    *in = (struct input){0};
}

// ---- submission ---------------------------------------------------------------------------------

// A call whose images are being looked up or processed.
struct input_wait {
    struct call *call;
    asking_fn *then;
    struct jobs_ask *ask;       // a lookup that is under way, or NULL
    struct jobs_intake *intake; // the submission that is under way, or NULL
    struct job_spec spec;       // its strings point into text
    char *text;
    struct input in;
    bool looked_up; // the Idempotency-Key
};

static void wait_free(struct input_wait *w)
{
    input_deinit(&w->in);
    free(w->text);
    free(w);
}

static void on_gone(void *ctx)
{
    struct input_wait *w = ctx;
    if (w->intake)
        jobs_intake_forget(w->intake);
    else if (w->ask)
        jobs_forget(w->ask);
    wait_free(w);
}

// job NULL: the call gets the error.
static void wait_end(struct input_wait *w, struct job *job, const struct fault *why)
{
    struct call *c = w->call;
    asking_fn *then = w->then;
    http_defer(c->http, NULL, NULL);
    wait_free(w);
    if (job)
        then(c, job);
    else
        draw_refuse(c, why);
}

static void on_submitted(void *ctx, struct job *job, const struct fault *why)
{
    struct input_wait *w = ctx;
    http_unclaim_body(w->call->http);
    wait_end(w, job, why);
}

static void wait_submit(struct input_wait *w)
{
    struct call *c = w->call;
    const struct app *app = c->app;
    const struct jobs_input from = {&w->spec, w->in.image.blob, w->in.mask.blob};
    struct fault why = {0};
    if (jobs_submit_input(app->jobs, &from, on_submitted, w, &w->intake, &why)) {
        wait_end(w, NULL, &why);
        return;
    }
    http_drop_body(c->http);
    if (c->form)
        c->form->parts = 0; // they pointed into the body
}

static void wait_next(struct input_wait *w);

static enum err refuse_unfinished(const struct job *job, const struct input_file *f,
                                  struct fault *why)
{
    const char *const hint = job_ended(job) ? "" : "; wait until it is done";
    if (job->picture[f->index].state == JOB_DONE)
        return fault_set(why, ERR_INVALID, f->name,
                         "\"%s\": image %d of this job is no longer available", f->name, f->index);
    return fault_set(why, ERR_INVALID, f->name,
                     "\"%s\": image %d of this job is not available: the job is %s%s", f->name,
                     f->index, job_state_name(job->state), hint);
}

static enum err take_image(struct call *c, struct job *job, struct input_file *f, struct fault *why)
{
    const struct app *app = c->app;
    const char *name = f->name;
    if (!job)
        return fault_set(why, ERR_INVALID, name, "\"%s\": no such job", name);
    if (f->index >= job->spec.n)
        return fault_set(why, ERR_INVALID, name,
                         "\"%s\": the job has %d image%s; indexes start at 0", name, job->spec.n,
                         job->spec.n > 1 ? "s" : "");
    const enum err err = jobs_image(app->jobs, job, f->index, &f->blob, why);
    return err == ERR_NOT_FOUND ? refuse_unfinished(job, f, why) : err;
}

static void on_source(void *ctx, struct job *job, const struct fault *none)
{
    struct input_wait *w = ctx;
    const bool image = *w->in.image.job && !w->in.image.blob;
    struct fault why = none ? *none : (struct fault){0};
    w->ask = NULL;
    if ((none && none->code != ERR_NOT_FOUND) ||
        take_image(w->call, job, image ? &w->in.image : &w->in.mask, &why))
        wait_end(w, NULL, &why);
    else
        wait_next(w);
}

static void on_key(void *ctx, struct job *job, const struct fault *why)
{
    struct input_wait *w = ctx;
    struct fault reused;
    w->ask = NULL;
    if (!job && why->code == ERR_NOT_FOUND) {
        wait_next(w);
    } else if (!job || !strcmp(job->spec.body_hash, w->spec.body_hash)) {
        wait_end(w, job, why);
    } else {
        jobs_key_reused(&reused);
        wait_end(w, NULL, &reused);
    }
}

// A repeated request has its answer before anything of it is looked at. Do not reveal that a job of
// another key exists.
static void wait_next(struct input_wait *w)
{
    const struct call *c = w->call;
    const struct app *app = c->app;
    struct jobs_lookup what = {.owner = c->owner};
    const struct input_file *f = !w->in.image.blob ? &w->in.image : &w->in.mask;
    if (w->spec.idempotency_key && !w->looked_up) {
        w->looked_up = true;
        what.key = w->spec.idempotency_key;
        what.image = w->spec.durable ? JOBS_NO_IMAGE : JOBS_ALL_IMAGES;
        jobs_find(app->jobs, &what, on_key, w, &w->ask);
    } else if (*f->job && !f->blob) {
        what.id = f->job;
        what.image = f->index;
        jobs_find(app->jobs, &what, on_source, w, &w->ask);
    } else {
        wait_submit(w);
    }
}

static void wait_begin(struct call *c, const struct job_spec *spec, struct input *in,
                       asking_fn *then)
{
    struct input_wait *w = calloc(1, sizeof *w);
    struct job_spec full = *spec;
    full.owner = c->owner;
    full.request_id = http_id(c->http);
    if (!w || job_spec_copy(&full, &w->spec, &w->text)) {
        free(w);
        call_error(c, 500, NULL, NULL, "%s", err_text(ERR_NO_MEMORY));
        return;
    }
    w->call = c;
    w->then = then;
    w->in = *in;
    *in = (struct input){0};
    http_defer(c->http, on_gone, w);
    wait_next(w);
}

void input_submit(struct call *c, const struct job_spec *spec, struct input *in, asking_fn *then)
{
    struct fault why = {0};
    if (!input_given(&in->image) && input_given(&in->mask)) {
        fault_set(&why, ERR_INVALID, "mask", "\"mask\" needs an \"image\" that it is for");
        draw_refuse(c, &why);
    } else if (input_given(&in->image)) {
        wait_begin(c, spec, in, then);
    } else {
        asking_submit(c, spec, then);
    }
    input_deinit(in);
}
