// Tensors as values: creation, views, and moving their contents between CPU layouts and padded
// device memory. Called by every layer above and by the operators. Thread: the engine's worker.
// Knows nothing about kernels or recordings.
#include "ops_internal.h"

#include <stdlib.h>
#include <string.h>

enum { BAD_STRIDE = 512, LINE = 64 };

size_t tensor_dtype_bytes(enum dtype dtype)
{
    switch (dtype) {
    case DT_F16:
    case DT_BF16: return 2;
    case DT_U8: return 1;
    default: return 4;
    }
}

uint32_t tensor_stride(enum dtype dtype, uint32_t c)
{
    if (dtype == DT_U8)
        return c; // images are dense
    uint32_t cs = (c + 3) / 4 * 4, bytes = (uint32_t)tensor_dtype_bytes(dtype);
    if (cs * bytes % BAD_STRIDE == 0)
        cs += LINE / bytes;
    return cs;
}

bool tensor_in_eights(const struct tensor *t)
{
    return t->dtype == DT_F16 && t->offset % 8 == 0 && t->cs % 8 == 0;
}

size_t tensor_span(const struct tensor *t)
{
    size_t pixels = (size_t)t->n * t->h * t->w;
    if (!pixels)
        return 0;
    size_t last = t->dtype == DT_U8 ? t->c : (size_t)(t->c + 3) / 4 * 4;
    return (pixels - 1) * t->cs + last;
}

struct tensor tensor_shaped(enum dtype dtype, const uint32_t shape[4])
{
    struct tensor t = {.dtype = dtype, .n = shape[0], .h = shape[1], .w = shape[2], .c = shape[3]};
    t.cs = tensor_stride(dtype, t.c);
    return t;
}

// Whole words, so that shaders may write the last one of a u8 image.
size_t tensor_buffer_bytes(const struct tensor *t)
{
    return (tensor_span(t) * tensor_dtype_bytes(t->dtype) + 15) / 16 * 16;
}

static enum err create(struct ops_device *dev, enum vk_heap heap, enum dtype dtype,
                       const uint32_t shape[4], struct tensor *out)
{
    struct tensor t = tensor_shaped(dtype, shape);
    size_t bytes = tensor_buffer_bytes(&t);
    if (!bytes)
        return ERR_INVALID;
    enum err e = vk_buffer_create(dev->vk, heap, bytes, &t.buf);
    if (!e)
        *out = t;
    return e;
}

enum err tensor_create(struct ops_device *dev, enum dtype dtype, uint32_t n, uint32_t h, uint32_t w,
                       uint32_t c, struct tensor *out)
{
    return create(dev, VK_DEVICE, dtype, (uint32_t[]){n, h, w, c}, out);
}

enum err tensor_create_mapped(struct ops_device *dev, enum dtype dtype, uint32_t n, uint32_t h,
                              uint32_t w, uint32_t c, struct tensor *out)
{
    enum vk_heap heap = dtype == DT_U8 ? VK_READBACK : VK_UPLOAD;
    return create(dev, heap, dtype, (uint32_t[]){n, h, w, c}, out);
}

void tensor_destroy(struct tensor *t)
{
    vk_buffer_destroy(&t->buf);
    *t = (struct tensor){0};
}

void *tensor_map(const struct tensor *t)
{
    char *p = vk_buffer_map(t->buf);
    return p ? p + t->offset * tensor_dtype_bytes(t->dtype) : NULL;
}

struct tensor tensor_channels(const struct tensor *t, uint32_t c0, uint32_t c)
{
    struct tensor v = *t;
    v.offset += c0;
    v.c = c;
    return v;
}

struct tensor tensor_samples(const struct tensor *t, uint32_t n0, uint32_t n)
{
    struct tensor v = *t;
    v.offset += (size_t)n0 * t->h * t->w * t->cs;
    v.n = n;
    return v;
}

struct tensor tensor_reshape(const struct tensor *t, uint32_t n, uint32_t h, uint32_t w)
{
    struct tensor v = *t;
    v.n = n;
    v.h = h;
    v.w = w;
    return v;
}

// ---- halves -------------------------------------------------------------------------------------

