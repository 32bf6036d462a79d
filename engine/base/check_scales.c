// Names with scales in field tables, see check_scales.h. Called by the other check files. Thread:
// any.
#include "check_scales.h"

#include "buf.h"
#include "json.h"
#include "text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_";

static enum err refuse(const struct check_field *f, const char *got, struct fault *why)
{
    return fault_set(why, ERR_INVALID, f->name,
                     "\"%s\" must be a list such as [{\"name\": \"fox\", \"scale\": 0.8}], or text "
                     "such as fox:0.8, not %.60s",
                     f->name, got);
}

static enum err refuse_json(const struct check_field *f, const struct json_t *v, struct fault *why)
{
    char got[48];
    json_show(v, got, sizeof got);
    return refuse(f, got, why);
}

enum err check_add_scaled(const struct check_field *f, struct check_scales *list,
                          const struct check_scaled *item, struct fault *why)
{
    if (!*item->name || item->name[strspn(item->name, letters)])
        return fault_set(
            why, ERR_INVALID, f->name,
            "\"%s\": a name has 1 to %d letters, digits, dots, dashes and underscores, "
            "unlike \"%.40s\"",
            f->name, CHECK_NAME - 1, item->name);
    for (int i = 0; i < list->count; i++)
        if (!strcmp(list->item[i].name, item->name))
            return fault_set(why, ERR_INVALID, f->name, "\"%s\" has \"%s\" twice", f->name,
                             item->name);
    if (item->scaled && !(item->scale >= f->min && item->scale <= f->max))
        return fault_set(why, ERR_INVALID, f->name,
                         "\"%s\": the scale of \"%s\" must be a number from %g to %g, not %g",
                         f->name, item->name, f->min, f->max, item->scale);
    if (list->count == CHECK_SCALED)
        return fault_set(why, ERR_INVALID, f->name, "\"%s\" has more than %d names", f->name,
                         CHECK_SCALED);
    list->given = true;
    list->item[list->count++] = *item;
    return ERR_OK;
}

// n bytes; a name that is too long is refused as malformed.
static void set_name(struct check_scaled *item, const char *s, size_t n)
{
    if (n < sizeof item->name && strnlen(s, n) == n)
        snprintf(item->name, sizeof item->name, "%.*s", (int)n, s);
    else
        snprintf(item->name, sizeof item->name, "%.30s ...", s);
}

// ---- from text ----------------------------------------------------------------------------------

// Reads "name:scale" or "name" of n bytes, with spaces around it.
static enum err read_item(const struct check_field *f, const char *s, size_t n,
                          struct check_scales *out, struct fault *why)
{
    struct check_scaled item = {0};
    char number[48];
    for (; n && *s == ' '; n--)
        s++;
    while (n && s[n - 1] == ' ')
        n--;
    const char *colon = memchr(s, ':', n);
    const size_t name = colon ? (size_t)(colon - s) : n;
    set_name(&item, s, name);
    if (colon) {
        const int length = snprintf(number, sizeof number, "%.*s", (int)(n - name - 1), colon + 1);
        item.scaled = true;
        if (length >= (int)sizeof number || !text_number(number, &item.scale))
            return fault_set(
                why, ERR_INVALID, f->name,
                "\"%s\": the scale of \"%s\" must be a number from %g to %g, not \"%s\"", f->name,
                item.name, f->min, f->max, number);
    }
    return check_add_scaled(f, out, &item, why);
}

static enum err read_list_text(const struct check_field *f, const char *s, struct check_scales *out,
                               struct fault *why)
{
    *out = (struct check_scales){.given = true};
    for (bool more = *s; more;) {
        const size_t n = strcspn(s, ",");
        const enum err err = read_item(f, s, n, out, why);
        if (err)
            return err;
        more = s[n];
        s += n + more;
    }
    return ERR_OK;
}

