// Reference of linear layers and convolutions. Used by tests/ops.
#include "ref.h"

#include <math.h>

double ref_act(int act, double x)
{
    switch (act) {
    case 1: return x / (1 + exp(-x));
    case 2: return 0.5 * x * erfc(-x / sqrt(2));
    case 3: return 0.5 * x * (1 + tanh(sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x)));
    case 4: return x > 0 ? x : 0;
    default: return x;
    }
}

static void one(const struct ref_matmul *m, const uint32_t at[4], double *sum, double *magnitude)
{
    const struct ref_shape s = m->shape;
    int half = (int)m->kernel / 2;
    uint32_t o = at[3], taps = m->kernel * m->kernel;
    *sum = *magnitude = 0;
    for (int dy = 0; dy < (int)m->kernel; dy++)
        for (int dx = 0; dx < (int)m->kernel; dx++) {
            int row = (int)at[1] + dy - half, column = (int)at[2] + dx - half;
            if (row < 0 || row >= (int)s.h || column < 0 || column >= (int)s.w)
                continue;
            const float *x = m->x + (((size_t)at[0] * s.h + row) * s.w + column) * s.c;
            const float *w = m->weight + (size_t)o * s.c * taps + dy * (int)m->kernel + dx;
            for (uint32_t c = 0; c < s.c; c++) {
                double product = (double)x[c] * w[(size_t)c * taps];
                *sum += product;
                *magnitude += fabs(product);
            }
        }
    if (m->bias) {
        *sum += m->bias[o];
        *magnitude += fabs(m->bias[o]);
    }
}

void ref_matmul(const struct ref_matmul *m, double *y, double *magnitude)
{
    const struct ref_shape s = m->shape;
    size_t i = 0;
    for (uint32_t n = 0; n < s.n; n++)
        for (uint32_t row = 0; row < s.h; row++)
            for (uint32_t column = 0; column < s.w; column++)
                for (uint32_t o = 0; o < m->out; o++, i++) {
                    double sum, size;
                    one(m, (uint32_t[]){n, row, column, o}, &sum, &size);
                    sum = ref_act(m->act, sum);
                    if (m->mul)
                        sum *= m->mul[i];
                    if (m->residual)
                        sum += m->residual[i];
                    y[i] = sum * (m->scale != 0 ? m->scale : 1);
                    if (magnitude)
                        magnitude[i] = size;
                }
}

// Rounded to the 11 significant bits of a half; for numbers that are no subnormal halves.
static float as_half(float v)
{
    int e;
    float m = frexpf(v, &e);
    return ldexpf(rintf(ldexpf(m, 11)), e - 11);
}

static float as_bfloat(float v)
{
    int e;
    float m = frexpf(v, &e);
    return ldexpf(rintf(ldexpf(m, 8)), e - 8);
}

static void quantize_block(float *w, uint32_t step, int bits)
{
    float far = 0;
    for (uint32_t i = 0; i < 32; i++)
        if (fabsf(w[i * step]) > fabsf(far))
            far = w[i * step];
    const float scale = as_half(bits == 8 ? fabsf(far) / 127 : far / -8);
    const float least = bits == 8 ? -127 : -8, most = bits == 8 ? 127 : 7;
    for (uint32_t i = 0; i < 32; i++) {
        float q = scale != 0 ? rintf(w[i * step] / scale) : 0;
        w[i * step] = fminf(fmaxf(q, least), most) * scale;
    }
}

void ref_quantize(float *weight, uint32_t out, uint32_t in, uint32_t taps, int bits)
{
    const size_t all = (size_t)out * in * taps;
    for (size_t i = 0; bits == 16 && i < all; i++)
        weight[i] = as_bfloat(weight[i]);
    for (size_t o = 0; bits != 16 && o < out; o++)
        for (uint32_t tap = 0; tap < taps; tap++)
            for (uint32_t k = 0; k < in; k += 32)
                quantize_block(weight + (o * in + k) * taps + tap, taps, bits);
}
