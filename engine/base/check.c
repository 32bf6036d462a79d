// Validation by field table. Called by the router before a handler runs, by stores and by the
// command line; check_write.c writes values, check_schema.c writes the schema. Knows nothing about
// the meaning of fields.
#include "check_scales.h"

#include "json.h"
#include "text.h"
#include "utf8.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <time.h>

static const int64_t LAST_SECOND = 253402300799; // last second of the year 9999

static enum err refuse(struct fault *why, const struct check_field *f, const char *want,
                       const char *got)
{
    return fault_set(why, ERR_INVALID, f->name, "\"%s\" must be %s, not %.60s", f->name, want, got);
}

static enum err refuse_text(struct fault *why, const struct check_field *f, const char *want,
                            const char *got)
{
    char quoted[64];
    snprintf(quoted, sizeof quoted, "\"%.40s\"", got);
    return refuse(why, f, want, quoted);
}

static enum err refuse_range(struct fault *why, const struct check_field *f, const char *what,
                             const char *got)
{
    char want[128];
    snprintf(want, sizeof want, "%s from %.15g to %.15g", what, f->min, f->max);
    return refuse(why, f, want, got);
}

static enum err refuse_number(struct fault *why, const struct check_field *f, const char *what,
                              double got)
{
    char text[32];
    snprintf(text, sizeof text, "%.15g", got);
    return refuse_range(why, f, what, text);
}

static enum err refuse_json(struct fault *why, const struct check_field *f, const char *want,
                            const struct json_t *v)
{
    char got[48];
    json_show(v, got, sizeof got);
    return refuse(why, f, want, got);
}

// ---- rows ---------------------------------------------------------------------------------------

// The first letters decide most comparisons: walking over a table compares each of its names with
// those of the others.
static bool same_name(const char *a, const char *b)
{
    return *a == *b && !strcmp(a, b);
}

static const struct check_field *find_own(const struct check_table *t, const char *name)
{
    for (int i = 0; i < t->count; i++)
        if (same_name(t->fields[i].name, name))
            return &t->fields[i];
    return NULL;
}

static bool is_without(const struct check_table *t, const char *name)
{
    for (int i = 0; t->without && t->without[i]; i++)
        if (same_name(t->without[i], name))
            return true;
    return false;
}

static int count_rows(const struct check_table *t)
{
    return t->count + (t->more ? count_rows(t->more) : 0);
}

// NULL: left out.
static const struct check_field *row_at(const struct check_table *t, int at, size_t *offset)
{
    const int others = t->more ? count_rows(t->more) : 0;
    const bool own = at >= others;
    const struct check_field *f = own ? &t->fields[at - others] : row_at(t->more, at, offset);
    if (!f || is_without(t, f->name) || (!own && find_own(t, f->name)))
        return NULL;
    *offset = own ? f->offset : *offset + t->more_at;
    return f;
}

const struct check_field *check_next(const struct check_table *t, int *at, size_t *offset)
{
    size_t place = 0;
    while (*at < count_rows(t)) {
        const struct check_field *f = row_at(t, (*at)++, &place);
        if (f && offset)
            *offset = place;
        if (f)
            return f;
    }
    return NULL;
}

// As check_next finds it, without a walk over all rows.
static const struct check_field *find_row(const struct check_table *t, const char *name,
                                          size_t *offset)
{
    if (is_without(t, name))
        return NULL;
    const struct check_field *f = find_own(t, name);
    if (f) {
        *offset = f->offset;
    } else if (t->more && (f = find_row(t->more, name, offset))) {
        *offset += t->more_at;
    }
    return f;
}

const struct check_field *check_find(const struct check_table *t, const char *name, size_t *offset)
{
    size_t place = 0;
    const struct check_field *f = find_row(t, name, &place);
    if (!f || f->flags & CHECK_HIDDEN)
        return NULL;
    if (offset)
        *offset = place;
    return f;
}

// ---- values -------------------------------------------------------------------------------------

