// Parses multipart/form-data, see multipart.h. Called by routes that accept uploads, on any thread.
#include "multipart.h"

#include "buf.h"
#include "utf8.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { MAX_BOUNDARY = 70 };
static const char form_data[] = "multipart/form-data";

struct parser {
    const char *at, *end; // the rest of the body
    char delimiter[4 + MAX_BOUNDARY + 1];
    size_t delimiter_size; // including the line break before it
    struct multipart *out;
    struct buf text; // parts hold offsets into it until it is complete
    size_t offset[MULTIPART_MAX_PARTS][3];
    struct fault *why;
};

static enum err refuse(struct parser *p, const char *what)
{
    return fault_set(p->why, ERR_INVALID, "", "part %d of the form %s", p->out->parts + 1, what);
}

// ---- header parameters -------------------------------------------------------------------------

static bool is_token(unsigned char c)
{
    return c > ' ' && c < 127 && !strchr("()<>@,;:\\\"/[]?=", c);
}

// Reads a quoted string. A backslash quotes the next character; %22, %0D and %0A, as browsers write
// them, are decoded.
static bool put_quoted(const char **at, const char *end, struct buf *out)
{
    const char *s = *at + 1;

    for (; s < end && *s != '"'; s++) {
        if (*s == '\\' && s + 1 < end && (s[1] == '"' || s[1] == '\\'))
            s++;
        else if (end - s > 2 &&
                 (!memcmp(s, "%22", 3) || !strncasecmp(s, "%0d", 3) || !strncasecmp(s, "%0a", 3))) {
            buf_putc(out, s[1] == '2' ? '"' : tolower((unsigned char)s[2]) == 'd' ? '\r' : '\n');
            s += 2;
            continue;
        }
        buf_putc(out, *s);
    }
    *at = s + 1;
    return s < end;
}

// "; name=value" or "; name=\"value\"". Returns 1, 0 at the end, -1 when it is something else.
static int next_parameter(const char **at, const char *end, struct buf *name, struct buf *value)
{
    const char *s = *at;

    buf_clear(name);
    buf_clear(value);
    while (s < end && (*s == ' ' || *s == '\t' || *s == ';'))
        s++;
    if (s == end)
        return 0;
    for (; s < end && is_token((unsigned char)*s); s++)
        buf_putc(name, (char)tolower((unsigned char)*s));
    if (!name->len || s == end || *s++ != '=')
        return -1;
    if (s < end && *s == '"') {
        if (!put_quoted(&s, end, value))
            return -1;
    } else {
        for (; s < end && *s != ';' && *s != ' ' && *s != '\t'; s++)
            buf_putc(value, *s);
    }
    *at = s;
    return 1;
}

bool multipart_is(const char *type)
{
    const size_t n = sizeof form_data - 1;

    if (!type || strncasecmp(type, form_data, n))
        return false;
    return !type[n] || type[n] == ';' || type[n] == ' ' || type[n] == '\t';
}

static bool is_boundary(const struct buf *v)
{
    static const char others[] = "'()+_,-./:=? ";

    for (size_t i = 0; i < v->len; i++)
        if (!isalnum((unsigned char)v->data[i]) && !strchr(others, v->data[i]))
            return false;
    return v->len && v->len <= MAX_BOUNDARY && v->data[v->len - 1] != ' ';
}

static enum err read_boundary(struct parser *p, const char *type)
{
    const char *at = type + sizeof form_data - 1, *end = type + strlen(type);
    struct buf name = {0}, value = {0};
    bool found = false;

    while (!found && next_parameter(&at, end, &name, &value) > 0)
        found = !strcmp(name.data, "boundary") && is_boundary(&value);
    if (found) {
        memcpy(p->delimiter, "\r\n--", 4);
        memcpy(p->delimiter + 4, value.data, value.len);
        p->delimiter_size = 4 + value.len;
    }
    buf_deinit(&name);
    buf_deinit(&value);
    return found ? ERR_OK
                 : fault_set(p->why, ERR_INVALID, "Content-Type",
                             "Content-Type multipart/form-data has no valid boundary");
}

