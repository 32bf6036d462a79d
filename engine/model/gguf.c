// GGUF files, see gguf.h: the header's values stay in the mapped file and are found by name.
#include "gguf.h"

#include "file.h"
#include "safetensors_priv.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum type { U8, I8, U16, I16, U32, I32, F32, BOOL, TEXT, ARRAY, U64, I64, F64, TYPES };
enum { MAX_TENSORS = 1 << 16, MAX_VALUES = 1 << 16, MAX_NAME = 256, MAX_DIMS = 4 };

static const unsigned char sizes[TYPES] = {
    [U8] = 1,  [I8] = 1,   [U16] = 2, [I16] = 2, [U32] = 4, [I32] = 4,
    [F32] = 4, [BOOL] = 1, [U64] = 8, [I64] = 8, [F64] = 8,
};

struct value {
    const char *key; // without a NUL
    size_t key_len;
    enum type type, of;        // of: an array's elements
    uint64_t count;            // of an array, or a text's bytes
    const unsigned char *data; // of the value, of the first element, of the text
};

struct gguf {
    struct safetensors *set;
    const unsigned char *begin, *at, *end; // at: while parsing
    struct value *value;
    size_t values;
    // where gguf_text_at continues
    const struct value *list;
    size_t next;
    const unsigned char *cursor;
    const char *path;
    struct fault *why;
};

bool gguf_is(const char *path)
{
    const size_t n = strlen(path);

    return n > 5 && !strcmp(path + n - 5, ".gguf");
}

// ---- reading the header -------------------------------------------------------------------------

static enum err bad(const struct gguf *g, const char *what)
{
    return fault_set(g->why, ERR_FORMAT, g->path, "%s: %s", fault_path(g->path), what);
}

static enum err truncated(const struct gguf *g)
{
    return fault_set(g->why, ERR_FORMAT, g->path,
                     "%s is truncated: its header continues after its %zu bytes; download it again",
                     fault_path(g->path), (size_t)(g->end - g->begin));
}

static enum err take(struct gguf *g, void *out, size_t n)
{
    if (n > (size_t)(g->end - g->at))
        return truncated(g);
    memcpy(out, g->at, n);
    g->at += n;
    return ERR_OK;
}

static enum err take_text(struct gguf *g, const char **text, size_t *len)
{
    uint64_t n = 0;
    const enum err e = take(g, &n, sizeof n);

    if (e)
        return e;
    if (n > (size_t)(g->end - g->at))
        return truncated(g);
    *text = (const char *)g->at;
    *len = (size_t)n;
    g->at += n;
    return ERR_OK;
}

static enum err skip_texts(struct gguf *g, uint64_t count)
{
    const char *text;
    size_t len;
    enum err e = ERR_OK;

    // Each text takes 8 bytes or more, so a wrong count ends at the end of the file.
    for (uint64_t i = 0; !e && i < count; i++)
        e = take_text(g, &text, &len);
    return e;
}

static enum err take_array(struct gguf *g, struct value *v)
{
    uint32_t of = 0;
    enum err e = take(g, &of, sizeof of);

    if (!e)
        e = take(g, &v->count, sizeof v->count);
    if (e)
        return e;
    if (of >= TYPES || of == ARRAY)
        return bad(g, "an array of its metadata has an unknown element type");
    v->of = (enum type)of;
    v->data = g->at;
    if (of == TEXT)
        return skip_texts(g, v->count);
    if (v->count > (size_t)(g->end - g->at) / sizes[of])
        return truncated(g);
    g->at += v->count * sizes[of];
    return ERR_OK;
}

static enum err take_value(struct gguf *g, struct value *v)
{
    uint32_t type = 0;
    enum err e = take_text(g, &v->key, &v->key_len);

    if (!e)
        e = take(g, &type, sizeof type);
    if (e)
        return e;
    if (type >= TYPES)
        return fault_set(g->why, ERR_FORMAT, g->path, "%s: its metadata has the unknown type %u",
                         fault_path(g->path), type);
    v->type = (enum type)type;
    v->data = g->at;
    if (type == ARRAY)
        return take_array(g, v);
    if (type == TEXT) {
        size_t len = 0;
        e = take_text(g, (const char **)(void *)&v->data, &len);
        v->count = len;
        return e;
    }
    if (sizes[type] > (size_t)(g->end - g->at))
        return truncated(g);
    g->at += sizes[type];
    return ERR_OK;
}

// ---- metadata -----------------------------------------------------------------------------------

static const struct value *find(const struct gguf *g, const char *key)
{
    const size_t len = strlen(key);

    for (size_t i = 0; i < g->values; i++)
        if (g->value[i].key_len == len && !memcmp(g->value[i].key, key, len))
            return &g->value[i];
    return NULL;
}

