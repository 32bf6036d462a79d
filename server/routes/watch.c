// Writes one log line and updates the metrics for each request, and records measurements of the job
// core. Loop thread. Never sees prompts, keys or bodies.
#include "watch.h"

#include "buf.h"
#include "clock.h"
#include "http.h"
#include "log.h"
#include "metrics.h"
#include "trace.h"

#include <stdio.h>
#include <string.h>

static void log_request(struct http_request *r, const struct route *route, const char *owner,
                        double seconds)
{
    const char *path = http_path(r);
    // Anyone with a result's URL can fetch it.
    if (strstr(path, "/files/"))
        path = route ? route->path : "/v1/files/";
    // Probes arrive every few seconds and are not logged.
    const bool probe =
        !strcmp(path, "/healthz") || !strcmp(path, "/readyz") || !strcmp(path, "/metrics");
    const enum log_level level = probe ? LOG_DEBUG : LOG_INFO;
    char status[16] = "gone", ms[32], bytes[32];
    if (!log_enabled(level))
        return;
    if (http_status(r))
        snprintf(status, sizeof status, "%d", http_status(r));
    snprintf(ms, sizeof ms, "%.3f", seconds * 1e3);
    snprintf(bytes, sizeof bytes, "%zu", http_sent(r));
    const struct log_field fields[] = {
        {"method", http_method(r)},
        {"path", path},
        {"status", status},
        {"ms", ms},
        {"bytes", bytes},
        {"client", http_client(r)},
        {"key", *owner ? owner : NULL},
        {"request_id", http_id(r)},
        {"trace_id", *http_trace_id(r) ? http_trace_id(r) : NULL},
    };
    log_fields(level, "http", "request", fields, sizeof fields / sizeof fields[0]);
}

void watch_request(void *app, struct http_request *r, const struct route *route, const char *owner)
{
    const struct app *a = app;
    const double seconds = clock_seconds() - http_started(r);
    char labels[256];
    // Only routes in the table become labels: clients must not be able to create time series.
    snprintf(labels, sizeof labels, "method=\"%s\",route=\"%s\",status=\"%d\"",
             route ? route->method : "", route ? route->path : "", http_status(r));
    metric_add(a->metrics, METRIC_HTTP_REQUESTS, labels, 1);
    snprintf(labels, sizeof labels, "route=\"%s\"", route ? route->path : "");
    metric_observe(a->metrics, METRIC_HTTP_SECONDS, labels, seconds);
    log_request(r, route, owner, seconds);
    trace_overlapping("request", http_started(r), "%s %s, %d, %s", http_method(r),
                      route ? route->path : "?", http_status(r), http_id(r));
}

// A label's value may contain a device's arbitrary name.
static void add_label(struct buf *b, const char *name, const char *value)
{
    buf_printf(b, "%s%s=\"", b->len ? "," : "", name);
    for (; *value; value++) {
        if (*value == '"' || *value == '\\')
            buf_putc(b, '\\');
        if ((unsigned char)*value >= 0x20)
            buf_putc(b, *value);
    }
    buf_puts(b, "\"");
}

// Counts something that happened to a model. result: another label; "": none.
static void add_of_model(const struct app *app, enum metric id, int index, const char *result)
{
    struct buf labels = {0};
    if (!app->jobs)
        return; // the program ends
    const char *name = jobs_model_at(app->jobs, index).name;
    add_label(&labels, "model", name ? name : "");
    if (*result)
        add_label(&labels, "result", result);
    if (!labels.failed)
        metric_add(app->metrics, id, labels.data, 1);
    buf_deinit(&labels);
}

