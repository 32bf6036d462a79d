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
struct picture_edit;

enum {
    PICTURE_MAX_STAGES = 3,
    PICTURE_MAX_PRESETS = 8,
    PICTURE_MAX_PROMPT = 32000, // bytes
    PICTURE_MAX_STEPS = 1000,
};

// One image. A zero field selects the value of the preset or, without a preset, the model's
// recommendation. Values out of range are refused, never adjusted.
struct picture_request {
    const char *prompt;          // UTF-8, not NULL; may be empty
    const char *negative_prompt; // UTF-8; NULL: empty
    const char *preset;          // a name of model_info.preset; NULL: none
    const char *sampler;         // base stage: a name of model_info.samplers
    const char *timesteps;       // base stage: a name of model_info.timesteps, or NULL
    struct check_size size;      // of the image; 0x0: the model's largest
    uint64_t seed;
    int picture;                              // number of the image within its seed, from 0
    int steps[PICTURE_MAX_STAGES];            // per stage
    float guidance_scale[PICTURE_MAX_STAGES]; // per stage; 1 switches guidance off
    int noise_level[PICTURE_MAX_STAGES];      // super-resolution stages: 0..999; -1: the model's
    bool set_noise_level;                     // false: noise_level is ignored
    float strength[PICTURE_MAX_STAGES]; // of an edit: the share of the steps that is run, per stage
    int scale;                          // enlarge the image of `edit` so many times; 0: edit it
    const struct picture_edit *edit;    // picture_edit.h; NULL: an image from the prompt alone
};

// The settings that an image was generated with, for its metadata.
struct picture_used {
    char model[64];
    char preset[32]; // "": none
    char sampler[32];
    struct check_size size;  // of the image
    struct check_size drawn; // of the last stage's, which it was cropped and scaled down from
    int stages;
    int steps[PICTURE_MAX_STAGES];
    float guidance_scale[PICTURE_MAX_STAGES];
    int noise_level[PICTURE_MAX_STAGES];
    float strength[PICTURE_MAX_STAGES]; // of an edit; 0: no edit
    int scale;                          // 0: not an enlarged image
    int first;                          // the first stage that is run; those before have no values
    // Steps that are run: of an edit some of `steps`, of an enlarged image those of all tiles.
    int run[PICTURE_MAX_STAGES];
    // Read of the prompt and the negative prompt, and cut off because the text encoder reads no
    // more; 0 until the engine has encoded them.
    int tokens, tokens_cut, negative_tokens, negative_tokens_cut;
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

// A named preset: settings for all stages of the model.
struct model_preset {
    char name[32];
    char sampler[32]; // of the base stage
    int steps[PICTURE_MAX_STAGES];
    float guidance_scale[PICTURE_MAX_STAGES];
};

// The loaded model and its device.
struct model_info {
    char name[64];
    char device[256];
    char driver[256];
    char dtype[8];
    int slots;
    int stages;
    struct model_stage stage[PICTURE_MAX_STAGES];
    // Every model edits images, as a whole or where a mask says; one with super-resolution stages
    // also enlarges them, by one stage's factor or two stages', the smallest first; 0: no such.
    int scale[2];
    int presets;
    struct model_preset preset[PICTURE_MAX_PRESETS];
    const char *const *samplers;  // NULL-terminated, as the list below; both live as the program
    const char *const *timesteps; // named lists
    uint64_t text_parameters;
    char notice[256]; // a notice for the user about the loaded files; "": none
};

// The fields of a picture_request and of a picture_used; a name that is in both says what a request
// became. The second is for stores.
extern const struct check_table picture_table, picture_used_table;

// What an image has of a field of picture_table: the value used, or what was asked where the
// request alone knows it. Returns the row that describes *at.
const struct check_field *picture_value(const struct check_field *f,
                                        const struct picture_request *r,
                                        const struct picture_used *u, const void **at);
// Warnings for the user about an image, one sentence each; NULL: no more. Owner: text.
const char *picture_warning(const struct picture_used *u, int i, char text[static 160]);
// Writes all of these values as members of a JSON object, without its braces.
void picture_json(struct buf *b, const struct picture_request *r, const struct picture_used *u);

// Chooses the stages of an image, given the edge of each stage's result: they end at the first
// stage that is at least as large as the longer side. Sets stages, drawn and size. Errors: INVALID,
// naming the largest size.
enum err picture_choose(const int *edge, int stages, const struct check_size *size,
                        struct picture_used *out, struct fault *why);
// Refuses values for stages that an image of `stages` stages does not use, and a noise level for
// the base stage. Errors: INVALID, naming the field.
enum err picture_check_stages(const struct picture_request *r, int stages, struct fault *why);
// The size in which the result of a stage with this edge is delivered: the requested size for the
// last stage; for an earlier one, the same aspect ratio without enlarging.
struct check_size picture_fit_size(const struct picture_used *u, int edge);
// The size of the file that picture_encode makes of an image of width x height; composed: it is put
// into an input image.
struct check_size picture_file_size(const struct picture_used *u, int width, int height,
                                    bool composed);
// The middle of a square image, in the shape of `size`, scaled down to it: each pixel is the mean
// of the area that it covers, in sRGB as it is stored. Shape: rgb [edge, edge, 3], out [height,
// width, 3]. Source: INTER_AREA of OpenCV; with whole factors also BOX of PIL, as diffusers
// resizes.
void picture_fit(const uint8_t *rgb, int edge, const struct check_size *size, uint8_t *out);

// An XMP packet that says that a model made the image, or, of an edit, parts of it; to be the xmp
// of codec_params. Source: IPTC's Digital Source Type.
void picture_xmp(struct buf *b, const struct picture_request *r);
// A1111's "infotext" of an image. sampler: what stands for the sampler's name, or NULL.
void picture_infotext(struct buf *b, const struct picture_request *r, const struct picture_used *u,
                      const char *sampler);
// Appends the file to *out, with the image in the size of picture_file_size; the last image of an
// edit with a mask is composed with r->edit. A PNG says in its text chunks what it was made from;
// p->text is not read. Errors: as codec_encode.
enum err picture_encode(const struct codec_params *p, const struct picture_request *r,
                        const struct picture_used *u, struct buf *out, struct fault *why);

// Steps of a stage that are run for this image.
static inline int picture_steps(const struct picture_used *u, int stage)
{
    return u->run[stage] ? u->run[stage] : u->steps[stage];
}

// The request that reproduces the index-th image of a batch by itself.
static inline struct picture_request picture_at(const struct picture_request *r, int index)
{
    struct picture_request one = *r;
    one.picture += index;
    return one;
}

#endif
