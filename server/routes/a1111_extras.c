// A1111's extra-single-image and extra-batch-images, which enlarge images with the model's
// super-resolution stages, and png-info, which reads their metadata. Called through the route table
// in a1111.c. Loop thread.
#include "a1111.h"

#include "buf.h"
#include "http.h"
#include "json.h"
#include "text.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

const char a1111_upscaler[] = "Super-resolution";

enum { SCALE_BY, SCALE_TO, MAX_EDGE = 16384 };

// Common upscalers of A1111. Requests may name them; the model's own replaces them.
static const char *const replaced[] = {
    "Lanczos",
    "Nearest",
    "4x-AnimeSharp",
    "4x-UltraSharp",
    "4x_NMKD-Siax_200k",
    "4x_foolhardy_Remacri",
    "BSRGAN",
    "DAT x2",
    "DAT x3",
    "DAT x4",
    "ESRGAN",
    "ESRGAN_4x",
    "LDSR",
    "R-ESRGAN 2x+",
    "R-ESRGAN 4x+",
    "R-ESRGAN 4x+ Anime6B",
    "R-ESRGAN AnimeVideo",
    "R-ESRGAN General 4xV3",
    "R-ESRGAN General WDN 4xV3",
    "RealESRGAN_x4plus",
    "RealESRGAN_x4plus_anime_6B",
    "ScuNET",
    "ScuNET GAN",
    "ScuNET PSNR",
    "SwinIR 4x",
    "SwinIR_4x",
};

#define F(field) offsetof(struct a1111_extras_fields, field)
// clang-format off
#define COMMON_ROWS                                                                                \
    {"resize_mode", CHECK_INT, CHECK_NULL, F(resize_mode), 0, SCALE_TO, .def = "0",                \
     .help = "0 enlarges by upscaling_resize, 1 to upscaling_resize_w x upscaling_resize_h"},      \
    {"upscaling_resize", CHECK_NUMBER, CHECK_NULL, F(factor), 0, MAX_EDGE, .def = "2",             \
     .help = "factor from 0.01 to the model's largest; the image is enlarged by the model's next " \
             "larger factor and scaled down"},                                                     \
    {"upscaling_resize_w", CHECK_INT, CHECK_NULL, F(width), 1, MAX_EDGE, .def = "512",             \
     .help = "width of the result"},                                                               \
    {"upscaling_resize_h", CHECK_INT, CHECK_NULL, F(height), 1, MAX_EDGE, .def = "512",            \
     .help = "height of the result"},                                                              \
    {"upscaling_crop", CHECK_BOOL, CHECK_NULL, F(crop), .def = "true",                             \
     .help = "crop the result to that size; false: as small as its shape allows, not smaller"},    \
    {"upscaler_1", CHECK_TEXT, CHECK_NULL, F(upscaler), 0, 200,                                    \
     .help = "Super-resolution, which also replaces the upscalers of A1111; None is refused"},     \
    {"upscaler_2", CHECK_TEXT, CHECK_NULL, F(upscaler_2), 0, 200, .help = "ignored"},              \
    {"extras_upscaler_2_visibility", CHECK_NUMBER, CHECK_NULL, F(visibility_2), 0, 1,              \
     .def = "0", .help = "ignored"},                                                               \
    {"gfpgan_visibility", CHECK_NUMBER, CHECK_NULL, F(gfpgan), 0, 1, .def = "0",                   \
     .help = "ignored"},                                                                           \
    {"codeformer_visibility", CHECK_NUMBER, CHECK_NULL, F(codeformer), 0, 1, .def = "0",           \
     .help = "ignored"}
// clang-format on
static const struct check_field single_table[] = {
    COMMON_ROWS,
    {"image", CHECK_FILE, CHECK_NULL, 0, .max = 1,
     .help = "required: a PNG, JPEG or WebP in base64 or as a data URL"},
};
static const struct check_field batch_table[] = {
    COMMON_ROWS,
    {"imageList", CHECK_FILE, CHECK_REQUIRED, 0, 1, JOB_MAX_PICTURES,
     .help = "a list of objects, each with the image in \"data\""},
};
#undef F
const struct check_table a1111_extra_single_check =
    CHECK_TABLE_LAX("ExtrasSingleImageRequest", single_table);
const struct check_table a1111_extra_batch_check =
    CHECK_TABLE_LAX("ExtrasBatchImagesRequest", batch_table);

static const struct check_field png_info_table[] = {
    {"image", CHECK_FILE, CHECK_NULL, 0, .max = 1,
     .help = "required: a PNG, JPEG or WebP in base64 or as a data URL"},
};
const struct check_table a1111_png_info_check = CHECK_TABLE_LAX("PNGInfoRequest", png_info_table);

// ---- the response -------------------------------------------------------------------------------

