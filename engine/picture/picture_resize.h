// Resampling of 8-bit images. Plain pixel arithmetic; knows nothing about requests. Thread: any.
#ifndef IMAGEND_PICTURE_RESIZE_H
#define IMAGEND_PICTURE_RESIZE_H

#include "err.h"

#include <stdbool.h>
#include <stdint.h>

// A region of an image, in pixels. It may extend beyond the image, which is then mirrored at its
// edges. On an axis where the box covers exactly the whole image, the edges are handled as Pillow's
// resize does.
struct picture_box {
    double x, y, width, height;
};

// Scales the box to width x height: bicubic with a = -0.5, with wider support when shrinking,
// horizontally and then vertically, each pass rounded to 8 bits. For the whole image (or NULL) the
// result equals Pillow's bit for bit. Shape: in [h, w, channels], out [height, width, channels].
// Errors: NO_MEMORY. Source: Pillow 11.1, Resample.c.
enum err picture_resize(const uint8_t *in, int w, int h, int channels,
                        const struct picture_box *box, int width, int height, uint8_t *out);

#endif
