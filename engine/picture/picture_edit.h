// The input image of an edit, scaled to the size of the result, with a mask of the region to
// regenerate: how it is placed in a stage's input, and how the generated image is placed back into
// it. Plain data and pixel arithmetic; knows nothing about models, jobs or files. Thread:
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

// How an image is scaled to a size of another aspect ratio: cropped at its sides, stretched, or as
// a whole with its outermost pixels repeated around it. The mask is scaled in the same way.
enum picture_fit { PICTURE_FIT_CROP, PICTURE_FIT_STRETCH, PICTURE_FIT_PAD };

// The content of the regenerated region before noise is added: the image itself, the colors around
// the region, noise, or gray. It matters for strengths below 1, and slightly at 1.
enum picture_fill {
    PICTURE_FILL_IMAGE,
    PICTURE_FILL_AROUND,
    PICTURE_FILL_NOISE,
    PICTURE_FILL_GRAY
};

enum {
    PICTURE_MAX_EDIT_EDGE = 8192,
    PICTURE_FEATHER_AUTO = -1,
    PICTURE_MAX_FEATHER = 256,
    PICTURE_MAX_PADDING = 4096,
};

// All zero: crop, start from the image, the whole image.
struct picture_edit_options {
    enum picture_fit fit;
    enum picture_fill fill;
    bool opaque; // the image's transparent pixels are no mask: it is put on white
    bool zoom;   // the model sees only a square around the mask, with this padding in pixels
    int padding;
};

struct picture_edit_params {
    const struct codec_image *image;
    // The same size as image. NULL: the image's own transparent pixels, if any, are regenerated.
    const struct codec_image *mask;
    enum picture_mask kind;
    bool invert;            // the mask marks the region to keep instead
    bool enlarge;           // the purpose, which errors state: to enlarge the image, not to edit it
    struct check_size size; // of the result; 0x0: the image's size
    int feather;            // pixels; PICTURE_FEATHER_AUTO: longer side / 256, at least 1
    struct picture_edit_options options;
};

struct picture_edit {
    int width, height;
    bool masked;    // some pixels are kept
    uint8_t *rgb;   // [height, width, 3]; NULL: only the size is known, enough to resolve a request
    uint8_t *drawn; // masked: [height, width], 255: regenerated, 0: kept
    int feather;    // width of the blend inside the regenerated region, in pixels
    enum picture_fill fill;
    int zoom, left, top; // edge and corner of the square that the model sees; 0: the whole image
};

// Scales the image to the size of the result (bicubic); an image of that size is kept bit for bit.
// If there is a mask, an image with alpha is put on white. Masks are thresholded at one half.
// Errors: INVALID (a mask of another size, or nothing to regenerate, *why names "mask"; more than
// PICTURE_MAX_EDIT_EDGE pixels on a side, *why names "size" or "image"), NO_MEMORY.
// Owner: the caller destroys *out.
enum err picture_edit_create(const struct picture_edit_params *p, struct picture_edit **out,
                             struct fault *why);
void picture_edit_destroy(struct picture_edit **e);

// The largest centered box of a w x h image with the aspect ratio of `size`.
struct picture_box picture_edit_middle(int w, int h, const struct check_size *size);
// The smallest box with the aspect ratio of `size` around a part of an image, with its center. The
// area outside the image is filled by mirroring.
struct picture_box picture_edit_around(const struct picture_box *part,
                                       const struct check_size *size);
// Computes a stage's input of this size: the image, in [-1, 1], and a fourth channel that is 1
// where pixels are kept; the others are filled as e->fill says. An image with the same aspect ratio
// is resized as in diffusers. Shape: out [height, width, 4]. Errors: NO_MEMORY.
enum err picture_edit_stage(const struct picture_edit *e, const struct check_size *size,
                            float *out);
// Places a generated image of size `from` into the image: kept pixels stay unchanged bit for bit,
// pixels near them are blended, the others are generated. Shape: rgb [from height, from width, 3],
// out [height, width, 3]. Errors: NO_MEMORY.
enum err picture_edit_compose(const struct picture_edit *e, const uint8_t *rgb,
                              const struct check_size *from, uint8_t *out);

// Replaces the pixels that are not kept, for picture_edit_stage. Shape: px [height, width, 4], with
// 1 in the fourth channel of the pixels that are kept. Errors: NO_MEMORY.
enum err picture_fill(enum picture_fill how, const struct check_size *size, float *px);

#endif
