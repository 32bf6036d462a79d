// How an engine is opened. Plain data apart from engine.h, so that those who only pass it on, such
// as the server's configuration and jobs, need not know the engine.
#ifndef IMAGEND_ENGINE_PARAMS_H
#define IMAGEND_ENGINE_PARAMS_H

#include <stdbool.h>
#include <stddef.h>

struct engine_params {
    const char *model;     // a cascade folder (cascade.json), or pipeline folders separated by ','
    const char *variant;   // file variant such as "fp16"; NULL: the plain files, else what is there
    const char *device;    // index or part of a device name; NULL: the best one
    const char *cache_dir; // pipeline and shader caches; NULL: the user's cache folder
    const char *dtype;     // "f32", "f16"; NULL: what suits the device
    int slots;             // pictures in flight; 0: default
    size_t memory_limit;   // bytes of device memory; 0: what the device reports
    bool validation;       // Vulkan validation layers
    bool profile;          // time every dispatch (engine_profile)
};

#endif
