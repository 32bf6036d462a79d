// The checked view of one network's tensors, see weights.h. Callers: t5.c, unet.c and `inspect`,
// each on one thread. Knows names, shapes and numbers, not their purpose.
#include "weights.h"

#include "buf.h"
#include "gguf_t5.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SLOTS = 2, MAX_NAME = 256, MAX_PREFIXES = 8, SHOWN = 4 };

// madvise itself costs time, so small tensors are released only when the file is closed
enum { RELEASE_BYTES = 1 << 20 };

static const struct weights_data none = {NULL, DT_F32};

struct slot {
    float *data;
    size_t cap; // floats
    const struct safetensor *tensor;
};

struct weights {
    struct safetensors *set;
    int owners;
    size_t room;
    bool dry;
    bool stored;
    bool llama; // the tensors have llama.cpp's names
    enum safetensors_dtype latest;
    bool *used; // per tensor in the files
    struct lora *lora[WEIGHTS_MAX_LORAS];
    int loras;
    struct slot slot[SLOTS];
    int next;
    bool no_memory;
    struct buf missing, misshapen; // one name (and reason) per line
    struct weights_stats stats;
    char *ignored[MAX_PREFIXES];
    int prefixes;
};

static enum err open_files(const struct weights_params *p, struct safetensors **out,
                           struct fault *why)
{
    const struct safetensors_params sp = {.dir = p->dir, .base = p->base, .variant = p->variant};
    struct gguf *g = NULL;
    enum err e;

    if (!p->gguf)
        return safetensors_open(&sp, out, why);
    e = gguf_open(p->gguf, &g, why);
    if (!e)
        *out = gguf_take_tensors(g);
    gguf_close(&g);
    return e;
}

static enum err open_loras(const struct weights_params *p, struct weights *w, struct fault *why)
{
    enum err e = ERR_OK;

    while (!e && w->loras < p->loras) {
        struct lora *l = NULL;
        e = lora_open(&p->lora[w->loras], &l, why);
        for (int i = 0; !e && i < lora_count(l); i++)
            e = lora_check(l, i, safetensors_find(w->set, lora_name(l, i)), why);
        w->lora[w->loras++] = l;
    }
    return e;
}

enum err weights_open(const struct weights_params *p, struct weights **out, struct fault *why)
{
    const char *path = p->gguf ? p->gguf : p->dir;
    struct weights *w = calloc(1, sizeof *w);
    enum err e = ERR_NO_MEMORY;

    *out = NULL;
    if (w) {
        w->owners = 1;
        w->room = p->room;
        w->dry = p->dry;
        w->llama = p->gguf != NULL;
        w->stored = p->gguf && p->stored;
        e = open_files(p, &w->set, why);
        if (!e)
            e = open_loras(p, w, why);
        if (e != ERR_OK)
            goto fail;
        w->used = calloc(safetensors_count(w->set) + 1, sizeof *w->used);
        e = w->used ? ERR_OK : ERR_NO_MEMORY;
    }
    if (e == ERR_OK) {
        *out = w;
        return ERR_OK;
    }
    fault_set(why, e, path, "%s: out of memory", fault_path(path));
fail:
    weights_close(&w);
    return e;
}

struct weights *weights_share(struct weights *w)
{
    w->owners++;
    return w;
}

void weights_close(struct weights **weights)
{
    struct weights *w = *weights;

    *weights = NULL;
    if (!w || --w->owners > 0)
        return;
    safetensors_close(&w->set);
    for (int i = 0; i < w->loras; i++)
        lora_close(&w->lora[i]);
    for (int i = 0; i < SLOTS; i++)
        free(w->slot[i].data);
    for (int i = 0; i < w->prefixes; i++)
        free(w->ignored[i]);
    buf_deinit(&w->missing);
    buf_deinit(&w->misshapen);
    free(w->used);
    free(w);
}

// ---- asking ---------------------------------------------------------------------------------

static int shape_dims(const struct weights_shape *s)
{
    int n = 0;
    while (n < (int)(sizeof s->d / sizeof *s->d) && s->d[n])
        n++;
    return n;
}

static bool shape_matches(const struct safetensor *t, const struct weights_shape *s)
{
    if (t->dims != shape_dims(s))
        return false;
    for (int i = 0; i < t->dims; i++)
        if (t->shape[i] != s->d[i])
            return false;
    return true;
}

static void put_shape(struct buf *b, const uint64_t *d, int dims)
{
    buf_putc(b, '[');
    for (int i = 0; i < dims; i++)
        buf_printf(b, "%s%llu", i ? ", " : "", (unsigned long long)d[i]);
    buf_putc(b, ']');
}

