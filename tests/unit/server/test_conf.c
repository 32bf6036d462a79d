// Options: every row of the table, from each source, at its limits and beyond them, and across a
// reload. The rows come from the table itself (conf_about), so none is forgotten.
#include "buf.h"
#include "conf.h"
#include "test.h"

#include <ctype.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

static char file[] = "/tmp/imagend-conf-XXXXXX";

// ---- helpers ----------------------------------------------------------------------------------

// One option's value as `imagend config show` has it; NULL: it is not shown.
static const char *value_of(const struct conf *c, const char *name)
{
    static char line[300];
    struct buf b = {0};
    char start[80];
    const char *found = NULL;

    conf_show(c, &b);
    snprintf(start, sizeof start, "\n%s = ", name);
    const char *at = b.data && !strncmp(b.data, start + 1, strlen(start + 1))
                         ? b.data - 1
                         : strstr(b.data ? b.data : "", start);
    if (at) {
        at += strlen(start);
        snprintf(line, sizeof line, "%.*s", (int)strcspn(at, "\n"), at);
        found = line;
    }
    buf_deinit(&b);
    return found;
}

static enum err load(struct conf *c, char **argv, struct fault *why)
{
    int n = 0;
    bool help;

    while (argv && argv[n])
        n++;
    return conf_load(c, n, argv, &help, why);
}

static void write_file(const char *text)
{
    FILE *f = fopen(file, "w");
    CHECK(f && fputs(text, f) >= 0 && !fclose(f));
}

static void variable(const char *option, char name[80])
{
    size_t n = (size_t)snprintf(name, 80, "IMAGEND_%s", option);
    for (size_t i = 8; i < n; i++)
        name[i] = name[i] == '-' ? '_' : (char)toupper((unsigned char)name[i]);
}

// Two values that the option takes, and that differ from each other and from its default.
static void values_of(const struct conf_about *o, char out[2][60])
{
    for (int i = 0; i < 2; i++) {
        if (o->choices)
            snprintf(out[i], 60, "%s", o->choices[o->choices[1] && i ? 1 : 0]);
        else if (o->flag)
            snprintf(out[i], 60, "%s", i ? "true" : "false");
        else if (!strcmp(o->value, "N") || !strcmp(o->value, "SECONDS"))
            snprintf(out[i], 60, "%d", 41 + i);
        else if (!strcmp(o->value, "BYTES"))
            snprintf(out[i], 60, "%d", 40001 + i);
        else
            snprintf(out[i], 60, "value-%d", i);
    }
}

// ---- sources ----------------------------------------------------------------------------------

// Default, then file, then environment, then flag.
static void test_sources(void)
{
    struct conf_about o;

    for (int i = 0; conf_about(i, &o); i++) {
        char v[2][60], line[200], name[80], flag[200], path[80];
        struct conf c;
        struct fault why = {0};
        CHECK(o.help && *o.help && (o.value || o.choices));
        if (!o.in_file)
            continue;
        values_of(&o, v);
        variable(o.name, name);
        snprintf(line, sizeof line, "  %s =  %s \n", o.name, v[0]);
        write_file(line);
        snprintf(path, sizeof path, "--config=%s", file);
        CHECK_MSG(!load(&c, (char *[]){path, NULL}, &why), "%s: %s", o.name, why.msg);
        CHECK_STR(value_of(&c, o.name), v[0]);
        conf_deinit(&c);

        setenv(name, v[1], 1);
        CHECK_MSG(!load(&c, (char *[]){path, NULL}, &why), "%s: %s", o.name, why.msg);
        CHECK_STR(value_of(&c, o.name), v[1]);
        conf_deinit(&c);
        CHECK_INT(conf_check_environment(&why), ERR_OK);

        snprintf(flag, sizeof flag, "--%s=%s", o.name, v[0]);
        CHECK_MSG(!load(&c, (char *[]){flag, path, NULL}, &why), "%s: %s", o.name, why.msg);
        CHECK_STR(value_of(&c, o.name), v[0]);
        conf_deinit(&c);
        unsetenv(name);

        snprintf(flag, sizeof flag, "--%s", o.name);
        char *const apart[] = {flag, v[1], NULL}, *const alone[] = {flag, NULL};
        CHECK_MSG(!load(&c, o.flag ? (char **)alone : (char **)apart, &why), "%s: %s", o.name,
                  why.msg);
        CHECK_STR(value_of(&c, o.name), v[1]);
        conf_deinit(&c);
        if (!o.flag) {
            CHECK_INT(load(&c, (char **)alone, &why), ERR_INVALID);
            CHECK_STR(why.param, o.name);
            conf_deinit(&c);
        }
    }
}

