// Where the default model is, and the commands that only look: inspect, devices. Called by main.
#include "cli.h"

#include "engine.h"

#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *cli_default_model(void)
{
    static const char *const beside[] = {"/../models/default", "/../share/imagend/models/default"};
    static char path[PATH_MAX];
    const char *named = getenv("IMAGEND_MODEL");
    char exe[PATH_MAX];
    ssize_t n;

    if (named && *named)
        return named;
    if (access("models/default/cascade.json", R_OK) == 0)
        return "models/default";
    n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    if (n > 0) {
        exe[n] = 0;
        const char *dir = dirname(exe);
        for (size_t i = 0; i < sizeof beside / sizeof *beside; i++) {
            snprintf(path, sizeof path, "%.2000s%s", dir, beside[i]);
            if (access(path, R_OK) == 0)
                return path;
        }
    }
    return "models/default";
}

int cli_inspect(int argc, char **argv)
{
    const char *model = NULL, *variant = NULL;
    struct fault why = {0};
    char *text = NULL;
    enum err e;

    for (int i = 0; i < argc; i++) {
        if (!strcmp(argv[i], "--variant") && i + 1 < argc) {
            variant = argv[++i];
        } else if (argv[i][0] == '-' || model) {
            fputs("usage: imagend inspect MODELDIR [--variant NAME]\n", stderr);
            return strcmp(argv[i], "--help") ? 2 : 0;
        } else {
            model = argv[i];
        }
    }
    e = engine_inspect(model ? model : cli_default_model(), variant, &text, &why);
    if (text)
        fputs(text, stdout);
    free(text);
    if (e)
        fprintf(stderr, "imagend: %s\n", why.msg);
    return e ? 1 : 0;
}

int cli_devices(int argc, char **argv)
{
    struct fault why = {0};
    char *text = NULL;

    if (argc > 0) {
        fputs("usage: imagend devices\n", stderr);
        return strcmp(argv[0], "--help") ? 2 : 0;
    }
    if (engine_devices(&text, &why)) {
        fprintf(stderr, "imagend: %s\n", why.msg);
        return 1;
    }
    fputs(text, stdout);
    free(text);
    return 0;
}
