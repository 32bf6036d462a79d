// Texts of the error codes and the one way to fill a fault. Called from every layer, any thread.
#include "err.h"

#include <stdio.h>

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
