// The vocabulary of an image: what is asked for, what it was made with, and what a model offers.
// Plain data that the engine, the jobs, the stores, the command line and the routes share, and the
// field tables that read it, write it and document it, so that a setting is declared once. Knows
// nothing of engines, jobs or HTTP. Thread: any.
#ifndef IMAGEND_PICTURE_H
#define IMAGEND_PICTURE_H

#include "check.h"
#include "err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf;
struct codec_params;

enum {
    PICTURE_MAX_STAGES = 3,
    PICTURE_MAX_PRESETS = 8,
    PICTURE_MAX_PROMPT = 32000, // bytes
    PICTURE_MAX_STEPS = 1000,
};

// One image. A zero field means what the preset says, or the model's own recommendation without
// one; values out of range are refused, never adjusted.
struct picture_request {
    const char *prompt;          // UTF-8, not NULL; may be empty
    const char *negative_prompt; // UTF-8; NULL: empty
    const char *preset;          // a name of model_info.preset; NULL: none
    const char *sampler;         // base stage: a name of model_info.samplers
    const char *timesteps;       // base stage: a name of model_info.timesteps, or NULL
    int size;                    // edge of the image: one of model_info.stage[].size; 0: largest
    uint64_t seed;
    int picture;                              // number of the image within its seed, from 0
    int steps[PICTURE_MAX_STAGES];            // per stage
    float guidance_scale[PICTURE_MAX_STAGES]; // per stage; 1 switches guidance off
    int noise_level[PICTURE_MAX_STAGES];      // super-resolution stages: 0..999; -1: the model's
    bool set_noise_level;                     // false: noise_level is ignored
};

// What an image was really made with, for its metadata.
struct picture_used {
    char model[64];
    char preset[32]; // "": none
    char sampler[32];
    int size, stages;
    int steps[PICTURE_MAX_STAGES];
    float guidance_scale[PICTURE_MAX_STAGES];
    int noise_level[PICTURE_MAX_STAGES];
    int tokens; // of prompt and negative prompt; 0 until the engine has encoded them
};

struct model_stage {
    char name[64];
    int size;
    int steps;
    float guidance_scale;
    int noise_level; // -1: the stage takes none
    char sampler[32];
    uint64_t parameters;
};

// Settings that the model has under a name, for all of its stages.
struct model_preset {
    char name[32];
    char sampler[32]; // of the base stage
    int steps[PICTURE_MAX_STAGES];
    float guidance_scale[PICTURE_MAX_STAGES];
};

// What is loaded, and where.
struct model_info {
    char name[64];
    char device[256];
    char driver[256];
    char dtype[8];
    int slots;
    int stages;
    struct model_stage stage[PICTURE_MAX_STAGES];
    int presets;
    struct model_preset preset[PICTURE_MAX_PRESETS];
    const char *const *samplers;  // NULL-terminated, as the list below; both live as the program
    const char *const *timesteps; // named lists
    uint64_t text_parameters;
    char notice[256]; // what the user should know about how it was loaded; "": nothing
};

// The fields of a picture_request and of a picture_used; a name that is in both says what a request
// became. The second is for stores.
extern const struct check_table picture_table, picture_used_table;

// What an image has of a field of picture_table: the value used, or what was asked where the
// request alone knows it. Returns the row that describes *at.
const struct check_field *picture_value(const struct check_field *f,
                                        const struct picture_request *r,
                                        const struct picture_used *u, const void **at);
// All of these values as members of a JSON object, without its braces.
void picture_json(struct buf *b, const struct picture_request *r, const struct picture_used *u);

// A1111's "infotext" of an image. sampler: what stands for the sampler's name, or NULL.
void picture_infotext(struct buf *b, int width, int height, const struct picture_request *r,
                      const struct picture_used *u, const char *sampler);
// Appends the file to *out; a PNG says in its text chunks what it was made from (p->text is not
// read). Errors: as codec_encode.
enum err picture_encode(const struct codec_params *p, const struct picture_request *r,
                        const struct picture_used *u, struct buf *out, struct fault *why);

// The request that draws the index-th image of several that are asked for together.
static inline struct picture_request picture_at(const struct picture_request *r, int index)
{
    struct picture_request one = *r;
    one.picture += index;
    return one;
}

#endif
