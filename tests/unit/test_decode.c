// codec_decode: every kind of PNG, JPEG and WebP, written here with the libraries themselves,
// decodes to the original pixels in the right orientation; and its errors. `test_decode DIR` also
// writes these files to a folder, as a corpus for the fuzz targets.
#include "buf.h"
#include "codec.h"
#include "test.h"

#include <stdio.h>
#include <stdlib.h>

#include <jpeglib.h>
#include <png.h>
#include <webp/encode.h>

// Six tiles of 8 x 8, so that JPEG keeps their colours: three in a row, two in a column.
enum { TILE = 8, COLUMNS = 3, ROWS = 2, W = TILE * COLUMNS, H = TILE * ROWS };
static const uint8_t tiles[ROWS][COLUMNS][4] = {
    {{255, 0, 0, 255}, {0, 255, 0, 128}, {0, 0, 255, 0}},
    {{255, 255, 0, 64}, {0, 255, 255, 255}, {17, 34, 51, 255}},
};

static const uint8_t *at(int x, int y)
{
    return tiles[y / TILE][x / TILE];
}

static int grey(const uint8_t *p)
{
    return (p[0] + p[1] + p[2]) / 3;
}

// ---- writers ----------------------------------------------------------------------------------

// A TIFF header with one entry, as EXIF begins.
static size_t exif(bool big, int orientation, uint8_t out[26])
{
    static const uint8_t little_end[26] = {'I', 'I', '*', 0, 8, 0, 0, 0, 1, 0, 0x12, 1, 3,
                                           0,   1,   0,   0, 0, 0, 0, 0, 0, 0, 0,    0, 0};
    static const uint8_t big_end[26] = {'M', 'M', 0, '*', 0, 0, 0, 8, 0, 1, 1, 0x12, 0,
                                        3,   0,   0, 0,   1, 0, 0, 0, 0, 0, 0, 0,    0};
    memcpy(out, big ? big_end : little_end, 26);
    out[big ? 19 : 18] = (uint8_t)orientation;
    return 26;
}

static void png_put(png_structp png, png_bytep data, size_t n)
{
    buf_add(png_get_io_ptr(png), data, n);
}

struct png_kind {
    int color, depth;
    bool interlaced, transparent, extras;
    int orientation;
};

// The samples of a pixel in this kind of PNG.
static void png_pixel(const struct png_kind *k, const uint8_t *p, int tile, uint8_t *out)
{
    const int wide = k->depth == 16 ? 2 : 1;
    uint8_t v[4] = {p[0], p[1], p[2], p[3]};
    int n = 3;

    if (k->color == PNG_COLOR_TYPE_PALETTE) {
        out[0] = (uint8_t)tile;
        return;
    }
    if (!(k->color & PNG_COLOR_MASK_COLOR)) {
        v[0] = (uint8_t)grey(p);
        v[1] = p[3];
        n = 1;
    }
    n += k->color & PNG_COLOR_MASK_ALPHA ? 1 : 0;
    for (int i = 0; i < n; i++)
        for (int b = 0; b < wide; b++)
            *out++ = v[i]; // as 16 bits: 257 times the value
}

static void write_png(const struct png_kind *k, struct buf *out)
{
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    png_color palette[6];
    uint8_t alpha[6], row[W * 8], orientation[26];

    png_set_write_fn(png, out, png_put, NULL);
    png_set_IHDR(png, info, W, H, k->depth, k->color,
                 k->interlaced ? PNG_INTERLACE_ADAM7 : PNG_INTERLACE_NONE, 0, 0);
    for (int i = 0; i < 6; i++) {
        const uint8_t *p = tiles[i / COLUMNS][i % COLUMNS];
        palette[i] = (png_color){p[0], p[1], p[2]};
        alpha[i] = p[3];
    }
    if (k->color == PNG_COLOR_TYPE_PALETTE)
        png_set_PLTE(png, info, palette, 6);
    if (k->transparent && k->color == PNG_COLOR_TYPE_PALETTE)
        png_set_tRNS(png, info, alpha, 6, NULL);
    else if (k->transparent) // of the colour of the first tile
        png_set_tRNS(png, info, NULL, 0, &(png_color_16){.red = 255});
    if (k->extras) { // a gamma that would change every value, and text
        png_set_gAMA(png, info, 1.0);
        png_set_text(png, info,
                     &(png_text){.compression = PNG_TEXT_COMPRESSION_zTXt,
                                 .key = (char *)(uintptr_t)"a",
                                 .text = (char *)(uintptr_t)"b"},
                     1);
    }
    if (k->orientation)
        png_set_eXIf_1(png, info, (png_uint_32)exif(true, k->orientation, orientation),
                       orientation);
    png_write_info(png, info);
    png_set_packing(png);
    const int passes = png_set_interlace_handling(png);
    for (int pass = 0; pass < passes; pass++)
        for (int y = 0; y < H; y++) {
            const int n = (int)png_get_channels(png, info) * (k->depth == 16 ? 2 : 1);
            for (int x = 0; x < W; x++)
                png_pixel(k, at(x, y), y / TILE * COLUMNS + x / TILE, row + x * n);
            png_write_row(png, row);
        }
    png_write_end(png, info);
    png_destroy_write_struct(&png, &info);
}

