// A1111's txt2img and img2img: their fields, the job that they request, and the response. Unknown
// fields are ignored, as clients expect. Called through the route table in a1111.c. Loop thread.
#include "a1111.h"

#include "buf.h"
#include "http.h"
#include "json.h"
#include "text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define F(field) offsetof(struct a1111_fields, field)
// clang-format off
#define COMMON_ROWS                                                                                \
    {"prompt", CHECK_TEXT, CHECK_NULL, F(picture.prompt), 0, PICTURE_MAX_PROMPT, .def = "",        \
     .help = "what the image shows; <lora:NAME:SCALE> selects a LoRA of the model"},               \
    {"sampler_name", CHECK_TEXT, CHECK_NULL, F(sampler), 0, 64, .live = "samplers",                \
     .help = "sampler of the first stage, by its A1111 name or its own name; Automatic, or no "    \
             "value, selects the model's own sampler, which also replaces A1111 samplers that "    \
             "are not available"},                                                                 \
    {"sampler_index", CHECK_TEXT, CHECK_NULL, F(sampler_index), 0, 64,                             \
     .help = "deprecated name of sampler_name"},                                                   \
    {"scheduler", CHECK_TEXT, CHECK_NULL, F(scheduler), 0, 64,                                     \
     .help = "Automatic, Uniform or Karras; any other value selects the sampler's own schedule"},  \
    {"batch_size", CHECK_INT, CHECK_NULL, F(batch_size), 1, JOB_MAX_PICTURES, .def = "1",          \
     .help = "images per batch"},                                                                  \
    {"n_iter", CHECK_INT, CHECK_NULL, F(n_iter), 1, JOB_MAX_PICTURES, .def = "1",                  \
     .help = "number of batches"},                                                                 \
    {"steps", CHECK_INT, CHECK_NULL, F(steps), 1, PICTURE_MAX_STEPS,                                \
     .help = "steps of the first stage"},                                                          \
    {"cfg_scale", CHECK_NUMBER, CHECK_NULL, F(cfg_scale), 0, 100,                                  \
     .help = "guidance scale of the first stage; 1 or less disables guidance"},                    \
    {"send_images", CHECK_BOOL, CHECK_NULL, F(send_images), .def = "true",                         \
     .help = "false omits the images from the response"},                                          \
    {"override_settings", CHECK_ANY, CHECK_IGNORED, 0,                                             \
     .help = "an object; sd_model_checkpoint selects one of several models, and the rest is "      \
             "ignored"},                                                                           \
    {"styles", CHECK_ANY, CHECK_IGNORED, 0, .help = "ignored"}
// clang-format on

static const struct check_field txt2img_table[] = {
    COMMON_ROWS,
    {"width", CHECK_INT, CHECK_NULL, F(width), 1, 65536, .def = "0",
     .help = "pixels, up to the model's largest size; defaults to height, or the largest size"},
    {"height", CHECK_INT, CHECK_NULL, F(height), 1, 65536, .def = "0", .help = "defaults to width"},
};

