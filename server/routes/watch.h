// Request log lines and metrics. Loop thread.
#ifndef IMAGEND_WATCH_H
#define IMAGEND_WATCH_H

#include "app.h"

struct buf;

// For router_params.done and jobs_params.measure; ctx of both is the app.
void watch_request(void *app, struct http_request *r, const struct route *route, const char *owner);
void watch_jobs(void *app, enum jobs_measure m, int which, double value);
// Writes the metrics as text, including values that are computed on request.
void watch_metrics(struct app *app, struct buf *out);

#endif
