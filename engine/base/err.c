// Texts of the error codes, and the only function that fills a fault. Called from every layer, on
// any thread.
#include "err.h"

#include <stdio.h>
#include <string.h>

const char *err_text(enum err e)
{
    switch (e) {
#define X(id, value, name, text)                                                                   \
    case ERR_##id: return text;
        ERR_MAP(X)
#undef X
    }
    return "unknown error";
}

const char *err_name(enum err e)
{
    switch (e) {
#define X(id, value, name, text)                                                                   \
    case ERR_##id: return name;
        ERR_MAP(X)
#undef X
    }
    return "unknown";
}

const char *fault_path(const char *path)
{
    enum { SHOWN = 120 };
    size_t n = path ? strlen(path) : 0;
    const char *slash;

    if (n <= SHOWN)
        return path ? path : "";
    path += n - SHOWN;
    slash = strchr(path, '/');
    return slash ? slash + 1 : path;
}

static const char before_path[] = " \"'(=,:";

// Whether the word at `at` begins a path: it starts with a slash, or it contains two, as a path
// shortened by fault_path does.
static bool is_path(const char *at)
{
    const size_t word = strcspn(at, before_path);
    const char *slash = memchr(at, '/', word);
    return slash && (slash == at || memchr(slash + 1, '/', word - (size_t)(slash - at) - 1));
}

// Paths may contain spaces, so a path ends where the sentence continues, not at the end of the
// word.
static size_t path_length(const char *at)
{
    size_t n = 0;
    while (at[n] && !strchr("\"')", at[n]) && !(strchr(":,;", at[n]) && at[n + 1] == ' '))
        n++;
    return n;
}

bool fault_hide_paths(struct fault *f)
{
    bool hidden = strchr(f->param, '/');
    char *to = f->msg;
    if (hidden)
        f->param[0] = 0;
    for (const char *at = f->msg; *at;) {
        const bool begins = at == f->msg || strchr(before_path, at[-1]);
        if (begins && is_path(at)) {
            const char *end = at + path_length(at), *last = end;
            while (last > at && last[-1] == '/')
                last--;
            const char *name = last;
            while (name > at && name[-1] != '/')
                name--;
            memmove(to, name, (size_t)(last - name));
            to += last - name;
            at = end;
            hidden = true;
        } else {
            *to++ = *at++;
        }
    }
    *to = 0;
    return hidden;
}

enum err fault_set(struct fault *f, enum err code, const char *param, const char *fmt, ...)
{
    if (f) {
        va_list ap;
        f->code = code;
        snprintf(f->param, sizeof f->param, "%s", param ? param : "");
        va_start(ap, fmt);
        vsnprintf(f->msg, sizeof f->msg, fmt, ap);
        va_end(ap);
    }
    return code;
}