static const struct check_field img2img_table[] = {
    COMMON_ROWS,
    {"init_images", CHECK_FILE, CHECK_NULL, 0, .max = JOB_MAX_PICTURES,
     .help = "required: a list with the image to edit, a PNG, JPEG or WebP in base64 or as a data "
             "URL; more than one image is refused"},
    {"mask", CHECK_FILE, CHECK_NULL, 0, .max = 1,
     .help = "an image of the same size: what it shows white is repainted, and every other pixel "
             "remains as it is"},
    {"width", CHECK_INT, CHECK_NULL, F(width), 1, 65536, .def = "0",
     .help = "pixels; defaults to height, or the size of the image. Without effect where "
             "inpaint_full_res applies: then the result has the size of the image"},
    {"height", CHECK_INT, CHECK_NULL, F(height), 1, 65536, .def = "0", .help = "defaults to width"},
    {"denoising_strength", CHECK_NUMBER, CHECK_NULL, F(denoising_strength), 0, 1, .def = "0.75",
     .help = "how much of the image to change: the fraction of the first stage's steps that runs, "
             "at least one step"},
    {"resize_mode", CHECK_INT, CHECK_NULL, F(resize_mode), 0, A1111_LATENT, .def = "0",
     .help = "how the image is scaled to width and height: 0 stretches it, 1 crops it, 2 repeats "
             "its outermost pixels around it; 3 is replaced by 0"},
    {"mask_blur", CHECK_INT, CHECK_NULL, F(mask_blur), -1, PICTURE_MAX_FEATHER, .def = "-1",
     .help = "width in pixels of the blend inside the repainted region; defaults to 4"},
    {"mask_blur_x", CHECK_INT, CHECK_NULL, F(mask_blur_x), 0, PICTURE_MAX_FEATHER, .def = "4",
     .help = "the larger one of mask_blur_x and mask_blur_y replaces a missing mask_blur"},
    {"mask_blur_y", CHECK_INT, CHECK_NULL, F(mask_blur_y), 0, PICTURE_MAX_FEATHER, .def = "4",
     .help = "see mask_blur_x"},
    {"inpainting_mask_invert", CHECK_INT, CHECK_NULL, F(mask_invert), 0, 1, .def = "0",
     .help = "1 repaints what the mask shows black instead"},
    {"inpainting_fill", CHECK_INT, CHECK_NULL, F(fill), 0, 3, .def = "0",
     .help = "what the repainted region contains before noise is added: 0 the colors around it, 1 "
             "the image, 2 noise, 3 gray"},
    {"inpaint_full_res", CHECK_BOOL, CHECK_NULL, F(full_res), .def = "true",
     .help = "the model sees only a square around the mask, in its own resolution, instead of the "
             "whole image"},
    {"inpaint_full_res_padding", CHECK_INT, CHECK_NULL, F(padding), 0, PICTURE_MAX_PADDING,
     .def = "32", .help = "pixels around the mask in that square"},
    {"include_init_images", CHECK_BOOL, CHECK_NULL, F(include_init_images), .def = "false",
     .help = "true returns init_images and mask in parameters"},
};
#undef F

// Fields for which A1111 has its own name.
static const char *const without[] = {"sampler",  "guidance_scale", "size",
                                      "strength", "scale",          NULL};
const struct check_table a1111_txt2img_check = {
    CHECK_ROWS("TextToImageRequest", txt2img_table),   .lax = true,        .more = &picture_table,
    .more_at = offsetof(struct a1111_fields, picture), .without = without,
};
const struct check_table a1111_img2img_check = {
    CHECK_ROWS("ImageToImageRequest", img2img_table),  .lax = true,        .more = &picture_table,
    .more_at = offsetof(struct a1111_fields, picture), .without = without,
};

bool a1111_sampler_of(const struct call *c, const char *model, struct a1111_sampler *out)
{
    const struct app *app = c->app;
    const struct a1111_fields *f = c->fields;
    return a1111_sampler_find(jobs_model(app->jobs, model),
                              f->sampler && *f->sampler ? f->sampler : f->sampler_index,
                              f->scheduler, out);
}

// ---- the response -------------------------------------------------------------------------------

static void add_base64(struct buf *b, const struct blob *blob)
{
    buf_puts(b, "\"");
    text_base64(b, blob->data, blob->size);
    buf_puts(b, "\"");
}

// A1111 echoes the request, without its images unless include_init_images is set.
static void add_parameters(struct call *c, const struct job *j, struct blob *const file[2],
                           struct buf *b)
{
    const struct json_t *v;
    const char *key, *comma = "{";
    for (void *at = NULL; json_next(c->body, &at, &key, &v); comma = ",") {
        buf_puts(b, comma);
        text_json(b, key);
        buf_puts(b, ":");
        json_write(v, b);
    }
    for (int mask = 0; j->spec.request.edit && mask < 2; mask++, comma = ",") {
        const struct blob *blob = file ? file[mask] : NULL;
        buf_printf(b, "%s\"%s\":%s", comma, mask ? "mask" : "init_images",
                   !blob  ? "null"
                   : mask ? ""
                          : "[");
        if (blob)
            add_base64(b, blob);
        buf_puts(b, blob && !mask ? "]" : "");
    }
    buf_puts(b, *comma == '{' ? "{}" : "}");
}

