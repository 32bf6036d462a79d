// Endpoints for operators: liveness, readiness, metrics. Loop thread.
#include "app.h"

#include "buf.h"
#include "http.h"
#include "text.h"
#include "watch.h"

static void healthz_get(struct call *c)
{
    struct buf b = {0};
    buf_puts(&b, "{\"status\":\"ok\"}");
    call_json(c, 200, &b);
}

static void readyz_get(struct call *c)
{
    struct app *app = c->app;
    struct fault why = {0};
    struct buf b = {0};
    const bool ready = jobs_ready(app->jobs, &why) && !app->draining;
    buf_printf(&b, "{\"status\":\"%s\"", ready ? "ready" : "unready");
    if (!ready) {
        buf_puts(&b, ",\"reason\":");
        text_json(&b, app->draining ? "draining" : why.msg);
    }
    const int several = jobs_models(app->jobs) > 1 ? jobs_models(app->jobs) : 0;
    for (int i = 0; i < several; i++) {
        const struct jobs_model m = jobs_model_at(app->jobs, i);
        buf_puts(&b, i ? "," : ",\"models\":{");
        text_json(&b, m.name);
        buf_printf(&b, ":\"%s\"%s", jobs_model_state_name(m.state), i + 1 == several ? "}" : "");
    }
    buf_puts(&b, "}");
    call_json(c, ready ? 200 : 503, &b);
}

static void metrics_get(struct call *c)
{
    struct buf b = {0};
    watch_metrics(c->app, &b);
    http_reply(c->http, 200, "text/plain; version=0.0.4; charset=utf-8", &b);
}

const struct route routes_admin[] = {
    {"GET", "/healthz", healthz_get, SCOPE_NONE, ROUTE_WHEN_DRAINING, ERRORS_OPENAI, "operations",
     "Liveness probe", .answer = {{200, "application/json", "the process is alive", "Health"}}},
    {"GET", "/readyz", readyz_get, SCOPE_NONE, ROUTE_WHEN_DRAINING, ERRORS_OPENAI, "operations",
     "Readiness probe",
     .answer = {{200, "application/json", "the server accepts requests", "Readiness"},
                {503, "application/json",
                 "the server is loading, draining, or has no working device", "Readiness"}}},
    {"GET", "/metrics", metrics_get, SCOPE_ADMIN, ROUTE_WHEN_DRAINING | ROUTE_EXACT, ERRORS_OPENAI,
     "operations", "Metrics for Prometheus", .answer = {{200, "text/plain", "the metrics"}}},
    {0},
};
