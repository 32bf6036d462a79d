// See lora.h.
#include "lora.h"

#include "json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_NAME = 256, PARTS = 3 };
enum part { PART_DOWN, PART_UP, PART_ALPHA };

struct layer {
    char name[MAX_NAME];                  // of the weight
    const struct safetensor *part[PARTS]; // alpha: may be NULL
    double factor;                        // of B A
};

struct lora {
    char *path;
    struct safetensors *file;
    struct layer *layer;
    int count;
};

static const struct {
    const char *end;
    enum part part;
} endings[] = {
    {".lora_A.weight", PART_DOWN},
    {".lora_B.weight", PART_UP},
    {".lora_A.default.weight", PART_DOWN},
    {".lora_B.default.weight", PART_UP},
    {".lora.down.weight", PART_DOWN},
    {".lora.up.weight", PART_UP},
    {"_lora.down.weight", PART_DOWN},
    {"_lora.up.weight", PART_UP},
    {".lora.alpha", PART_ALPHA},
    {"_lora.alpha", PART_ALPHA},
    {".alpha", PART_ALPHA},
};
static const char *const prefixes[] = {"base_model.model.", "unet."};

static enum err complain(const struct lora *l, enum err e, const char *tensor, const char *what,
                         struct fault *why)
{
    return fault_set(why, e, "lora", "%s: tensor %.160s %s", fault_path(l->path), tensor, what);
}

static bool ends_with(const char *s, size_t n, const char *end)
{
    const size_t m = strlen(end);

    return n > m && !memcmp(s + n - m, end, m);
}

// The name of the weight that a tensor belongs to. False: it is not part of a LoRA.
static bool read_name(const char *tensor, char out[MAX_NAME], enum part *part)
{
    static const char processor[] = ".processor.";
    const char *at = tensor;
    size_t n;

    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
        if (!strncmp(at, prefixes[i], strlen(prefixes[i])))
            at += strlen(prefixes[i]);
    n = strlen(at);
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        if (!ends_with(at, n, endings[i].end))
            continue;
        n -= strlen(endings[i].end);
        *part = endings[i].part;
        const char *p = strstr(at, processor);
        const size_t head = p && (size_t)(p - at) < n ? (size_t)(p - at) : n;
        const char *rest = head < n ? p + sizeof processor - 2 : "";
        const int tail = head < n ? (int)(at + n - rest) : 0;
        // Processors call the output layer of attentions to_out.
        const bool output = ends_with(at, n, ".to_out");
        const int length = snprintf(out, MAX_NAME, "%.*s%.*s%s.weight", (int)head, at, tail, rest,
                                    output ? ".0" : "");
        return length < MAX_NAME;
    }
    return false;
}

static struct layer *find_or_add(struct lora *l, const char *name)
{
    for (int i = 0; i < l->count; i++)
        if (!strcmp(l->layer[i].name, name))
            return &l->layer[i];
    struct layer *new = &l->layer[l->count++];
    memcpy(new->name, name, MAX_NAME);
    return new;
}

static enum err add_tensor(struct lora *l, const struct safetensor *t, struct fault *why)
{
    char name[MAX_NAME];
    enum part part;

    if (!strncmp(t->name, "text_encoder", strlen("text_encoder")) ||
        !strncmp(t->name, "lora_te", strlen("lora_te")))
        return complain(l, ERR_UNSUPPORTED, t->name,
                        "is for a text encoder, which diffusers does not change for DeepFloyd IF; "
                        "remove such tensors from the file",
                        why);
    if (!read_name(t->name, name, &part))
        return complain(l, ERR_UNSUPPORTED, t->name,
                        "is not part of a LoRA in diffusers' format: lora_A and lora_B, or "
                        "lora.down and lora.up, and alpha",
                        why);
    struct layer *layer = find_or_add(l, name);
    if (layer->part[part])
        return complain(l, ERR_FORMAT, t->name, "is there twice, under two names", why);
    layer->part[part] = t;
    return ERR_OK;
}

