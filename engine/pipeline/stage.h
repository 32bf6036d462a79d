// One stage of the cascade: a U-Net with the sampling state of the images that are in it. Each
// image holds an entry; one forward advances any set of entries by one step, each with its own
// timestep, prompt, guidance, sampler and seed. Recordings are made once per batch size and kind of
// step and then replayed. Thread: the engine's worker. Knows nothing of prompts as text or files.
#ifndef IMAGEND_STAGE_H
#define IMAGEND_STAGE_H

#include "samplers.h"
#include "unet.h"

struct stage;

// Which noise an image needs; a test may give it instead of the generator.
enum stage_noise { STAGE_NOISE_INIT, STAGE_NOISE_AUGMENT, STAGE_NOISE_STEP };
// Fill z [height, width, 3] for this entry; step counts from 0. An edit's STAGE_NOISE_INIT is what
// its image is mixed with.
typedef void stage_noise_fn(void *ctx, int entry, enum stage_noise kind, int step, float *z);

struct stage_params {
    struct ops_device *dev;
    const struct unet *unet;                // must outlive the stage
    enum dtype dtype;                       // of activations
    const struct scheduler_config *noising; // super-resolution: image_noising_scheduler; or NULL
    uint32_t index;                         // of the stage in the cascade: part of the noise key
    uint32_t height, width;                 // pixels
    uint32_t low_height, low_width;         // of the low-res input; 0: a base stage
    uint32_t entries;                       // images at most
    uint32_t text_length, text_dim;
    // Only deterministic samplers of order 1 or 2: one tensor serves history and noise.
    bool lean;
    stage_noise_fn *noise; // NULL: Philox on the device
    void *noise_ctx;
};
// Errors: NO_DEVICE_MEMORY, NO_MEMORY. Owner: the caller destroys *out.
enum err stage_create(const struct stage_params *p, struct stage **out);
void stage_destroy(struct stage **s);

struct stage_start {
    struct sampler *sampler; // taken over, also on error
    const float *text;       // [text_length, text_dim]
    const float *negative;   // the same, or NULL when guidance is 1
    float guidance;
    int guidance_interval[2]; // first and last timestep with guidance
    const float *low;         // [low_height, low_width, 3] in [-1, 1]; super-resolution only
    // An edit: [height, width, 4], what it starts from in [-1, 1], and not 0 where that is kept as
    // it is. NULL: a new image.
    const float *original;
    bool noised; // what is kept is as noisy as the rest in every step; else clean, as in diffusers
    int noise_level; // super-resolution only
    uint64_t seed;
    uint32_t picture;
};
// Whether a lean stage can run the sampler.
bool stage_is_lean_sampler(const struct sampler *sampler);
// Make the recordings that a first image with this sampler will need, so that it does not wait
// for the driver's compiler. Errors: NO_DEVICE_MEMORY, DEVICE_LOST, NO_MEMORY.
enum err stage_warm(struct stage *s, const struct sampler *sampler, float guidance,
                    const int interval[2]);

// Errors: BUSY (no free entry), DEVICE_LOST, NO_DEVICE_MEMORY, UNSUPPORTED (*why: the noise level,
// or a sampler that a lean stage cannot run).
enum err stage_enter(struct stage *s, const struct stage_start *start, int *entry,
                     struct fault *why);
void stage_leave(struct stage *s, int entry);
int stage_free(const struct stage *s); // entries free

// Advance the entries by one step each. Errors: DEVICE_LOST, NO_DEVICE_MEMORY, TIMEOUT.
enum err stage_step(struct stage *s, const int *entry, int count);
// Whether all that the entry's last step computed was finite; once it was not, the image is lost.
bool stage_is_finite(const struct stage *s, int entry);
int stage_steps(const struct stage *s, int entry); // in all
int stage_steps_done(const struct stage *s, int entry);

// The image so far: [height, width, 3] f32, and RGB of it; before the first step, what it starts
// from. rgb stays valid until the next call.
enum err stage_picture(struct stage *s, int entry, float *out);
enum err stage_rgb(struct stage *s, int entry, const uint8_t **rgb);
// RGB of the clean image that the last step predicted.
enum err stage_preview(struct stage *s, int entry, const uint8_t **rgb);

// For tests: the U-Net output of the last stage_step [B, H, W, out_channels], negative prompts
// first when guided; and the low-res input of an entry after noising [height, width, 3].
const struct tensor *stage_output(const struct stage *s);
enum err stage_low(struct stage *s, int entry, float *out);

// What the steps took on the device since the last call, summed per operator class, and their
// floating point operations; returns how many classes. Nothing unless opened with profile.
int stage_timings(struct stage *s, struct ops_timing *out, int max, double *flops);

#endif