static void test_defaults(void)
{
    struct conf_about o;
    struct conf c;
    struct fault why = {0};

    CHECK_MSG(!load(&c, NULL, &why), "%s", why.msg);
    for (int i = 0; conf_about(i, &o); i++) {
        const char *v = o.in_file ? value_of(&c, o.name) : NULL;
        // These two depend on the machine; sizes are shown in bytes.
        if (!v || !strcmp(o.name, "model") || !strcmp(o.name, "data-dir"))
            continue;
        CHECK_STR(v, !strcmp(o.def, "2G")     ? "2147483648"
                     : !strcmp(o.def, "512M") ? "536870912"
                     : !strcmp(o.def, "1M")   ? "1048576"
                     : !strcmp(o.def, "8K")   ? "8192"
                                              : o.def);
    }
    CHECK(*c.model && *c.data_dir);
    conf_deinit(&c);
}

// ---- limits -----------------------------------------------------------------------------------

static void test_limits(void)
{
    static const struct {
        const char *name, *least, *most, *below, *above;
    } rows[] = {
        {"slots", "0", "256", "-1", "257"},
        {"memory-limit", "0", "1e15", "-1", "1e16"},
        {"queue-limit", "1", "1000000", "0", "1000001"},
        {"queue-limit-per-key", "1", "1000000", "0", "1000001"},
        {"running-limit-per-key", "0", "1000000", "-1", "1000001"},
        {"keep-seconds", "1", "1e9", "0.9", "1.1e9"},
        {"keep-jobs", "1", "10000000", "0", "10000001"},
        {"keep-bytes", "1", "1e15", "0", "1e16"},
        {"input-bytes", "1", "1e15", "0", "1e16"},
        {"max-body", "1024", "1e9", "1023", "1e10"},
        {"max-header", "1024", "65536", "1023", "65537"},
        {"max-connections", "1", "1000000", "0", "1000001"},
        {"receive-timeout", "0.1", "3600", "0.09", "3601"},
        {"idle-timeout", "0.1", "86400", "0.09", "86401"},
        {"send-timeout", "1", "3600", "0.9", "3601"},
        {"text-cache", "0", "1e15", "-1", "2e15"},
        {"drain-delay", "0", "3600", "-0.1", "3601"},
        {"drain-timeout", "0", "3600", "-0.1", "3601"},
    };
    struct conf_about o;
    int numbers = 0;

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (int k = 0; k < 4; k++) {
            const char *const value[] = {rows[i].least, rows[i].most, rows[i].below, rows[i].above};
            char text[100];
            struct conf c;
            struct fault why = {0};
            CHECK(!load(&c, NULL, &why));
            snprintf(text, sizeof text, "%s = %s", rows[i].name, value[k]);
            const enum err e = conf_parse(&c, text, strlen(text), &why);
            CHECK_MSG(e == (k < 2 ? ERR_OK : ERR_INVALID), "%s: %s", text, why.msg);
            if (e) {
                CHECK_STR(why.param, rows[i].name);
                CHECK(strstr(why.msg, "line 1: ") && strstr(why.msg, value[k]));
            }
            conf_deinit(&c);
        }
    // Every option with a number has a row above.
    for (int i = 0; conf_about(i, &o); i++)
        numbers += o.value && (!strcmp(o.value, "N") || !strcmp(o.value, "SECONDS") ||
                               !strcmp(o.value, "BYTES"));
    CHECK_INT(numbers, (int)(sizeof rows / sizeof *rows));
}

