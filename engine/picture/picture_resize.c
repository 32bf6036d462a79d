// Pillow's bicubic resampling, see picture_resize.h. Called to scale input images for a model, and
// to scale a model's output back to the size of an input image. Thread: any.
#include "picture_resize.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PRECISION = 22 };

// The source pixels of each pixel i of the result: `count` pixels and their weights.
struct taps {
    int *count;
    int32_t *pixel, *weight; // [size][most]
    int most;
};

static double bicubic(double x)
{
    const double a = -0.5;

    x = fabs(x);
    if (x < 1)
        return ((a + 2) * x - (a + 3)) * x * x + 1;
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

static void taps_deinit(struct taps *t)
{
    free(t->count);
    free(t->pixel);
    free(t->weight);
}

static int mirror(int i, int n)
{
    i %= 2 * n;
    i += i < 0 ? 2 * n : 0;
    return i < n ? i : 2 * n - 1 - i;
}

// Sets the taps of pixel i, starting at source pixel `first` of an axis of n pixels.
static void set_taps(struct taps *t, int i, int first, int n, double center, double widened,
                     double *k)
{
    const size_t at = (size_t)i * (size_t)t->most;
    double sum = 0;

    for (int x = 0; x < t->count[i]; x++) {
        k[x] = bicubic((x + first - center + 0.5) * (1.0 / widened));
        sum += k[x];
    }
    for (int x = 0; x < t->count[i]; x++) {
        const double w = (sum != 0 ? k[x] / sum : k[x]) * (1 << PRECISION);
        t->pixel[at + (size_t)x] = mirror(first + x, n);
        t->weight[at + (size_t)x] = (int32_t)(w + (w < 0 ? -0.5 : 0.5));
    }
}

// Scales the span from `from` of an axis of `in` pixels to `size` pixels. whole: the span is the
// whole axis, so taps end at its edges.
static enum err taps_init(struct taps *t, int in, double from, double span, int size, bool whole)
{
    const double scale = span / size, widened = scale < 1 ? 1 : scale, support = 2 * widened;
    double *k;

    t->most = (int)ceil(support) * 2 + 1;
    t->count = malloc((size_t)size * sizeof *t->count);
    t->pixel = malloc((size_t)size * (size_t)t->most * sizeof *t->pixel);
    t->weight = malloc((size_t)size * (size_t)t->most * sizeof *t->weight);
    k = malloc((size_t)t->most * sizeof *k);
    if (!t->count || !t->pixel || !t->weight || !k) {
        free(k);
        return ERR_NO_MEMORY;
    }
    for (int i = 0; i < size; i++) {
        const double center = from + (i + 0.5) * scale;
        int first = (int)floor(center - support + 0.5), end = (int)floor(center + support + 0.5);
        if (whole && first < 0)
            first = 0;
        if (whole && end > in)
            end = in;
        t->count[i] = end - first;
        set_taps(t, i, first, in, center, widened, k);
    }
    free(k);
    return ERR_OK;
}

// The absolute weights of a pixel add up to 1.25 at most, so a sum of 8-bit values fits 32 bits.
static uint8_t clip(int32_t sum)
{
    sum >>= PRECISION;
    return (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

// Resamples each row of n pixels.
static void resize_rows(const struct taps *t, const uint8_t *in, size_t rows, size_t row,
                        size_t channels, int size, uint8_t *out)
{
    for (size_t y = 0; y < rows; y++, in += row)
        for (int i = 0; i < size; i++) {
            const size_t at = (size_t)i * (size_t)t->most;
            const int32_t *weight = t->weight + at, *pixel = t->pixel + at;
            for (size_t c = 0; c < channels; c++) {
                int32_t sum = 1 << (PRECISION - 1);
                for (int x = 0; x < t->count[i]; x++)
                    sum += weight[x] * in[(size_t)pixel[x] * channels + c];
                *out++ = clip(sum);
            }
        }
}

// Likewise for three channels, the usual case, in one pass.
static void resize_rows_3(const struct taps *t, const uint8_t *in, size_t rows, size_t row,
                          int size, uint8_t *out)
{
    for (size_t y = 0; y < rows; y++, in += row)
        for (int i = 0; i < size; i++, out += 3) {
            const size_t at = (size_t)i * (size_t)t->most;
            const int32_t *weight = t->weight + at, *pixel = t->pixel + at;
            int32_t a = 1 << (PRECISION - 1), b = a, c = a;
            for (int x = 0; x < t->count[i]; x++) {
                const uint8_t *p = in + (size_t)pixel[x] * 3;
                a += weight[x] * p[0];
                b += weight[x] * p[1];
                c += weight[x] * p[2];
            }
            out[0] = clip(a);
            out[1] = clip(b);
            out[2] = clip(c);
        }
}

// Resamples the columns: each row of the result is a weighted sum of whole rows. sum: scratch for
// one row.
static void resize_columns(const struct taps *t, const uint8_t *in, size_t row, int size,
                           int32_t *restrict sum, uint8_t *out)
{
    for (int i = 0; i < size; i++, out += row) {
        const size_t at = (size_t)i * (size_t)t->most;
        for (size_t c = 0; c < row; c++)
            sum[c] = 1 << (PRECISION - 1);
        for (int x = 0; x < t->count[i]; x++) {
            const uint8_t *restrict from = in + (size_t)t->pixel[at + (size_t)x] * row;
            const int32_t weight = t->weight[at + (size_t)x];
            for (size_t c = 0; c < row; c++)
                sum[c] += weight * from[c];
        }
        for (size_t c = 0; c < row; c++)
            out[c] = clip(sum[c]);
    }
}

enum err picture_resize(const uint8_t *in, int w, int h, int channels,
                        const struct picture_box *box, int width, int height, uint8_t *out)
{
    const struct picture_box all = {0, 0, w, h}, *b = box ? box : &all;
    const bool whole_x = b->x == 0 && b->width == w, whole_y = b->y == 0 && b->height == h;
    const size_t c = (size_t)channels, row = (size_t)w * c, out_row = (size_t)width * c;
    // As in Pillow, a pass that would change nothing is skipped.
    const bool skip_x = whole_x && width == w, skip_y = whole_y && height == h;
    struct taps x = {0}, y = {0};
    uint8_t *middle = NULL;
    int32_t *sum = NULL;
    enum err e = ERR_OK;

    if (!skip_x)
        e = taps_init(&x, w, b->x, b->width, width, whole_x);
    if (!e && !skip_y)
        e = taps_init(&y, h, b->y, b->height, height, whole_y);
    if (!e && !skip_x && !skip_y) {
        middle = malloc((size_t)h * out_row);
        e = middle ? ERR_OK : ERR_NO_MEMORY;
    }
    if (!e && !skip_y) {
        sum = malloc(out_row * sizeof *sum);
        e = sum ? ERR_OK : ERR_NO_MEMORY;
    }
    if (!e && !skip_x && channels == 3)
        resize_rows_3(&x, in, (size_t)h, row, width, skip_y ? out : middle);
    else if (!e && !skip_x)
        resize_rows(&x, in, (size_t)h, row, c, width, skip_y ? out : middle);
    if (!e && !skip_y)
        resize_columns(&y, skip_x ? in : middle, out_row, height, sum, out);
    if (!e && skip_x && skip_y)
        memcpy(out, in, (size_t)h * row);
    taps_deinit(&x);
    taps_deinit(&y);
    free(middle);
    free(sum);
    return e;
}
