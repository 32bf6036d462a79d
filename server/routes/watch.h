// Request log lines and metrics.
#ifndef IMAGEND_WATCH_H
#define IMAGEND_WATCH_H

#include "app.h"

struct buf;

// For router_params.done and jobs_params.measure; both with the app as ctx.
void watch_request(void *app, struct http_request *r, const struct route *route, const char *owner);
void watch_jobs(void *app, enum jobs_measure m, int which, double value);
// The metrics as text, with what is only known now.
void watch_metrics(struct app *app, struct buf *out);

#endif
