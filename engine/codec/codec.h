// Image files: RGB pixels to PNG, JPEG and WebP in memory. The only code that knows libpng, libjpeg
// and libwebp; used by the engine, the command line and the server. Beside engine/base: knows
// pixels and text, nothing of models or requests. Thread: any.
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
    CODEC_LOSSLESS = 100, // the quality at which WebP becomes lossless
};

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
};

// Appends the file to *out. Errors: INVALID (an edge that the format cannot have, a quality, text
// that is not UTF-8), NO_MEMORY, INTERNAL; *why (may be NULL) says which.
enum err codec_encode(const struct codec_params *p, struct buf *out, struct fault *why);

// "png", "jpeg", "webp" and "image/png" ...; never NULL.
const char *codec_name(enum codec_format f);
const char *codec_mime(enum codec_format f);
// The format that a file name asks for by its extension, in any case: png, jpg, jpeg, webp. False
// when it has another extension or none.
bool codec_format_of(const char *path, enum codec_format *out);

#endif
