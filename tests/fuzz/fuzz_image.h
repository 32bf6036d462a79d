// Shared by the fuzz targets of image formats: any bytes after a format's signature are an image
// within the limits, or an error with a message.
#ifndef IMAGEND_FUZZ_IMAGE_H
#define IMAGEND_FUZZ_IMAGE_H

#include "codec.h"
#include "fuzz.h"
#include "utf8.h"

#include <string.h>

// Small limits, so that an input takes milliseconds.
static const struct codec_limits fuzz_limits = {
    .name = "image", .edge = 512, .pixels = 1 << 16, .memory = 4 << 20};

static inline void fuzz_texts(const uint8_t *data, size_t size)
{
    struct codec_texts t;
    struct fault why = {0};
    const enum err e = codec_read_texts(data, size, &fuzz_limits, &t, &why);

    FUZZ_REQUIRE(e ? why.code == e && why.msg[0] && !t.count : t.count <= CODEC_MAX_TEXTS);
    for (int i = 0; i < t.count; i++) {
        const char *key = t.text[i].key, *value = t.text[i].value;
        FUZZ_REQUIRE(*key && *value && utf8_valid(key, strlen(key), NULL));
        FUZZ_REQUIRE(utf8_valid(value, strlen(value), NULL));
    }
    codec_texts_deinit(&t);
}

static inline void fuzz_image(const uint8_t *data, size_t size, enum codec_format format)
{
    struct codec_image i;
    struct fault why = {0}, other = {0};
    const enum err e = codec_decode(data, size, &fuzz_limits, &i, &why);

    fuzz_texts(data, size);
    int width, height;
    const enum err measured = codec_measure(data, size, &fuzz_limits, &width, &height, &other);
    FUZZ_REQUIRE(e || (!measured && width == i.width && height == i.height));
    FUZZ_REQUIRE(!measured || (other.code == measured && other.msg[0]));
    if (e) {
        FUZZ_REQUIRE(e == ERR_INVALID || e == ERR_NO_MEMORY);
        FUZZ_REQUIRE(why.code == e && why.msg[0] && !i.rgba);
        return;
    }
    FUZZ_REQUIRE(i.width >= 1 && i.height >= 1);
    FUZZ_REQUIRE(i.format == format || data[0] != (uint8_t)"\x89\xffR"[format]);
    FUZZ_REQUIRE((size_t)i.width * (size_t)i.height <= fuzz_limits.pixels);
    // Every pixel is there, and alpha says what the pixels are.
    bool alpha = false;
    for (int k = 0; k < i.width * i.height; k++)
        alpha |= i.rgba[4 * k + 3] != 255;
    FUZZ_REQUIRE(alpha == i.alpha);
    codec_image_deinit(&i);
}

#endif