void watch_jobs(void *app, enum jobs_measure m, int which, double value)
{
    const struct app *a = app;
    char labels[64];
    snprintf(labels, sizeof labels, "stage=\"%d\"", which + 1);
    switch (m) {
    case JOBS_WAITED: metric_observe(a->metrics, METRIC_QUEUE_WAIT, "", value); break;
    case JOBS_STEP: metric_observe(a->metrics, METRIC_STEP_SECONDS, labels, value); break;
    case JOBS_OCCUPANCY: metric_observe(a->metrics, METRIC_STEP_PICTURES, labels, value); break;
    case JOBS_STAGE_DONE: metric_observe(a->metrics, METRIC_STAGE_SECONDS, labels, value); break;
    case JOBS_PICTURE:
        metric_add(a->metrics, METRIC_PICTURES, "", value);
        add_of_model(a, METRIC_MODEL_PICTURES, which, "");
        break;
    case JOBS_LOADED: add_of_model(a, METRIC_MODEL_LOADS, which, "ok"); break;
    case JOBS_LOAD_FAILED: add_of_model(a, METRIC_MODEL_LOADS, which, "failed"); break;
    case JOBS_FAILED:
        snprintf(labels, sizeof labels, "code=\"%s\"", err_name((enum err)which));
        metric_add(a->metrics, METRIC_PICTURES_FAILED, labels, value);
        break;
    case JOBS_CLAIMED: metric_add(a->metrics, METRIC_CLAIMED, "", value); break;
    case JOBS_LOST: metric_add(a->metrics, METRIC_LEASES_LOST, "", value); break;
    case JOBS_STORE_CALL:
        snprintf(labels, sizeof labels, "call=\"%s\"", jobs_call_name(which));
        metric_observe(a->metrics, METRIC_STORE_SECONDS, labels, value);
        break;
    case JOBS_STORE_FAILED:
        snprintf(labels, sizeof labels, "call=\"%s\"", jobs_call_name(which));
        metric_add(a->metrics, METRIC_STORE_FAILURES, labels, value);
        break;
    case JOBS_REBUILT: metric_add(a->metrics, METRIC_ENGINE_LOST, "", value); break;
    case JOBS_ENDED:
        snprintf(labels, sizeof labels, "state=\"%s\"", job_state_name((enum job_state)which));
        metric_add(a->metrics, METRIC_JOBS, labels, 1);
        metric_observe(a->metrics, METRIC_JOB_SECONDS, "", value);
        break;
    }
}

static void set_model(const struct app *app, int index)
{
    const struct jobs_model m = jobs_model_at(app->jobs, index);
    struct buf labels = {0};
    if (!m.name)
        return;
    add_label(&labels, "model", m.name);
    if (!labels.failed)
        metric_set(app->metrics, METRIC_MODEL_LOADED, labels.data, m.state == MODEL_LOADED);
    if (m.info && *m.info->device) {
        add_label(&labels, "device", m.info->device);
        add_label(&labels, "dtype", m.info->dtype);
        if (!labels.failed)
            metric_set(app->metrics, METRIC_MODEL, labels.data, 1);
    }
    buf_deinit(&labels);
}

void watch_metrics(struct app *app, struct buf *out)
{
    const struct jobs_stats s = jobs_stats(app->jobs);
    struct metrics *m = app->metrics;
    struct fault why;
    metric_set(m, METRIC_HTTP_CONNECTIONS, "", http_connections(app->http));
    metric_set(m, METRIC_QUEUE_PICTURES, "", s.queued);
    metric_set(m, METRIC_RUNNING_PICTURES, "", s.running);
    metric_set(m, METRIC_SLOTS, "", s.slots);
    metric_set(m, METRIC_DEVICE_BYTES, "", (double)s.worker.device_bytes);
    metric_set(m, METRIC_DEVICE_PEAK_BYTES, "", (double)s.worker.device_peak_bytes);
    metric_set(m, METRIC_TEXT_HITS, "", (double)s.worker.text_cache_hits);
    metric_set(m, METRIC_TEXT_MISSES, "", (double)s.worker.text_cache_misses);
    metric_set(m, METRIC_KEPT_JOBS, "", s.jobs);
    metric_set(m, METRIC_KEPT_BYTES, "", (double)s.kept_bytes);
    metric_set(m, METRIC_INPUT_BYTES, "", (double)s.input_bytes);
    if (s.shared) {
        metric_set(m, METRIC_FLEET_PICTURES, "state=\"queued\"", s.queued);
        metric_set(m, METRIC_FLEET_PICTURES, "state=\"running\"", s.fleet_running);
    }
    metric_set(m, METRIC_READY, "", jobs_ready(app->jobs, &why) && !app->draining);
    for (int i = 0; i < jobs_models(app->jobs); i++)
        set_model(app, i);
    metrics_text(m, out);
}
