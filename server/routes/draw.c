// Shared by the APIs that generate images: building a job's spec from request fields, idempotent
// requests, responses with images. Called by the route files on the loop thread; knows no API's own
// format.
#include "app.h"

#include "buf.h"
#include "conf.h"
#include "http.h"
#include "multipart.h"
#include "sha256.h"
#include "text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const draw_formats[] = {"png", "jpeg", "webp", "jpg", NULL};
const char *const draw_qualities[] = {"auto", "low",   "medium", "standard", "high",
                                      "hd",   "xhigh", "max",    NULL};

enum job_format draw_format(int choice)
{
    enum { JPG = 3 };
    return choice == JPG ? JOB_JPEG : (enum job_format)choice;
}

bool draw_find_model(const struct app *app, const char *name, const char **model)
{
    const bool several = jobs_models(app->jobs) > 1;
    *model = NULL;
    if (!several && !jobs_model(app->jobs, NULL))
        return true; // not known yet; the job core says so
    const int i = jobs_model_find(app->jobs, name);
    if (i >= 0 && several)
        *model = jobs_model_at(app->jobs, i).name;
    return i >= 0;
}

void draw_no_model(struct call *c, const char *name)
{
    enum { MOST = 5 };
    const struct app *app = c->app;
    struct buf b = {0};
    for (int i = 0; i < jobs_models(app->jobs) && i < MOST; i++) {
        const char *own = jobs_model_at(app->jobs, i).name;
        buf_printf(&b, "%s\"%.63s\"", i ? ", " : "", own ? own : "");
    }
    call_error(c, 404, "model_not_found", "model",
               "the model \"%.80s\" does not exist; available: %s%s", name,
               b.data && !b.failed ? b.data : "", jobs_models(app->jobs) > MOST ? ", ..." : "");
    buf_deinit(&b);
}

void draw_add_state(struct buf *b, const struct jobs_model *m)
{
    buf_printf(b, ",\"state\":\"%s\"", jobs_model_state_name(m->state));
    if (m->state != MODEL_FAILED)
        return;
    buf_puts(b, ",\"error\":");
    text_json(b, m->why.msg);
}

// The number of stages for an image of this size; 0: the size is invalid, which jobs_submit
// reports.
static int stages_of(const struct model_info *m, const struct check_size *size)
{
    struct picture_used used;
    return picture_choose(&m->sizes, size, &used, NULL) ? 0 : used.stages;
}

void draw_apply_quality(struct app *app, enum draw_quality quality, bool edit,
                        struct job_spec *spec)
{
    static const char fast[] = "fast";
    const struct model_info *m = jobs_model(app->jobs, spec->model);
    const bool named = spec->request.timesteps;
    if (spec->request.preset)
        return;
    for (int i = 0; m && quality == DRAW_LOW && i < m->presets; i++)
        if (!strcmp(m->preset[i].name, fast)) {
            spec->request.preset = fast;
            return;
        }
    const bool low = quality == DRAW_LOW, high = quality >= DRAW_HIGH;
    const int stages = !m || (!low && !high) ? 0 : edit ? 1 : stages_of(m, &spec->request.size);
    for (int s = 0; s < stages; s++)
        if (!spec->request.steps[s] && !(named && s == 0))
            spec->request.steps[s] = low ? (m->stage[s].steps + 1) / 2 : m->stage[s].steps * 2;
}

// A repeated form has another boundary. False: no memory.
static bool hash_form(const struct multipart *form, char hash[65])
{
    struct buf b = {0};
    for (int i = 0; i < form->parts; i++) {
        const struct multipart_part *part = &form->part[i];
        sha256_hex(part->data, part->size, hash);
        text_json(&b, part->name);
        buf_puts(&b, hash);
    }
    const bool good = !b.failed;
    sha256_hex(b.data ? b.data : "", b.len, hash);
    buf_deinit(&b);
    return good;
}

enum err draw_idempotent(struct call *c, char hash[65], struct job_spec *spec, struct fault *why)
{
    const struct buf *body = http_body(c->http);
    const char *key = http_header(c->http, "Idempotency-Key");
    hash[0] = 0;
    if (!key)
        return ERR_OK;
    if (!*key || strlen(key) > 255)
        return fault_set(why, ERR_INVALID, "Idempotency-Key",
                         "Idempotency-Key must be 1 to 255 bytes long");
    if (c->form && !hash_form(c->form, hash))
        return fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    if (!c->form)
        sha256_hex(body->data ? body->data : "", body->len, hash);
    spec->idempotency_key = key;
    spec->body_hash = hash;
    return ERR_OK;
}

void draw_reused(struct call *c, const struct fault *why)
{
    if (why->code != ERR_BUSY) {
        call_fault(c, why, 1);
        return;
    }
    // OpenAI's clients retry a 409 unless told not to.
    http_set_header(c->http, "x-should-retry", "false");
    call_error(c, 409, "idempotency_key_reused", why->param, "%s", why->msg);
}

void draw_refuse(struct call *c, const struct fault *why)
{
    const struct app *app = c->app;
    const struct jobs_stats s = jobs_stats(app->jobs);
    if (!strcmp(why->param, "Idempotency-Key"))
        draw_reused(c, why);
    else
        call_fault(c, why, jobs_wait_estimate(app->jobs, s.queued + s.running) / 2);
}

void draw_job_error(struct call *c, const struct job *job)
{
    if (job->state == JOB_CANCELLED)
        call_error(c, 410, "job_cancelled", NULL, "the job was cancelled");
    else
        call_fault(c, &job->fault, 1);
}

void draw_add_origin(struct buf *b, const struct job *job, int picture)
{
    const struct picture_request r = picture_at(&job->spec.request, picture);
    buf_printf(b, "\"seed\":%llu,\"picture\":%d", (unsigned long long)r.seed, r.picture);
}

void draw_add_warnings(struct buf *b, const struct job *job, const char *const *more)
{
    char text[PICTURE_WARNING];
    const char *comma = "";
    buf_puts(b, "\"warnings\":[");
    for (int i = 0; picture_warning(&job->used, i, text); i++, comma = ",") {
        buf_puts(b, comma);
        text_json(b, text);
    }
    for (int i = 0; more && more[i]; i++, comma = ",") {
        buf_puts(b, comma);
        text_json(b, more[i]);
    }
    buf_puts(b, "]");
}

void draw_url(struct call *c, const struct job *job, int picture, struct buf *out)
{
    call_url(c, out);
    buf_printf(out, "/v1/files/%s/%s-%d.%s", job->id, job->token, picture,
               job_format_name(job->spec.format));
}

static void free_blob(void *owner)
{
    struct blob *b = owner;
    blob_unref(&b);
}

void draw_reply_image(struct call *c, struct job *job, int picture)
{
    struct app *app = c->app;
    struct blob *blob;
    struct fault why;
    if (jobs_image(app->jobs, job, picture, &blob, &why)) {
        call_fault(c, &why, 1);
        return;
    }
    http_set_header(c->http, "Cache-Control", "private, max-age=3600, immutable");
    http_reply_bytes(c->http, 200, job_format_type(job->spec.format), blob->data, blob->size,
                     free_blob, blob);
}
