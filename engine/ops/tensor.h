// Tensors in device memory: NHWC, channels padded to a multiple of 4 and the padding always zero.
// Tokens [N, L, C] are h = 1, w = L. A tensor is a small value; a view of some channels or samples
// of it shares its memory. Thread: the engine's worker.
#ifndef IMAGEND_TENSOR_H
#define IMAGEND_TENSOR_H

#include "err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum dtype {
    DT_F32,
    DT_F16,
    DT_U32,
    DT_U8,
    // Of the weights of matrix products only, never of a tensor: 16 bits with the exponent of f32;
    // 8 and 4 bits with a scale for every 32 weights of an output.
    DT_BF16,
    DT_Q8,
    DT_Q4
};

struct vk_buffer;
struct ops_device;

struct tensor {
    struct vk_buffer *buf;
    size_t offset; // elements, from the buffer's start; multiple of 4
    enum dtype dtype;
    uint32_t n, h, w, c; // samples, rows, columns, channels
    uint32_t cs;         // elements from one pixel to the next; multiple of 4, >= c
};

// The stride that ops choose for c channels: a multiple of 4, and never of 512 bytes (such strides
// make the pixels that a kernel reads together share a few cache sets).
uint32_t tensor_stride(enum dtype dtype, uint32_t c);
size_t tensor_dtype_bytes(enum dtype dtype);
// Elements from the first to one past the last, padding included.
size_t tensor_span(const struct tensor *t);
// Of halves, every pixel at a multiple of eight of them from the start of the buffer.
bool tensor_in_eights(const struct tensor *t);
static inline uint32_t tensor_pixels(const struct tensor *t)
{
    return t->n * t->h * t->w;
}

// n values of another type as f32: f32, f16 or bf16, at any address.
void floats_from(const void *restrict from, enum dtype dtype, size_t n, float *restrict to);

// A tensor with memory of its own, zeroed. Errors: NO_DEVICE_MEMORY, NO_MEMORY.
enum err tensor_create(struct ops_device *dev, enum dtype dtype, uint32_t n, uint32_t h, uint32_t w,
                       uint32_t c, struct tensor *out);
// The same in memory that the CPU sees (parameters of a step, results).
enum err tensor_create_mapped(struct ops_device *dev, enum dtype dtype, uint32_t n, uint32_t h,
                              uint32_t w, uint32_t c, struct tensor *out);
void tensor_destroy(struct tensor *t);    // not for views
void *tensor_map(const struct tensor *t); // first element; NULL when the CPU cannot see it

// Channels c0 .. c0+c of every pixel (c0 multiple of 4); samples n0 .. n0+n.
struct tensor tensor_channels(const struct tensor *t, uint32_t c0, uint32_t c);
struct tensor tensor_samples(const struct tensor *t, uint32_t n0, uint32_t n);
// The same memory read as another shape with the same n*h*w, c and stride.
struct tensor tensor_reshape(const struct tensor *t, uint32_t n, uint32_t h, uint32_t w);

// Dense NHWC (no padding) f32 or u32 on the CPU side; converted to the tensor's dtype. They wait.
enum err tensor_upload(const struct tensor *t, const void *src);
// The same for a tensor that is not a view of channels, with the source as f32, f16 or bf16, which
// is copied as it is when the tensor stores the same type. Errors: NO_MEMORY, as vk_upload.
enum err tensor_upload_from(const struct tensor *t, const void *src, enum dtype from);
enum err tensor_download(const struct tensor *t, void *dst);
// The same with NCHW on the CPU side.
enum err tensor_upload_nchw(const struct tensor *t, const float *src);
enum err tensor_download_nchw(const struct tensor *t, float *dst);

#endif