static void test_values(void)
{
    static const struct {
        const char *line, *name, *shown; // shown NULL: refused
    } rows[] = {
        {"max-body = 2K", "max-body", "2048"},
        {"max-body = 1.5m", "max-body", "1572864"},
        {"keep-bytes=3G", "keep-bytes", "3221225472"},
        {"keep-bytes=1T", "keep-bytes", "1099511627776"},
        {"keep-bytes = 3GB", "keep-bytes", NULL},
        {"keep-bytes = K", "keep-bytes", NULL},
        {"queue-limit = 2K", "queue-limit", NULL},
        {"queue-limit = 1.5", "queue-limit", NULL},
        {"queue-limit = 0x10", "queue-limit", "16"},
        {"queue-limit = nan", "queue-limit", NULL},
        {"queue-limit = inf", "queue-limit", NULL},
        {"queue-limit =", "queue-limit", NULL},
        {"keep-seconds = 1.5", "keep-seconds", "1.5"},
        {"keep-seconds = 10s", "keep-seconds", NULL},
        {"allow-open = yes", "allow-open", NULL},
        {"store = disk", "store", NULL},
        {"log-level = INFO", "log-level", NULL},
        {"host-names = a = b", "host-names", "a = b"},
        {"host-names =", "host-names", ""},
        {"\n#queue-limit = 3\n\t queue-limit = 4\r\n", "queue-limit", "4"},
        {"queue-limit = 1\nqueue-limit = 1", "queue-limit", NULL},
        {"config = x", "config", NULL},
        {"queue-limits = 1", "queue-limits", NULL},
        {"queue-lim = 1", "queue-lim", NULL},
        {"queue", "", NULL},
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct conf c;
        struct fault why = {0};
        CHECK(!load(&c, NULL, &why));
        const enum err e = conf_parse(&c, rows[i].line, strlen(rows[i].line), &why);
        CHECK_MSG(!e == (rows[i].shown != NULL), "%s: %s", rows[i].line, why.msg);
        if (e)
            CHECK_STR(why.param, rows[i].name);
        else
            CHECK_STR(value_of(&c, rows[i].name), rows[i].shown);
        conf_deinit(&c);
    }
}

// ---- names ------------------------------------------------------------------------------------

static void test_names(void)
{
    static const struct {
        const char *flag, *says;
    } rows[] = {
        {"--queue-limt=1", "did you mean \"--queue-limit\"?"},
        {"--zzzzzzzzzzzz", "imagend serve --help"},
        {"--port=80", "did you mean \"--listen\"?"},
        {"--host", "did you mean \"--listen\"?"},
        {"queue-limit", "unexpected argument"},
        {"-q", "unexpected argument"},
    };
    struct conf c;
    struct fault why = {0};

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char flag[40];
        snprintf(flag, sizeof flag, "%s", rows[i].flag);
        CHECK_INT(load(&c, (char *[]){flag, NULL}, &why), ERR_INVALID);
        CHECK_MSG(strstr(why.msg, rows[i].says) != NULL, "%s", why.msg);
        conf_deinit(&c);
    }
    setenv("IMAGEND_QUEUE_LIMT", "1", 1);
    CHECK_INT(load(&c, NULL, &why), ERR_OK); // an orchestrator's own, perhaps
    conf_deinit(&c);
    CHECK_INT(conf_check_environment(&why), ERR_INVALID);
    CHECK(strstr(why.msg, "IMAGEND_QUEUE_LIMIT") != NULL);
    unsetenv("IMAGEND_QUEUE_LIMT");
    CHECK_INT(conf_check_environment(&why), ERR_OK);
    setenv("IMAGEND_KERNEL", "attention_any", 1); // the engine's
    CHECK_INT(conf_check_environment(&why), ERR_OK);
    unsetenv("IMAGEND_KERNEL");
    // The file that the environment names, and the one that a flag names instead.
    write_file("queue-limit = 5\n");
    setenv("IMAGEND_CONFIG", file, 1);
    CHECK_INT(load(&c, NULL, &why), ERR_OK);
    CHECK_INT(c.queue_limit, 5);
    conf_deinit(&c);
    CHECK_INT(load(&c, (char *[]){(char[]){"--config=/dev/null"}, NULL}, &why), ERR_OK);
    CHECK_INT(c.queue_limit, 256);
    conf_deinit(&c);
    unsetenv("IMAGEND_CONFIG");
}

