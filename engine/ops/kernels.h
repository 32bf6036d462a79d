// THE kernel table: every GPU program is one row of kernels.c, which says what the program needs of
// a device, which calls it takes and what they cost. kernel_choose picks a row for each call; no
// operator chooses by itself. Not for other layers. Thread: the engine's worker.
#ifndef IMAGEND_KERNELS_H
#define IMAGEND_KERNELS_H

#include "push.h"
#include "tensor.h"
#include "vk.h"

struct ops_call;
struct ops_device;

// The operator that a row computes. Most operators have one row; those with several are planned.
enum op {
    OP_PROBE,
    OP_LINEAR,
    OP_CONV3,
    OP_WINOGRAD_TILES,
    OP_ATTENTION,
    OP_MAP,
    OP_COPY,
    OP_GROUP_NORM,
    OP_GROUP_NORM_PARTS,
    OP_GROUP_NORM_FOLD,
    OP_GROUP_NORM_APPLY,
    OP_ROW_NORM,
    OP_MEAN_PIXELS,
    OP_AVG_POOL2,
    OP_UPSAMPLE_NEAREST2,
    OP_UPSAMPLE_BILINEAR,
    OP_PIXEL_UNSHUFFLE,
    OP_PIXEL_SHUFFLE,
    OP_EMBED,
    OP_RELATIVE_BIAS,
    OP_TIME_EMBED,
    OP_NOISE,
    OP_GATHER_INPUT,
    OP_QUANTILE,
    OP_SAMPLER_STEP,
    OP_ADD_NOISE,
    OP_KEEP,
    OP_TO_RGB8,
    OP_COUNT
};

// ---- rows -----------------------------------------------------------------------------------

enum operand_load { LOAD_BUFFER, LOAD_TEXEL, LOAD_COUNT };

// Storages, as bits.
enum {
    STORED_F32 = 1,
    STORED_F16 = 2,
    STORED_BF16 = 4,
    STORED_Q8 = 8,
    STORED_Q4 = 16,
    STORED_TEXELS = STORED_F32 | STORED_F16, // those that texel views have
    STORED_ANY = ~0
};

// One build of a shader; generated from shaders/meson.build.
struct kernel_build {
    enum operand_load load; // how operands are read
    unsigned act, weight;   // storages of activations and weights that it reads
    const char *name;
    const uint32_t *words;
    size_t bytes;
};

// The orders in which weights are packed (weight.c).
enum weight_layout {
    LAYOUT_ANY,      // not packed yet
    LAYOUT_LANES,    // [out/SG][dx][in/4][dy][SG][4]
    LAYOUT_ROWS,     // [out][tap][in/4][4]
    LAYOUT_WINOGRAD, // [out/SG][36][in/4][SG][4], transformed
};

// The task of a planned operator. Shapes are those of one sample: a choice must not depend on
// who shares the batch. n is for the grid alone.
struct problem {
    uint32_t n, h, w;        // pixels or tokens; of attention: queries
    uint32_t in, out, taps;  // matrix products
    uint32_t keys, heads, d; // attention
    enum op_act act;
    uint32_t parts; // enum matmul_part, enum attention_part
    enum weight_layout layout;
    bool eights; // operands can be read eight halves at a time
};

struct kernel {
    const char *name; // also the name in timings
    const struct kernel_build *build;
    int builds;
    uint32_t ops; // 1 << enum op, or-ed
    // One letter each, in binding order:
    //   x  activation operand, read as the build loads (texel or storage buffer)
    //   m  a matrix product's weights, the same way; storage buffer if no texel has their format
    //   s  a slot's state, the same way; always f32
    //   r  storage buffer, read    w  written    u  read and written
    const char *bindings;
    uint32_t push_bytes;
    bool shuffles; // subgroups that the probe has found to work
    struct {
        uint32_t least, most; // lanes of a subgroup; 0: any
    } subgroup;
    bool matrix;               // matrix units: f16 x f16 -> f32, which a probe has found to work
    enum weight_layout layout; // of the weights that it reads
    // Estimated GFLOP/s of one core of a software device, and of a GPU: the cheapest row is chosen.
    struct {
        float cpu, gpu;
    } rate;
    // Microseconds that each dispatch counts for on a software device, besides its work, because
    // its pipeline takes long to create: a kernel of networks with enough work.
    float start;
    // Planned operators: false when the row does not take this problem, else fills call's
    // constants, grid, shared memory, loop trips and flops, idle lanes included.
    bool (*plan)(const struct vk_caps *caps, const struct problem *p, struct ops_call *call);
};