struct jpeg_kind {
    J_COLOR_SPACE in;
    bool progressive, bare; // bare: without Adobe's marker
    int orientation;
    int scans; // at most 64
};

static void write_jpeg(const struct jpeg_kind *k, struct buf *out)
{
    struct jpeg_compress_struct c;
    struct jpeg_error_mgr mgr;
    jpeg_scan_info *scans = calloc((size_t)k->scans + 2, sizeof *scans);
    unsigned char *mem = NULL;
    unsigned long n = 0;
    uint8_t row[W * 4], marker[32] = "Exif\0";
    JSAMPROW rows[1] = {row};

    c.err = jpeg_std_error(&mgr);
    jpeg_create_compress(&c);
    jpeg_mem_dest(&c, &mem, &n);
    c.image_width = W;
    c.image_height = H;
    c.in_color_space = k->in;
    c.input_components = k->in == JCS_GRAYSCALE ? 1 : k->in == JCS_CMYK ? 4 : 3;
    jpeg_set_defaults(&c);
    jpeg_set_quality(&c, 100, TRUE);
    for (int i = 0; i < c.num_components; i++) // chroma of every pixel
        c.comp_info[i].h_samp_factor = c.comp_info[i].v_samp_factor = 1;
    if (k->progressive)
        jpeg_simple_progression(&c);
    if (k->bare)
        c.write_Adobe_marker = FALSE;
    if (k->scans) { // one for each coefficient
        c.scan_info = scans;
        c.num_scans = k->scans;
        for (int i = 0; i < k->scans; i++)
            scans[i] = (jpeg_scan_info){.comps_in_scan = 1,
                                        .component_index = {0},
                                        .Ss = i ? 1 + (i - 1) % 63 : 0,
                                        .Se = i ? 1 + (i - 1) % 63 : 0};
    }
    jpeg_start_compress(&c, TRUE);
    if (k->orientation)
        jpeg_write_marker(&c, JPEG_APP0 + 1, marker,
                          6 + (unsigned)exif(false, k->orientation, marker + 6));
    for (int y = 0; y < H; y++) {
        for (int x = 0; x < W; x++) {
            const uint8_t *p = at(x, y);
            for (int i = 0; i < 3; i++) {
                if (k->in == JCS_GRAYSCALE)
                    row[x] = (uint8_t)grey(p);
                else if (k->in == JCS_CMYK) // no black; as ink, or as light with Adobe's marker
                    row[4 * x + i] = k->bare ? 255 - p[i] : p[i];
                else
                    row[3 * x + i] = p[i];
            }
            if (k->in == JCS_CMYK)
                row[4 * x + 3] = k->bare ? 0 : 255;
        }
        jpeg_write_scanlines(&c, rows, 1);
    }
    jpeg_finish_compress(&c);
    jpeg_destroy_compress(&c);
    buf_add(out, mem, n);
    free(mem);
    free(scans);
}

static void put_u32(struct buf *b, uint32_t v)
{
    const uint8_t bytes[4] = {(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16),
                              (uint8_t)(v >> 24)};
    buf_add(b, bytes, 4);
}

static int webp_put(const uint8_t *data, size_t n, const WebPPicture *picture)
{
    buf_add(picture->custom_ptr, data, n);
    return 1;
}

