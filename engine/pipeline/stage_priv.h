// The sampling state of one stage, shared by stage.c (entering and stepping) and stage_look.c
// (reading its images). Private to these files.
#ifndef IMAGEND_STAGE_PRIV_H
#define IMAGEND_STAGE_PRIV_H

#include "decode.h"
#include "stage.h"

enum {
    HISTORY = 3,
    MAX_TIMINGS = 64,
    LANE_WORDS = sizeof(struct op_lane) / 4,
    // Counter values for noise outside of steps; see op_lane.step.
    STEP_INIT = 0x7fffffff,
    STEP_AUGMENT = 0x7ffffffe,
    RGB = 3,
};

// The properties that select a step's recording, besides the number of lanes.
enum step_kind { KIND_GUIDED = 1, KIND_DYNAMIC = 2, KIND_NOISE = 4, KIND_KEEP = 8, KINDS = 16 };

struct entry {
    bool used, finite;
    bool noised; // and masked: its kept pixels are in stage.original
    struct sampler *sampler;
    int done;
    float guidance;
    int guidance_interval[2];
    float noise_level;
    uint64_t seed;
    uint32_t picture;
    struct ops *enter[2];         // text, low-res input and start: noise, or an edit's image
    struct ops *rgb[1 + HISTORY]; // of x, of each history tensor
};

struct step_recording {
    struct ops *ops;
    struct tensor output;
};

struct stage {
    struct stage_params p;
    struct entry *entry;
    uint32_t channels;                          // of the state
    struct denoiser_text *text;                 // entry 2i: negative prompt, 2i + 1: prompt
    struct tensor x;                            // slots; of pixels: with the marks of kept ones
    struct tensor state;                        // x as the operators take it: a view
    struct tensor low, noise, history[HISTORY]; // likewise
    struct tensor original;          // likewise; created for the first edit with noised kept pixels
    struct tensor states;            // mapped: [2, 1, L, D]
    struct tensor low_source;        // mapped: [1, h, w, 3]
    struct tensor lanes, prepare[2]; // mapped: per lane; one lane each for init and augment
    struct tensor timestep, level, level_index, text_index; // mapped, per U-Net sample
    struct tensor rgb;                                      // mapped u8; pixels only
    struct decode *decode;                                  // latents only
    struct step_recording *step;                            // [entries][KINDS]
    const struct step_recording *last;
    struct ops_timing timing[MAX_TIMINGS];
    int timings;
    double flops;   // of the steps in timing
    float *scratch; // [height, width, channels], noise from params.noise
};

// An entry's part of a slot tensor: its first c channels. x of a stage of pixels has another one
// behind them, the marks of kept pixels.
static inline struct tensor stage_slot(const struct tensor *slots, int entry, uint32_t c)
{
    const struct tensor slot = tensor_samples(slots, (uint32_t)entry, 1);

    return tensor_channels(&slot, 0, c);
}

#endif
