// The metrics table and its text format. Loop thread; knows nothing about the measured components.
#include "metrics.h"

#include "buf.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum metric_type { COUNTER, GAUGE, HISTOGRAM };

enum { METRIC_BUCKETS = 14 };

static const double fast[] = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
                              0.1,    0.25,  1,      5,     30,   120,   INFINITY};
static const double slow[] = {0.01, 0.05, 0.1, 0.25, 0.5, 1,   2.5,
                              5,    10,   30,  60,   120, 600, INFINITY};
static const double counts[] = {1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 128, INFINITY};

static const struct metric_row {
    const char *name;
    enum metric_type type;
    const double *buckets;
    const char *labels;
    const char *help;
} rows[METRIC_COUNT] = {
    [METRIC_HTTP_REQUESTS] = {"imagend_http_requests_total", COUNTER, NULL, "method, route, status",
                              "HTTP requests"},
    [METRIC_HTTP_SECONDS] = {"imagend_http_request_seconds", HISTOGRAM, fast, "route",
                             "Time from the request headers to the end of the response"},
    [METRIC_HTTP_CONNECTIONS] = {"imagend_http_connections", GAUGE, NULL, "", "Open connections"},
    [METRIC_QUEUE_PICTURES] = {"imagend_queue_pictures", GAUGE, NULL, "",
                               "Images waiting for a slot"},
    [METRIC_RUNNING_PICTURES] = {"imagend_running_pictures", GAUGE, NULL, "", "Images in progress"},
    [METRIC_SLOTS] = {"imagend_slots", GAUGE, NULL, "", "Slots of all working devices"},
    [METRIC_QUEUE_WAIT] = {"imagend_queue_wait_seconds", HISTOGRAM, slow, "",
                           "Time from acceptance to the first slot"},
    [METRIC_STEP_SECONDS] = {"imagend_step_seconds", HISTOGRAM, slow, "stage",
                             "Duration of one denoising step of a batch"},
    [METRIC_STEP_PICTURES] = {"imagend_step_pictures", HISTOGRAM, counts, "stage",
                              "Images in one denoising step (batch size)"},
    [METRIC_STAGE_SECONDS] = {"imagend_stage_seconds", HISTOGRAM, slow, "stage",
                              "Duration of one stage of one image"},
    [METRIC_PICTURES] = {"imagend_pictures_total", COUNTER, NULL, "", "Images generated"},
    [METRIC_PICTURES_FAILED] = {"imagend_pictures_failed_total", COUNTER, NULL, "code",
                                "Images that failed, by error code, such as not_finite for NaN"},
    [METRIC_JOBS] = {"imagend_jobs_total", COUNTER, NULL, "state",
                     "Finished jobs: done, failed, cancelled"},
    [METRIC_JOB_SECONDS] = {"imagend_job_seconds", HISTOGRAM, slow, "",
                            "Time from acceptance to the end of a job"},
    [METRIC_ENGINE_LOST] = {"imagend_engine_lost_total", COUNTER, NULL, "",
                            "Engine failures (device lost or open failed)"},
    [METRIC_DEVICE_BYTES] = {"imagend_device_memory_bytes", GAUGE, NULL, "",
                             "Device memory in use"},
    [METRIC_DEVICE_PEAK_BYTES] = {"imagend_device_memory_peak_bytes", GAUGE, NULL, "",
                                  "Peak device memory"},
    [METRIC_TEXT_HITS] = {"imagend_text_cache_hits_total", COUNTER, NULL, "",
                          "Prompts found in the embedding cache"},
    [METRIC_TEXT_MISSES] = {"imagend_text_cache_misses_total", COUNTER, NULL, "",
                            "Prompts that had to be encoded"},
    [METRIC_KEPT_JOBS] = {"imagend_jobs", GAUGE, NULL, "", "Stored jobs, including finished ones"},
    [METRIC_KEPT_BYTES] = {"imagend_kept_bytes", GAUGE, NULL, "", "Size of the stored results"},
    [METRIC_INPUT_BYTES] = {"imagend_input_bytes", GAUGE, NULL, "",
                            "Size of the input images of all jobs"},
    [METRIC_FLEET_PICTURES] = {"imagend_fleet_pictures", GAUGE, NULL, "state",
                               "Unfinished images of all replicas that share the store: queued, "
                               "running"},
    [METRIC_CLAIMED] = {"imagend_claims_total", COUNTER, NULL, "",
                        "Jobs that this replica claimed from the shared store after they waited"},
    [METRIC_LEASES_LOST] = {"imagend_leases_lost_total", COUNTER, NULL, "",
                            "Jobs that this replica lost to another one, which generates them "
                            "again"},
    [METRIC_STORE_SECONDS] = {"imagend_store_seconds", HISTOGRAM, fast, "call",
                              "Time from a call to the job store to its result, by kind of call"},
    [METRIC_STORE_FAILURES] = {"imagend_store_failures_total", COUNTER, NULL, "call",
                               "Calls to the job store that failed, for example because the "
                               "database was away"},
    [METRIC_READY] = {"imagend_ready", GAUGE, NULL, "", "1 while requests are served"},
    [METRIC_MODEL] = {"imagend_model_info", GAUGE, NULL, "model, device, dtype",
                      "The models that were loaded; always 1"},
    [METRIC_MODEL_LOADED] = {"imagend_model_loaded", GAUGE, NULL, "model",
                             "1 while the model is in memory"},
    [METRIC_MODEL_LOADS] = {"imagend_model_loads_total", COUNTER, NULL, "model, result",
                            "Times that a model was loaded: ok, failed"},
    [METRIC_MODEL_PICTURES] = {"imagend_model_pictures_total", COUNTER, NULL, "model",
                               "Images generated, by model"},
};