static void write_webp(bool lossless, bool alpha, int orientation, struct buf *out)
{
    uint8_t rgba[W * H * 4], tiff[26];
    WebPConfig c;
    WebPPicture p;
    struct buf simple = {0};

    for (int i = 0; i < W * H; i++) {
        memcpy(rgba + 4 * i, at(i % W, i / W), 4);
        rgba[4 * i + 3] = alpha ? rgba[4 * i + 3] : 255;
    }
    CHECK(WebPConfigInit(&c) && WebPPictureInit(&p));
    c.lossless = lossless;
    c.exact = 1; // colours under transparent pixels are kept
    c.quality = 100;
    c.use_sharp_yuv = 1;
    p.use_argb = lossless;
    p.width = W;
    p.height = H;
    p.writer = webp_put;
    p.custom_ptr = &simple;
    CHECK(WebPPictureImportRGBA(&p, rgba, W * 4) && WebPEncode(&c, &p));
    WebPPictureFree(&p);
    if (!orientation) {
        *out = simple;
        return;
    }
    // The extended form: what features there are, the size less one, the image, EXIF.
    const size_t n = exif(true, orientation, tiff);
    buf_puts(out, "RIFF");
    put_u32(out, (uint32_t)(4 + 18 + simple.len - 12 + 8 + n));
    buf_puts(out, "WEBPVP8X");
    put_u32(out, 10);
    put_u32(out, 8 | (alpha ? 16 : 0));
    buf_add(out, (uint8_t[]){W - 1, 0, 0, H - 1, 0, 0}, 6);
    buf_add(out, simple.data + 12, simple.len - 12);
    buf_puts(out, "EXIF");
    put_u32(out, (uint32_t)n);
    buf_add(out, tiff, n);
    buf_deinit(&simple);
}

// ---- what must come back ------------------------------------------------------------------------

enum expect { COLOURS, COLOURS_ALPHA, GREYS, GREYS_ALPHA, FIRST_CLEAR };

// The tile that is seen at (column, row) when the stored image is turned so: written down by hand.
static const uint8_t *seen(int orientation, int column, int row)
{
    static const int upright[2][3] = {{0, 1, 2}, {3, 4, 5}};
    static const int mirrored[2][3] = {{2, 1, 0}, {5, 4, 3}};
    static const int turned[2][3] = {{5, 4, 3}, {2, 1, 0}};
    static const int flipped[2][3] = {{3, 4, 5}, {0, 1, 2}};
    static const int tall[4][3][2] = {
        {{0, 3}, {1, 4}, {2, 5}}, // 5: transposed
        {{3, 0}, {4, 1}, {5, 2}}, // 6: a quarter clockwise
        {{5, 2}, {4, 1}, {3, 0}}, // 7
        {{2, 5}, {1, 4}, {0, 3}}, // 8: a quarter counterclockwise
    };
    int tile;

    if (orientation > 4)
        tile = tall[orientation - 5][row][column];
    else
        tile = (orientation == 2   ? mirrored
                : orientation == 3 ? turned
                : orientation == 4 ? flipped
                                   : upright)[row][column];
    return tiles[tile / COLUMNS][tile % COLUMNS];
}

static void check_image(const char *what, const struct buf *file, enum expect expect,
                        int orientation, int within)
{
    const bool tall = orientation > 4;
    struct codec_image i;
    struct fault why = {0};
    int worst = 0;

    int width, height;
    CHECK_MSG(!codec_decode(file->data, file->len, NULL, &i, &why), "%s: %s", what, why.msg);
    CHECK_MSG(!codec_measure(file->data, file->len, NULL, &width, &height, &why), "%s", why.msg);
    CHECK_MSG(width == i.width && height == i.height, "%s measures %dx%d", what, width, height);
    CHECK_INT(i.width, tall ? H : W);
    CHECK_INT(i.height, tall ? W : H);
    CHECK_INT(i.alpha, expect == COLOURS_ALPHA || expect == GREYS_ALPHA || expect == FIRST_CLEAR);
    for (int k = 0; i.rgba && k < W * H; k++) {
        const int x = k % i.width, y = k / i.width;
        const uint8_t *p = seen(orientation, x / TILE, y / TILE);
        const bool greys = expect == GREYS || expect == GREYS_ALPHA;
        for (int c = 0; c < 4; c++) {
            int want = c < 3 && greys ? grey(p) : p[c];
            if (c == 3 && (expect == COLOURS || expect == GREYS))
                want = 255;
            if (c == 3 && expect == FIRST_CLEAR)
                want = p == tiles[0][0] ? 0 : 255;
            worst = abs(i.rgba[4 * k + c] - want) > worst ? abs(i.rgba[4 * k + c] - want) : worst;
        }
    }
    CHECK_MSG(worst <= within, "%s is off by %d", what, worst);
    codec_image_deinit(&i);
}

