// See studio.h.
#include "studio.h"

#include "test.h"
#include "text.h"
#include "weights.h"

#include <limits.h>
#include <stdlib.h>

// ---- noise, from the paper and the convention in rng.h -----------------------------------------

static void philox(uint32_t c[4], uint32_t k0, uint32_t k1)
{
    for (int round = 0; round < 10; round++) {
        const uint64_t a = UINT64_C(0xD2511F53) * c[0], b = UINT64_C(0xCD9E8D57) * c[2];
        const uint32_t next[4] = {(uint32_t)(b >> 32) ^ c[1] ^ k0, (uint32_t)b,
                                  (uint32_t)(a >> 32) ^ c[3] ^ k1, (uint32_t)a};
        memcpy(c, next, sizeof next);
        k0 += UINT32_C(0x9E3779B9);
        k1 += UINT32_C(0xBB67AE85);
    }
}

// Counter (element / 4, step, stage, image), key the seed; first noise and augmentation noise count
// as the steps 2^31 - 1 and 2^31 - 2. Elements are [height, width, 3].
static void give(void *ctx, int entry, enum stage_noise kind, int step, float *z)
{
    const struct drawing *d = ctx;
    const uint32_t when = kind == STAGE_NOISE_INIT      ? 0x7fffffff
                          : kind == STAGE_NOISE_AUGMENT ? 0x7ffffffe
                                                        : (uint32_t)step;
    CHECK_INT(entry, 0);
    for (uint32_t i = 0; i < 3 * (uint32_t)d->pixels; i++) {
        uint32_t c[4] = {i / 4, when, d->stage, d->picture};
        philox(c, (uint32_t)d->seed, (uint32_t)(d->seed >> 32));
        const double radius = sqrt(-2 * log((c[i & 2] + 1.) / 4294967296.));
        const double angle = 6.283185307179586 * c[(i & 2) + 1] / 4294967296.;
        z[i] = (float)(radius * (i & 1 ? sin(angle) : cos(angle)));
    }
}

// ---- drawing without the engine ---------------------------------------------------------------

static void path_of(const struct studio *s, const char *network, const char *file, char out[512])
{
    snprintf(out, 512, "%s/%s/%s", s->folder, network, file);
}

struct text *studio_text(struct studio *s)
{
    struct text *text = NULL;
    struct text_encoder_config config;
    struct fault why = {0};
    char encoder[512], tokenizer[512], file[512];

    path_of(s, "base", "text_encoder", encoder);
    path_of(s, "base", "tokenizer", tokenizer);
    path_of(s, "base", "text_encoder/config.json", file);
    CHECK_MSG(!text_encoder_read("T5EncoderModel", file, &config, &why), "%s", why.msg);
    CHECK_MSG(!text_open(&(struct text_params){.dev = s->dev,
                                               .tokenizer_dir = tokenizer,
                                               .weights = &(struct weights_params){.dir = encoder,
                                                                                   .base = "model"},
                                               .config = &config,
                                               .dtype = DT_F32,
                                               .cached = 2},
                         &text, &why),
              "%s", why.msg);
    return text;
}

float *studio_encode(struct studio *s, const char *prompt)
{
    struct text *text = studio_text(s);
    struct text_states states = {0};
    struct fault why = {0};
    float *out = NULL;

    if (text && !text_encode(text, prompt, &states, &why)) {
        const size_t bytes = sizeof(float) * (size_t)text_length(text) * (size_t)text_dim(text);
        out = malloc(bytes);
        memcpy(out, states.v, bytes);
    }
    CHECK(out != NULL);
    text_close(&text);
    return out;
}

static void load(struct studio *s, const char *name, bool super, struct network_files *n)
{
    struct weights *w = NULL;
    struct fault why = {0};
    char file[512];

    memset(n, 0, sizeof *n);
    path_of(s, name, "unet/config.json", file);
    CHECK_MSG(!denoiser_read("UNet2DConditionModel", file, &n->config, &why), "%s", why.msg);
    path_of(s, name, "scheduler/scheduler_config.json", file);
    CHECK_MSG(!hfconfig_scheduler_read(file, &n->scheduler, &why), "%s", why.msg);
    path_of(s, name, "image_noising_scheduler/scheduler_config.json", file);
    if (super)
        CHECK_MSG(!hfconfig_scheduler_read(file, &n->noising, &why), "%s", why.msg);
    path_of(s, name, "unet", file);
    CHECK_MSG(
        !weights_open(&(struct weights_params){.dir = file, .base = "diffusion_pytorch_model"}, &w,
                      &why),
        "%s", why.msg);
    if (w)
        CHECK_MSG(!denoiser_load(s->dev, &n->config, w, DT_F32, &n->denoiser, &why), "%s", why.msg);
    weights_close(&w);
}

