// The server's life cycle: from options to a running loop, and from SIGTERM to exit. Called by
// main. Connects all parts of the server without knowing their internals.
#include "serve.h"

#include "app.h"
#include "asking.h"
#include "auth.h"
#include "buf.h"
#include "clock.h"
#include "codec.h"
#include "conf.h"
#include "http.h"
#include "log.h"
#include "metrics.h"
#include "settings.h"
#include "sha256.h"
#include "store.h"
#include "store_s3.h"
#include "trace.h"
#include "watch.h"

#include <limits.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

enum { SERVE_TICK_MS = 50, SERVE_FLUSH_MS = 1000, SERVE_MMAP_BYTES = 1 << 20 };

enum serve_phase { SERVE_RUNNING, SERVE_ANNOUNCED, SERVE_DRAINING, SERVE_FLUSHING, SERVE_CLOSED };

struct serve {
    struct app app; // must be first: other parts pass it back as ctx
    int status;     // exit status of the process
    struct conf conf;
    struct settings settings;  // current settings; the HTTP server owns its certificate
    struct models_file models; // as of the start
    struct engine_params engine[MODELS_MAX];
    uv_loop_t loop;
    uv_signal_t sigterm, sigint, sighup;
    uv_timer_t timer;
    enum serve_phase phase;
    double phase_since;
    int argc;
    char **argv;
};

const struct route *const serve_routes[] = {
    routes_openai, routes_native, routes_a1111, routes_openapi, routes_admin, routes_page, NULL,
};

// ---- stopping -----------------------------------------------------------------------------------

static void serve_enter(struct serve *s, enum serve_phase phase)
{
    s->phase = phase;
    s->phase_since = clock_seconds();
}

static void serve_close_rest(struct serve *s)
{
    uv_handle_t *handles[] = {(uv_handle_t *)&s->sigterm, (uv_handle_t *)&s->sigint,
                              (uv_handle_t *)&s->sighup, (uv_handle_t *)&s->timer};
    for (size_t i = 0; i < sizeof handles / sizeof handles[0]; i++)
        if (handles[i]->loop && !uv_is_closing(handles[i]))
            uv_close(handles[i], NULL);
}

static void on_http_closed(void *ctx)
{
    struct serve *s = ctx;
    s->app.http = NULL;
    if (s->app.jobs)
        jobs_close(s->app.jobs, NULL, NULL);
    s->app.jobs = NULL;
    serve_close_rest(s);
}

// The phases. Announced: /readyz fails, so that load balancers notice. Draining: no new work is
// accepted, running work finishes. Flushing: the last responses are sent. Each phase ends early
// when nothing is left to do.
static void on_tick(uv_timer_t *timer)
{
    struct serve *s = timer->data;
    const double waited = clock_seconds() - s->phase_since;
    if (s->phase == SERVE_ANNOUNCED && waited >= s->conf.drain_delay) {
        http_quiesce(s->app.http);
        router_set_draining(s->app.router, 5);
        jobs_drain(s->app.jobs);
        serve_enter(s, SERVE_DRAINING);
    }
    if (s->phase == SERVE_DRAINING &&
        (jobs_drained(s->app.jobs) || waited >= s->conf.drain_timeout)) {
        jobs_abandon(s->app.jobs);
        serve_enter(s, SERVE_FLUSHING);
        return;
    }
    if (s->phase == SERVE_FLUSHING &&
        (!http_busy(s->app.http) || waited * 1000 >= SERVE_FLUSH_MS)) {
        serve_enter(s, SERVE_CLOSED);
        http_close(s->app.http, on_http_closed, s);
    }
}

static void on_hopeless(void *ctx, const struct fault *why)
{
    struct serve *s = (struct serve *)ctx; // app is its first member
    if (s->status)
        return;
    s->status = 1;
    fprintf(stderr, "imagend: %s\n", why->msg);
    serve_enter(s, SERVE_FLUSHING);
    uv_timer_start(&s->timer, on_tick, 0, SERVE_TICK_MS);
}

