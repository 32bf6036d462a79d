// engine_png: a picture as a PNG in memory, with what it was made from in its text chunks. Called
// by the program and by the server's thread pool; knows the facade's structs and codec.h, no more.
#include "buf.h"
#include "codec.h"
#include "engine.h"
#include "program.h"

#include <inttypes.h>
#include <stdio.h>

struct chunks {
    int count;
    struct codec_text text[CODEC_MAX_TEXTS];
};

static void add(struct chunks *c, const char *key, const char *value)
{
    c->text[c->count++] = (struct codec_text){key, value};
}

// Everything that the chunks point to.
struct words {
    char seed[24], picture[12], size[24], software[64];
    struct buf steps, guidance, noise, parameters;
};

static void fill_parameters(struct buf *b, const struct picture_request *r,
                            const struct picture_used *u, const struct words *w)
{
    buf_puts(b, r->prompt);
    if (r->negative_prompt && *r->negative_prompt)
        buf_printf(b, "\nNegative prompt: %s", r->negative_prompt);
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
                       const struct picture_request *r, const struct picture_used *u)
{
    snprintf(w->seed, sizeof w->seed, "%" PRIu64, r->seed);
    snprintf(w->picture, sizeof w->picture, "%" PRIu32, r->picture);
    snprintf(w->size, sizeof w->size, "%dx%d", image->width, image->height);
    snprintf(w->software, sizeof w->software, "imagend %s", program_version);
    for (int i = 0; i < u->stages; i++) {
        buf_printf(&w->steps, "%s%d", i ? "," : "", u->steps[i]);
        buf_printf(&w->guidance, "%s%g", i ? "," : "", (double)u->guidance_scale[i]);
        if (u->noise_level[i] >= 0)
            buf_printf(&w->noise, "%s%d", w->noise.len ? "," : "", u->noise_level[i]);
    }
    fill_parameters(&w->parameters, r, u, w);
}

static bool words_failed(const struct words *w)
{
    return w->steps.failed || w->guidance.failed || w->noise.failed || w->parameters.failed;
}

static void fill_chunks(struct chunks *c, const struct words *w, const struct picture_request *r,
                        const struct picture_used *u)
{
    add(c, "prompt", r->prompt);
    if (r->negative_prompt && *r->negative_prompt)
        add(c, "negative_prompt", r->negative_prompt);
    add(c, "seed", w->seed);
    add(c, "picture", w->picture);
    add(c, "model", u->model);
    if (*u->preset)
        add(c, "preset", u->preset);
    add(c, "sampler", u->sampler);
    add(c, "steps", w->steps.data);
    add(c, "guidance", w->guidance.data);
    if (w->noise.len)
        add(c, "noise_level", w->noise.data);
    add(c, "size", w->size);
    add(c, "Software", w->software);
    add(c, "parameters", w->parameters.data);
}

enum err engine_png(const struct engine_image *image, const struct picture_request *r,
                    const struct picture_used *used, uint8_t **png, size_t *size)
{
    struct words w = {0};
    struct chunks c = {0};
    struct buf out = {0};

    *png = NULL;
    *size = 0;
    if (!r->prompt || used->stages < 1 || used->stages > PICTURE_MAX_STAGES)
        return ERR_INVALID;
    fill_words(&w, image, r, used);
    enum err e = ERR_NO_MEMORY;
    if (!words_failed(&w)) {
        fill_chunks(&c, &w, r, used);
        e = codec_encode(
            &(struct codec_params){
                .format = CODEC_PNG,
                .width = image->width,
                .height = image->height,
                .rgb = image->rgb,
                .text = c.text,
                .texts = c.count,
            },
            &out, NULL);
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
