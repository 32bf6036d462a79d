// See fake_asked.h.
#include "fake_asked.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

void fake_demand(bool kept, const char *promise)
{
    if (kept)
        return;
    fprintf(stderr, "fake engine: %s\n", promise);
    abort();
}

enum err fake_code(const char *name, size_t n)
{
    static const enum err codes[] = {
#define X(id, value, name, text) ERR_##id,
        ERR_MAP(X)
#undef X
    };
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
        if (strlen(err_name(codes[i])) == n && !strncmp(err_name(codes[i]), name, n))
            return codes[i];
    return ERR_OK;
}

enum err fake_asked(const char *prompt, const char *word, enum err def)
{
    const size_t n = strlen(word);
    for (const char *at = prompt; (at = strchr(at, '[')); at++) {
        const char *end = strchr(at, ']');
        if (!end || strncmp(at + 1, word, n))
            continue;
        if (at + 1 + n == end)
            return def;
        if (at[1 + n] == ' ')
            return fake_code(at + 2 + n, (size_t)(end - (at + 2 + n)));
    }
    return ERR_OK;
}

double fake_env(const char *name, double def)
{
    const char *v = getenv(name);
    return v && *v ? atof(v) : def;
}

const char *fake_fault(const char *def)
{
    const char *v = getenv("FAKE_FAULT");
    return v && *v ? v : def;
}

void fake_sleep(double ms)
{
    struct timespec t = {(time_t)(ms / 1000), (long)((ms - (long)(ms / 1000) * 1000.0) * 1e6)};
    if (ms > 0)
        nanosleep(&t, NULL);
}

int fake_held(void)
{
    const char *path = getenv("FAKE_HELD");
    FILE *f = path ? fopen(path, "r") : NULL;
    int step = 0;
    if (!f)
        return -1;
    if (fscanf(f, "%d", &step) != 1)
        step = 0;
    fclose(f);
    return step;
}
