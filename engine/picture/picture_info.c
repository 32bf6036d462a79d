// Reads the metadata of an image file: A1111's "infotext", which it parses into fields, and all
// other texts. Called by the routes. Thread: any.
#include "picture.h"

#include "buf.h"
#include "codec.h"
#include "json.h"
#include "text.h"

#include <string.h>

enum { MAX_FIELDS = 256, LEAST_FIELDS = 3 };

struct part {
    const char *at;
    size_t n;
};

// "key: value", where a value with a comma is a JSON string.
struct field {
    struct part key, value;
    int side; // 1, 2: width or height of a size, which becomes two fields; 0: the whole value
};

struct fields {
    int n;
    struct field field[MAX_FIELDS + 2]; // the last may be a size
};

// ---- the line of settings -----------------------------------------------------------------------

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_word(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
           (unsigned char)c >= 0x80;
}

static struct part trim(const char *at, const char *end)
{
    while (at < end && is_space(*at))
        at++;
    while (at < end && is_space(end[-1]))
        end--;
    return (struct part){at, (size_t)(end - at)};
}

// The end of a quoted string; NULL if it is unterminated, empty, or not followed by a comma.
static const char *quoted_end(const char *at, const char *end)
{
    const char *p = at + 1;
    while (p < end && *p != '"')
        p += *p == '\\' ? 2 : 1;
    if (p >= end || p == at + 1)
        return NULL;
    return p + 1 == end || p[1] == ',' ? p + 1 : NULL;
}

// Finds the next field and moves *at behind it. Source: re_param of A1111's infotext_utils.
static bool next_field(const char **at, const char *end, struct field *out)
{
    for (const char *p = *at; p < end;) {
        while (p < end && !is_word(*p))
            p++;
        const char *key = p;
        while (p < end && (is_word(*p) || *p == ' ' || *p == '-' || *p == '/'))
            p++;
        if (p == end || *p != ':' || p - key < 2)
            continue;
        out->key = (struct part){key, (size_t)(p - key)};
        for (p++; p < end && is_space(*p);)
            p++;
        const char *stop = p < end && *p == '"' ? quoted_end(p, end) : NULL;
        if (!stop) {
            stop = p < end ? memchr(p, ',', (size_t)(end - p)) : NULL;
            stop = stop ? stop : end;
        }
        out->value = (struct part){p, (size_t)(stop - p)};
        *at = stop < end ? stop + 1 : end;
        return true;
    }
    *at = end;
    return false;
}

// "512x768" as its two numbers.
static bool is_size(struct part v, struct part *width, struct part *height)
{
    size_t i = 0, x;
    while (i < v.n && is_digit(v.at[i]))
        i++;
    x = i;
    if (!i || i == v.n || v.at[i++] != 'x' || i == v.n)
        return false;
    while (i < v.n && is_digit(v.at[i]))
        i++;
    *width = (struct part){v.at, x};
    *height = (struct part){v.at + x + 1, v.n - x - 1};
    return i == v.n;
}

static void add_field(struct fields *all, const struct field *f)
{
    struct field one = *f, two = *f;
    if (!is_size(f->value, &one.value, &two.value)) {
        all->field[all->n++] = *f;
        return;
    }
    one.side = 1;
    two.side = 2;
    all->field[all->n++] = one;
    all->field[all->n++] = two;
}

static void put_value(struct buf *b, struct part v)
{
    struct json_t *doc = NULL;
    struct fault why;
    struct buf copy = {0};
    if (v.n > 1 && v.at[0] == '"' && v.at[v.n - 1] == '"')
        (void)json_parse(v.at, v.n, "value", ERR_INVALID, &doc, &why);
    buf_add(&copy, v.at, v.n);
    text_json(b, json_text(doc, NULL) ? json_text(doc, NULL) : copy.data ? copy.data : "");
    b->failed |= copy.failed;
    buf_deinit(&copy);
    json_destroy(&doc);
}

static void put_name(struct buf *b, const struct field *f)
{
    buf_clear(b);
    buf_add(b, f->key.at, f->key.n);
    if (f->side)
        buf_printf(b, "-%d", f->side);
}

