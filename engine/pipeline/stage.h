// One stage of the cascade: a denoiser with the sampling state of the images in it, which is either
// their pixels or latents that a decoder turns into pixels when they leave. Each image has an
// entry; one forward pass advances any set of entries by one step, each with its own timestep,
// prompt, guidance, sampler and seed. Recordings are made once per batch size and kind of step,
// then replayed. Thread: the engine's worker. Knows nothing about prompt texts or files.
#ifndef IMAGEND_STAGE_H
#define IMAGEND_STAGE_H

#include "decoder.h"
#include "denoiser.h"
#include "samplers.h"

struct stage;

// The purpose of noise; a test may supply it instead of the generator.
enum stage_noise { STAGE_NOISE_INIT, STAGE_NOISE_AUGMENT, STAGE_NOISE_STEP };
// Fills z [height, width, channels of the state] for this entry, or [height, width, 3] for
// STAGE_NOISE_AUGMENT; step counts from 0. For an edit, STAGE_NOISE_INIT is
// the noise mixed into its image.
typedef void stage_noise_fn(void *ctx, int entry, enum stage_noise kind, int step, float *z);

struct stage_params {
    struct ops_device *dev;
    const struct denoiser *denoiser;        // must outlive the stage
    const struct decoder *decoder;          // of latents, must outlive the stage; NULL: pixels
    enum dtype dtype;                       // of activations
    const struct scheduler_config *noising; // of the low-res input; NULL: a base stage
    uint32_t index;                         // of the stage in the cascade; part of the noise key
    uint32_t height, width;                 // of the state
    uint32_t low_height, low_width;         // of the low-res input; 0: a base stage
    uint32_t entries;                       // maximum number of images
    uint32_t text_length, text_dim;
    // Supports only deterministic samplers of order 1 or 2: one tensor serves history and noise.
    bool lean;
    stage_noise_fn *noise; // NULL: Philox on the device
    void *noise_ctx;
};
// Errors: NO_DEVICE_MEMORY, NO_MEMORY. Owner: the caller destroys *out.
enum err stage_create(const struct stage_params *p, struct stage **out);
void stage_destroy(struct stage **s);
// Forgets the recordings that read weights, so that the denoiser and the decoder can be destroyed;
// the images in it stay. Before the next other call, it must be woken with such networks again.
// Errors of stage_wake: NO_DEVICE_MEMORY, NO_MEMORY.
void stage_sleep(struct stage *s);
enum err stage_wake(struct stage *s, const struct denoiser *denoiser,
                    const struct decoder *decoder);
// Records the step that needs the most activations: all entries, with guidance.
enum err stage_warm_most(struct stage *s);

struct stage_start {
    struct sampler *sampler; // the stage takes ownership, also on error
    const float *text;       // [text_length, text_dim]
    const float *negative;   // likewise; NULL if guidance is 1
    float guidance;
    int guidance_interval[2]; // first and last timestep with guidance
    const float *low;         // [low_height, low_width, 3] in [-1, 1]; super-resolution only
    // An edit: [height, width, 4], its input in [-1, 1]; the fourth channel is nonzero where pixels
    // are kept. NULL: a new image. Stages of pixels only.
    const float *original;
    bool noised; // kept pixels get the same noise as the others in every step; else clean, as in
                 // diffusers
    int noise_level; // super-resolution only
    uint64_t seed;
    uint32_t picture;
};
// Whether a lean stage can run the sampler.
bool stage_is_lean_sampler(const struct sampler *sampler);
// Makes the recordings for a first image with this sampler, so that it does not wait for the
// driver's compiler. Errors: NO_DEVICE_MEMORY, DEVICE_LOST, NO_MEMORY.
enum err stage_warm(struct stage *s, const struct sampler *sampler, float guidance,
                    const int interval[2]);

// Errors: BUSY (no free entry), DEVICE_LOST, NO_DEVICE_MEMORY, UNSUPPORTED (*why: the noise level,
// or a sampler that a lean stage cannot run).
enum err stage_enter(struct stage *s, const struct stage_start *start, int *entry,
                     struct fault *why);
void stage_leave(struct stage *s, int entry);
int stage_free(const struct stage *s); // number of free entries
bool stage_is_empty(const struct stage *s);

// Advances the entries by one step each. Errors: DEVICE_LOST, NO_DEVICE_MEMORY, TIMEOUT.
enum err stage_step(struct stage *s, const int *entry, int count);
// Whether every value of the entry's last step was finite; if not, the image is lost.
bool stage_is_finite(const struct stage *s, int entry);
int stage_steps(const struct stage *s, int entry); // total number
int stage_steps_done(const struct stage *s, int entry);

// The current state: [height, width, channels]; before the first step, its start.
enum err stage_state(struct stage *s, int entry, float *out);
// Its image, f32 or RGB: of the state's height and width, or of those times the decoder's factor.
// rgb is valid until the next call. Errors: NOT_FINITE: the decoder computed NaN or infinity.
enum err stage_picture(struct stage *s, int entry, float *out);
enum err stage_rgb(struct stage *s, int entry, const uint8_t **rgb);
// RGB of the clean image predicted by the last step.
enum err stage_preview(struct stage *s, int entry, const uint8_t **rgb);

// For tests: the denoiser's output of the last stage_step [B, H, W, out_channels], negative prompts
// first if guided; and an entry's low-res input after noising [height, width, 3].
const struct tensor *stage_output(const struct stage *s);
enum err stage_low(struct stage *s, int entry, float *out);

// Device time of the steps since the last call, summed per operator class, and their floating-point
// operations; returns the number of classes. Nothing unless opened with profile.
int stage_timings(struct stage *s, struct ops_timing *out, int max, double *flops);

#endif
