// Image files in memory: RGB pixels to PNG, JPEG and WebP, and back to RGBA. The only code that
// knows libpng, libjpeg and libwebp; used by the engine, the command line and the server. Beside
// engine/base: knows pixels and text, nothing of models or requests. Thread: any.
#ifndef IMAGEND_CODEC_H
#define IMAGEND_CODEC_H

#include "err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf;

enum codec_format { CODEC_PNG, CODEC_JPEG, CODEC_WEBP, CODEC_FORMATS };

enum {
    CODEC_MAX_TEXTS = 32,
    CODEC_MAX_XMP = 60000, // bytes: a JPEG has it in one segment
    CODEC_LOSSLESS = 100,  // the quality at which WebP becomes lossless
};

// ---- writing ----------------------------------------------------------------------------------

// An entry of an image's metadata: the value is UTF-8, the key ASCII of at most 79 characters.
struct codec_text {
    const char *key, *value;
};

struct codec_params {
    enum codec_format format;
    int quality; // 0..100, JPEG and WebP
    int width, height;
    const uint8_t *rgb;            // [height, width, 3]
    const struct codec_text *text; // PNG only, as tEXt or iTXt chunks
    int texts;
    const char *xmp; // an XMP packet for the file's metadata; NULL: none
};

// Appends the file to *out. Errors: INVALID (an edge that the format cannot have, a quality, text
// that is not UTF-8), NO_MEMORY, INTERNAL; *why (may be NULL) says which.
enum err codec_encode(const struct codec_params *p, struct buf *out, struct fault *why);

// ---- reading ----------------------------------------------------------------------------------

// What an image file from outside may cost. A zero field means the limit of the same name below.
struct codec_limits {
    const char *name; // how errors call the image: the parameter that it came in; NULL: "image"
    size_t bytes;     // of the file
    int edge;         // of either side, in pixels
    size_t pixels;
    size_t memory; // bytes at the peak of decoding, the result included
};

enum {
    CODEC_MAX_BYTES = 50 << 20,
    CODEC_MAX_EDGE = 16384,
    CODEC_MAX_PIXELS = 64 << 20,
    CODEC_MAX_MEMORY = 768 << 20,
};

struct codec_image {
    enum codec_format format;
    int width, height; // as seen: the orientation of its EXIF is applied
    bool alpha;        // some pixel is not opaque
    uint8_t *rgba;     // [height, width, 4], colours not multiplied by alpha
};

// Decodes a PNG, JPEG or WebP file of any kind but an animated WebP; of an animated PNG, its still
// image. 16-bit values are rounded to 8. Pixels are taken as sRGB: embedded ICC profiles and gamma
// values are not applied. CMYK becomes RGB without a profile, as (255 - ink) (255 - black) / 255.
// Everything is refused from its header, before memory is allocated for it, where limits can tell.
// Owner: *out is the caller's, for codec_image_deinit. Errors: INVALID (empty, too large, damaged,
// cut off, not an image; *why says which and names l->name), NO_MEMORY. l: NULL for the limits
// above.
enum err codec_decode(const void *data, size_t size, const struct codec_limits *l,
                      struct codec_image *out, struct fault *why);
void codec_image_deinit(struct codec_image *i);

// ---- names ------------------------------------------------------------------------------------

// "png", "jpeg", "webp" and "image/png" ...; never NULL.
const char *codec_name(enum codec_format f);
const char *codec_mime(enum codec_format f);
// The format that the extension of a file name selects, in upper or lower case: png, jpg, jpeg or
// webp. False for any other extension, or none.
bool codec_format_of(const char *path, enum codec_format *out);

#endif