// Whether the dimensions from `from` on are all 1.
static bool is_flat(const struct safetensor *t, int from)
{
    for (int i = from; i < t->dims; i++)
        if (t->shape[i] != 1)
            return false;
    return true;
}

static enum err check_layer(struct lora *l, struct layer *a, double scale, struct fault *why)
{
    const struct safetensor *down = a->part[PART_DOWN], *up = a->part[PART_UP];
    const struct safetensor *alpha = a->part[PART_ALPHA];
    float value = 0;

    if (!down || !up)
        return complain(l, ERR_FORMAT,
                        (down ? down
                         : up ? up
                              : alpha)
                            ->name,
                        "has no partner: each layer needs lora_A and lora_B, or down and up", why);
    if (!safetensors_is_float(down->dtype) || !safetensors_is_float(up->dtype))
        return complain(l, ERR_FORMAT, down->name, "or its partner does not hold floats", why);
    if (down->dims < 2 || up->dims < 2 || !down->elements || !up->elements || !is_flat(up, 2) ||
        down->shape[0] != up->shape[1])
        return complain(l, ERR_FORMAT, down->name,
                        "and its partner have no common rank: [rank, inputs] and [outputs, rank]",
                        why);
    if (alpha && (alpha->elements != 1 || !safetensors_is_float(alpha->dtype)))
        return complain(l, ERR_FORMAT, alpha->name, "must be one float", why);
    if (alpha)
        safetensors_f32(alpha, 0, 1, &value);
    a->factor = scale * (alpha ? (double)value / (double)down->shape[0] : 1);
    return isfinite(a->factor) ? ERR_OK
                               : complain(l, ERR_FORMAT, alpha ? alpha->name : down->name,
                                          "has an alpha that is not finite", why);
}

// PEFT's settings, which newer versions of diffusers store beside the tensors. Those that change
// the arithmetic and are not implemented are refused.
static enum err check_settings(struct lora *l, struct fault *why)
{
    const char *text = safetensors_metadata(l->file, "lora_adapter_metadata");
    static const char *const refused[] = {"use_dora", "use_rslora", "alpha_pattern", "lora_bias"};
    struct json_t *doc = NULL;
    const struct json_t *v;
    const char *key;
    double alpha = 0;
    void *at = NULL;
    enum err e = ERR_OK;

    if (!text)
        return ERR_OK;
    e = json_parse(text, strlen(text), l->path, ERR_FORMAT, &doc, why);
    while (!e && json_kind(doc) == JSON_MAP && json_next(doc, &at, &key, &v)) {
        const char *dot = strrchr(key, '.'), *name = dot ? dot + 1 : key;
        if (!strcmp(name, "lora_alpha"))
            alpha = json_number(v);
        for (size_t i = 0; !e && i < sizeof refused / sizeof *refused; i++)
            if (!strcmp(name, refused[i]) &&
                (json_bool(v) || (json_kind(v) == JSON_MAP && json_count(v))))
                e = fault_set(why, ERR_UNSUPPORTED, "lora",
                              "%s: its settings have %s, which is not supported",
                              fault_path(l->path), name);
    }
    // Layers without an alpha of their own have this one.
    for (int i = 0; !e && alpha > 0 && i < l->count; i++)
        if (!l->layer[i].part[PART_ALPHA])
            l->layer[i].factor *= alpha / (double)l->layer[i].part[PART_DOWN]->shape[0];
    json_destroy(&doc);
    return e;
}

enum err lora_open(const struct lora_params *p, struct lora **out, struct fault *why)
{
    struct lora *l = calloc(1, sizeof *l);
    enum err e = ERR_NO_MEMORY;

