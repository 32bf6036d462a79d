// Input images from file to stage and back: masks, sizes, the square, pixels kept bit for bit, the
// blend at their border; and the tiles of enlarged images.
#include "codec.h"
#include "enlarge.h"
#include "picture.h"
#include "picture_edit.h"
#include "picture_resize.h"
#include "test.h"

#include <stdlib.h>

// Any pixels, the same in every run.
static struct codec_image image(int w, int h, uint32_t seed)
{
    struct codec_image i = {.width = w, .height = h, .rgba = malloc((size_t)(w * h) * 4)};
    for (int k = 0; k < w * h * 4; k++) {
        seed = seed * 1664525u + 1013904223u;
        i.rgba[k] = k % 4 == 3 ? 255 : (uint8_t)(seed >> 24);
    }
    return i;
}

// White, or transparent, in a rectangle; black and opaque elsewhere.
static struct codec_image mask(int w, int h, const int box[4], bool transparent)
{
    struct codec_image m = {.width = w, .height = h, .rgba = calloc((size_t)(w * h), 4)};
    for (int k = 0; k < w * h; k++) {
        const int x = k % w, y = k / w;
        const bool in = x >= box[0] && x < box[2] && y >= box[1] && y < box[3];
        memset(m.rgba + 4 * k, in && !transparent ? 255 : 0, 3);
        m.rgba[4 * k + 3] = in && transparent ? 0 : 255;
        m.alpha |= in && transparent;
    }
    return m;
}

static struct picture_edit *edit(const struct picture_edit_params *p)
{
    struct picture_edit *e;
    struct fault why = {0};
    CHECK_MSG(!picture_edit_create(p, &e, &why), "%s", why.msg);
    return e;
}

static void masks(void)
{
    static const int box[4] = {3, 2, 11, 9};
    static const struct {
        bool transparent, invert, own;
    } rows[] = {{false, false, false},
                {true, false, false},
                {false, true, false},
                {true, true, false},
                {false, false, true}};
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        struct codec_image i = image(17, 13, 1), m = mask(17, 13, box, rows[r].transparent);
        for (int k = 0; rows[r].own && k < 17 * 13; k++)
            i.rgba[4 * k + 3] = 255 - m.rgba[4 * k]; // the image's own alpha
        i.alpha = rows[r].own;
        struct picture_edit *e = edit(&(struct picture_edit_params){
            .image = &i,
            .mask = rows[r].own ? NULL : &m,
            .kind = rows[r].transparent ? PICTURE_MASK_TRANSPARENT : PICTURE_MASK_LIGHT,
            .invert = rows[r].invert});
        for (int k = 0; k < 17 * 13; k++) {
            const int x = k % 17, y = k / 17;
            const bool in = x >= box[0] && x < box[2] && y >= box[1] && y < box[3];
            CHECK_INT(e->drawn[k], in != rows[r].invert ? 255 : 0);
            CHECK(!memcmp(e->rgb + 3 * k, i.rgba + 4 * k, 3));
        }
        picture_edit_destroy(&e);
        codec_image_deinit(&i);
        codec_image_deinit(&m);
    }
    // Greys are cut at half.
    struct codec_image i = image(2, 1, 1), m = image(2, 1, 1);
    memset(m.rgba, 127, 3);
    memset(m.rgba + 4, 128, 3);
    struct picture_edit *e = edit(&(struct picture_edit_params){.image = &i, .mask = &m});
    CHECK(e->drawn[0] == 0 && e->drawn[1] == 255);
    picture_edit_destroy(&e);
    codec_image_deinit(&i);
    codec_image_deinit(&m);
}