uint16_t half_from_float(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    uint32_t sign = u >> 16 & 0x8000, abs = u & 0x7fffffff;
    if (abs >= 0x7f800000) // infinity, NaN
        return (uint16_t)(sign | 0x7c00 | (abs > 0x7f800000 ? 0x200 : 0));
    if (abs >= 0x477ff000) // rounds to 65536 or more
        return (uint16_t)(sign | 0x7c00);
    if (abs < 0x38800000) { // subnormal half: let the FPU round at 2^-24
        float m;
        memcpy(&m, &abs, 4);
        m += 0.5f;
        uint32_t r;
        memcpy(&r, &m, 4);
        return (uint16_t)(sign | (r - 0x3f000000));
    }
    uint32_t r = abs + 0xfff + (abs >> 13 & 1);
    return (uint16_t)(sign | (r - 0x38000000) >> 13);
}

// Every case is computed and one is taken, so that compilers turn the loop into vector code.
void halves_from_floats(const float *restrict from, size_t n, uint16_t *restrict to)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t u, abs, small;
        float m;
        memcpy(&u, &from[i], 4);
        abs = u & 0x7fffffff;
        memcpy(&m, &abs, 4);
        m += 0.5f;
        memcpy(&small, &m, 4);
        uint32_t r = (abs + 0xfff + (abs >> 13 & 1) - 0x38000000) >> 13;
        r = abs < 0x38800000 ? small - 0x3f000000 : r;
        r = abs >= 0x477ff000 ? 0x7c00 : r;
        r = abs > 0x7f800000 ? 0x7e00 : r;
        to[i] = (uint16_t)(r | (u >> 16 & 0x8000));
    }
}

float float_from_half(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, e = h >> 10 & 31, m = h & 0x3ff, u;
    if (e == 31)
        u = sign | 0x7f800000 | m << 13;
    else if (e)
        u = sign | (e + 112) << 23 | m << 13;
    else {
        float f = (float)m * 0x1p-24f;
        memcpy(&u, &f, 4);
        u |= sign;
    }
    float f;
    memcpy(&f, &u, 4);
    return f;
}

