// Shared by the files of the native API; writes a job as JSON. Loop thread.
#ifndef IMAGEND_NATIVE_H
#define IMAGEND_NATIVE_H

#include "asking.h"

struct buf;

// Looks up the job named in the path, if it belongs to the caller; otherwise responds with 404.
// image: as in jobs_lookup.
void native_find(struct call *c, int image, asking_fn *then);
void native_add_job(struct call *c, const struct job *j, struct buf *b);
// Estimated seconds until a queued job is done.
double native_estimate(const struct app *app, const struct job *j);
void native_events(struct call *c);

struct native_capabilities_fields {
    const char *model;
    bool vocabulary;
};
extern const struct check_table native_capabilities_check;
void native_capabilities(struct call *c);

#endif