static void refused(void)
{
    static const int none[4] = {0}, some[4] = {0, 0, 1, 1};
    struct codec_image i = image(8, 6, 1), other = mask(6, 8, some, false);
    struct codec_image empty = mask(8, 6, none, false), opaque = mask(8, 6, some, false);
    struct codec_image wide = image(8193, 1, 1);
    const struct {
        struct picture_edit_params p;
        const char *param, *says;
    } rows[] = {
        {{.mask = &other}, "mask", "6x8 pixels but the image has 8x6"},
        {{.mask = &empty}, "mask", "marks no pixel to repaint"},
        {{.mask = &opaque, .kind = PICTURE_MASK_TRANSPARENT}, "mask", "no transparent pixel"},
        {{.feather = -2}, "feather", "0 to 256, not -2"},
        {{.feather = 257}, "feather", "0 to 256, not 257"},
        {{.size = {8193, 10}}, "size", "8193x10 is too large for an edit; the maximum is 8192"},
        {{.image = &wide}, "image", "8193x1 pixels; at most 8192 on each side can be edited;"},
        {{.image = &wide, .enlarge = true}, "image", "at most 8192 on each side can be enlarged;"},
        {{.options.padding = -1}, "padding", "0 to 4096, not -1"},
        {{.options.padding = 4097}, "padding", "0 to 4096, not 4097"},
    };
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        struct picture_edit_params p = rows[r].p;
        struct picture_edit *e;
        struct fault why = {0};
        p.image = p.image ? p.image : &i;
        CHECK_INT(picture_edit_create(&p, &e, &why), ERR_INVALID);
        CHECK(!e);
        CHECK_STR(why.param, rows[r].param);
        CHECK_MSG(strstr(why.msg, rows[r].says) != NULL, "%s", why.msg);
    }
    codec_image_deinit(&i);
    codec_image_deinit(&other);
    codec_image_deinit(&empty);
    codec_image_deinit(&opaque);
    codec_image_deinit(&wide);
}

// Half-transparent colours lie on white, when a mask decides what is drawn.
static void on_white(void)
{
    static const int some[4] = {0, 0, 1, 1};
    struct codec_image i = image(2, 1, 1), m = mask(2, 1, some, false);
    memcpy(i.rgba, (uint8_t[]){0, 100, 255, 51, 9, 8, 7, 0}, 8);
    i.alpha = true;
    struct picture_edit *e = edit(&(struct picture_edit_params){.image = &i, .mask = &m});
    CHECK(!memcmp(e->rgb, (uint8_t[]){204, 224, 255, 255, 255, 255}, 6));
    picture_edit_destroy(&e);
    codec_image_deinit(&i);
    codec_image_deinit(&m);
}

// An image of another shape than what is asked for loses its sides, or its top and bottom.
static void sizes(void)
{
    static const struct {
        int w, h;
        struct check_size size;
    } rows[] = {{12, 12, {12, 12}}, {20, 12, {12, 12}}, {12, 20, {12, 12}}, {20, 10, {10, 10}}};
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        struct codec_image i = image(rows[r].w, rows[r].h, 7);
        struct picture_edit *e =
            edit(&(struct picture_edit_params){.image = &i, .size = rows[r].size});
        const int w = rows[r].size.width, left = (rows[r].w - w) / 2;
        const int top = (rows[r].h - rows[r].size.height) / 2;
        CHECK_INT(e->width, w);
        CHECK_INT(e->height, rows[r].size.height);
        CHECK(!e->drawn);
        // Whole pixels are cut off, so the rest stays as it is.
        for (int y = 0; y < e->height; y++)
            for (int x = 0; x < w; x++)
                CHECK(!memcmp(e->rgb + 3 * (y * w + x),
                              i.rgba + 4 * ((top + y) * rows[r].w + left + x), 3));
        picture_edit_destroy(&e);
        codec_image_deinit(&i);
    }
}