// file: its input image and mask, for the response; NULL: without them.
static void reply(struct call *c, struct job *j, struct blob *const file[2])
{
    const struct app *app = c->app;
    const struct a1111_fields *f = c->fields;
    struct fault why = {0};
    struct buf b = {0};
    enum err e = ERR_OK;
    buf_puts(&b, "{\"images\":[");
    for (int i = 0; !e && f->send_images && i < j->spec.n; i++) {
        struct blob *blob = NULL;
        e = jobs_image(app->jobs, j, i, &blob, &why);
        buf_puts(&b, i ? "," : "");
        if (!e)
            add_base64(&b, blob);
        blob_unref(&blob);
    }
    if (e) {
        buf_deinit(&b);
        call_fault(c, &why, 1);
        return;
    }
    buf_puts(&b, "],\"parameters\":");
    add_parameters(c, j, file, &b);
    buf_puts(&b, ",\"info\":");
    a1111_add_info(&b, c, j);
    buf_puts(&b, "}");
    call_json(c, 200, &b);
}

// A response that waits for the files of its request.
struct echo {
    struct call *call;
    struct jobs_files *files;
};

static void on_gone(void *ctx)
{
    struct echo *e = ctx;
    jobs_files_forget(e->files);
    free(e);
}

static void on_files(void *ctx, struct job *job, struct blob *const file[2],
                     const struct fault *why)
{
    struct echo *e = ctx;
    struct call *c = e->call;
    free(e);
    http_defer(c->http, NULL, NULL);
    if (why)
        call_fault(c, why, 1);
    else
        reply(c, job, file);
}

static void reply_images(struct call *c, struct job *const *jobs, int n)
{
    const struct app *app = c->app;
    const struct a1111_fields *f = c->fields;
    struct fault why = {0};
    if (!f->include_init_images || !jobs[0]->spec.request.edit) {
        reply(c, jobs[0], NULL);
        return;
    }
    struct echo *e = calloc(1, sizeof *e);
    if (!e || jobs_input_files(app->jobs, jobs[0], on_files, e, &e->files, &why)) {
        free(e);
        call_error(c, 500, NULL, NULL, "%s", err_text(ERR_NO_MEMORY));
        return;
    }
    e->call = c;
    http_defer(c->http, on_gone, e);
}

// ---- requests -----------------------------------------------------------------------------------

// Fills the job spec with the settings that both requests share. On error responds and returns
// false. Owner: the caller frees *prompt, which the spec may use, in any case.
static bool prepare(struct call *c, struct job_spec *spec, char **prompt)
{
    const struct a1111_fields *f = c->fields;
    struct a1111_sampler sampler;
    struct fault why = {0};
    const char *model;
    *prompt = NULL;
    if (f->batch_size * f->n_iter > JOB_MAX_PICTURES) {
        call_error(
            c, 422, NULL, NULL,
            "\"batch_size\" times \"n_iter\" is %d; this server generates at most %d images per "
            "request",
            f->batch_size * f->n_iter, JOB_MAX_PICTURES);
        return false;
    }
    if (!a1111_find_model(c, &model))
        return false;
    if (!a1111_sampler_of(c, model, &sampler)) {
        call_error(c, 404, NULL, NULL, "Sampler not found");
        return false;
    }
    *spec = (struct job_spec){.request = f->picture,
                              .model = model,
                              .n = f->batch_size * f->n_iter,
                              .api = "a1111",
                              .client = http_client(c->http),
                              .previews = 8,
                              .preview_format = JOB_PNG};
    spec->request.size.width = f->width ? f->width : f->height;
    spec->request.size.height = f->height ? f->height : f->width;
    spec->request.sampler = sampler.engine;
    spec->request.steps[0] = f->steps;
    // 0 disables guidance in A1111, but means unset to the engine.
    spec->request.guidance_scale[0] =
        f->cfg_scale < 1 && json_given(c->body, "cfg_scale") ? 1 : f->cfg_scale;
    if (picture_take_tags(f->picture.prompt, prompt, &spec->request.loras, &why)) {
        call_fault(c, &why, 1);
        return false;
    }
    if (*prompt)
        spec->request.prompt = *prompt;
    return true;
}

