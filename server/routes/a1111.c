// The part of A1111's /sdapi/v1 that Open WebUI and SillyTavern use. Unknown fields are ignored as
// those clients need.
#include "a1111.h"

#include "buf.h"
#include "http.h"
#include "json.h"
#include "text.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct txt2img_fields {
    struct picture_request picture;
    const char *sampler, *sampler_index, *scheduler;
    int batch_size, n_iter, width, height, steps;
    float cfg_scale;
    bool send_images;
};

#define F(field) offsetof(struct txt2img_fields, field)
static const struct check_field txt2img_table[] = {
    {"prompt", CHECK_TEXT, CHECK_NULL, F(picture.prompt), 0, PICTURE_MAX_PROMPT, .def = "",
     .help = "what the image shows"},
    {"sampler_name", CHECK_TEXT, CHECK_NULL, F(sampler), 0, 64, .live = "samplers",
     .help = "sampler of the first stage, by its A1111 name or its own name; Automatic, or no "
             "value, selects the model's own sampler, which also replaces A1111 samplers that are "
             "not available"},
    {"sampler_index", CHECK_TEXT, CHECK_NULL, F(sampler_index), 0, 64,
     .help = "deprecated name of sampler_name"},
    {"scheduler", CHECK_TEXT, CHECK_NULL, F(scheduler), 0, 64,
     .help = "Automatic, Uniform or Karras; any other value selects the sampler's own schedule"},
    {"batch_size", CHECK_INT, CHECK_NULL, F(batch_size), 1, JOB_MAX_PICTURES, .def = "1",
     .help = "images per batch"},
    {"n_iter", CHECK_INT, CHECK_NULL, F(n_iter), 1, JOB_MAX_PICTURES, .def = "1",
     .help = "number of batches"},
    {"width", CHECK_INT, CHECK_NULL, F(width), 1, 65536, .def = "0",
     .help = "pixels, up to the model's largest size; defaults to height, or the largest size"},
    {"height", CHECK_INT, CHECK_NULL, F(height), 1, 65536, .def = "0", .help = "defaults to width"},
    {"steps", CHECK_INT, CHECK_NULL, F(steps), 1, 1000, .help = "steps of the first stage"},
    {"cfg_scale", CHECK_NUMBER, CHECK_NULL, F(cfg_scale), 0, 100,
     .help = "guidance scale of the first stage; 1 or less disables guidance"},
    {"send_images", CHECK_BOOL, CHECK_NULL, F(send_images), .def = "true",
     .help = "false omits the images from the response"},
    {"override_settings", CHECK_ANY, CHECK_IGNORED, 0, .help = "ignored"},
    {"styles", CHECK_ANY, CHECK_IGNORED, 0, .help = "ignored"},
};
#undef F
// Fields for which A1111 has its own name.
static const char *const txt2img_without[] = {"sampler",  "guidance_scale", "size",
                                              "strength", "scale",          NULL};
static const struct check_table txt2img_check = {
    CHECK_ROWS("TextToImageRequest", txt2img_table),
    .lax = true,
    .more = &picture_table,
    .more_at = offsetof(struct txt2img_fields, picture),
    .without = txt2img_without,
};

struct txt2img_wait {
    struct job_watch watch;
    struct call *call;
};

// ---- the answer ---------------------------------------------------------------------------------

// The sampler that the request selects; its name was checked when the request arrived.
static struct a1111_sampler take_sampler(const struct call *c, bool *known)
{
    const struct app *app = c->app;
    const struct txt2img_fields *f = c->fields;
    struct a1111_sampler s;
    *known = a1111_sampler_find(jobs_model(app->jobs),
                                f->sampler && *f->sampler ? f->sampler : f->sampler_index,
                                f->scheduler, &s);
    return s;
}

static void add_infotext(struct buf *b, const struct job *j, int picture,
                         const struct a1111_sampler *asked)
{
    const struct picture_request r = picture_at(&j->spec.request, picture);
    const char *scheduler, *sampler = a1111_sampler_label(j->used.sampler, &scheduler);
    char name[128];
    snprintf(name, sizeof name, "%s%s%s", sampler, scheduler ? ", Schedule type: " : "",
             scheduler ? scheduler : "");
    picture_infotext(b, &r, &j->used, name);
    if (asked->missing_sampler)
        buf_printf(b, ", Requested sampler: %s", asked->missing_sampler);
    if (asked->missing_scheduler) {
        buf_puts(b, ", Requested schedule type: ");
        text_json(b, asked->missing_scheduler);
    }
}