// The square around an image of any shape: the image is in its middle, mirrored beyond its edges.
static void square(void)
{
    enum { EDGE = 16 };
    static const int shapes[][2] = {{16, 16}, {16, 10}, {8, 16}, {16, 1}, {2, 16}};
    for (size_t r = 0; r < sizeof shapes / sizeof *shapes; r++) {
        const int w = shapes[r][0], h = shapes[r][1];
        static const int box[4] = {0, 0, 2, 9};
        struct codec_image i = image(w, h, 3), m = mask(w, h, box, false);
        float out[EDGE * EDGE * 4];
        struct picture_edit *e = edit(&(struct picture_edit_params){.image = &i, .mask = &m});
        CHECK_INT(picture_edit_stage(e, &(struct check_size){EDGE, EDGE}, out), ERR_OK);
        for (int k = 0; k < EDGE * EDGE; k++) {
            int x = k % EDGE - (EDGE - w) / 2, y = k / EDGE - (EDGE - h) / 2;
            for (int n = 0; n < 20; n++) { // from edge to edge, until it is inside
                x = x < 0 ? -1 - x : x >= w ? 2 * w - 1 - x : x;
                y = y < 0 ? -1 - y : y >= h ? 2 * h - 1 - y : y;
            }
            for (int c = 0; c < 3; c++)
                CHECK_NEAR(out[4 * k + c], e->rgb[3 * (y * w + x) + c] / 127.5 - 1, 1e-6);
            CHECK(out[4 * k + 3] == (e->drawn[y * w + x] ? 0 : 1));
        }
        picture_edit_destroy(&e);
        codec_image_deinit(&i);
        codec_image_deinit(&m);
    }
}

// Larger, smaller and as large as the drawn square; what is kept is the input's own, to the bit.
static void compose(void)
{
    static const struct {
        int w, h, edge, feather;
    } rows[] = {{64, 64, 64, 0},  {64, 48, 64, 3},  {40, 64, 64, 2},   {100, 70, 64, 4},
                {70, 100, 64, 0}, {30, 20, 64, 16}, {257, 129, 64, 8}, {1, 64, 64, 1}};
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        const int w = rows[r].w, h = rows[r].h, edge = rows[r].edge, f = rows[r].feather;
        const int box[4] = {w / 4, h / 4, w - w / 4 + (w < 4), h - h / 4};
        struct codec_image i = image(w, h, 5), m = mask(w, h, box, false);
        uint8_t *drawn = malloc((size_t)(edge * edge) * 3), *out = malloc((size_t)(w * h) * 3);
        memset(drawn, 200, (size_t)(edge * edge) * 3);
        struct picture_edit *e =
            edit(&(struct picture_edit_params){.image = &i, .mask = &m, .feather = f});
        CHECK_INT(picture_edit_compose(e, drawn, &(struct check_size){edge, edge}, out), ERR_OK);
        int full = 0;
        for (int k = 0; k < w * h; k++) {
            const int x = k % w, y = k / w;
            // To the nearest kept pixel, straight.
            int d = w + h;
            if (e->drawn[k]) {
                d = box[0] > 0 && x - box[0] + 1 < d ? x - box[0] + 1 : d;
                d = box[2] < w && box[2] - x < d ? box[2] - x : d;
                d = y - box[1] + 1 < d ? y - box[1] + 1 : d;
                d = box[3] - y < d ? box[3] - y : d;
            } else {
                d = 0;
            }
            d = d > f + 1 ? f + 1 : d;
            full += d == f + 1;
            for (int c = 0; c < 3; c++) {
                const int own = i.rgba[4 * k + c];
                if (!d)
                    CHECK_INT(out[3 * k + c], own);
                else
                    CHECK_NEAR(out[3 * k + c], own + (200.0 - own) * d / (f + 1), 0.51);
            }
        }
        CHECK((full > 0) == (f < w / 2 || w < 4)); // one blend may be wider than the mask
        picture_edit_destroy(&e);
        codec_image_deinit(&i);
        codec_image_deinit(&m);
        free(drawn);
        free(out);
    }
}

