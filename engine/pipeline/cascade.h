// The description of a model: the folders of a cascade's networks, their config files, and the
// recommended sampling settings, as the cascade's defaults and as named presets. Reads configs
// only, no weights. Called by the engine and by `imagend inspect`. Thread: any; a cascade is plain
// data, but for its vocabulary.
#ifndef IMAGEND_CASCADE_H
#define IMAGEND_CASCADE_H

#include "decoder.h"
#include "denoiser.h"
#include "engine_params.h"
#include "hfconfig.h"
#include "picture.h"
#include "samplers.h"
#include "scheduler_config.h"
#include "text_encoder.h"
#include "weights.h"

enum {
    CASCADE_MAX_STAGES = 3,
    CASCADE_MAX_NETWORKS = 12,
    CASCADE_MAX_TEXTS = CASCADE_MAX_NETWORKS + 1, // IF's, and one of each upscaler
    CASCADE_MAX_PRESETS = 9,                      // including the cascade's default settings
    CASCADE_MAX_TIMESTEPS = 100,                  // entries of a recommended list
    CASCADE_PATH = 1024,
};

// A text encoder with its tokenizer.
struct cascade_text {
    char dir[CASCADE_PATH]; // or a GGUF file; "": none
    char tokenizer_dir[CASCADE_PATH];
    struct text_encoder_config config;
    bool gguf;  // dir is a file
    bool plain; // as cascade_network.plain
};

// A denoiser with its schedulers and, if it works on latents, its decoder: a diffusers pipeline
// folder.
struct cascade_network {
    char dir[CASCADE_PATH];
    char name[64];
    int stage; // the stage that it generates
    int text;  // index into cascade.text
    enum hfconfig_pipeline pipeline;
    struct denoiser_config denoiser;
    struct decoder_config decoder;              // cls NULL: the state is the image
    struct scheduler_config scheduler, noising; // noising: super-resolution stages only
    bool super_resolution;
    int max_noise_level;              // super-resolution stages
    bool variance;                    // the denoiser predicts a variance
    bool plain;                       // the weights have no files of cascade.variant
    bool decoder_plain;               // likewise, of the decoder
    bool safety_checker, watermarker; // listed in the folder; not run
};

// How to sample one stage.
struct cascade_settings {
    int network;      // index into cascade.network
    char sampler[32]; // "": that of the scheduler config
    int steps;
    int timestep_count; // equals steps if there is a list of timesteps, else 0
    int timesteps[CASCADE_MAX_TIMESTEPS];
    float guidance_scale;
    int guidance_interval[2]; // first and last timestep with guidance; the others run without it
    int noise_level;          // -1 for a base stage
};

struct cascade_preset {
    char name[32];
    struct cascade_settings stage[CASCADE_MAX_STAGES];
};

// The LoRAs that are added to the weights of one stage's networks, in this order; see loras.h.
struct cascade_loras {
    int count;
    struct lora_params lora[WEIGHTS_MAX_LORAS]; // paths in the cascade
};

struct cascade {
    char name[64];
    // The first is that of IF's stages, which take the same text states; an upscaler has its own.
    int texts;
    struct cascade_text text[CASCADE_MAX_TEXTS];
    char variant[32];  // requested variant of the weight files; "": none
    char notice[256];  // a notice for the user about the selected files; "": none
    bool noised_edits; // kept pixels of an edit are noised like the others; else clean, as in
                       // diffusers
    int stages;
    int size[CASCADE_MAX_STAGES]; // edge of each stage's square image in pixels
    bool square;                  // the networks were trained for squares only
    // The sides of the base stage's image may be multiples of this, see picture_sizes; 0: squares.
    int shape_step;
    int networks; // the stages' own networks come first, in order
    struct cascade_network network[CASCADE_MAX_NETWORKS];
    // The known ones; each fits all networks of its stage.
    int loras;
    struct model_lora lora[PICTURE_KNOWN_LORAS];
    char lora_path[PICTURE_KNOWN_LORAS][CASCADE_PATH];
    struct cascade_loras applied[CASCADE_MAX_STAGES]; // unless a request names others
    int presets; // the first is the cascade's default settings, named ""
    struct cascade_preset preset[CASCADE_MAX_PRESETS];
    const struct vocabulary *vocabulary; // NULL: none
};