#define NUMBER(ctype)                                                                              \
    do {                                                                                           \
        ctype x;                                                                                   \
        memcpy(&x, p, sizeof x);                                                                   \
        return (double)x;                                                                          \
    } while (0)

static double number(enum type type, const unsigned char *p, double def)
{
    switch (type) {
    case U8: NUMBER(uint8_t);
    case I8: NUMBER(int8_t);
    case U16: NUMBER(uint16_t);
    case I16: NUMBER(int16_t);
    case U32: NUMBER(uint32_t);
    case I32: NUMBER(int32_t);
    case F32: NUMBER(float);
    case BOOL: return *p != 0;
    case U64: NUMBER(uint64_t);
    case I64: NUMBER(int64_t);
    case F64: NUMBER(double);
    default: return def;
    }
}

const char *gguf_text(const struct gguf *g, const char *key, size_t *len)
{
    const struct value *v = find(g, key);

    if (!v || v->type != TEXT)
        return NULL;
    *len = (size_t)v->count;
    return (const char *)v->data;
}

double gguf_number(const struct gguf *g, const char *key, double def)
{
    const struct value *v = find(g, key);

    return v ? number(v->type, v->data, NAN) : def;
}

bool gguf_has(const struct gguf *g, const char *key)
{
    return find(g, key) != NULL;
}

size_t gguf_count(const struct gguf *g, const char *key)
{
    const struct value *v = find(g, key);

    return v && v->type == ARRAY ? (size_t)v->count : 0;
}

const char *gguf_text_at(struct gguf *g, const char *key, size_t i, size_t *len)
{
    const struct value *v = find(g, key);
    const char *text = NULL;

    if (!v || v->type != ARRAY || v->of != TEXT || i >= v->count)
        return NULL;
    if (g->list != v || i < g->next) {
        g->list = v;
        g->next = 0;
        g->cursor = v->data;
    }
    for (; g->next <= i; g->next++) {
        uint64_t n;
        memcpy(&n, g->cursor, sizeof n);
        text = (const char *)g->cursor + sizeof n;
        *len = (size_t)n;
        g->cursor += sizeof n + n;
    }
    return text;
}

double gguf_number_at(const struct gguf *g, const char *key, size_t i, double def)
{
    const struct value *v = find(g, key);

    if (!v || v->type != ARRAY || v->of == TEXT || i >= v->count)
        return def;
    return number(v->of, v->data + i * sizes[v->of], NAN);
}

const void *gguf_bytes(const struct gguf *g, const char *key, size_t *len)
{
    const struct value *v = find(g, key);

    if (!v || v->type != ARRAY || v->of == TEXT || sizes[v->of] != 1)
        return NULL;
    *len = (size_t)v->count;
    return v->data;
}

// ---- tensors ------------------------------------------------------------------------------------

// ggml's numbers of types; ST_DTYPES: not supported here.
static const struct {
    const char *name;
    enum safetensors_dtype dtype;
} types[] = {
    [0] = {"F32", ST_F32},        [1] = {"F16", ST_F16},         [2] = {"Q4_0", ST_Q4_0},
    [3] = {"Q4_1", ST_Q4_1},      [6] = {"Q5_0", ST_Q5_0},       [7] = {"Q5_1", ST_Q5_1},
    [8] = {"Q8_0", ST_Q8_0},      [9] = {"Q8_1", ST_DTYPES},     [10] = {"Q2_K", ST_Q2_K},
    [11] = {"Q3_K", ST_Q3_K},     [12] = {"Q4_K", ST_Q4_K},      [13] = {"Q5_K", ST_Q5_K},
    [14] = {"Q6_K", ST_Q6_K},     [15] = {"Q8_K", ST_DTYPES},    [16] = {"IQ2_XXS", ST_DTYPES},
    [17] = {"IQ2_XS", ST_DTYPES}, [18] = {"IQ3_XXS", ST_DTYPES}, [19] = {"IQ1_S", ST_DTYPES},
    [20] = {"IQ4_NL", ST_DTYPES}, [21] = {"IQ3_S", ST_DTYPES},   [22] = {"IQ2_S", ST_DTYPES},
    [23] = {"IQ4_XS", ST_DTYPES}, [24] = {"I8", ST_I8},          [25] = {"I16", ST_I16},
    [26] = {"I32", ST_I32},       [27] = {"I64", ST_I64},        [28] = {"F64", ST_F64},
    [29] = {"IQ1_M", ST_DTYPES},  [30] = {"BF16", ST_BF16},      [34] = {"TQ1_0", ST_DTYPES},
    [35] = {"TQ2_0", ST_DTYPES},  [39] = {"MXFP4", ST_DTYPES},
};