// Placement: what a stage returns unchanged reproduces the image.
static void there_and_back(void)
{
    static const struct check_size shapes[][2] = {
        {{64, 64}, {64, 64}}, {{64, 40}, {64, 64}}, {{22, 64}, {64, 64}}, {{64, 40}, {64, 40}},
        {{40, 64}, {40, 64}}, {{64, 64}, {96, 64}}, {{48, 40}, {64, 40}}, {{64, 30}, {64, 96}}};
    for (size_t r = 0; r < sizeof shapes / sizeof *shapes; r++) {
        const int w = shapes[r][0].width, h = shapes[r][0].height;
        const struct check_size *of = &shapes[r][1];
        const int pixels = of->width * of->height;
        struct codec_image i = image(w, h, 11);
        float *stage = malloc(sizeof(float) * (size_t)pixels * 4);
        uint8_t *drawn = malloc((size_t)pixels * 3), *out = malloc((size_t)(w * h) * 3);
        struct picture_edit *e = edit(&(struct picture_edit_params){.image = &i});
        CHECK_INT(picture_edit_stage(e, of, stage), ERR_OK);
        for (int k = 0; k < pixels * 3; k++)
            drawn[k] = (uint8_t)lrintf(stage[k / 3 * 4 + k % 3] * 127.5f + 127.5f);
        CHECK_INT(picture_edit_compose(e, drawn, of, out), ERR_OK);
        for (int k = 0; k < w * h; k++)
            CHECK(!memcmp(out + 3 * k, i.rgba + 4 * k, 3));
        picture_edit_destroy(&e);
        codec_image_deinit(&i);
        free(stage);
        free(drawn);
        free(out);
    }
}

// ---- options ------------------------------------------------------------------------------------

// An image that is not scaled: which of its pixels are in the result, and where; and the ends of
// one that is.
static void fits(void)
{
    static const struct {
        enum picture_fit fit;
        int w, h;
        struct check_size size;
        int left, top; // of the image in the result; negative: cut off
    } rows[] = {
        {PICTURE_FIT_CROP, 12, 8, {8, 8}, -2, 0},  {PICTURE_FIT_CROP, 8, 12, {8, 8}, 0, -2},
        {PICTURE_FIT_PAD, 12, 8, {12, 12}, 0, 2},  {PICTURE_FIT_PAD, 8, 12, {12, 12}, 2, 0},
        {PICTURE_FIT_PAD, 8, 8, {9, 8}, 0, 0},     {PICTURE_FIT_PAD, 1, 5, {40, 5}, 19, 0},
        {PICTURE_FIT_STRETCH, 9, 7, {9, 7}, 0, 0},
    };
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        const int w = rows[r].w, h = rows[r].h;
        const int box[4] = {0, 0, w / 2 + 1, h / 2};
        struct codec_image i = image(w, h, 7), m = mask(w, h, box, false);
        struct picture_edit *e = edit(&(struct picture_edit_params){
            .image = &i, .mask = &m, .size = rows[r].size, .options.fit = rows[r].fit});
        CHECK(e->width == rows[r].size.width && e->height == rows[r].size.height);
        for (int k = 0; k < e->width * e->height; k++) {
            int x = k % e->width - rows[r].left, y = k / e->width - rows[r].top;
            x = x < 0 ? 0 : x < w ? x : w - 1;
            y = y < 0 ? 0 : y < h ? y : h - 1;
            CHECK(!memcmp(e->rgb + 3 * k, i.rgba + 4 * (y * w + x), 3));
            CHECK_INT(e->drawn[k], m.rgba[4 * (y * w + x)]);
        }
        picture_edit_destroy(&e);
        codec_image_deinit(&i);
        codec_image_deinit(&m);
    }
    // Stretched: all of the image is in the result.
    struct codec_image i = image(64, 16, 7);
    for (int k = 0; k < 64 * 16; k++)
        memset(i.rgba + 4 * k, k % 64 * 4, 3);
    static const struct check_size square_size = {16, 16};
    static const int ends[3][2] = {{6 + 96, 255 - 96 - 6}, {6, 255 - 9}, {6, 255 - 9}};
    for (int how = 0; how < 3; how++) {
        struct picture_edit *e = edit(&(struct picture_edit_params){
            .image = &i, .size = square_size, .options.fit = (enum picture_fit)how});
        CHECK_NEAR(e->rgb[3 * 8 * 16], ends[how][0], 8);
        CHECK_NEAR(e->rgb[3 * (8 * 16 + 15)], ends[how][1], 8);
        picture_edit_destroy(&e);
    }
    codec_image_deinit(&i);
}

