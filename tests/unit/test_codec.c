// Every format of codec_encode, read back by its own library; and its errors.
#include "buf.h"
#include "codec.h"
#include "test.h"

#include <stdio.h>
#include <stdlib.h>

#include <jpeglib.h>
#include <png.h>
#include <webp/decode.h>

enum { WIDTH = 37, HEIGHT = 21, BYTES = WIDTH * HEIGHT * 3 };

// A smooth gradient, which JPEG and WebP keep closely.
static void fill(uint8_t *rgb)
{
    for (int i = 0; i < WIDTH * HEIGHT; i++) {
        rgb[3 * i] = (uint8_t)(i % WIDTH * 6);
        rgb[3 * i + 1] = (uint8_t)(i / WIDTH * 12);
        rgb[3 * i + 2] = 128;
    }
}

static uint8_t *read_png(const struct buf *b)
{
    png_image in = {.version = PNG_IMAGE_VERSION};
    uint8_t *rgb = malloc(BYTES);
    CHECK(png_image_begin_read_from_memory(&in, b->data, b->len));
    CHECK(in.width == WIDTH && in.height == HEIGHT);
    in.format = PNG_FORMAT_RGB;
    CHECK(png_image_finish_read(&in, NULL, rgb, 0, NULL));
    return rgb;
}

static uint8_t *read_jpeg(const struct buf *b)
{
    struct jpeg_decompress_struct d;
    struct jpeg_error_mgr mgr;
    uint8_t *rgb = malloc(BYTES);
    d.err = jpeg_std_error(&mgr);
    jpeg_create_decompress(&d);
    jpeg_mem_src(&d, (unsigned char *)b->data, b->len);
    CHECK_INT(jpeg_read_header(&d, TRUE), JPEG_HEADER_OK);
    jpeg_start_decompress(&d);
    CHECK(d.output_width == WIDTH && d.output_height == HEIGHT && d.output_components == 3);
    while (d.output_scanline < d.output_height) {
        JSAMPROW row = rgb + d.output_scanline * WIDTH * 3;
        jpeg_read_scanlines(&d, &row, 1);
    }
    jpeg_finish_decompress(&d);
    jpeg_destroy_decompress(&d);
    return rgb;
}

static uint8_t *read_webp(const struct buf *b)
{
    uint8_t *rgb = malloc(BYTES);
    CHECK(WebPDecodeRGBInto((uint8_t *)b->data, b->len, rgb, BYTES, WIDTH * 3) == rgb);
    return rgb;
}

static int worst(const uint8_t *a, const uint8_t *b)
{
    int most = 0;
    for (int i = 0; i < BYTES; i++)
        most = abs(a[i] - b[i]) > most ? abs(a[i] - b[i]) : most;
    return most;
}

// The lossy bounds are about twice what was measured (6 and 7) with these libraries.
static void read_back(void)
{
    static const struct {
        enum codec_format format;
        int quality, within;
        uint8_t *(*read)(const struct buf *b);
    } rows[] = {
        {CODEC_PNG, 0, 0, read_png},
        {CODEC_JPEG, 95, 12, read_jpeg},
        {CODEC_WEBP, 95, 14, read_webp},
        {CODEC_WEBP, CODEC_LOSSLESS, 0, read_webp},
    };
    uint8_t rgb[BYTES];
    fill(rgb);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct codec_params p = {.format = rows[i].format,
                                       .quality = rows[i].quality,
                                       .width = WIDTH,
                                       .height = HEIGHT,
                                       .rgb = rgb};
        struct buf b = {0};
        CHECK_INT(codec_encode(&p, &b, NULL), ERR_OK);
        uint8_t *back = rows[i].read(&b);
        const int off = worst(rgb, back);
        if (off > rows[i].within)
            printf("%s at quality %d is off by %d\n", codec_name(rows[i].format), rows[i].quality,
                   off);
        CHECK(off <= rows[i].within);
        free(back);
        buf_deinit(&b);
    }
}

static void quality_counts(void)
{
    uint8_t rgb[BYTES];
    fill(rgb);
    for (int f = CODEC_JPEG; f <= CODEC_WEBP; f++) {
        struct codec_params p = {.format = (enum codec_format)f,
                                 .quality = 20,
                                 .width = WIDTH,
                                 .height = HEIGHT,
                                 .rgb = rgb};
        struct buf poor = {0}, good = {0};
        CHECK_INT(codec_encode(&p, &poor, NULL), ERR_OK);
        p.quality = 95;
        CHECK_INT(codec_encode(&p, &good, NULL), ERR_OK);
        CHECK(poor.len < good.len);
        buf_deinit(&poor);
        buf_deinit(&good);
    }
}