static uint16_t load16(const unsigned char *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

// Branch-free, so that compilers vectorize the loop. Subnormals are converted through integers, so
// that a thread that flushes subnormal floats to zero reads the same weights.
static void floats_from_halves(const unsigned char *restrict from, size_t n, float *restrict to)
{
    const int32_t rebias = 112 << 23;
    for (size_t i = 0; i < n; i++) {
        int32_t h = load16(from + 2 * i), magnitude = h & 0x7fff, small;
        const float scaled = (float)magnitude * 0x1p-24f;
        memcpy(&small, &scaled, 4);
        int32_t is_small = -(magnitude < 0x400), is_special = -(magnitude >= 0x7c00);
        int32_t bits = (magnitude << 13) + rebias + (rebias & is_special);
        bits = (bits & ~is_small) | (small & is_small);
        uint32_t u = (uint32_t)bits | (uint32_t)(h & 0x8000) << 16;
        memcpy(&to[i], &u, 4);
    }
}

void floats_from(const void *restrict from, enum dtype dtype, size_t n, float *restrict to)
{
    const unsigned char *src = from;
    if (dtype == DT_F16)
        floats_from_halves(src, n, to);
    else if (dtype == DT_BF16)
        for (size_t i = 0; i < n; i++) {
            uint32_t u = (uint32_t)load16(src + 2 * i) << 16;
            memcpy(&to[i], &u, 4);
        }
    else
        memcpy(to, src, n * sizeof *to);
}

// ---- transfers ----------------------------------------------------------------------------------

// Where element (n, y, x, c) is on the CPU side, as steps per index.
struct layout {
    size_t n, pixel, c;
};

static struct layout dense_nhwc(const struct tensor *t)
{
    return (struct layout){(size_t)t->h * t->w * t->c, t->c, 1};
}

static struct layout dense_nchw(const struct tensor *t)
{
    return (struct layout){(size_t)t->h * t->w * t->c, 1, (size_t)t->h * t->w};
}

static void write_pixel(const struct tensor *t, char *to, const char *from, size_t step)
{
    for (uint32_t c = 0; c < t->c; c++) {
        if (t->dtype == DT_U8) {
            to[c] = from[c * step];
            continue;
        }
        uint32_t word;
        memcpy(&word, from + 4 * c * step, 4);
        if (t->dtype == DT_F16) {
            float f;
            memcpy(&f, &word, 4);
            uint16_t half = half_from_float(f);
            memcpy(to + (size_t)2 * c, &half, 2);
        } else {
            memcpy(to + (size_t)4 * c, &word, 4);
        }
    }
    if (t->dtype != DT_U8 && t->c % 4) {
        size_t bytes = tensor_dtype_bytes(t->dtype);
        memset(to + t->c * bytes, 0, (4 - t->c % 4) * bytes);
    }
}

static void read_pixel(const struct tensor *t, const char *from, char *to, size_t step)
{
    if (t->dtype == DT_F32 && step == 1) {
        memcpy(to, from, 4 * (size_t)t->c);
        return;
    }
    for (uint32_t c = 0; c < t->c; c++) {
        if (t->dtype == DT_U8) {
            to[c * step] = from[c];
        } else if (t->dtype == DT_F16) {
            uint16_t half;
            memcpy(&half, from + (size_t)2 * c, 2);
            float f = float_from_half(half);
            memcpy(to + 4 * c * step, &f, 4);
        } else {
            memcpy(to + 4 * c * step, from + (size_t)4 * c, 4);
        }
    }
}

// Views share pixels with other channels, so an upload reads what is there first.
static enum err transfer(const struct tensor *t, char *cpu, struct layout at, bool up)
{
    size_t element = tensor_dtype_bytes(t->dtype), bytes = tensor_span(t) * element;
    size_t cpu_element = t->dtype == DT_U8 ? 1 : 4;
    char *device = malloc(bytes ? bytes : 1);
    if (!device)
        return ERR_NO_MEMORY;
    bool whole = t->dtype == DT_U8 ? t->cs == t->c : t->cs == (t->c + 3) / 4 * 4;
    enum err e = ERR_OK;
    if (up && whole)
        memset(device, 0, bytes);
    else
        e = vk_download(t->buf, t->offset * element, device, bytes);
    uint32_t pixels = t->h * t->w;
    for (uint32_t n = 0; !e && n < t->n; n++)
        for (uint32_t p = 0; p < pixels; p++) {
            char *d = device + ((size_t)n * pixels + p) * t->cs * element;
            char *c = cpu + (n * at.n + p * at.pixel) * cpu_element;
            if (up)
                write_pixel(t, d, c, at.c);
            else
                read_pixel(t, d, c, at.c);
        }
    if (!e && up)
        e = vk_upload(t->buf, t->offset * element, device, bytes);
    free(device);
    return e;
}

enum err tensor_upload(const struct tensor *t, const void *src)
{
    return transfer(t, (char *)(uintptr_t)src, dense_nhwc(t), true);
}

// Rows of another type, some at a time: as the tensor stores them, with their padding.
static enum err upload_rows(const struct tensor *t, const char *src, enum dtype from)
{
    enum { PIECE_BYTES = 1 << 20 };
    const size_t element = tensor_dtype_bytes(t->dtype), size = tensor_dtype_bytes(from);
    const size_t row = t->cs * element, rows = tensor_pixels(t);
    const size_t most = row < PIECE_BYTES ? PIECE_BYTES / row : 1;
    char *piece = calloc(most, row);
    float *wide = malloc(t->c * sizeof *wide);
    enum err e = piece && wide ? ERR_OK : ERR_NO_MEMORY;
    for (size_t first = 0, n; !e && first < rows; first += n) {
        n = rows - first < most ? rows - first : most;
        for (size_t i = 0; i < n; i++) {
            const char *at = src + (first + i) * t->c * size;
            char *to = piece + i * row;
            if (from == t->dtype) {
                memcpy(to, at, t->c * size);
                continue;
            }
            floats_from(at, from, t->c, wide);
            if (t->dtype == DT_F16)
                halves_from_floats(wide, t->c, (uint16_t *)(void *)to);
            else
                memcpy(to, wide, t->c * sizeof *wide);
        }
        // The last row has no padding behind its channels.
        const size_t bytes = first + n < rows ? n * row : tensor_span(t) * element - first * row;
        e = vk_upload(t->buf, t->offset * element + first * row, piece, bytes);
    }
    free(piece);
    free(wide);
    return e;
}

enum err tensor_upload_from(const struct tensor *t, const void *src, enum dtype from)
{
    const size_t element = tensor_dtype_bytes(t->dtype);
    if (from != t->dtype || t->cs != t->c)
        return upload_rows(t, src, from);
    return vk_upload(t->buf, t->offset * element, src, (size_t)tensor_pixels(t) * t->c * element);
}

enum err tensor_download(const struct tensor *t, void *dst)
{
    return transfer(t, dst, dense_nhwc(t), false);
}

enum err tensor_upload_nchw(const struct tensor *t, const float *src)
{
    return transfer(t, (char *)(uintptr_t)src, dense_nchw(t), true);
}

enum err tensor_download_nchw(const struct tensor *t, float *dst)
{
    return transfer(t, (char *)dst, dense_nchw(t), false);
}