static const char *corpus; // a folder, or NULL

static void keep(const char *what, const struct buf *file)
{
    char path[4096];
    FILE *f;

    snprintf(path, sizeof path, "%s/%s", corpus, what);
    for (char *c = path + strlen(corpus); *c; c++)
        *c = *c == ' ' ? '_' : *c;
    f = fopen(path, "wb");
    CHECK(f && fwrite(file->data, file->len, 1, f) == 1 && !fclose(f));
}

// Every beginning of a file is refused, by name.
static void check_truncated(const char *what, const struct buf *file)
{
    if (corpus)
        keep(what, file);
    for (size_t n = 0; n < file->len; n++) {
        struct fault why = {0};
        struct codec_image i;
        uint8_t *copy = malloc(n + !n); // as long as it says, for sanitizers
        memcpy(copy, file->data, n);
        const enum err e = codec_decode(copy, n, &(struct codec_limits){.name = "mask"}, &i, &why);
        CHECK_MSG(e == ERR_INVALID, "%s of %zu bytes gives %d", what, n, e);
        CHECK(i.rgba == NULL && why.msg[0]);
        CHECK_STR(why.param, "mask");
        free(copy);
    }
}

static void png_kinds(void)
{
    static const struct {
        const char *name;
        struct png_kind kind;
        enum expect expect;
    } rows[] = {
        {"RGB", {PNG_COLOR_TYPE_RGB, 8}, COLOURS},
        {"RGBA", {PNG_COLOR_TYPE_RGBA, 8}, COLOURS_ALPHA},
        {"RGB of 16 bits", {PNG_COLOR_TYPE_RGB, 16}, COLOURS},
        {"RGBA of 16 bits", {PNG_COLOR_TYPE_RGBA, 16}, COLOURS_ALPHA},
        {"palette of 8 bits", {PNG_COLOR_TYPE_PALETTE, 8}, COLOURS},
        {"palette of 4 bits", {PNG_COLOR_TYPE_PALETTE, 4}, COLOURS},
        {"palette with alpha", {PNG_COLOR_TYPE_PALETTE, 8, .transparent = true}, COLOURS_ALPHA},
        {"grey", {PNG_COLOR_TYPE_GRAY, 8}, GREYS},
        {"grey of 16 bits", {PNG_COLOR_TYPE_GRAY, 16}, GREYS},
        {"grey and alpha", {PNG_COLOR_TYPE_GRAY_ALPHA, 8}, GREYS_ALPHA},
        {"a colour for transparent", {PNG_COLOR_TYPE_RGB, 8, .transparent = true}, FIRST_CLEAR},
        {"interlaced", {PNG_COLOR_TYPE_RGBA, 8, .interlaced = true}, COLOURS_ALPHA},
        {"interlaced palette", {PNG_COLOR_TYPE_PALETTE, 4, .interlaced = true}, COLOURS},
        {"gamma and text", {PNG_COLOR_TYPE_RGB, 8, .extras = true}, COLOURS},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct buf b = {0};
        write_png(&rows[i].kind, &b);
        check_image(rows[i].name, &b, rows[i].expect, 1, 0);
        check_truncated(rows[i].name, &b);
        buf_deinit(&b);
    }
}