void studio_open(struct studio *s, const struct how *how, struct drawing *d, const float *low,
                 const float *text, const float *negative, struct easel *e)
{
    const uint32_t low_width = d->base.width ? (uint32_t)d->base.width : BASE;
    const uint32_t low_height = d->base.height ? (uint32_t)d->base.height : BASE;
    const uint32_t factor = d->stage ? SIZE / BASE : 1;
    struct sampler *sampler = NULL;
    struct fault why = {0};

    memset(e, 0, sizeof *e);
    load(s, how->network, d->stage > 0, &e->n);
    d->pixels = (int)(low_width * low_height * factor * factor);
    const struct sampler_params sampling = {.config = &e->n.scheduler,
                                            .name = how->sampler,
                                            .steps = how->steps,
                                            .preset = how->named,
                                            .timesteps = how->timesteps,
                                            .timestep_count = how->timesteps ? how->steps : 0};
    CHECK_MSG(!sampler_create(&sampling, &sampler, &why), "%s", why.msg);
    const struct stage_params params = {.dev = s->dev,
                                        .denoiser = e->n.denoiser,
                                        .dtype = DT_F32,
                                        .noising = d->stage ? &e->n.noising : NULL,
                                        .height = low_height * factor,
                                        .width = low_width * factor,
                                        .low_height = d->stage ? low_height : 0,
                                        .low_width = d->stage ? low_width : 0,
                                        .entries = 1,
                                        .text_length = LENGTH,
                                        .text_dim = (uint32_t)e->n.config.text_width,
                                        .noise = give,
                                        .noise_ctx = d};
    CHECK(!stage_create(&params, &e->stage));
    e->steps = sampler ? sampler->steps : 0;
    const struct stage_start start = {
        .sampler = sampler,
        .text = text,
        .negative = how->guidance == 1 ? NULL : negative,
        .guidance = how->guidance,
        .guidance_interval = {how->interval[0], how->interval[1]},
        .low = low,
        .noise_level = how->noise_level,
    };
    CHECK_MSG(!stage_enter(e->stage, &start, &e->entry, &why), "%s", why.msg);
}

void studio_close(struct easel *e)
{
    stage_destroy(&e->stage);
    denoiser_destroy(&e->n.denoiser);
}

struct how studio_complete(struct how how, bool super)
{
    how.network = how.network ? how.network : super ? "sr" : "base";
    how.sampler = how.sampler || super ? how.sampler : "ddpm";
    how.steps = how.steps ? how.steps : super ? 3 : 4;
    how.guidance = how.guidance != 0 ? how.guidance : super ? 1 : 3;
    how.interval[1] = how.interval[1] ? how.interval[1] : INT_MAX;
    how.noise_level = how.noise_level ? how.noise_level : 100;
    return how;
}

int studio_draw(struct studio *s, const struct picture_request *r, const struct how *hows,
                uint8_t *rgb)
{
    float *text = studio_encode(s, r->prompt);
    float *negative = studio_encode(s, r->negative_prompt ? r->negative_prompt : "");
    static float small[3 * BASE * BASE], large[RGB];
    int edge = 0;

    const uint32_t stages = r->size.width == BASE ? 1 : STAGES;
    for (uint32_t i = 0; i < stages; i++) {
        const struct how how = studio_complete(hows[i], i > 0);
        struct drawing d = {.seed = r->seed, .picture = r->picture, .stage = i};
        struct easel e;
        const uint8_t *view;
        edge = i ? SIZE : BASE;
        studio_open(s, &how, &d, i ? small : NULL, text, negative, &e);
        for (int k = 0; k < e.steps; k++)
            CHECK(!stage_step(e.stage, &e.entry, 1));
        CHECK(!stage_picture(e.stage, e.entry, i ? large : small));
        CHECK(!stage_rgb(e.stage, e.entry, &view));
        memcpy(rgb, view, (size_t)(3 * edge * edge));
        studio_close(&e);
    }
    free(text);
    free(negative);
    return edge;
}

// ---- drawing with the engine ------------------------------------------------------------------

void studio_event(void *ctx, const struct engine_event *ev)
{
    struct result *r = ev->tag ? ev->tag : ctx;

    r->failed += ev->type == ENGINE_FAILED;
    if (ev->type != ENGINE_DONE)
        return;
    r->done++;
    r->edge = ev->image.width;
    CHECK(ev->image.width <= SIZE && ev->image.height == ev->image.width);
    memcpy(r->rgb, ev->image.rgb, (size_t)(3 * r->edge * r->edge));
}

void studio_draw_with(struct engine *g, const struct picture_request *request, struct result *out)
{
    struct fault why = {0};
    int slot;

    memset(out, 0, sizeof *out);
    CHECK_MSG(!engine_admit(g, request, out, &slot, &why), "%s", why.msg);
    for (int i = 0; i < 100 && engine_busy(g); i++)
        CHECK_MSG(!engine_step(g, studio_event, out, &why), "%s", why.msg);
    CHECK(out->done == 1 && !out->failed);
}
