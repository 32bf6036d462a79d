// A trace is valid JSON whatever the texts and threads, holds the spans and their times, and errors
// of the file are reported. Without one, spans do nothing.
#include "clock.h"
#include "json.h"
#include "test.h"
#include "trace.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

enum { SPANS = 200 };

static void *write_spans(void *arg)
{
    for (int i = 0; i < SPANS; i++)
        trace_span("step", clock_seconds(), TRACE_OWN, "%s %d", (const char *)arg, i);
    return NULL;
}

static char *read_all(const char *path)
{
    char *text = calloc(1, 1 << 20);
    FILE *f = fopen(path, "r");
    CHECK(text && f && fread(text, 1, (1 << 20) - 1, f) > 0);
    if (f)
        fclose(f);
    return text;
}

static int count(const char *text, const char *part)
{
    int n = 0;
    for (const char *at = text; (at = strstr(at, part)); at++)
        n++;
    return n;
}

int main(void)
{
    char path[64], quoted[] = "a \"quoted\\ name\"\n";
    struct fault why = {0};
    struct json_t *doc = NULL;
    pthread_t other;
    snprintf(path, sizeof path, "/tmp/imagend-trace-%ld.json", (long)getpid());
    trace_span("step", 0, TRACE_OWN, "nothing"); // no trace is open
    CHECK_INT(trace_close(&why), ERR_OK);
    CHECK_INT(trace_open("/nonexistent/trace.json", &why), ERR_IO);
    CHECK_MSG(strstr(why.msg, "cannot write the trace \"/nonexistent/trace.json\""), "%s", why.msg);

    CHECK_INT(trace_open(path, &why), ERR_OK);
    CHECK_INT(trace_open(path, &why), ERR_BUSY);
    CHECK_INT(pthread_create(&other, NULL, write_spans, quoted), 0);
    write_spans((char[]){"here"});
    pthread_join(other, NULL);
    const double began = clock_seconds();
    usleep(20000);
    trace_span("stage", began, 7, "seven");
    char *sofar = read_all(path); // what a program that is killed leaves
    CHECK_INT(count(sofar, "seven\"}}"), 1);
    free(sofar);
    trace_overlapping("request", began, "GET \"%d\"", 1);
    trace_overlapping("request", began, "GET 2");
    CHECK_INT(trace_close(&why), ERR_OK);
    trace_span("step", 0, TRACE_OWN, "too late");
    trace_overlapping("request", 0, "too late");
    char *text = read_all(path);
    enum err e = json_parse(text, strlen(text), "trace", ERR_FORMAT, &doc, &why);
    CHECK_MSG(!e, "%s", why.msg);
    json_destroy(&doc);
    CHECK_INT(count(text, "\"ph\": \"X\""), 2 * SPANS + 1);
    CHECK_INT(count(text, "a \\\"quoted\\\\ name\\\"\\u000a "), SPANS);
    CHECK_INT(count(text, "too late"), 0);
    CHECK_INT(count(text, "\"cat\": \"request\", \"ph\": \"b\", \"id\": 1,"), 1);
    CHECK_INT(count(text, "\"cat\": \"request\", \"ph\": \"e\", \"id\": 1,"), 1);
    CHECK_INT(count(text, "\"cat\": \"request\", \"ph\": \"e\", \"id\": 2,"), 1);
    CHECK_INT(count(text, "GET \\\"1\\\""), 1);
    const char *stage = strstr(text, "\"stage\""), *dur = stage ? strstr(stage, "\"dur\": ") : NULL;
    CHECK(dur && atof(dur + 7) >= 20000 && atof(dur + 7) < 20e6 && strstr(stage, "\"tid\": 7,"));
    CHECK_INT(trace_open("/dev/full", &why), ERR_OK);
    write_spans((char[]){"no room"});
    CHECK_INT(trace_close(&why), ERR_IO);
    free(text);
    unlink(path);
    return test_end();
}