// ---- parts -------------------------------------------------------------------------------------

// Stores a text with its NUL; returns its offset.
static size_t keep(struct parser *p, const char *s, size_t n)
{
    const size_t offset = p->text.len;

    buf_add(&p->text, s, n);
    buf_putc(&p->text, 0);
    return offset;
}

static bool is_name(const struct buf *v)
{
    return v->len <= MULTIPART_MAX_NAME && (!v->len || !memchr(v->data, 0, v->len)) &&
           utf8_valid(v->data ? v->data : "", v->len, NULL);
}

static enum err read_disposition(struct parser *p, const char *at, const char *end)
{
    static const char kind[] = "form-data";
    size_t *offset = p->offset[p->out->parts];
    struct buf name = {0}, value = {0};
    const char *wrong = NULL;
    int more = 1;

    if ((size_t)(end - at) < sizeof kind - 1 || strncasecmp(at, kind, sizeof kind - 1))
        return refuse(p, "has a Content-Disposition other than form-data");
    at += sizeof kind - 1;
    while (!wrong && (more = next_parameter(&at, end, &name, &value)) > 0) {
        const bool is_file = !strcmp(name.data, "filename");
        if (!is_file && strcmp(name.data, "name"))
            continue;
        if (!is_name(&value))
            wrong = "has a name that is not UTF-8 of at most 200 bytes";
        else if (!is_file && !value.len)
            wrong = "has an empty name";
        else if (offset[is_file])
            wrong = "has two names";
        else
            offset[is_file] = keep(p, value.data ? value.data : "", value.len);
    }
    buf_deinit(&name);
    buf_deinit(&value);
    if (more < 0)
        wrong = "has a Content-Disposition that cannot be read";
    return wrong ? refuse(p, wrong) : ERR_OK;
}

static void read_type(struct parser *p, const char *at, const char *end)
{
    const char *stop = at;

    while (stop < end && *stop != ';' && *stop != ' ' && *stop != '\t')
        stop++;
    const size_t offset = keep(p, at, (size_t)(stop - at));
    for (char *s = p->text.failed ? NULL : p->text.data + offset; s && *s; s++)
        *s = (char)tolower((unsigned char)*s);
    p->offset[p->out->parts][2] = offset;
}

// Whether the header is `name`; if so, sets *at to the start of its value.
static bool is_header(const char **at, const char *end, const char *name)
{
    const size_t n = strlen(name);

    if ((size_t)(end - *at) <= n || strncasecmp(*at, name, n) || (*at)[n] != ':')
        return false;
    *at += n + 1;
    while (*at < end && (**at == ' ' || **at == '\t'))
        ++*at;
    return true;
}

static bool is_plain_coding(const char *at, const char *end)
{
    static const char *const plain[] = {"binary", "8bit", "7bit"};

    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        if ((size_t)(end - at) == strlen(plain[i]) && !strncasecmp(at, plain[i], strlen(plain[i])))
            return true;
    return false;
}

static enum err read_header(struct parser *p, const char *at, const char *end)
{
    if (is_header(&at, end, "Content-Disposition"))
        return read_disposition(p, at, end);
    if (is_header(&at, end, "Content-Type"))
        read_type(p, at, end);
    else if (is_header(&at, end, "Content-Transfer-Encoding") && !is_plain_coding(at, end))
        return refuse(p, "has a Content-Transfer-Encoding; send its bytes as they are");
    return ERR_OK;
}

// Reads the header lines and the empty line after them.
static enum err read_headers(struct parser *p)
{
    const char *begin = p->at;

    for (;;) {
        const char *line = p->at, *stop = memmem(line, (size_t)(p->end - line), "\r\n", 2);
        if (!stop && p->end - begin <= MULTIPART_MAX_HEADER)
            return refuse(p, "is truncated");
        if (!stop || (stop > line && stop - begin > MULTIPART_MAX_HEADER))
            return refuse(p, "has headers of more than 4096 bytes");
        p->at = stop + 2;
        if (stop == line)
            break;
        const enum err e = read_header(p, line, stop);
        if (e)
            return e;
    }
    return p->offset[p->out->parts][0] ? ERR_OK : refuse(p, "has no name");
}

