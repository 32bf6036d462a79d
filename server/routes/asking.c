// Waiting for the job core, see asking.h. A client that leaves meanwhile is forgotten.
#include "asking.h"

#include "auth.h"
#include "http.h"

#include <stdlib.h>

struct asking {
    struct call *call;
    struct jobs_ask *ask;
    asking_fn *then;
    void (*allowed)(struct call *c);
    void (*missing)(struct call *c);
};

static void on_gone(void *ctx)
{
    struct asking *a = ctx;
    jobs_forget(a->ask);
    free(a);
}

static struct asking *asking_create(struct call *c, asking_fn *then)
{
    struct asking *a = calloc(1, sizeof *a);
    if (!a) {
        call_error(c, 500, NULL, NULL, "%s", err_text(ERR_NO_MEMORY));
        return NULL;
    }
    a->call = c;
    a->then = then;
    http_defer(c->http, on_gone, a);
    return a;
}

static void asking_end(struct asking *a)
{
    http_defer(a->call->http, NULL, NULL);
    free(a);
}

static void on_submitted(void *ctx, struct job *job, const struct fault *why)
{
    struct asking *a = ctx;
    struct call *c = a->call;
    asking_fn *then = a->then;
    asking_end(a);
    if (job)
        then(c, job);
    else
        draw_refuse(c, why);
}

void asking_submit(struct call *c, const struct job_spec *spec, asking_fn *then)
{
    const struct app *app = c->app;
    struct asking *a = asking_create(c, then);
    struct job_spec full = *spec;
    if (!a)
        return;
    full.owner = c->owner;
    full.request_id = http_id(c->http);
    jobs_submit(app->jobs, &full, on_submitted, a, &a->ask);
}

static void on_found(void *ctx, struct job *job, const struct fault *why)
{
    struct asking *a = ctx;
    struct call *c = a->call;
    asking_fn *then = a->then;
    void (*missing)(struct call *c) = a->missing;
    asking_end(a);
    if (job)
        then(c, job);
    else if (why->code == ERR_NOT_FOUND)
        missing(c);
    else
        call_fault(c, why, 1);
}

void asking_job(struct call *c, const struct jobs_lookup *what, asking_fn *then,
                void (*missing)(struct call *c))
{
    const struct app *app = c->app;
    struct asking *a = asking_create(c, then);
    if (!a)
        return;
    a->missing = missing;
    jobs_find(app->jobs, what, on_found, a, &a->ask);
}

void asking_current(struct call *c, const char *api, asking_fn *then,
                    void (*missing)(struct call *c))
{
    const struct app *app = c->app;
    const struct jobs_who who = {c->owner, http_client(c->http), api};
    struct asking *a = asking_create(c, then);
    if (!a)
        return;
    a->missing = missing;
    jobs_current(app->jobs, &who, on_found, a, &a->ask);
}

static void on_removed(void *ctx, struct job *none, const struct fault *why)
{
    struct asking *a = ctx;
    struct call *c = a->call;
    asking_end(a);
    if (why)
        call_fault(c, why, 1);
    else
        http_reply(c->http, 204, NULL, NULL);
}

void asking_remove(struct call *c, struct job *job)
{
    const struct app *app = c->app;
    struct asking *a = asking_create(c, NULL);
    if (a)
        jobs_remove(app->jobs, job, on_removed, a, &a->ask);
}

static void on_spent(void *ctx, double wait, const struct fault *why)
{
    struct asking *a = ctx;
    struct call *c = a->call;
    void (*allowed)(struct call *c) = a->allowed;
    asking_end(a);
    if (why)
        call_fault(c, why, 1);
    else if (wait > 0)
        call_over_rate(c, wait);
    else
        allowed(c);
}

void asking_spend(struct call *c, void (*then)(struct call *c))
{
    const struct app *app = c->app;
    struct jobs_rate rate = {.owner = c->owner};
    if (!jobs_stats(app->jobs).shared ||
        !auth_rate(app->auth, c->owner, &rate.per_second, &rate.burst)) {
        then(c);
        return;
    }
    struct asking *a = asking_create(c, NULL);
    if (!a)
        return;
    a->allowed = then;
    jobs_spend(app->jobs, &rate, on_spent, a, &a->ask);
}
