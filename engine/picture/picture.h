// The description of an image: the request, the settings it was generated with, and the abilities
// of a model. Plain data shared by engine, jobs, stores, command line and routes, with the field
// tables that parse, write and document it, so that each setting is declared once. Knows nothing
// about engines, jobs or HTTP. Thread: any.
#ifndef IMAGEND_PICTURE_H
#define IMAGEND_PICTURE_H

#include "check.h"
#include "err.h"
#include "vocabulary.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf;
struct codec_params;
struct picture_edit;

enum {
    PICTURE_MAX_STAGES = 3,
    PICTURE_MAX_PRESETS = 8,
    PICTURE_MAX_LORAS = 8,    // of one image
    PICTURE_KNOWN_LORAS = 32, // of one model
    PICTURE_MAX_LORA_SCALE = 100,
    PICTURE_MAX_PROMPT = 32000, // bytes
    PICTURE_MAX_STEPS = 1000,
    PICTURE_WARNING = 256, // bytes
};

// A request for one image. A zero field selects the preset's value or, without a preset, the
// model's recommendation. Values out of range are refused, never adjusted.
struct picture_request {
    const char *prompt;          // UTF-8, not NULL; may be empty
    const char *negative_prompt; // UTF-8; NULL: empty
    const char *preset;          // one of model_info.preset; NULL: none
    const char *sampler;         // base stage: one of model_info.samplers; NULL: the model's
    const char *timesteps;       // base stage: one of model_info.timesteps, or NULL
    struct check_size size;      // of the result; 0x0: the model's largest
    uint64_t seed;
    int picture;                              // index of the image among those of its seed, from 0
    int steps[PICTURE_MAX_STAGES];            // per stage
    float guidance_scale[PICTURE_MAX_STAGES]; // per stage; 1 switches guidance off
    int noise_level[PICTURE_MAX_STAGES]; // super-resolution stages: 0..999; -1: the model's value
    bool set_noise_level;                // false: noise_level is ignored
    float strength[PICTURE_MAX_STAGES];  // edits: the fraction of the steps that is run, per stage
    struct check_scales loras;       // names of model_info.lora; not given: the model's own choice
    int scale;                       // factor by which to enlarge the image of `edit`; 0: edit it
    const struct picture_edit *edit; // picture_edit.h; NULL: generate from the prompt alone
};

// The settings that an image was generated with, for its metadata.
struct picture_used {
    char model[64];
    char preset[32];         // "": none
    char sampler[32];        // of the first stage; "": it did not run
    struct check_size size;  // of the image
    struct check_size drawn; // of the last stage's output, before cropping and downscaling
    int stages;
    int steps[PICTURE_MAX_STAGES];
    float guidance_scale[PICTURE_MAX_STAGES];
    int noise_level[PICTURE_MAX_STAGES]; // -1: none
    float strength[PICTURE_MAX_STAGES];  // edits only; 0: no edit
    int scale;                           // 0: not enlarged
    int first;                           // first stage that is run; earlier stages have no values
    // Steps actually run: for an edit a part of `steps`, for an enlarged image the sum over tiles.
    int run[PICTURE_MAX_STAGES];
    char loras[544];  // applied LoRAs of the stages that ran: "name:scale, ..."
    char modules[96]; // safety checker and watermarker of these stages' folders, which are not
                      // applied
    // Token counts of the prompt and the negative prompt: used, and cut off because the text
    // encoder's length is limited. 0 until the engine has encoded them.
    int tokens, tokens_cut, negative_tokens, negative_tokens_cut;
    char nearest[VOCABULARY_NEAREST]; // names that the prompt may have meant, see vocabulary_miss
};

struct model_stage {
    char name[64];
    int size;
    int steps;
    float guidance_scale;
    int noise_level; // -1: the stage has no noise level
    char sampler[32];
    uint64_t parameters;
    bool safety_checker, watermarker; // listed in the folder of its network; not applied
};

// A LoRA that can change the networks of one stage.
struct model_lora {
    char name[CHECK_NAME];
    double scale; // unless a request has another one
    int stage;    // from 0
    bool applied; // to images whose request names no LoRAs
};

// The LoRAs of one image, in the order in which they are added to the weights.
struct picture_loras {
    int count;
    struct {
        int index; // among those of the model
        double scale;
    } item[PICTURE_MAX_LORAS];
};

// A named preset: settings for all stages of the model.
struct model_preset {
    char name[32];
    char sampler[32]; // of the base stage
    int steps[PICTURE_MAX_STAGES];
    float guidance_scale[PICTURE_MAX_STAGES];
};

// The sizes of the images that a model's stages generate: squares, and with a step also those whose
// base image has sides that are multiples of it, from edge[0] to twice that, with at most 9/4 of
// the square's area. Further stages then enlarge by edge[i] / edge[0], an integer.
struct picture_sizes {
    int stages;
    int edge[PICTURE_MAX_STAGES];
    int step; // 0: squares only
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
    struct picture_sizes sizes;
    // Factors by which the model enlarges images, smallest first: one or two super-resolution
    // stages; 0: none. Every model can edit images, with or without a mask.
    int scale[2];
    int loras;
    struct model_lora lora[PICTURE_KNOWN_LORAS];
    int presets;
    struct model_preset preset[PICTURE_MAX_PRESETS];
    const char *const *samplers;  // NULL-terminated, like timesteps; both are static
    const char *const *timesteps; // names of timestep lists
    uint64_t text_parameters;
    const struct vocabulary *vocabulary; // NULL: none. Owner: who gives the info
    char notice[256];                    // a notice for the user about the loaded files; "": none
};

