// "info" of A1111's responses: the settings of an image under A1111's keys, and the settings that
// were replaced. Called by a1111_draw.c. Loop thread.
#include "a1111.h"

#include "buf.h"
#include "text.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

enum { MAX_EXTRAS = 8 };

// Additional settings for the infotext and "extra_generation_params".
struct extras {
    struct a1111_sampler asked; // what the request named
    int n;
    struct {
        const char *key;
        char value[72];
    } extra[MAX_EXTRAS];
};

static void add_extra(struct extras *all, const char *key, const char *value)
{
    all->extra[all->n].key = key;
    snprintf(all->extra[all->n++].value, sizeof all->extra[0].value, "%s", value);
}

static void add_number(struct extras *all, const char *key, int value)
{
    char text[16];
    snprintf(text, sizeof text, "%d", value);
    add_extra(all, key, text);
}

// Source: A1111's StableDiffusionProcessingImg2Img.init.
static void add_mask(struct extras *all, const struct a1111_fields *f, const struct job *j)
{
    static const char *const fills[] = {"fill", "original", "latent noise", "latent nothing"};
    const struct job_input *in = &j->spec.input;
    if (!in->masked)
        return;
    add_number(all, "Mask blur", in->feather);
    if (in->mask_invert)
        add_extra(all, "Mask mode", "Inpaint not masked");
    if (f->fill != 1)
        add_extra(all, "Masked content", fills[f->fill]);
    if (in->options.zoom) {
        add_extra(all, "Inpaint area", "Only masked");
        add_number(all, "Masked area padding", in->options.padding);
    }
}

static void find_extras(const struct call *c, const struct job *j, struct extras *out)
{
    *out = (struct extras){0};
    (void)a1111_sampler_of(c, j->spec.model,
                           &out->asked); // it was checked when the request arrived
    if (out->asked.missing_sampler)
        add_extra(out, "Requested sampler", out->asked.missing_sampler);
    if (out->asked.missing_scheduler)
        add_extra(out, "Requested schedule type", out->asked.missing_scheduler);
    add_mask(out, c->fields, j);
}

static void add_infotext(struct buf *b, const struct job *j, int picture,
                         const struct extras *extras)
{
    const struct picture_request r = picture_at(&j->spec.request, picture);
    const char *scheduler, *sampler = a1111_sampler_label(j->used.sampler, &scheduler);
    char name[128];
    snprintf(name, sizeof name, "%s%s%s", sampler, scheduler ? ", Schedule type: " : "",
             scheduler ? scheduler : "");
    picture_infotext(b, &r, &j->used, name);
    for (int i = 0; i < extras->n; i++) {
        const char *value = extras->extra[i].value;
        buf_printf(b, ", %s: ", extras->extra[i].key);
        // As A1111 quotes.
        if (strpbrk(value, ",\n:\""))
            text_json(b, value);
        else
            buf_puts(b, value);
    }
}

// ---- comments -----------------------------------------------------------------------------------

static void comment(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void comment(struct buf *b, const char *fmt, ...)
{
    va_list ap;
    buf_puts(b, b->len ? " " : "");
    va_start(ap, fmt);
    buf_vprintf(b, fmt, ap);
    va_end(ap);
}

static void comment_on_edit(struct buf *b, const struct a1111_fields *f, const struct job *j)
{
    const struct picture_request *r = &j->spec.request;
    if (r->strength[0] > f->denoising_strength)
        comment(b, "A denoising strength of %g is less than one step; one step was run.",
                (double)f->denoising_strength);
    if (f->resize_mode == A1111_LATENT)
        comment(b, "Resize mode 3 is not available; the image was resized as with mode 0.");
    if (j->spec.input.masked && f->mask_blur < 0 && f->mask_blur_x != f->mask_blur_y)
        comment(b, "A mask is blurred in all directions alike; mask_blur is %d.",
                j->spec.input.feather);
}

// Settings that were requested but are not available.
static void add_missing(struct buf *b, const struct call *c, const struct job *j,
                        const struct extras *extras)
{
    const char *scheduler, *sampler = a1111_sampler_label(j->used.sampler, &scheduler);
    const struct a1111_sampler *asked = &extras->asked;
    struct buf comments = {0};
    char warning[PICTURE_WARNING];
    buf_puts(b, ",\"extra_generation_params\":{");
    for (int i = 0; i < extras->n; i++) {
        buf_printf(b, "%s\"%s\":", i ? "," : "", extras->extra[i].key);
        text_json(b, extras->extra[i].value);
    }
    if (asked->missing_sampler)
        comment(&comments,
                "The sampler %s is not available; the image was generated with the model's own "
                "sampler, %s.",
                asked->missing_sampler, sampler);
    if (asked->missing_scheduler)
        comment(&comments, "The scheduler %s is not available with the sampler %s.",
                asked->missing_scheduler, sampler);
    if (j->spec.request.edit)
        comment_on_edit(&comments, c->fields, j);
    for (int i = 0; picture_warning(&j->used, i, warning); i++)
        comment(&comments, "%c%s.", toupper((unsigned char)*warning), warning + 1);
    buf_puts(b, "},\"comments\":");
    text_json(b, comments.data ? comments.data : "");
    buf_deinit(&comments);
}

// ---- the whole ----------------------------------------------------------------------------------

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
    buf_printf(b,
               "],\"seed_resize_from_w\":-1,\"seed_resize_from_h\":-1,\"restore_faces\":false,"
               "\"face_restoration_model\":null,\"denoising_strength\":%.6g,\"clip_skip\":1,"
               "\"is_using_inpainting_conditioning\":false,\"index_of_first_image\":0,"
               "\"styles\":[],\"job_timestamp\":\"0\",\"sd_model_hash\":\"\",\"sd_vae_name\":null,"
               "\"sd_vae_hash\":null",
               (double)j->used.strength[0]);
}

void a1111_add_info(struct buf *out, const struct call *c, const struct job *j)
{
    const char *scheduler;
    struct extras extras;
    struct buf b = {0};
    find_extras(c, j, &extras);
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
    add_missing(&b, c, j, &extras);
    buf_puts(&b, ",\"sd_model_name\":");
    text_json(&b, j->used.model);
    add_constants(&b, j);
    buf_puts(&b, ",\"infotexts\":[");
    for (int i = 0; i < j->spec.n; i++) {
        struct buf text = {0};
        add_infotext(&text, j, i, &extras);
        buf_puts(&b, i ? "," : "");
        text_json(&b, text.data);
        buf_deinit(&text);
    }
    buf_puts(&b, "]}");
    text_json(out, b.data);
    out->failed |= b.failed;
    buf_deinit(&b);
}
