// References of the sampling operators: Philox4x32-10 (Salmon et al. 2011), Box-Muller, quantile,
// one sampler step. Used by tests/ops.
#include "ref_maps.h"

#include <math.h>
#include <stdlib.h>

void ref_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    uint32_t c[4] = {counter[0], counter[1], counter[2], counter[3]}, k[2] = {key[0], key[1]};

    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xD2511F53 * c[0], b = (uint64_t)0xCD9E8D57 * c[2];
        uint32_t next[4] = {(uint32_t)(b >> 32) ^ c[1] ^ k[0], (uint32_t)b,
                            (uint32_t)(a >> 32) ^ c[3] ^ k[1], (uint32_t)a};

        for (int i = 0; i < 4; i++)
            c[i] = next[i];
        k[0] += 0x9E3779B9;
        k[1] += 0xBB67AE85;
    }
    for (int i = 0; i < 4; i++)
        out[i] = c[i];
}

double ref_normal(const struct op_lane *lane, uint32_t element)
{
    uint32_t counter[4] = {element / 4, lane->step, lane->stage, lane->picture};
    uint32_t key[2] = {lane->seed_lo, lane->seed_hi}, u[4], i = element % 4 / 2 * 2;

    ref_philox(counter, key, u);
    double r = sqrt(-2 * log(((double)u[i] + 1) / 4294967296.0));
    double angle = 2 * M_PI * (u[i + 1] / 4294967296.0);
    return element % 2 ? r * sin(angle) : r * cos(angle);
}

static int by_value(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;

    return x < y ? -1 : x > y;
}

float ref_quantile(float *v, size_t n, float q)
{
    float rank = q * (float)(n - 1);
    size_t low = (size_t)rank, high = (size_t)ceilf(rank);
    float t = rank - (float)low;

    qsort(v, n, sizeof *v, by_value);
    return t < 0.5f ? v[low] + t * (v[high] - v[low]) : v[high] - (v[high] - v[low]) * (1 - t);
}

static float threshold(const struct op_lane *lane, float *x0, size_t n)
{
    float *v, s;

    if (lane->threshold != 2)
        return lane->max_value;
    v = malloc(n * sizeof *v);
    if (!v)
        return NAN;
    for (size_t i = 0; i < n; i++)
        v[i] = fabsf(x0[i]);
    s = ref_quantile(v, n, lane->quantile);
    free(v);
    return fminf(fmaxf(s, 1), lane->max_value);
}

void ref_sampler_step(const struct ref_step_params *p)
{
    const struct op_lane *l = p->lane;
    const size_t c = p->channels, n = p->pixels * c;
    float *m = malloc(n * sizeof *m), s;

    if (!m)
        return;
    for (size_t i = 0; i < n; i++) {
        size_t j = i / c * p->mc + i % c;
        m[i] = p->u ? p->u[j] + l->guidance * (p->m[j] - p->u[j]) : p->m[j];
        p->x0[i] = l->px * p->x[i] + l->pm * m[i];
    }
    s = threshold(l, p->x0, n);
    for (size_t i = 0; i < n; i++) {
        double scale = 1;

        if (l->threshold)
            p->x0[i] = fminf(fmaxf(p->x0[i], -s), s) / (l->threshold == 2 ? s : 1);
        if (l->learned != 0) {
            double v = p->m[i / c * p->mc + c + i % c], f = (v + 1) / 2;
            scale = l->learned == 2 ? sqrt(fmax(v, 0))
                                    : exp(0.5 * (f * l->logvar_max + (1 - f) * l->logvar_min));
        }
        p->x[i] = (float)((double)l->cx * p->x[i] + (double)l->cm * m[i] +
                          (double)l->c0 * p->x0[i] + (double)l->c1 * p->h1[i] +
                          (double)l->c2 * p->h2[i] + (double)l->noise * p->z[i] * scale);
    }
    free(m);
}

uint8_t ref_to_u8(float x)
{
    float v = x / 2 + 0.5f;

    return (uint8_t)rintf((v < 0 ? 0 : v > 1 ? 1 : v) * 255);
}
