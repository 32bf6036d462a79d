// Selects weight files by variant, see variant.h. Called by cascade.c. Reads folders, not weights.
#include "variant.h"

#include "buf.h"

#include <stdio.h>
#include <string.h>

struct weights_params cascade_weights(const struct cascade *c, int index, char *dir)
{
    const bool text = index < 0, plain = text ? c->text_plain : c->network[index].plain;

    snprintf(dir, CASCADE_PATH + 8, text ? "%s" : "%s/unet",
             text ? c->text_dir : c->network[index].dir);
    return (struct weights_params){
        .dir = dir,
        .base = text ? "model" : "diffusion_pytorch_model",
        .variant = *c->variant && !plain ? c->variant : NULL,
    };
}

// Looks for the component's files; adds other variants to a list.
static bool find(const struct cascade *c, int index, struct buf *missing, struct buf *others)
{
    char dir[CASCADE_PATH + 8];
    const struct weights_params w = cascade_weights(c, index, dir);
    const struct safetensors_params p = {.dir = w.dir, .base = w.base, .variant = w.variant};

    if (safetensors_has(&p))
        return true;
    buf_printf(missing, "%s", missing->len ? ", " : "");
    if (index < 0)
        buf_puts(missing, "the text encoder");
    else
        buf_printf(missing, "%s", c->network[index].name);
    safetensors_variants(&p, others);
    return false;
}

enum err variant_choose(struct cascade *c, const char *variant, struct fault *why)
{
    struct buf missing = {0}, others = {0};
    enum err e = ERR_OK;

    if (!variant)
        return ERR_OK;
    if (!*variant || strpbrk(variant, "./") || strlen(variant) >= sizeof c->variant)
        return fault_set(why, ERR_INVALID, "variant",
                         "invalid variant \"%.40s\"; expected a word such as fp16", variant);
    snprintf(c->variant, sizeof c->variant, "%s", variant);
    c->text_plain = !find(c, -1, &missing, &others);
    bool any = !c->text_plain;
    for (int i = 0; i < c->networks; i++) {
        c->network[i].plain = !find(c, i, &missing, &others);
        any = any || !c->network[i].plain;
    }
    if (missing.failed || others.failed)
        e = fault_set(why, ERR_NO_MEMORY, NULL, "%s", err_text(ERR_NO_MEMORY));
    else if (!any)
        e = fault_set(why, ERR_NOT_FOUND, "variant",
                      "no weights of this model have the variant \"%s\"%s%.100s", variant,
                      others.len ? "; available: " : "", others.len ? others.data : "");
    else if (missing.len)
        snprintf(c->notice, sizeof c->notice,
                 "no %s weights in %.160s: other files are loaded there", variant, missing.data);
    buf_deinit(&missing);
    buf_deinit(&others);
    return e;
}