// 3 was measured with the JPEG of Debian 12.
static void jpeg_kinds(void)
{
    static const struct {
        const char *name;
        struct jpeg_kind kind;
        enum expect expect;
    } rows[] = {
        {"baseline", {JCS_RGB}, COLOURS},           {"progressive", {JCS_RGB, true}, COLOURS},
        {"grey", {JCS_GRAYSCALE}, GREYS},           {"CMYK of Adobe", {JCS_CMYK}, COLOURS},
        {"CMYK", {JCS_CMYK, false, true}, COLOURS},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct buf b = {0};
        write_jpeg(&rows[i].kind, &b);
        check_image(rows[i].name, &b, rows[i].expect, 1, 3);
        check_truncated(rows[i].name, &b);
        buf_deinit(&b);
    }
}

// Lossy chroma runs over from tile to tile.
static void webp_kinds(void)
{
    for (int k = 0; k < 3; k++) {
        static const char *const names[] = {"lossless", "lossless with alpha", "lossy"};
        struct buf b = {0};
        write_webp(k < 2, k == 1, 0, &b);
        check_image(names[k], &b, k == 1 ? COLOURS_ALPHA : COLOURS, 1, k < 2 ? 0 : 160);
        check_truncated(names[k], &b);
        buf_deinit(&b);
    }
}

static void orientations(void)
{
    for (int o = 1; o <= 8; o++) {
        struct buf png = {0}, jpeg = {0}, webp = {0};
        write_png(&(struct png_kind){PNG_COLOR_TYPE_RGBA, 8, .orientation = o}, &png);
        write_jpeg(&(struct jpeg_kind){JCS_RGB, .orientation = o}, &jpeg);
        write_webp(true, true, o, &webp);
        check_image("turned PNG", &png, COLOURS_ALPHA, o, 0);
        check_image("turned JPEG", &jpeg, COLOURS, o, 3);
        check_image("turned WebP", &webp, COLOURS_ALPHA, o, 0);
        if (corpus && o == 6) {
            keep("turned.png", &png);
            keep("turned.jpeg", &jpeg);
            keep("turned.webp", &webp);
        }
        buf_deinit(&png);
        buf_deinit(&jpeg);
        buf_deinit(&webp);
    }
    // An invalid orientation changes nothing.
    struct buf b = {0};
    write_jpeg(&(struct jpeg_kind){JCS_RGB, .orientation = 9}, &b);
    check_image("orientation 9", &b, COLOURS, 1, 3);
    buf_deinit(&b);
}

// ---- what is refused ----------------------------------------------------------------------------

static void check_refused(const void *data, size_t n, const struct codec_limits *l,
                          const char *says)
{
    struct fault why = {0}, other = {0};
    struct codec_image i;
    int width, height;
    const double began = test_seconds();

    CHECK_INT(codec_decode(data, n, l, &i, &why), ERR_INVALID);
    CHECK_MSG(strstr(why.msg, says) != NULL, "\"%s\" does not say \"%s\"", why.msg, says);
    CHECK(i.rgba == NULL);
    // From the header alone it is refused with the same words, as damaged, or not at all.
    if (codec_measure(data, n, l, &width, &height, &other))
        CHECK_MSG(strstr(other.msg, says) || strstr(other.msg, "is damaged"),
                  "\"%s\" does not say \"%s\"", other.msg, says);
    CHECK_MSG(test_seconds() - began < .25, "%s took %.3f s", says, test_seconds() - began);
}

