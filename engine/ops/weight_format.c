// The storage formats of a matrix product's weights, one row each: four weights of consecutive
// inputs are the unit, as in the shaders (types.glsl). Formats with scales have one for each 32
// weights of an output and a tap, a half, behind all weights. Called by weight.c. Thread: the
// engine's worker.
#include "weight_format.h"

#include <math.h>
#include <string.h>

enum { BLOCK = WEIGHT_BLOCK / 4 }; // vec4s of a scale
static const int q8_range[2] = {-128, 127}, q4_range[2] = {-8, 7};

static void pack_f32(const float *from, const struct weight_run *r, uint8_t *to, uint16_t *scale)
{
    memcpy(to, from, r->vectors * 4 * sizeof *from);
}

static void pack_f16(const float *from, const struct weight_run *r, uint8_t *to, uint16_t *scale)
{
    halves_from_floats(from, r->vectors * 4, (uint16_t *)(void *)to);
}

// To nearest even; what would round to a finite number's neighbour of NaN stays NaN.
static void pack_bf16(const float *from, const struct weight_run *r, uint8_t *to, uint16_t *scale)
{
    for (size_t i = 0; i < r->vectors * 4; i++) {
        uint32_t u;
        memcpy(&u, &from[i], 4);
        uint16_t b = (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
        if ((u & 0x7fffffff) > 0x7f800000)
            b = (uint16_t)(u >> 16 | 0x40);
        memcpy(to + 2 * i, &b, 2);
    }
}

// The 32 weights that share scale number s: vec4s apart by the lanes and rows between two inputs.
struct block {
    size_t first, step;
};

static struct block block_of(const struct weight_run *r, size_t s)
{
    const size_t lane = s % r->lanes, row = s / r->lanes % r->rows, k = s / r->lanes / r->rows;
    return (struct block){(k * BLOCK * r->rows + row) * r->lanes + lane,
                          (size_t)r->rows * r->lanes};
}

// The weight that is farthest from zero.
static float extreme(const float *from, struct block b)
{
    float far = 0;
    for (size_t i = 0; i < BLOCK; i++)
        for (size_t c = 0; c < 4; c++) {
            float v = from[(b.first + i * b.step) * 4 + c];
            far = fabsf(v) > fabsf(far) ? v : far;
        }
    return far;
}

static int quantum(float v, float scale, int least, int most)
{
    const float q = scale != 0 ? rintf(v / scale) : 0, low = (float)least, high = (float)most;
    return (int)(q < low ? low : q > high ? high : q);
}

// The positive or negative half d for which the farthest weight is d * count and every weight a
// multiple of d from least to most.
static bool is_grid(const float *from, struct block b, float far, int count, const int range[2],
                    uint16_t *scale)
{
    const uint16_t half = half_from_float(far / (float)count);
    const float d = float_from_half(half);
    if (d * (float)count != far)
        return false;
    for (size_t i = 0; i < BLOCK; i++)
        for (size_t c = 0; c < 4; c++) {
            const float v = from[(b.first + i * b.step) * 4 + c];
            if (d * (float)quantum(v, d, range[0], range[1]) != v)
                return false;
        }
    *scale = half;
    return true;
}

// Finds such a d, the usual counts first. Weights that are no such multiples have none.
static bool find_grid(const float *from, struct block b, const int range[2], uint16_t *scale)
{
    static const int usual[] = {127, -127, -8, -16, 16};
    const float far = extreme(from, b);
    for (size_t i = 0; i < sizeof usual / sizeof *usual; i++)
        if (usual[i] >= range[0] && usual[i] <= range[1] &&
            is_grid(from, b, far, usual[i], range, scale))
            return true;
    for (int count = range[0]; count <= range[1]; count++)
        if (count && is_grid(from, b, far, count, range, scale))
            return true;
    return false;
}

// As ggml's q8_0: signed bytes, the farthest weight at +-127.
static void pack_q8(const float *from, const struct weight_run *r, uint8_t *to, uint16_t *scale)
{
    for (size_t s = 0; s < r->vectors / BLOCK; s++) {
        const struct block b = block_of(r, s);
        if (!r->exact || !find_grid(from, b, q8_range, &scale[s]))
            scale[s] = half_from_float(fabsf(extreme(from, b)) / 127);
        const float d = float_from_half(scale[s]);
        for (size_t i = 0; i < BLOCK; i++)
            for (size_t c = 0; c < 4; c++) {
                const size_t at = (b.first + i * b.step) * 4 + c;
                to[at] = (uint8_t)quantum(from[at], d, q8_range[0], q8_range[1]);
            }
    }
}

// As ggml's q4_0: four bits from -8 to 7, the farthest weight at -8.
static void pack_q4(const float *from, const struct weight_run *r, uint8_t *to, uint16_t *scale)
{
    for (size_t s = 0; s < r->vectors / BLOCK; s++) {
        const struct block b = block_of(r, s);
        if (!r->exact || !find_grid(from, b, q4_range, &scale[s]))
            scale[s] = half_from_float(extreme(from, b) / -8);
        const float d = float_from_half(scale[s]);
        for (size_t i = 0; i < BLOCK; i++) {
            const size_t vector = b.first + i * b.step;
            unsigned bits = 0;
            for (size_t c = 0; c < 4; c++)
                bits |= (unsigned)(quantum(from[vector * 4 + c], d, q4_range[0], q4_range[1]) + 8)
                        << 4 * c;
            to[2 * vector] = (uint8_t)bits;
            to[2 * vector + 1] = (uint8_t)(bits >> 8);
        }
    }
}

static const struct weight_format formats[] = {
    {"f32", DT_F32, 16, false, pack_f32},   {"f16", DT_F16, 8, false, pack_f16},
    {"bf16", DT_BF16, 8, false, pack_bf16}, {"q8", DT_Q8, 4, true, pack_q8},
    {"q4", DT_Q4, 2, true, pack_q4},
};
enum { FORMATS = sizeof formats / sizeof formats[0] };

const struct weight_format *weight_format_find(const char *name)
{
    for (int i = 0; i < FORMATS; i++)
        if (!strcmp(formats[i].name, name))
            return &formats[i];
    return NULL;
}

const struct weight_format *weight_format_get(enum dtype dtype)
{
    for (int i = 0; i < FORMATS; i++)
        if (formats[i].dtype == dtype)
            return &formats[i];
    return NULL;
}
