// Spans of time in the JSON of trace viewers (ui.perfetto.dev, chrome://tracing), for the options
// --trace of `generate` and `serve`. While no trace is open, a span costs one comparison. Thread:
// any.
#ifndef IMAGEND_TRACE_H
#define IMAGEND_TRACE_H

#include "err.h"

// Starts writing spans to the file. Errors: IO; BUSY if a trace is open.
enum err trace_open(const char *path, struct fault *why);
// Completes the file. Errors: IO if something could not be written.
enum err trace_close(struct fault *why);

enum { TRACE_OWN = -1 }; // the calling thread's own track

// A span from `began` (clock_seconds) until now, with a text that says of what. Spans of one track
// must nest; those that do not get tracks of their own, from 0.
void trace_span(const char *name, double began, int track, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
// A span that may overlap others of its name, such as a request. A viewer gives each name a group
// of tracks of its own.
void trace_overlapping(const char *name, double began, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