// ---- reloads ----------------------------------------------------------------------------------

static void test_reload(void)
{
    struct conf_about o;

    for (int i = 0; conf_about(i, &o); i++) {
        char v[2][60], flag[2][200], ignored[200] = "x";
        struct conf running, fresh, next;
        struct fault why = {0};
        values_of(&o, v);
        for (int k = 0; k < 2; k++) {
            char *argv[] = {flag[k], NULL};
            snprintf(flag[k], sizeof flag[k], "--%s=%s", o.name, o.in_file ? v[k] : "/dev/null");
            CHECK_MSG(!load(k ? &fresh : &running, argv, &why), "%s", why.msg);
        }
        if (o.in_file) {
            // The preview has the new value; nothing has changed yet.
            conf_preview(&running, &fresh, &next);
            CHECK_STR(value_of(&next, o.name), v[o.reload]);
            CHECK_STR(value_of(&running, o.name), v[0]);
            conf_reload(&running, &fresh, ignored, sizeof ignored);
            CHECK_STR(value_of(&running, o.name), v[o.reload]);
            CHECK_STR(ignored, o.reload ? "" : o.name);
        }
        conf_deinit(&running);
        conf_deinit(&fresh);
    }
}

// ---- addresses --------------------------------------------------------------------------------

static void test_listen(void)
{
    static const struct {
        const char *listen, *host; // host NULL: refused
        int port;
    } rows[] = {
        {"127.0.0.1:8080", "127.0.0.1", 8080},
        {":0", "0.0.0.0", 0},
        {"[::1]:65535", "::1", 65535},
        {"[::]:1", "::", 1},
        {"host.example:80", "host.example", 80},
        {"127.0.0.1", NULL, 0},
        {"127.0.0.1:", NULL, 0},
        {"127.0.0.1:65536", NULL, 0},
        {"127.0.0.1:-1", NULL, 0},
        {"127.0.0.1:80x", NULL, 0},
    };
    static const struct {
        const char *host;
        bool local;
    } hosts[] = {{"127.0.0.1", true},         {"127.9.9.9", true}, {"::1", true},
                 {"LocalHost", true},         {"0.0.0.0", false},  {"::", false},
                 {"12.7.0.1", false},         {"10.0.0.1", false}, {"127x.example", false},
                 {"localhost.example", false}};

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct conf c = {.listen = (char *)(uintptr_t)rows[i].listen};
        struct fault why = {0};
        char host[64] = "";
        int port = -1;
        const enum err e = conf_listen(&c, host, sizeof host, &port, &why);
        CHECK_MSG(!e == (rows[i].host != NULL), "%s", rows[i].listen);
        if (!e)
            CHECK_STR(host, rows[i].host);
        if (!e)
            CHECK_INT(port, rows[i].port);
    }
    for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++)
        CHECK_MSG(conf_is_local(hosts[i].host) == hosts[i].local, "%s", hosts[i].host);
}

int main(void)
{
    const int fd = mkstemp(file);
    extern char **environ;

    // Only what this test sets.
    for (char **e = environ; *e;) {
        char name[100];
        snprintf(name, sizeof name, "%.*s", (int)strcspn(*e, "="), *e);
        if (strncmp(name, "IMAGEND_", 8))
            e++;
        else
            unsetenv(name);
    }
    setenv("HOME", "/nowhere", 1);
    CHECK(fd >= 0 && !close(fd));
    test_sources();
    test_defaults();
    test_limits();
    test_values();
    test_names();
    test_reload();
    test_listen();
    unlink(file);
    return test_end();
}
