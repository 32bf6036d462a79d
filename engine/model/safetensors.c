// One safetensors file: memory mapping, header checks, conversion to f32. Callers:
// safetensors_set.c, weights.c, the golden program. Any thread once opened. Source: the safetensors
// format, https://github.com/huggingface/safetensors#format
#include "safetensors.h"

#include "file.h"
#include "ggml_blocks.h"
#include "json.h"
#include "safetensors_priv.h"
#include "tensor.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "tensors are read in place");

enum { LENGTH_BYTES = 8, MAX_HEADER = 100000000 }; // MAX_HEADER: the format's limit

static const struct {
    const char *name;
    size_t bytes;   // of a block
    uint64_t block; // elements; 0: 1
} dtypes[ST_DTYPES] = {
    [ST_F64] = {"F64", 8},          [ST_F32] = {"F32", 4},
    [ST_F16] = {"F16", 2},          [ST_BF16] = {"BF16", 2},
    [ST_I64] = {"I64", 8},          [ST_I32] = {"I32", 4},
    [ST_I16] = {"I16", 2},          [ST_I8] = {"I8", 1},
    [ST_U64] = {"U64", 8},          [ST_U32] = {"U32", 4},
    [ST_U16] = {"U16", 2},          [ST_U8] = {"U8", 1},
    [ST_BOOL] = {"BOOL", 1},        [ST_Q4_0] = {"Q4_0", 18, 32},
    [ST_Q4_1] = {"Q4_1", 20, 32},   [ST_Q5_0] = {"Q5_0", 22, 32},
    [ST_Q5_1] = {"Q5_1", 24, 32},   [ST_Q8_0] = {"Q8_0", 34, 32},
    [ST_Q2_K] = {"Q2_K", 84, 256},  [ST_Q3_K] = {"Q3_K", 110, 256},
    [ST_Q4_K] = {"Q4_K", 144, 256}, [ST_Q5_K] = {"Q5_K", 176, 256},
    [ST_Q6_K] = {"Q6_K", 210, 256},
};

size_t safetensors_dtype_bytes(enum safetensors_dtype dtype)
{
    return dtypes[dtype].bytes;
}

uint64_t safetensors_dtype_block(enum safetensors_dtype dtype)
{
    return dtypes[dtype].block ? dtypes[dtype].block : 1;
}

const char *safetensors_dtype_name(enum safetensors_dtype dtype)
{
    return dtypes[dtype].name;
}

bool safetensors_is_float(enum safetensors_dtype dtype)
{
    return dtype == ST_F64 || dtype == ST_F32 || dtype == ST_F16 || dtype == ST_BF16 ||
           dtype >= ST_FILE_DTYPES;
}

// ---- conversion -----------------------------------------------------------------------------

static void f64_to_f32(const unsigned char *src, uint64_t n, float *out)
{
    for (uint64_t i = 0; i < n; i++) {
        double d;
        memcpy(&d, src + 8 * i, sizeof d);
        out[i] = (float)d;
    }
}

void safetensors_f32(const struct safetensor *t, uint64_t first, uint64_t n, float *out)
{
    const uint64_t block = safetensors_dtype_block(t->dtype);
    const unsigned char *src =
        (const unsigned char *)t->data + first / block * dtypes[t->dtype].bytes;

    if (t->dtype >= ST_FILE_DTYPES) {
        ggml_blocks_f32(t->dtype, src, n / block, out);
        return;
    }
    switch (t->dtype) {
    case ST_F32: memcpy(out, src, n * sizeof *out); break;
    case ST_F64: f64_to_f32(src, n, out); break;
    case ST_F16: floats_from(src, DT_F16, n, out); break;
    case ST_BF16: floats_from(src, DT_BF16, n, out); break;
    default: memset(out, 0, n * sizeof *out); break; // callers check safetensors_is_float first
    }
}

void safetensors_release(const struct safetensors *s, const struct safetensor *t)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const unsigned char *map = s->file[t->file].map;
    size_t at = (size_t)((const unsigned char *)t->data - map);
    size_t begin = (at + page - 1) / page * page, end = (at + t->bytes) / page * page;

    if (end > begin)
        madvise((void *)(uintptr_t)(map + begin), end - begin, MADV_DONTNEED);
}

// ---- header ---------------------------------------------------------------------------------