static void misshapen(struct weights *w, const struct safetensor *t, const struct weights_shape *s)
{
    w->stats.misshapen++;
    buf_printf(&w->misshapen, "%s is %s ", t->name, safetensors_dtype_name(t->dtype));
    put_shape(&w->misshapen, t->shape, t->dims);
    buf_puts(&w->misshapen, safetensors_is_float(t->dtype) ? ", must be " : ", must be float ");
    put_shape(&w->misshapen, s->d, shape_dims(s));
    buf_putc(&w->misshapen, '\n');
}

static void account(struct weights *w, const struct safetensor *t)
{
    bool *used = &w->used[t - safetensors_at(w->set, 0)];

    if (*used)
        return;
    *used = true;
    w->stats.tensors++;
    w->stats.parameters += t->elements;
    w->stats.bytes[t->dtype] += t->bytes;
    if (t->elements > w->stats.largest)
        w->stats.largest = t->elements;
}

// True when values can be read in place, in a type that devices store.
static bool is_plain(const struct safetensor *t, struct weights_data *out)
{
    const size_t element = t->dtype == ST_F32 ? 4 : 2;

    if (t->dtype != ST_F32 && t->dtype != ST_F16 && t->dtype != ST_BF16)
        return false;
    if ((uintptr_t)t->data % element)
        return false;
    *out = (struct weights_data){t->data, t->dtype == ST_F32   ? DT_F32
                                          : t->dtype == ST_F16 ? DT_F16
                                                               : DT_BF16};
    return true;
}

static bool has_lora(const struct weights *w, const struct safetensor *t)
{
    for (int i = 0; i < w->loras; i++)
        if (lora_find(w->lora[i], t->name) >= 0)
            return true;
    return false;
}

// Adds the LoRAs to a weight's values, which are those of the file.
static bool add_loras(struct weights *w, const struct safetensor *t, float *values)
{
    for (int i = 0; i < w->loras; i++) {
        const int at = lora_find(w->lora[i], t->name);
        if (at >= 0 && lora_add(w->lora[i], at, t->elements, values))
            return false;
    }
    return true;
}

// any: in the file's type, if devices store it.
static struct weights_data unpack(struct weights *w, const struct safetensor *t, bool any)
{
    struct slot *s = &w->slot[w->next];
    struct weights_data plain;
    const bool changed = has_lora(w, t);

    w->next = (w->next + 1) % SLOTS;
    if (s->tensor && s->tensor->bytes >= RELEASE_BYTES)
        safetensors_release(w->set, s->tensor);
    s->tensor = t;
    if (!changed && is_plain(t, &plain) && (any || plain.dtype == DT_F32))
        return plain;
    if (t->elements > s->cap) {
        free(s->data);
        s->data = malloc(t->elements * sizeof *s->data);
        s->cap = s->data ? t->elements : 0;
    }
    if (!s->data) {
        w->no_memory = true;
        return none;
    }
    safetensors_f32(t, 0, t->elements, s->data);
    if (changed && !add_loras(w, t, s->data)) {
        w->no_memory = true;
        return none;
    }
    return (struct weights_data){s->data, DT_F32};
}

// name: a buffer of MAX_NAME bytes with transformers' name; receives the files'.
static void rename_for_files(const struct weights *w, char *name)
{
    char from[MAX_NAME];

    if (!w->llama)
        return;
    memcpy(from, name, sizeof from);
    gguf_t5_name(from, name, MAX_NAME);
}

static struct weights_data get(struct weights *w, const struct weights_shape *shape,
                               const char *name, bool any)
{
    const struct safetensor *t = safetensors_find(w->set, name);

    w->latest = t ? t->dtype : ST_DTYPES;
    if (!t) {
        w->stats.missing++;
        buf_printf(&w->missing, "%s\n", name);
        return none;
    }
    account(w, t);
    if (!safetensors_is_float(t->dtype) || !shape_matches(t, shape)) {
        misshapen(w, t, shape);
        return none;
    }
    return w->dry || !t->elements ? none : unpack(w, t, any);
}

const float *weights_f32(struct weights *w, const struct weights_shape *shape, const char *name_fmt,
                         ...)
{
    char name[MAX_NAME] = "";
    va_list ap;

    va_start(ap, name_fmt);
    vsnprintf(name, sizeof name, name_fmt, ap);
    va_end(ap);
    rename_for_files(w, name);
    return get(w, shape, name, false).data;
}

bool weights_dry(const struct weights *w)
{
    return w->dry;
}

void weights_set_dry(struct weights *w, bool dry)
{
    w->dry = dry;
}

