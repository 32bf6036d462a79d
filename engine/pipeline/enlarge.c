// Tiles of an image that a super-resolution stage enlarges, see enlarge.h. Called by engine.c on
// the engine's worker.
#include "enlarge.h"

#include "picture_resize.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct enlarge {
    int width, height, low, factor;
    int columns, rows, done;
    uint8_t *from, *to; // [height, width, 3], [height * factor, width * factor, 3]
};

// The number of tiles along one axis. Tiles overlap by at least a quarter of their width.
static int along(int n, int low)
{
    const int step = low - low / 4;

    return n <= low ? 1 : (n - low + step - 1) / step + 1;
}

// The start of the i-th tile: evenly spaced, or centered if the image is smaller than a tile.
static int place(int n, int low, int count, int i)
{
    if (count == 1)
        return (int)floor((n - low) / 2.0);
    return (int)((int64_t)i * (n - low) / (count - 1));
}

int enlarge_count(int width, int height, int low)
{
    return along(width, low) * along(height, low);
}

enum err enlarge_create(const uint8_t *rgb, int width, int height, int low, int high,
                        struct enlarge **out)
{
    struct enlarge *e = calloc(1, sizeof *e);
    const size_t bytes = (size_t)width * (size_t)height * 3;
    enum err err = ERR_NO_MEMORY;

    *out = NULL;
    if (!e)
        return err;
    e->width = width;
    e->height = height;
    e->low = low;
    e->factor = high / low;
    e->columns = along(width, low);
    e->rows = along(height, low);
    e->from = malloc(bytes);
    e->to = malloc(bytes * (size_t)(e->factor * e->factor));
    if (e->from && e->to) {
        memcpy(e->from, rgb, bytes);
        err = picture_resize(rgb, width, height, 3, NULL, width * e->factor, height * e->factor,
                             e->to);
    }
    if (err)
        enlarge_destroy(&e);
    *out = e;
    return err;
}

void enlarge_destroy(struct enlarge **e)
{
    if (!*e)
        return;
    free((*e)->from);
    free((*e)->to);
    free(*e);
    *e = NULL;
}

int enlarge_done(const struct enlarge *e)
{
    return e->done;
}

bool enlarge_is_done(const struct enlarge *e)
{
    return e->done == e->columns * e->rows;
}

static int mirror(int i, int n)
{
    i %= 2 * n;
    i += i < 0 ? 2 * n : 0;
    return i < n ? i : 2 * n - 1 - i;
}

void enlarge_tile(const struct enlarge *e, float *low)
{
    const int left = place(e->width, e->low, e->columns, e->done % e->columns);
    const int top = place(e->height, e->low, e->rows, e->done / e->columns);

    for (int y = 0; y < e->low; y++) {
        const uint8_t *row = e->from + (size_t)mirror(top + y, e->height) * (size_t)e->width * 3;
        for (int x = 0; x < e->low; x++) {
            const uint8_t *p = row + 3 * (size_t)mirror(left + x, e->width);
            for (int c = 0; c < 3; c++)
                *low++ = (float)p[c] / 127.5f - 1;
        }
    }
}

// The weight of a tile's pixel along one axis, in 1/65536: rises from 0 to 1 over the part shared
// with the previous tile.
static uint32_t fade(int n, int low, int count, int i, int factor, int pixel)
{
    const int shared =
        i ? (place(n, low, count, i - 1) + low - place(n, low, count, i)) * factor : 0;

    return pixel < shared ? (uint32_t)((2 * (int64_t)pixel + 1) * 65536 / (2 * shared)) : 65536;
}

void enlarge_put(struct enlarge *e, const uint8_t *rgb)
{
    const int column = e->done % e->columns, row = e->done / e->columns, f = e->factor;
    const int left = place(e->width, e->low, e->columns, column) * f;
    const int top = place(e->height, e->low, e->rows, row) * f;
    const int width = e->width * f, height = e->height * f, edge = e->low * f;

    for (int y = 0; y < edge; y++) {
        const uint64_t down = fade(e->height, e->low, e->rows, row, f, y);
        for (int x = 0; x < edge; x++, rgb += 3) {
            if (left + x < 0 || left + x >= width || top + y < 0 || top + y >= height)
                continue;
            const uint64_t w = down * fade(e->width, e->low, e->columns, column, f, x) >> 16;
            uint8_t *to = e->to + 3 * ((size_t)(top + y) * (size_t)width + (size_t)(left + x));
            for (int c = 0; c < 3; c++)
                to[c] = (uint8_t)((rgb[c] * w + to[c] * (65536 - w) + 32768) >> 16);
        }
    }
    e->done++;
}

const uint8_t *enlarge_image(const struct enlarge *e, int *width, int *height)
{
    *width = e->width * e->factor;
    *height = e->height * e->factor;
    return e->to;
}
