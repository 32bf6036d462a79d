// engine_png: a picture as a PNG in memory, with what it was made from in its text chunks. Called
// by the program and by the server's thread pool; knows the facade's structs and libpng, no more.
#include "buf.h"
#include "engine.h"
#include "utf8.h"

#include <inttypes.h>
#include <png.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_CHUNKS = 16, MAX_EDGE = 1 << 16 };

// zlib's level. Measured on a smooth 1024 x 1024 picture with grain: 6 takes seven times as long
// for 8 % fewer bytes.
enum { COMPRESSION = 3 };

struct chunks {
    int count;
    png_text text[MAX_CHUNKS];
};

// tEXt holds Latin-1 only, so whatever is not ASCII becomes an iTXt chunk.
static void add(struct chunks *c, const char *key, const char *value)
{
    bool ascii = true;
    for (const char *s = value; *s; s++)
        ascii &= (unsigned char)*s < 0x80;
    png_text *t = &c->text[c->count++];
    memset(t, 0, sizeof *t);
    t->compression = ascii ? PNG_TEXT_COMPRESSION_NONE : PNG_ITXT_COMPRESSION_NONE;
    t->key = (char *)(uintptr_t)key;
    t->text = (char *)(uintptr_t)value;
    if (!ascii) {
        t->lang = (char *)(uintptr_t) "";
        t->lang_key = (char *)(uintptr_t)key;
    }
}

// Everything that the chunks point to.
struct words {
    char seed[24], picture[12], size[24], software[64];
    struct buf steps, guidance, noise, parameters;
};

static void fill_parameters(struct buf *b, const struct engine_png_text *t, const struct words *w)
{
    const struct engine_used *u = t->used;
    buf_puts(b, t->prompt);
    if (t->negative_prompt && *t->negative_prompt)
        buf_printf(b, "\nNegative prompt: %s", t->negative_prompt);
    buf_printf(b, "\nSteps: %d, Sampler: %s, CFG scale: %g, Seed: %s, Size: %s, Model: %s",
               u->steps[0], u->sampler, (double)u->guidance_scale[0], w->seed, w->size, u->model);
    if (u->stages > 1)
        buf_printf(b, ", Stage steps: \"%s\", Stage CFG scale: \"%s\"", w->steps.data,
                   w->guidance.data);
    if (*u->preset)
        buf_printf(b, ", Preset: %s", u->preset);
    buf_printf(b, ", Version: %s", w->software);
}

static void fill_words(struct words *w, const struct engine_image *image,
                       const struct engine_png_text *t)
{
    const struct engine_used *u = t->used;
    snprintf(w->seed, sizeof w->seed, "%" PRIu64, t->seed);
    snprintf(w->picture, sizeof w->picture, "%" PRIu32, t->picture);
    snprintf(w->size, sizeof w->size, "%dx%d", image->width, image->height);
    snprintf(w->software, sizeof w->software, "imagend %s", engine_version());
    for (int i = 0; i < u->stages; i++) {
        buf_printf(&w->steps, "%s%d", i ? "," : "", u->steps[i]);
        buf_printf(&w->guidance, "%s%g", i ? "," : "", (double)u->guidance_scale[i]);
        if (u->noise_level[i] >= 0)
            buf_printf(&w->noise, "%s%d", w->noise.len ? "," : "", u->noise_level[i]);
    }
    fill_parameters(&w->parameters, t, w);
}

static bool words_failed(const struct words *w)
{
    return w->steps.failed || w->guidance.failed || w->noise.failed || w->parameters.failed;
}

static void fill_chunks(struct chunks *c, const struct words *w, const struct engine_png_text *t)
{
    add(c, "prompt", t->prompt);
    if (t->negative_prompt && *t->negative_prompt)
        add(c, "negative_prompt", t->negative_prompt);
    add(c, "seed", w->seed);
    add(c, "picture", w->picture);
    add(c, "model", t->used->model);
    if (*t->used->preset)
        add(c, "preset", t->used->preset);
    add(c, "sampler", t->used->sampler);
    add(c, "steps", w->steps.data);
    add(c, "guidance", w->guidance.data);
    if (w->noise.len)
        add(c, "noise_level", w->noise.data);
    add(c, "size", w->size);
    add(c, "Software", w->software);
    add(c, "parameters", w->parameters.data);
}

static void on_write(png_structp png, png_bytep data, size_t n)
{
    struct buf *b = png_get_io_ptr(png);
    buf_add(b, data, n);
    if (b->failed)
        png_error(png, "out of memory");
}

static void on_flush(png_structp png)
{
    (void)png;
}

static void on_error(png_structp png, png_const_charp text)
{
    (void)text;
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp text)
{
    (void)png;
    (void)text;
}

// Apart from its caller, so that no local changes between setjmp and a longjmp.
static bool write_png(png_structp png, png_infop info, const struct engine_image *image,
                      struct chunks *c)
{
    if (setjmp(png_jmpbuf(png)))
        return false;
    png_set_compression_level(png, COMPRESSION);
    png_set_IHDR(png, info, (png_uint_32)image->width, (png_uint_32)image->height, 8,
                 PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
                 PNG_FILTER_TYPE_DEFAULT);
    png_set_text(png, info, c->text, c->count);
    png_write_info(png, info);
    for (int y = 0; y < image->height; y++)
        png_write_row(png, image->rgb + (size_t)y * (size_t)image->width * 3);
    png_write_end(png, NULL);
    return true;
}

static enum err encode(const struct engine_image *image, struct chunks *c, struct buf *out)
{
    enum err e = ERR_NO_MEMORY;
    png_infop info = NULL;
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, on_error, on_warning);
    if (png)
        info = png_create_info_struct(png);
    if (!info)
        goto fail;
    png_set_write_fn(png, out, on_write, on_flush);
    if (write_png(png, info, image, c))
        e = ERR_OK;
fail:
    png_destroy_write_struct(&png, &info);
    return e;
}

static bool is_text(const char *s)
{
    return !s || utf8_valid(s, strlen(s), NULL);
}

enum err engine_png(const struct engine_image *image, const struct engine_png_text *text,
                    uint8_t **png, size_t *size)
{
    struct words w = {0};
    struct chunks c = {0};
    struct buf out = {0};

    *png = NULL;
    *size = 0;
    if (!image->rgb || image->width < 1 || image->height < 1 || image->width > MAX_EDGE ||
        image->height > MAX_EDGE || !text->prompt || !text->used || text->used->stages < 1 ||
        text->used->stages > ENGINE_MAX_STAGES || !is_text(text->prompt) ||
        !is_text(text->negative_prompt) || !is_text(text->used->model))
        return ERR_INVALID;
    fill_words(&w, image, text);
    enum err e = ERR_NO_MEMORY;
    if (!words_failed(&w)) {
        fill_chunks(&c, &w, text);
        e = encode(image, &c, &out);
    }
    if (!e) {
        *size = out.len;
        *png = (uint8_t *)buf_take(&out);
    }
    buf_deinit(&out);
    buf_deinit(&w.steps);
    buf_deinit(&w.guidance);
    buf_deinit(&w.noise);
    buf_deinit(&w.parameters);
    return e;
}