// Alpha is a mask, unless it is said to be none.
static void opaque(void)
{
    struct codec_image i = image(2, 1, 1);
    memcpy(i.rgba, (uint8_t[]){0, 100, 255, 51, 9, 8, 7, 0}, 8);
    i.alpha = true;
    struct picture_edit *e =
        edit(&(struct picture_edit_params){.image = &i, .options.opaque = true});
    CHECK(!e->drawn && !e->masked);
    CHECK(!memcmp(e->rgb, (uint8_t[]){204, 224, 255, 255, 255, 255}, 6));
    picture_edit_destroy(&e);
    codec_image_deinit(&i);
}

// A stage's input with the left half kept: kept pixels never change, the others depend on the fill.
static void fills(void)
{
    enum { EDGE = 32, KEPT = 15 }; // an odd number, so that pairs of pixels are mixed
    const int box[4] = {KEPT, 0, EDGE, EDGE}, all[4] = {0, 0, EDGE, EDGE};
    struct codec_image i = image(EDGE, EDGE, 3), m = mask(EDGE, EDGE, box, false);
    struct codec_image full = mask(EDGE, EDGE, all, false);
    float own[EDGE * EDGE * 4], out[EDGE * EDGE * 4], again[EDGE * EDGE * 4];
    // Red above, blue below, and green where the mask is.
    for (int k = 0; k < EDGE * EDGE; k++)
        memcpy(i.rgba + 4 * k,
               k % EDGE >= KEPT      ? (uint8_t[]){0, 255, 0}
               : k < EDGE * EDGE / 2 ? (uint8_t[]){255, 0, 0}
                                     : (uint8_t[]){0, 0, 255},
               3);
    for (int fill = 0; fill <= PICTURE_FILL_GRAY; fill++) {
        struct picture_edit *e = edit(&(struct picture_edit_params){
            .image = &i, .mask = &m, .options.fill = (enum picture_fill)fill});
        double mean = 0, square_mean = 0;
        CHECK_INT(picture_edit_stage(e, &(struct check_size){EDGE, EDGE}, fill ? out : own),
                  ERR_OK);
        CHECK_INT(picture_edit_stage(e, &(struct check_size){EDGE, EDGE}, again), ERR_OK);
        CHECK(!memcmp(fill ? out : own, again, sizeof again));
        for (int k = 0; fill && k < EDGE * EDGE; k++) {
            const float *p = out + 4 * k;
            const bool kept = k % EDGE < KEPT;
            CHECK_INT(p[3], kept);
            if (kept)
                CHECK(!memcmp(p, own + 4 * k, 4 * sizeof *p));
            else if (fill == PICTURE_FILL_GRAY)
                CHECK(p[0] == 0 && p[1] == 0 && p[2] == 0);
            else if (fill == PICTURE_FILL_AROUND) // no green; red above, blue below
                CHECK(p[1] < -0.99F &&
                      (k % EDGE > 19 || abs(k / EDGE - 16) < 9 || p[k / EDGE < 16 ? 0 : 2] > 0));
            mean += kept ? 0 : p[0] / (EDGE * (EDGE - KEPT));
            square_mean += kept ? 0 : p[0] * p[0] / (EDGE * (EDGE - KEPT));
        }
        if (fill == PICTURE_FILL_NOISE) { // 544 normals: within four standard errors
            CHECK_NEAR(mean, 0, 4 / sqrt(544));
            CHECK_NEAR(square_mean, 1, 4 * sqrt(2.0 / 544));
        }
        // The seam is a blend with the image itself, whatever a stage started from.
        uint8_t drawn[EDGE * EDGE * 3], result[EDGE * EDGE * 3];
        memset(drawn, 200, sizeof drawn);
        e->feather = 4;
        CHECK_INT(picture_edit_compose(e, drawn, &(struct check_size){EDGE, EDGE}, result), ERR_OK);
        CHECK_NEAR(result[3 * KEPT + 1], 255 - 55 / 5.0, 1);
        picture_edit_destroy(&e);
        // Nothing is around: gray.
        e = edit(&(struct picture_edit_params){
            .image = &i, .mask = &full, .options.fill = (enum picture_fill)fill});
        CHECK_INT(picture_edit_stage(e, &(struct check_size){EDGE, EDGE}, out), ERR_OK);
        CHECK(fill != PICTURE_FILL_AROUND || (out[0] == 0 && out[4 * EDGE * EDGE - 2] == 0));
        picture_edit_destroy(&e);
    }
    codec_image_deinit(&i);
    codec_image_deinit(&m);
    codec_image_deinit(&full);
}

