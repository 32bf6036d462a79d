// The program's version and the location of its files: installed, relocated, or in a build folder.
// Called by the commands at startup. Does not read the files.
#include "program.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char program_version[] = IMAGEND_VERSION;

// The folder above the executable's: the prefix, or the folder that contains the build folder.
static bool own_prefix(char *out, size_t n)
{
    const ssize_t len = readlink("/proc/self/exe", out, n - 1);

    if (len <= 0)
        return false;
    out[len] = 0;
    for (int level = 0; level < 2; level++) {
        char *slash = strrchr(out, '/');
        if (!slash)
            return false;
        *slash = 0;
    }
    return true;
}

static bool has_model(const char *path)
{
    char file[PATH_MAX];
    const int n = snprintf(file, sizeof file, "%s/cascade.json", path);

    return n > 0 && (size_t)n < sizeof file && access(file, R_OK) == 0;
}

const char *program_default_model(void)
{
    static const char *const beside[] = {"share/imagend/models/default", "models/default"};
    static const char *const elsewhere[] = {IMAGEND_DATADIR "/models/default", "models/default"};
    static char path[PATH_MAX];
    char prefix[PATH_MAX];
    const char *named = getenv("IMAGEND_MODEL");

    if (named && *named)
        return named;
    const bool known = own_prefix(prefix, sizeof prefix);
    for (size_t i = 0; known && i < sizeof beside / sizeof *beside; i++) {
        const int n = snprintf(path, sizeof path, "%s/%s", prefix, beside[i]);
        if (n > 0 && (size_t)n < sizeof path && has_model(path))
            return path;
    }
    for (size_t i = 0; i < sizeof elsewhere / sizeof *elsewhere; i++)
        if (has_model(elsewhere[i]))
            return elsewhere[i];
    return elsewhere[0];
}

bool program_user_folder(const char *variable, const char *fallback, char *out, size_t n)
{
    const char *base = getenv(variable), *home = getenv("HOME");

    if (base && *base == '/')
        snprintf(out, n, "%s/imagend", base);
    else if (home && *home == '/')
        snprintf(out, n, "%s/%s/imagend", home, fallback);
    else
        return false;
    return true;
}
