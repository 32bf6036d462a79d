// Crops and scales a stage's image to a size that no stage generates. Called by the engine when a
// request is resolved, and by code that encodes images. Thread: any.
#include "picture.h"

#include <string.h>

// The image's pixels per pixel of the result on both axes, as a fraction: the result covers the
// whole of one axis, and the middle of the other.
static void scale_of(const struct check_size *from, const struct check_size *size, int64_t *above,
                     int64_t *below)
{
    const bool wide = (int64_t)from->width * size->height > (int64_t)from->height * size->width;

    *above = wide ? from->height : from->width;
    *below = wide ? size->height : size->width;
}

enum err picture_check_stages(const struct picture_request *r, int stages, struct fault *why)
{
    if (r->set_noise_level && r->noise_level[0] != -1)
        return fault_set(why, ERR_INVALID, "noise_level",
                         "\"noise_level\" does not apply to the base stage; use a list such as "
                         "[-1, %d]",
                         r->noise_level[0]);
    for (int i = stages; i < PICTURE_MAX_STAGES; i++) {
        const char *name = r->steps[i]                                     ? "steps"
                           : r->guidance_scale[i] != 0                     ? "guidance_scale"
                           : r->strength[i] != 0                           ? "strength"
                           : r->set_noise_level && r->noise_level[i] != -1 ? "noise_level"
                                                                           : NULL;
        if (name && i == 1 && !strcmp(name, "noise_level"))
            return fault_set(why, ERR_INVALID, name,
                             "\"noise_level\" applies to super-resolution stages, but an image of "
                             "this size uses only the base stage");
        if (name)
            return fault_set(why, ERR_INVALID, name,
                             "\"%s\" has a value for stage %d, but an image of this size uses "
                             "only %d %s",
                             name, i + 1, stages, stages > 1 ? "stages" : "stage");
    }
    return ERR_OK;
}

struct check_size picture_fit_size(const struct picture_used *u, const struct check_size *from)
{
    struct check_size s = u->size;
    int64_t above, below;
    scale_of(from, &s, &above, &below);
    if (above >= below)
        return s;
    s.width = (int)((2 * s.width * above + below) / (2 * below));
    s.height = (int)((2 * s.height * above + below) / (2 * below));
    s.width += !s.width;
    s.height += !s.height;
    return s;
}

// One axis, in units chosen so that all borders are integers: a generated pixel is `unit` long, a
// pixel of the result `step`. offset: where the result begins.
struct axis {
    int64_t unit, step, offset;
};

static int64_t overlap(const struct axis *a, int64_t from, int64_t to, int pixel)
{
    const int64_t begin = pixel * a->unit, end = begin + a->unit;
    return (to < end ? to : end) - (from > begin ? from : begin);
}

// The mean over the area of pixel (x, y) of the result, rounded to nearest. Exact: a weight is at
// most (2 * 65536)^2, and the weights sum to step^2.
static void average(const uint8_t *rgb, int width, const struct axis *ax, int x,
                    const struct axis *ay, int y, uint8_t out[3])
{
    const int64_t x0 = ax->offset + x * ax->step, x1 = x0 + ax->step;
    const int64_t y0 = ay->offset + y * ay->step, y1 = y0 + ay->step;
    const uint64_t total = (uint64_t)(ax->step * ay->step);
    uint64_t sum[3] = {0};
    for (int row = (int)(y0 / ay->unit); row * ay->unit < y1; row++) {
        const int64_t high = overlap(ay, y0, y1, row);
        for (int column = (int)(x0 / ax->unit); column * ax->unit < x1; column++) {
            const uint64_t weight = (uint64_t)(high * overlap(ax, x0, x1, column));
            const uint8_t *p = rgb + 3 * ((size_t)row * (size_t)width + (size_t)column);
            for (int c = 0; c < 3; c++)
                sum[c] += weight * p[c];
        }
    }
    for (int c = 0; c < 3; c++)
        out[c] = (uint8_t)((2 * sum[c] + total) / (2 * total));
}

void picture_fit(const uint8_t *rgb, const struct check_size *from, const struct check_size *size,
                 uint8_t *out)
{
    int64_t above, below;
    scale_of(from, size, &above, &below);
    struct axis x = {.unit = 2 * below, .step = 2 * above}, y = x;
    x.offset = from->width * below - size->width * above;
    y.offset = from->height * below - size->height * above;
    for (int row = 0; row < size->height; row++)
        for (int column = 0; column < size->width; column++, out += 3)
            average(rgb, from->width, &x, column, &y, row, out);
}
