// codec_read_texts: texts of PNG files written by libpng, comments of JPEG and WebP files in every
// EXIF spelling, the output of codec_encode, and errors.
#include "buf.h"
#include "codec.h"
#include "test.h"

#include <png.h>
#include <stdlib.h>

static const uint8_t pixels[3 * 4];

// A file that codec_encode writes.
static void encode(enum codec_format format, const char *comment, struct buf *out)
{
    const struct codec_params p = {.format = format,
                                   .quality = 90,
                                   .width = 2,
                                   .height = 2,
                                   .rgb = pixels,
                                   .comment = comment};
    struct fault why = {0};
    CHECK_MSG(!codec_encode(&p, out, &why), "%s", why.msg);
}

static enum err read_texts(const struct buf *b, struct codec_texts *t, struct fault *why)
{
    // Exactly as large as the file, so that a sanitizer sees every read past its end.
    char *copy = malloc(b->len + !b->len);
    memcpy(copy, b->data ? b->data : "", b->len);
    *why = (struct fault){0};
    const enum err e = codec_read_texts(copy, b->len, NULL, t, why);
    free(copy);
    CHECK(!e || (why->msg[0] && !strcmp(why->param, "image") && !t->count));
    return e;
}

static void put(png_structp png, png_bytep data, size_t n)
{
    buf_add(png_get_io_ptr(png), data, n);
}

static void write_png(png_text *text, int texts, struct buf *out)
{
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    png_set_write_fn(png, out, put, NULL);
    png_set_IHDR(png, info, 1, 1, 8, PNG_COLOR_TYPE_RGB, 0, 0, 0);
    png_set_text(png, info, text, texts);
    png_write_info(png, info);
    png_write_row(png, pixels);
    png_write_end(png, info);
    png_destroy_write_struct(&png, &info);
}

static void of_png(void)
{
    static const struct {
        int compression;
        const char *key, *written, *read; // read NULL: as written
    } rows[] = {
        {PNG_TEXT_COMPRESSION_NONE, "parameters", "a cat\nSteps: 2", NULL},
        {PNG_TEXT_COMPRESSION_NONE, "Latin", "gr\xfc\xdf", "gr\xc3\xbc\xc3\x9f"},
        {PNG_TEXT_COMPRESSION_zTXt, "packed", "packed packed packed", NULL},
        {PNG_ITXT_COMPRESSION_NONE, "utf", "\xe2\x82\xac \xf0\x9f\x90\x88", NULL},
        {PNG_ITXT_COMPRESSION_zTXt, "packed utf", "\xe2\x82\xac\xe2\x82\xac", NULL},
        {PNG_ITXT_COMPRESSION_NONE, "not utf", "\xe4", "\xc3\xa4"},
        {PNG_TEXT_COMPRESSION_NONE, "nothing", "", ""},
    };
    enum { N = sizeof rows / sizeof *rows };
    png_text text[N] = {0};
    struct codec_texts t;
    struct fault why;
    struct buf b = {0};
    for (int i = 0; i < N; i++) {
        text[i].compression = rows[i].compression;
        text[i].key = (char *)(uintptr_t)rows[i].key;
        text[i].text = (char *)(uintptr_t)rows[i].written;
        text[i].lang = text[i].lang_key = (char *)(uintptr_t)"xy";
    }
    write_png(text, N, &b);
    CHECK_INT(read_texts(&b, &t, &why), ERR_OK);
    CHECK_INT(t.count, N - 1); // one is empty
    size_t bytes = 0;
    for (int i = 0; i < N - 1; i++) {
        CHECK_STR(t.text[i].key, rows[i].key);
        CHECK_STR(t.text[i].value, rows[i].read ? rows[i].read : rows[i].written);
        CHECK_STR(codec_texts_find(&t, rows[i].key), t.text[i].value);
        bytes += strlen(t.text[i].value);
    }
    CHECK_INT(t.bytes, bytes);
    CHECK(!codec_texts_find(&t, "nothing") && !codec_texts_find(&t, "Latin1"));
    codec_texts_deinit(&t);
    // Every shorter file is truncated.
    for (; b.len; b.len--) {
        const bool whole = read_texts(&b, &t, &why) == ERR_OK;
        CHECK_MSG(!whole || strstr(b.data + b.len - 8, "IEND"), "%zu bytes", b.len);
        codec_texts_deinit(&t);
    }
    buf_deinit(&b);
}

