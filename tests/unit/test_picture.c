// A PNG written by picture_encode, read back by libpng: the pixels and every text chunk; image
// scaling, sizes, warnings, and the limits of fields.
#include "buf.h"
#include "codec.h"
#include "picture.h"
#include "program.h"
#include "test.h"
#include "text.h"

#include <png.h>
#include <stdlib.h>

struct reader {
    const uint8_t *data;
    size_t left;
};

static void on_read(png_structp png, png_bytep out, size_t n)
{
    struct reader *r = png_get_io_ptr(png);
    if (n > r->left)
        png_error(png, "short");
    memcpy(out, r->data, n);
    r->data += n;
    r->left -= n;
}

struct picture {
    int width, height, texts;
    uint8_t *rgb;
    png_text *text;
    png_structp png;
    png_infop info;
};

static bool open_png(struct picture *p, const uint8_t *data, size_t size)
{
    struct reader r = {data, size};
    p->png = png_create_read_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    p->info = png_create_info_struct(p->png);
    if (setjmp(png_jmpbuf(p->png)))
        return false;
    png_set_read_fn(p->png, &r, on_read);
    png_read_png(p->png, p->info, PNG_TRANSFORM_IDENTITY, NULL);
    p->width = (int)png_get_image_width(p->png, p->info);
    p->height = (int)png_get_image_height(p->png, p->info);
    CHECK_INT(png_get_color_type(p->png, p->info), PNG_COLOR_TYPE_RGB);
    CHECK_INT(png_get_bit_depth(p->png, p->info), 8);
    png_get_text(p->png, p->info, &p->text, &p->texts);
    return true;
}

static const char *text_of(const struct picture *p, const char *key)
{
    for (int i = 0; i < p->texts; i++)
        if (!strcmp(p->text[i].key, key))
            return p->text[i].text;
    return NULL;
}

static bool is_itxt(const struct picture *p, const char *key)
{
    for (int i = 0; i < p->texts; i++)
        if (!strcmp(p->text[i].key, key))
            return p->text[i].compression >= PNG_ITXT_COMPRESSION_NONE;
    return false;
}

static const struct picture_used used = {.model = "default",
                                         .preset = "fast",
                                         .sampler = "ddpm",
                                         .size = {7, 5},
                                         .drawn = {64, 64},
                                         .stages = 2,
                                         .steps = {27, 12},
                                         .guidance_scale = {7.0f, 1.5f},
                                         .noise_level = {-1, 250}};

static uint8_t *pixels(int width, int height)
{
    size_t n = (size_t)width * (size_t)height * 3;
    uint8_t *rgb = malloc(n);
    uint32_t state = 1;
    for (size_t i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        rgb[i] = (uint8_t)(i / 7 + (state >> 29));
    }
    return rgb;
}

static void read_back(void)
{
    uint8_t *rgb = pixels(7, 5);
    struct buf png = {0};
    struct codec_params image = {.width = 7, .height = 5, .rgb = rgb};
    struct picture_request r = {.prompt = "a red sphere,\n\"caf\xc3\xa9\" \xe6\xa3\xae",
                                .negative_prompt = "blurry",
                                .seed = 18446744073709551615u,
                                .picture = 3};
    CHECK(!picture_encode(&image, &r, &used, &png, NULL));
    struct picture p = {0};
    CHECK(png.len && open_png(&p, (const uint8_t *)png.data, png.len));
    CHECK_INT(p.width, 7);
    CHECK_INT(p.height, 5);
    png_bytepp rows = png_get_rows(p.png, p.info);
    for (int y = 0; y < 5; y++)
        CHECK_INT(memcmp(rows[y], rgb + y * 21, 21), 0);
    CHECK_STR(text_of(&p, "prompt"), r.prompt);
    CHECK(is_itxt(&p, "prompt"));
    CHECK_STR(text_of(&p, "negative_prompt"), "blurry");
    CHECK(!is_itxt(&p, "negative_prompt"));
    CHECK_STR(text_of(&p, "seed"), "18446744073709551615");
    CHECK_STR(text_of(&p, "picture"), "3");
    CHECK_STR(text_of(&p, "model"), "default");
    CHECK_STR(text_of(&p, "preset"), "fast");
    CHECK_STR(text_of(&p, "sampler"), "ddpm");
    CHECK_STR(text_of(&p, "steps"), "27,12");
    CHECK_STR(text_of(&p, "guidance"), "7,1.5");
    CHECK_STR(text_of(&p, "noise_level"), "250");
    CHECK_STR(text_of(&p, "size"), "7x5");
    CHECK_STR(text_of(&p, "drawn"), "64x64");
    char parameters[400];
    char software[64];
    snprintf(software, sizeof software, "imagend %s", program_version);
    CHECK_STR(text_of(&p, "Software"), software);
    snprintf(parameters, sizeof parameters,
             "%s\nNegative prompt: blurry\nSteps: 27, Sampler: ddpm, CFG scale: 7, "
             "Seed: 18446744073709551615, Size: 7x5, Model: default, Stage steps: \"27,12\", "
             "Stage CFG scale: \"7,1.5\", Picture: 3, Preset: fast, Drawn size: 64x64, Version: %s",
             r.prompt, software);
    CHECK_STR(text_of(&p, "parameters"), parameters);
    png_destroy_read_struct(&p.png, &p.info, NULL);
    buf_deinit(&png);
    free(rgb);
}