// Settings that were requested but are not available.
static void add_missing(struct buf *b, const struct job *j, const struct a1111_sampler *asked)
{
    const char *scheduler, *sampler = a1111_sampler_label(j->used.sampler, &scheduler);
    struct buf comments = {0};
    buf_puts(b, ",\"extra_generation_params\":{");
    if (asked->missing_sampler) {
        buf_puts(b, "\"Requested sampler\":");
        text_json(b, asked->missing_sampler);
        buf_printf(&comments,
                   "The sampler %s is not available; the image was generated with the model's own "
                   "sampler, %s.",
                   asked->missing_sampler, sampler);
    }
    if (asked->missing_scheduler) {
        buf_puts(b, "\"Requested schedule type\":");
        text_json(b, asked->missing_scheduler);
        buf_printf(&comments, "The scheduler %s is not available with the sampler %s.",
                   asked->missing_scheduler, sampler);
    }
    char warning[160];
    for (int i = 0; picture_warning(&j->used, i, warning); i++)
        buf_printf(&comments, "%s%c%s.", comments.len ? " " : "", toupper((unsigned char)*warning),
                   warning + 1);
    buf_puts(b, "},\"comments\":");
    text_json(b, comments.data ? comments.data : "");
    buf_deinit(&comments);
}

// The other keys of A1111, for clients that read them without checking whether they exist.
static void add_constants(struct buf *b, const struct job *j)
{
    const char *negative = j->spec.request.negative_prompt;
    buf_puts(b, ",\"all_negative_prompts\":[");
    for (int i = 0; i < j->spec.n; i++) {
        buf_puts(b, i ? "," : "");
        text_json(b, negative ? negative : "");
    }
    buf_puts(b, "],\"all_subseeds\":[");
    for (int i = 0; i < j->spec.n; i++)
        buf_puts(b, i ? ",-1" : "-1");
    buf_puts(b, "],\"seed_resize_from_w\":-1,\"seed_resize_from_h\":-1,\"restore_faces\":false,"
                "\"face_restoration_model\":null,\"denoising_strength\":0,\"clip_skip\":1,"
                "\"is_using_inpainting_conditioning\":false,\"index_of_first_image\":0,"
                "\"styles\":[],\"job_timestamp\":\"0\",\"sd_model_hash\":\"\",\"sd_vae_name\":null,"
                "\"sd_vae_hash\":null");
}

// Clients expect a string that contains JSON.
static void add_info(struct buf *out, const struct job *j, const struct a1111_sampler *asked)
{
    const char *scheduler;
    struct buf b = {0};
    buf_puts(&b, "{\"prompt\":");
    text_json(&b, j->spec.request.prompt);
    buf_puts(&b, ",\"all_prompts\":[");
    for (int i = 0; i < j->spec.n; i++) {
        buf_puts(&b, i ? "," : "");
        text_json(&b, j->spec.request.prompt);
    }
    buf_puts(&b, "],\"negative_prompt\":");
    text_json(&b, j->spec.request.negative_prompt ? j->spec.request.negative_prompt : "");
    buf_printf(&b, ",\"seed\":%llu,\"all_seeds\":[", (unsigned long long)j->spec.request.seed);
    for (int i = 0; i < j->spec.n; i++)
        buf_printf(&b, "%s%llu", i ? "," : "", (unsigned long long)j->spec.request.seed);
    // A1111 increments the seed instead: the value of "picture" that reproduces each image.
    buf_puts(&b, "],\"all_pictures\":[");
    for (int i = 0; i < j->spec.n; i++)
        buf_printf(&b, "%s%d", i ? "," : "", j->spec.request.picture + i);
    buf_printf(&b,
               "],\"subseed\":-1,\"subseed_strength\":0,\"width\":%d,\"height\":%d,"
               "\"cfg_scale\":%.6g,\"steps\":%d,\"batch_size\":%d,\"sampler_name\":",
               j->used.size.width, j->used.size.height, (double)j->used.guidance_scale[0],
               j->used.steps[0], j->spec.n);
    text_json(&b, a1111_sampler_label(j->used.sampler, &scheduler));
    add_missing(&b, j, asked);
    buf_puts(&b, ",\"sd_model_name\":");
    text_json(&b, j->used.model);
    add_constants(&b, j);
    buf_puts(&b, ",\"infotexts\":[");
    for (int i = 0; i < j->spec.n; i++) {
        struct buf text = {0};
        add_infotext(&text, j, i, asked);
        buf_puts(&b, i ? "," : "");
        text_json(&b, text.data);
        buf_deinit(&text);
    }
    buf_puts(&b, "]}");
    text_json(out, b.data);
    buf_deinit(&b);
}

