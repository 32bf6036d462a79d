// Selects and names the LoRAs of an image. Called by the engine for each request; knows nothing
// about files or weights. Thread: any.
#include "picture.h"

#include "buf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum err refuse_unknown(const struct model_lora *known, int n, const char *name,
                               struct fault *why)
{
    char list[160] = "";
    size_t at = 0;
    for (int i = 0; i < n && at < sizeof list; i++)
        at += (size_t)snprintf(list + at, sizeof list - at, "%s%s", i ? ", " : "", known[i].name);
    return fault_set(why, ERR_INVALID, "loras", "\"loras\": unknown LoRA \"%s\"; this model has %s",
                     name, n ? list : "none");
}

// The only LoRA with this name; -1: *why is filled.
static int find(const struct model_lora *known, int n, const char *name, struct fault *why)
{
    int found = -1;
    for (int i = 0; i < n; i++) {
        if (strcmp(known[i].name, name))
            continue;
        if (found >= 0) {
            fault_set(
                why, ERR_INVALID, "loras",
                "\"loras\": two files of this model have the name \"%s\"; rename one to select "
                "it",
                name);
            return -1;
        }
        found = i;
    }
    if (found < 0)
        refuse_unknown(known, n, name, why);
    return found;
}

enum err picture_choose_loras(const struct model_lora *known, int n,
                              const struct check_scales *named, struct picture_loras *out,
                              struct fault *why)
{
    *out = (struct picture_loras){0};
    for (int i = 0; !named->given && i < n && out->count < PICTURE_MAX_LORAS; i++) {
        if (!known[i].applied)
            continue;
        out->item[out->count].index = i;
        out->item[out->count++].scale = known[i].scale;
    }
    for (int i = 0; named->given && i < named->count; i++) {
        const struct check_scaled *s = &named->item[i];
        const int at = find(known, n, s->name, why);
        if (at < 0)
            return ERR_INVALID;
        out->item[out->count].index = at;
        out->item[out->count++].scale = s->scaled ? s->scale : known[at].scale;
    }
    return ERR_OK;
}

void picture_list_loras(const struct model_lora *known, const struct picture_loras *chosen,
                        struct picture_used *u)
{
    size_t at = 0;
    *u->loras = 0;
    for (int i = 0; i < chosen->count; i++) {
        const struct model_lora *l = &known[chosen->item[i].index];
        char scale[32];
        if (l->stage < u->first || l->stage >= u->stages)
            continue;
        check_show_number(chosen->item[i].scale, scale);
        at += (size_t)snprintf(u->loras + at, sizeof u->loras - at, "%s%s:%s", at ? ", " : "",
                               l->name, scale);
    }
}
