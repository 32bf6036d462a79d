// THE kernel table: every GPU program is one row here. Names, variants and bindings meet in this
// file; kernels.c attaches the SPIR-V. Everything that runs on the device is looked up by
// (kernel, activation dtype, weight dtype, load path) and specialized by constants.
#ifndef IMAGEND_KERNELS_H
#define IMAGEND_KERNELS_H

#include "push.h"
#include "tensor.h"
#include "vk.h"

// What a kernel may count on; NEED_SUBGROUP are the kernels of software devices, NEED_SHARED those
// of GPUs. A row that needs something the device lacks is never chosen.
enum kernel_need { NEED_NONE = 0, NEED_SUBGROUP = 1, NEED_SHARED = 2 };

// X(ID, shader, axes of shaders/meson.build, bindings, push struct, needs)
// Bindings, one letter each, in binding order:
//   x  activation operand, read through the load path (texel or storage buffer)
//   m  a matrix product's weights, the same way
//   s  a slot's state, the same way; always f32
//   r  storage buffer, read    w  written    u  read and written
#define KERNEL_MAP(X)                                                                              \
    X(PROBE, probe, LOAD, "xw", push_probe, NEED_SUBGROUP)                                         \
    X(LINEAR_LANE, linear_lane, MATMUL, "xmrxxw", push_matmul, NEED_SUBGROUP)                      \
    X(CONV3_LANE, conv3_lane, MATMUL, "xmrxxw", push_matmul, NEED_SUBGROUP)                        \
    X(MATMUL_TILE, matmul_tile, TILE, "xmrxxw", push_matmul, NEED_SHARED)                          \
    X(ATTENTION_LANE, attention_lane, LOAD, "xxxxxrrrrw", push_attention, NEED_SUBGROUP)           \
    X(ATTENTION_TILE, attention_tile, DTYPE, "xxxxxrrrrw", push_attention, NEED_SHARED)            \
    X(ATTENTION_ANY, attention_any, LOAD, "xxxxxrrrrw", push_attention, NEED_NONE)                 \
    X(MAP, map, LOAD, "xxw", push_map, NEED_NONE)                                                  \
    X(COPY, copy, TILE, "rw", push_map, NEED_NONE)                                                 \
    X(GROUP_NORM, group_norm, LOAD, "xrrrw", push_group_norm, NEED_NONE)                           \
    X(GROUP_NORM_PARTS, group_norm_parts, LOAD, "xw", push_group_norm_parts, NEED_NONE)            \
    X(GROUP_NORM_FOLD, group_norm_fold, DTYPE, "rrrrw", push_group_norm_parts, NEED_NONE)          \
    X(GROUP_NORM_APPLY, group_norm_apply, LOAD, "xrw", push_group_norm_parts, NEED_NONE)           \
    X(ROW_NORM, row_norm, LOAD, "xrrw", push_row_norm, NEED_NONE)                                  \
    X(MEAN_PIXELS, mean_pixels, LOAD, "xw", push_shape, NEED_NONE)                                 \
    X(AVG_POOL2, avg_pool2, LOAD, "xw", push_shape, NEED_NONE)                                     \
    X(UPSAMPLE_NEAREST2, upsample_nearest2, LOAD, "xw", push_shape, NEED_NONE)                     \
    X(UPSAMPLE_BILINEAR, upsample_bilinear, LOAD, "xw", push_shape, NEED_NONE)                     \
    X(PIXEL_UNSHUFFLE, pixel_unshuffle, LOAD, "xw", push_shape, NEED_NONE)                         \
    X(PIXEL_SHUFFLE, pixel_shuffle, LOAD, "xw", push_shape, NEED_NONE)                             \
    X(EMBED, embed, TILE, "rrrrrw", push_embed, NEED_NONE)                                         \
    X(RELATIVE_BIAS, relative_bias, ONE, "rw", push_relative_bias, NEED_NONE)                      \
    X(TIME_EMBED, time_embed, DTYPE, "rw", push_time_embed, NEED_NONE)                             \
    X(NOISE, noise, ONE, "rw", push_noise, NEED_NONE)                                              \
    X(GATHER_INPUT, gather_input, LOAD, "rssw", push_gather, NEED_NONE)                            \
    X(QUANTILE, quantile, LOAD, "rxsw", push_sampler, NEED_NONE)                                   \
    X(SAMPLER_STEP, sampler_step, LOAD, "uxsuuuusr", push_sampler, NEED_NONE)                      \
    X(ADD_NOISE, add_noise, LOAD, "rssw", push_sampler, NEED_NONE)                                 \
    X(KEEP, keep, LOAD, "rsu", push_sampler, NEED_NONE)                                            \
    X(TO_RGB8, to_rgb8, LOAD, "xu", push_rgb8, NEED_NONE)

enum kernel_id {
#define X(id, shader, axes, bindings, push, needs) K_##id,
    KERNEL_MAP(X)
#undef X
        KERNEL_COUNT
};

enum load_path { LOAD_TEXEL, LOAD_BUFFER };

struct kernel_code {
    const uint32_t *words;
    size_t bytes;
};

struct kernel {
    const char *name; // also the name in timings
    const char *bindings;
    uint32_t push_bytes;
    unsigned needs;                   // enum kernel_need, or-ed
    struct kernel_code code[2][2][2]; // [load path][activations f16][weights f16]
};

const struct kernel *kernel_get(enum kernel_id id);

enum { KERNEL_LACK = 160 };
// True, with a phrase in text, when the device lacks what every call of this kernel needs.
bool kernel_lacks(const struct kernel *k, const struct vk_caps *caps, enum load_path load,
                  char text[KERNEL_LACK]);
// Letters of the bindings that follow the load path.
bool kernel_reads_operand(char letter);

#endif