static enum err put_text(const struct check_field *f, const char *s, size_t n, char *at,
                         struct fault *why)
{
    if ((double)n < f->min || (double)n > f->max) {
        if (f->min > 0 && !n)
            return fault_set(why, ERR_INVALID, f->name, "\"%s\" must not be empty", f->name);
        return fault_set(why, ERR_INVALID, f->name, "\"%s\" must be %g to %g bytes long, not %zu",
                         f->name, f->min, f->max, n);
    }
    if (strlen(s) != n || !utf8_valid(s, n, NULL))
        return fault_set(why, ERR_INVALID, f->name, "\"%s\" must be UTF-8 text without NUL",
                         f->name);
    if (f->type == CHECK_CHARS)
        memcpy(at, s, n + 1);
    else
        *(const char **)(void *)at = s;
    return ERR_OK;
}

static enum err put_enum(const struct check_field *f, const char *s, char *at, struct fault *why)
{
    char list[200] = "";
    size_t n = 0;
    for (int i = 0; f->choices[i]; i++) {
        if (!strcmp(f->choices[i], s)) {
            *(int *)(void *)at = i;
            return ERR_OK;
        }
        n += (size_t)snprintf(list + n, sizeof list - n, "%s%s", i ? ", " : "", f->choices[i]);
        if (n >= sizeof list)
            n = sizeof list - 1;
    }
    return fault_set(why, ERR_INVALID, f->name, "\"%s\" must be one of %s, not \"%.40s\"", f->name,
                     list, s);
}

static enum err put_number(const struct check_field *f, double v, char *at, struct fault *why)
{
    if (v == 0)
        v = f->zero;
    if (!isfinite(v) || v < f->min || v > f->max)
        return refuse_number(why, f, "a number", v);
    *(float *)(void *)at = (float)v;
    return ERR_OK;
}

static enum err put_int(const struct check_field *f, int64_t v, char *at, struct fault *why)
{
    if ((double)v < f->min || (double)v > f->max)
        return refuse_number(why, f, "an integer", (double)v);
    *(int *)(void *)at = (int)v;
    return ERR_OK;
}

// 32 bits: short enough to read aloud, and exact in every JSON parser.
static uint64_t random_seed(const void *otherwise)
{
    uint32_t seed = 0;
    if (getrandom(&seed, sizeof seed, GRND_NONBLOCK) != sizeof seed)
        seed = (uint32_t)(uintptr_t)otherwise ^ (uint32_t)time(NULL);
    return seed;
}

static enum err put_seed(const struct check_field *f, int64_t v, char *at, struct fault *why)
{
    if (v < -1) {
        char got[24];
        snprintf(got, sizeof got, "%lld", (long long)v);
        return refuse(why, f, "-1 (random) or an integer from 0 to 9223372036854775807", got);
    }
    *(uint64_t *)(void *)at = v >= 0 ? (uint64_t)v : random_seed(at);
    return ERR_OK;
}

static enum err put_size(const struct check_field *f, const char *s, char *at, struct fault *why)
{
    struct check_size size = {0, 0};
    char *end;
    if (strcmp(s, "auto")) {
        // strtol alone would accept signs and spaces.
        const bool digits = *s && !s[strspn(s, "0123456789x")] && *s != 'x';
        const long w = strtol(s, &end, 10);
        const long h = *end == 'x' ? strtol(end + 1, &end, 10) : w;
        if (!digits || *end || s[strlen(s) - 1] == 'x')
            return refuse_text(why, f, "auto, an edge in pixels, or a size such as 512x768", s);
        if (w < (long)f->min || w > (long)f->max || h < (long)f->min || h > (long)f->max)
            return refuse_range(why, f, "auto or WIDTHxHEIGHT, each", s);
        size = (struct check_size){(int)w, (int)h};
    }
    *(struct check_size *)(void *)at = size;
    return ERR_OK;
}