// The fields of a picture_request and of a picture_used. A name in both tables means the requested
// and the resolved value. picture_used_table is for stores.
extern const struct check_table picture_table, picture_used_table;

// The value of a field of picture_table for an image: the resolved value, or the requested one if
// only the request has it. Returns the row that describes *at.
const struct check_field *picture_value(const struct check_field *f,
                                        const struct picture_request *r,
                                        const struct picture_used *u, const void **at);
// The i-th warning for the user about an image, one sentence; NULL: no more. Owner: text.
const char *picture_warning(const struct picture_used *u, int i, char text[static PICTURE_WARNING]);
// Writes all these values as members of a JSON object, without the braces.
void picture_json(struct buf *b, const struct picture_request *r, const struct picture_used *u);

// Selects the stages for an image: up to the first that generates this size or, if none does, to
// the first whose square is at least as large as the longer side. Sets stages, drawn and size.
// Errors: INVALID, naming the largest size or the nearest ones.
enum err picture_choose(const struct picture_sizes *s, const struct check_size *size,
                        struct picture_used *out, struct fault *why);
// The index-th of all sizes that the stages generate; false: there are no more.
bool picture_native(const struct picture_sizes *s, int index, struct check_size *out);
// The size of a stage's output, for an image that is not enlarged in tiles.
struct check_size picture_stage_size(const struct picture_sizes *s, const struct picture_used *u,
                                     int stage);
// Selects the LoRAs of an image among those of its model: those that the request names or, if it
// has none, those that the model applies. Errors: INVALID, naming "loras": unknown names, and names
// of several files.
enum err picture_choose_loras(const struct model_lora *known, int n,
                              const struct check_scales *named, struct picture_loras *out,
                              struct fault *why);
// Sets u->loras to those of the stages that run.
void picture_list_loras(const struct model_lora *known, const struct picture_loras *chosen,
                        struct picture_used *u);
// Moves A1111's tags, such as <lora:fox:0.8>, from a prompt to a list of LoRAs; *rest is the prompt
// without them, or NULL if it has none. Owner: the caller frees *rest, also on error. Errors:
// INVALID, as check_add_scaled; NO_MEMORY. Source: A1111's extra_networks.parse_prompt and
// ExtraNetworkLora.activate; of several scales, the U-Net's counts.
enum err picture_take_tags(const char *prompt, char **rest, struct check_scales *loras,
                           struct fault *why);
// Refuses values for stages beyond `stages`, and a noise level for the base stage. Errors: INVALID,
// naming the field.
enum err picture_check_stages(const struct picture_request *r, int stages, struct fault *why);
// The size in which a stage's output, `from`, is delivered: for the last stage the requested size;
// for an earlier one the same aspect ratio, never enlarged.
struct check_size picture_fit_size(const struct picture_used *u, const struct check_size *from);
// The size of the image that picture_encode writes for an image of width x height. composed: it is
// placed into an input image.
struct check_size picture_file_size(const struct picture_used *u, int width, int height,
                                    bool composed);
// Crops the center of an image of size `from` to the aspect ratio of `size` and scales it down with
// an area filter, in sRGB as stored. Shape: rgb [from height, from width, 3], out [height, width,
// 3]. Source: INTER_AREA of OpenCV; for integer factors also BOX of PIL, which diffusers uses.
void picture_fit(const uint8_t *rgb, const struct check_size *from, const struct check_size *size,
                 uint8_t *out);

// Writes an XMP packet, for the xmp field of codec_params, which states that a model made the image
// or, for an edit, parts of it. Source: IPTC's Digital Source Type.
void picture_xmp(struct buf *b, const struct picture_request *r);
// Writes A1111's "infotext" of an image. sampler: replaces the sampler's name; may be NULL.
void picture_infotext(struct buf *b, const struct picture_request *r, const struct picture_used *u,
                      const char *sampler);
// Writes the fields of an infotext as a JSON object, the prompts as "Prompt" and "Negative prompt";
// "Size: 64x32" becomes "Size-1" and "Size-2". At most 256 fields are read. Source:
// parse_generation_parameters of A1111's infotext_utils, without the settings that it adds.
void picture_infotext_fields(struct buf *b, const char *infotext);
// The size of an image file, from its header. name: how errors call the image. Errors: as
// codec_measure.
enum err picture_file_measure(const void *data, size_t n, const char *name, struct check_size *size,
                              struct fault *why);
// Writes the metadata of an image file as members of a JSON object, without its braces: "info", the
// infotext or ""; "items", the other texts; "parameters", the fields of the infotext. Errors: as
// codec_read_texts.
enum err picture_file_info(const void *data, size_t n, struct buf *b, struct fault *why);
// Appends the file to *out, in the size of picture_file_size. The last stage's image of an edit
// with a mask is composed with r->edit. The metadata states how the image was made; p->text is
// ignored. Errors: as codec_encode.
enum err picture_encode(const struct codec_params *p, const struct picture_request *r,
                        const struct picture_used *u, struct buf *out, struct fault *why);

// The number of steps of a stage that are run for this image.
static inline int picture_steps(const struct picture_used *u, int stage)
{
    return u->run[stage] ? u->run[stage] : u->steps[stage];
}

// The request that reproduces the index-th image of a batch on its own.
static inline struct picture_request picture_at(const struct picture_request *r, int index)
{
    struct picture_request one = *r;
    one.picture += index;
    return one;
}

#endif
