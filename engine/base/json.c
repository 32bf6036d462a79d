// Strict JSON over jansson, see json.h. Callers: config files, safetensors headers, requests,
// tests. The only file that uses jansson's types. Thread: a document belongs to one thread at a
// time.
#include "json.h"

#include "buf.h"
#include "file.h"

#include <errno.h>
#include <float.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { INT_DIGITS = 18 }; // every integer with this many digits fits 64 bits

// ---- parsing --------------------------------------------------------------------------------

static size_t string_end(const char *s, size_t i, size_t n)
{
    for (i++; i < n && s[i] != '"'; i++)
        if (s[i] == '\\')
            i++;
    return i < n ? i : n - 1;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

// Whether the number that starts at i is a plain integer that may not fit 64 bits; *end is set past
// its digits.
static bool long_integer(const char *s, size_t i, size_t n, size_t *end)
{
    size_t e = i;
    while (e < n && is_digit(s[e]))
        e++;
    *end = e;
    return e - i > INT_DIGITS && (e == n || (s[e] != '.' && s[e] != 'e' && s[e] != 'E'));
}

// Checks the nesting depth and rewrites Python's extended numbers as standard ones. out holds the
// rewritten text; it stays empty if nothing had to be rewritten.
static bool scan(const char *s, size_t n, bool python, struct buf *out)
{
    static const char inf[] = "Infinity", huge[] = "1.7976931348623157e308";
    size_t done = 0, end, len = sizeof inf - 1;
    int depth = 0;

    for (size_t i = 0; i < n; i++) {
        if (s[i] == '"') {
            i = string_end(s, i, n);
        } else if (s[i] == '{' || s[i] == '[') {
            if (++depth > JSON_MAX_DEPTH)
                return false;
        } else if (s[i] == '}' || s[i] == ']') {
            depth--;
        } else if (python && s[i] == 'I' && n - i >= len && !memcmp(s + i, inf, len)) {
            buf_add(out, s + done, i - done);
            buf_puts(out, huge);
            i += len - 1;
            done = i + 1;
        } else if (is_digit(s[i])) {
            bool is_long = long_integer(s, i, n, &end);
            if (python && is_long) {
                buf_add(out, s + done, end - done);
                buf_puts(out, "e0");
                done = end;
            }
            i = end - 1;
        }
    }
    if (done)
        buf_add(out, s + done, n - done);
    return true;
}

// ---- long strings -------------------------------------------------------------------------------

// jansson takes 60 ns per character, so an image in base64 would hold up the caller for seconds.
// Long strings of ASCII are cut out, each replaced by a NUL and its number, and put back into the
// document.
enum { LONG_STRING = 16 << 10, PLACE_DIGITS = 8 };
static const char place_mark[] = "\\u0000"; // in JSON

struct long_string {
    const char *text;
    size_t size;
    bool escaped;
};

// The escapes that encoders put into base64: some write "/" as "\/", others break lines.
static char unescape(char c)
{
    return c == '/' ? '/' : c == 'n' ? '\n' : c == 'r' ? '\r' : 0;
}

// Whether it is ASCII with no other escapes than these.
static bool is_simple(const struct long_string *l)
{
    const char *end = l->text + l->size;
    unsigned bad = 0;

    for (size_t i = 0; i < l->size; i++) {
        const unsigned char c = (unsigned char)l->text[i];
        bad |= (unsigned)(c < ' ') | (unsigned)(c > 126);
    }
    for (const char *at = l->text; !bad && l->escaped; at += 2) {
        at = memchr(at, '\\', (size_t)(end - at));
        if (!at)
            break;
        bad = !unescape(at[1]); // at worst the quote
    }
    return !bad;
}

// The first '"' from i that ends a string; n: there is none.
static size_t closing_quote(const char *s, size_t i, size_t n)
{
    for (;;) {
        const char *at = i < n ? memchr(s + i, '"', n - i) : NULL;
        size_t slashes = 0;
        if (!at)
            return n;
        while (at - slashes > s + i && at[-1 - (ptrdiff_t)slashes] == '\\')
            slashes++;
        if (slashes % 2 == 0)
            return (size_t)(at - s);
        i = (size_t)(at - s) + 1;
    }
}

static bool is_key(const char *s, size_t i, size_t n)
{
    while (i < n && (s[i] == ' ' || s[i] == '\t' || s[i] == '\n' || s[i] == '\r'))
        i++;
    return i < n && s[i] == ':';
}

// out stays empty when there is nothing to cut; found holds the strings.
static void cut_long(const char *s, size_t n, struct buf *out, struct buf *found)
{
    size_t done = 0;

    if (n < LONG_STRING || memmem(s, n, place_mark, sizeof place_mark - 1))
        return;
    for (size_t i = 0; i < n; i++) {
        const char *quote = memchr(s + i, '"', n - i);
        if (!quote)
            break;
        const size_t begin = (size_t)(quote - s) + 1, end = closing_quote(s, begin, n);
        struct long_string one = {.text = s + begin, .size = end - begin};
        i = end;
        if (end == n || one.size < LONG_STRING || is_key(s, end + 1, n))
            continue;
        one.escaped = memchr(one.text, '\\', one.size);
        if (!is_simple(&one))
            continue;
        buf_add(out, s + done, begin - done);
        buf_printf(out, "%s%08zu", place_mark, found->len / sizeof one);
        buf_add(found, &one, sizeof one);
        done = end;
    }
    if (done)
        buf_add(out, s + done, n - done);
}

static bool is_place(const json_t *v)
{
    const char *s = json_string_value(v);
    return s && json_string_length(v) == PLACE_DIGITS + 1 && !s[0];
}

// The string that belongs in this place; NULL: out of memory.
static json_t *long_string(const json_t *place, const struct buf *found)
{
    const size_t index = strtoul(json_string_value(place) + 1, NULL, 10);
    struct long_string one;

    memcpy(&one, found->data + index * sizeof one, sizeof one);
    if (!one.escaped)
        return json_stringn_nocheck(one.text, one.size);
    struct buf plain = {0};
    for (const char *at = one.text, *end = at + one.size; at < end;) {
        const char *slash = memchr(at, '\\', (size_t)(end - at));
        buf_add(&plain, at, (size_t)((slash ? slash : end) - at));
        if (slash)
            buf_putc(&plain, unescape(slash[1]));
        at = slash ? slash + 2 : end;
    }
    json_t *whole = plain.failed ? NULL : json_stringn_nocheck(plain.data, plain.len);
    buf_deinit(&plain);
    return whole;
}

// Into the values of a list or map. jansson refuses to set NULL. False: out of memory.
static bool put_back(json_t *v, const struct buf *found)
{
    json_t *item;
    const char *key;
    size_t i;

    json_object_foreach(v, key, item)
    {
        if (is_place(item) ? json_object_set_new_nocheck(v, key, long_string(item, found)) != 0
                           : !put_back(item, found))
            return false;
    }
    json_array_foreach(v, i, item)
    {
        if (is_place(item) ? json_array_set_new(v, i, long_string(item, found)) != 0
                           : !put_back(item, found))
            return false;
    }
    return true;
}

// Likewise for a whole document, which may be one string.
static bool restore(json_t **doc, const struct buf *found)
{
    if (!is_place(*doc))
        return put_back(*doc, found);
    json_t *whole = long_string(*doc, found);
    json_decref(*doc);
    *doc = whole;
    return whole;
}

static enum err load(const char *text, size_t len, const char *what, enum err code,
                     struct json_t **out, struct fault *why)
{
    struct buf fixed = {0};
    json_error_t at;

    if (!scan(text, len, code == ERR_FORMAT, &fixed)) {
        buf_deinit(&fixed);
        return fault_set(why, code, what, "%s: JSON is nested deeper than %d levels",
                         fault_path(what), (int)JSON_MAX_DEPTH);
    }
    if (fixed.failed) {
        buf_deinit(&fixed);
        return fault_set(why, ERR_NO_MEMORY, what, "%s: out of memory", fault_path(what));
    }
    *out = json_loadb(fixed.len ? fixed.data : text, fixed.len ? fixed.len : len,
                      JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &at);
    buf_deinit(&fixed);
    if (!*out)
        return fault_set(why, code, what, "%s: line %d: %s", fault_path(what), at.line, at.text);
    return ERR_OK;
}

size_t json_structure(const char *text, size_t len)
{
    struct buf rest = {0}, found = {0};
    cut_long(text, len, &rest, &found);
    const size_t size = rest.failed || found.failed || !rest.len ? len : rest.len;
    buf_deinit(&rest);
    buf_deinit(&found);
    return size;
}

enum err json_parse(const char *text, size_t len, const char *what, enum err code,
                    struct json_t **out, struct fault *why)
{
    static const char bom[] = "\xef\xbb\xbf";
    struct buf rest = {0}, found = {0};
    enum err err = ERR_OK;

    *out = NULL;
    if (len >= 2 && (!memcmp(text, "\xff\xfe", 2) || !memcmp(text, "\xfe\xff", 2)))
        return fault_set(why, code, what, "%s: JSON must be encoded as UTF-8, not UTF-16",
                         fault_path(what));
    if (len >= 3 && !memcmp(text, bom, 3)) {
        text += 3;
        len -= 3;
    }
    cut_long(text, len, &rest, &found);
    bool complete = !rest.failed && !found.failed;
    if (complete)
        err = rest.len ? load(rest.data, rest.len, what, code, out, why)
                       : load(text, len, what, code, out, why);
    if (!err && complete && found.len)
        complete = restore(out, &found);
    if (!complete) {
        json_destroy(out);
        err = fault_set(why, ERR_NO_MEMORY, what, "%s: out of memory", fault_path(what));
    }
    buf_deinit(&rest);
    buf_deinit(&found);
    return err;
}

// Whether it contains control characters that never occur in text.
static bool is_binary(const char *s, size_t n)
{
    for (size_t i = 0; i < n && i < FILE_GUESS; i++)
        if ((unsigned char)s[i] < '\t' || ((unsigned char)s[i] > '\r' && (unsigned char)s[i] < ' '))
            return true;
    return false;
}

enum err json_parse_file(const char *path, size_t max_bytes, struct json_t **out, struct fault *why)
{
    struct buf b = {0};
    enum err e = buf_read_file(&b, path, max_bytes, why);

    *out = NULL;
    if (e == ERR_OK)
        e = json_parse(b.data ? b.data : "", b.len, path, ERR_FORMAT, out, why);
    if (e == ERR_FORMAT && b.len <= max_bytes) {
        if (is_binary(b.data, b.len))
            fault_set(why, e, path, "%s is a binary file, not JSON", fault_path(path));
        e = file_explain(path, b.data, b.len, e, why);
    }
    buf_deinit(&b);
    return e;
}

void json_destroy(struct json_t **doc)
{
    if (*doc)
        json_decref(*doc);
    *doc = NULL;
}

// ---- values ---------------------------------------------------------------------------------

enum json_kind json_kind(const struct json_t *v)
{
    if (!v)
        return JSON_ABSENT;
    switch (json_typeof(v)) {
    case JSON_OBJECT: return JSON_MAP;
    case JSON_ARRAY: return JSON_LIST;
    case JSON_STRING: return JSON_TEXT;
    case JSON_INTEGER: return JSON_INT;
    case JSON_REAL: return JSON_NUMBER;
    case JSON_TRUE:
    case JSON_FALSE: return JSON_BOOL;
    default: return JSON_NONE;
    }
}

const char *json_text(const struct json_t *v, size_t *len)
{
    if (len)
        *len = json_string_length(v);
    return json_string_value(v);
}

double json_number(const struct json_t *v)
{
    double d = json_number_value(v);
    if (!json_is_real(v) || fabs(d) < DBL_MAX)
        return d;
    return d > 0 ? INFINITY : -INFINITY;
}

int64_t json_int(const struct json_t *v)
{
    return json_integer_value(v);
}

bool json_bool(const struct json_t *v)
{
    return json_is_true(v);
}

size_t json_count(const struct json_t *v)
{
    return json_is_object(v) ? json_object_size(v) : json_array_size(v);
}

const struct json_t *json_item(const struct json_t *list, size_t i)
{
    return json_array_get(list, i);
}

const struct json_t *json_find(const struct json_t *map, const char *key)
{
    return json_object_get(map, key);
}

bool json_given(const struct json_t *map, const char *key)
{
    const enum json_kind kind = json_kind(json_find(map, key));
    return kind != JSON_ABSENT && kind != JSON_NONE;
}

bool json_next(const struct json_t *map, void **at, const char **key, const struct json_t **value)
{
    // jansson's iteration takes a non-const object but does not modify it
    struct json_t *m = (struct json_t *)(uintptr_t)map;
    *at = *at ? json_object_iter_next(m, *at) : json_object_iter(m);
    if (!*at)
        return false;
    *key = json_object_iter_key(*at);
    *value = json_object_iter_value(*at);
    return true;
}

struct json_t *json_map_create(void)
{
    return json_object();
}

bool json_put_text(struct json_t *map, const char *key, const char *text, size_t len)
{
    return !json_object_set_new(map, key, json_stringn(text, len));
}

void json_remove(struct json_t *map, const char *key)
{
    json_object_del(map, key);
}

static int write_piece(const char *piece, size_t n, void *ctx)
{
    struct buf *b = ctx;
    buf_add(b, piece, n);
    return b->failed ? -1 : 0;
}

void json_write(const struct json_t *v, struct buf *b)
{
    const size_t flags = JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(17);
    if (json_dump_callback(v, write_piece, b, flags))
        b->failed = true;
}

void json_show(const struct json_t *v, char *out, size_t n)
{
    // 15 digits, so that 0.9999 prints as 0.9999.
    const size_t flags =
        JSON_ENCODE_ANY | JSON_COMPACT | JSON_ENSURE_ASCII | JSON_REAL_PRECISION(15);
    char *s = v ? json_dumps(v, flags) : NULL;
    if (s && strlen(s) >= n && n > 4)
        snprintf(out, n, "%.*s...", (int)(n - 4), s);
    else
        snprintf(out, n, "%s", s ? s : "nothing");
    free(s);
}

// ---- reading an object ----------------------------------------------------------------------

struct json_reader json_reader(const struct json_t *v, const char *what, enum err code,
                               struct fault *why)
{
    struct json_reader r = {.map = v, .what = what, .code = code, .why = why};
    if (json_kind(v) != JSON_MAP)
        json_fail(&r, code, NULL, "must be a JSON object");
    return r;
}

enum err json_fail(struct json_reader *r, enum err code, const char *key, const char *fmt, ...)
{
    char text[256];
    va_list ap;

    if (r->err)
        return r->err;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    r->err = code;
    // a client knows what it sent; a user of files must be told which file
    if (r->code == ERR_FORMAT)
        return fault_set(r->why, code, key ? key : r->what, "%s: %s%s%s", fault_path(r->what),
                         key ? key : "", key ? " " : "", text);
    return fault_set(r->why, code, key ? key : "", "%s %s", key ? key : r->what, text);
}

static void wrong(struct json_reader *r, const char *key, const struct json_t *v, const char *want)
{
    char shown[64];
    json_show(v, shown, sizeof shown);
    json_fail(r, r->code, key, "must be %s, not %s", want, shown);
}

enum json_kind json_key(const struct json_reader *r, const char *key)
{
    return json_kind(json_find(r->map, key));
}

void json_only_keys(struct json_reader *r, const char *const *names)
{
    const struct json_t *v;
    const char *key;
    void *at = NULL;

    while (!r->err && json_next(r->map, &at, &key, &v)) {
        int i = 0;
        while (names[i] && strcmp(names[i], key))
            i++;
        if (!names[i] && key[0] != '_')
            json_fail(r, r->code == ERR_FORMAT ? ERR_UNSUPPORTED : r->code, key,
                      "is an unknown key");
    }
}

static bool int_in(struct json_reader *r, const char *key, const struct json_t *v, int64_t min,
                   int64_t max)
{
    char want[96];
    if (json_is_integer(v) && json_int(v) >= min && json_int(v) <= max)
        return true;
    snprintf(want, sizeof want, "an integer from %lld to %lld", (long long)min, (long long)max);
    wrong(r, key, v, want);
    return false;
}

int64_t json_read_int(struct json_reader *r, const char *key, int64_t def, int64_t min, int64_t max)
{
    const struct json_t *v = json_find(r->map, key);
    if (r->err || !v || !int_in(r, key, v, min, max))
        return def;
    return json_int(v);
}

double json_read_number(struct json_reader *r, const char *key, double def, double min, double max)
{
    const struct json_t *v = json_find(r->map, key);
    char want[96];

    if (r->err || !v)
        return def;
    if (json_is_number(v) && json_number(v) >= min && json_number(v) <= max)
        return json_number(v);
    snprintf(want, sizeof want, "a number from %g to %g", min, max);
    wrong(r, key, v, want);
    return def;
}

bool json_read_bool(struct json_reader *r, const char *key, bool def)
{
    const struct json_t *v = json_find(r->map, key);
    if (r->err || !v)
        return def;
    if (json_is_boolean(v))
        return json_is_true(v);
    wrong(r, key, v, "true or false");
    return def;
}

const char *json_read_text(struct json_reader *r, const char *key, const char *def)
{
    const struct json_t *v = json_find(r->map, key);
    if (r->err || !v)
        return def;
    if (!json_is_string(v))
        wrong(r, key, v, "a string");
    else if (strlen(json_string_value(v)) != json_string_length(v))
        json_fail(r, r->code, key, "must not contain a NUL character");
    else
        return json_string_value(v);
    return def;
}

int json_read_enum(struct json_reader *r, const char *key, int def, const char *const *names)
{
    const char *s = json_read_text(r, key, NULL);
    char shown[64];

    if (!s)
        return def;
    for (int i = 0; names[i]; i++)
        if (!strcmp(s, names[i]))
            return i;
    json_show(json_find(r->map, key), shown, sizeof shown);
    json_fail(r, r->code == ERR_FORMAT ? ERR_UNSUPPORTED : r->code, key, "%s is not supported",
              shown);
    return def;
}

void json_read_ints(struct json_reader *r, const char *key, int64_t def, int64_t min, int64_t max,
                    int count, int *out)
{
    const struct json_t *v = json_find(r->map, key);
    bool list = json_is_array(v);

    for (int i = 0; i < count; i++)
        out[i] = (int)def;
    if (r->err || !v)
        return;
    if (list && json_count(v) != (size_t)count) {
        json_fail(r, r->code, key, "must have %d entries, not %zu", count, json_count(v));
        return;
    }
    for (int i = 0; i < count; i++) {
        const struct json_t *x = list ? json_item(v, (size_t)i) : v;
        if (!int_in(r, key, x, min, max))
            return;
        out[i] = (int)json_int(x);
    }
}