static void on_stop(uv_signal_t *handle, int signum)
{
    struct serve *s = handle->data;
    if (s->phase != SERVE_RUNNING) {
        log_msg(LOG_WARN, "server", "second signal: exiting immediately");
        _exit(1);
    }
    log_msg(LOG_INFO, "server", "signal %d: draining", signum);
    s->app.draining = true;
    serve_enter(s, SERVE_ANNOUNCED);
    uv_timer_start(&s->timer, on_tick, 0, SERVE_TICK_MS);
}

// ---- reload ------------------------------------------------------------------------------------

static struct jobs_limits serve_limits(const struct conf *c)
{
    return (struct jobs_limits){
        .queued = c->queue_limit,
        .queued_per_owner = c->queue_limit_per_key,
        .running_per_owner = c->running_limit_per_key,
        .keep_ms = (int64_t)(c->keep_seconds * 1000),
        .keep_jobs = c->keep_jobs,
        .keep_bytes = (size_t)c->keep_bytes,
        .input_bytes = (size_t)c->input_bytes,
    };
}

// An image and a mask, each as large as can be read, in base64, and what comes with them.
static size_t serve_image_body(const struct conf *c)
{
    const double most = 2.0 * CODEC_MAX_BYTES * 4 / 3 + c->max_body;
    const double body = c->input_bytes < most ? c->input_bytes : most;
    return (size_t)(body > c->max_body ? body : c->max_body);
}

// Everything has been read and checked; nothing below can fail.
static void serve_apply(struct serve *s, struct settings *fresh)
{
    const struct jobs_limits limits = serve_limits(&s->conf);
    log_setup((enum log_level)s->conf.log_level, (enum log_format)s->conf.log_format);
    if (auth_count(s->settings.auth) && !auth_count(fresh->auth))
        log_msg(LOG_WARN, "config", "keys-file is no longer set: authentication is disabled");
    auth_replace(s->settings.auth, &fresh->auth);
    if (fresh->tls)
        http_use_tls(s->app.http, &fresh->tls);
    struct settings old = s->settings;
    fresh->auth = old.auth;
    old.auth = NULL;
    s->settings = *fresh;
    const struct router_web web = settings_web(&s->settings);
    router_set_web(s->app.router, &web);
    router_set_max_image_body(s->app.router, serve_image_body(&s->conf));
    http_set_max_bodies(s->app.http, (size_t)s->conf.input_bytes);
    settings_deinit(&old);
    jobs_set_limits(s->app.jobs, &limits);
    if (s->settings.webhook_secret)
        jobs_set_webhook_secret(s->app.jobs, s->settings.webhook_secret);
}

static enum err serve_check_reload(struct serve *s, const struct conf *fresh, struct settings *out,
                                   struct fault *why)
{
    struct conf next;
    conf_preview(&s->conf, fresh, &next);
    if (!*next.tls_cert != !*s->conf.tls_cert)
        return fault_set(why, ERR_INVALID, "tls-cert",
                         "tls-cert: changing between HTTP and HTTPS needs a restart");
    return settings_read(&next, out, why);
}

static void on_reload(uv_signal_t *handle, int signum)
{
    struct serve *s = handle->data;
    struct conf fresh;
    struct settings settings = {0};
    struct fault why = {0};
    char ignored[512];
    bool help;
    if (conf_load(&fresh, s->argc, s->argv, &help, &why) ||
        serve_check_reload(s, &fresh, &settings, &why)) {
        log_msg(LOG_ERROR, "config",
                "configuration not reloaded, the previous one remains active: %s", why.msg);
        settings_deinit(&settings);
        conf_deinit(&fresh);
        return;
    }
    conf_reload(&s->conf, &fresh, ignored, sizeof ignored);
    conf_deinit(&fresh);
    serve_apply(s, &settings);
    if (*ignored)
        log_msg(LOG_WARN, "config", "changes to these options need a restart: %s", ignored);
    log_msg(LOG_INFO, "config", "reloaded");
}

// ---- starting -----------------------------------------------------------------------------------

static void serve_sign(const char *secret, const void *data, size_t n, char out[65])
{
    sha256_hmac_hex(secret, strlen(secret), data, n, out);
}

