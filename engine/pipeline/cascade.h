// What a model is: which folders hold the stages of a cascade, what their config files say and how
// the model's authors recommend to sample. Reads configs only, no weights. Called by the engine and
// by `imagend inspect`. Thread: any; a cascade is plain data.
#ifndef IMAGEND_CASCADE_H
#define IMAGEND_CASCADE_H

#include "hfconfig.h"
#include "scheduler_config.h"

enum { CASCADE_MAX_STAGES = 3, CASCADE_PATH = 1024 };

struct cascade_stage {
    char dir[CASCADE_PATH]; // the diffusers pipeline folder
    char name[64];
    struct unet_config unet;
    struct scheduler_config scheduler, noising; // noising: super-resolution stages
    bool super_resolution;
    int size; // edge of its picture in pixels
    // Recommended:
    char sampler[32]; // "": the scheduler config's own
    int steps;
    float guidance_scale;
    int noise_level; // -1 for a base stage
};

struct cascade {
    char name[64];
    char text_dir[CASCADE_PATH]; // text_encoder
    char tokenizer_dir[CASCADE_PATH];
    struct t5_config t5;
    int stages;
    struct cascade_stage stage[CASCADE_MAX_STAGES];
};

// model: a folder with a cascade.json, a pipeline folder (model_index.json), or pipeline folders in
// stage order separated by ','. Errors: NOT_FOUND, FORMAT, UNSUPPORTED, INVALID with *why filled.
//
// cascade.json: {"name": "...", "stages": [{"path": "base", "size": 64, "sampler": "dpm++2m",
// "steps": 20, "guidance_scale": 3.0, "noise_level": 100}, ...]}; path is relative to the file,
// everything else is a recommendation and may be absent.
enum err cascade_read(const char *model, struct cascade *out, struct fault *why);

#endif
