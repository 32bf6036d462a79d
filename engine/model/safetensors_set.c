// Selects the files that contain a network's tensors: plain or variant names, single files or
// shards with an index. Callers: weights.c and the golden program, on one thread. Source: the file
// names of transformers' and diffusers' save_pretrained(variant=...).
#include "buf.h"
#include "json.h"
#include "safetensors.h"
#include "safetensors_priv.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_INDEX = 64 << 20, MAX_SHARDS = 1000 };
static const char SUFFIX[] = ".safetensors";

static char *path_join(const char *dir, const char *name)
{
    struct buf b = {0};
    buf_printf(&b, "%s/%s", dir, name);
    return buf_take(&b);
}

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcmp(s + n - m, end);
}

static enum err no_memory(const char *dir, struct fault *why)
{
    return fault_set(why, ERR_NO_MEMORY, dir, "%s: out of memory", fault_path(dir));
}

// ---- index ----------------------------------------------------------------------------------

// A shard's name is untrusted: it must name a file in the same folder.
static bool shard_name_ok(const char *s)
{
    return s && !strchr(s, '/') && s[0] != '.' && ends_with(s, SUFFIX) && strlen(s) < 256;
}

static int shard_of(const struct safetensors *s, const char *name)
{
    for (int i = 0; i < s->files; i++) {
        const char *slash = strrchr(s->file[i].path, '/');
        if (slash && !strcmp(slash + 1, name))
            return i;
    }
    return -1;
}

static enum err add_shards(struct safetensors *s, const char *dir, const char *index,
                           const struct json_t *map, struct fault *why)
{
    const struct json_t *v;
    const char *tensor;
    void *at = NULL;

    while (json_next(map, &at, &tensor, &v)) {
        size_t len = 0;
        const char *name = json_text(v, &len);
        char *path;
        enum err e;
        if (!shard_name_ok(name) || strlen(name) != len)
            return fault_set(why, ERR_FORMAT, tensor,
                             "%s: the file of tensor %.80s is not a plain .safetensors file name",
                             fault_path(index), tensor);
        if (shard_of(s, name) >= 0)
            continue;
        if (s->files == MAX_SHARDS)
            return fault_set(why, ERR_FORMAT, index, "%s: more than %d shards", fault_path(index),
                             (int)MAX_SHARDS);
        path = path_join(dir, name);
        if (!path)
            return no_memory(dir, why);
        e = safetensors_add_file(s, path, why);
        free(path);
        if (e != ERR_OK)
            return e;
    }
    return ERR_OK;
}

// Checks that index and shards agree on every tensor.
static enum err check_map(const struct safetensors *s, const char *index, const struct json_t *map,
                          struct fault *why)
{
    const struct json_t *v;
    const char *tensor;
    void *at = NULL;

    while (json_next(map, &at, &tensor, &v)) {
        const struct safetensor *t = safetensors_find(s, tensor);
        if (!t || t->file != shard_of(s, json_text(v, NULL)))
            return fault_set(why, ERR_FORMAT, tensor, "%s: tensor %.80s is not in %.100s",
                             fault_path(index), tensor, json_text(v, NULL));
    }
    for (size_t i = 0; i < s->count; i++)
        if (!json_find(map, s->tensor[i].name))
            return fault_set(why, ERR_FORMAT, s->tensor[i].name,
                             "%s: tensor %.80s of a shard is not in the index", fault_path(index),
                             s->tensor[i].name);
    return ERR_OK;
}

static enum err open_index(struct safetensors *s, const char *dir, const char *index,
                           struct fault *why)
{
    struct json_t *doc = NULL;
    const struct json_t *map;
    enum err e = json_parse_file(index, MAX_INDEX, &doc, why);

    if (e == ERR_OK) {
        map = json_find(doc, "weight_map");
        if (json_kind(map) != JSON_MAP || !json_count(map))
            e = fault_set(why, ERR_FORMAT, index, "%s: no weight_map", fault_path(index));
        else if ((e = add_shards(s, dir, index, map, why)) == ERR_OK &&
                 (e = safetensors_sort(s, why)) == ERR_OK)
            e = check_map(s, index, map, why);
    }
    json_destroy(&doc);
    return e;
}

// ---- names ----------------------------------------------------------------------------------

struct choice {
    char *path;
    bool index;
};

// Selects the existing file of this variant ("" for none): a single file takes precedence over an
// index.
static enum err choose(const char *dir, const char *base, const char *variant, struct choice *c,
                       struct fault *why)
{
    const char *dot = *variant ? "." : "";
    struct stat st;
    for (int i = 0; i < 3; i++) {
        struct buf b = {0};
        if (i == 0)
            buf_printf(&b, "%s/%s%s%s.safetensors", dir, base, dot, variant);
        else if (i == 1)
            buf_printf(&b, "%s/%s.safetensors.index%s%s.json", dir, base, dot, variant);
        else
            buf_printf(&b, "%s/%s%s%s.safetensors.index.json", dir, base, dot, variant);
        c->path = buf_take(&b);
        c->index = i > 0;
        if (!c->path)
            return no_memory(dir, why);
        // A dangling link is selected too, so that opening it reports the error.
        if (!lstat(c->path, &st))
            return ERR_OK;
        free(c->path);
        c->path = NULL;
    }
    return ERR_OK;
}