struct header {
    const char *path;
    const struct json_t *doc;
    const char *name; // the current tensor
    size_t head_bytes, data_bytes;
    struct fault *why;
};

static enum err bad(const struct header *h, const char *what)
{
    return fault_set(h->why, ERR_FORMAT, h->path, "%s: tensor %.80s: %s", fault_path(h->path),
                     h->name, what);
}

static enum err read_dtype(const struct header *h, const struct json_t *v, struct safetensor *t)
{
    const char *s = json_text(v, NULL);

    if (!s)
        return bad(h, "dtype must be a string");
    for (int i = 0; i < ST_FILE_DTYPES; i++) {
        if (!strcmp(s, dtypes[i].name)) {
            t->dtype = (enum safetensors_dtype)i;
            return ERR_OK;
        }
    }
    return fault_set(h->why, ERR_UNSUPPORTED, h->path,
                     "%s: tensor %.80s: dtype %.20s is not supported", fault_path(h->path), h->name,
                     s);
}

static enum err read_shape(const struct header *h, const struct json_t *v, struct safetensor *t)
{
    if (json_kind(v) != JSON_LIST)
        return bad(h, "shape must be a list");
    if (json_count(v) > SAFETENSORS_MAX_DIMS)
        return bad(h, "shape has more than 8 dimensions");
    t->dims = (int)json_count(v);
    t->elements = 1;
    for (int i = 0; i < t->dims; i++) {
        const struct json_t *d = json_item(v, (size_t)i);
        if (json_kind(d) != JSON_INT || json_int(d) < 0)
            return bad(h, "shape must hold integers that are not negative");
        t->shape[i] = (uint64_t)json_int(d);
        if (__builtin_mul_overflow(t->elements, t->shape[i], &t->elements))
            return bad(h, "the product of its shape overflows");
    }
    if (__builtin_mul_overflow(t->elements, dtypes[t->dtype].bytes, &t->bytes))
        return bad(h, "its size overflows");
    return ERR_OK;
}

// The error for data beyond the end of the file: the file is truncated if the header's tensors are
// contiguous, as the format requires; otherwise the header is malformed.
static enum err outside(const struct header *h)
{
    const struct json_t *v;
    const char *name;
    void *at = NULL;
    uint64_t sum = 0, last = 0;

    while (json_next(h->doc, &at, &name, &v)) {
        const struct json_t *offsets = json_find(v, "data_offsets");
        const int64_t b = json_int(json_item(offsets, 0)), e = json_int(json_item(offsets, 1));
        if (b < 0 || e < b || sum > INT64_MAX)
            return bad(h, "data_offsets lie outside the file");
        sum += (uint64_t)(e - b);
        last = (uint64_t)e > last ? (uint64_t)e : last;
    }
    if (sum != last)
        return bad(h, "data_offsets lie outside the file");
    return fault_set(h->why, ERR_FORMAT, h->path,
                     "%s is truncated: it has %llu of %llu bytes; download it again",
                     fault_path(h->path), (unsigned long long)(h->head_bytes + h->data_bytes),
                     (unsigned long long)h->head_bytes + (unsigned long long)last);
}

static enum err read_offsets(const struct header *h, const struct json_t *v, size_t *begin,
                             size_t *end)
{
    const struct json_t *b = json_item(v, 0), *e = json_item(v, 1);

    if (json_count(v) != 2 || json_kind(b) != JSON_INT || json_kind(e) != JSON_INT)
        return bad(h, "data_offsets must be two integers");
    if (json_int(b) < 0 || json_int(e) < json_int(b))
        return bad(h, "data_offsets are not in order");
    if ((uint64_t)json_int(e) > h->data_bytes)
        return outside(h);
    *begin = (size_t)json_int(b);
    *end = (size_t)json_int(e);
    return ERR_OK;
}

static enum err read_tensor(const struct header *h, const struct json_t *v,
                            const unsigned char *data, struct safetensor *t)
{
    size_t begin = 0, end = 0;
    enum err e;

    if (json_kind(v) != JSON_MAP || json_count(v) != 3)
        return bad(h, "must have exactly dtype, shape and data_offsets");
    if ((e = read_dtype(h, json_find(v, "dtype"), t)) != ERR_OK ||
        (e = read_shape(h, json_find(v, "shape"), t)) != ERR_OK ||
        (e = read_offsets(h, json_find(v, "data_offsets"), &begin, &end)) != ERR_OK)
        return e;
    if (end - begin != t->bytes)
        return bad(h, "its shape and dtype do not match its data_offsets");
    t->name = h->name;
    t->data = data + begin;
    return ERR_OK;
}

