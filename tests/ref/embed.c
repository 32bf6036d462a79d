// References of the embeddings. Used by tests/ops.
#include "ref_maps.h"

#include <math.h>

void ref_time_embed(const float *t, uint32_t n, uint32_t dim, bool flip, double freq_shift,
                    double *y)
{
    uint32_t half = dim / 2;

    for (uint32_t i = 0; i < n; i++, y += dim) {
        if (dim % 2)
            y[dim - 1] = 0;
        for (uint32_t k = 0; k < half; k++) {
            // The two roundings to f32 are diffusers': they move the argument of a timestep of
            // 1000 by up to 6e-5, so an exact frequency would be further from what models saw.
            float exponent = -(float)log(10000) * (float)k / (float)(half - freq_shift);
            float a = t[i] * (float)exp(exponent);

            y[k + (flip ? half : 0)] = sin(a);
            y[k + (flip ? 0 : half)] = cos(a);
        }
    }
}

void ref_relative_bias(const float *table, uint32_t buckets, uint32_t heads, uint32_t length,
                       uint32_t max_distance, double *bias)
{
    uint32_t half = buckets / 2, exact = half / 2;

    for (uint32_t q = 0; q < length; q++) {
        for (uint32_t k = 0; k < length; k++, bias += heads) {
            uint32_t d = q > k ? q - k : k - q, b = d;

            if (d >= exact) {
                float r = logf((float)d / (float)exact) / (float)log((double)max_distance / exact) *
                          (float)(half - exact);
                b = exact + (uint32_t)r;
                if (b > half - 1)
                    b = half - 1;
            }
            for (uint32_t i = 0; i < heads; i++)
                bias[i] = table[(size_t)(b + (k > q ? half : 0)) * heads + i];
        }
    }
}
