// Plain C references of the operators: double sums, dense NHWC, no optimizations. Tests compare the
// shaders with these, so nothing here may share code with engine/ops.
#ifndef IMAGEND_REF_H
#define IMAGEND_REF_H

#include <stddef.h>
#include <stdint.h>

// A dense picture [n, h, w, c], or tokens with h = 1.
struct ref_shape {
    uint32_t n, h, w, c;
};
static inline size_t ref_count(struct ref_shape s)
{
    return (size_t)s.n * s.h * s.w * s.c;
}

// Numbers as in enum op_act.
double ref_act(int act, double x);

// y = (act(x W + bias) * mul + residual) * scale; mul, residual, bias may be NULL, scale 0 means 1.
// weight [out, in, kernel, kernel]. magnitude (may be NULL) receives the sum of the absolute
// products and the bias before the activation: what rounding errors are proportional to.
struct ref_matmul {
    struct ref_shape shape; // of x
    const float *x, *weight, *bias, *mul, *residual;
    uint32_t out, kernel;
    int act;
    double scale;
};
void ref_matmul(const struct ref_matmul *m, double *y, double *magnitude);

// weight [out, in, taps] becomes what is left of it in a storage with `bits` bits: 16 (bfloat16),
// or 8 or 4 with a scale for 32 inputs of an output and a tap, as ggml's q8_0 and q4_0 define them.
void ref_quantize(float *weight, uint32_t out, uint32_t in, uint32_t taps, int bits);

// y = softmax(scale q k^T + bias) v per head, over one or two segments of keys. Sample n reads
// segment s at k[s][index[s] ? index[s][n] : n]. bias [queries, keys, heads]; valid [n, keys[0]].
// spread (may be NULL) receives per (sample, query) the largest sum of |scale q k| products plus
// |bias| over its keys and heads: what the errors of the scores are proportional to.
struct ref_attention {
    uint32_t n, queries, keys[2], heads, d;
    const float *q, *k[2], *v[2], *bias;
    const uint32_t *index[2], *valid;
    double scale;
};
void ref_attention(const struct ref_attention *a, double *y, double *spread);

#endif
