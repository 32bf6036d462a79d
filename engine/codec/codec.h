// Encodes RGB pixels to PNG, JPEG and WebP in memory, and decodes these formats to RGBA. The only
// code that uses libpng, libjpeg and libwebp; called by the engine, the command line and the
// server. Depends on engine/base only; knows nothing about models or requests. Thread: any.
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
    CODEC_MAX_XMP = 60000,          // bytes: must fit one JPEG segment
    CODEC_MAX_TEXT_BYTES = 1 << 20, // of the texts that are read from a file
    CODEC_LOSSLESS = 100,           // the quality at which WebP becomes lossless
};

// ---- writing ----------------------------------------------------------------------------------

// One metadata entry: the value is UTF-8, the key ASCII of at most 79 characters.
struct codec_text {
    const char *key, *value;
};

struct codec_params {
    enum codec_format format;
    int quality; // 0..100, JPEG and WebP
    int width, height;
    const uint8_t *rgb;            // [height, width, 3]
    const struct codec_text *text; // PNG only, written as tEXt or iTXt chunks
    int texts;
    const char *xmp; // an XMP packet for the file's metadata; NULL: none
    // UTF-8, JPEG and WebP only, written as EXIF user comment, where A1111 stores an image's
    // settings; NULL: none. Omitted from a JPEG if it does not fit one segment (64 kB).
    const char *comment;
};

// Appends the file to *out. Errors: INVALID (an edge too long for the format, a bad quality, text
// that is not UTF-8), NO_MEMORY, INTERNAL; *why (may be NULL) names the problem.
enum err codec_encode(const struct codec_params *p, struct buf *out, struct fault *why);

// ---- reading ----------------------------------------------------------------------------------

// Limits for decoding an untrusted image file. Zero selects the limit of the same name below.
struct codec_limits {
    const char *name; // name of the image in errors, usually its parameter; NULL: "image"
    size_t bytes;     // size of the file
    int edge;         // longest side, in pixels
    size_t pixels;
    size_t memory; // peak bytes while decoding, including the result
};

enum {
    CODEC_MAX_BYTES = 50 << 20,
    CODEC_MAX_EDGE = 16384,
    CODEC_MAX_PIXELS = 64 << 20,
    CODEC_MAX_MEMORY = 768 << 20,
};

struct codec_image {
    enum codec_format format;
    int width, height; // as displayed, after the EXIF orientation is applied
    bool alpha;        // at least one pixel is not opaque
    uint8_t *rgba;     // [height, width, 4], not premultiplied
};

// Decodes a PNG (animated: its default image), JPEG or WebP (not animated) file. 16-bit samples are
// rounded to 8. Pixels are treated as sRGB; ICC profiles and gamma are ignored. CMYK becomes RGB by
// (255 - ink) (255 - black) / 255. Limits are checked from the header, before memory is allocated.
// l: NULL selects the limits above. Owner: the caller; codec_image_deinit. Errors: INVALID (empty,
// too large, damaged, truncated, not an image; *why names l->name), NO_MEMORY.
enum err codec_decode(const void *data, size_t size, const struct codec_limits *l,
                      struct codec_image *out, struct fault *why);
void codec_image_deinit(struct codec_image *i);
// The size of an image as codec_decode returns it, from its header alone. Errors and l: as
// codec_decode, except for damage behind the header.
enum err codec_measure(const void *data, size_t size, const struct codec_limits *l, int *width,
                       int *height, struct fault *why);

// The texts in a file's metadata: those of a PNG by their keys, a JPEG's comment as "comment", an
// EXIF user comment as CODEC_TEXT_COMMENT.
struct codec_texts {
    int count;
    struct codec_text text[CODEC_MAX_TEXTS]; // UTF-8, never empty; owned
    size_t bytes;                            // of all values
};
#define CODEC_TEXT_COMMENT "UserComment"

// Reads these texts and checks that the file is complete. Does not decode pixels, so the size of
// the image does not matter. Errors and l: as codec_decode. Owner: the caller gives *out to
// codec_texts_deinit.
enum err codec_read_texts(const void *data, size_t size, const struct codec_limits *l,
                          struct codec_texts *out, struct fault *why);
const char *codec_texts_find(const struct codec_texts *t, const char *key); // NULL: none
void codec_texts_deinit(struct codec_texts *t);

// ---- names ------------------------------------------------------------------------------------

// "png", "jpeg", "webp" and "image/png" ...; never NULL.
const char *codec_name(enum codec_format f);
const char *codec_mime(enum codec_format f);
// The format for a file name's extension, ignoring case: png, jpg, jpeg or webp. False for any
// other extension, or none.
bool codec_format_of(const char *path, enum codec_format *out);

#endif