static void refused(void)
{
    static const struct codec_text bad[] = {{"key", "\xff"}}, nameless[] = {{"", "x"}};
    uint8_t rgb[3] = {0};
    const struct codec_params rows[] = {
        {.format = CODEC_PNG, .width = 0, .height = 1, .rgb = rgb},
        {.format = CODEC_PNG, .width = 1, .height = -1, .rgb = rgb},
        {.format = CODEC_PNG, .width = 1, .height = 1},
        {.format = CODEC_JPEG, .width = 65501, .height = 1, .rgb = rgb},
        {.format = CODEC_WEBP, .width = 1, .height = 16384, .rgb = rgb},
        {.format = CODEC_JPEG, .quality = 101, .width = 1, .height = 1, .rgb = rgb},
        {.format = CODEC_WEBP, .quality = -1, .width = 1, .height = 1, .rgb = rgb},
        {.format = CODEC_PNG, .width = 1, .height = 1, .rgb = rgb, .text = bad, .texts = 1},
        {.format = CODEC_PNG, .width = 1, .height = 1, .rgb = rgb, .text = nameless, .texts = 1},
        {.format = CODEC_PNG, .width = 1, .height = 1, .rgb = rgb, .texts = CODEC_MAX_TEXTS + 1},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct fault why = {0};
        struct buf b = {0};
        CHECK_INT(codec_encode(&rows[i], &b, &why), ERR_INVALID);
        CHECK_INT(why.code, ERR_INVALID);
        CHECK(why.msg[0] && !b.len);
        buf_deinit(&b);
    }
}

// Metadata of even and odd length, in every format; the pixels are the same with it and without.
static void with_xmp(void)
{
    static const char *const packets[] = {"<xmp/>", "<xmp />", "\xc3\xa4"};
    uint8_t rgb[BYTES];
    fill(rgb);
    for (int f = 0; f < CODEC_FORMATS; f++)
        for (size_t k = 0; k < sizeof packets / sizeof *packets; k++) {
            struct codec_params p = {.format = (enum codec_format)f,
                                     .quality = 90,
                                     .width = WIDTH,
                                     .height = HEIGHT,
                                     .rgb = rgb};
            const size_t n = strlen(packets[k]);
            struct buf plain = {0}, with = {0};
            struct codec_image a, b;
            CHECK_INT(codec_encode(&p, &plain, NULL), ERR_OK);
            p.xmp = packets[k];
            CHECK_INT(codec_encode(&p, &with, NULL), ERR_OK);
            CHECK(memmem(with.data, with.len, packets[k], n));
            CHECK(!memmem(plain.data, plain.len, packets[k], n));
            const char *const where[] = {"iTXtXML:com.adobe.xmp", "http://ns.adobe.com/xap/1.0/",
                                         "XMP "};
            CHECK(memmem(with.data, with.len, where[f], strlen(where[f])));
            CHECK_INT(codec_decode(plain.data, plain.len, NULL, &a, NULL), ERR_OK);
            CHECK_INT(codec_decode(with.data, with.len, NULL, &b, NULL), ERR_OK);
            CHECK(a.width == b.width && a.height == b.height);
            CHECK(!memcmp(a.rgba, b.rgba, (size_t)WIDTH * HEIGHT * 4));
            // RIFF files are of even length and say how long they are.
            const uint8_t *head = (const uint8_t *)with.data + 4;
            if (f == CODEC_WEBP)
                CHECK(with.len % 2 == 0 &&
                      with.len - 8 == (size_t)(head[0] | head[1] << 8 | head[2] << 16));
            codec_image_deinit(&a);
            codec_image_deinit(&b);
            buf_deinit(&plain);
            buf_deinit(&with);
        }
    char *large = calloc(1, CODEC_MAX_XMP + 2);
    struct codec_params p = {
        .format = CODEC_JPEG, .width = 1, .height = 1, .rgb = rgb, .xmp = large};
    struct buf b = {0};
    memset(large, 'x', CODEC_MAX_XMP);
    CHECK_INT(codec_encode(&p, &b, NULL), ERR_OK);
    large[CODEC_MAX_XMP] = 'x';
    buf_clear(&b);
    CHECK_INT(codec_encode(&p, &b, NULL), ERR_INVALID);
    buf_deinit(&b);
    free(large);
}

static void names(void)
{
    static const struct {
        const char *path;
        int format; // -1: no image format
    } rows[] = {
        {"a.png", CODEC_PNG},
        {"A.PNG", CODEC_PNG},
        {"x/y.jpg", CODEC_JPEG},
        {"x.y/z.JPEG", CODEC_JPEG},
        {"w.webp", CODEC_WEBP},
        {".png", CODEC_PNG},
        {"a", -1},
        {"a.", -1},
        {"a.gif", -1},
        {"folder.png/no_suffix", -1},
        {"", -1},
        {"a.pngx", -1},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        enum codec_format f = CODEC_FORMATS;
        CHECK_INT(codec_format_of(rows[i].path, &f), rows[i].format >= 0);
        CHECK_INT((int)f, rows[i].format < 0 ? CODEC_FORMATS : rows[i].format);
    }
    for (int f = 0; f < CODEC_FORMATS; f++) {
        static const char *const is[] = {
            [CODEC_PNG] = "png", [CODEC_JPEG] = "jpeg", [CODEC_WEBP] = "webp"};
        CHECK_STR(codec_name((enum codec_format)f), is[f]);
        CHECK(!strncmp(codec_mime((enum codec_format)f), "image/", 6));
        CHECK_STR(codec_mime((enum codec_format)f) + 6, is[f]);
    }
}

int main(void)
{
    read_back();
    quality_counts();
    refused();
    with_xmp();
    names();
    return test_end();
}
