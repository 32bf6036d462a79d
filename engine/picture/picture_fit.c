// Sizes that no stage of a model generates: selects the stage to run instead, then crops and scales
// its output. Called by the engine when a request is resolved, and by code that encodes images.
// Thread: any.
#include "picture.h"

#include <string.h>

static int longer(const struct check_size *s)
{
    return s->width > s->height ? s->width : s->height;
}

enum err picture_choose(const int *edge, int stages, const struct check_size *size,
                        struct picture_used *out, struct fault *why)
{
    const int largest = edge[stages - 1], want = size->width ? longer(size) : largest;
    if (size->width < 0 || size->height < 0 || !size->width != !size->height)
        return fault_set(why, ERR_INVALID, "size", "\"size\": %dx%d is not a valid size",
                         size->width, size->height);
    if (want > largest)
        return fault_set(why, ERR_INVALID, "size",
                         "\"size\": %dx%d is larger than %dx%d, the largest size of this model",
                         size->width, size->height, largest, largest);
    out->stages = 1;
    while (edge[out->stages - 1] < want)
        out->stages++;
    out->drawn.width = out->drawn.height = edge[out->stages - 1];
    out->size = size->width ? *size : out->drawn;
    return ERR_OK;
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

struct check_size picture_fit_size(const struct picture_used *u, int edge)
{
    const int most = longer(&u->size);
    struct check_size s = u->size;
    if (edge >= most)
        return s;
    s.width = (2 * s.width * edge + most) / (2 * most);
    s.height = (2 * s.height * edge + most) / (2 * most);
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
static void average(const uint8_t *rgb, int edge, const struct axis *ax, int x,
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
            const uint8_t *p = rgb + 3 * ((size_t)row * (size_t)edge + (size_t)column);
            for (int c = 0; c < 3; c++)
                sum[c] += weight * p[c];
        }
    }
    for (int c = 0; c < 3; c++)
        out[c] = (uint8_t)((2 * sum[c] + total) / (2 * total));
}

void picture_fit(const uint8_t *rgb, int edge, const struct check_size *size, uint8_t *out)
{
    const int most = longer(size);
    // The longer side uses the full edge; the other axis is cropped equally at both ends.
    struct axis x = {.unit = 2 * (int64_t)most, .step = 2 * (int64_t)edge}, y = x;
    x.offset = (int64_t)edge * (most - size->width);
    y.offset = (int64_t)edge * (most - size->height);
    for (int row = 0; row < size->height; row++)
        for (int column = 0; column < size->width; column++, out += 3)
            average(rgb, edge, &x, column, &y, row, out);
}