size_t weights_room(const struct weights *w)
{
    return w->room;
}

bool weights_stored(const struct weights *w)
{
    return w->stored;
}

enum safetensors_dtype weights_dtype(const struct weights *w)
{
    return w->latest;
}

struct weights_data weights_any(struct weights *w, const struct weights_shape *shape,
                                const char *name_fmt, ...)
{
    char name[MAX_NAME] = "";
    va_list ap;

    va_start(ap, name_fmt);
    vsnprintf(name, sizeof name, name_fmt, ap);
    va_end(ap);
    rename_for_files(w, name);
    return get(w, shape, name, true);
}

bool weights_has(const struct weights *w, const char *name_fmt, ...)
{
    char name[MAX_NAME] = "";
    va_list ap;

    va_start(ap, name_fmt);
    vsnprintf(name, sizeof name, name_fmt, ap);
    va_end(ap);
    rename_for_files(w, name);
    return safetensors_find(w->set, name) != NULL;
}

void weights_ignore(struct weights *w, const char *prefix)
{
    char name[MAX_NAME] = "";
    char *s;

    snprintf(name, sizeof name, "%s", prefix);
    rename_for_files(w, name);
    for (int i = 0; i < w->prefixes; i++)
        if (!strcmp(w->ignored[i], name))
            return;
    s = w->prefixes < MAX_PREFIXES ? strdup(name) : NULL;

    if (s)
        w->ignored[w->prefixes++] = s;
    else
        w->no_memory = true;
}

// ---- accounting -----------------------------------------------------------------------------

static bool is_surplus(const struct weights *w, size_t i)
{
    const char *name = safetensors_at(w->set, i)->name;

    if (w->used[i])
        return false;
    for (int p = 0; p < w->prefixes; p++)
        if (!strncmp(name, w->ignored[p], strlen(w->ignored[p])))
            return false;
    return true;
}

void weights_stats(const struct weights *w, struct weights_stats *out)
{
    *out = w->stats;
    for (size_t i = 0; i < safetensors_count(w->set); i++)
        out->surplus += is_surplus(w, i);
}

// Appends the first lines of a list, comma-separated.
static void put_some(struct buf *b, const char *what, int count, const char *lines)
{
    if (!count)
        return;
    buf_printf(b, "%s%d %s: ", b->len ? "; " : "", count, what);
    for (int i = 0; i < count && i < SHOWN; i++) {
        size_t n = strcspn(lines, "\n");
        buf_printf(b, "%s%.*s", i ? ", " : "", (int)n, lines);
        lines += n + 1;
    }
    if (count > SHOWN)
        buf_puts(b, ", ...");
}

static void put_surplus(const struct weights *w, struct buf *lines)
{
    for (size_t i = 0; i < safetensors_count(w->set); i++)
        if (is_surplus(w, i))
            buf_printf(lines, "%s\n", safetensors_at(w->set, i)->name);
}

const char *weights_path(const struct weights *w, int file)
{
    return file < safetensors_files(w->set) ? safetensors_path(w->set, file) : NULL;
}

enum err weights_finish(struct weights *w, struct fault *why)
{
    const char *path = fault_path(safetensors_path(w->set, 0));
    struct buf text = {0}, surplus = {0};
    struct weights_stats st;
    enum err e = ERR_OK;

    weights_stats(w, &st);
    put_surplus(w, &surplus);
    put_some(&text, "tensors missing", st.missing, w->missing.data);
    put_some(&text, "of another shape", st.misshapen, w->misshapen.data);
    put_some(&text, "not part of the network", st.surplus, surplus.data);
    if (text.failed || surplus.failed || w->missing.failed || w->misshapen.failed || w->no_memory)
        e = fault_set(why, ERR_NO_MEMORY, path, "%s: out of memory", path);
    else if (text.len)
        e = fault_set(why, ERR_FORMAT, path, "%s: %s", path, text.data);
    buf_deinit(&text);
    buf_deinit(&surplus);
    return e;
}

static void put_lines(struct buf *b, const char *label, const char *lines)
{
    while (lines && *lines) {
        size_t n = strcspn(lines, "\n");
        buf_printf(b, "%s %.*s\n", label, (int)n, lines);
        lines += n + 1;
    }
}

char *weights_complaints(const struct weights *w)
{
    struct buf b = {0}, surplus = {0};

    put_surplus(w, &surplus);
    put_lines(&b, "missing", w->missing.data);
    put_lines(&b, "misshapen", w->misshapen.data);
    put_lines(&b, "surplus", surplus.data);
    buf_deinit(&surplus);
    if (!b.len && !b.failed)
        return NULL;
    return buf_take(&b);
}
