// Reference of attention: all scores of a row at once, in double. Used by tests/ops.
#include "ref.h"

#include <math.h>
#include <stdlib.h>

struct at {
    uint32_t n, query, head;
};

// The row of key number `key` (over both segments) in base[segment].
static const float *row(const struct ref_attention *a, const float *const base[2], struct at at,
                        uint32_t key)
{
    int s = key >= a->keys[0];
    uint32_t sample = a->index[s] ? a->index[s][at.n] : at.n;
    size_t pixel = (size_t)sample * a->keys[s] + (s ? key - a->keys[0] : key);
    return base[s] + pixel * a->heads * a->d + (size_t)at.head * a->d;
}

static double score(const struct ref_attention *a, struct at at, uint32_t key, double *size)
{
    uint32_t keys = a->keys[0] + a->keys[1];
    const float *q =
        a->q + ((size_t)at.n * a->queries + at.query) * a->heads * a->d + (size_t)at.head * a->d;
    const float *k = row(a, a->k, at, key);
    double s = 0;
    *size = 0;
    for (uint32_t d = 0; d < a->d; d++) {
        s += a->scale * q[d] * k[d];
        *size += fabs(a->scale * q[d] * k[d]);
    }
    if (a->bias) {
        double b = a->bias[((size_t)at.query * keys + key) * a->heads + at.head];
        s += b;
        *size += fabs(b);
    }
    if (a->valid && key < a->keys[0] && !a->valid[(size_t)at.n * a->keys[0] + key])
        return -INFINITY;
    return s;
}

static double attend(const struct ref_attention *a, struct at at, double *s, double *y)
{
    uint32_t keys = a->keys[0] + a->keys[1];
    double top = -INFINITY, total = 0, largest = 0;
    for (uint32_t j = 0; j < keys; j++) {
        double size;
        s[j] = score(a, at, j, &size);
        top = fmax(top, s[j]);
        largest = fmax(largest, size);
    }
    for (uint32_t d = 0; d < a->d; d++)
        y[d] = 0;
    for (uint32_t j = 0; j < keys; j++) {
        double e = s[j] == -INFINITY ? 0 : exp(s[j] - top);
        const float *v = row(a, a->v, at, j);
        total += e;
        for (uint32_t d = 0; d < a->d; d++)
            y[d] += e * v[d];
    }
    for (uint32_t d = 0; d < a->d && total > 0; d++)
        y[d] /= total;
    return largest;
}

void ref_attention(const struct ref_attention *a, double *y, double *spread)
{
    double *s = malloc(((size_t)a->keys[0] + a->keys[1]) * sizeof *s);
    if (!s)
        abort();
    for (uint32_t n = 0; n < a->n; n++)
        for (uint32_t query = 0; query < a->queries; query++) {
            size_t pixel = (size_t)n * a->queries + query;
            double largest = 0;
            for (uint32_t head = 0; head < a->heads; head++) {
                struct at at = {n, query, head};
                size_t first = (pixel * a->heads + head) * a->d;
                largest = fmax(largest, attend(a, at, s, y + first));
            }
            if (spread)
                spread[pixel] = largest;
        }
    free(s);
}