static void wait_images(struct call *c, struct job *job)
{
    a1111_wait(c, job, reply_images);
}

void a1111_txt2img_post(struct call *c)
{
    struct job_spec spec;
    char *prompt;
    if (prepare(c, &spec, &prompt))
        asking_submit(c, &spec, wait_images);
    free(prompt);
}

// The steps of the first stage; 0 if they are not known here.
static int steps_of(const struct model_info *m, const struct picture_request *r)
{
    if (r->steps[0] || !m || r->timesteps)
        return r->steps[0];
    for (int i = 0; r->preset && i < m->presets; i++)
        if (!strcmp(m->preset[i].name, r->preset))
            return m->preset[i].steps[0];
    return m->stage[0].steps;
}

// A1111 always runs at least one step.
static float strength_of(float strength, int steps)
{
    return steps && (double)strength * steps < 1 ? (float)(ceil(1e6 / steps) / 1e6) : strength;
}

static struct job_input input_of(const struct a1111_fields *f, bool masked)
{
    static const enum picture_fit fits[] = {PICTURE_FIT_STRETCH, PICTURE_FIT_CROP, PICTURE_FIT_PAD,
                                            PICTURE_FIT_STRETCH};
    static const enum picture_fill fills[] = {PICTURE_FILL_AROUND, PICTURE_FILL_IMAGE,
                                              PICTURE_FILL_NOISE, PICTURE_FILL_GRAY};
    const int both = f->mask_blur_x > f->mask_blur_y ? f->mask_blur_x : f->mask_blur_y;
    return (struct job_input){
        .mask_kind = PICTURE_MASK_LIGHT,
        .mask_invert = f->mask_invert,
        .feather = f->mask_blur >= 0 ? f->mask_blur : both,
        .options = {.fit = fits[f->resize_mode],
                    .fill = fills[f->fill],
                    .opaque = true,
                    .zoom = masked && f->full_res,
                    .padding = f->padding},
    };
}

// Clients send "" for no mask, or an empty list for no image.
static bool has_image(const struct call *c, const char *name)
{
    const struct json_t *v = json_find(c->body, name);
    const char *text = json_text(v, NULL);
    return json_given(c->body, name) && (!text || *text) &&
           (json_kind(v) != JSON_LIST || json_count(v));
}

void a1111_img2img_post(struct call *c)
{
    const struct app *app = c->app;
    const struct a1111_fields *f = c->fields;
    struct a1111_image image = {0}, mask = {0};
    struct job_spec spec;
    char *prompt;
    if (!has_image(c, "init_images")) {
        call_error(c, 404, NULL, NULL, "Init image not found");
        return;
    }
    if (!prepare(c, &spec, &prompt)) {
        free(prompt);
        return;
    }
    const bool masked = has_image(c, "mask");
    const bool good = a1111_take_image(c, "init_images", NULL, &image) &&
                      (!masked || a1111_take_image(c, "mask", NULL, &mask));
    struct input in = {image.file, mask.file};
    if (!good) {
        input_deinit(&in);
        free(prompt);
        return;
    }
    json_remove(c->body, "mask");
    spec.input = input_of(f, masked);
    if (spec.input.options.zoom)
        spec.request.size = (struct check_size){0, 0};
    spec.request.strength[0] = strength_of(
        f->denoising_strength, steps_of(jobs_model(app->jobs, spec.model), &spec.request));
    input_submit(c, &spec, &in, wait_images);
    free(prompt);
}