static enum err put_time(const struct check_field *f, const char *s, char *at, struct fault *why)
{
    struct tm tm = {0};
    const char *end = strptime(s, "%Y-%m-%dT%H:%M:%S", &tm);
    double fraction = 0;
    if (end && *end == '.') {
        char *after;
        fraction = strtod(end, &after);
        end = after;
    }
    const int64_t seconds = end ? (int64_t)timegm(&tm) : -1;
    if (seconds < 0 || strcmp(end, "Z"))
        return refuse_text(why, f, "a time such as 2030-01-31T12:00:00Z, or Unix seconds", s);
    *(int64_t *)(void *)at = seconds * 1000 + llround(fraction * 1000);
    return ERR_OK;
}

// ---- from JSON ----------------------------------------------------------------------------------

static enum err read_list(const struct check_field *f, const struct json_t *v, char *at,
                          struct fault *why)
{
    const bool ints = f->type == CHECK_INTS;
    const size_t width = ints ? sizeof(int) : sizeof(float);
    const enum json_kind kind = json_kind(v);
    const size_t n = kind == JSON_LIST ? json_count(v) : 1;
    const char *const want =
        ints ? "an integer or a list of up to 3" : "a number or a list of up to 3";
    if (n < 1 || n > CHECK_LIST)
        return refuse_json(why, f, want, v);
    for (size_t i = 0; i < n; i++) {
        const struct json_t *item = kind == JSON_LIST ? json_item(v, i) : v;
        const enum json_kind k = json_kind(item);
        enum err err;
        if (kind == JSON_LIST && k == JSON_NONE)
            continue;
        if (k != JSON_INT && (ints || k != JSON_NUMBER))
            return refuse_json(why, f, want, v);
        err = ints ? put_int(f, json_int(item), at + i * width, why)
                   : put_number(f, json_number(item), at + i * width, why);
        if (err)
            return err;
    }
    return ERR_OK;
}

// Error for a value of the wrong JSON type.
static enum err refuse_kind(struct fault *why, const struct check_field *f, const struct json_t *v)
{
    char got[48];
    switch (f->type) {
    case CHECK_INT: json_show(v, got, sizeof got); return refuse_range(why, f, "an integer", got);
    case CHECK_NUMBER: json_show(v, got, sizeof got); return refuse_range(why, f, "a number", got);
    case CHECK_BOOL: return refuse_json(why, f, "true or false", v);
    case CHECK_SEED: return refuse_json(why, f, "an integer", v);
    default: return refuse_json(why, f, "a string", v);
    }
}

// Checks the form of a file field; the route parses its contents.
static enum err check_file(const struct check_field *f, const struct json_t *v, struct fault *why)
{
    const bool list = json_kind(v) == JSON_LIST && f->max > 1;
    const size_t n = list ? json_count(v) : 1;
    if (f->min > 0 && (!n || (double)n > f->max))
        return fault_set(why, ERR_INVALID, f->name, "\"%s\" must have 1 to %g images, not %zu",
                         f->name, f->max, n);
    for (size_t i = 0; i < n; i++) {
        const struct json_t *item = list ? json_item(v, i) : v;
        if (json_kind(item) != JSON_TEXT && json_kind(item) != JSON_MAP)
            return refuse_json(why, f, "a string or an object", item);
    }
    return ERR_OK;
}

