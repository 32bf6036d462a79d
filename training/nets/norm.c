/* Group norm, scale and shift per image and channel, and SiLU, for training on a CPU: in one pass
 * over a group of channels, which fits into the nearest caches, where torch makes six. float32,
 * NCHW. nets/kernels.py calls this file; one thread, no state. The loops are plain so that the
 * compiler makes vectors of them (-ffast-math).
 *
 * With u = (x - mean) * inverse, the normalised input: y = z * sigmoid(z), z = u * scale + shift.
 */

#include <math.h>
#include <stddef.h>

static inline float sigmoid(float z)
{
    return 1 / (1 + expf(-z));
}

/* x, y [images][groups * channels][area]; scale, shift [images][groups * channels]; mean, inverse
 * (of the standard deviation) [images][groups], for the gradient. */
void norm_silu(const float *restrict x, const float *restrict scale, const float *restrict shift,
               float *restrict y, float *restrict mean, float *restrict inverse, ptrdiff_t images,
               ptrdiff_t groups, ptrdiff_t channels, ptrdiff_t area, double eps)
{
    ptrdiff_t size = channels * area;
    for (ptrdiff_t g = 0; g < images * groups; g++, x += size, y += size) {
        float sum = 0, squares = 0;
        for (ptrdiff_t i = 0; i < size; i++)
            sum += x[i];
        float m = sum / (float)size;
        for (ptrdiff_t i = 0; i < size; i++)
            squares += (x[i] - m) * (x[i] - m);
        float r = (float)(1 / sqrt(squares / (double)size + eps));
        mean[g] = m;
        inverse[g] = r;
        for (ptrdiff_t c = 0; c < channels; c++) {
            float a = scale[g * channels + c] * r, b = shift[g * channels + c] - m * a;
            const float *from = x + c * area;
            float *to = y + c * area;
            for (ptrdiff_t i = 0; i < area; i++) {
                float z = from[i] * a + b;
                to[i] = z * sigmoid(z);
            }
        }
    }
}

/* The gradients dx, dscale and dshift from dy and what norm_silu was given and left. */
void norm_silu_gradient(const float *restrict x, const float *restrict scale,
                        const float *restrict shift, const float *restrict mean,
                        const float *restrict inverse, const float *restrict dy, float *restrict dx,
                        float *restrict dscale, float *restrict dshift, ptrdiff_t images,
                        ptrdiff_t groups, ptrdiff_t channels, ptrdiff_t area)
{
    ptrdiff_t size = channels * area;
    for (ptrdiff_t g = 0; g < images * groups; g++, x += size, dy += size, dx += size) {
        float m = mean[g], r = inverse[g], all = 0, along = 0;
        for (ptrdiff_t c = 0; c < channels; c++) {
            ptrdiff_t k = g * channels + c;
            float a = scale[k], b = shift[k], sum = 0, sum_along = 0;
            for (ptrdiff_t i = c * area; i < (c + 1) * area; i++) {
                float u = (x[i] - m) * r, z = u * a + b, s = sigmoid(z);
                float dz = dy[i] * s * (1 + z * (1 - s));
                sum += dz;
                sum_along += dz * u;
                dx[i] = dz;
            }
            dshift[k] = sum;
            dscale[k] = sum_along;
            all += a * sum;
            along += a * sum_along;
        }
        all /= (float)size;
        along /= (float)size;
        for (ptrdiff_t c = 0; c < channels; c++) {
            float a = scale[g * channels + c];
            for (ptrdiff_t i = c * area; i < (c + 1) * area; i++)
                dx[i] = r * (dx[i] * a - all - (x[i] - m) * r * along);
        }
    }
}
