// Resampling of 8-bit images. Plain arithmetic on pixels: knows nothing of requests. Thread: any.
#ifndef IMAGEND_PICTURE_RESIZE_H
#define IMAGEND_PICTURE_RESIZE_H

#include "err.h"

#include <stdbool.h>
#include <stdint.h>

// A part of an image, in its pixels. It may reach beyond the image, which is then mirrored at its
// edges; an axis on which it is the whole image ends there, as Pillow's resize does.
struct picture_box {
    double x, y, width, height;
};

// Scale the box to width x height: bicubic with a = -0.5, its support widened where the image
// shrinks, horizontally and then vertically, each pass rounded to 8 bits. With the whole image as
// box (or NULL) the result is Pillow's to the bit. Shape: in [h, w, channels], out [height, width,
// channels]. Errors: NO_MEMORY. Source: Pillow 11.1, Resample.c.
enum err picture_resize(const uint8_t *in, int w, int h, int channels,
                        const struct picture_box *box, int width, int height, uint8_t *out);

#endif