static enum err read_value(const struct check_field *f, const struct json_t *v, char *at,
                           struct fault *why)
{
    const enum json_kind kind = json_kind(v);
    size_t n = 0;
    const char *text = json_text(v, &n);
    char shown[48];
    switch (f->type) {
    case CHECK_TEXT:
    case CHECK_CHARS: return text ? put_text(f, text, n, at, why) : refuse_kind(why, f, v);
    case CHECK_ENUM:
        if (!text || strlen(text) != n) // text after an embedded NUL counts too
            return refuse_json(why, f, text ? "a string without NUL" : "a string", v);
        return put_enum(f, text, at, why);
    case CHECK_SIZE: // an integer is parsed from its decimal text, and any other kind is refused
                     // there
        json_show(v, shown, sizeof shown);
        return put_size(f, text && strlen(text) == n ? text : shown, at, why);
    case CHECK_INT:
        return kind == JSON_INT ? put_int(f, json_int(v), at, why) : refuse_kind(why, f, v);
    case CHECK_NUMBER:
        return kind == JSON_INT || kind == JSON_NUMBER ? put_number(f, json_number(v), at, why)
                                                       : refuse_kind(why, f, v);
    case CHECK_BOOL:
        if (kind != JSON_BOOL)
            return refuse_kind(why, f, v);
        *(bool *)at = json_bool(v);
        return ERR_OK;
    case CHECK_SEED:
        return kind == JSON_INT ? put_seed(f, json_int(v), at, why) : refuse_kind(why, f, v);
    case CHECK_INTS:
    case CHECK_NUMBERS: return read_list(f, v, at, why);
    case CHECK_SCALES: return check_scales_read(f, v, (struct check_scales *)(void *)at, why);
    case CHECK_TIME:
        if (kind == JSON_INT && json_int(v) > 0 && json_int(v) <= LAST_SECOND) {
            *(int64_t *)(void *)at = json_int(v) * 1000;
            return ERR_OK;
        }
        json_show(v, shown, sizeof shown);
        return put_time(f, text ? text : shown, at, why);
    case CHECK_FILE: return check_file(f, v, why);
    case CHECK_ANY: break;
    }
    return ERR_OK;
}

// ---- from text --------------------------------------------------------------------------------

static enum err read_number_text(const struct check_field *f, const char *s, char *at,
                                 struct fault *why)
{
    char *end;
    errno = 0;
    if (f->type == CHECK_NUMBER || f->type == CHECK_NUMBERS) {
        const double v = strtod(s, &end);
        return *s && !*end ? put_number(f, v, at, why) : refuse_text(why, f, "a number", s);
    }
    const long long v = strtoll(s, &end, 10);
    if (!*s || *end || errno)
        return refuse_text(why, f, "an integer", s);
    return f->type == CHECK_SEED ? put_seed(f, v, at, why) : put_int(f, v, at, why);
}

static enum err read_list_text(const struct check_field *f, const char *s, char *at,
                               struct fault *why)
{
    const size_t width = f->type == CHECK_INTS ? sizeof(int) : sizeof(float);
    char item[64];
    for (int i = 0;; i++) {
        const size_t n = strcspn(s, ",");
        if (i == CHECK_LIST || n >= sizeof item)
            return refuse_text(why, f, "up to 3 numbers", s);
        snprintf(item, sizeof item, "%.*s", (int)n, s);
        const enum err err = read_number_text(f, item, at + (size_t)i * width, why);
        if (err || !s[n])
            return err;
        s += n + 1;
    }
}

// ---- lax tables ---------------------------------------------------------------------------------
// Coerces scalars as pydantic does. Source: pydantic's conversion table for Python and JSON input.

static enum err refuse_type(struct fault *why, const struct check_field *f, const char *got)
{
    switch (f->type) {
    case CHECK_BOOL: return refuse(why, f, "true or false", got);
    case CHECK_INT: return refuse_range(why, f, "an integer", got);
    case CHECK_SEED: return refuse(why, f, "an integer", got);
    default: return refuse_range(why, f, "a number", got);
    }
}

static enum err lax_bool(const struct check_field *f, const char *s, char *at, struct fault *why)
{
    static const char *const words[] = {"false", "f", "no",  "n", "off", "0",
                                        "true",  "t", "yes", "y", "on",  "1"};
    enum { WORDS = sizeof words / sizeof *words };
    for (int i = 0; i < WORDS; i++) {
        if (strcasecmp(words[i], s))
            continue;
        *(bool *)at = i >= WORDS / 2;
        return ERR_OK;
    }
    return refuse_type(why, f, s);
}