struct series {
    struct series *next;
    char *labels;
    double value; // histograms: the sum
    double bucket[METRIC_BUCKETS];
};

struct metrics {
    struct series *series[METRIC_COUNT];
};

enum err metrics_create(struct metrics **out)
{
    *out = calloc(1, sizeof **out);
    return *out ? ERR_OK : ERR_NO_MEMORY;
}

void metrics_destroy(struct metrics **m)
{
    for (int i = 0; *m && i < METRIC_COUNT; i++) {
        for (struct series *s = (*m)->series[i], *next; s; s = next) {
            next = s->next;
            free(s->labels);
            free(s);
        }
    }
    free(*m);
    *m = NULL;
}

// Returns NULL if out of memory; only that value is lost.
static struct series *series_get(struct metrics *m, enum metric id, const char *labels)
{
    struct series **at = &m->series[id], *s;
    while (*at && strcmp((*at)->labels, labels))
        at = &(*at)->next;
    if (*at || !(s = calloc(1, sizeof *s)))
        return *at;
    if (!(s->labels = strdup(labels))) {
        free(s);
        return NULL;
    }
    return *at = s;
}

void metric_add(struct metrics *m, enum metric id, const char *labels, double value)
{
    struct series *s = series_get(m, id, labels);
    if (s)
        s->value += value;
}

void metric_set(struct metrics *m, enum metric id, const char *labels, double value)
{
    struct series *s = series_get(m, id, labels);
    if (s)
        s->value = value;
}

void metric_observe(struct metrics *m, enum metric id, const char *labels, double value)
{
    struct series *s = series_get(m, id, labels);
    for (int i = 0; s && i < METRIC_BUCKETS; i++) {
        if (value > rows[id].buckets[i])
            continue;
        s->bucket[i]++;
        s->value += value;
        return;
    }
}

static void histogram_text(const struct metric_row *row, const struct series *s, struct buf *out)
{
    const char *comma = *s->labels ? "," : "";
    double total = 0;
    for (int i = 0; i < METRIC_BUCKETS; i++) {
        total += s->bucket[i];
        buf_printf(out, "%s_bucket{%s%sle=\"", row->name, s->labels, comma);
        if (isinf(row->buckets[i]))
            buf_puts(out, "+Inf");
        else
            buf_printf(out, "%g", row->buckets[i]);
        buf_printf(out, "\"} %.0f\n", total);
    }
    const char *open = *s->labels ? "{" : "", *close = *s->labels ? "}" : "";
    buf_printf(out, "%s_sum%s%s%s %.9g\n", row->name, open, s->labels, close, s->value);
    buf_printf(out, "%s_count%s%s%s %.0f\n", row->name, open, s->labels, close, total);
}

void metrics_text(const struct metrics *m, struct buf *out)
{
    static const char *const types[] = {"counter", "gauge", "histogram"};
    for (int i = 0; i < METRIC_COUNT; i++) {
        const struct metric_row *row = &rows[i];
        if (!m->series[i])
            continue;
        buf_printf(out, "# HELP %s %s.\n# TYPE %s %s\n", row->name, row->help, row->name,
                   types[row->type]);
        for (const struct series *s = m->series[i]; s; s = s->next) {
            if (row->type == HISTOGRAM)
                histogram_text(row, s, out);
            else if (*s->labels)
                buf_printf(out, "%s{%s} %.15g\n", row->name, s->labels, s->value);
            else
                buf_printf(out, "%s %.15g\n", row->name, s->value);
        }
    }
}

void metrics_markdown(struct buf *out)
{
    static const char *const types[] = {"counter", "gauge", "histogram"};
    buf_puts(out, "| metric | type | labels | meaning |\n| --- | --- | --- | --- |\n");
    for (int i = 0; i < METRIC_COUNT; i++)
        buf_printf(out, "| `%s` | %s | %s | %s |\n", rows[i].name, types[rows[i].type],
                   rows[i].labels, rows[i].help);
}
