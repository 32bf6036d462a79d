// A1111's way to select LoRAs: tags in the prompt. Called by its API's routes. Thread: any.
#include "picture.h"

#include "text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TAG = 200, POSITIONS = 3 };

static const char *const kinds[] = {"<lora:", "<lyco:"};
enum { KINDS = sizeof kinds / sizeof *kinds, KIND = 6 }; // KIND: the length of each

// The length of a tag with its brackets; 0: there is none here.
static size_t tag_length(const char *s)
{
    for (int i = 0; i < KINDS; i++) {
        if (strncmp(s, kinds[i], KIND))
            continue;
        const size_t body = strcspn(s + KIND, ">");
        return body && s[KIND + body] ? KIND + body + 1 : 0;
    }
    return 0;
}

static enum err refuse(const char *tag, size_t n, const char *what, struct fault *why)
{
    return fault_set(why, ERR_INVALID, "prompt", "\"prompt\": %.*s %s; write <lora:NAME:SCALE>",
                     (int)(n < 80 ? n : 80), tag, what);
}

// The scale of the U-Net among "NAME", "NAME:TEXT:UNET", "te=TEXT" and "unet=UNET", of which the
// later ones default to the earlier ones; NULL: none. parts: modified. False: one is unknown.
static bool find_scale(char *parts, const char **name, const char **scale)
{
    const char *position[POSITIONS] = {NULL}, *text = NULL, *unet = NULL;
    int positions = 0;
    for (char *s = parts, *end; s; s = end) {
        end = strchr(s, ':');
        if (end)
            *end++ = 0;
        if (!strncmp(s, "te=", 3))
            text = s + 3;
        else if (!strncmp(s, "unet=", 5))
            unet = s + 5;
        else if (positions == POSITIONS || strchr(s, '='))
            return false;
        else
            position[positions++] = s;
    }
    *name = position[0];
    *scale = unet ? unet : position[2] ? position[2] : text ? text : position[1];
    return true;
}

static enum err read_tag(const char *tag, size_t n, struct check_scales *loras, struct fault *why)
{
    const struct check_field *f = check_find(&picture_table, "loras", NULL);
    struct check_scaled item = {0};
    const char *name, *scale;
    char parts[MAX_TAG];
    if (n - KIND > sizeof parts)
        return refuse(tag, n, "is too long", why);
    snprintf(parts, sizeof parts, "%.*s", (int)(n - KIND - 1), tag + KIND);
    if (!find_scale(parts, &name, &scale))
        return refuse(tag, n, "has a setting that is not supported", why);
    if (!name || !*name || strlen(name) >= sizeof item.name)
        return refuse(tag, n, "has no valid name", why);
    snprintf(item.name, sizeof item.name, "%s", name);
    item.scaled = scale;
    if (scale && !text_number(scale, &item.scale))
        return refuse(tag, n, "has a scale that is not a number", why);
    return check_add_scaled(f, loras, &item, why);
}

enum err picture_take_tags(const char *prompt, char **rest, struct check_scales *loras,
                           struct fault *why)
{
    enum err e = ERR_OK;
    char *out = NULL;
    *rest = NULL;
    for (const char *s = prompt; !e && *s;) {
        const size_t n = tag_length(s);
        if (n && !*rest) {
            *rest = out = malloc(strlen(prompt) + 1);
            if (!out)
                return fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
            memcpy(out, prompt, (size_t)(s - prompt));
            out += s - prompt;
        }
        if (!n) {
            if (out)
                *out++ = *s;
            s++;
            continue;
        }
        e = read_tag(s, n, loras, why);
        // No double spaces remain where a tag was.
        for (s += n; *s == ' ' && (out == *rest || out[-1] == ' ');)
            s++;
    }
    while (out && out > *rest && out[-1] == ' ')
        out--;
    if (out)
        *out = 0;
    return e;
}