static enum err lax_number(const struct check_field *f, const char *s, char *at, struct fault *why)
{
    char *end;
    double v;
    errno = 0;
    long long whole = strtoll(s, &end, 10);
    const bool digits = *s && !*end && !errno;
    if (!text_number(s, &v))
        return refuse_type(why, f, *s ? s : "\"\"");
    if (f->type == CHECK_NUMBER)
        return put_number(f, v, at, why);
    // A double cannot hold every digit of a large seed.
    if (!digits && (v != trunc(v) || fabs(v) > 9e15))
        return refuse_type(why, f, s);
    if (!digits)
        whole = (long long)v;
    return f->type == CHECK_SEED ? put_seed(f, whole, at, why) : put_int(f, whole, at, why);
}

static bool is_scalar(const struct check_field *f)
{
    return f->type == CHECK_INT || f->type == CHECK_SEED || f->type == CHECK_NUMBER ||
           f->type == CHECK_BOOL;
}

static bool is_lax(const struct check_table *t, const struct check_field *f)
{
    return t->lax && (is_scalar(f) || f->type == CHECK_INTS || f->type == CHECK_NUMBERS ||
                      f->type == CHECK_TIME || f->type == CHECK_SCALES);
}

static enum err read_lax(const struct check_field *f, const char *s, size_t n, char *at,
                         struct fault *why)
{
    char word[64];
    while (n && isspace((unsigned char)s[n - 1]))
        n--;
    for (; n && isspace((unsigned char)*s); n--)
        s++;
    if (n >= sizeof word || memchr(s, 0, n))
        return refuse_type(why, f, s);
    memcpy(word, s, n);
    word[n] = 0;
    return f->type == CHECK_BOOL ? lax_bool(f, word, at, why) : lax_number(f, word, at, why);
}

// A list in text is 3,2 or, as in JSON, [3,2].
static enum err read_lax_list(const struct check_field *f, const char *s, char *at,
                              struct fault *why)
{
    struct json_t *doc = NULL;
    if (*s != '[')
        return read_list_text(f, s, at, why);
    enum err err = json_parse(s, strlen(s), f->name, ERR_INVALID, &doc, NULL);
    err = err ? refuse_text(why, f, "up to 3 numbers, such as 3,2 or [3,2]", s)
              : read_list(f, doc, at, why);
    json_destroy(&doc);
    return err;
}

// Lists and times, which forms can only send as text.
static enum err read_lax_text(const struct check_field *f, const char *s, char *at,
                              struct fault *why)
{
    if (f->type == CHECK_SCALES)
        return check_scales_read_text(f, s, (struct check_scales *)(void *)at, why);
    if (f->type != CHECK_TIME)
        return read_lax_list(f, s, at, why);
    const bool seconds = *s && !s[strspn(s, "0123456789")] && strlen(s) <= 12;
    if (!seconds || strtoll(s, NULL, 10) > LAST_SECOND)
        return put_time(f, s, at, why);
    *(int64_t *)(void *)at = strtoll(s, NULL, 10) * 1000;
    return ERR_OK;
}

static enum err read_lax_json(const struct check_field *f, const struct json_t *v, char *at,
                              struct fault *why)
{
    char text[64];
    size_t n = 0;
    const char *s = json_text(v, &n);
    if (!is_scalar(f))
        return s && strlen(s) == n ? read_lax_text(f, s, at, why) : read_value(f, v, at, why);
    switch (json_kind(v)) {
    case JSON_TEXT: return read_lax(f, s, n, at, why);
    case JSON_BOOL: snprintf(text, sizeof text, "%d", json_bool(v)); break;
    case JSON_INT: snprintf(text, sizeof text, "%lld", (long long)json_int(v)); break;
    case JSON_NUMBER: snprintf(text, sizeof text, "%.17g", json_number(v)); break;
    default: json_show(v, text, sizeof text); return refuse_type(why, f, text);
    }
    return read_lax(f, text, strlen(text), at, why);
}

