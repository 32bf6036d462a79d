// An image from outside as the input of a request: in the size of the result, with what of it is to
// be drawn anew. How it fits a stage's square, and how a drawn square goes back into it. Plain data
// and arithmetic on pixels; knows nothing of models, jobs or files. Thread: any.
#ifndef IMAGEND_PICTURE_EDIT_H
#define IMAGEND_PICTURE_EDIT_H

#include "check.h"
#include "err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct codec_image;
struct picture_box;

// What a mask says by its pixels: drawn anew where it is light (A1111, diffusers), or where it is
// transparent (OpenAI).
enum picture_mask { PICTURE_MASK_LIGHT, PICTURE_MASK_TRANSPARENT };

enum { PICTURE_MAX_EDIT_EDGE = 8192, PICTURE_FEATHER_AUTO = -1, PICTURE_MAX_FEATHER = 256 };

struct picture_edit_params {
    const struct codec_image *image;
    // In the size of image. NULL: the image's own transparent pixels are drawn anew, if it has any.
    const struct codec_image *mask;
    enum picture_mask kind;
    bool invert;            // the mask says what is kept
    struct check_size size; // of the result; 0x0: the image's own
    int feather;            // pixels; PICTURE_FEATHER_AUTO: the longer side / 256, at least 1
};

struct picture_edit {
    int width, height;
    bool masked;  // some of it is kept
    uint8_t *rgb; // [height, width, 3]; NULL: only the shape is known, enough to resolve a request
    uint8_t *drawn; // masked: [height, width], 255 where it is drawn anew, 0 where it is kept
    int feather; // within what is drawn, the border to what is kept is blended over so many pixels
};

// The middle of the image in the shape of `size`, scaled to it (bicubic); an image of that size
// stays as it is, bit for bit. Where it has alpha and a mask is given, it is laid on white. Masks
// are cut at half: nothing is half kept.
// Errors: INVALID (a mask of another size, or with nothing to draw; *why names "mask"), NO_MEMORY.
// Owner: the caller destroys *out.
enum err picture_edit_create(const struct picture_edit_params *p, struct picture_edit **out,
                             struct fault *why);
void picture_edit_destroy(struct picture_edit **e);

// The place of a w x h image in a square whose edge is its longer side: the image's center is the
// square's. What the square has beyond the image is filled by mirroring it.
struct picture_box picture_edit_square(int w, int h);
// What a stage starts from: the image in a square of this edge in [-1, 1], and 1 in the fourth
// channel where it is kept. A square image is resized as diffusers does. Shape: out [edge, edge,
// 4]. Errors: NO_MEMORY.
enum err picture_edit_stage(const struct picture_edit *e, int edge, float *out);
// The image with a drawn square in it: where it is kept, its own pixels, bit for bit; near that, a
// blend; elsewhere what was drawn. Shape: square [edge, edge, 3], out [height, width, 3].
// Errors: NO_MEMORY.
enum err picture_edit_compose(const struct picture_edit *e, const uint8_t *square, int edge,
                              uint8_t *out);

#endif
