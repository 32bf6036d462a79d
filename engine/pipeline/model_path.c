// See model_path.h. Called by cascade.c. Source: the folder layout of the huggingface_hub cache.
#include "model_path.h"

#include "buf.h"
#include "file.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST_ENTRIES = 3, ENTRY = 128 };

// ---- names ------------------------------------------------------------------------------------

// Returns the last component of path[0 .. *end) and sets *end before it; len 0: none left.
static const char *last_part(const char *path, size_t *end, size_t *len)
{
    size_t e = *end, b;

    while (e && path[e - 1] == '/')
        e--;
    for (b = e; b && path[b - 1] != '/';)
        b--;
    *len = e - b;
    *end = b;
    return path + b;
}

// Matches ".../models--OWNER--NAME/snapshots/HASH" and extracts the name.
static bool snapshot_name(const char *path, char *out, size_t n)
{
    static const char repository[] = "models--", snapshots[] = "snapshots";
    size_t end = strlen(path), len;
    const char *part;

    last_part(path, &end, &len);
    part = last_part(path, &end, &len);
    if (len != sizeof snapshots - 1 || memcmp(part, snapshots, len))
        return false;
    part = last_part(path, &end, &len);
    if (len <= sizeof repository - 1 || memcmp(part, repository, sizeof repository - 1))
        return false;
    for (size_t i = len; i >= 2; i--)
        if (!memcmp(part + i - 2, "--", 2)) {
            snprintf(out, n, "%.*s", (int)(len - i), part + i);
            return true;
        }
    return false;
}

void model_path_name(const char *path, char *out, size_t n)
{
    char real[PATH_MAX];
    size_t end = strlen(path), len;
    const char *part = last_part(path, &end, &len);
    const bool dots = len && strspn(part, ".") >= len;

    if (snapshot_name(path, out, n))
        return;
    if (dots && realpath(path, real)) {
        if (snapshot_name(real, out, n))
            return;
        end = strlen(real);
        part = last_part(real, &end, &len);
    }
    snprintf(out, n, "%.*s", (int)len, part);
}

// ---- explanations -----------------------------------------------------------------------------

// Folder entries that contain a certain file, the first few by name.
struct entries {
    char name[MOST_ENTRIES][ENTRY];
    int count; // total number
};

static bool has(const char *dir, const char *name, const char *file)
{
    struct buf path = {0};
    bool found = false;

    buf_printf(&path, "%s%s%s%s%s", dir, *name ? "/" : "", name, *file ? "/" : "", file);
    if (!path.failed)
        found = access(path.data, F_OK) == 0;
    buf_deinit(&path);
    return found;
}

static void keep(struct entries *e, const char *name)
{
    int at = e->count < MOST_ENTRIES ? e->count : MOST_ENTRIES;

    e->count++;
    while (at && strcmp(e->name[at - 1], name) > 0) {
        if (at < MOST_ENTRIES)
            memcpy(e->name[at], e->name[at - 1], ENTRY);
        at--;
    }
    if (at < MOST_ENTRIES)
        snprintf(e->name[at], ENTRY, "%s", name);
}

// Lists entries that begin with a prefix and contain a file ("": any entry).
static void list(const char *dir, const char *prefix, const char *file, struct entries *out)
{
    DIR *d = opendir(dir);

    memset(out, 0, sizeof *out);
    for (const struct dirent *e; d && (e = readdir(d));)
        if (e->d_name[0] != '.' && strlen(e->d_name) < ENTRY &&
            !strncmp(e->d_name, prefix, strlen(prefix)) && has(dir, e->d_name, file))
            keep(out, e->d_name);
    if (d)
        closedir(d);
}

static enum err not_found(const char *path, struct fault *why)
{
    const char *slash = strchr(path, '/');
    struct stat st;

    if (!lstat(path, &st))
        return file_open_error(path, ENOENT, why);
    return fault_set(why, ERR_NOT_FOUND, "model", "model folder \"%s\" does not exist%s",
                     fault_path(path),
                     slash && slash != path && *path != '.' && !strchr(slash + 1, '/')
                         ? "; models are read from local folders, so download it first"
                         : "");
}

// The error for a repository's folder in the cache: names the snapshot to use instead.
static enum err cache_entry(const char *path, struct fault *why)
{
    struct entries complete;
    struct buf file = {0}, hash = {0};
    const char *shown = fault_path(path);
    enum err e;

    buf_printf(&file, "%s/refs/main", path);
    if (!file.failed && !buf_read_file(&hash, file.data, 128, NULL) && hash.len)
        hash.data[strcspn(hash.data, " \r\n/")] = 0;
    buf_clear(&file);
    buf_printf(&file, "%s/snapshots", path);
    list(file.failed ? "" : file.data, "", "model_index.json", &complete);
    const char *which = complete.name[0];
    for (int i = 0; hash.len && i < complete.count && i < MOST_ENTRIES; i++)
        if (!strcmp(complete.name[i], hash.data))
            which = hash.data;
    if (!complete.count)
        e = fault_set(why, ERR_NOT_FOUND, "model",
                      "%s is a Hugging Face cache entry without a complete snapshot; download the "
                      "model again",
                      shown);
    else
        e = fault_set(why, ERR_NOT_FOUND, "model",
                      "%s is the root of a Hugging Face cache entry; give its snapshot, "
                      "%s/snapshots/%.64s",
                      shown, shown, which);
    buf_deinit(&file);
    buf_deinit(&hash);
    return e;
}

static void join(const struct entries *e, char *out, size_t n)
{
    size_t at = 0;

    *out = 0;
    for (int i = 0; i < e->count && i < MOST_ENTRIES && at < n; i++)
        at += (size_t)snprintf(out + at, n - at, "%s%s", i ? ", " : "", e->name[i]);
    if (e->count > MOST_ENTRIES && at < n)
        snprintf(out + at, n - at, ", ...");
}

enum err model_path_explain(const char *path, struct fault *why)
{
    const char *shown = fault_path(path);
    struct entries inside;
    struct stat st;
    char names[120];

    if (stat(path, &st))
        return errno == ENOENT || errno == ENOTDIR ? not_found(path, why)
                                                   : file_open_error(path, errno, why);
    if (!S_ISDIR(st.st_mode))
        return fault_set(why, ERR_NOT_FOUND, "model",
                         "%s is a file; give the folder of the model, which has a model_index.json",
                         shown);
    if (has(path, "snapshots", ""))
        return cache_entry(path, why);
    list(path, "models--", "snapshots", &inside);
    if (inside.count) {
        join(&inside, names, sizeof names);
        return fault_set(why, ERR_NOT_FOUND, "model",
                         "%s is a Hugging Face cache; give a snapshot of a model in it (%s)", shown,
                         names);
    }
    if (has(path, "config.json", "") || has(path, "scheduler_config.json", ""))
        return fault_set(why, ERR_NOT_FOUND, "model",
                         "%s is one component of a model; give the folder around it, which has a "
                         "model_index.json",
                         shown);
    list(path, "", "model_index.json", &inside);
    join(&inside, names, sizeof names);
    if (inside.count)
        return fault_set(why, ERR_NOT_FOUND, "model",
                         "%s has no model_index.json, but %s in it %s; give %s", shown, names,
                         inside.count > 1 ? "have" : "has",
                         inside.count > 1 ? "their paths in the order of the stages, separated by "
                                            "commas"
                                          : "that folder");
    return fault_set(why, ERR_NOT_FOUND, "model",
                     "%s has neither a model_index.json (a diffusers pipeline) nor a cascade.json",
                     shown);
}