static void reply_images(struct call *c, struct job *j)
{
    const struct app *app = c->app;
    const struct txt2img_fields *f = c->fields;
    struct buf b = {0};
    buf_puts(&b, "{\"images\":[");
    for (int i = 0; f->send_images && i < j->spec.n; i++) {
        struct blob *blob;
        struct fault why;
        if (jobs_image(app->jobs, j, i, &blob, &why)) {
            buf_deinit(&b);
            call_fault(c, &why, 1);
            return;
        }
        buf_puts(&b, i ? ",\"" : "\"");
        text_base64(&b, blob->data, blob->size);
        buf_puts(&b, "\"");
        blob_unref(&blob);
    }
    // A1111 echoes the request.
    const struct buf *body = http_body(c->http);
    buf_puts(&b, "],\"parameters\":");
    buf_add(&b, body->data ? body->data : "{}", body->data ? body->len : 2);
    buf_puts(&b, ",\"info\":");
    bool known;
    const struct a1111_sampler asked = take_sampler(c, &known);
    add_info(&b, j, &asked);
    buf_puts(&b, "}");
    call_json(c, 200, &b);
}

// ---- drawing ------------------------------------------------------------------------------------

static void wait_end(struct txt2img_wait *w)
{
    const struct app *app = w->call->app;
    jobs_unwatch(app->jobs, &w->watch);
    free(w);
}

static void on_gone(void *ctx)
{
    wait_end(ctx);
}

static void on_event(struct job_watch *watch, const struct job_event *ev)
{
    struct txt2img_wait *w = watch->ctx;
    struct job *j = watch->job;
    if (ev->type != JOB_EVENT_END)
        return;
    if (j->state == JOB_DONE)
        reply_images(w->call, j);
    else
        draw_job_error(w->call, j);
    wait_end(w);
}

static void txt2img_post(struct call *c)
{
    const struct app *app = c->app;
    const struct txt2img_fields *f = c->fields;
    struct txt2img_wait *w;
    struct job *j;
    bool known;
    const struct a1111_sampler sampler = take_sampler(c, &known);
    if (f->batch_size * f->n_iter > JOB_MAX_PICTURES) {
        call_error(
            c, 422, NULL, NULL,
            "\"batch_size\" times \"n_iter\" is %d; this server generates at most %d images per "
            "request",
            f->batch_size * f->n_iter, JOB_MAX_PICTURES);
        return;
    }
    if (!known) {
        call_error(c, 404, NULL, NULL, "Sampler not found");
        return;
    }
    struct job_spec spec = {.request = f->picture,
                            .n = f->batch_size * f->n_iter,
                            .api = "a1111",
                            .client = http_client(c->http),
                            .previews = 8,
                            .preview_format = JOB_PNG};
    spec.request.size.width = f->width ? f->width : f->height;
    spec.request.size.height = f->height ? f->height : f->width;
    spec.request.sampler = sampler.engine;
    spec.request.steps[0] = f->steps;
    // 0 disables guidance in A1111, but means unset to the engine.
    spec.request.guidance_scale[0] =
        f->cfg_scale < 1 && json_given(c->body, "cfg_scale") ? 1 : f->cfg_scale;
    j = draw_submit(c, &spec);
    if (!j)
        return;
    w = calloc(1, sizeof *w);
    if (!w) {
        jobs_cancel(app->jobs, j);
        call_error(c, 500, NULL, NULL, "%s", err_text(ERR_NO_MEMORY));
        return;
    }
    w->call = c;
    w->watch.event = on_event;
    w->watch.ctx = w;
    jobs_watch(app->jobs, j, &w->watch);
    http_defer(c->http, on_gone, w);
}

static void img2img_post(struct call *c)
{
    call_error(c, 501, NULL, NULL, "img2img is not implemented; use txt2img");
}

// ---- progress -----------------------------------------------------------------------------------

// The job that progress, interrupt and skip apply to: the caller's oldest unfinished one,
// preferring the same key and address over the same key. Without keys, only the address identifies
// a client.
static struct job *current_job(struct call *c)
{
    const struct app *app = c->app;
    struct job *same_client = NULL, *same_key = NULL;
    for (struct job *j = jobs_newest(app->jobs); j; j = j->older) {
        if (job_ended(j) || strcmp(j->spec.owner, c->owner) || strcmp(j->spec.api, "a1111"))
            continue;
        if (j->spec.client && !strcmp(j->spec.client, http_client(c->http)))
            same_client = j;
        else if (*c->owner)
            same_key = j;
    }
    return same_client ? same_client : same_key;
}

