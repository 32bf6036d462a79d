// The input image of an edit, scaled to the size of the result, with a mask of the region to
// regenerate: how it is placed in a stage's square input, and how the generated square is placed
// back into it. Plain data and pixel arithmetic; knows nothing about models, jobs or files. Thread:
// any.
#ifndef IMAGEND_PICTURE_EDIT_H
#define IMAGEND_PICTURE_EDIT_H

#include "check.h"
#include "err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct codec_image;
struct picture_box;

// Which pixels of a mask mark the region to regenerate: light ones (A1111, diffusers) or
// transparent ones (OpenAI).
enum picture_mask { PICTURE_MASK_LIGHT, PICTURE_MASK_TRANSPARENT };

enum { PICTURE_MAX_EDIT_EDGE = 8192, PICTURE_FEATHER_AUTO = -1, PICTURE_MAX_FEATHER = 256 };

struct picture_edit_params {
    const struct codec_image *image;
    // The same size as image. NULL: the image's own transparent pixels, if any, are regenerated.
    const struct codec_image *mask;
    enum picture_mask kind;
    bool invert;            // the mask marks the region to keep instead
    struct check_size size; // of the result; 0x0: the image's size
    int feather;            // pixels; PICTURE_FEATHER_AUTO: longer side / 256, at least 1
};

struct picture_edit {
    int width, height;
    bool masked;    // some pixels are kept
    uint8_t *rgb;   // [height, width, 3]; NULL: only the size is known, enough to resolve a request
    uint8_t *drawn; // masked: [height, width], 255: regenerated, 0: kept
    int feather;    // width of the blend inside the regenerated region, in pixels
};

// Crops the center of the image to the aspect ratio of `size` and scales it (bicubic); an image of
// that size is kept bit for bit. If there is a mask, an image with alpha is put on white. Masks are
// thresholded at one half.
// Errors: INVALID (a mask of another size, or nothing to regenerate; *why names "mask"), NO_MEMORY.
// Owner: the caller destroys *out.
enum err picture_edit_create(const struct picture_edit_params *p, struct picture_edit **out,
                             struct fault *why);
void picture_edit_destroy(struct picture_edit **e);

// The box of a square, with the longer side as edge, centered on a w x h image. The area outside
// the image is filled by mirroring.
struct picture_box picture_edit_square(int w, int h);
// Computes a stage's input: the image in a square of this edge, in [-1, 1], and a fourth channel
// that is 1 where pixels are kept. A square image is resized as in diffusers. Shape: out [edge,
// edge, 4]. Errors: NO_MEMORY.
enum err picture_edit_stage(const struct picture_edit *e, int edge, float *out);
// Places a generated square into the image: kept pixels stay unchanged bit for bit, pixels near
// them are blended, the others are generated. Shape: square [edge, edge, 3], out [height, width,
// 3]. Errors: NO_MEMORY.
enum err picture_edit_compose(const struct picture_edit *e, const uint8_t *square, int edge,
                              uint8_t *out);

#endif