// Reads the end of a delimiter: *more is true at the start of a part, false after the last part.
static enum err after_delimiter(struct parser *p, bool *more)
{
    *more = false;
    if (p->end - p->at >= 2 && !memcmp(p->at, "--", 2))
        return ERR_OK;
    while (p->at < p->end && (*p->at == ' ' || *p->at == '\t'))
        p->at++;
    if (p->end - p->at < 2)
        return refuse(p, "is truncated");
    if (memcmp(p->at, "\r\n", 2))
        return refuse(p, "does not begin on a new line");
    p->at += 2;
    *more = true;
    return ERR_OK;
}

static enum err read_part(struct parser *p, bool *more)
{
    struct multipart_part *part = &p->out->part[p->out->parts];
    const char *stop;
    enum err e;

    if (p->out->parts == MULTIPART_MAX_PARTS)
        return fault_set(p->why, ERR_INVALID, "", "the form has more than %d parts",
                         MULTIPART_MAX_PARTS);
    e = read_headers(p);
    if (e)
        return e;
    // An empty part may lack the line break before the delimiter.
    if ((size_t)(p->end - p->at) >= p->delimiter_size - 2 &&
        !memcmp(p->at, p->delimiter + 2, p->delimiter_size - 2))
        p->at -= 2;
    stop = memmem(p->at, (size_t)(p->end - p->at), p->delimiter, p->delimiter_size);
    if (!stop)
        return refuse(p, "is truncated");
    part->data = (const uint8_t *)p->at;
    part->size = stop > p->at ? (size_t)(stop - p->at) : 0;
    p->at = stop + p->delimiter_size;
    p->out->parts++;
    return after_delimiter(p, more);
}

static enum err parse(struct parser *p, const char *type)
{
    bool more = true;
    enum err e = read_boundary(p, type);

    if (e)
        return e;
    keep(p, "", 0); // so that no name has offset 0
    // Text before the first delimiter is not part of the form.
    const char *first = p->delimiter + 2;
    const size_t n = p->delimiter_size - 2;
    if ((size_t)(p->end - p->at) >= n && !memcmp(p->at, first, n)) {
        p->at += n;
    } else {
        const char *at = memmem(p->at, (size_t)(p->end - p->at), p->delimiter, p->delimiter_size);
        if (!at)
            return fault_set(p->why, ERR_INVALID, "",
                             "the request body does not contain the boundary of its Content-Type");
        p->at = at + p->delimiter_size;
    }
    e = after_delimiter(p, &more);
    while (!e && more)
        e = read_part(p, &more);
    return e;
}

enum err multipart_parse(const char *content_type, const void *body, size_t size,
                         struct multipart *out, struct fault *why)
{
    const char *at = body ? body : "";
    struct parser p = {.at = at, .end = at + size, .out = out, .why = why};

    memset(out, 0, sizeof *out);
    if (!multipart_is(content_type))
        return fault_set(why, ERR_INVALID, "Content-Type",
                         "Content-Type must be multipart/form-data");
    enum err e = parse(&p, content_type);
    if (!e && p.text.failed)
        e = fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    if (e) {
        buf_deinit(&p.text);
        out->parts = 0;
        return e;
    }
    out->text = buf_take(&p.text);
    for (int i = 0; i < out->parts; i++) {
        struct multipart_part *part = &out->part[i];
        part->name = out->text + p.offset[i][0];
        part->filename = p.offset[i][1] ? out->text + p.offset[i][1] : NULL;
        part->type = out->text + p.offset[i][2];
    }
    return ERR_OK;
}

void multipart_deinit(struct multipart *m)
{
    free(m->text);
    memset(m, 0, sizeof *m);
}

const struct multipart_part *multipart_find(const struct multipart *m, const char *name, int index)
{
    const size_t n = strlen(name);
    for (int i = 0; i < m->parts; i++) {
        const char *s = m->part[i].name;
        if (!strncmp(s, name, n) && (!s[n] || !strcmp(s + n, "[]")) && !index--)
            return &m->part[i];
    }
    return NULL;
}
