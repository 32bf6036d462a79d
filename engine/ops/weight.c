// Weights of matrix products, repacked at load into the order in which the device's kernels read
// them. Called by the model's weight loader. Thread: the engine's worker.
#include "weight_format.h"
#include "winograd.h"

#include <stdlib.h>
#include <string.h>

enum { PIECE_BYTES = 1 << 20 };
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

// The weights of up to four inputs, `step` elements apart. size: of an element, a constant at each
// call, here and below.
static inline void put_four(char *to, const char *from, uint32_t width, size_t step, size_t size)
{
    if (width == 4 && step == 1) {
        memcpy(to, from, 4 * size);
        return;
    }
    for (uint32_t c = 0; c < width; c++)
        memcpy(to + c * size, from + c * step * size, size);
}

// Rows row0 .. row0 + sg of the weights as [dx][k4][dy][sg][4] (linear: one tap), so that what a
// subgroup reads together lies together. What lies outside the matrix is left as it is.
static inline void fill_lanes(const struct op_weight_params *p, struct shape s, uint32_t sg,
                              uint32_t row0, size_t size, char *to)
{
    const uint32_t side = p->kernel, rows = p->out - row0 < sg ? p->out - row0 : sg;
    for (uint32_t k = 0; k < s.k4; k++)
        for (uint32_t lane = 0; lane < rows; lane++) {
            const uint32_t in = 4 * k, width = p->in - in < 4 ? p->in - in : 4;
            const char *from =
                (const char *)p->weight + ((size_t)(row0 + lane) * p->in + in) * s.taps * size;
            for (uint32_t dx = 0; dx < side; dx++)
                for (uint32_t dy = 0; dy < side; dy++) {
                    char *at = to + ((((size_t)dx * s.k4 + k) * side + dy) * sg + lane) * 4 * size;
                    put_four(at, from + (dy * side + dx) * size, width, s.taps, size);
                }
        }
}

// One row as [tap][k4][4].
static inline void fill_row(const struct op_weight_params *p, struct shape s, uint32_t row,
                            size_t size, char *to)
{
    const char *from = (const char *)p->weight + (size_t)row * p->in * s.taps * size;
    for (uint32_t k = 0; k < s.k4; k++) {
        const uint32_t in = 4 * k, width = p->in - in < 4 ? p->in - in : 4;
        for (uint32_t tap = 0; tap < s.taps; tap++)
            put_four(to + ((size_t)tap * s.k4 + k) * 4 * size, from + (in * s.taps + tap) * size,
                     width, s.taps, size);
    }
}

// Row `row` and those that are packed with it.
static void fill(const struct op_weight_params *p, struct shape s, const struct op_weight *w,
                 uint32_t sg, uint32_t row, char *to)
{
    const bool narrow = p->from != DT_F32, rows = w->layout == LAYOUT_ROWS;
    if (rows && narrow)
        fill_row(p, s, row, 2, to);
    else if (rows)
        fill_row(p, s, row, 4, to);
    else if (narrow)
        fill_lanes(p, s, sg, row, 2, to);
    else
        fill_lanes(p, s, sg, row, 4, to);
}

// Memory for one piece: in packed order, as f32, as stored, and its scales.
struct piece {
    char *packed;
    float *wide;
    uint8_t *stored;
    uint16_t *scale;
};

static enum err piece_init(struct piece *p, size_t elements)
{
    p->packed = malloc(elements * sizeof(float));
    p->wide = malloc(elements * sizeof(float));
    p->stored = malloc(elements * sizeof(float));
    p->scale = malloc(elements * sizeof(float));
    return p->packed && p->wide && p->stored && p->scale ? ERR_OK : ERR_NO_MEMORY;
}

static void piece_deinit(struct piece *p)
{
    free(p->packed);
    free(p->wide);
    free(p->stored);
    free(p->scale);
}

// at: bytes from the start of the packed weights.
static enum err put(const struct op_weight *w, size_t at, const void *from, size_t bytes)
{
    return vk_upload(w->packed.buf, w->packed.offset * tensor_dtype_bytes(w->packed.dtype) + at,
                     from, bytes);
}