    *out = NULL;
    if (l)
        l->path = strdup(p->path);
    if (!l || !l->path) {
        free(l);
        return fault_set(why, e, "lora", "%s: out of memory", fault_path(p->path));
    }
    e = safetensors_open_file(p->path, &l->file, why);
    const size_t tensors = e ? 0 : safetensors_count(l->file);
    if (!e && !tensors)
        e = fault_set(why, ERR_FORMAT, "lora", "%s: has no tensors", fault_path(p->path));
    if (!e && !(l->layer = calloc(tensors, sizeof *l->layer)))
        e = fault_set(why, ERR_NO_MEMORY, "lora", "%s: out of memory", fault_path(p->path));
    for (size_t i = 0; !e && i < tensors; i++)
        e = add_tensor(l, safetensors_at(l->file, i), why);
    for (int i = 0; !e && i < l->count; i++)
        e = check_layer(l, &l->layer[i], p->scale, why);
    if (!e)
        e = check_settings(l, why);
    if (e)
        lora_close(&l);
    *out = l;
    return e;
}

void lora_close(struct lora **out)
{
    struct lora *l = *out;

    if (!l)
        return;
    safetensors_close(&l->file);
    free(l->layer);
    free(l->path);
    free(l);
    *out = NULL;
}

int lora_count(const struct lora *l)
{
    return l->count;
}

const char *lora_name(const struct lora *l, int index)
{
    return l->layer[index].name;
}

int lora_find(const struct lora *l, const char *name)
{
    for (int i = 0; i < l->count; i++)
        if (!strcmp(l->layer[i].name, name))
            return i;
    return -1;
}

enum err lora_check(const struct lora *l, int index, const struct safetensor *w, struct fault *why)
{
    const struct layer *a = &l->layer[index];
    const struct safetensor *down = a->part[PART_DOWN], *up = a->part[PART_UP];
    bool fits = w && w->dims >= 2 && safetensors_is_float(w->dtype) && w->shape[0] == up->shape[0];

    if (!w)
        return complain(l, ERR_FORMAT, down->name, "does not fit: the network has no such layer",
                        why);
    for (int i = 1; fits && i < w->dims; i++)
        fits = w->shape[i] == (i < down->dims ? down->shape[i] : 1);
    if (fits && (w->dims >= down->dims || is_flat(down, w->dims)))
        return ERR_OK;
    return fault_set(why, ERR_FORMAT, "lora",
                     "%s: tensor %.160s does not fit: it is for %llu inputs and %llu outputs, but "
                     "the network's %.100s has another shape",
                     fault_path(l->path), down->name,
                     (unsigned long long)(down->elements / down->shape[0]),
                     (unsigned long long)up->shape[0], w->name);
}

enum err lora_add(const struct lora *l, int index, uint64_t elements, float *w)
{
    const struct layer *a = &l->layer[index];
    const struct safetensor *down = a->part[PART_DOWN], *up = a->part[PART_UP];
    const uint64_t rank = down->shape[0], outputs = up->shape[0], inputs = elements / outputs;
    float *from = malloc((down->elements + up->elements) * sizeof *from);
    float *to = from ? from + down->elements : NULL;
    double *sum = malloc(inputs * sizeof *sum);
    const enum err e = from && sum ? ERR_OK : ERR_NO_MEMORY;

    if (!e) {
        safetensors_f32(down, 0, down->elements, from);
        safetensors_f32(up, 0, up->elements, to);
    }
    for (uint64_t o = 0; !e && o < outputs; o++, w += inputs) {
        memset(sum, 0, inputs * sizeof *sum);
        for (uint64_t k = 0; k < rank; k++) {
            const double b = (double)to[o * rank + k];
            for (uint64_t i = 0; i < inputs; i++)
                sum[i] += b * (double)from[k * inputs + i];
        }
        for (uint64_t i = 0; i < inputs; i++)
            w[i] = (float)((double)w[i] + a->factor * sum[i]);
    }
    free(from);
    free(sum);
    return e;
}