static enum err serve_open_postgres(struct serve *s, struct store **store, struct fault *why)
{
    const struct conf *c = &s->conf;
    char host[HOST_NAME_MAX + 1] = "imagend";
    gethostname(host, sizeof host - 1);
    const struct store_postgres_params p = {
        .loop = &s->loop,
        .database = c->database,
        .password_file = c->database_password_file,
        .replica = *c->replica_name ? c->replica_name : host,
        .keep_ms = serve_limits(c).keep_ms,
    };
    return store_postgres_open(&p, store, why);
}

// Lays the store of results over the store of jobs, if there is one.
static enum err serve_open_results(struct serve *s, struct store **store, struct fault *why)
{
    const struct settings_bucket *b = &s->settings.bucket;
    const struct store_s3_params p = {
        .s3 =
            {
                .loop = &s->loop,
                .endpoint = b->endpoint,
                .host = b->host,
                .bucket = b->name,
                .prefix = b->prefix,
                .region = s->conf.s3_region,
                .key_file = s->conf.s3_key_file,
                .sha256 = sha256_hex,
                .hmac = sha256_hmac_hex,
            },
    };
    return b->name ? store_s3_open(&p, *store, store, why) : ERR_OK;
}

static enum err serve_open_store(struct serve *s, struct store **store, struct fault *why)
{
    switch (s->conf.store) {
    case CONF_STORE_MEMORY: return store_memory_open(store, why);
    case CONF_STORE_POSTGRES: return serve_open_postgres(s, store, why);
    default: return store_sqlite_open(s->conf.data_dir, &s->loop, store, why);
    }
}

static const char *set_or_null(const char *option)
{
    return *option ? option : NULL;
}

int serve_models(const struct conf *c, const struct models_file *m, struct engine_params *out)
{
    const int n = m->n ? m->n : 1;
    for (int i = 0; i < n; i++) {
        out[i] = (struct engine_params){
            .model = set_or_null(c->model),
            .variant = set_or_null(c->variant),
            .text_encoder = set_or_null(c->text_encoder),
            .lora = set_or_null(c->lora),
            .lora_choices = set_or_null(c->lora_choices),
            .cache_dir = set_or_null(c->cache_dir),
            .dtype = set_or_null(c->dtype),
            .weights = set_or_null(c->weights),
            .tune = c->tune,
            .text_cache = (size_t)c->text_cache,
            .slots = c->slots,
            .memory_limit = (size_t)c->memory_limit,
        };
        if (m->n)
            models_entry_apply(&m->entry[i], &out[i]);
    }
    return n;
}

static enum err serve_open_jobs(struct serve *s, struct fault *why)
{
    const struct conf *c = &s->conf;
    struct store *store = NULL;
    enum err err = serve_open_store(s, &store, why);
    if (!err)
        err = serve_open_results(s, &store, why);
    if (err)
        return err;
    const struct jobs_params p = {
        .loop = &s->loop,
        .store = store,
        .limits = serve_limits(c),
        .engine = s->engine,
        .models = serve_models(c, &s->models, s->engine),
        .devices = c->device,
        .webhook = {c->webhook_allow, s->settings.webhook_secret, serve_sign},
        .provenance = c->provenance,
        .digest = sha256_hex,
        .measure = watch_jobs,
        .hopeless = on_hopeless,
        .ctx = &s->app,
    };
    return jobs_create(&p, &s->app.jobs, why);
}

static enum err serve_open_http(struct serve *s, const char *host, int port, struct fault *why)
{
    const struct conf *c = &s->conf;
    const struct router_params router = {
        .tables = serve_routes,
        .app = &s->app,
        .auth = {auth_check, s->settings.auth, asking_spend},
        .web = settings_web(&s->settings),
        .max_body = (size_t)c->max_body,
        .max_image_body = serve_image_body(c),
        .max_header = (size_t)c->max_header,
        .done = watch_request,
    };
    s->app.auth = s->settings.auth;
    if (router_create(&router, &s->app.router))
        return fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    const struct http_params p = {
        .loop = &s->loop,
        .host = host,
        .port = port,
        .tls = s->settings.tls,
        .max_body = (size_t)c->max_body,
        .max_bodies = (size_t)c->input_bytes,
        .max_header = (size_t)c->max_header,
        .max_connections = c->max_connections,
        .receive_seconds = c->receive_timeout,
        .idle_seconds = c->idle_timeout,
        .send_seconds = c->send_timeout,
        .head = router_head,
        .handle = router_handle,
        .finished = router_finished,
        .ctx = s->app.router,
    };
    s->settings.tls = NULL;
    return http_open(&p, &s->app.http, why);
}

