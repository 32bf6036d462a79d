// Selects weight files by variant, see variant.h. Called by cascade.c. Reads folders, not weights.
#include "variant.h"

#include "buf.h"

#include <stdio.h>
#include <string.h>

struct weights_params cascade_weights(const struct cascade *c, enum cascade_part part, int index,
                                      char *dir)
{
    const bool text = part == CASCADE_TEXT;
    const struct cascade_network *n = &c->network[index];
    const bool plain = text                      ? c->text[index].plain
                       : part == CASCADE_DECODER ? n->decoder_plain
                                                 : n->plain;

    if (text)
        snprintf(dir, CASCADE_PATH + 8, "%s", c->text[index].dir);
    else
        snprintf(dir, CASCADE_PATH + 8, "%s/%s", n->dir, part == CASCADE_DECODER ? "vae" : "unet");
    return (struct weights_params){
        .dir = dir,
        .base = text ? "model" : "diffusion_pytorch_model",
        .variant = *c->variant && !plain ? c->variant : NULL,
        .gguf = text && c->text[index].gguf ? dir : NULL,
        .lora = part == CASCADE_DENOISER ? c->applied[n->stage].lora : NULL,
        .loras = part == CASCADE_DENOISER ? c->applied[n->stage].count : 0,
    };
}

struct search {
    const struct cascade *c;
    struct buf missing, others; // components without files of the variant; other variants
    bool any;                   // some component has them
};

// Looks for the component's files. Returns whether only its plain ones can be used.
static bool is_plain(struct search *s, enum cascade_part part, int index)
{
    char dir[CASCADE_PATH + 8];
    const struct weights_params w = cascade_weights(s->c, part, index, dir);
    const struct safetensors_params p = {.dir = w.dir, .base = w.base, .variant = w.variant};

    if (safetensors_has(&p)) {
        s->any = true;
        return false;
    }
    buf_printf(&s->missing, "%s", s->missing.len ? ", " : "");
    if (part == CASCADE_TEXT)
        buf_puts(&s->missing, index ? "the upscaler's text encoder" : "the text encoder");
    else
        buf_printf(&s->missing, "%s%s", part == CASCADE_DECODER ? "the VAE of " : "",
                   s->c->network[index].name);
    safetensors_variants(&p, &s->others);
    return true;
}

enum err variant_choose(struct cascade *c, const char *variant, struct fault *why)
{
    struct search s = {.c = c};
    enum err e = ERR_OK;

    if (!variant)
        return ERR_OK;
    if (!*variant || strpbrk(variant, "./") || strlen(variant) >= sizeof c->variant)
        return fault_set(why, ERR_INVALID, "variant",
                         "invalid variant \"%.40s\"; expected a word such as fp16", variant);
    snprintf(c->variant, sizeof c->variant, "%s", variant);
    for (int i = 0; i < c->texts; i++)
        c->text[i].plain = c->text[i].gguf || is_plain(&s, CASCADE_TEXT, i);
    for (int i = 0; i < c->networks; i++) {
        struct cascade_network *n = &c->network[i];
        n->plain = is_plain(&s, CASCADE_DENOISER, i);
        n->decoder_plain = n->decoder.cls && is_plain(&s, CASCADE_DECODER, i);
    }
    if (s.missing.failed || s.others.failed)
        e = fault_set(why, ERR_NO_MEMORY, NULL, "%s", err_text(ERR_NO_MEMORY));
    else if (!s.any)
        e = fault_set(why, ERR_NOT_FOUND, "variant",
                      "no weights of this model have the variant \"%s\"%s%.100s", variant,
                      s.others.len ? "; available: " : "", s.others.len ? s.others.data : "");
    else if (s.missing.len)
        snprintf(c->notice, sizeof c->notice,
                 "no %s weights in %.160s: other files are loaded there", variant, s.missing.data);
    buf_deinit(&s.missing);
    buf_deinit(&s.others);
    return e;
}
