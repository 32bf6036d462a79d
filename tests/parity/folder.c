// Loads the pipeline folder of recorded calls. Called by check_pipeline.c.
#include "pipeline.h"

#include <stdio.h>
#include <string.h>

static bool read_configs(struct bundle *b, struct folder *f)
{
    char path[GOLDEN_PATH];
    struct fault why = {0};
    enum err e;

    golden_path(b->g, f->name, "model_index.json", path);
    e = hfconfig_index_read(path, &f->index, &why);
    golden_path(b->g, f->name, "unet/config.json", path);
    if (!e)
        e = denoiser_read(f->index.unet, path, &f->denoiser_config, &why);
    golden_path(b->g, f->name, "vae/config.json", path);
    if (!e && f->index.vae)
        e = decoder_read(f->index.vae, path, &f->decoder_config, &why);
    golden_path(b->g, f->name, "scheduler/scheduler_config.json", path);
    if (!e)
        e = hfconfig_scheduler_read(path, &f->scheduler, &why);
    golden_path(b->g, f->name,
                f->index.pipeline == PIPELINE_UPSCALE
                    ? "low_res_scheduler/scheduler_config.json"
                    : "image_noising_scheduler/scheduler_config.json",
                path);
    if (!e && is_super(f))
        e = hfconfig_scheduler_read(path, &f->noising, &why);
    if (e)
        golden_fail(b->g, b->name, "configs", "%s", why.msg);
    return !e;
}

// Super-resolution folders have no text encoder: the first IFPipeline folder's is theirs.
static bool find_text(struct bundle *b, struct folder *f)
{
    const struct json_t *dirs = json_find(b->g->manifest, "directories"), *value;
    const char *dir;
    void *at = NULL;

    if (f->index.text_encoder) {
        golden_path(b->g, f->name, "", f->text_dir);
        return true;
    }
    while (json_next(dirs, &at, &dir, &value)) {
        struct hfconfig_index index;
        char path[GOLDEN_PATH];
        snprintf(f->text_dir, sizeof f->text_dir, "%s/%s", b->g->root, dir);
        snprintf(path, sizeof path, "%.900s/model_index.json", f->text_dir);
        if (!hfconfig_index_read(path, &index, NULL) && index.pipeline == PIPELINE_IF &&
            index.text_encoder)
            return true;
    }
    golden_fail(b->g, b->name, "text encoder", "no folder has one");
    return false;
}

bool folder_load(struct bundle *b, const struct json_t *fixture, struct folder *f)
{
    const char *model = json_text(json_find(fixture, "model"), NULL);
    char encoder[GOLDEN_PATH + 32], tokenizer[GOLDEN_PATH + 32], path[GOLDEN_PATH + 64];
    struct weights *w = NULL;
    struct fault why = {0};
    enum err e;

    snprintf(f->name, sizeof f->name, "%s%s", model ? model : b->name, model ? "/" : "");
    if (!read_configs(b, f) || !find_text(b, f))
        return false;
    snprintf(encoder, sizeof encoder, "%s/text_encoder", f->text_dir);
    snprintf(tokenizer, sizeof tokenizer, "%s/tokenizer", f->text_dir);
    snprintf(path, sizeof path, "%s/config.json", encoder);
    e = text_encoder_read(f->index.text_encoder ? f->index.text_encoder : "T5EncoderModel", path,
                          &f->encoder, &why);
    if (!e)
        e = text_open(
            &(struct text_params){
                .dev = b->g->dev,
                .tokenizer_dir = tokenizer,
                .weights = &(struct weights_params){.dir = encoder, .base = "model"},
                .config = &f->encoder,
                .dtype = b->g->dtype,
                .cached = 8,
            },
            &f->text, &why);
    golden_path(b->g, f->name, "unet", path);
    if (!e)
        e = weights_open(&(struct weights_params){.dir = path, .base = "diffusion_pytorch_model"},
                         &w, &why);
    if (!e)
        e = denoiser_load(b->g->dev, &f->denoiser_config, w, b->g->dtype, &f->denoiser, &why);
    weights_close(&w);
    golden_path(b->g, f->name, "vae", path);
    if (!e && f->decoder_config.cls)
        e = weights_open(&(struct weights_params){.dir = path, .base = "diffusion_pytorch_model"},
                         &w, &why);
    if (!e && f->decoder_config.cls)
        e = decoder_load(b->g->dev, &f->decoder_config, w, b->g->dtype, &f->decoder, &why);
    weights_close(&w);
    if (e)
        golden_fail(b->g, b->name, "load", "%s", why.msg);
    return !e;
}

void folder_deinit(struct folder *f)
{
    denoiser_destroy(&f->denoiser);
    decoder_destroy(&f->decoder);
    text_close(&f->text);
}
