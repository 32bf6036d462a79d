// The program's log: one line per record on stderr, as text for people or as JSON for log
// collectors. Libraries below the server return errors instead of logging; the code that handles an
// error logs it.
#ifndef IMAGEND_LOG_H
#define IMAGEND_LOG_H

#include <stdbool.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };
enum log_format { LOG_TEXT, LOG_JSON };

struct log_field {
    const char *key;
    const char *value; // NULL: the field is omitted
};

// Applies to later records. Thread: any.
void log_setup(enum log_level level, enum log_format format);
bool log_enabled(enum log_level level);

// Writes one record; part names the module. Thread: any.
void log_msg(enum log_level level, const char *part, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void log_fields(enum log_level level, const char *part, const char *msg,
                const struct log_field *fields, int n);

#endif
