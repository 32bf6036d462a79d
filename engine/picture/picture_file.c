// Encodes an image as a file with its settings in the metadata: a text chunk per field, and A1111's
// infotext, which other tools read. Called by the command line and by the server's thread pool.
#include "picture.h"

#include "buf.h"
#include "codec.h"
#include "picture_edit.h"
#include "picture_resize.h"
#include "program.h"

#include <stdlib.h>
#include <string.h>

// The fields that A1111's own tools expect first, in their order; the tables' other labels follow.
static const char *const head[] = {"steps", "sampler", "guidance_scale", "seed", NULL};

static bool is_head(const char *name)
{
    for (int i = 0; head[i]; i++)
        if (!strcmp(head[i], name))
            return true;
    return false;
}

// Adds a field of the head; a list's value is that of the first stage that ran.
static void add_head(struct buf *b, const struct check_field *f, const struct picture_request *r,
                     const struct picture_used *u)
{
    const void *at;
    const struct check_field *value = picture_value(f, r, u, &at);
    if (f->type == CHECK_INTS)
        at = (const int *)at + u->first;
    else if (f->type == CHECK_NUMBERS)
        at = (const float *)at + u->first;
    check_write_text(value, at, 1, b);
}

// The factor of the longest enlarged side, which is less than the model's if the result was scaled
// down.
static double factor_of(const struct picture_used *u)
{
    const double x = (double)u->size.width / u->drawn.width;
    const double y = (double)u->size.height / u->drawn.height;
    return u->scale * (x > y ? x : y);
}

// Adds the complete lists; the head holds only the value of the first stage.
static void add_stages(struct buf *b, const struct picture_request *r, const struct picture_used *u)
{
    const struct check_field *f;
    for (int row = 0; u->stages > 1 && (f = check_next(&picture_table, &row, NULL));) {
        if (!f->label || (f->type != CHECK_INTS && f->type != CHECK_NUMBERS))
            continue;
        const void *at;
        const struct check_field *value = picture_value(f, r, u, &at);
        if (!check_has_value(value, at, u->stages))
            continue;
        // "CFG scale" keeps its capitals.
        const bool upper = f->label[1] >= 'A' && f->label[1] <= 'Z';
        buf_printf(b, ", Stage %c%s: \"", upper ? f->label[0] : f->label[0] - 'A' + 'a',
                   f->label + 1);
        check_write_text(value, at, u->stages, b);
        buf_puts(b, "\"");
    }
}

void picture_infotext(struct buf *b, const struct picture_request *r, const struct picture_used *u,
                      const char *sampler)
{
    const struct check_field *f;
    const char *comma = "\n";
    buf_puts(b, r->prompt);
    if (r->negative_prompt && *r->negative_prompt)
        buf_printf(b, "\nNegative prompt: %s", r->negative_prompt);
    for (int i = 0; head[i]; i++) {
        const bool is_sampler = !strcmp(head[i], "sampler");
        if (is_sampler && !*u->sampler)
            continue;
        f = check_find(&picture_table, head[i], NULL);
        buf_printf(b, "%s%s: ", comma, f->label);
        comma = ", ";
        if (sampler && is_sampler)
            buf_puts(b, sampler);
        else
            add_head(b, f, r, u);
    }
    buf_printf(b, ", Size: %dx%d, Model: %s", u->size.width, u->size.height, u->model);
    add_stages(b, r, u);
    for (int row = 0; (f = check_next(&picture_table, &row, NULL));) {
        const void *at;
        const struct check_field *value = picture_value(f, r, u, &at);
        const bool zero = f->type == CHECK_INT && !*(const int *)at;
        if (!f->label || is_head(f->name) || zero || !check_has_value(value, at, u->stages))
            continue;
        buf_printf(b, ", %s: ", f->label);
        if (u->scale && !strcmp(f->name, "scale"))
            buf_printf(b, "%.4g", factor_of(u));
        else
            check_write_text(value, at, 1, b);
    }
    if (u->drawn.width != u->size.width || u->drawn.height != u->size.height)
        buf_printf(b, ", Drawn size: %dx%d", u->drawn.width, u->drawn.height);
    if (*u->loras)
        buf_printf(b, ", Loras: \"%s\"", u->loras);
    if (*u->modules)
        buf_printf(b, ", Modules: \"%s\"", u->modules);
    buf_printf(b, ", Version: imagend %s", program_version);
}

struct chunks {
    int count;
    bool failed;
    struct codec_text text[CODEC_MAX_TEXTS];
    struct buf value[CODEC_MAX_TEXTS];
};

// Starts a chunk and returns the buffer for its value.
static struct buf *chunk_begin(struct chunks *c, const char *key)
{
    c->text[c->count].key = key;
    return &c->value[c->count];
}

// Ends the chunk; drops it if its value is empty, unless an empty value has a meaning.
static void chunk_end(struct chunks *c, bool even_empty)
{
    struct buf *b = &c->value[c->count];
    if (!b->len && !even_empty)
        return;
    c->failed |= b->failed;
    c->text[c->count++].value = b->data ? b->data : "";
}