// Of several fields with the same name, only the last is written.
static void put_fields(struct buf *b, const struct fields *all)
{
    struct buf name = {0}, later = {0};
    const char *comma = "{";
    for (int i = 0; i < all->n; i++) {
        bool again = false;
        put_name(&name, &all->field[i]);
        for (int k = i + 1; k < all->n && !again; k++) {
            put_name(&later, &all->field[k]);
            again = !name.failed && !later.failed && !strcmp(name.data, later.data);
        }
        if (again)
            continue;
        buf_puts(b, comma);
        text_json(b, name.failed ? "" : name.data);
        buf_puts(b, ":");
        put_value(b, all->field[i].value);
        comma = ",";
    }
    buf_puts(b, "}");
    b->failed |= name.failed || later.failed;
    buf_deinit(&name);
    buf_deinit(&later);
}

// ---- the whole text -----------------------------------------------------------------------------

// Lines of the prompt, and then of the negative prompt.
static void split_prompts(struct buf prompts[2], const char *at, const char *end)
{
    static const char mark[] = "Negative prompt:";
    const size_t length = sizeof mark - 1;
    struct buf *now = prompts;
    while (at < end) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        stop = stop ? stop : end;
        struct part line = trim(at, stop);
        if (line.n >= length && !memcmp(line.at, mark, length)) {
            now = &prompts[1];
            line = trim(line.at + length, line.at + line.n);
        }
        buf_puts(now, now->len ? "\n" : "");
        buf_add(now, line.at, line.n);
        at = stop + 1;
    }
}

void picture_infotext_fields(struct buf *b, const char *infotext)
{
    static const char *const names[] = {"Prompt", "Negative prompt"};
    const struct part all = trim(infotext, infotext + strlen(infotext));
    const char *end = all.at + all.n, *last = end, *at;
    struct fields fields = {0};
    struct buf prompts[2] = {{0}};
    struct field f = {0};
    int n = 0;
    while (last > all.at && last[-1] != '\n')
        last--;
    at = last;
    while (n < LEAST_FIELDS && next_field(&at, end, &f))
        n++;
    // With fewer settings, the last line is part of the prompt.
    at = n < LEAST_FIELDS ? end : last;
    split_prompts(prompts, all.at, at);
    for (int i = 0; i < 2; i++)
        fields.field[fields.n++] =
            (struct field){.key = {names[i], strlen(names[i])},
                           .value = {prompts[i].data ? prompts[i].data : "", prompts[i].len}};
    while (fields.n < MAX_FIELDS && next_field(&at, end, &f))
        if (f.value.n)
            add_field(&fields, &f);
    put_fields(b, &fields);
    for (int i = 0; i < 2; i++) {
        b->failed |= prompts[i].failed;
        buf_deinit(&prompts[i]);
    }
}

// ---- files ----------------------------------------------------------------------------------

enum err picture_file_measure(const void *data, size_t n, const char *name, struct check_size *size,
                              struct fault *why)
{
    const struct codec_limits limits = {.name = name};
    return codec_measure(data, n, &limits, &size->width, &size->height, why);
}

// Where A1111 and compatible tools store the infotext.
static const char *const places[] = {CODEC_TEXT_COMMENT, "parameters", "comment"};

static bool is_again(const struct codec_texts *t, int i)
{
    for (int k = i + 1; k < t->count; k++)
        if (!strcmp(t->text[i].key, t->text[k].key))
            return true;
    return false;
}

enum err picture_file_info(const void *data, size_t n, struct buf *b, struct fault *why)
{
    struct codec_texts t;
    const char *infotext = NULL, *comma = "";
    const enum err e = codec_read_texts(data, n, NULL, &t, why);
    if (e)
        return e;
    for (size_t i = 0; !infotext && i < sizeof places / sizeof *places; i++)
        infotext = codec_texts_find(&t, places[i]);
    buf_puts(b, "\"info\":");
    text_json(b, infotext ? infotext : "");
    buf_puts(b, ",\"items\":{");
    for (int i = 0; i < t.count; i++) {
        if (t.text[i].value == infotext || is_again(&t, i))
            continue;
        buf_puts(b, comma);
        text_json(b, t.text[i].key);
        buf_puts(b, ":");
        text_json(b, t.text[i].value);
        comma = ",";
    }
    buf_puts(b, "},\"parameters\":");
    picture_infotext_fields(b, infotext ? infotext : "");
    codec_texts_deinit(&t);
    return ERR_OK;
}
