// The initial content of the region that an edit regenerates, see picture_edit.h. Called by
// picture_edit.c. Thread: any.
#include "picture_edit.h"

#include "rng.h"

#include <stdlib.h>
#include <string.h>

enum { CHANNELS = 4 };

static const float *pixel(const float *px, const struct check_size *of, int x, int y)
{
    x = x < 0 ? 0 : x < of->width ? x : of->width - 1;
    y = y < 0 ? 0 : y < of->height ? y : of->height - 1;
    return px + CHANNELS * ((size_t)y * (size_t)of->width + (size_t)x);
}

// Averages each 2 x 2 pixels, weighted by the fourth channel; the new weight is 1 if any of them is
// nonzero.
static void halve(const float *px, const struct check_size *of, const struct check_size *half,
                  float *out)
{
    for (int y = 0; y < half->height; y++)
        for (int x = 0; x < half->width; x++, out += CHANNELS) {
            float sum[CHANNELS] = {0};
            for (int k = 0; k < 4; k++) {
                const int from_x = 2 * x + k % 2, from_y = 2 * y + k / 2;
                const float *p = pixel(px, of, from_x, from_y);
                if (from_x >= of->width || from_y >= of->height)
                    continue;
                for (int c = 0; c < 3; c++)
                    sum[c] += p[c] * p[3];
                sum[3] += p[3];
            }
            for (int c = 0; c < 3; c++)
                out[c] = sum[3] > 0 ? sum[c] / sum[3] : 0;
            out[3] = sum[3] > 0;
        }
}

// Fills pixels without a weight from the image of half the size, bilinearly.
static void double_into(const float *half_px, const struct check_size *half, float *px,
                        const struct check_size *of)
{
    for (int y = 0; y < of->height; y++)
        for (int x = 0; x < of->width; x++, px += CHANNELS) {
            // On each axis the nearest pixel has weight 3/4, its neighbor 1/4.
            const int near_x = x / 2, near_y = y / 2;
            const int far_x = near_x + (x % 2 ? 1 : -1), far_y = near_y + (y % 2 ? 1 : -1);
            const float *a = pixel(half_px, half, near_x, near_y);
            const float *b = pixel(half_px, half, far_x, near_y);
            const float *c = pixel(half_px, half, near_x, far_y);
            const float *d = pixel(half_px, half, far_x, far_y);
            for (int k = 0; px[3] == 0 && k < 3; k++)
                px[k] = (9 * a[k] + 3 * b[k] + 3 * c[k] + d[k]) / 16;
        }
}

// Fills the other pixels from the kept ones: averages of increasingly large areas. Source: Gortler
// et al., "The Lumigraph", SIGGRAPH 1996, the pull-push algorithm.
static enum err fill_around(const struct check_size *size, float *px)
{
    const struct check_size half = {(size->width + 1) / 2, (size->height + 1) / 2};
    float *smaller;
    enum err e = ERR_OK;

    if (size->width == 1 && size->height == 1)
        return ERR_OK;
    smaller = malloc((size_t)half.width * (size_t)half.height * CHANNELS * sizeof *smaller);
    if (!smaller)
        return ERR_NO_MEMORY;
    halve(px, size, &half, smaller);
    e = fill_around(&half, smaller);
    if (!e)
        double_into(smaller, &half, px, size);
    free(smaller);
    return e;
}

enum err picture_fill(enum picture_fill how, const struct check_size *size, float *px)
{
    const size_t pixels = (size_t)size->width * (size_t)size->height;
    // A seed that no request uses, so that this noise differs from the noise added later.
    const struct rng_place place = {.seed = UINT64_MAX, .stage = (uint32_t)size->width};

    if (how == PICTURE_FILL_AROUND)
        return fill_around(size, px);
    for (size_t k = 0; how != PICTURE_FILL_IMAGE && k < pixels; k++)
        for (size_t c = 0; px[CHANNELS * k + 3] == 0 && c < 3; c++)
            px[CHANNELS * k + c] =
                how == PICTURE_FILL_NOISE ? rng_normal(&place, (uint32_t)(3 * k + c)) : 0;
    return ERR_OK;
}