// The variant in a file name, or NULL: "fp16" in base.fp16.safetensors,
// base.safetensors.index.fp16.json and base.fp16.safetensors.index.json. Not for shards.
static char *variant_in(const char *name, const char *base)
{
    static const char *const shape[][2] = {
        {"", ".safetensors"}, {".safetensors.index", ".json"}, {"", ".safetensors.index.json"}};
    size_t n = strlen(base);

    if (strncmp(name, base, n))
        return NULL;
    for (size_t i = 0; i < sizeof shape / sizeof *shape; i++) {
        size_t head = strlen(shape[i][0]), tail = strlen(shape[i][1]), len = strlen(name + n);
        const char *v;
        if (len < head + tail + 2 || strncmp(name + n, shape[i][0], head) ||
            name[n + head] != '.' || !ends_with(name, shape[i][1]))
            continue;
        v = name + n + head + 1;
        len -= head + 1 + tail;
        if (!memchr(v, '.', len) && !strstr(v, "-of-"))
            return strndup(v, len);
    }
    return NULL;
}

// Without plain files, selects the only variant; if there are several, the user must choose.
static enum err only_variant(const struct safetensors_params *p, char **variant, struct fault *why)
{
    enum err e = ERR_OK;
    DIR *d = opendir(p->dir);

    *variant = NULL;
    for (const struct dirent *f; d && e == ERR_OK && (f = readdir(d));) {
        char *v = variant_in(f->d_name, p->base);
        if (v && *variant && strcmp(v, *variant)) {
            e = fault_set(
                why, ERR_NOT_FOUND, "variant",
                "%s contains only variants, such as %.40s and %.40s; select one with --variant",
                fault_path(p->dir), *variant, v);
        } else if (v && !*variant) {
            *variant = v;
            v = NULL;
        }
        free(v);
    }
    if (d)
        closedir(d);
    return e;
}

enum err safetensors_open(const struct safetensors_params *p, struct safetensors **out,
                          struct fault *why)
{
    struct choice c = {0};
    char *variant = NULL;
    enum err e;

    *out = NULL;
    if (p->variant && (!*p->variant || strpbrk(p->variant, "./")))
        return fault_set(why, ERR_INVALID, "variant",
                         "invalid variant \"%.40s\"; expected a word such as fp16", p->variant);
    e = choose(p->dir, p->base, p->variant ? p->variant : "", &c, why);
    if (e == ERR_OK && !c.path && !p->variant) {
        e = only_variant(p, &variant, why);
        if (e == ERR_OK && variant)
            e = choose(p->dir, p->base, variant, &c, why);
    }
    free(variant);
    if (e != ERR_OK)
        return e;
    if (!c.path)
        return safetensors_missing(p, why);
    if (!c.index) {
        e = safetensors_open_file(c.path, out, why);
    } else if (!(*out = calloc(1, sizeof **out))) {
        e = no_memory(p->dir, why);
    } else if ((e = open_index(*out, p->dir, c.path, why)) != ERR_OK) {
        safetensors_close(out);
    }
    free(c.path);
    return e;
}

bool safetensors_has(const struct safetensors_params *p)
{
    struct choice c = {0};
    const enum err e = choose(p->dir, p->base, p->variant ? p->variant : "", &c, NULL);
    const bool has = !e && c.path;

    free(c.path);
    return has;
}

static void add_word(struct buf *words, const char *word)
{
    const size_t n = strlen(word);

    for (const char *at = words->data; at && (at = strstr(at, word)); at += n)
        if ((at == words->data || at[-1] == ' ') && (!at[n] || at[n] == ','))
            return;
    buf_printf(words, "%s%s", words->len ? ", " : "", word);
}

void safetensors_variants(const struct safetensors_params *p, struct buf *words)
{
    const struct safetensors_params plain = {.dir = p->dir, .base = p->base};
    DIR *d = opendir(p->dir);

    if (safetensors_has(&plain))
        add_word(words, "plain files");
    for (const struct dirent *f; d && (f = readdir(d));) {
        char *v = variant_in(f->d_name, p->base);
        if (v)
            add_word(words, v);
        free(v);
    }
    if (d)
        closedir(d);
}

enum err safetensors_open_file(const char *path, struct safetensors **out, struct fault *why)
{
    struct safetensors *s = calloc(1, sizeof *s);
    enum err e;

    *out = NULL;
    if (!s)
        return fault_set(why, ERR_NO_MEMORY, path, "%s: out of memory", fault_path(path));
    if ((e = safetensors_add_file(s, path, why)) != ERR_OK ||
        (e = safetensors_sort(s, why)) != ERR_OK) {
        safetensors_close(&s);
        return e;
    }
    *out = s;
    return ERR_OK;
}