static void add_html(struct buf *b, const char *text)
{
    for (; *text; text++)
        switch (*text) {
        case '&': buf_puts(b, "&amp;"); break;
        case '<': buf_puts(b, "&lt;"); break;
        case '>': buf_puts(b, "&gt;"); break;
        default: buf_putc(b, *text);
        }
}

static bool is_own(const char *upscaler)
{
    return !upscaler || !*upscaler || !strcasecmp(upscaler, a1111_upscaler);
}

// Describes the enlargement, and lists settings that are not available.
static void add_html_info(struct buf *out, const struct a1111_extras_fields *f)
{
    struct buf b = {0};
    buf_puts(&b, "<p>");
    if (f->resize_mode == SCALE_TO)
        buf_printf(&b, "Postprocess upscale to: %dx%d", f->width, f->height);
    else
        buf_printf(&b, "Postprocess upscale by: %.6g", (double)f->factor);
    buf_printf(&b, ", Postprocess upscaler: %s</p>", a1111_upscaler);
    if (!is_own(f->upscaler)) {
        buf_puts(&b, "<p>The upscaler ");
        add_html(&b, f->upscaler);
        buf_puts(&b, " is not available; the model's own super-resolution replaced it.</p>");
    }
    if (f->visibility_2 > 0)
        buf_puts(&b, "<p>A second upscaler is not available.</p>");
    if (f->gfpgan > 0 || f->codeformer > 0)
        buf_puts(&b, "<p>Face restoration is not available.</p>");
    text_json(out, b.data ? b.data : "");
    out->failed |= b.failed;
    buf_deinit(&b);
}

static void reply(struct call *c, struct job *const *jobs, int n, bool list)
{
    const struct app *app = c->app;
    struct fault why = {0};
    struct buf b = {0};
    enum err e = ERR_OK;
    buf_puts(&b, "{\"html_info\":");
    add_html_info(&b, c->fields);
    buf_puts(&b, list ? ",\"images\":[" : ",\"image\":");
    for (int i = 0; !e && i < n; i++) {
        struct blob *blob = NULL;
        e = jobs_image(app->jobs, jobs[i], 0, &blob, &why);
        buf_puts(&b, i ? ",\"" : "\"");
        if (!e)
            text_base64(&b, blob->data, blob->size);
        buf_puts(&b, "\"");
        blob_unref(&blob);
    }
    buf_puts(&b, list ? "]}" : "}");
    if (!e) {
        call_json(c, 200, &b);
        return;
    }
    buf_deinit(&b);
    call_fault(c, &why, 1);
}

static void reply_single(struct call *c, struct job *const *jobs, int n)
{
    reply(c, jobs, n, false);
}

static void reply_batch(struct call *c, struct job *const *jobs, int n)
{
    reply(c, jobs, n, true);
}

// ---- requests -----------------------------------------------------------------------------------

static bool check_upscaler(struct call *c)
{
    const struct a1111_extras_fields *f = c->fields;
    if (is_own(f->upscaler))
        return true;
    for (size_t i = 0; i < sizeof replaced / sizeof *replaced; i++)
        if (!strcasecmp(replaced[i], f->upscaler))
            return true;
    if (!strcasecmp(f->upscaler, "None"))
        call_error(c, 422, NULL, NULL, "\"upscaler_1\": None would not enlarge the image; use %s",
                   a1111_upscaler);
    else
        call_error(c, 404, NULL, NULL, "could not find upscaler named %.60s; use %s", f->upscaler,
                   a1111_upscaler);
    return false;
}

// The requested size of an axis of n pixels.
static int along(int n, double factor)
{
    const double v = floor(n * factor + 0.5);
    return v < 1 ? 1 : v > MAX_EDGE ? MAX_EDGE : (int)v;
}

// Chooses the model's smallest factor that reaches the requested size; the result is scaled down or
// cropped to it. On error responds and returns false.
static bool choose(struct call *c, const struct check_size *own, struct job_spec *spec)
{
    struct picture_request *r = &spec->request;
    const struct app *app = c->app;
    const struct a1111_extras_fields *f = c->fields;
    const struct model_info *m = jobs_model(app->jobs, spec->model);
    const double x = (double)f->width / own->width, y = (double)f->height / own->height;
    const bool to = f->resize_mode == SCALE_TO;
    const double factor = !to ? (double)f->factor : x > y ? x : y;
    const double least = (double)0.01F; // as the field has it
    const int largest = m ? m->scale[m->scale[1] != 0] : 0;
    r->size = (struct check_size){along(own->width, factor), along(own->height, factor)};
    if (to && f->crop)
        r->size = (struct check_size){f->width, f->height};
    r->scale = m && m->scale[0] ? m->scale[0] : 4; // without one, the job core says why not
    if (factor > r->scale && largest)
        r->scale = largest;
    if (!to && (factor < least || (largest && factor > largest)))
        call_error(c, 422, NULL, NULL,
                   "\"upscaling_resize\" must be a number from %g to %d, this model's largest "
                   "factor, not %.6g",
                   least, largest ? largest : r->scale, factor);
    else if (largest && factor > largest)
        call_error(
            c, 422, NULL, NULL,
            "\"upscaling_resize_w\" and \"upscaling_resize_h\": this model enlarges an image "
            "at most %d times, not %.4g times",
            largest, factor);
    else
        return true;
    return false;
}