static void least(void)
{
    uint8_t rgb[3] = {1, 2, 3};
    struct buf png = {0};
    struct picture_used one = {.model = "m",
                               .sampler = "ddim",
                               .size = {1, 1},
                               .drawn = {1, 1},
                               .stages = 1,
                               .noise_level = {-1}};
    struct codec_params image = {.width = 1, .height = 1, .rgb = rgb};
    CHECK(!picture_encode(&image, &(struct picture_request){.prompt = ""}, &one, &png, NULL));
    struct picture p = {0};
    CHECK(png.len && open_png(&p, (const uint8_t *)png.data, png.len));
    CHECK_STR(text_of(&p, "prompt"), "");
    CHECK(!text_of(&p, "negative_prompt"));
    CHECK(!text_of(&p, "noise_level"));
    CHECK(!text_of(&p, "preset"));
    CHECK(!strstr(text_of(&p, "parameters"), "Preset"));
    png_destroy_read_struct(&p.png, &p.info, NULL);
    buf_deinit(&png);
}

static void refused(void)
{
    const uint8_t rgb[3] = {0};
    struct fault why = {0};
    struct buf png = {0};
    struct codec_params image = {.width = 1, .height = 1, .rgb = rgb}, empty = image, none = image;
    struct picture_request text = {.prompt = "x"}, broken = {.prompt = "\xff"}, lost = {0};
    empty.width = 0;
    none.rgb = NULL;
    CHECK_INT(picture_encode(&empty, &text, &used, &png, &why), ERR_INVALID);
    CHECK_INT(picture_encode(&none, &text, &used, &png, &why), ERR_INVALID);
    CHECK_INT(picture_encode(&image, &broken, &used, &png, &why), ERR_INVALID);
    CHECK_INT(picture_encode(&image, &lost, &used, &png, &why), ERR_INVALID);
    CHECK(!png.len && why.msg[0]);
}

static const struct picture_sizes squares = {3, {64, 256, 1024}, 0},
                                  shapes = {3, {64, 256, 1024}, 8};