// Written texts are read back unchanged, whatever their content.
static void what_is_written(void)
{
    static const char *const texts[] = {
        "a cat\nNegative prompt: dog\nSteps: 8, Sampler: DDPM",
        "\xc3\xa4\xc3\xb6\xc3\xbc \xe2\x82\xac",
        "\xf0\x9f\x90\x88\xf0\x9f\x90\x88",     // beyond 16 bits
        "\xe7\x8c\xab\xe7\x8c\xab\xe7\x8c\xab", // no zero byte that would say the order
        "x",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        for (int format = CODEC_JPEG; format <= CODEC_WEBP; format++) {
            struct buf b = {0};
            struct codec_texts t;
            struct codec_image image;
            struct fault why;
            encode((enum codec_format)format, texts[i], &b);
            CHECK_MSG(!read_texts(&b, &t, &why), "%s", why.msg);
            CHECK_INT(t.count, 1);
            CHECK_STR(codec_texts_find(&t, CODEC_TEXT_COMMENT), texts[i]);
            codec_texts_deinit(&t);
            CHECK_MSG(!codec_decode(b.data, b.len, NULL, &image, &why), "%s", why.msg);
            codec_image_deinit(&image);
            buf_deinit(&b);
        }
}

// The largest comment that a JPEG's segment takes, and one that it does not.
static void long_comments(void)
{
    enum { LARGEST = (65533 - 6 - 44 - 8) / 2 };
    static char text[LARGEST + 2];
    for (int more = 0; more < 2; more++)
        for (int format = CODEC_JPEG; format <= CODEC_WEBP; format++) {
            struct buf b = {0};
            struct codec_texts t;
            struct fault why;
            memset(text, 'x', LARGEST + (size_t)more);
            encode((enum codec_format)format, text, &b);
            CHECK_MSG(!read_texts(&b, &t, &why), "%s", why.msg);
            CHECK_INT(t.count, format == CODEC_WEBP || !more);
            if (t.count)
                CHECK_STR(t.text[0].value, text);
            codec_texts_deinit(&t);
            buf_deinit(&b);
        }
}

// ---- EXIF of others -----------------------------------------------------------------------------

static void put_number(struct buf *b, bool big, int bytes, uint32_t v)
{
    for (int i = 0; i < bytes; i++)
        buf_putc(b, (char)(v >> 8 * (big ? bytes - 1 - i : i)));
}

// Two directories of two entries each.
static void put_exif(struct buf *b, bool big, const char *comment, size_t n)
{
    buf_puts(b, big ? "MM" : "II");
    put_number(b, big, 2, 42);
    put_number(b, big, 4, 8);
    put_number(b, big, 2, 2);
    for (int i = 0; i < 4; i++) {
        static const uint32_t tags[] = {0x112, 0x8769, 0x9000, 0x9286}, types[] = {3, 4, 7, 7};
        put_number(b, big, 2, tags[i]);
        put_number(b, big, 2, types[i]);
        put_number(b, big, 4, i == 3 ? (uint32_t)n : i == 2 ? 4 : 1);
        if (!i)
            put_number(b, big, 2, 6);
        put_number(b, big, i ? 4 : 2, i == 3 ? 68 : 38);
        if (i == 1) {
            put_number(b, big, 4, 0);
            put_number(b, big, 2, 2);
        }
    }
    put_number(b, big, 4, 0);
    buf_add(b, comment, n);
}

static void put_jpeg(const struct buf *exif, const char *comment, struct buf *out)
{
    struct buf plain = {0};
    encode(CODEC_JPEG, NULL, &plain);
    buf_add(out, plain.data, 2);
    buf_add(out, "\xff\xff\xff\xe1", 4); // with padding before the marker
    put_number(out, true, 2, (uint32_t)exif->len + 8);
    buf_add(out, "Exif\0", 6);
    buf_add(out, exif->data, exif->len);
    if (comment) {
        buf_puts(out, "\xff\xfe");
        put_number(out, true, 2, (uint32_t)strlen(comment) + 2);
        buf_puts(out, comment);
    }
    buf_add(out, plain.data + 2, plain.len - 2);
    buf_deinit(&plain);
}

static void comments_of_others(void)
{
    static const struct {
        size_t n;
        const char *bytes, *read; // read NULL: none
    } rows[] = {
        {8 + 4, "UNICODE\0\0h\0i", "hi"},
        {8 + 4, "UNICODE\0h\0i\0", "hi"},
        {8 + 6, "UNICODE\0\xfe\xff\0h\0i", "hi"},
        {8 + 6, "UNICODE\0\xff\xfeh\0i\0", "hi"},
        {8 + 5, "UNICODE\0h\0i\0x", "hi"},
        {8 + 6, "UNICODE\0\0h\0i\0\0", "hi"},
        {8 + 4, "UNICODE\0\xd8\x3d\xdc\x08", "\xf0\x9f\x90\x88"},
        {8 + 4, "UNICODE\0\xdc\x08\0x", "\xef\xbf\xbdx"}, // half a pair
        {8 + 3, "ASCII\0\0\0hey", "hey"},
        {8 + 4, "ASCII\0\0\0he\xc3\xa4", "he\xc3\xa4"},
        {8 + 3, "ASCII\0\0\0he\xe4", "he\xc3\xa4"},
        {8 + 3, "\0\0\0\0\0\0\0\0hey", "hey"},
        {8 + 6, "\0\0\0\0\0\0\0\0hey\0\0\0", "hey"},
        {8 + 3, "JIS\0\0\0\0\0hey", NULL},
        {8, "UNICODE\0", NULL},
        {3, "hey", NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (int big = 0; big < 2; big++) {
            struct buf exif = {0}, b = {0};
            struct codec_texts t;
            struct fault why;
            put_exif(&exif, big, rows[i].bytes, rows[i].n);
            put_jpeg(&exif, "from the camera", &b);
            CHECK_MSG(!read_texts(&b, &t, &why), "%s", why.msg);
            CHECK_STR(codec_texts_find(&t, "comment"), "from the camera");
            const char *value = codec_texts_find(&t, CODEC_TEXT_COMMENT);
            CHECK_INT(t.count, rows[i].read ? 2 : 1);
            CHECK_MSG(rows[i].read ? value && !strcmp(value, rows[i].read) : !value,
                      "row %zu: \"%s\"", i, value ? value : "(null)");
            codec_texts_deinit(&t);
            // Cut anywhere, and with any byte changed, it is read to its end and no further.
            for (size_t k = 0; k < exif.len; k++) {
                struct buf cut = {0};
                exif.data[k] ^= 0x5a;
                put_jpeg(&exif, NULL, &cut);
                exif.data[k] ^= 0x5a;
                CHECK_INT(read_texts(&cut, &t, &why), ERR_OK);
                codec_texts_deinit(&t);
                buf_deinit(&cut);
            }
            buf_deinit(&exif);
            buf_deinit(&b);
        }
}

// ---- what is refused ----------------------------------------------------------------------------

static void refused(void)
{
    struct codec_texts t;
    struct fault why;
    for (int format = 0; format < CODEC_FORMATS; format++) {
        struct buf b = {0};
        encode((enum codec_format)format, format ? "hello" : NULL, &b);
        CHECK_INT(read_texts(&b, &t, &why), ERR_OK);
        codec_texts_deinit(&t);
        b.len -= 4 + b.len / 4;
        CHECK_INT(read_texts(&b, &t, &why), ERR_INVALID);
        CHECK_MSG(strstr(why.msg, "is truncated") != NULL, "%s", why.msg);
        buf_deinit(&b);
    }
    static const struct {
        const char *bytes, *says;
        size_t n;
    } rows[] = {{"", "is empty", 0},
                {"hello, world", "is not a PNG, JPEG or WebP", 12},
                {"GIF89a", "is a GIF file", 6},
                {"\x89PNG\r\n\x1a\n", "is truncated", 8},
                {"\x89PNG\r\n\x1a\n\0\0\0\0IEND\0\0\0", "is a damaged PNG file", 20},
                {"\xff\xd8\xff\xe1\0\1\xff\xd9", "is truncated", 8},
                {"\xff\xd8\xff\xe1\0\1\xff\xd9\0\0", "is a damaged JPEG file", 10},
                {"\xff\xd8\xff\xe1\0\x10\xff\xd9\0\0", "is truncated", 10},
                {"\xff\xd8\xff", "is truncated", 3},
                {"RIFF\0\0\0\0WEBP", "is truncated", 12}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        CHECK_INT(
            read_texts(&(struct buf){.data = (char *)(uintptr_t)rows[i].bytes, .len = rows[i].n},
                       &t, &why),
            ERR_INVALID);
        CHECK_MSG(strstr(why.msg, rows[i].says) != NULL, "row %zu: %s", i, why.msg);
    }
}

// Overwrites the end of the compressed text, so that who unpacks all of it finds the damage.
static void damage_text(struct buf *png)
{
    enum { END = 64 };
    for (size_t at = 8; at + 12 <= png->len;) {
        const uint8_t *p = (const uint8_t *)png->data + at;
        const size_t n = (size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];
        if (!memcmp(p + 4, "zTXt", 4))
            memset(png->data + at + 8 + n - END, 0xff, END);
        at += 12 + n;
    }
}

// Megabytes in one chunk, of which no more than the limit is unpacked, and many small texts.
static void too_much(void)
{
    enum { BOMB = 20 << 20 };
    char *zeros = malloc(BOMB + 1);
    memset(zeros, 'x', BOMB);
    zeros[BOMB] = 0;
    png_text bomb = {
        .compression = PNG_TEXT_COMPRESSION_zTXt, .key = (char *)(uintptr_t)"a", .text = zeros};
    static png_text many[CODEC_MAX_TEXTS + 1];
    for (int i = 0; i <= CODEC_MAX_TEXTS; i++)
        many[i] = (png_text){.compression = PNG_TEXT_COMPRESSION_NONE,
                             .key = (char *)(uintptr_t)"a",
                             .text = (char *)(uintptr_t)"b"};
    for (int i = 0; i < 3; i++) {
        struct buf b = {0};
        struct codec_texts t;
        struct fault why;
        write_png(i ? many : &bomb, i ? CODEC_MAX_TEXTS + 2 - i : 1, &b);
        damage_text(&b);
        CHECK_INT(read_texts(&b, &t, &why), i < 2 ? ERR_INVALID : ERR_OK);
        CHECK_MSG(i == 2 || strstr(why.msg, "32 texts or 1024 kB") != NULL, "%s", why.msg);
        codec_texts_deinit(&t);
        buf_deinit(&b);
    }
    free(zeros);
}

int main(void)
{
    of_png();
    what_is_written();
    long_comments();
    comments_of_others();
    refused();
    too_much();
    return test_end();
}