// HTML forms send "" for empty inputs. Tables that are not strict accept that where "" cannot be a
// valid value.
static bool is_unset(const struct check_table *t, const struct check_field *f,
                     const struct json_t *v)
{
    size_t n = 0;
    if (json_kind(v) == JSON_NONE)
        return f->flags & (CHECK_NULL | CHECK_IGNORED);
    if (t->strict || !(f->flags & CHECK_NULL) || !json_text(v, &n) || n)
        return false;
    return f->type == CHECK_ENUM || f->type == CHECK_SIZE || f->type == CHECK_SCALES ||
           (f->type == CHECK_TEXT && f->min > 0);
}

static enum err read_field(const struct check_table *t, const char *name, const struct json_t *v,
                           char *out, struct fault *why)
{
    size_t offset = 0;
    const struct check_field *f = check_find(t, name, &offset);
    if (!f && t->strict)
        return fault_set(why, ERR_INVALID, name, "unknown field \"%.60s\"", name);
    if (!f || is_unset(t, f, v))
        return ERR_OK;
    return is_lax(t, f) ? read_lax_json(f, v, out + offset, why)
                        : read_value(f, v, out + offset, why);
}

enum err check_object(const struct check_table *t, const struct json_t *object, void *out,
                      struct fault *why)
{
    void *at = NULL;
    const char *name;
    const struct json_t *v;
    const struct check_field *f;
    check_defaults(t, out);
    if (json_kind(object) != JSON_MAP)
        return fault_set(why, ERR_INVALID, "", "the request body must be a JSON object");
    while (json_next(object, &at, &name, &v)) {
        const enum err err = read_field(t, name, v, out, why);
        if (err)
            return err;
    }
    for (int row = 0; (f = check_next(t, &row, NULL));)
        if (f->flags & CHECK_REQUIRED && !json_find(object, f->name))
            return fault_set(why, ERR_INVALID, f->name, "\"%s\" is required", f->name);
    return ERR_OK;
}

// ---- queries, command lines, defaults -----------------------------------------------------------

static enum err read_text(const struct check_field *f, const char *s, char *at, struct fault *why)
{
    switch (f->type) {
    case CHECK_TEXT:
    case CHECK_CHARS: return put_text(f, s, strlen(s), at, why);
    case CHECK_ENUM: return put_enum(f, s, at, why);
    case CHECK_SIZE: return put_size(f, s, at, why);
    case CHECK_INT:
    case CHECK_SEED:
    case CHECK_NUMBER: return read_number_text(f, s, at, why);
    case CHECK_INTS:
    case CHECK_NUMBERS: return read_list_text(f, s, at, why);
    case CHECK_BOOL:
        if (strcmp(s, "true") && strcmp(s, "false"))
            return refuse_text(why, f, "true or false", s);
        *(bool *)at = *s == 't';
        return ERR_OK;
    case CHECK_TIME: return put_time(f, s, at, why);
    case CHECK_SCALES: return check_scales_read_text(f, s, (struct check_scales *)(void *)at, why);
    case CHECK_FILE:
    case CHECK_ANY: break;
    }
    return ERR_OK;
}

enum err check_query(const struct check_table *t, const char *name, const char *value, void *out,
                     struct fault *why)
{
    size_t offset = 0;
    const struct check_field *f = check_find(t, name, &offset);
    if (!f)
        return t->strict
                   ? fault_set(why, ERR_INVALID, name, "unknown query parameter \"%.60s\"", name)
                   : ERR_OK;
    char *at = (char *)out + offset;
    return t->lax && is_scalar(f) ? read_lax(f, value, strlen(value), at, why)
                                  : read_text(f, value, at, why);
}

void check_defaults(const struct check_table *t, void *out)
{
    const struct check_field *f;
    size_t offset = 0;
    for (int row = 0; (f = check_next(t, &row, &offset));) {
        const bool list = f->type == CHECK_INTS || f->type == CHECK_NUMBERS;
        const size_t width = f->type == CHECK_INTS ? sizeof(int) : sizeof(float);
        for (size_t k = 0; f->def && k < (list ? CHECK_LIST : 1); k++)
            read_text(f, f->def, (char *)out + offset + k * width, NULL);
    }
}