enum err check_scales_read_text(const struct check_field *f, const char *s,
                                struct check_scales *out, struct fault *why)
{
    struct json_t *doc = NULL;
    if (*s != '[')
        return read_list_text(f, s, out, why);
    enum err err = json_parse(s, strlen(s), f->name, ERR_INVALID, &doc, NULL);
    err = err ? refuse(f, s, why) : check_scales_read(f, doc, out, why);
    json_destroy(&doc);
    return err;
}

// ---- from JSON ----------------------------------------------------------------------------------

static enum err read_object(const struct check_field *f, const struct json_t *v,
                            struct check_scales *out, struct fault *why)
{
    struct check_scaled item = {0};
    const struct json_t *value;
    const char *key, *name = NULL;
    void *at = NULL;
    while (json_next(v, &at, &key, &value)) {
        const enum json_kind kind = json_kind(value);
        size_t n = 0;
        if (!strcmp(key, "name") && kind == JSON_TEXT) {
            name = json_text(value, &n);
            set_name(&item, name, n);
        } else if (!strcmp(key, "scale") && (kind == JSON_INT || kind == JSON_NUMBER)) {
            item.scaled = true;
            item.scale = json_number(value);
        } else if (strcmp(key, "scale") || kind != JSON_NONE) {
            return refuse_json(f, v, why);
        }
    }
    return name ? check_add_scaled(f, out, &item, why) : refuse_json(f, v, why);
}

enum err check_scales_read(const struct check_field *f, const struct json_t *v,
                           struct check_scales *out, struct fault *why)
{
    size_t n = 0;
    const char *text = json_text(v, &n);
    if (text)
        return strlen(text) == n ? read_list_text(f, text, out, why) : refuse_json(f, v, why);
    if (json_kind(v) != JSON_LIST)
        return refuse_json(f, v, why);
    *out = (struct check_scales){.given = true};
    for (size_t i = 0; i < json_count(v); i++) {
        const struct json_t *item = json_item(v, i);
        text = json_text(item, &n);
        enum err err = ERR_INVALID;
        if (text && strlen(text) == n && !strchr(text, ','))
            err = read_item(f, text, n, out, why);
        else if (json_kind(item) == JSON_MAP)
            err = read_object(f, item, out, why);
        else
            refuse_json(f, v, why);
        if (err)
            return err;
    }
    return ERR_OK;
}

// ---- writing ------------------------------------------------------------------------------------

void check_show_number(double v, char out[static 32])
{
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(out, 32, "%.*g", digits, v);
        if (strtod(out, NULL) == v)
            return;
    }
}

void check_scales_write(const struct check_scales *s, struct buf *out)
{
    char scale[32];
    buf_puts(out, "[");
    for (int i = 0; i < s->count; i++) {
        buf_printf(out, "%s{\"name\":\"%s\"", i ? "," : "", s->item[i].name);
        check_show_number(s->item[i].scale, scale);
        if (s->item[i].scaled)
            buf_printf(out, ",\"scale\":%s", scale);
        buf_puts(out, "}");
    }
    buf_puts(out, "]");
}

void check_scales_write_text(const struct check_scales *s, struct buf *out)
{
    char scale[32];
    for (int i = 0; i < s->count; i++) {
        buf_printf(out, "%s%s", i ? ", " : "", s->item[i].name);
        check_show_number(s->item[i].scale, scale);
        if (s->item[i].scaled)
            buf_printf(out, ":%s", scale);
    }
}

void check_scales_schema(const struct check_field *f, bool null, struct buf *out)
{
    buf_printf(
        out,
        "\"oneOf\":[{\"type\":\"array\",\"maxItems\":%d,\"items\":{\"oneOf\":[{\"type\":"
        "\"object\",\"properties\":{\"name\":{\"type\":\"string\"},\"scale\":{\"type\":[\"number\","
        "\"null\"],\"minimum\":%g,\"maximum\":%g}},\"required\":[\"name\"],"
        "\"additionalProperties\":false},{\"type\":\"string\"}]}},{\"type\":\"string\"}%s]",
        CHECK_SCALED, f->min, f->max, null ? ",{\"type\":\"null\"}" : "");
}
