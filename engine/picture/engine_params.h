// The parameters of an engine. Plain data, separate from engine.h, so that code that only passes
// them on, such as the server's configuration and jobs, does not depend on the engine.
#ifndef IMAGEND_ENGINE_PARAMS_H
#define IMAGEND_ENGINE_PARAMS_H

#include "check.h"

#include <stdbool.h>
#include <stddef.h>

struct engine_params {
    const char *model;   // a cascade folder (cascade.json), or pipeline folders separated by ','
    const char *name;    // the model's name; NULL: that of its folder or cascade.json
    const char *variant; // file variant such as "fp16"; NULL: plain files, else the only variant
    const char *text_encoder; // a GGUF file instead of the model's; NULL: the model's
    const char *lora;         // FILE[:SCALE], several separated by ','; NULL: none
    const char *lora_choices; // likewise, applied only to images whose request names them
    const char *device;       // index or part of a device name; NULL: the best device
    const char *cache_dir;    // pipeline and shader caches; NULL: the user's cache folder
    const char *dtype;        // "f32", "f16"; NULL: the better one for the device
    const char *weights; // "f32", "f16", "bf16", "q8", "q4"; NULL: as dtype, or as in the GGUF file
    const char *tune;    // measure kernels: "on", "off"; "auto" or NULL: on GPUs
    int slots;           // images generated at once; 0: default
    size_t text_cache;   // bytes of encoded prompts in cache_dir; 0: none are kept there
    size_t memory_limit; // bytes of device memory; 0: most of what the device has free
    // Other engines use the rest of memory_limit: reserve only what this model needs of it.
    bool shared;
    bool whole; // fail with NO_DEVICE_MEMORY if its networks would have to take turns
    struct check_size
        size;        // of images whose memory engine_inspect predicts; 0x0: the largest square
    bool validation; // Vulkan validation layers
    bool profile;    // time every dispatch (engine_profile)
};

#endif
