// Handlers that wait for the job core: it answers later, since it may have to ask the store. Loop
// thread.
#ifndef IMAGEND_ASKING_H
#define IMAGEND_ASKING_H

#include "app.h"

// Answers the call, or waits for something else.
typedef void asking_fn(struct call *c, struct job *job);

// Submits the job, with the call's owner and id. then is called with it once it is accepted, or
// with the one that the same Idempotency-Key made before; otherwise the call is answered.
void asking_submit(struct call *c, const struct job_spec *spec, asking_fn *then);
// Looks up a job; missing answers the call if there is none.
void asking_job(struct call *c, const struct jobs_lookup *what, asking_fn *then,
                void (*missing)(struct call *c));
// For router_auth.spend.
void asking_spend(struct call *c, void (*then)(struct call *c));
// Looks up the oldest unfinished job that the call's client created by an API.
void asking_current(struct call *c, const char *api, asking_fn *then,
                    void (*missing)(struct call *c));
// Deletes a finished job, and answers the call.
void asking_remove(struct call *c, struct job *job);

#endif
