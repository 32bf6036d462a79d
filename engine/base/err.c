// Texts of the error codes and the one way to fill a fault. Called from every layer, any thread.
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
