// Each record is one line, whatever its content: levels, both formats, quoting, the time in UTC.
#include "buf.h"
#include "clock.h"
#include "json.h"
#include "log.h"
#include "test.h"

#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static int real_stderr;
static FILE *file;

// The text written since the last call. Standard error is the file in between.
static const char *written(void)
{
    static char text[4096];

    fflush(stderr);
    const off_t end = lseek(fileno(file), 0, SEEK_END);
    lseek(fileno(file), 0, SEEK_SET);
    const ssize_t n = read(fileno(file), text, sizeof text - 1);
    text[n > 0 ? n : 0] = 0;
    CHECK(n == end && !ftruncate(fileno(file), 0) && lseek(fileno(file), 0, SEEK_SET) == 0);
    return text;
}

static const char *record(enum log_format format, enum log_level level, const char *msg,
                          const struct log_field *fields, int n)
{
    log_setup(LOG_DEBUG, format);
    dup2(fileno(file), STDERR_FILENO);
    log_fields(level, "part", msg, fields, n);
    dup2(real_stderr, STDERR_FILENO);
    return written();
}

static void test_levels(void)
{
    static const enum log_level levels[] = {LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG};
    static const char *const names[] = {" error ", " warn  ", " info  ", " debug "};

    for (int at = 0; at < 4; at++) {
        log_setup(levels[at], LOG_TEXT);
        for (int i = 0; i < 4; i++) {
            dup2(fileno(file), STDERR_FILENO);
            log_msg(levels[i], "part", "number %d", i);
            dup2(real_stderr, STDERR_FILENO);
            const char *line = written();
            CHECK_INT(log_enabled(levels[i]), i <= at);
            CHECK(!*line == (i > at));
            if (*line)
                CHECK_MSG(strstr(line, names[i]) && strstr(line, "part: number "), "%s", line);
        }
    }
}

static const struct log_field fields[] = {
    {"plain", "a/b-1"}, {"none", NULL},         {"empty", ""},     {"two", "a b"},
    {"line", "a\nb"},   {"quote", "say \"x\""}, {"equals", "a=b"}, {"back", "a\\b"}};
enum { FIELDS = sizeof fields / sizeof *fields };

static void test_text(void)
{
    const char *line = record(LOG_TEXT, LOG_INFO, "said", fields, FIELDS);

    CHECK_STR(strstr(line, "part: "),
              "part: said plain=a/b-1 empty=\"\" two=\"a b\" line=\"a\\nb\" quote=\"say "
              "\\\"x\\\"\" equals=\"a=b\" back=\"a\\\\b\"\n");
}

static void test_json(void)
{
    const char *line = record(LOG_JSON, LOG_WARN, "a \"message\"\nof two lines", fields, FIELDS);
    struct json_t *doc = NULL;
    struct fault why = {0};

    CHECK(strchr(line, '\n') == line + strlen(line) - 1);
    CHECK_MSG(!json_parse(line, strlen(line), "log", ERR_FORMAT, &doc, &why), "%s", why.msg);
    CHECK_STR(json_text(json_find(doc, "level"), NULL), "warn");
    CHECK_STR(json_text(json_find(doc, "part"), NULL), "part");
    CHECK_STR(json_text(json_find(doc, "msg"), NULL), "a \"message\"\nof two lines");
    for (int i = 0; i < FIELDS; i++)
        if (fields[i].value)
            CHECK_STR(json_text(json_find(doc, fields[i].key), NULL), fields[i].value);
        else
            CHECK(!json_find(doc, fields[i].key));
    CHECK_INT(json_count(doc), 4 + FIELDS - 1);
    json_destroy(&doc);
}

// In UTC, wherever the machine is.
static void test_time(void)
{
    setenv("TZ", "XXX-11:30", 1);
    tzset();
    const time_t before = clock_unix_ms() / 1000; // time() may lag behind
    const char *line = record(LOG_TEXT, LOG_INFO, "now", NULL, 0);
    struct tm tm = {0};
    const char *end = strptime(line, "%Y-%m-%dT%H:%M:%S", &tm);

    CHECK(end && end[0] == '.' && end[4] == 'Z' && end[5] == ' ');
    CHECK(end && timegm(&tm) >= before && timegm(&tm) <= clock_unix_ms() / 1000);
}

int main(void)
{
    real_stderr = dup(STDERR_FILENO);
    file = tmpfile();
    CHECK(real_stderr >= 0 && file);
    test_levels();
    test_text();
    test_json();
    test_time();
    return test_end();
}