static enum err upload_piece(const struct op_weight_params *p, const struct op_weight *w,
                             const struct piece *piece, size_t first, const struct weight_run *r)
{
    const struct weight_format *f = weight_format_get(w->format);
    if (w->format == p->from)
        return put(w, first * f->bytes, piece->packed, r->vectors * f->bytes);
    floats_from(piece->packed, p->from, r->vectors * 4, piece->wide);
    f->pack(piece->wide, r, piece->stored, piece->scale);
    enum err e = put(w, first * f->bytes, piece->stored, r->vectors * f->bytes);
    if (!e && f->scaled)
        e = put(w, w->scales * sizeof(uint32_t) + first * 4 / WEIGHT_BLOCK * 2, piece->scale,
                r->vectors * 4 / WEIGHT_BLOCK * 2);
    return e;
}

// The matrix is stored as it is in the file, but for the rows that pad it.
static bool is_stored_as_is(const struct op_weight_params *p, const struct op_weight *w)
{
    return w->format == p->from && w->layout == LAYOUT_ROWS && p->kernel == 1 && p->in % 4 == 0;
}

// Memory of its own is zero where nothing was written; a place in a stream held others before.
static enum err put_as_is(const struct op_weight_params *p, struct shape s,
                          const struct op_weight *w)
{
    const size_t row = (size_t)p->in * tensor_dtype_bytes(p->from), rows = s.rows - p->out;
    enum err e = put(w, 0, p->weight, p->out * row);
    if (e || !w->stream || !rows)
        return e;
    void *zeros = calloc(rows, row);
    e = zeros ? put(w, p->out * row, zeros, rows * row) : ERR_NO_MEMORY;
    free(zeros);
    return e;
}

// Packs groups of sg rows, and uploads as many at a time as make a piece of some size.
static enum err pack(const struct op_weight_params *p, struct shape s, const struct op_weight *w,
                     uint32_t sg)
{
    const size_t vectors = (size_t)sg * s.taps * s.k4, element = tensor_dtype_bytes(p->from);
    const size_t groups = s.rows / sg, fit = PIECE_BYTES / (vectors * 4 * element);
    const size_t most = fit < 1 ? 1 : fit < groups ? fit : groups;
    if (is_stored_as_is(p, w))
        return put_as_is(p, s, w);
    struct piece piece;
    enum err e = piece_init(&piece, most * vectors * 4);
    for (size_t first = 0, n; !e && first < groups; first += n) {
        n = groups - first < most ? groups - first : most;
        memset(piece.packed, 0, n * vectors * 4 * element);
        for (size_t g = 0; g < n && (first + g) * sg < p->out; g++)
            fill(p, s, w, sg, (uint32_t)((first + g) * sg),
                 piece.packed + g * vectors * 4 * element);
        const struct weight_run run = {n * vectors, sg, w->layout == LAYOUT_ROWS ? 1 : p->kernel,
                                       p->exact};
        e = upload_piece(p, w, &piece, first * vectors, &run);
    }
    piece_deinit(&piece);
    return e;
}

static enum err pack_bias(const struct op_weight_params *p, struct shape s,
                          const struct op_weight *w)
{
    float *bias = calloc(s.rows, sizeof *bias);
    if (!bias)
        return ERR_NO_MEMORY;
    if (p->bias)
        memcpy(bias, p->bias, p->out * sizeof *bias);
    enum err e = tensor_upload(&w->bias, bias);
    free(bias);
    return e;
}

// The layout of the kernel that would be chosen for such maps.
static enum err choose_layout(struct ops_device *dev, const struct op_weight_params *p,
                              enum dtype format, enum weight_layout *layout)
{
    enum { MIDDLING = 32 };
    const uint32_t side = p->side ? p->side : MIDDLING;
    const struct problem problem = {
        .n = 1, .h = side, .w = side, .in = p->in, .out = p->out, .taps = p->kernel * p->kernel};
    struct ops_call call = {
        .op = p->kernel == 1 ? OP_LINEAR : OP_CONV3,
        .dtype = dev->info.dtype,
        .weight_dtype = format,
        .problem = &problem,
    };
    struct kernel_choice c;
    char why[KERNEL_WHY];
    if (!kernel_choose(dev, &call, &c, why))
        return vk_fail(dev->vk, ERR_UNSUPPORTED, "%s", why);
    *layout = c.kernel->layout;
    return ERR_OK;
}

