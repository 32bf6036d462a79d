// Weights of matrix products, repacked at load into the order in which the device's kernels read
// them. Called by the model's weight loader. Thread: the engine's worker.
#include "ops_internal.h"

#include <stdlib.h>
#include <string.h>

enum { BLOCK = 32 }; // output channels are padded to this, so that no kernel tile needs a check

// Vec4s of input channels, and output channels, of the packed weights.
struct shape {
    uint32_t k4, rows, taps;
};

static struct shape packed_shape(const struct op_weight_params *p)
{
    return (struct shape){vec4s(p->in), (p->out + BLOCK - 1) / BLOCK * BLOCK,
                          p->kernel * p->kernel};
}

// The element of lane-sliced weights [rows/sg][dx][k4][dy][sg][4] (linear: one tap) at `at`, which
// counts within one block of sg rows that starts at row0.
static float lane_element(const struct op_weight_params *p, struct shape s, uint32_t sg,
                          uint32_t row0, size_t at)
{
    uint32_t side = p->kernel;
    uint32_t c = at % 4, lane = at / 4 % sg;
    size_t rest = at / 4 / sg;
    uint32_t dy = (uint32_t)(rest % side), k = (uint32_t)(rest / side % s.k4);
    uint32_t dx = (uint32_t)(rest / side / s.k4), row = row0 + lane, in = 4 * k + c;
    if (row >= p->out || in >= p->in)
        return 0;
    return p->weight[((size_t)row * p->in + in) * s.taps + dy * side + dx];
}

// Rows [rows][tap][k4][4].
static float row_element(const struct op_weight_params *p, struct shape s, uint32_t row, size_t at)
{
    uint32_t in = (uint32_t)(at % (4 * s.k4)), tap = (uint32_t)(at / (4 * s.k4));
    if (row >= p->out || in >= p->in)
        return 0;
    return p->weight[((size_t)row * p->in + in) * s.taps + tap];
}

static enum err pack(const struct op_weight_params *p, struct shape s, struct op_weight *w,
                     uint32_t sg)
{
    size_t count = (size_t)sg * s.taps * s.k4 * 4, bytes = tensor_dtype_bytes(p->dtype);
    char *block = malloc(count * bytes);
    enum err e = block ? ERR_OK : ERR_NO_MEMORY;
    for (uint32_t row = 0; !e && row < s.rows; row += sg) {
        for (size_t i = 0; i < count; i++) {
            float f =
                w->path == PATH_TILE ? row_element(p, s, row, i) : lane_element(p, s, sg, row, i);
            uint16_t half = half_from_float(f);
            memcpy(block + i * bytes, p->dtype == DT_F16 ? (void *)&half : (void *)&f, bytes);
        }
        e = vk_upload(w->packed.buf, row / sg * count * bytes, block, count * bytes);
    }
    free(block);
    return e;
}

static enum err pack_bias(struct ops_device *dev, const struct op_weight_params *p, struct shape s,
                          struct op_weight *w)
{
    float *bias = calloc(s.rows, sizeof *bias);
    if (!bias)
        return ERR_NO_MEMORY;
    if (p->bias)
        memcpy(bias, p->bias, p->out * sizeof *bias);
    enum err e = tensor_create(dev, DT_F32, 1, 1, s.rows / 4, 4, &w->bias);
    if (!e)
        e = tensor_upload(&w->bias, bias);
    free(bias);
    return e;
}

enum err op_weight_create(struct ops_device *dev, const struct op_weight_params *p,
                          struct op_weight **out)
{
    *out = NULL;
    if (!p->out || !p->in || (p->kernel != 1 && p->kernel != 3) ||
        (p->dtype != DT_F32 && p->dtype != DT_F16))
        return ERR_INVALID;
    struct shape s = packed_shape(p);
    size_t vectors = (size_t)s.rows * s.taps * s.k4;
    if (vectors > UINT32_MAX / 4)
        return ERR_UNSUPPORTED;
    struct op_weight *w = calloc(1, sizeof *w);
    if (!w)
        return ERR_NO_MEMORY;
    w->out = p->out;
    w->in = p->in;
    w->kernel = p->kernel;
    w->path = dev->path;
    enum err e = tensor_create(dev, p->dtype, 1, 1, (uint32_t)vectors, 4, &w->packed);
    if (!e)
        e = pack(p, s, w, w->path == PATH_TILE ? 1 : dev->caps->subgroup_size);
    if (!e)
        e = pack_bias(dev, p, s, w);
    if (e)
        op_weight_destroy(&w);
    *out = w;
    return e;
}

void op_weight_destroy(struct op_weight **wp)
{
    struct op_weight *w = *wp;
    if (!w)
        return;
    tensor_destroy(&w->packed);
    tensor_destroy(&w->bias);
    free(w);
    *wp = NULL;
}

size_t op_weight_bytes(const struct op_weight *w)
{
    return tensor_span(&w->packed) * tensor_dtype_bytes(w->packed.dtype) +
           tensor_span(&w->bias) * sizeof(float);
}