static enum err bad_tensor(const struct gguf *g, const struct safetensor *t, const char *what)
{
    return fault_set(g->why, ERR_FORMAT, g->path, "%s: tensor %.80s: %s", fault_path(g->path),
                     t->name, what);
}

static enum err set_type(const struct gguf *g, uint32_t type, struct safetensor *t)
{
    const bool known = type < sizeof types / sizeof *types && types[type].name;
    char number[16];

    if (known && types[type].dtype != ST_DTYPES) {
        t->dtype = types[type].dtype;
        return ERR_OK;
    }
    snprintf(number, sizeof number, "%u", type);
    return fault_set(g->why, ERR_UNSUPPORTED, g->path,
                     "%s: tensor %.80s has the type %s, which is not supported; use a file in F32, "
                     "F16, BF16, Q8_0, Q6_K, Q5_K or Q4_K",
                     fault_path(g->path), t->name, known ? types[type].name : number);
}

// ggml lists dimensions from the innermost to the outermost, and drops outer ones of size 1.
static enum err set_shape(const struct gguf *g, const uint64_t *dims, struct safetensor *t)
{
    const uint64_t block = safetensors_dtype_block(t->dtype);

    t->elements = 1;
    for (int i = 0; i < t->dims; i++) {
        t->shape[t->dims - 1 - i] = dims[i];
        if (__builtin_mul_overflow(t->elements, dims[i], &t->elements))
            return bad_tensor(g, t, "the product of its shape overflows");
    }
    if (t->dims && dims[0] % block)
        return fault_set(
            g->why, ERR_FORMAT, g->path,
            "%s: tensor %.80s: %s needs rows of a multiple of %llu, but they have %llu",
            fault_path(g->path), t->name, safetensors_dtype_name(t->dtype),
            (unsigned long long)block, (unsigned long long)dims[0]);
    if (!t->dims && block > 1)
        return bad_tensor(g, t, "a single number cannot be quantized");
    if (__builtin_mul_overflow(t->elements / block, safetensors_dtype_bytes(t->dtype), &t->bytes))
        return bad_tensor(g, t, "its size overflows");
    return ERR_OK;
}

// names: receives a copy with a NUL. The offset is kept in file until the data's start is known.
static enum err take_tensor(struct gguf *g, char **names, struct safetensor *t, uint64_t *offset)
{
    uint64_t dims[MAX_DIMS] = {0};
    uint32_t count = 0, type = 0;
    const char *name = NULL;
    size_t len = 0;
    enum err e = take_text(g, &name, &len);

    if (e)
        return e;
    if (!len || len >= MAX_NAME || memchr(name, 0, len))
        return bad(g, "a tensor has an unusable name");
    t->name = *names;
    memcpy(*names, name, len);
    (*names)[len] = 0;
    *names += len + 1;
    if ((e = take(g, &count, sizeof count)))
        return e;
    if (count > MAX_DIMS)
        return bad_tensor(g, t, "it has more than 4 dimensions");
    t->dims = (int)count;
    if ((e = take(g, dims, count * sizeof *dims)) || (e = take(g, &type, sizeof type)) ||
        (e = take(g, offset, sizeof *offset)) || (e = set_type(g, type, t)))
        return e;
    return set_shape(g, dims, t);
}

// Finds the tensors' data. It begins at the next multiple of the alignment after the header.
static enum err place(const struct gguf *g, uint64_t alignment, const uint64_t *offset)
{
    const uint64_t head = (uint64_t)(g->at - g->begin), size = (uint64_t)(g->end - g->begin);
    const uint64_t start = (head + alignment - 1) / alignment * alignment;
    uint64_t need = 0;

    for (size_t i = 0; i < g->set->count; i++) {
        struct safetensor *t = &g->set->tensor[i];
        uint64_t end;
        if (offset[i] % alignment)
            return bad_tensor(g, t, "its data is not aligned");
        if (__builtin_add_overflow(start + offset[i], t->bytes, &end) || offset[i] > end)
            return bad_tensor(g, t, "its data lies outside the file");
        need = end > need ? end : need;
        t->data = g->begin + (end <= size ? start + offset[i] : 0);
    }
    if (need > size)
        return fault_set(g->why, ERR_FORMAT, g->path,
                         "%s is truncated: it has %llu of %llu bytes; download it again",
                         fault_path(g->path), (unsigned long long)size, (unsigned long long)need);
    return ERR_OK;
}

