// Decides when to call a job's webhook, with which body, and how often to retry. Loop thread. The
// progress is stored with the job, so that retries continue after a restart; a call may be made
// twice, but is never skipped before the retries are used up.
#include "jobs_impl.h"

#include "buf.h"
#include "clock.h"
#include "log.h"
#include "text.h"
#include "webhook.h"

#include <stdlib.h>

enum { WEBHOOK_TRIES = 6, WEBHOOK_FIRST_MS = 1000 };

static char *webhook_body(const struct job *job)
{
    struct buf b = {0};
    buf_printf(&b,
               "{\"id\":\"%s\",\"object\":\"job\",\"status\":\"%s\",\"created\":%.3f,"
               "\"finished\":%.3f,\"images\":[",
               job->id, job_state_name(job->state), (double)job->created * 1e-3,
               (double)job->finished * 1e-3);
    for (int i = 0; job->state == JOB_DONE && i < job->spec.n; i++)
        buf_printf(&b,
                   "%s{\"index\":%d,\"width\":%d,\"height\":%d,\"href\":\"/v1/jobs/%s/images/%d\"}",
                   i ? "," : "", i, job->picture[i].width, job->picture[i].height, job->id, i);
    buf_puts(&b, "],\"error\":");
    if (job->state == JOB_FAILED) {
        buf_printf(&b, "{\"code\":\"%s\",\"message\":", err_name(job->fault.code));
        text_json(&b, job->fault.msg);
        buf_puts(&b, "}}");
    } else {
        buf_puts(&b, "null}");
    }
    return buf_take(&b);
}

static void on_noted(struct store_call *c)
{
    struct job *job = c->ctx;
    jobs_called(job->core, c);
    job->pins--;
    const bool stale = c->why.code == ERR_STALE && c->job->lease == job->lease;
    if (c->why.code && c->why.code != ERR_STALE)
        log_msg(LOG_ERROR, "store", "%s: %s", job->id, c->why.msg);
    store_call_free(c);
    if (stale)
        jobs_lost(job->core, job);
    else
        jobs_settle(job->core, job);
}

static void webhook_note(struct jobs *j, struct job *job)
{
    struct store_call *c = job->stored ? store_call_about(STORE_NOTE, job, on_noted, job) : NULL;
    if (!c)
        return;
    job->pins++;
    jobs_call(j, c);
}

static void on_done(void *ctx, const char *id, bool ok)
{
    struct jobs *j = ctx;
    struct job *job = jobs_live(j, id);
    if (!job)
        return;
    job->webhook_sending = false;
    if (!ok && ++job->webhook_tries < WEBHOOK_TRIES) {
        job->webhook_next =
            clock_unix_ms() + ((int64_t)WEBHOOK_FIRST_MS << (2 * (job->webhook_tries - 1)));
    } else {
        job->webhook_next = 0;
        log_msg(ok ? LOG_INFO : LOG_WARN, "webhook", "%s: %s", id,
                ok ? "delivered" : "delivery failed, giving up");
    }
    job->pins++;
    webhook_note(j, job);
    job->pins--;
    jobs_settle(j, job);
}

enum err jobs_webhook_open(struct jobs *j, struct fault *why)
{
    const struct jobs_webhook *w = &j->p.webhook;
    const struct webhook_params p = {.loop = j->p.loop,
                                     .allow = w->allow,
                                     .secret = w->secret,
                                     .sign = w->sign,
                                     .done = on_done,
                                     .ctx = j};
    return w->allow && *w->allow ? webhook_create(&p, &j->webhook, why) : ERR_OK;
}

void jobs_set_webhook_secret(struct jobs *j, const char *secret)
{
    if (j->webhook && webhook_set_secret(j->webhook, secret))
        log_msg(LOG_ERROR, "webhook", "cannot change the secret: %s", err_text(ERR_NO_MEMORY));
}

void jobs_webhooks(struct jobs *j, int64_t now)
{
    for (struct job *job = j->newest; j->webhook && job; job = job->older) {
        if (!job->webhook_next || job->webhook_next > now || job->webhook_sending ||
            !job_ended(job) || !job_here(job))
            continue;
        char *body = webhook_body(job);
        job->webhook_sending =
            body && !webhook_send(j->webhook, job->id, job->spec.webhook_url, body);
        free(body);
    }
}
