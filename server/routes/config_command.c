// `imagend config`: checks and shows the options, prints the default file and the tables of
// docs/configuration.md, creates API keys. Called by main.
#include "serve.h"

#include "app.h"
#include "auth.h"
#include "buf.h"
#include "conf.h"
#include "engine_params.h"
#include "metrics.h"
#include "settings.h"

#include <stdio.h>
#include <string.h>

static int fail(const struct fault *why)
{
    fprintf(stderr, "imagend: %s\n", why->msg);
    return 2;
}

static int config_key(int argc, char **argv)
{
    struct buf key = {0}, line = {0};
    struct fault why = {0};
    if (argc < 2 || argc > 4) {
        fputs("imagend: config key takes a NAME, optional SCOPES and an optional RATE; see imagend "
              "config --help\n",
              stderr);
        return 2;
    }
    const struct auth_key_params params = {argv[1], argc > 2 ? argv[2] : "generate,read",
                                           argc > 3 ? argv[3] : NULL};
    const enum err err = auth_new_key(&params, &key, &line, &why);
    if (!err)
        printf("key (shown once): %s\nline for keys-file: %s\n", key.data, line.data);
    buf_deinit(&key);
    buf_deinit(&line);
    return err ? fail(&why) : 0;
}

// Reads the config files of all models, as the service does before it loads one.
static enum err check_models(const struct conf *c, const struct models_file *m, struct fault *why)
{
    struct engine_params engine[MODELS_MAX];
    enum err err = ERR_OK;
    const int n = serve_models(c, m, engine);
    for (int i = 0; !err && i < n; i++) {
        struct fault inner = {0};
        err = jobs_check_model(&engine[i], &inner);
        if (err && engine[i].name)
            fault_set(why, err, "models-file", "models-file %.100s: [%s]: %s", c->models_file,
                      engine[i].name, inner.msg);
        else if (err)
            *why = inner;
    }
    return err;
}

static int config_options(const char *what, int argc, char **argv)
{
    struct conf c;
    struct fault why = {0};
    struct settings settings = {0};
    struct buf b = {0};
    bool help;
    enum err err = conf_load(&c, argc, argv, &help, &why);
    if (!err && help) {
        conf_deinit(&c);
        return SERVE_HELP;
    }
    if (!err)
        err = settings_read(&c, &settings, &why);
    if (!err && !strcmp(what, "show"))
        conf_show(&c, &b);
    else if (!err)
        err = conf_check_environment(&why);
    if (!err && !b.len)
        err = check_models(&c, &settings.models, &why);
    if (!err && !b.len)
        buf_puts(&b, "configuration OK\n");
    if (!err)
        fputs(b.data, stdout);
    buf_deinit(&b);
    settings_deinit(&settings);
    conf_deinit(&c);
    return err ? fail(&why) : 0;
}

// Prints the routes, one JSON object per line.
static int config_routes(void)
{
    struct buf b = {0};
    for (const struct route *const *t = serve_routes; *t; t++)
        for (const struct route *r = *t; r->path; r++)
            buf_printf(&b, "{\"method\":\"%s\",\"path\":\"%s\",\"scope\":\"%s\"}\n", r->method,
                       r->path, scope_name(r->scope));
    fputs(b.data ? b.data : "", stdout);
    buf_deinit(&b);
    return 0;
}

int config_command(int argc, char **argv)
{
    const char *what = argc > 0 ? argv[0] : "";
    if (!strcmp(what, "--help") || !strcmp(what, "-h"))
        return SERVE_HELP;
    if (!strcmp(what, "key"))
        return config_key(argc, argv);
    if (!strcmp(what, "routes"))
        return config_routes();
    if (!strcmp(what, "check") || !strcmp(what, "show"))
        return config_options(what, argc - 1, argv + 1);
    if (!strcmp(what, "table") || !strcmp(what, "file")) {
        struct buf b = {0};
        if (*what == 'f') {
            conf_file(&b);
        } else {
            conf_markdown(&b);
            buf_puts(&b, "\n");
            metrics_markdown(&b);
        }
        fputs(b.data, stdout);
        buf_deinit(&b);
        return 0;
    }
    if (*what)
        fprintf(stderr, "imagend: unknown config subcommand \"%.60s\"; see imagend config --help\n",
                what);
    else
        fputs("imagend: config needs a subcommand: check, show, file, table, routes or key; see "
              "imagend "
              "config --help\n",
              stderr);
    return 2;
}