// Takes ownership of the images.
static void upscale(struct call *c, struct a1111_image *images, int n, a1111_done_fn *done)
{
    struct job_spec specs[JOB_MAX_PICTURES] = {{.n = 0}};
    const char *model;
    bool good = a1111_find_model(c, &model);
    for (int i = 0; good && i < n; i++) {
        specs[i] = (struct job_spec){.request = {.prompt = ""},
                                     .model = model,
                                     .input = {.options.opaque = true},
                                     .n = 1,
                                     .api = "a1111",
                                     .owner = c->owner,
                                     .client = http_client(c->http),
                                     .request_id = http_id(c->http),
                                     .previews = 8,
                                     .preview_format = JOB_PNG};
        good = choose(c, &images[i].size, &specs[i]);
    }
    if (good)
        a1111_submit_all(c, specs, images, n, done);
    for (int i = 0; i < n; i++)
        blob_unref(&images[i].file.blob);
}

// Takes an image that the request contains. On error responds and returns false.
static bool take(struct call *c, const char *name, const struct json_t *v, struct a1111_image *out)
{
    if (!v && !json_given(c->body, name)) {
        call_error(c, 422, NULL, NULL, "\"%s\" is required", name);
        return false;
    }
    if (!a1111_take_image(c, name, v, out))
        return false;
    if (!out->file.blob)
        call_error(c, 422, NULL, NULL, "%s\"%s\" must be base64 or a data URL", out->which, name);
    return out->file.blob;
}

// Takes image i of a list; errors say which one they are about.
static bool take_listed(struct call *c, const struct json_t *list, int i, struct a1111_image *out)
{
    const struct json_t *item = json_item(list, (size_t)i), *v = json_find(item, "data");
    const char *name = json_text(json_find(item, "name"), NULL);
    const int n = snprintf(out->which, sizeof out->which, "image %d of \"imageList\"", i);
    if (name && *name)
        snprintf(out->which + n, sizeof out->which - (size_t)n, " (%.60s): ", name);
    else
        snprintf(out->which + n, sizeof out->which - (size_t)n, ": ");
    if (v)
        return take(c, "imageList", v, out);
    call_error(c, 422, NULL, NULL, "%s\"data\" is missing", out->which);
    return false;
}

void a1111_extra_single_post(struct call *c)
{
    struct a1111_image image = {0};
    if (check_upscaler(c) && take(c, "image", NULL, &image))
        upscale(c, &image, 1, reply_single);
    else
        blob_unref(&image.file.blob);
}

void a1111_extra_batch_post(struct call *c)
{
    const struct json_t *list = json_find(c->body, "imageList");
    struct a1111_image images[JOB_MAX_PICTURES] = {0};
    const int n = (int)json_count(list);
    bool good = check_upscaler(c);
    if (good && json_kind(list) != JSON_LIST) {
        call_error(c, 422, NULL, NULL, "\"imageList\" must be a list of objects with \"data\"");
        return;
    }
    for (int i = 0; good && i < n; i++)
        good = take_listed(c, list, i, &images[i]);
    json_remove(c->body, "imageList");
    if (good)
        upscale(c, images, n, reply_batch);
    for (int i = 0; !good && i < n; i++)
        blob_unref(&images[i].file.blob);
}

// ---- metadata -----------------------------------------------------------------------------------

void a1111_png_info_post(struct call *c)
{
    struct input_file image = {0};
    struct fault why = {0};
    struct buf b = {0};
    if (!json_given(c->body, "image")) {
        call_error(c, 422, NULL, NULL, "\"image\" is required");
        return;
    }
    // The size does not matter, so it is not measured.
    enum err e = input_take(c, "image", &image, &why);
    if (!e && !image.blob)
        e = fault_set(&why, ERR_INVALID, "image", "\"image\" must be base64 or a data URL");
    buf_puts(&b, "{");
    if (!e)
        e = picture_file_info(image.blob->data, image.blob->size, &b, &why);
    buf_puts(&b, "}");
    blob_unref(&image.blob);
    if (!e) {
        call_json(c, 200, &b);
        return;
    }
    buf_deinit(&b);
    if (e == ERR_INVALID)
        call_error(c, 422, NULL, NULL, "Invalid encoded image: %s", why.msg);
    else
        call_fault(c, &why, 1);
}