// The square around a mask: where it is, what the model sees of it, and where that goes back to.
static void zooms(void)
{
    enum { EDGE = 16 };
    static const struct {
        int w, h, box[4], padding, zoom, left, top;
    } rows[] = {
        {64, 48, {20, 10, 36, 20}, 0, 16, 20, 7},   {64, 48, {20, 10, 24, 14}, 6, 16, 14, 4},
        {64, 48, {0, 0, 4, 4}, 6, 16, 0, 0},        {64, 48, {60, 44, 64, 48}, 6, 16, 48, 32},
        {64, 8, {30, 2, 34, 6}, 6, 16, 24, -4},     {64, 48, {1, 1, 2, 2}, 100, 0, 0, 0},
        {16, 16, {0, 0, 16, 16}, 0, 0, 0, 0},       {64, 48, {8, 8, 56, 40}, 0, 48, 8, 0},
        {100, 100, {10, 20, 42, 30}, 0, 32, 10, 9},
    };
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        const int w = rows[r].w, h = rows[r].h;
        struct codec_image i = image(w, h, 5), m = mask(w, h, rows[r].box, false);
        struct picture_edit *e = edit(&(struct picture_edit_params){
            .image = &i, .mask = &m, .options = {.zoom = true, .padding = rows[r].padding}});
        float stage[EDGE * EDGE * 4];
        uint8_t drawn[EDGE * EDGE * 3], *out = malloc((size_t)(w * h) * 3);
        CHECK_INT(e->zoom, rows[r].zoom);
        CHECK_INT(e->left, rows[r].left);
        CHECK_INT(e->top, rows[r].top);
        CHECK_INT(picture_edit_stage(e, &(struct check_size){EDGE, EDGE}, stage), ERR_OK);
        for (int k = 0; e->zoom == EDGE && k < EDGE * EDGE; k++) { // as large: pixel for pixel
            const int x = e->left + k % EDGE, y = e->top + k / EDGE;
            if (y < 0 || y >= h)
                continue;
            CHECK_NEAR(stage[4 * k], i.rgba[4 * (y * w + x)] / 127.5 - 1, 1e-6);
            CHECK_INT(stage[4 * k + 3], m.rgba[4 * (y * w + x)] == 0);
        }
        for (int k = 0; k < EDGE * EDGE * 3; k++)
            drawn[k] = (uint8_t)lrintf(stage[k / 3 * 4 + k % 3] * 127.5F + 127.5F);
        CHECK_INT(picture_edit_compose(e, drawn, &(struct check_size){EDGE, EDGE}, out), ERR_OK);
        for (int k = 0; k < w * h; k++)
            if (e->zoom == EDGE || !e->drawn[k])
                CHECK(!memcmp(out + 3 * k, i.rgba + 4 * k, 3));
        memset(drawn, 77, sizeof drawn);
        e->feather = 0;
        CHECK_INT(picture_edit_compose(e, drawn, &(struct check_size){EDGE, EDGE}, out), ERR_OK);
        for (int k = 0; k < w * h; k++)
            if (e->drawn[k])
                CHECK_INT(out[3 * k], 77);
        picture_edit_destroy(&e);
        codec_image_deinit(&i);
        codec_image_deinit(&m);
        free(out);
    }
}

