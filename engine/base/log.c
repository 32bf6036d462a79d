// Formats log records and writes each with one write(2), so that lines of different threads do not
// interleave. Called from any thread; knows nothing about requests or devices.
#include "log.h"

#include "buf.h"
#include "clock.h"
#include "text.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static atomic_int current_level = LOG_INFO;
static atomic_int current_format = LOG_TEXT;
static const char *const level_names[] = {"error", "warn", "info", "debug"};

void log_setup(enum log_level level, enum log_format format)
{
    atomic_store(&current_level, (int)level);
    atomic_store(&current_format, (int)format);
}

bool log_enabled(enum log_level level)
{
    return (int)level <= atomic_load(&current_level);
}

static void log_time(struct buf *b)
{
    const int64_t ms = clock_unix_ms();
    const time_t s = (time_t)(ms / 1000);
    struct tm tm;
    gmtime_r(&s, &tm);
    buf_printf(b, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", tm.tm_year + 1900, tm.tm_mon + 1,
               tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, (int)(ms % 1000));
}

// A value is quoted if it could be read as two fields or break the line.
static void log_text_value(struct buf *b, const char *v)
{
    if (*v && !strpbrk(v, " \t\r\n\"=\\") && strlen(v) < 200)
        buf_puts(b, v);
    else
        text_json(b, v);
}

void log_fields(enum log_level level, const char *part, const char *msg,
                const struct log_field *fields, int n)
{
    if (!log_enabled(level))
        return;
    struct buf b = {0};
    const bool json = atomic_load(&current_format) == LOG_JSON;
    buf_puts(&b, json ? "{\"time\":\"" : "");
    log_time(&b);
    if (json) {
        buf_printf(&b, "\",\"level\":\"%s\",\"part\":\"%s\",\"msg\":", level_names[level], part);
        text_json(&b, msg);
    } else {
        buf_printf(&b, " %-5s %s: %s", level_names[level], part, msg);
    }
    for (int i = 0; i < n; i++) {
        if (!fields[i].value)
            continue;
        buf_printf(&b, json ? ",\"%s\":" : " %s=", fields[i].key);
        if (json)
            text_json(&b, fields[i].value);
        else
            log_text_value(&b, fields[i].value);
    }
    buf_puts(&b, json ? "}\n" : "\n");
    // A failed write to the log cannot be reported anywhere.
    if (!b.failed && write(STDERR_FILENO, b.data, b.len) < 0)
        b.failed = true;
    buf_deinit(&b);
}

void log_msg(enum log_level level, const char *part, const char *fmt, ...)
{
    if (!log_enabled(level))
        return;
    char msg[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    log_fields(level, part, msg, NULL, 0);
}
