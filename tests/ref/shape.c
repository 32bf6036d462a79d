// References of the operators that move or combine pixels. Used by tests/ops.
#include "ref_maps.h"

#include <math.h>

static size_t at(const struct ref_shape *s, uint32_t n, uint32_t y, uint32_t x, uint32_t c)
{
    return (((size_t)n * s->h + y) * s->w + x) * s->c + c;
}

#define EACH(s, n_, y_, x_, c_)                                                                    \
    for (uint32_t n_ = 0; n_ < (s).n; n_++)                                                        \
        for (uint32_t y_ = 0; y_ < (s).h; y_++)                                                    \
            for (uint32_t x_ = 0; x_ < (s).w; x_++)                                                \
                for (uint32_t c_ = 0; c_ < (s).c; c_++)

void ref_mean_pixels(const float *x, struct ref_shape s, double *y)
{
    for (uint32_t n = 0; n < s.n; n++) {
        for (uint32_t c = 0; c < s.c; c++) {
            double sum = 0;

            for (uint32_t i = 0; i < s.h * s.w; i++)
                sum += x[((size_t)n * s.h * s.w + i) * s.c + c];
            y[n * s.c + c] = (sum / (s.h * s.w));
        }
    }
}

void ref_avg_pool2(const float *x, struct ref_shape s, double *y)
{
    struct ref_shape o = {s.n, s.h / 2, s.w / 2, s.c};

    EACH(o, n, i, j, c)
    y[at(&o, n, i, j, c)] =
        0.25 * ((double)x[at(&s, n, 2 * i, 2 * j, c)] + x[at(&s, n, 2 * i, 2 * j + 1, c)] +
                x[at(&s, n, 2 * i + 1, 2 * j, c)] + x[at(&s, n, 2 * i + 1, 2 * j + 1, c)]);
}

void ref_upsample_nearest2(const float *x, struct ref_shape s, double *y)
{
    struct ref_shape o = {s.n, s.h * 2, s.w * 2, s.c};

    EACH(o, n, i, j, c)
    y[at(&o, n, i, j, c)] = x[at(&s, n, i / 2, j / 2, c)];
}

// Where pixel i of `to` lies in a row of `from` pixels.
static double sample_place(uint32_t i, uint32_t from, uint32_t to, bool align_corners)
{
    if (align_corners)
        return to > 1 ? (double)i * (from - 1) / (to - 1) : 0;
    double place = (i + .5) * from / to - .5;
    return place > 0 ? place : 0;
}

void ref_upsample_bilinear(const float *x, struct ref_shape s, bool align_corners, uint32_t oh,
                           uint32_t ow, double *y)
{
    struct ref_shape o = {s.n, oh, ow, s.c};

    EACH(o, n, i, j, c)
    {
        double fy = sample_place(i, s.h, oh, align_corners);
        double fx = sample_place(j, s.w, ow, align_corners);
        uint32_t y0 = (uint32_t)fy, x0 = (uint32_t)fx;
        uint32_t y1 = y0 + 1 < s.h ? y0 + 1 : y0, x1 = x0 + 1 < s.w ? x0 + 1 : x0;
        double ty = fy - y0, tx = fx - x0;
        double top = x[at(&s, n, y0, x0, c)] * (1 - tx) + x[at(&s, n, y0, x1, c)] * tx;
        double bottom = x[at(&s, n, y1, x0, c)] * (1 - tx) + x[at(&s, n, y1, x1, c)] * tx;

        y[at(&o, n, i, j, c)] = (top * (1 - ty) + bottom * ty);
    }
}

void ref_pixel_unshuffle(const float *x, struct ref_shape s, uint32_t p, double *y)
{
    struct ref_shape o = {s.n, s.h / p, s.w / p, s.c * p * p};

    EACH(s, n, i, j, c)
    y[at(&o, n, i / p, j / p, (c * p + i % p) * p + j % p)] = x[at(&s, n, i, j, c)];
}

void ref_pixel_shuffle(const float *x, struct ref_shape s, uint32_t p, double *y)
{
    struct ref_shape o = {s.n, s.h * p, s.w * p, s.c / (p * p)};

    EACH(o, n, i, j, c)
    y[at(&o, n, i, j, c)] = x[at(&s, n, i / p, j / p, (c * p + i % p) * p + j % p)];
}
