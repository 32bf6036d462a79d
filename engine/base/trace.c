// See trace.h. Spans are written when they end, under one lock, and at once: a program that is
// killed leaves those that it had ended.
#include "trace.h"

#include "clock.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct {
    pthread_mutex_t lock;
    _Atomic(FILE *) file;
    double began;              // of the trace
    bool any;                  // some span was written
    unsigned long overlapping; // spans so far, which are their ids
} trace = {.lock = PTHREAD_MUTEX_INITIALIZER};

enum err trace_open(const char *path, struct fault *why)
{
    if (atomic_load(&trace.file))
        return fault_set(why, ERR_BUSY, "trace", "a trace is already being written");
    FILE *f = fopen(path, "w");
    if (!f)
        return fault_set(why, ERR_IO, "trace", "cannot write the trace \"%.200s\": %s", path,
                         strerror(errno));
    fputs("{\"traceEvents\": [", f);
    trace.began = clock_seconds();
    trace.any = false;
    atomic_store(&trace.file, f);
    return ERR_OK;
}

enum err trace_close(struct fault *why)
{
    pthread_mutex_lock(&trace.lock);
    FILE *f = atomic_exchange(&trace.file, NULL);
    pthread_mutex_unlock(&trace.lock);
    if (!f)
        return ERR_OK;
    fputs("\n], \"displayTimeUnit\": \"ms\"}\n", f);
    const bool failed = ferror(f);
    if (fclose(f) || failed)
        return fault_set(why, ERR_IO, "trace", "the trace could not be written completely");
    return ERR_OK;
}

static void put_text(FILE *f, const char *text)
{
    for (; *text; text++)
        if (*text == '"' || *text == '\\')
            fprintf(f, "\\%c", *text);
        else if ((unsigned char)*text < ' ')
            fprintf(f, "\\u%04x", *text);
        else
            fputc(*text, f);
}

void trace_span(const char *name, double began, int track, const char *fmt, ...)
{
    char what[200];
    if (!atomic_load(&trace.file))
        return;
    const double now = clock_seconds();
    const long thread = syscall(SYS_gettid);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    pthread_mutex_lock(&trace.lock);
    FILE *f = atomic_load(&trace.file);
    if (f) {
        fprintf(f, "%s\n{\"name\": \"%s\", \"ph\": \"X\", \"ts\": %.1f, \"dur\": %.1f, ",
                trace.any ? "," : "", name, (began - trace.began) * 1e6, (now - began) * 1e6);
        // A viewer shows each thread as a process, with the thread's numbered tracks inside.
        fprintf(f, "\"pid\": %ld, \"tid\": %ld, \"args\": {\"of\": \"", thread,
                track == TRACE_OWN ? thread : track);
        put_text(f, what);
        fputs("\"}}", f);
        fflush(f);
        trace.any = true;
    }
    pthread_mutex_unlock(&trace.lock);
}

// One end of an overlapping span; phase: b or e. A viewer finds the pair by category and id.
static void put_end(FILE *f, const char *name, char phase, double at)
{
    fprintf(f,
            "%s\n{\"name\": \"%s\", \"cat\": \"%s\", \"ph\": \"%c\", \"id\": %lu, \"ts\": %.1f, ",
            trace.any ? "," : "", name, name, phase, trace.overlapping, (at - trace.began) * 1e6);
    fprintf(f, "\"pid\": %ld, \"tid\": %ld", (long)getpid(), (long)getpid());
    trace.any = true;
}

void trace_overlapping(const char *name, double began, const char *fmt, ...)
{
    char what[200];
    if (!atomic_load(&trace.file))
        return;
    const double now = clock_seconds();
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    pthread_mutex_lock(&trace.lock);
    FILE *f = atomic_load(&trace.file);
    if (f) {
        trace.overlapping++;
        put_end(f, name, 'b', began);
        fputs(", \"args\": {\"of\": \"", f);
        put_text(f, what);
        fputs("\"}}", f);
        put_end(f, name, 'e', now);
        fputs("}", f);
        fflush(f);
    }
    pthread_mutex_unlock(&trace.lock);
}
