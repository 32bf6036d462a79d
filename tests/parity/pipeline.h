// Recorded calls of diffusers' pipelines: the folder of a call, and its inputs and outputs. Shared
// by the files that check them; see golden.h for the program.
#ifndef IMAGEND_PIPELINE_H
#define IMAGEND_PIPELINE_H

#include "golden.h"

#include "cascade.h"
#include "stage.h"
#include "text.h"

enum { MAX_PICTURES = 16 };

// A pipeline folder ready to run; text_dir may be another folder's.
struct folder {
    char name[GOLDEN_PATH]; // "if-tiny-I/": of the fixture, or the model folder that it names
    char text_dir[GOLDEN_PATH];
    struct hfconfig_index index;
    struct denoiser_config denoiser_config;
    struct decoder_config decoder_config; // cls NULL: the state is the image
    struct scheduler_config scheduler, noising;
    struct text_encoder_config encoder;
    struct denoiser *denoiser;
    struct decoder *decoder; // NULL: none
    struct text *text;
};

static inline bool is_super(const struct folder *f)
{
    return f->index.pipeline != PIPELINE_IF;
}

// One recorded call of the pipeline.
struct trajectory {
    struct bundle *b;
    struct folder *f;
    const struct json_t *call;
    const char *about;
    char prefix[32]; // "a."
    int pictures, images_per_prompt;
    size_t height, width, low_height, low_width;
    size_t channels; // of the state
    float guidance;
    int noise_level;
    bool guided;
    struct sampler *sampler;
    struct stage *stage;
    float *states;   // [2 * pictures, L, D]: negative first
    float *low;      // [pictures, h, w, 3]
    float *original; // an edit: [pictures, height, width, 4], as stage_start takes it; or NULL
    bool masked;
    int entry[MAX_PICTURES];
    // Collected, NCHW, step after step:
    float *unet_out, *model_output, *x, *unblended;
    size_t out_channels;
    float *history; // masked: x0 of the last two steps, [2, pictures, height * width, 3]
};

// fixture: of the manifest; its "model" names the folder when that is another one.
bool folder_load(struct bundle *b, const struct json_t *fixture, struct folder *f);
void folder_deinit(struct folder *f);

// The noise of a draw, [pictures, channels, h, w]; the caller frees. NULL: absent.
float *pipeline_noise(struct trajectory *t, enum stage_noise kind, int step);
void pipeline_compare(struct trajectory *t, const char *point, const float *got, size_t n,
                      size_t c);
void to_nhwc(const float *x, size_t c, size_t pixels, float *out);
void to_nchw(const float *x, size_t c, size_t pixels, float *out);

// ---- edits (edit.c) ---------------------------------------------------------------------------

// An image as given: 8 bits, [height, width, channels].
struct source {
    const uint8_t *px;
    int width, height, channels;
};
bool edit_source(const struct safetensor *f, struct source *s); // false: it is no image
// PIL's convert("RGB") and convert("L"), and the pipelines' size and resize. The caller frees.
uint8_t *edit_rgb(const struct source *s);
uint8_t *edit_luma(const struct source *s);
void edit_size(int w, int h, int sample, int *width, int *height);
uint8_t *edit_resize(const uint8_t *px, int w, int h, int channels, int width, int height);

// If the call has an image to start from, read it into t->original, with its mask; both are
// compared. False when something is missing.
bool edit_read(struct trajectory *t);
// The low-res input as an 8-bit image, where the call gives one, against its tensor.
void edit_check_low(struct trajectory *t);
// Computes a step's result without the mask, from the U-Net's output of this step in NHWC and the
// states before it, into t->unblended.
enum err edit_unblended(struct trajectory *t, int step, const float *m, const float *before);

#endif