static void serve_signals(struct serve *s)
{
    uv_signal_t *handles[] = {&s->sigterm, &s->sigint, &s->sighup};
    static const int numbers[] = {SIGTERM, SIGINT, SIGHUP};
    signal(SIGPIPE, SIG_IGN);
    uv_timer_init(&s->loop, &s->timer);
    s->timer.data = s;
    for (int i = 0; i < 3; i++) {
        uv_signal_init(&s->loop, handles[i]);
        handles[i]->data = s;
        uv_signal_start(handles[i], numbers[i] == SIGHUP ? on_reload : on_stop, numbers[i]);
    }
}

static enum err serve_open(struct serve *s, struct fault *why)
{
    char host[256];
    int port;
    enum err err = conf_listen(&s->conf, host, sizeof host, &port, why);
    if (!err)
        err = settings_read(&s->conf, &s->settings, why);
    const bool tls = s->settings.tls;
    s->models = s->settings.models;
    s->settings.models = (struct models_file){0};
    if (!err)
        err = serve_open_jobs(s, why);
    if (!err)
        err = serve_open_http(s, host, port, why);
    if (err)
        return err;
    serve_signals(s);
    if (strcmp(s->settings.public_url, s->conf.public_url))
        log_msg(LOG_INFO, "config", "public-url was normalized to %s", s->settings.public_url);
    log_msg(LOG_INFO, "server", "listening on %s://%s:%d", tls ? "https" : "http", host,
            http_port(s->app.http));
    return ERR_OK;
}

static void serve_free(struct serve *s)
{
    if (s->app.jobs)
        jobs_close(s->app.jobs, NULL, NULL);
    serve_close_rest(s);
    uv_run(&s->loop, UV_RUN_DEFAULT);
    uv_loop_close(&s->loop);
    router_destroy(&s->app.router);
    metrics_destroy(&s->app.metrics);
    buf_deinit(&s->app.event_text);
    a1111_forget_choices(&s->app);
    settings_deinit(&s->settings);
    models_file_deinit(&s->models);
    conf_deinit(&s->conf);
}

int serve_command(int argc, char **argv)
{
    struct serve s = {.argc = argc, .argv = argv};
    struct fault why = {0};
    bool help = false;
    if (conf_load(&s.conf, argc, argv, &help, &why)) {
        fprintf(stderr, "imagend: %s\n", why.msg);
        conf_deinit(&s.conf);
        return 2;
    }
    if (help) {
        conf_deinit(&s.conf);
        return SERVE_HELP;
    }
    // Memory of images and bodies goes back to the system as soon as it is free.
    mallopt(M_MMAP_THRESHOLD, SERVE_MMAP_BYTES);
    s.app.conf = &s.conf;
    s.app.started = clock_unix_ms();
    uv_loop_init(&s.loop);
    log_setup((enum log_level)s.conf.log_level, (enum log_format)s.conf.log_format);
    if ((*s.conf.trace && trace_open(s.conf.trace, &why)) || metrics_create(&s.app.metrics) ||
        serve_open(&s, &why)) {
        fprintf(stderr, "imagend: %s\n", why.msg);
        s.status = 1;
    } else {
        uv_run(&s.loop, UV_RUN_DEFAULT);
        log_msg(LOG_INFO, "server", "stopped");
    }
    serve_free(&s);
    if (trace_close(&why)) {
        fprintf(stderr, "imagend: %s\n", why.msg);
        s.status = 1;
    }
    return s.status;
}