static void fill_chunks(struct chunks *c, const struct picture_request *r,
                        const struct picture_used *u)
{
    const struct check_field *f;
    const void *at;
    for (int row = 0; (f = check_next(&picture_table, &row, NULL));) {
        const struct check_field *value = picture_value(f, r, u, &at);
        if (f->flags & CHECK_HIDDEN)
            continue;
        struct buf *b = chunk_begin(c, f->key ? f->key : f->name);
        check_write_text(value, at, u->stages, b);
        chunk_end(c, f->flags & CHECK_REQUIRED);
    }
    for (int row = 0; (f = check_next(&picture_used_table, &row, NULL));) {
        const void *value = (const char *)u + f->offset;
        if (!f->key || (f->type == CHECK_INT && !*(const int *)value))
            continue;
        check_write_text(f, value, u->stages, chunk_begin(c, f->key));
        chunk_end(c, false);
    }
    buf_printf(chunk_begin(c, "Software"), "imagend %s", program_version);
    chunk_end(c, false);
    picture_infotext(chunk_begin(c, "parameters"), r, u, NULL);
    chunk_end(c, false);
}

static enum err encode_png(struct codec_params *p, const struct picture_request *r,
                           const struct picture_used *u, struct buf *out, struct fault *why)
{
    struct chunks c = {0};
    enum err e;
    fill_chunks(&c, r, u);
    p->text = c.text;
    p->texts = c.count;
    e = c.failed ? fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY))
                 : codec_encode(p, out, why);
    for (int i = 0; i < CODEC_MAX_TEXTS; i++)
        buf_deinit(&c.value[i]);
    return e;
}

void picture_xmp(struct buf *b, const struct picture_request *r)
{
    buf_printf(
        b,
        "<?xpacket begin=\"\xef\xbb\xbf\" id=\"W5M0MpCehiHzreSzNTczkc9d\"?>\n"
        "<x:xmpmeta xmlns:x=\"adobe:ns:meta/\">\n"
        "<rdf:RDF xmlns:rdf=\"http://www.w3.org/1999/02/22-rdf-syntax-ns#\">\n"
        "<rdf:Description rdf:about=\"\" xmlns:xmp=\"http://ns.adobe.com/xap/1.0/\"\n"
        " xmlns:Iptc4xmpExt=\"http://iptc.org/std/Iptc4xmpExt/2008-02-29/\"\n"
        " xmp:CreatorTool=\"imagend %s\"\n"
        " Iptc4xmpExt:DigitalSourceType=\"http://cv.iptc.org/newscodes/digitalsourcetype/%s\"/>\n"
        "</rdf:RDF>\n</x:xmpmeta>\n<?xpacket end=\"w\"?>",
        program_version,
        r->edit ? "compositeWithTrainedAlgorithmicMedia" : "trainedAlgorithmicMedia");
}

struct check_size picture_file_size(const struct picture_used *u, int width, int height,
                                    bool composed)
{
    const bool whole = width == u->drawn.width && height == u->drawn.height;

    if (u->scale)
        return whole ? u->size : (struct check_size){width, height};
    return composed ? u->size : picture_fit_size(u, &(struct check_size){width, height});
}

// Computes the pixels to encode; *out is NULL if they are p's own.
static enum err fit(const struct codec_params *p, const struct picture_request *r,
                    const struct picture_used *u, struct check_size *size, uint8_t **out)
{
    const struct check_size from = {p->width, p->height};
    const bool compose = r->edit && r->edit->drawn && !u->scale && p->width == u->drawn.width &&
                         p->height == u->drawn.height;
    enum err e = ERR_OK;

    *out = NULL;
    *size = picture_file_size(u, p->width, p->height, compose);
    if (!compose && size->width == p->width && size->height == p->height)
        return ERR_OK;
    *out = malloc((size_t)size->width * (size_t)size->height * 3);
    if (!*out)
        return ERR_NO_MEMORY;
    const struct picture_box b = picture_edit_middle(p->width, p->height, size);
    if (compose)
        e = picture_edit_compose(r->edit, p->rgb, &from, *out);
    else if (u->scale)
        e = picture_resize(p->rgb, p->width, p->height, 3, &b, size->width, size->height, *out);
    else
        picture_fit(p->rgb, &from, size, *out);
    return e;
}

enum err picture_encode(const struct codec_params *p, const struct picture_request *r,
                        const struct picture_used *u, struct buf *out, struct fault *why)
{
    struct codec_params fitted = *p;
    struct check_size size;
    struct buf infotext = {0};
    uint8_t *rgb = NULL;
    enum err e;
    if (!r->prompt || !p->rgb || p->width < 1 || u->stages < 1 || u->stages > PICTURE_MAX_STAGES ||
        u->size.width < 1 || u->size.height < 1)
        return fault_set(why, ERR_INVALID, "",
                         "the image, its prompt, its stages or its size is missing");
    e = fit(p, r, u, &size, &rgb);
    if (e) {
        free(rgb);
        return fault_set(why, e, "", "%s", err_text(e));
    }
    fitted.width = size.width;
    fitted.height = size.height;
    fitted.rgb = rgb ? rgb : p->rgb;
    if (p->format != CODEC_PNG)
        picture_infotext(&infotext, r, u, NULL);
    fitted.comment = infotext.len ? infotext.data : NULL;
    if (infotext.failed)
        e = fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    else
        e = p->format == CODEC_PNG ? encode_png(&fitted, r, u, out, why)
                                   : codec_encode(&fitted, out, why);
    buf_deinit(&infotext);
    free(rgb);
    return e;
}
