// Metrics in Prometheus's text format, all in one table. A time series is created when its labels
// first appear. Loop thread.
#ifndef IMAGEND_METRICS_H
#define IMAGEND_METRICS_H

#include "err.h"

struct buf;
struct metrics;

enum metric {
    METRIC_HTTP_REQUESTS,
    METRIC_HTTP_SECONDS,
    METRIC_HTTP_CONNECTIONS,
    METRIC_QUEUE_PICTURES,
    METRIC_RUNNING_PICTURES,
    METRIC_SLOTS,
    METRIC_QUEUE_WAIT,
    METRIC_STEP_SECONDS,
    METRIC_STEP_PICTURES,
    METRIC_STAGE_SECONDS,
    METRIC_PICTURES,
    METRIC_PICTURES_FAILED,
    METRIC_JOBS,
    METRIC_JOB_SECONDS,
    METRIC_ENGINE_LOST,
    METRIC_DEVICE_BYTES,
    METRIC_DEVICE_PEAK_BYTES,
    METRIC_TEXT_HITS,
    METRIC_TEXT_MISSES,
    METRIC_KEPT_JOBS,
    METRIC_KEPT_BYTES,
    METRIC_INPUT_BYTES,
    METRIC_FLEET_PICTURES,
    METRIC_CLAIMED,
    METRIC_LEASES_LOST,
    METRIC_STORE_SECONDS,
    METRIC_STORE_FAILURES,
    METRIC_READY,
    METRIC_MODEL,
    METRIC_MODEL_LOADED,
    METRIC_MODEL_LOADS,
    METRIC_MODEL_PICTURES,
    METRIC_COUNT,
};

// Errors: NO_MEMORY.
enum err metrics_create(struct metrics **out);
void metrics_destroy(struct metrics **m);

// labels: as in the text, "route=\"/healthz\",status=\"200\""; "" for none. Values must be escaped.
void metric_add(struct metrics *m, enum metric id, const char *labels, double value);
void metric_set(struct metrics *m, enum metric id, const char *labels, double value);
void metric_observe(struct metrics *m, enum metric id, const char *labels, double value);

void metrics_text(const struct metrics *m, struct buf *out);
void metrics_markdown(struct buf *out); // for docs/configuration.md

#endif
