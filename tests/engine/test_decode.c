// Decoding of latents in bands: a large image is what decoding it at once makes of it, without
// seams, in less memory; and bad latents are an error.
#include "decode.h"
#include "test.h"

#include <math.h>
#include <stdlib.h>

enum { C = 4, F = 4, RGB = 3, HEIGHT = 72, WIDTH = 24 };

// Measured with random weights: 8e-6, the rounding of f32. A step of 8 bits is 0.0078.
static const double most_off = 2e-5;

struct rig {
    struct ops_device *dev;
    struct decoder *decoder;
};

static enum err open_rig(struct rig *r)
{
    struct decoder_config config;
    struct weights *w = NULL;
    struct fault why = {0};
    // Not tuned: measuring takes memory that is not the decoder's.
    enum err e =
        ops_device_open(&(struct ops_open_params){.dtype = "f32", .tune = "off"}, &r->dev, &why);

    if (e)
        return e;
    CHECK_MSG(!decoder_read("AutoencoderKL", GOLDEN "/x4-tiny/vae/config.json", &config, &why),
              "%s", why.msg);
    CHECK_MSG(!weights_open(&(struct weights_params){.dir = GOLDEN "/x4-tiny/vae",
                                                     .base = "diffusion_pytorch_model"},
                            &w, &why),
              "%s", why.msg);
    CHECK_MSG(!decoder_load(r->dev, &config, w, DT_F32, &r->decoder, &why), "%s", why.msg);
    weights_close(&w);
    return ERR_OK;
}

static void close_rig(struct rig *r)
{
    decoder_destroy(&r->decoder);
    ops_device_close(&r->dev);
}

// Latents of a smooth image with some noise; bad: one of them is not finite.
static enum err put_latents(const struct rig *r, bool bad, struct tensor *out)
{
    float *z = malloc(sizeof(float) * C * HEIGHT * WIDTH);
    uint64_t state = 7;
    enum err e = tensor_create(r->dev, DT_F32, 1, HEIGHT, WIDTH, C, out);

    for (int i = 0; z && i < HEIGHT * WIDTH * C; i++) {
        const float y = (float)(i / C / WIDTH), x = (float)(i / C % WIDTH), c = (float)(i % C);
        state = state * 6364136223846793005u + 1442695040888963407u;
        const float noise = (float)(state >> 40) / (float)(1 << 24) - 0.5F;
        z[i] = r->decoder->config.scaling *
               (sinf(0.06F * y + c) + cosf(0.04F * x - 2 * c) + 0.02F * y + noise);
    }
    if (z && bad)
        z[5 * WIDTH * C] = NAN;
    e = e ? e : z ? tensor_upload(out, z) : ERR_NO_MEMORY;
    free(z);
    return e;
}

// The image of these latents, in bands of `band` bytes or, at 0, at once; and the device's peak
// memory.
struct decoded {
    enum err e;
    float *image;
    uint8_t *rgb;
    int bands;
    size_t peak;
};

static struct decoded decode(size_t band, bool bad)
{
    const size_t values = (size_t)RGB * F * F * HEIGHT * WIDTH;
    struct decoded out = {.image = malloc(values * sizeof *out.image), .rgb = malloc(values)};
    struct tensor z = {0};
    struct decode *d = NULL;
    struct rig r = {0};
    struct ops_memory m;
    const uint8_t *rgb;

    CHECK(!open_rig(&r) && !put_latents(&r, bad, &z));
    CHECK(!decode_create(&(struct decode_params){.dev = r.dev,
                                                 .decoder = r.decoder,
                                                 .height = HEIGHT,
                                                 .width = WIDTH,
                                                 .most = band > 0,
                                                 .band = band},
                         &d));
    out.e = decode_run(d, &z, out.image);
    out.bands = decode_bands(d);
    if (!out.e) {
        // An image leaves nothing behind for the next.
        CHECK(!decode_rgb(d, &z, &rgb));
        CHECK_INT(decode_bands(d), out.bands);
        memcpy(out.rgb, rgb, values);
    }
    ops_device_memory(r.dev, &m);
    out.peak = m.peak;
    decode_destroy(&d);
    tensor_destroy(&z);
    close_rig(&r);
    return out;
}

// Bands of all rows, of the fewest, and such that the first segment, on 24 channels, has two of the
// same shape, of which one reaches upwards and one downwards.
static void check_bands(void)
{
    const size_t halves = sizeof(float) * 24 * WIDTH * (HEIGHT / 2 + 2);
    const size_t sizes[] = {1 << 26, halves, 1};
    const int width = WIDTH * F, height = HEIGHT * F;
    struct decoded whole = decode(0, false);
    size_t peak = SIZE_MAX;
    int least = 1;

    CHECK(!whole.e && whole.bands == 0);
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        struct decoded bands = decode(sizes[k], false);
        double most = 0;
        CHECK(!bands.e);
        CHECK_MSG(bands.bands >= least, "%d bands of %zu bytes", bands.bands, sizes[k]);
        least = 2 * bands.bands;
        for (int i = 0; i < RGB * width * height; i++) {
            const double off = fabs((double)bands.image[i] - (double)whole.image[i]);
            const double v = fmin(fmax((double)bands.image[i] * 0.5 + 0.5, 0), 1) * 255;
            most = fmax(most, off);
            CHECK(fabs((double)bands.rgb[i] - v) < 0.501);
        }
        CHECK_MSG(most <= most_off, "%g at most, %d bands", most, bands.bands);
        CHECK_MSG(bands.peak <= peak, "%zu bytes, %zu before", bands.peak, peak);
        peak = bands.peak;
        free(bands.image);
        free(bands.rgb);
    }
    CHECK_MSG(peak * 3 < whole.peak * 2, "%zu and %zu bytes", peak, whole.peak);
    free(whole.image);
    free(whole.rgb);
}

static void check_bad(void)
{
    for (int i = 0; i < 2; i++) {
        struct decoded d = decode(i ? 1 << 18 : 0, true);
        CHECK_INT(d.e, ERR_NOT_FINITE);
        free(d.image);
        free(d.rgb);
    }
}

int main(void)
{
    struct rig r = {0};

    if (open_rig(&r) == ERR_NO_DEVICE)
        return test_skip("no Vulkan device");
    close_rig(&r);
    check_bands();
    check_bad();
    return test_end();
}
