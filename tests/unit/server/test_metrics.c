// Prometheus's text format: counters add up, gauges are set, histogram buckets are cumulative,
// labels separate series.
#include "buf.h"
#include "metrics.h"
#include "test.h"

#include <stdlib.h>

static bool has_line(const struct buf *b, const char *line)
{
    const size_t n = strlen(line);

    for (const char *at = b->data; at && *at; at = strchr(at, '\n') ? strchr(at, '\n') + 1 : NULL)
        if (!strncmp(at, line, n) && at[n] == '\n')
            return true;
    return false;
}

#define LINE(text) CHECK_MSG(has_line(&b, text), "%s", text)

static void test_values(void)
{
    struct metrics *m;
    struct buf b = {0};

    CHECK_INT(metrics_create(&m), ERR_OK);
    metrics_text(m, &b);
    CHECK_INT(b.len, 0);
    metric_add(m, METRIC_JOBS, "state=\"done\"", 1);
    metric_add(m, METRIC_JOBS, "state=\"failed\"", 1);
    metric_add(m, METRIC_JOBS, "state=\"done\"", 2);
    metric_set(m, METRIC_SLOTS, "", 4);
    metric_set(m, METRIC_SLOTS, "", 3);
    metric_add(m, METRIC_PICTURES, "", 999999999999999);
    metrics_text(m, &b);
    LINE("# TYPE imagend_jobs_total counter");
    LINE("imagend_jobs_total{state=\"done\"} 3");
    LINE("imagend_jobs_total{state=\"failed\"} 1");
    LINE("# TYPE imagend_slots gauge");
    LINE("# HELP imagend_slots Slots of all working devices.");
    LINE("imagend_slots 3");
    LINE("imagend_pictures_total 999999999999999");
    buf_deinit(&b);
    metrics_destroy(&m);
    CHECK(!m);
}

static void test_histograms(void)
{
    struct metrics *m;
    struct buf b = {0};

    CHECK_INT(metrics_create(&m), ERR_OK);
    metric_observe(m, METRIC_JOB_SECONDS, "", 0.05); // on a border: it belongs below
    metric_observe(m, METRIC_JOB_SECONDS, "", 0.06);
    metric_observe(m, METRIC_JOB_SECONDS, "", 1e6);
    metric_observe(m, METRIC_STEP_PICTURES, "stage=\"1\"", 3);
    metric_observe(m, METRIC_STEP_PICTURES, "stage=\"2\"", 1);
    metrics_text(m, &b);
    LINE("# TYPE imagend_job_seconds histogram");
    LINE("imagend_job_seconds_bucket{le=\"0.01\"} 0");
    LINE("imagend_job_seconds_bucket{le=\"0.05\"} 1");
    LINE("imagend_job_seconds_bucket{le=\"0.1\"} 2");
    LINE("imagend_job_seconds_bucket{le=\"600\"} 2");
    LINE("imagend_job_seconds_bucket{le=\"+Inf\"} 3");
    LINE("imagend_job_seconds_sum 1000000.11");
    LINE("imagend_job_seconds_count 3");
    LINE("imagend_step_pictures_bucket{stage=\"1\",le=\"2\"} 0");
    LINE("imagend_step_pictures_bucket{stage=\"1\",le=\"3\"} 1");
    LINE("imagend_step_pictures_bucket{stage=\"2\",le=\"1\"} 1");
    LINE("imagend_step_pictures_sum{stage=\"1\"} 3");
    LINE("imagend_step_pictures_count{stage=\"2\"} 1");
    buf_deinit(&b);
    metrics_destroy(&m);
}

int main(void)
{
    test_values();
    test_histograms();
    return test_end();
}