struct cascade_files {
    const char *model;
    const char *variant;      // of the weight files, or NULL
    const char *text_encoder; // a GGUF file instead of the model's text encoder, or NULL
    const char *lora;         // FILE[:SCALE], several separated by ','; NULL: none
    const char *lora_choices; // likewise, applied only to images whose request names them
    const char *name;         // instead of the model's own name; NULL: none
};

// model: a folder with a cascade.json, a pipeline folder (model_index.json), or pipeline folders in
// stage order separated by ','. Components without files of the variant use their plain files, and
// notice says so. With a GGUF text encoder, the model needs no text_encoder folder, and without a
// tokenizer folder the file's own tokenizer is used. Errors: NOT_FOUND, FORMAT, UNSUPPORTED,
// INVALID with *why filled.
//
// cascade.json: {"name": "...", "stages": [{"path": "base", "size": 64, "sampler": "dpm++2m",
// "steps": 20, "guidance_scale": 3.0, "guidance_interval": [250, 750]}, {"path": "sr256",
// "timesteps": [999, 500, 9], "noise_level": 100}], "presets": {"fast": {"stages": [{"path":
// "base-fast", "steps": 6}, {}]}}};
// "kept_pixels": "noised" gives the kept pixels of an edit the same noise as the others in every
// step, which suits models with few steps; the default is "clean", as in diffusers' IF pipelines.
// "shapes": "any" lets the networks generate other shapes than squares, see picture_sizes; the
// default is "square". Pipeline folders without a cascade.json generate any shape.
// path is relative to the file; all other keys are recommendations and optional. timesteps replaces
// steps: a strictly decreasing list, for samplers that support one; a request with another number
// of steps or another sampler ignores it. A preset lists, for each stage, the settings that differ
// from the cascade's defaults; a path in it selects another network with its own scheduler.
// Source of the interval: Kynkaanniemi et al., Applying Guidance in a Limited Interval, 2024.
// Owner: the caller calls cascade_deinit.
enum err cascade_read(const struct cascade_files *files, struct cascade *out, struct fault *why);
void cascade_deinit(struct cascade *c);

// The files of a model as an engine is opened with it.
static inline struct cascade_files cascade_files_of(const struct engine_params *p)
{
    return (struct cascade_files){
        .model = p->model,
        .variant = p->variant,
        .text_encoder = p->text_encoder,
        .lora = p->lora,
        .lora_choices = p->lora_choices,
        .name = p->name,
    };
}

// Where weights lie, with the LoRAs that are applied unless a request names others. index: of a
// text encoder, or of a network. dir: a buffer of CASCADE_PATH + 8 bytes. Owner: c and dir, which
// must outlive the result.
enum cascade_part { CASCADE_TEXT, CASCADE_DENOISER, CASCADE_DECODER };
struct weights_params cascade_weights(const struct cascade *c, enum cascade_part part, int index,
                                      char *dir);

// Whether a stage works on latents: it makes them of noise alone, also for an edit.
static inline bool cascade_is_latent(const struct cascade *c, int stage)
{
    return c->network[stage].decoder.cls != NULL;
}

// Checks a noise level of a super-resolution network. Errors: INVALID, UNSUPPORTED.
enum err cascade_check_level(const struct cascade_network *n, int noise_level, struct fault *why);

// Creates the sampler for a stage's settings, as for an image whose request names no LoRAs. Owner,
// errors: as sampler_create.
enum err cascade_sampler(const struct cascade *c, const struct cascade_settings *s,
                         struct sampler **out, struct fault *why);

const char *cascade_sampler_name(const struct cascade *c, const struct cascade_settings *s);

// Index of a named preset; NULL: 0, the cascade's default settings. Errors: INVALID, naming
// "preset".
enum err cascade_preset_find(const struct cascade *c, const char *name, int *out,
                             struct fault *why);

#endif