struct progress_fields {
    bool skip_current_image;
};
static const struct check_field progress_table[] = {
    {"skip_current_image", CHECK_BOOL, 0, offsetof(struct progress_fields, skip_current_image),
     .def = "false", .help = "true sets current_image to null"},
};
static const struct check_table progress_check = CHECK_TABLE_LAX("ProgressQuery", progress_table);

static void progress_get(struct call *c)
{
    const struct app *app = c->app;
    const struct progress_fields *f = c->fields;
    struct job *j = current_job(c);
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

static void interrupt_post(struct call *c)
{
    const struct app *app = c->app;
    struct buf b = {0};
    struct job *j = current_job(c);
    if (j)
        jobs_cancel(app->jobs, j);
    buf_puts(&b, "{}");
    call_json(c, 200, &b);
}

#define A1111(method, path, handle, scope, flags, summary, ...)                                    \
    {method,                                                                                       \
     "/sdapi/v1/" path,                                                                            \
     handle,                                                                                       \
     scope,                                                                                        \
     flags,                                                                                        \
     ERRORS_A1111,                                                                                 \
     "a1111",                                                                                      \
     summary,                                                                                      \
     .answer = {{200, "application/json", "the response of A1111"}},                               \
     __VA_ARGS__}
#define FIXED(path)                                                                                \
    A1111("GET", path, a1111_fixed_get, SCOPE_READ, 0,                                             \
          "An empty or constant list, for clients that expect it", .body = NULL)
#define REFRESH(path)                                                                              \
    A1111("POST", path, a1111_refresh_post, SCOPE_GENERATE, ROUTE_BODY | ROUTE_EMPTY_BODY,         \
          "Accepted without effect; the lists are always up to date", .body = NULL)
const struct route routes_a1111[] = {
    A1111("POST", "txt2img", txt2img_post, SCOPE_GENERATE, ROUTE_BODY,
          "Generate images and wait for them", .body = &txt2img_check,
          .fields_size = sizeof(struct txt2img_fields)),
    A1111("POST", "img2img", img2img_post, SCOPE_GENERATE, ROUTE_BODY,
          "Not implemented, responds with 501", .body = NULL),
    A1111("GET", "progress", progress_get, SCOPE_READ, 0,
          "Progress of your oldest unfinished request", .query = &progress_check,
          .fields_size = sizeof(struct progress_fields)),
    A1111("POST", "interrupt", interrupt_post, SCOPE_GENERATE, ROUTE_BODY | ROUTE_EMPTY_BODY,
          "Cancel your oldest unfinished request", .body = NULL),
    A1111("POST", "skip", interrupt_post, SCOPE_GENERATE, ROUTE_BODY | ROUTE_EMPTY_BODY,
          "Same as interrupt", .body = NULL),
    A1111("GET", "options", a1111_options_get, SCOPE_READ, 0,
          "The options, of which only the model's name is meaningful", .body = NULL),
    A1111("POST", "options", a1111_options_post, SCOPE_GENERATE, ROUTE_BODY,
          "Accept options without effect; selecting a model that is not loaded is an error",
          .body = NULL),
    A1111("GET", "samplers", a1111_samplers_get, SCOPE_READ, 0, "Samplers", .body = NULL),
    A1111("GET", "schedulers", a1111_schedulers_get, SCOPE_READ, 0, "Schedulers", .body = NULL),
    A1111("GET", "sd-models", a1111_sd_models_get, SCOPE_READ, 0, "The model", .body = NULL),
    FIXED("upscalers"),
    FIXED("latent-upscale-modes"),
    FIXED("sd-vae"),
    FIXED("sd-modules"),
    FIXED("loras"),
    FIXED("hypernetworks"),
    FIXED("embeddings"),
    FIXED("face-restorers"),
    FIXED("realesrgan-models"),
    FIXED("prompt-styles"),
    FIXED("scripts"),
    FIXED("script-info"),
    FIXED("extensions"),
    FIXED("cmd-flags"),
    FIXED("memory"),
    REFRESH("refresh-checkpoints"),
    REFRESH("refresh-loras"),
    REFRESH("refresh-vae"),
    {0},
};
