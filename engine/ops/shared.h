// Shared by the operators' callers and the shaders: activation functions and the table that a
// sampling step is driven by. Read by C through ops.h and by GLSL through push.h.
#ifndef IMAGEND_SHARED_H
#define IMAGEND_SHARED_H

// clang-format off
#ifdef VULKAN // GLSL
#define SHARED_ENUM(name)
#define SHARED_VALUE(name, n) const uint name = n;
#define SHARED_END
#else
#include <sys/types.h>
#define SHARED_ENUM(name) enum name {
#define SHARED_VALUE(name, n) name = n,
#define SHARED_END };
#endif

SHARED_ENUM(op_act) // GELU: exact (erf)
    SHARED_VALUE(ACT_NONE, 0)
    SHARED_VALUE(ACT_SILU, 1)
    SHARED_VALUE(ACT_GELU, 2)
    SHARED_VALUE(ACT_GELU_TANH, 3)
    SHARED_VALUE(ACT_RELU, 4)
SHARED_END

SHARED_ENUM(op_threshold) // of op_lane: none, clip to +-max_value, dynamic
    SHARED_VALUE(THRESHOLD_NONE, 0)
    SHARED_VALUE(THRESHOLD_CLIP, 1)
    SHARED_VALUE(THRESHOLD_DYNAMIC, 2)
SHARED_END
// clang-format on

// One image's place in a step: written by the CPU into a mapped u32 tensor before each run, read
// by the sampling operators. A guided lane uses two samples of the U-Net's batch: `uncond`, `cond`.
//
// Slot tensors hold the state of every slot, [slots, H, W, 4]: x, x0 history, low-res. In the
// fourth channel of x, anything but 0 marks a pixel that an edit keeps; latents use all four.
struct op_lane {
    uint slot;                 // which state this lane works on
    uint seed_lo, seed_hi;     // Philox key
    uint picture, stage, step; // Philox counter
    uint history;              // which of the history tensors receives this step's x0 (0..2)
    uint threshold;            // op_threshold
    float guidance;            // 1: the text branch alone
    float px, pm;              // x0 = px x + pm m            (m: model output after guidance)
    float cx, cm, c0;          // x' = cx x + cm m + c0 x0
    float c1, c2;              //    + c1 h1 + c2 h2          (x0 of the last and last but one step)
    float noise;               //    + noise z                (z: normal)
    float learned;             // 1: z is scaled by exp(.5 logvar) from the variance channels v,
                               // 2: by sqrt(v)
    float logvar_min, logvar_max;
    float max_value; // clip range, or cap of the dynamic threshold
    float quantile;  // of |x0|, dynamic threshold
    float timestep, noise_level;
    uint not_finite; // written by op_sampler_step: not 0 when it met NaN or infinity
    // A kept pixel becomes kept_signal original + kept_noise z; 0, 0: it is left alone (op_keep).
    float kept_signal, kept_noise;
    uint pad[5];
};

#endif
