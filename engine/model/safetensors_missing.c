// The error for missing weights: finds out what the folder contains instead. Called by
// safetensors_set.c, on one thread.
#include "file.h"
#include "safetensors_priv.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

// Ordered by how well each explains the missing weights.
static const struct {
    const char *end, *what;
} others[] = {
    {".incomplete", "an unfinished download; download it again"},
    {".part", "an unfinished download; download it again"},
    {".crdownload", "an unfinished download; download it again"},
    {".aria2", "an unfinished download; download it again"},
    {".tmp", "an unfinished download; download it again"},
    {".bin", "a PyTorch checkpoint"},
    {".ckpt", "a PyTorch checkpoint"},
    {".pth", "a PyTorch checkpoint"},
    {".pt", "a PyTorch checkpoint"},
    {".msgpack", "a Flax checkpoint"},
    {".h5", "a TensorFlow checkpoint"},
    {".onnx", "an ONNX model"},
    {".gguf", "a GGUF file"},
};
enum { OTHERS = sizeof others / sizeof *others, FINISHED = 5, NAME = 100 };

struct found {
    char shard[NAME], weights[NAME], other[NAME];
    int kind; // kind of `other`, an index into others; OTHERS: none
};

static bool ends_with(const char *s, const char *end)
{
    const size_t n = strlen(s), m = strlen(end);

    return n > m && !strcmp(s + n - m, end);
}

// Whether the file is a shard of these weights; without a variant, of any weights.
static bool is_shard(const struct safetensors_params *p, const char *name)
{
    const size_t base = strlen(p->base), variant = p->variant ? strlen(p->variant) : 0;

    if (strncmp(name, p->base, base) || !strstr(name + base, "-of-"))
        return false;
    return !variant || (name[base] == '.' && !strncmp(name + base + 1, p->variant, variant));
}

static void look_at(struct found *f, const char *name, const struct safetensors_params *p)
{
    if (ends_with(name, ".safetensors")) {
        const bool shard = is_shard(p, name);
        snprintf(shard ? f->shard : f->weights, NAME, "%.*s", NAME - 1, name);
        return;
    }
    for (int i = 0; i < f->kind; i++)
        if (ends_with(name, others[i].end)) {
            f->kind = i;
            snprintf(f->other, NAME, "%.*s", NAME - 1, name);
        }
}

enum err safetensors_missing(const struct safetensors_params *p, struct fault *why)
{
    const char *variant = p->variant ? p->variant : "", *dot = *variant ? "." : "";
    const char *dir = fault_path(p->dir);
    struct found f = {.kind = OTHERS};
    DIR *d = opendir(p->dir);

    if (!d)
        return file_open_error(p->dir, errno, why);
    for (const struct dirent *e; (e = readdir(d));)
        look_at(&f, e->d_name, p);
    closedir(d);
    if (f.kind < FINISHED)
        return fault_set(why, ERR_NOT_FOUND, p->dir, "%s has no %s%s%.40s.safetensors but %s, %s",
                         dir, p->base, dot, variant, f.other, others[f.kind].what);
    if (*f.shard)
        return fault_set(
            why, ERR_NOT_FOUND, p->dir,
            "%s has %s but not the index %s.safetensors.index%s%.40s.json, which lists "
            "the files",
            dir, f.shard, p->base, dot, variant);
    if (f.kind < OTHERS)
        return fault_set(why, ERR_NOT_FOUND, p->dir,
                         "%s has no %s%s%.40s.safetensors but %s, %s; download the safetensors "
                         "files, or convert it to one",
                         dir, p->base, dot, variant, f.other, others[f.kind].what);
    return fault_set(why, ERR_NOT_FOUND, p->dir, "%s has no %s%s%.40s.safetensors%s%s", dir,
                     p->base, dot, variant, *f.weights ? "; it has " : "", f.weights);
}
