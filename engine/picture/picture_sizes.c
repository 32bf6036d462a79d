// The sizes that a model generates, and the one that a request gets. Called by the engine when a
// request is resolved, and by the routes that list sizes. Thread: any.
#include "picture.h"

enum { NEAREST = 2 };

static int longer(const struct check_size *s)
{
    return s->width > s->height ? s->width : s->height;
}

static bool is_base(const struct picture_sizes *s, int width, int height)
{
    const int edge = s->edge[0];
    const int64_t area = (int64_t)edge * edge;

    if (width == edge && height == edge)
        return true;
    return s->step && width >= edge && height >= edge && width <= 2 * edge && height <= 2 * edge &&
           width % s->step == 0 && height % s->step == 0 && 4 * (int64_t)width * height <= 9 * area;
}

// Whether the stage's output has this size, without cropping or scaling.
static bool is_native(const struct picture_sizes *s, int stage, const struct check_size *size)
{
    if (size->width == s->edge[stage] && size->height == s->edge[stage])
        return true;
    const int factor = s->edge[stage] / s->edge[0];
    return s->step && size->width % factor == 0 && size->height % factor == 0 &&
           is_base(s, size->width / factor, size->height / factor);
}

bool picture_native(const struct picture_sizes *s, int index, struct check_size *out)
{
    for (int stage = 0; stage < s->stages; stage++) {
        const int edge = s->edge[0], step = s->step ? s->step : edge;
        const int most = s->step ? 2 * edge : edge;
        for (int width = edge; width <= most; width += step)
            for (int height = edge; height <= most; height += step) {
                if (!is_base(s, width, height) || index--)
                    continue;
                // Without a step, a stage's edge need not be a multiple of the first one's.
                out->width = (int)((int64_t)width * s->edge[stage] / edge);
                out->height = (int)((int64_t)height * s->edge[stage] / edge);
                return true;
            }
    }
    return false;
}

struct check_size picture_stage_size(const struct picture_sizes *s, const struct picture_used *u,
                                     int stage)
{
    const int last = s->edge[u->stages - 1], edge = s->edge[stage];

    return (struct check_size){(int)((int64_t)u->drawn.width * edge / last),
                               (int)((int64_t)u->drawn.height * edge / last)};
}

static int64_t distance(const struct check_size *a, const struct check_size *b)
{
    const int64_t x = a->width - b->width, y = a->height - b->height;

    return x * x + y * y;
}

// Finds the native sizes nearest to one that cannot be had.
static int find_nearest(const struct picture_sizes *s, const struct check_size *size,
                        struct check_size out[NEAREST])
{
    struct check_size one;
    int found = 0;

    for (int i = 0; picture_native(s, i, &one); i++) {
        int at = found;
        while (at && distance(&one, size) < distance(&out[at - 1], size))
            at--;
        if (at == NEAREST)
            continue;
        found += found < NEAREST;
        for (int k = found - 1; k > at; k--)
            out[k] = out[k - 1];
        out[at] = one;
    }
    return found;
}

static enum err refuse(const struct picture_sizes *s, const struct check_size *size,
                       struct fault *why)
{
    const int largest = s->edge[s->stages - 1];
    struct check_size near[NEAREST];

    if (!s->step)
        return fault_set(why, ERR_INVALID, "size",
                         "\"size\": %dx%d is larger than %dx%d, the largest size of this model",
                         size->width, size->height, largest, largest);
    // With a step there are more than two.
    find_nearest(s, size, near);
    return fault_set(why, ERR_INVALID, "size",
                     "\"size\": %dx%d is larger than %dx%d and not a size that this model "
                     "generates; the nearest are %dx%d and %dx%d",
                     size->width, size->height, largest, largest, near[0].width, near[0].height,
                     near[1].width, near[1].height);
}

enum err picture_choose(const struct picture_sizes *s, const struct check_size *size,
                        struct picture_used *out, struct fault *why)
{
    const int largest = s->edge[s->stages - 1], want = size->width ? longer(size) : largest;

    if (size->width < 0 || size->height < 0 || !size->width != !size->height)
        return fault_set(why, ERR_INVALID, "size", "\"size\": %dx%d is not a valid size",
                         size->width, size->height);
    for (out->stages = 1; out->stages <= s->stages; out->stages++)
        if (is_native(s, out->stages - 1, size)) {
            out->drawn = out->size = *size;
            return ERR_OK;
        }
    if (want > largest)
        return refuse(s, size, why);
    out->stages = 1;
    while (s->edge[out->stages - 1] < want)
        out->stages++;
    out->drawn.width = out->drawn.height = s->edge[out->stages - 1];
    out->size = size->width ? *size : out->drawn;
    return ERR_OK;
}