static bool grow(struct safetensors *s, size_t more)
{
    size_t need = s->count + more;
    struct safetensor *p;

    if (need <= s->cap)
        return true;
    p = realloc(s->tensor, need * sizeof *p);
    if (!p)
        return false;
    s->tensor = p;
    s->cap = need;
    return true;
}

static int by_offset(const void *a, const void *b)
{
    const struct safetensor *x = a, *y = b;
    const unsigned char *p = x->data, *q = y->data;
    if (p != q)
        return p < q ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

// The format requires tensors to be contiguous and to fill the data section.
static enum err check_layout(struct header *h, struct safetensor *t, size_t n,
                             const unsigned char *data)
{
    size_t at = 0;

    if (n)
        qsort(t, n, sizeof *t, by_offset);
    for (size_t i = 0; i < n; i++) {
        size_t begin = (size_t)((const unsigned char *)t[i].data - data);
        h->name = t[i].name;
        if (begin < at)
            return bad(h, "its data overlaps another tensor's");
        if (begin > at)
            return bad(h, "there is a gap before its data");
        at = begin + t[i].bytes;
    }
    if (at != h->data_bytes)
        return fault_set(h->why, ERR_FORMAT, h->path, "%s: %zu bytes after the last tensor",
                         fault_path(h->path), h->data_bytes - at);
    return ERR_OK;
}

static enum err read_metadata(const struct header *h, const struct json_t *v)
{
    const struct json_t *text;
    const char *key;
    void *at = NULL;

    if (json_kind(v) != JSON_MAP)
        return bad(h, "must be an object");
    while (json_next(v, &at, &key, &text))
        if (json_kind(text) != JSON_TEXT)
            return bad(h, "must hold strings only");
    return ERR_OK;
}

static enum err read_header(struct safetensors *s, int file, struct header *h,
                            const unsigned char *data)
{
    const struct json_t *doc = s->file[file].header, *v;
    size_t first = s->count;
    void *at = NULL;
    enum err e;

    if (json_kind(doc) != JSON_MAP)
        return fault_set(h->why, ERR_FORMAT, h->path, "%s: the header is not a JSON object",
                         fault_path(h->path));
    if (!grow(s, json_count(doc)))
        return fault_set(h->why, ERR_NO_MEMORY, h->path, "%s: out of memory", fault_path(h->path));
    while (json_next(doc, &at, &h->name, &v)) {
        struct safetensor t = {.file = file};
        if (!strcmp(h->name, "__metadata__")) {
            if ((e = read_metadata(h, v)) != ERR_OK)
                return e;
            continue;
        }
        if ((e = read_tensor(h, v, data, &t)) != ERR_OK)
            return e;
        s->tensor[s->count++] = t;
    }
    return check_layout(h, s->count ? s->tensor + first : NULL, s->count - first, data);
}

// ---- file -----------------------------------------------------------------------------------

enum err safetensors_map(const char *path, unsigned char **map, size_t *size, struct fault *why)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    enum err e = ERR_OK;
    struct stat st;
    void *p;

    if (fd < 0)
        return file_open_error(path, errno, why);
    if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
        e = fault_set(why, ERR_IO, path, "%s is not a regular file", fault_path(path));
    } else if (!st.st_size) {
        e = file_explain(path, "", 0, ERR_FORMAT, why);
    } else {
        p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED)
            e = fault_set(why, ERR_IO, path, "%s: %s", fault_path(path), strerror(errno));
        else
            *map = p;
        *size = (size_t)st.st_size;
    }
    close(fd);
    return e;
}

// Checks the header's length, the first bytes of the file. If it is impossible, these bytes tell
// what the file really is.
static enum err check_length(const char *path, const struct safetensors_file *f, uint64_t *length,
                             struct fault *why)
{
    enum err e;