static void sizes(void)
{
    static const struct {
        const struct picture_sizes *of;
        struct check_size asked, size;
        int stages;
        struct check_size drawn; // 0x0: refused
        struct check_size at[2]; // of images drawn by the first two stages
        const char *says;
    } rows[] = {
        {&squares, {0, 0}, {1024, 1024}, 3, {1024, 1024}, {{64, 64}, {256, 256}}, NULL},
        {&squares, {64, 64}, {64, 64}, 1, {64, 64}, {{64, 64}}, NULL},
        {&squares, {1, 1}, {1, 1}, 1, {64, 64}, {{1, 1}}, NULL},
        {&squares, {65, 65}, {65, 65}, 2, {256, 256}, {{64, 64}, {65, 65}}, NULL},
        {&squares, {48, 64}, {48, 64}, 1, {64, 64}, {{48, 64}}, NULL},
        {&squares, {64, 96}, {64, 96}, 2, {256, 256}, {{43, 64}, {64, 96}}, NULL},
        {&squares, {512, 768}, {512, 768}, 3, {1024, 1024}, {{43, 64}, {171, 256}}, NULL},
        {&squares, {1024, 1}, {1024, 1}, 3, {1024, 1024}, {{64, 1}, {256, 1}}, NULL},
        {&squares, {1025, 64}, {0, 0}, 0, {0, 0}, {{0, 0}}, "1024x1024, the largest size"},
        {&squares, {1536, 1024}, {0, 0}, 0, {0, 0}, {{0, 0}}, "1024x1024, the largest size"},
        {&squares, {64, 0}, {0, 0}, 0, {0, 0}, {{0, 0}}, "not a valid size"},
        {&squares, {-1, -1}, {0, 0}, 0, {0, 0}, {{0, 0}}, "not a valid size"},
        {&shapes, {0, 0}, {1024, 1024}, 3, {1024, 1024}, {{64, 64}, {256, 256}}, NULL},
        {&shapes, {64, 96}, {64, 96}, 1, {64, 96}, {{64, 96}}, NULL},
        {&shapes, {256, 384}, {256, 384}, 2, {256, 384}, {{64, 96}, {256, 384}}, NULL},
        {&shapes, {1024, 1536}, {1024, 1536}, 3, {1024, 1536}, {{64, 96}, {256, 384}}, NULL},
        {&shapes, {2048, 1024}, {2048, 1024}, 3, {2048, 1024}, {{128, 64}, {512, 256}}, NULL},
        {&shapes, {1536, 1536}, {1536, 1536}, 3, {1536, 1536}, {{96, 96}, {384, 384}}, NULL},
        {&shapes, {512, 768}, {512, 768}, 3, {1024, 1024}, {{43, 64}, {171, 256}}, NULL},
        {&shapes, {100, 150}, {100, 150}, 2, {256, 256}, {{43, 64}, {100, 150}}, NULL},
        {&shapes, {1000, 1500}, {0, 0}, 0, {0, 0}, {{0, 0}}, "nearest are 1024x1536 and 1024x1408"},
        {&shapes, {1024, 1544}, {0, 0}, 0, {0, 0}, {{0, 0}}, "nearest are 1024x1536 and 1024x1664"},
        {&shapes, {1024, 2176}, {0, 0}, 0, {0, 0}, {{0, 0}}, "nearest are 1024x2048 and"},
        {&shapes, {1664, 1536}, {0, 0}, 0, {0, 0}, {{0, 0}}, "nearest are 1536x1536 and"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct picture_used u = {0};
        struct fault why = {0};
        const enum err e = picture_choose(rows[i].of, &rows[i].asked, &u, &why);
        CHECK_INT(e, rows[i].stages ? ERR_OK : ERR_INVALID);
        if (e) {
            CHECK_STR(why.param, "size");
            CHECK_MSG(strstr(why.msg, rows[i].says) != NULL, "%s", why.msg);
            continue;
        }
        CHECK_INT(u.stages, rows[i].stages);
        CHECK(!memcmp(&u.drawn, &rows[i].drawn, sizeof u.drawn));
        CHECK(!memcmp(&u.size, &rows[i].size, sizeof u.size));
        for (int k = 0; k < 2 && k < u.stages; k++) {
            const struct check_size from = picture_stage_size(rows[i].of, &u, k);
            const struct check_size got = picture_fit_size(&u, &from);
            CHECK_MSG(!memcmp(&got, &rows[i].at[k], sizeof got), "row %zu: %dx%d", i, got.width,
                      got.height);
        }
    }
}

// Every listed size is generated as it is, and no size is listed twice.
static void listed(void)
{
    static const struct {
        struct picture_sizes of;
        int count;
    } rows[] = {{{3, {64, 256, 1024}, 0}, 3}, {{2, {48, 80}, 0}, 2}, // not a multiple
                {{1, {64}, 8}, 47},           {{3, {64, 256, 1024}, 8}, 3 * 47},
                {{2, {16, 64}, 8}, 2 * 6},    {{1, {8}, 8}, 3}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct picture_sizes *of = &rows[i].of;
        struct check_size size, other;
        int n = 0;
        for (; picture_native(of, n, &size); n++) {
            struct picture_used u = {0};
            CHECK_INT(picture_choose(of, &size, &u, NULL), ERR_OK);
            CHECK(!memcmp(&u.drawn, &size, sizeof size) && !memcmp(&u.size, &size, sizeof size));
            // Its stages all have the aspect ratio of the result.
            for (int k = 0; k < u.stages; k++) {
                const struct check_size at = picture_stage_size(of, &u, k);
                CHECK_INT(at.width * size.height, at.height * size.width);
                CHECK_INT(at.width * of->edge[u.stages - 1], size.width * of->edge[k]);
            }
            for (int k = 0; k < n && picture_native(of, k, &other); k++)
                CHECK(of->edge[of->stages - 1] != of->edge[0] ||
                      memcmp(&other, &size, sizeof size));
        }
        CHECK_INT(n, rows[i].count);
    }
}

// ---- scaling ----------------------------------------------------------------------------------

// How much of drawn pixel i lies within [from, to).
static double within(int i, double from, double to)
{
    return fmax(0, fmin(to, i + 1) - fmax(from, i));
}

// The middle of an image in another shape, every pixel the mean of the area that it covers.
static void scale_from(int width, int height)
{
    static const struct check_size to[] = {{8, 8}, {4, 4}, {8, 4}, {4, 8}, {2, 8}, {3, 8},
                                           {5, 5}, {3, 7}, {7, 3}, {1, 1}, {1, 5}, {6, 2}};
    uint8_t *rgb = pixels(width, height), out[3 * 64];

    for (size_t k = 0; k < sizeof to / sizeof *to; k++) {
        const int w = to[k].width, h = to[k].height;
        const double step = fmin((double)width / w, (double)height / h);
        const double left = (width - w * step) / 2, top = (height - h * step) / 2;
        if (step < 1)
            continue;
        picture_fit(rgb, &(struct check_size){width, height}, &to[k], out);
        for (int i = 0; i < 3 * w * h; i++) {
            const double x = left + i / 3 % w * step, y = top + i / 3 / w * step;
            double sum = 0;
            for (int row = 0; row < height; row++)
                for (int column = 0; column < width; column++)
                    sum += within(row, y, y + step) * within(column, x, x + step) *
                           rgb[3 * (row * width + column) + i % 3];
            // Rounded to the nearest, halves upwards.
            CHECK_MSG(out[i] == (int)floor(sum / (step * step) + .5 + 1e-9), "%dx%d, value %d", w,
                      h, i);
        }
    }
    free(rgb);
}

static void scaled(void)
{
    scale_from(8, 8);
    scale_from(12, 8);
    scale_from(8, 13);
}

// A file has the size that was asked for, not the one that was drawn.
static void encoded_size(void)
{
    static const int asked[][2] = {{8, 8}, {4, 4}, {3, 8}, {8, 3}};
    uint8_t *rgb = pixels(8, 8), fitted[3 * 64];

    for (size_t i = 0; i < sizeof asked / sizeof *asked; i++) {
        struct picture_used u = used;
        struct codec_params image = {.width = 8, .height = 8, .rgb = rgb};
        struct picture p = {0};
        struct buf png = {0};
        u.size = (struct check_size){asked[i][0], asked[i][1]};
        u.drawn = (struct check_size){8, 8};
        CHECK(!picture_encode(&image, &(struct picture_request){.prompt = "a"}, &u, &png, NULL));
        CHECK(open_png(&p, (const uint8_t *)png.data, png.len));
        CHECK(p.width == asked[i][0] && p.height == asked[i][1]);
        picture_fit(rgb, &u.drawn, &u.size, fitted);
        for (int y = 0; y < p.height; y++)
            CHECK(!memcmp(png_get_rows(p.png, p.info)[y], fitted + 3 * y * p.width,
                          3 * (size_t)p.width));
        // The size that was drawn is told where it is another one.
        CHECK(!strstr(text_of(&p, "parameters"), "Drawn size") == (i == 0));
        png_destroy_read_struct(&p.png, &p.info, NULL);
        buf_deinit(&png);
    }
    free(rgb);
}

// ---- words ------------------------------------------------------------------------------------

static void warnings(void)
{
    static const struct {
        struct picture_used u;
        const char *says[2];
    } rows_[] = {
        {{.tokens = 77}, {NULL, NULL}},
        {{.tokens = 77, .tokens_cut = 5},
         {"the prompt has 82 tokens, but the text encoder reads only the first 77; the other 5",
          NULL}},
        {{.tokens = 3, .negative_tokens = 70, .negative_tokens_cut = 9},
         {"the negative prompt has 79 tokens, but the text encoder reads only the first 70; the "
          "other 9",
          NULL}},
        {{.tokens = 77, .tokens_cut = 1, .negative_tokens = 77, .negative_tokens_cut = 2},
         {"the prompt has 78 tokens", "the negative prompt has 79 tokens"}},
        {{.tokens = 77, .tokens_cut = 1, .nearest = "cat or car"},
         {"the prompt has 78 tokens",
          "the model knows nothing that the prompt names, so it draws something else; it knows "
          "cat or car"}},
    };

    for (size_t i = 0; i < sizeof rows_ / sizeof *rows_; i++)
        for (int k = 0; k < 3; k++) {
            char text[PICTURE_WARNING];
            const char *says = k < 2 ? rows_[i].says[k] : NULL;
            const char *got = picture_warning(&rows_[i].u, k, text);
            CHECK_MSG(says ? got && !strncmp(got, says, strlen(says)) : !got, "row %zu: %s", i,
                      got ? got : "nothing");
        }
}

static void infotext(void)
{
    struct buf b = {0};
    const struct picture_request r = {.prompt = "a", .seed = 3};

    picture_infotext(&b, &r, &used, "DPM++ 2M Karras");
    CHECK(strstr(b.data, "Sampler: DPM++ 2M Karras, ") && !strstr(b.data, "ddpm"));
    buf_clear(&b);
    picture_infotext(&b, &r, &used, NULL);
    CHECK(strstr(b.data, "Sampler: ddpm, "));
    buf_deinit(&b);
}

// The metadata of an enlarged image names only stages that ran, at their places, and the factor of
// the file.
static void enlarged(void)
{
    static const struct {
        struct picture_used u;
        const char *infotext, *steps, *noise_level, *json;
    } rows_[] = {
        {{.size = {32, 24},
          .drawn = {32, 24},
          .stages = 2,
          .scale = 4,
          .first = 1,
          .steps = {0, 5},
          .guidance_scale = {0, 1.5F},
          .noise_level = {-1, 100}},
         "\nSteps: 5, CFG scale: 1.5, Seed: 3, Size: 32x24, Model: m, Stage steps: \"[null,5]\", "
         "Stage CFG scale: \"[null,1.5]\", Upscale by: 4, Version: ",
         "[null,5]",
         "100",
         "\"sampler\":null,\"timesteps\":null,\"steps\":[null,5],\"guidance_scale\":[null,1.5],"
         "\"noise_level\":[-1,100],\"strength\":null,\"loras\":null,\"scale\":4,"},
        {{.size = {24, 18},
          .drawn = {32, 24},
          .stages = 3,
          .scale = 4,
          .first = 2,
          .steps = {0, 0, 5},
          .guidance_scale = {0, 0, 1},
          .noise_level = {-1, -1, 0}},
         "\nSteps: 5, CFG scale: 1, Seed: 3, Size: 24x18, Model: m, Stage steps: "
         "\"[null,null,5]\", Stage CFG scale: \"[null,null,1]\", Upscale by: 3, Drawn size: ",
         "[null,null,5]",
         "[-1,-1,0]",
         "\"noise_level\":[-1,-1,0]"},
        {{.size = {100, 10},
          .drawn = {128, 96},
          .stages = 3,
          .scale = 16,
          .first = 1,
          .steps = {0, 6, 5},
          .guidance_scale = {0, 2, 1},
          .noise_level = {-1, 7, 8}},
         "\nSteps: 6, CFG scale: 2, Seed: 3, Size: 100x10, Model: m, Stage steps: "
         "\"[null,6,5]\", Stage CFG scale: \"[null,2,1]\", Upscale by: 12.5, Drawn size: ",
         "[null,6,5]",
         "7,8",
         "\"steps\":[null,6,5]"},
    };
    for (size_t i = 0; i < sizeof rows_ / sizeof *rows_; i++) {
        const struct picture_request r = {.prompt = "a", .seed = 3, .scale = rows_[i].u.scale};
        struct picture_used u = rows_[i].u;
        uint8_t *rgb = pixels(u.drawn.width, u.drawn.height);
        struct codec_params image = {.width = u.drawn.width, .height = u.drawn.height, .rgb = rgb};
        struct picture p = {0};
        struct buf png = {0}, json = {0};
        strcpy(u.model, "m");
        picture_json(&json, &r, &u);
        CHECK_MSG(strstr(json.data, rows_[i].json) != NULL, "%s", json.data);
        CHECK(!picture_encode(&image, &r, &u, &png, NULL));
        CHECK(open_png(&p, (const uint8_t *)png.data, png.len));
        const char *parameters = text_of(&p, "parameters");
        CHECK_MSG(strstr(parameters, rows_[i].infotext) != NULL, "%s", parameters);
        CHECK_STR(text_of(&p, "steps"), rows_[i].steps);
        CHECK_STR(text_of(&p, "noise_level"), rows_[i].noise_level);
        CHECK(!text_of(&p, "sampler"));
        png_destroy_read_struct(&p.png, &p.info, NULL);
        buf_deinit(&png);
        buf_deinit(&json);
        free(rgb);
    }
}

// A1111's own rules, as its parser applies them.
static void infotext_fields(void)
{
    static const struct {
        const char *text, *json;
    } rows_[] = {
        {"", "{'Prompt':'','Negative prompt':''}"},
        {"a cat", "{'Prompt':'a cat','Negative prompt':''}"},
        {" a cat,\n on a mat \nNegative prompt: dog\n mouse\nSteps: 20, Sampler: Euler a, Seed: 9, "
         "Size: 512x768, Model hash: 45dee52b\n",
         "{'Prompt':'a cat,\\non a mat','Negative prompt':'dog\\nmouse','Steps':'20',"
         "'Sampler':'Euler a','Seed':'9','Size-1':'512','Size-2':'768','Model hash':'45dee52b'}"},
        // Fewer than three settings are none.
        {"a\nSteps: 20, Seed: 1", "{'Prompt':'a\\nSteps: 20, Seed: 1','Negative prompt':''}"},
        {"a\nNegative prompt: Steps: 1, Seed: 2\nab: 1, cd: 2, ef: 3",
         "{'Prompt':'a','Negative prompt':'Steps: 1, Seed: 2','ab':'1','cd':'2','ef':'3'}"},
        {"ab: 1, cd: 2, ef: 3", "{'Prompt':'','Negative prompt':'','ab':'1','cd':'2','ef':'3'}"},
        // Values in quotes, also wrong ones.
        {"ab: \"1, \\\"2\\\"\", cd: \"3\" 4, ef: \"5, gh: \"\\q\"",
         "{'Prompt':'','Negative prompt':'','ab':'1, \\\"2\\\"','cd':'\\\"3\\\" 4',"
         "'ef':'\\\"5','gh':'\\\"\\\\q\\\"'}"},
        // Keys of one character, empty values, sizes that are none.
        {"a: 1, ab:, (Model-x/y: 2, Size: 3x, size: x4, s z: 3x4x5, 12: 34",
         "{'Prompt':'','Negative prompt':'','Model-x/y':'2','Size':'3x','size':'x4','s z':'3x4x5',"
         "'12':'34'}"},
        // The last of a name counts.
        {"ab: 1, Size: 3x4, ab: 2, Size-2: 5, Prompt: p",
         "{'Negative prompt':'','Size-1':'3','ab':'2','Size-2':'5','Prompt':'p'}"},
    };
    for (size_t i = 0; i < sizeof rows_ / sizeof *rows_; i++) {
        struct buf b = {0};
        char want[512] = "";
        for (const char *s = rows_[i].json; *s; s++)
            want[s - rows_[i].json] = *s == '\'' ? '"' : *s;
        picture_infotext_fields(&b, rows_[i].text);
        CHECK_STR(b.data, want);
        buf_deinit(&b);
    }
}

// The fields written by picture_encode in any format are read back unchanged.
static void file_info(void)
{
    static const uint8_t rgb[64 * 64 * 3];
    const struct picture_request r = {
        .prompt = "a \xe2\x82\xac", .negative_prompt = "b", .seed = 3};
    for (int format = 0; format < CODEC_FORMATS; format++) {
        const struct codec_params p = {.format = (enum codec_format)format,
                                       .quality = 90,
                                       .width = 64,
                                       .height = 64,
                                       .rgb = rgb};
        struct picture_used u = used;
        struct buf file = {0}, b = {0}, text = {0}, json = {0};
        struct fault why = {0};
        u.stages = 1;
        u.size = u.drawn = (struct check_size){64, 64};
        CHECK_MSG(!picture_encode(&p, &r, &u, &file, &why), "%s", why.msg);
        CHECK_MSG(!picture_file_info(file.data, file.len, &b, &why), "%s", why.msg);
        picture_infotext(&text, &r, &u, NULL);
        buf_puts(&json, "\"info\":");
        text_json(&json, text.data);
        CHECK_MSG(!strncmp(b.data, json.data, json.len), "%s", b.data);
        CHECK(strstr(b.data,
                     "\"parameters\":{\"Prompt\":\"a \xe2\x82\xac\",\"Negative prompt\":\"b\","));
        CHECK(strstr(b.data, "\"Seed\":\"3\",\"Size-1\":\"64\",\"Size-2\":\"64\","));
        CHECK_INT(strstr(b.data, "\"items\":{}") != NULL, format != CODEC_PNG);
        buf_deinit(&file);
        buf_deinit(&b);
        buf_deinit(&text);
        buf_deinit(&json);
    }
    CHECK_INT(picture_file_info("hello", 5, &(struct buf){0}, &(struct fault){0}), ERR_INVALID);
}

// ---- fields -----------------------------------------------------------------------------------

static void fields(void)
{
    static const struct {
        const char *name, *value;
        bool ok;
    } rows_[] = {
        {"steps", "1", true},
        {"steps", "1000,1000,1000", true},
        {"steps", "0", false},
        {"steps", "1001", false},
        {"noise_level", "-1", true},
        {"noise_level", "999", true},
        {"noise_level", "-2", false},
        {"noise_level", "1000", false},
        {"guidance_scale", "0", true},
        {"guidance_scale", "100", true},
        {"guidance_scale", "0.5", false},
        {"guidance_scale", "100.5", false},
        {"picture", "0", true},
        {"picture", "1073741824", true},
        {"picture", "-1", false},
        {"picture", "1073741825", false},
        {"size", "65536", true},
        {"size", "65537", false},
        {"prompt", "", false},
        {"negative_prompt", "", true},
        {"preset", "", false},
        {"sampler", "", false},
    };
    struct picture_request r = {0}, at;
    struct buf copied = {0}, own = {0};

    for (size_t i = 0; i < sizeof rows_ / sizeof *rows_; i++)
        CHECK_MSG(!check_query(&picture_table, rows_[i].name, rows_[i].value, &r, NULL) ==
                      rows_[i].ok,
                  "%s = %s", rows_[i].name, rows_[i].value);
    check_defaults(&picture_table, &r);
    CHECK(r.set_noise_level && r.noise_level[0] == -1 && r.noise_level[2] == -1 && !r.picture);
    CHECK(!check_query(&picture_table, "guidance_scale", "0,7", &r, NULL));
    CHECK(r.guidance_scale[0] == 1 && r.guidance_scale[1] == 7); // 0 switches guidance off
    r.picture = 4;
    at = picture_at(&r, 3);
    CHECK(at.picture == 7 && r.picture == 4 && at.seed == r.seed);
    at.picture = r.picture;
    check_write(&picture_table, &at, &copied);
    check_write(&picture_table, &r, &own);
    CHECK_STR(copied.data, own.data);
    buf_deinit(&copied);
    buf_deinit(&own);
}

// The LoRAs of an image among those of a model: its own choice, or the model's.
static void loras(void)
{
    static const struct model_lora known[] = {
        {"a", 0.5, 0, true}, {"b", 2, 1, false}, {"twice", 1, 0, true}, {"twice", 1, 1, false}};
    static const struct {
        const char *named, *list; // named NULL: none; list NULL: refused
        int first, stages;
    } rows[] = {
        {NULL, "a:0.5, twice:1", 0, 2},
        {"", "", 0, 2},
        {"b", "b:2", 0, 2},
        {"b,a:0.1", "b:2, a:0.1", 0, 2},
        {"b,a:0.1", "a:0.1", 0, 1},
        {"b,a:0.1", "b:2", 1, 2},
        {"c", NULL, 0, 2},
        {"a,twice", NULL, 0, 2},
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct picture_request r = {.prompt = ""};
        struct picture_used u = {.first = rows[i].first, .stages = rows[i].stages};
        struct picture_loras chosen;
        struct fault why = {0};
        if (rows[i].named)
            CHECK(!check_query(&picture_table, "loras", rows[i].named, &r, NULL));
        const enum err e = picture_choose_loras(known, 4, &r.loras, &chosen, &why);
        CHECK_INT(e, rows[i].list ? ERR_OK : ERR_INVALID);
        if (e) {
            CHECK_STR(why.param, "loras");
            continue;
        }
        picture_list_loras(known, &chosen, &u);
        CHECK_STR(u.loras, rows[i].list);
    }
}

int main(void)
{
    loras();
    scaled();
    encoded_size();
    warnings();
    infotext();
    enlarged();
    infotext_fields();
    file_info();
    fields();
    sizes();
    listed();
    read_back();
    least();
    refused();
    return test_end();
}