static int by_data(const void *a, const void *b)
{
    const struct safetensor *x = a, *y = b;

    if (x->data != y->data)
        return (const char *)x->data < (const char *)y->data ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

static enum err check_overlap(const struct gguf *g)
{
    struct safetensor *t = g->set->tensor;

    if (g->set->count)
        qsort(t, g->set->count, sizeof *t, by_data);
    for (size_t i = 1; i < g->set->count; i++)
        if ((const char *)t[i].data < (const char *)t[i - 1].data + t[i - 1].bytes)
            return bad_tensor(g, &t[i], "its data overlaps another tensor's");
    return ERR_OK;
}

static enum err take_tensors(struct gguf *g, uint64_t count)
{
    struct safetensors *s = g->set;
    const double alignment = gguf_number(g, "general.alignment", 32);
    uint64_t *offset = calloc(count ? count : 1, sizeof *offset);
    char *names = malloc(count ? count * MAX_NAME : 1);
    enum err e = ERR_OK;

    s->file[0].names = names;
    s->tensor = calloc(count ? count : 1, sizeof *s->tensor);
    if (!offset || !names || !s->tensor)
        e = fault_set(g->why, ERR_NO_MEMORY, g->path, "%s: out of memory", fault_path(g->path));
    else if (!(alignment >= 8 && alignment <= 1 << 20) || (long)alignment % 8)
        e = bad(g, "general.alignment is not a multiple of 8");
    for (uint64_t i = 0; !e && i < count; i++) {
        e = take_tensor(g, &names, &s->tensor[i], &offset[i]);
        s->count += !e;
    }
    if (!e)
        e = place(g, (uint64_t)alignment, offset);
    if (!e)
        e = check_overlap(g);
    free(offset);
    return e;
}

// ---- the file -----------------------------------------------------------------------------------

static enum err check_parts(const struct gguf *g)
{
    const double parts = gguf_number(g, "split.count", 1);

    if (!(parts > 1))
        return ERR_OK;
    return fault_set(g->why, ERR_UNSUPPORTED, g->path,
                     "%s is one of %.0f parts; join them with llama-gguf-split --merge",
                     fault_path(g->path), parts);
}

static enum err parse(struct gguf *g)
{
    struct {
        char magic[4];
        uint32_t version;
        uint64_t tensors, values;
    } head;
    const size_t size = (size_t)(g->end - g->begin);
    enum err e;

    if (size < 4 || memcmp(g->begin, "GGUF", 4) != 0) {
        e = bad(g, "not a GGUF file");
        return file_explain(g->path, g->begin, size, e, g->why);
    }
    if ((e = take(g, &head, sizeof head)))
        return e;
    if (head.version != 2 && head.version != 3)
        return fault_set(
            g->why, ERR_UNSUPPORTED, g->path, "%s has the GGUF version %u; expected 2 or 3%s",
            fault_path(g->path), head.version,
            head.version && !(head.version & 0xffffff) ? " in little-endian order" : "");
    if (head.tensors > MAX_TENSORS || head.values > MAX_VALUES)
        return bad(g, "its header has impossible counts");
    g->value = calloc(head.values ? head.values : 1, sizeof *g->value);
    if (!g->value)
        return fault_set(g->why, ERR_NO_MEMORY, g->path, "%s: out of memory", fault_path(g->path));
    for (uint64_t i = 0; !e && i < head.values; i++) {
        e = take_value(g, &g->value[i]);
        g->values += !e;
    }
    if (!e)
        e = check_parts(g);
    if (!e)
        e = take_tensors(g, head.tensors);
    return e ? e : safetensors_sort(g->set, g->why);
}

enum err gguf_open(const char *path, struct gguf **out, struct fault *why)
{
    struct gguf *g = calloc(1, sizeof *g);
    struct safetensors_file *f = calloc(1, sizeof *f);
    enum err e = ERR_NO_MEMORY;

    *out = NULL;
    if (g && f)
        g->set = calloc(1, sizeof *g->set);
    if (!g || !f || !g->set) {
        free(f);
        gguf_close(&g);
        return fault_set(why, e, path, "%s: out of memory", fault_path(path));
    }
    g->set->file = f;
    g->set->files = 1;
    f->path = strdup(path);
    e = f->path ? safetensors_map(path, &f->map, &f->size, why)
                : fault_set(why, e, path, "%s: out of memory", fault_path(path));
    g->begin = g->at = f->map;
    g->end = f->map ? f->map + f->size : NULL;
    g->path = f->path;
    g->why = why;
    if (!e)
        e = parse(g);
    g->why = NULL;
    if (e)
        gguf_close(&g);
    *out = g;
    return e;
}

void gguf_close(struct gguf **out)
{
    struct gguf *g = *out;

    if (!g)
        return;
    safetensors_close(&g->set);
    free(g->value);
    free(g);
    *out = NULL;
}

const struct safetensors *gguf_tensors(const struct gguf *g)
{
    return g->set;
}

struct safetensors *gguf_take_tensors(struct gguf *g)
{
    struct safetensors *s = g->set;

    g->set = NULL;
    return s;
}