    if (f->size >= LENGTH_BYTES)
        memcpy(length, f->map, LENGTH_BYTES);
    if (f->size > LENGTH_BYTES && *length <= MAX_HEADER && f->map[LENGTH_BYTES] == '{') {
        if (*length <= f->size - LENGTH_BYTES)
            return ERR_OK;
        return fault_set(why, ERR_FORMAT, path,
                         "%s is truncated: its header has %llu bytes, the file %zu; download it "
                         "again",
                         fault_path(path), (unsigned long long)*length, f->size);
    }
    if (f->size < LENGTH_BYTES)
        e = fault_set(why, ERR_FORMAT, path, "%s: too short for a safetensors file",
                      fault_path(path));
    else if (*length > MAX_HEADER || *length > f->size - LENGTH_BYTES)
        e = fault_set(why, ERR_FORMAT, path,
                      "%s is not a safetensors file: the header's length of %llu is impossible",
                      fault_path(path), (unsigned long long)*length);
    else
        e = fault_set(why, ERR_FORMAT, path, "%s: the header is not a JSON object",
                      fault_path(path));
    return file_explain(path, f->map, f->size, e, why);
}

enum err safetensors_add_file(struct safetensors *s, const char *path, struct fault *why)
{
    struct safetensors_file *f = realloc(s->file, (size_t)(s->files + 1) * sizeof *f);
    struct header h = {.path = path, .why = why};
    uint64_t length = 0;
    enum err e;

    if (!f)
        return fault_set(why, ERR_NO_MEMORY, path, "%s: out of memory", fault_path(path));
    s->file = f;
    f = &s->file[s->files];
    *f = (struct safetensors_file){.path = strdup(path)};
    s->files++;
    if (!f->path)
        return fault_set(why, ERR_NO_MEMORY, path, "%s: out of memory", fault_path(path));
    if ((e = safetensors_map(path, &f->map, &f->size, why)) != ERR_OK)
        return e;
    if ((e = check_length(path, f, &length, why)) != ERR_OK)
        return e;
    if ((e = json_parse((const char *)f->map + LENGTH_BYTES, (size_t)length, path, ERR_FORMAT,
                        &f->header, why)) != ERR_OK)
        return e;
    h.doc = f->header;
    h.head_bytes = LENGTH_BYTES + (size_t)length;
    h.data_bytes = f->size - h.head_bytes;
    return read_header(s, s->files - 1, &h, f->map + h.head_bytes);
}

static int by_name(const void *a, const void *b)
{
    const struct safetensor *x = a, *y = b;
    return strcmp(x->name, y->name);
}

enum err safetensors_sort(struct safetensors *s, struct fault *why)
{
    if (s->count)
        qsort(s->tensor, s->count, sizeof *s->tensor, by_name);
    for (size_t i = 1; i < s->count; i++)
        if (!strcmp(s->tensor[i - 1].name, s->tensor[i].name))
            return fault_set(why, ERR_FORMAT, s->tensor[i].name, "tensor %.80s %s: %s",
                             s->tensor[i].name, s->files > 1 ? "is in two files" : "occurs twice",
                             fault_path(s->file[s->tensor[i].file].path));
    return ERR_OK;
}

void safetensors_close(struct safetensors **set)
{
    struct safetensors *s = *set;

    if (!s)
        return;
    for (int i = 0; i < s->files; i++) {
        if (s->file[i].map)
            munmap(s->file[i].map, s->file[i].size);
        json_destroy(&s->file[i].header);
        free(s->file[i].names);
        free(s->file[i].path);
    }
    free(s->file);
    free(s->tensor);
    free(s);
    *set = NULL;
}

const char *safetensors_metadata(const struct safetensors *s, const char *key)
{
    const struct json_t *header = s->files ? s->file[0].header : NULL;

    return json_text(json_find(json_find(header, "__metadata__"), key), NULL);
}

size_t safetensors_count(const struct safetensors *s)
{
    return s->count;
}

const struct safetensor *safetensors_at(const struct safetensors *s, size_t i)
{
    return i < s->count ? &s->tensor[i] : NULL;
}

const struct safetensor *safetensors_find(const struct safetensors *s, const char *name)
{
    const struct safetensor key = {.name = name};
    return s->count ? bsearch(&key, s->tensor, s->count, sizeof key, by_name) : NULL;
}

int safetensors_files(const struct safetensors *s)
{
    return s->files;
}

const char *safetensors_path(const struct safetensors *s, int file)
{
    return s->file[file].path;
}
