// The commands that only look: inspect, devices. Called by main.
#include "cli.h"

#include "engine.h"
#include "program.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
    e = engine_inspect(model ? model : program_default_model(), variant, &text, &why);
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
