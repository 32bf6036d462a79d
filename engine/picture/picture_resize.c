// Pillow's bicubic resampling, see picture_resize.h. Called where images from outside become input
// of a model, and where a model's image goes back into one of another size. Thread: any.
#include "picture_resize.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PRECISION = 22 };

// What pixel i of the result is made of: `count` pixels and their weights.
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

// The pixels from first on, of an axis of n.
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

// An axis of `in` pixels of which the span from `from` becomes `size` pixels. whole: it ends there.
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

static uint8_t clip(int64_t sum)
{
    sum >>= PRECISION;
    return (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

// One pass along an axis of n values `step` apart, for `lines` lines `line` apart with `values`
// neighbours each.
struct pass {
    const struct taps *taps;
    int size;              // after
    size_t step, out_step; // from one place of the axis to the next
    size_t lines, line, out_line;
    size_t values;
};

static void run_pass(const struct pass *p, const uint8_t *in, uint8_t *out)
{
    const struct taps *t = p->taps;

    for (size_t l = 0; l < p->lines; l++)
        for (int i = 0; i < p->size; i++) {
            const size_t at = (size_t)i * (size_t)t->most;
            const int32_t *weight = t->weight + at, *pixel = t->pixel + at;
            for (size_t c = 0; c < p->values; c++) {
                int64_t sum = 1 << (PRECISION - 1);
                for (int x = 0; x < t->count[i]; x++)
                    sum += (int64_t)weight[x] * in[l * p->line + (size_t)pixel[x] * p->step + c];
                out[l * p->out_line + (size_t)i * p->out_step + c] = clip(sum);
            }
        }
}

enum err picture_resize(const uint8_t *in, int w, int h, int channels,
                        const struct picture_box *box, int width, int height, uint8_t *out)
{
    const struct picture_box all = {0, 0, w, h}, *b = box ? box : &all;
    const bool whole_x = b->x == 0 && b->width == w, whole_y = b->y == 0 && b->height == h;
    const size_t c = (size_t)channels, row = (size_t)w * c, out_row = (size_t)width * c;
    // As in Pillow, a pass that changes nothing is skipped, not computed.
    const bool skip_x = whole_x && width == w, skip_y = whole_y && height == h;
    struct taps x = {0}, y = {0};
    uint8_t *middle = NULL;
    enum err e = ERR_OK;

    if (!skip_x)
        e = taps_init(&x, w, b->x, b->width, width, whole_x);
    if (!e && !skip_y)
        e = taps_init(&y, h, b->y, b->height, height, whole_y);
    if (!e && !skip_x && !skip_y) {
        middle = malloc((size_t)h * out_row);
        e = middle ? ERR_OK : ERR_NO_MEMORY;
    }
    if (!e && !skip_x)
        run_pass(&(struct pass){&x, width, c, c, (size_t)h, row, out_row, c}, in,
                 skip_y ? out : middle);
    if (!e && !skip_y)
        run_pass(&(struct pass){&y, height, out_row, out_row, 1, 0, 0, out_row},
                 skip_x ? in : middle, out);
    if (!e && skip_x && skip_y)
        memcpy(out, in, (size_t)h * row);
    taps_deinit(&x);
    taps_deinit(&y);
    free(middle);
    return e;
}
