// What a model is: which folders hold the networks of a cascade, what their config files say and
// how the model's authors recommend to sample, as the cascade's own settings and as named presets.
// Reads configs only, no weights. Called by the engine and by `imagend inspect`. Thread: any; a
// cascade is plain data.
#ifndef IMAGEND_CASCADE_H
#define IMAGEND_CASCADE_H

#include "hfconfig.h"
#include "samplers.h"
#include "scheduler_config.h"
#include "weights.h"

enum {
    CASCADE_MAX_STAGES = 3,
    CASCADE_MAX_NETWORKS = 12,
    CASCADE_MAX_PRESETS = 9,     // the cascade's own settings among them
    CASCADE_MAX_TIMESTEPS = 100, // of a recommended list
    CASCADE_PATH = 1024,
};

// A U-Net with its schedulers: a diffusers pipeline folder.
struct cascade_network {
    char dir[CASCADE_PATH];
    char name[64];
    int stage; // that it draws
    struct unet_config unet;
    struct scheduler_config scheduler, noising; // noising: super-resolution stages
    bool super_resolution;
    bool plain; // the weights have no files of cascade.variant
};

// How to sample one stage.
struct cascade_settings {
    int network;      // of cascade.network
    char sampler[32]; // "": the scheduler config's own
    int steps;
    int timestep_count; // as many as steps when there is a list of timesteps, else 0
    int timesteps[CASCADE_MAX_TIMESTEPS];
    float guidance_scale;
    int guidance_interval[2]; // first and last timestep that are guided; others: no guidance
    int noise_level;          // -1 for a base stage
};

struct cascade_preset {
    char name[32];
    struct cascade_settings stage[CASCADE_MAX_STAGES];
};

struct cascade {
    char name[64];
    char text_dir[CASCADE_PATH]; // text_encoder
    char tokenizer_dir[CASCADE_PATH];
    struct t5_config t5;
    bool text_plain;   // as cascade_network.plain
    char variant[32];  // of the weight files that are asked for; "": none
    char notice[256];  // a notice for the user about the files that are read; "": none
    bool noised_edits; // what an edit keeps is noised with the rest; else clean, as in diffusers
    int stages;
    int size[CASCADE_MAX_STAGES]; // edge of each stage's image in pixels
    int networks;                 // the first ones are the stages' own, in order
    struct cascade_network network[CASCADE_MAX_NETWORKS];
    int presets; // the first is the cascade's own settings and has the name ""
    struct cascade_preset preset[CASCADE_MAX_PRESETS];
};

// model: a folder with a cascade.json, a pipeline folder (model_index.json), or pipeline folders in
// stage order separated by ','. variant: of the weight files, or NULL; a component that has none
// takes its plain files, which notice then says. Errors: NOT_FOUND, FORMAT, UNSUPPORTED, INVALID
// with *why filled.
//
// cascade.json: {"name": "...", "stages": [{"path": "base", "size": 64, "sampler": "dpm++2m",
// "steps": 20, "guidance_scale": 3.0, "guidance_interval": [250, 750]}, {"path": "sr256",
// "timesteps": [999, 500, 9], "noise_level": 100}], "presets": {"fast": {"stages": [{"path":
// "base-fast", "steps": 6}, {}]}}};
// "kept_pixels": "noised" says that what an edit keeps is as noisy as the rest in every step, which
// suits models of few steps; "clean" is the default, what diffusers' IF pipelines do.
// path is relative to the file, everything else is a recommendation and may be absent. timesteps
// stands in place of steps: a strictly falling list, for samplers that take one; another number of
// steps or another sampler in a request runs without it. A preset says for every stage what differs
// from the cascade's own settings; a path there names another network, with its own scheduler, for
// the stage. Source of the interval: Kynkaanniemi et al., Applying Guidance in a Limited Interval,
// 2024.
enum err cascade_read(const char *model, const char *variant, struct cascade *out,
                      struct fault *why);

// Where the weights of a network, or of the text encoder (index -1), are. dir: of CASCADE_PATH + 8
// bytes. Owner: c and dir, for as long as the parameters are used.
struct weights_params cascade_weights(const struct cascade *c, int index, char *dir);

// The sampler that the settings of a stage name. Owner, errors: as sampler_create.
enum err cascade_sampler(const struct cascade *c, const struct cascade_settings *s,
                         struct sampler **out, struct fault *why);

const char *cascade_sampler_name(const struct cascade *c, const struct cascade_settings *s);

// Index of a named preset; NULL: 0, the cascade's own. Errors: INVALID, naming "preset".
enum err cascade_preset_find(const struct cascade *c, const char *name, int *out,
                             struct fault *why);

#endif