// Shapes the tensors: packed weights that texel views fit where the format has them, else words.
static void shape_tensors(size_t vectors, uint32_t rows, struct op_weight *w)
{
    const struct weight_format *f = weight_format_get(w->format);
    w->bias = tensor_shaped(DT_F32, (uint32_t[]){1, 1, rows / 4, 4});
    if (f->dtype == DT_F32 || f->dtype == DT_F16) {
        w->packed = tensor_shaped(f->dtype, (uint32_t[]){1, 1, (uint32_t)vectors, 4});
        return;
    }
    const size_t scales = f->scaled ? vectors * 4 / WEIGHT_BLOCK * 2 : 0;
    const uint32_t words = (uint32_t)((vectors * f->bytes + scales + 15) / 16);
    w->scales = (uint32_t)(vectors * f->bytes / sizeof(uint32_t));
    w->packed = tensor_shaped(DT_U32, (uint32_t[]){1, 1, words, 4});
}

enum err op_weight_allocate(struct ops_device *dev, struct op_weight *w)
{
    enum err e =
        vk_buffer_create(dev->vk, VK_DEVICE, tensor_buffer_bytes(&w->packed), &w->packed.buf);
    return e ? e
             : vk_buffer_create(dev->vk, VK_DEVICE, tensor_buffer_bytes(&w->bias), &w->bias.buf);
}

enum err op_weight_fill(struct op_weight *w, const struct op_weight_params *p)
{
    const struct shape s = packed_shape(p);
    if (p->out != w->out || p->in != w->in || p->kernel != w->kernel || !w->packed.buf)
        return ERR_INVALID;
    w->wanted = false;
    enum err e = w->layout == LAYOUT_WINOGRAD
                     ? winograd_pack(p, w->lanes, &w->packed)
                     : pack(p, s, w, w->layout == LAYOUT_ROWS ? 1 : w->lanes);
    return e ? e : pack_bias(p, s, w);
}

bool op_weight_wanted(const struct op_weight *w)
{
    return w->wanted;
}

enum err op_weight_create(struct ops_device *dev, const struct op_weight_params *p,
                          struct op_weight **out)
{
    const struct weight_format *f = weight_format_get(p->dtype);
    *out = NULL;
    const bool readable = p->from == DT_F32 || p->from == DT_F16 || p->from == DT_BF16;
    if (!p->out || !p->in || (p->kernel != 1 && p->kernel != 3) || !f || !readable)
        return ERR_INVALID;
    const enum dtype format = f->scaled && p->in % WEIGHT_BLOCK ? DT_F16 : p->dtype;
    struct shape s = packed_shape(p);
    size_t vectors = (size_t)s.rows * s.taps * s.k4;
    if (vectors > UINT32_MAX / 4)
        return vk_fail(dev->vk, ERR_UNSUPPORTED,
                       "the weights [%u, %u, %u, %u] have more elements than shaders can index",
                       p->out, p->in, p->kernel, p->kernel);
    enum weight_layout layout;
    enum err e = choose_layout(dev, p, format, &layout);
    if (e)
        return e;
    struct op_weight *w = calloc(1, sizeof *w);
    if (!w)
        return ERR_NO_MEMORY;
    w->out = p->out;
    w->in = p->in;
    w->kernel = p->kernel;
    w->layout = layout;
    w->format = format;
    w->lanes = dev->caps->subgroup_size;
    w->seldom = p->seldom;
    if (layout == LAYOUT_WINOGRAD)
        vectors = (size_t)s.rows * WINOGRAD_POSITIONS * s.k4;
    shape_tensors(vectors, s.rows, w);
    if (p->stream)
        e = stream_add(p->stream, w);
    else
        e = op_weight_allocate(dev, w);
    if (!e && !p->stream && !dev->real)
        e = op_weight_fill(w, p);
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
    if (w->stream)
        stream_remove(w->stream, w);
    if (!w->stream || w->kept) {
        tensor_destroy(&w->packed);
        tensor_destroy(&w->bias);
    }
    free(w);
    *wp = NULL;
}

size_t op_weight_bytes(const struct op_weight *w)
{
    return tensor_span(&w->packed) * tensor_dtype_bytes(w->packed.dtype) +
           tensor_span(&w->bias) * sizeof(float);
}
