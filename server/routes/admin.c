// For operators and their tools: alive, ready, metrics.
#include "app.h"

#include "buf.h"
#include "text.h"

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
    buf_puts(&b, "}");
    call_json(c, ready ? 200 : 503, &b);
}

const struct route routes_admin[] = {
    {"GET", "/healthz", healthz_get, SCOPE_NONE, ROUTE_WHEN_DRAINING, ERRORS_OPENAI, "operations",
     "Whether the process is alive", .answer = {{200, "application/json", "it is"}}},
    {"GET", "/readyz", readyz_get, SCOPE_NONE, ROUTE_WHEN_DRAINING, ERRORS_OPENAI, "operations",
     "Whether requests would be served",
     .answer = {{200, "application/json", "they would"},
                {503, "application/json", "loading, draining, or no device works"}}},
    {0},
};