enum { KERNEL_ROWS = 64 }; // at most
int kernel_count(void);
// False: built by a glslc that does not know GL_KHR_cooperative_matrix.
bool kernels_have_matrix_units(void);
const struct kernel *kernel_at(int row);

// The plans, beside their operators.
bool plan_linear_lane(const struct vk_caps *caps, const struct problem *p, struct ops_call *call);
bool plan_conv3_lane(const struct vk_caps *caps, const struct problem *p, struct ops_call *call);
bool plan_conv3_winograd(const struct vk_caps *caps, const struct problem *p,
                         struct ops_call *call);
bool plan_matmul_tile(const struct vk_caps *caps, const struct problem *p, struct ops_call *call);
bool plan_matmul_matrix(const struct vk_caps *caps, const struct problem *p, struct ops_call *call);
bool plan_matmul_matrix_wide(const struct vk_caps *caps, const struct problem *p,
                             struct ops_call *call);
bool plan_matmul_matrix_large(const struct vk_caps *caps, const struct problem *p,
                              struct ops_call *call);
bool plan_matmul_matrix_shares(const struct vk_caps *caps, const struct problem *p,
                               struct ops_call *call);
bool plan_matmul_matrix_split(const struct vk_caps *caps, const struct problem *p,
                              struct ops_call *call);
bool plan_attention_lane(const struct vk_caps *caps, const struct problem *p,
                         struct ops_call *call);
bool plan_attention_tile(const struct vk_caps *caps, const struct problem *p,
                         struct ops_call *call);
bool plan_attention_matrix(const struct vk_caps *caps, const struct problem *p,
                           struct ops_call *call);
bool plan_attention_matrix_wide(const struct vk_caps *caps, const struct problem *p,
                                struct ops_call *call);
bool plan_attention_any(const struct vk_caps *caps, const struct problem *p, struct ops_call *call);

// ---- choice ---------------------------------------------------------------------------------

// The rows and loads that a device prefers to cheaper ones.
struct kernel_wish {
    uint64_t rows;  // 1 << row
    unsigned ops;   // 1 << enum op: with a wished row
    unsigned loads; // 1 << enum operand_load
};

// The parts of a device that its proofs found broken.
struct kernel_broken {
    bool texels, shuffles, matrix;
};

struct kernel_choice {
    const struct kernel *kernel;
    const struct kernel_build *build;
};

enum { KERNEL_WHY = 256 };

// The row and build that the tuner found fastest for the call's class, else the cheapest that take
// it; fills what the row plans of *call. False, with a phrase in why: there is none. Depends on one
// sample's shape, the storages and the device alone, except for the load of operands, which changes
// no bit of a result.
bool kernel_choose(const struct ops_device *dev, struct ops_call *call, struct kernel_choice *out,
                   char why[KERNEL_WHY]);

// A row and a build that take a call, and their estimated cost in seconds.
struct kernel_candidate {
    int row, build;
    double cost;
};
enum { KERNEL_CANDIDATES = 16 };
// The candidates of a call, in the order of the table; returns their number.
int kernel_candidates(const struct ops_device *dev, const struct ops_call *call,
                      struct kernel_candidate out[KERNEL_CANDIDATES]);

// Parses a list of names, each a row's, a word of one ("lane"), or a load ("texel"). Errors:
// INVALID for an unknown name; UNSUPPORTED when the device has nothing that a name stands for.
enum err kernel_wish(const struct ops_device *dev, const char *names, struct kernel_wish *out,
                     char why[KERNEL_WHY]);

// False, with a phrase, when the device lacks what every row of some operator needs.
bool kernels_suffice(const struct ops_device *dev, char why[KERNEL_WHY]);

// True of the binding letters that are read as the build loads.
bool kernel_reads_operand(char letter);
// True when this build reads the binding through a texel view.
bool kernel_reads_texels(const struct kernel_build *b, char letter);

#endif