static void not_images(void)
{
    static const struct {
        const char *bytes;
        size_t n;
        const char *says;
    } rows[] = {
        {"", 0, "is empty"},
        {"hello", 5, "is not a PNG, JPEG or WebP file"},
        {"GIF89a and more", 15, "is a GIF file; convert it"},
        {"\0\0\0 ftypavif0000", 16, "is an AVIF file"},
        {"\0\0\0 ftypheic0000", 16, "is a HEIC file"},
        {"<svg>", 5, "is an SVG file"},
        {"\xff\xd8\xff", 3, "truncated"},
        {"\x89PNG\r\n\x1a\n", 8, "truncated"},
        {"RIFF\x10\0\0\0WEBP", 12, "truncated"},
        {"RIFF\x10\0\0\0WEBPVP8 garbage!garbage!garbage!", 40, "damaged"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        check_refused(rows[i].bytes, rows[i].n, NULL, rows[i].says);
}

// Overwrites a file's size, with the checksum of PNG's header.
static void resize_png(struct buf *b, uint32_t w, uint32_t h)
{
    uint8_t *p = (uint8_t *)b->data;
    const uint32_t v[2] = {w, h};
    uint32_t crc = 0xffffffff;

    for (int i = 0; i < 8; i++)
        p[16 + i] = (uint8_t)(v[i / 4] >> (24 - i % 4 * 8));
    for (int i = 12; i < 29; i++) {
        crc ^= p[i];
        for (int k = 0; k < 8; k++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
    }
    for (int i = 0; i < 4; i++)
        p[29 + i] = (uint8_t)(~crc >> (24 - i * 8));
}

static void resize_jpeg(struct buf *b, unsigned w, unsigned h)
{
    uint8_t *p = (uint8_t *)b->data;

    for (size_t i = 2; i + 9 < b->len; i++)
        if (p[i] == 0xff && (p[i + 1] == 0xc0 || p[i + 1] == 0xc2)) {
            p[i + 5] = (uint8_t)(h >> 8);
            p[i + 6] = (uint8_t)h;
            p[i + 7] = (uint8_t)(w >> 8);
            p[i + 8] = (uint8_t)w;
            return;
        }
    CHECK(false);
}

static void too_large(void)
{
    struct buf png = {0}, jpeg = {0}, webp = {0};
    write_png(&(struct png_kind){PNG_COLOR_TYPE_RGB, 8}, &png);
    write_jpeg(&(struct jpeg_kind){JCS_RGB, true}, &jpeg);
    write_webp(true, false, 0, &webp);

    check_refused(png.data, png.len, &(struct codec_limits){.bytes = png.len - 1},
                  "bytes; at most");
    check_refused(png.data, png.len, &(struct codec_limits){.edge = W - 1},
                  "has 24x16 pixels; at most 23 on each side");
    check_refused(jpeg.data, jpeg.len, &(struct codec_limits){.pixels = W * H - 1},
                  "has 24x16 pixels; at most 383 in all");
    check_refused(webp.data, webp.len, &(struct codec_limits){.memory = 2048}, "of memory");

    // Small files that claim to be large.
    resize_png(&png, 20000, 16);
    check_refused(png.data, png.len, NULL, "has 20000x16 pixels; at most 16384 on each side");
    resize_png(&png, 16384, 16384);
    check_refused(png.data, png.len, NULL, "has 16384x16384 pixels; at most 67108864 in all");
    resize_png(&png, 0, 16);
    check_refused(png.data, png.len, NULL, "damaged PNG");
    resize_png(&png, 0x7fffffff, 0x7fffffff);
    check_refused(png.data, png.len, NULL, "at most 16384 on each side");
    resize_jpeg(&jpeg, 65500, 65500);
    check_refused(jpeg.data, jpeg.len, NULL, "at most 16384 on each side");
    resize_jpeg(&jpeg, 16384, 16384);
    check_refused(jpeg.data, jpeg.len, NULL, "at most 67108864 in all");
    resize_jpeg(&jpeg, 8192, 8192);
    check_refused(jpeg.data, jpeg.len, NULL, "of memory to decode; at most 768 MB");
    memcpy(webp.data + 21, "\xff\xff\xff\x0f", 4); // 14 bits each: 16384 x 16384
    check_refused(webp.data, webp.len, NULL, "16384x16384");
    buf_deinit(&png);
    buf_deinit(&jpeg);
    buf_deinit(&webp);
}

// Text chunks that unpack to 7 MB each, below the limit of libpng, and 1.4 GB together, are not
// unpacked.
static void chunk_bomb(void)
{
    enum { UNPACKED = 7000000, COPIES = 200 };
    struct buf one = {0}, text = {0}, b = {0};
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    struct codec_image i;

    CHECK(buf_reserve(&text, UNPACKED + 1));
    memset(text.data, 'a', UNPACKED);
    text.data[UNPACKED] = 0;
    png_set_write_fn(png, &one, png_put, NULL);
    png_set_IHDR(png, info, 1, 1, 8, PNG_COLOR_TYPE_RGB, 0, 0, 0);
    png_set_text(png, info,
                 &(png_text){.compression = PNG_TEXT_COMPRESSION_zTXt,
                             .key = (char *)(uintptr_t)"bomb",
                             .text = text.data},
                 1);
    png_write_info(png, info);
    png_write_row(png, (uint8_t[]){1, 2, 3});
    png_write_end(png, info);
    png_destroy_write_struct(&png, &info);
    buf_deinit(&text);
    const char *chunk = memmem(one.data, one.len, "zTXt", 4);
    CHECK(chunk);
    const size_t at = chunk ? (size_t)(chunk - one.data) - 4 : 0;
    const uint8_t *size = (const uint8_t *)one.data + at;
    const size_t n = (size_t)size[2] << 8 | size[3];
    buf_add(&b, one.data, at);
    for (int k = 0; k < COPIES; k++)
        buf_add(&b, one.data + at, 12 + n);
    buf_add(&b, one.data + at + 12 + n, one.len - at - 12 - n);

    const double began = test_seconds();
    CHECK_INT(codec_decode(b.data, b.len, NULL, &i, NULL), ERR_OK);
    CHECK_MSG(test_seconds() - began < .5, "%.3f s", test_seconds() - began);
    CHECK(i.width == 1 && i.rgba && i.rgba[2] == 3);
    codec_image_deinit(&i);
    buf_deinit(&one);
    buf_deinit(&b);
}

// Progressive files whose scans take longer than those of any encoder.
static void scan_bomb(void)
{
    enum { EDGE = 4096, SCANS = 64 };
    struct jpeg_compress_struct c;
    struct jpeg_error_mgr mgr;
    jpeg_scan_info scans[SCANS];
    unsigned char *mem = NULL;
    unsigned long n = 0;
    uint8_t row[EDGE] = {0};
    JSAMPROW rows[1] = {row};
    struct buf b = {0};
    struct fault why = {0};
    struct codec_image i;

    write_jpeg(&(struct jpeg_kind){JCS_GRAYSCALE, .scans = SCANS}, &b);
    check_image("64 scans", &b, GREYS, 1, 3);
    buf_deinit(&b);

    c.err = jpeg_std_error(&mgr);
    jpeg_create_compress(&c);
    jpeg_mem_dest(&c, &mem, &n);
    c.image_width = c.image_height = EDGE;
    c.in_color_space = JCS_GRAYSCALE;
    c.input_components = 1;
    jpeg_set_defaults(&c);
    for (int k = 0; k < SCANS; k++)
        scans[k] = (jpeg_scan_info){.comps_in_scan = 1, .Ss = k, .Se = k};
    c.scan_info = scans;
    c.num_scans = SCANS;
    jpeg_start_compress(&c, TRUE);
    for (int y = 0; y < EDGE; y++)
        jpeg_write_scanlines(&c, rows, 1);
    jpeg_finish_compress(&c);
    jpeg_destroy_compress(&c);
    CHECK_INT(codec_decode(mem, n, NULL, &i, &why), ERR_INVALID);
    CHECK_MSG(strstr(why.msg, "scans") != NULL, "%s", why.msg);
    free(mem);
}

// One byte wrong, in every place: an image or an error, and the same code whether *why is given.
static void damaged(void)
{
    struct buf files[3] = {{0}, {0}, {0}};
    write_png(&(struct png_kind){PNG_COLOR_TYPE_RGBA, 8}, &files[0]);
    write_jpeg(&(struct jpeg_kind){JCS_RGB}, &files[1]);
    write_webp(true, true, 3, &files[2]);
    for (int f = 0; f < 3; f++) {
        for (size_t n = 0; n < files[f].len; n++) {
            struct codec_image i, j;
            files[f].data[n] ^= 0x55;
            const enum err e = codec_decode(files[f].data, files[f].len, NULL, &i, NULL);
            CHECK(e == ERR_OK || e == ERR_INVALID);
            CHECK_INT(codec_decode(files[f].data, files[f].len, NULL, &j, &(struct fault){0}), e);
            CHECK(!i.rgba == (e != ERR_OK));
            files[f].data[n] ^= 0x55;
            codec_image_deinit(&i);
            codec_image_deinit(&j);
        }
        buf_deinit(&files[f]);
    }
}

int main(int argc, char **argv)
{
    corpus = argc > 1 ? argv[1] : NULL;
    png_kinds();
    jpeg_kinds();
    webp_kinds();
    orientations();
    not_images();
    too_large();
    chunk_bomb();
    scan_bomb();
    damaged();
    return test_end();
}