// A model that only repeats pixels: whatever the tiles, the result is the image with each pixel
// repeated, and every pixel of it comes from some tile.
static void tiles(void)
{
    enum { LOW = 16, F = 4, HIGH = LOW * F };
    static const struct {
        int w, h, count;
    } rows[] = {{16, 16, 1}, {5, 9, 1},   {17, 16, 2}, {28, 16, 2}, {29, 16, 3},
                {40, 40, 9}, {16, 40, 3}, {1, 50, 4},  {100, 3, 8}};
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        const int w = rows[r].w, h = rows[r].h;
        struct codec_image i = image(w, h, 13);
        struct enlarge *e;
        float low[LOW * LOW * 3];
        uint8_t high[HIGH * HIGH * 3];
        int ow, oh, put = 0;
        for (int k = 0; k < w * h; k++) // RGB in place
            memmove(i.rgba + 3 * k, i.rgba + 4 * k, 3);
        CHECK_INT(enlarge_count(w, h, LOW), rows[r].count);
        CHECK_INT(enlarge_create(i.rgba, w, h, LOW, HIGH, &e), ERR_OK);
        for (; !enlarge_is_done(e) && put < 100; put++) {
            enlarge_tile(e, low);
            for (int k = 0; k < HIGH * HIGH; k++)
                for (int c = 0; c < 3; c++)
                    high[3 * k + c] = (uint8_t)lrintf(
                        low[3 * (k / HIGH / F * LOW + k % HIGH / F) + c] * 127.5f + 127.5f);
            enlarge_put(e, high);
            CHECK_INT(enlarge_done(e), put + 1);
        }
        CHECK_INT(put, rows[r].count);
        const uint8_t *out = enlarge_image(e, &ow, &oh);
        CHECK(ow == w * F && oh == h * F);
        for (int k = 0; k < ow * oh; k++)
            CHECK(!memcmp(out + 3 * k, i.rgba + 3 * (k / ow / F * w + k % ow / F), 3));
        enlarge_destroy(&e);
        codec_image_deinit(&i);
    }
}

// No edge between tiles that differ: from one level to the other in small steps.
static void fades(void)
{
    enum { LOW = 16, F = 4, HIGH = LOW * F, W = 28 };
    uint8_t from[W * LOW * 3] = {0}, high[HIGH * HIGH * 3];
    struct enlarge *e;
    int ow, oh;
    CHECK_INT(enlarge_create(from, W, LOW, LOW, HIGH, &e), ERR_OK);
    memset(high, 0, sizeof high);
    enlarge_put(e, high);
    memset(high, 160, sizeof high);
    enlarge_put(e, high);
    CHECK(enlarge_is_done(e));
    const uint8_t *out = enlarge_image(e, &ow, &oh);
    CHECK(out[0] == 0 && out[3 * (ow - 1)] == 160);
    for (int x = 1; x < ow; x++) {
        const int step = out[3 * x] - out[3 * x - 3];
        CHECK_MSG(step >= 0 && step <= 160 / (LOW / 4 * F) + 1, "a step of %d at %d", step, x);
    }
    enlarge_destroy(&e);
}

int main(void)
{
    masks();
    refused();
    on_white();
    sizes();
    square();
    compose();
    there_and_back();
    fits();
    opaque();
    fills();
    zooms();
    tiles();
    fades();
    return test_end();
}
