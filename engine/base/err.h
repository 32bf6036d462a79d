// The error codes of the whole program, and the description of an error for the user. Every layer
// returns `enum err`; code that parses external input also fills a `struct fault`, which reaches
// the HTTP client or the terminal unchanged.
#ifndef IMAGEND_ERR_H
#define IMAGEND_ERR_H

#include <stdarg.h>
#include <stdbool.h>

#define ERR_MAP(X)                                                                                 \
    X(OK, 0, "ok", "success")                                                                      \
    X(INVALID, -1, "invalid", "invalid request")                                                   \
    X(NOT_FOUND, -2, "not_found", "not found")                                                     \
    X(CANCELLED, -3, "cancelled", "cancelled")                                                     \
    X(BUSY, -4, "busy", "busy")                                                                    \
    X(NO_MEMORY, -5, "no_memory", "out of memory")                                                 \
    X(NO_DEVICE_MEMORY, -6, "no_device_memory", "out of device memory")                            \
    X(DEVICE_LOST, -7, "device_lost", "the device was lost")                                       \
    X(NO_DEVICE, -8, "no_device", "no usable Vulkan device")                                       \
    X(UNSUPPORTED, -9, "unsupported", "not supported")                                             \
    X(IO, -10, "io", "input/output error")                                                         \
    X(FORMAT, -11, "format", "malformed file")                                                     \
    X(TIMEOUT, -12, "timeout", "timed out")                                                        \
    X(INTERNAL, -13, "internal", "internal error")                                                 \
    X(NOT_FINITE, -14, "not_finite", "the model computed NaN or infinity")                         \
    X(STALE, -15, "stale", "another replica has the job")

enum err {
#define X(id, value, name, text) ERR_##id = (value),
    ERR_MAP(X)
#undef X
};

// The error that the user sees: the parameter (or file) and one sentence.
struct fault {
    enum err code;
    char param[64];
    char msg[320];
};

// A fixed sentence for the code; never NULL.
const char *err_text(enum err e);

// The code's name in lower case ("no_device_memory"); never NULL.
const char *err_name(enum err e);

// The end of a path, short enough for a message; never NULL.
const char *fault_path(const char *path);

// Replaces each path in the message by its file name, because clients must not learn paths on this
// machine. Returns true if there was one.
bool fault_hide_paths(struct fault *f);

// Fills *f (may be NULL). Errors: always returns code.
enum err fault_set(struct fault *f, enum err code, const char *param, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

#endif
