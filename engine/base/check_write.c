// Writes the values of a field table's struct as JSON and as text. Called by stores and by code
// that builds responses.
#include "check_scales.h"

#include "buf.h"
#include "text.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

// Whether the number means "not set": zero, where zero is out of range.
static bool is_unset(const struct check_field *f, double v)
{
    return v == 0 && f->min > 0;
}

static double item_at(const struct check_field *f, const void *at, int i)
{
    return f->type == CHECK_INTS || f->type == CHECK_INT ? ((const int *)at)[i]
                                                         : (double)((const float *)at)[i];
}

bool check_has_value(const struct check_field *f, const void *at, int listed)
{
    switch (f->type) {
    case CHECK_TEXT: return *(const char *const *)at;
    case CHECK_CHARS: return *(const char *)at;
    case CHECK_TIME: return *(const int64_t *)at;
    case CHECK_SIZE: return ((const struct check_size *)at)->width;
    case CHECK_SCALES: return ((const struct check_scales *)at)->given;
    case CHECK_INT:
    case CHECK_NUMBER: return !is_unset(f, item_at(f, at, 0));
    case CHECK_INTS:
    case CHECK_NUMBERS:
        for (int i = 0; i < listed; i++)
            if (!is_unset(f, item_at(f, at, i)))
                return true;
        return false;
    case CHECK_FILE:
    case CHECK_ANY: return false;
    default: return true;
    }
}

// Uses the fewest digits that parse back to the same float.
static void add_number(struct buf *b, float v)
{
    char text[32];
    snprintf(text, sizeof text, "%.6g", (double)v);
    buf_printf(b, strtof(text, NULL) == v ? "%.6g" : "%.9g", (double)v);
}

static void add_item(const struct check_field *f, const void *at, int i, struct buf *b)
{
    if (f->type == CHECK_INTS || f->type == CHECK_INT)
        buf_printf(b, "%d", ((const int *)at)[i]);
    else
        add_number(b, ((const float *)at)[i]);
}

static void add_time(int64_t ms, struct buf *b)
{
    const time_t seconds = (time_t)(ms / 1000);
    struct tm tm;
    char text[32];
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", gmtime_r(&seconds, &tm));
    buf_printf(b, "\"%s.%03dZ\"", text, (int)(ms % 1000));
}

static void add_size(const struct check_size *s, struct buf *b)
{
    if (s->width == s->height)
        buf_printf(b, "%d", s->width);
    else
        buf_printf(b, "\"%dx%d\"", s->width, s->height);
}

void check_write_value(const struct check_field *f, const void *at, int listed, struct buf *out)
{
    if (!check_has_value(f, at, listed)) {
        buf_puts(out, "null");
        return;
    }
    switch (f->type) {
    case CHECK_TEXT: text_json(out, *(const char *const *)at); break;
    case CHECK_CHARS: text_json(out, at); break;
    case CHECK_ENUM: text_json(out, f->choices[*(const int *)at]); break;
    case CHECK_BOOL: buf_puts(out, *(const bool *)at ? "true" : "false"); break;
    case CHECK_SEED: buf_printf(out, "%llu", (unsigned long long)*(const uint64_t *)at); break;
    case CHECK_TIME: add_time(*(const int64_t *)at, out); break;
    case CHECK_SIZE: add_size(at, out); break;
    case CHECK_SCALES: check_scales_write(at, out); break;
    case CHECK_INT:
    case CHECK_NUMBER: add_item(f, at, 0, out); break;
    case CHECK_INTS:
    case CHECK_NUMBERS:
        for (int i = 0; i < listed; i++) {
            buf_puts(out, i ? "," : "[");
            if (is_unset(f, item_at(f, at, i)))
                buf_puts(out, "null");
            else
                add_item(f, at, i, out);
        }
        buf_puts(out, "]");
        break;
    case CHECK_FILE:
    case CHECK_ANY: break;
    }
}

void check_write(const struct check_table *t, const void *from, struct buf *out)
{
    const struct check_field *f;
    const char *comma = "";
    size_t offset = 0;
    buf_puts(out, "{");
    for (int row = 0; (f = check_next(t, &row, &offset));) {
        const char *at = (const char *)from + offset;
        if (f->flags & CHECK_HIDDEN || !check_has_value(f, at, CHECK_LIST))
            continue;
        buf_printf(out, "%s\"%s\":", comma, f->name);
        check_write_value(f, at, CHECK_LIST, out);
        comma = ",";
    }
    buf_puts(out, "}");
}

// Whether a stage without a value precedes one with a value, which then needs its place: [null,5].
// The first stage's negative value means that it cannot have one, so it is no gap.
static bool has_gap(const struct check_field *f, const void *at, int listed)
{
    bool missing = false;
    for (int i = 0; i < listed; i++) {
        const double v = item_at(f, at, i);
        if (missing && !is_unset(f, v) && v >= 0)
            return true;
        missing |= is_unset(f, v) || (i && v < 0);
    }
    return false;
}

void check_write_text(const struct check_field *f, const void *at, int listed, struct buf *out)
{
    const char *comma = "";
    if (!check_has_value(f, at, listed))
        return;
    switch (f->type) {
    case CHECK_TEXT: buf_puts(out, *(const char *const *)at); break;
    case CHECK_CHARS: buf_puts(out, at); break;
    case CHECK_ENUM: buf_puts(out, f->choices[*(const int *)at]); break;
    case CHECK_SIZE:
        buf_printf(out, "%dx%d", ((const struct check_size *)at)->width,
                   ((const struct check_size *)at)->height);
        break;
    case CHECK_SCALES: check_scales_write_text(at, out); break;
    case CHECK_INTS:
    case CHECK_NUMBERS:
        if (has_gap(f, at, listed)) {
            check_write_value(f, at, listed, out);
            break;
        }
        // A negative value means that the stage has none.
        for (int i = 0; i < listed; i++) {
            if (is_unset(f, item_at(f, at, i)) || item_at(f, at, i) < 0)
                continue;
            buf_puts(out, comma);
            add_item(f, at, i, out);
            comma = ",";
        }
        break;
    default: check_write_value(f, at, listed, out); break;
    }
}
