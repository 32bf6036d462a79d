// The operators. A network is written down once as op_ calls on a recorder (`struct ops`), which
// allocates activations, chooses kernels from the kernel table and records their dispatches; the
// finished recording is then run again and again. Every op keeps one reduction order per output
// element, whatever the batch size, so a sample's result never depends on its neighbours.
// Recording calls keep the first error, which ops_end returns. Thread: the engine's worker.
//
// Notation: N samples, H rows, W columns, C channels; L tokens (h = 1, w = L). Activations are f32
// or f16 (the recorder's dtype), sums are f32. All tensor arguments may be channel views.
#ifndef IMAGEND_OPS_H
#define IMAGEND_OPS_H

#include "shared.h" // enum op_act, struct op_lane
#include "tensor.h"

struct ops_device;
struct ops;
struct fault;

// ---- device ---------------------------------------------------------------------------------

struct ops_open_params {
    const char *device, *cache_dir;
    size_t memory_limit;
    bool validation, profile;
    const char *dtype;   // "f32", "f16", NULL: what suits the device
    const char *weights; // of matrix products: "f32", "f16", "bf16", "q8", "q4"; NULL: as dtype
    const char *tune;    // measure kernels: "on", "off", "auto" or NULL: on GPUs
};

struct ops_device_info {
    char name[256], driver[256];
    bool cpu;
    enum dtype dtype;   // storage of activations, and of weights outside matrix products
    enum dtype weights; // format of the weights of matrix products
    size_t memory_bytes;
    char notice[160]; // for the user; "": none
};

struct ops_memory {
    size_t used, peak, reserved, limit;
};

enum err ops_device_open(const struct ops_open_params *p, struct ops_device **out,
                         struct fault *why);
void ops_device_close(struct ops_device **dev);
const struct ops_device_info *ops_device_info(const struct ops_device *dev);
void ops_device_memory(const struct ops_device *dev, struct ops_memory *out);
// Replaces ops_open_params.memory_limit.
void ops_device_set_memory_limit(struct ops_device *dev, size_t limit);
// From now on tensors, weights and recordings take no memory and cannot be run, but are counted:
// what they would take, as if nothing else were there. Ending it forgets them: destroy them first.
// Errors: NO_MEMORY.
enum err ops_device_count(struct ops_device *dev, bool on);
struct ops_counted {
    size_t used, peak;  // bytes
    size_t activations; // of used
    size_t products;    // of used: those in a stream
    size_t largest;     // half of what streaming them takes at least
};
void ops_device_counted(const struct ops_device *dev, struct ops_counted *out);
// Waits until everything that was uploaded has arrived: once per network. Errors: DEVICE_LOST,
// TIMEOUT.
enum err ops_device_settle(struct ops_device *dev);
// Describes the last failure with this code: the Vulkan call and its result, or the operator, its
// shape, the limit and the device. Never NULL. Owner: the device's, until its next failure.
const char *ops_device_why(const struct ops_device *dev, enum err e);
unsigned ops_device_validation_messages(const struct ops_device *dev);
// One line per Vulkan device; freed by the caller.
enum err ops_device_list(char **text, struct fault *why);

// ---- recording ------------------------------------------------------------------------------

// dtype: storage of the activations this recording allocates.
enum err ops_begin(struct ops_device *dev, enum dtype dtype, struct ops **out);
// Errors: the first one met while recording. Creates and warms missing pipelines.
enum err ops_end(struct ops *o);
void ops_destroy(struct ops **o);
// Run once and wait until done. Errors: DEVICE_LOST, TIMEOUT.
enum err ops_run(struct ops *o);
// The error so far, for callers that must stop early.
enum err ops_error(const struct ops *o);
// Make this recording fail with e.
void ops_fail(struct ops *o, enum err e);
// Floating point operations (2 per multiply-add) of the matrix products recorded so far.
double ops_flops(const struct ops *o);
unsigned ops_dispatches(const struct ops *o);

// A fresh activation; undefined contents except zero channel padding. Its memory is reused after
// ops_release (a view releases nothing; releasing is optional). The recordings of a device share
// this memory: what a run leaves in it stays readable until another recording runs or begins.
struct tensor ops_temp(struct ops *o, uint32_t n, uint32_t h, uint32_t w, uint32_t c);
struct tensor ops_temp_dtype(struct ops *o, enum dtype dtype, uint32_t n, uint32_t h, uint32_t w,
                             uint32_t c);
void ops_release(struct ops *o, const struct tensor *t);

// Times of the last run, per row of the kernel table.
struct ops_timing {
    const char *name;
    uint64_t calls;
    double seconds;
    double flops; // of these calls; 0 where they are not counted
};
int ops_timings(struct ops *o, struct ops_timing *out, int max);

// ---- weights --------------------------------------------------------------------------------

// A matrix product's weights, repacked into what the chosen kernel reads. bias may be absent.
struct op_weight;

struct op_weight_params {
    const void *weight; // [out, in] or [out, in, kh, kw], row-major
    enum dtype from;    // its type: f32, f16 or bf16
    const float *bias;  // [out] or NULL
    uint32_t out, in;
    uint32_t kernel;  // 1 (linear, conv 1x1) or 3 (conv 3x3, padding 1)
    uint32_t side;    // pixels on a side of the maps that most calls have; 0: unknown
    enum dtype dtype; // storage; with scales only if in is a multiple of 32, else f16
    // The weights were stored with a half as the scale of every 32: scales that reproduce them
    // exactly are found, if there are any.
    bool exact;
    struct op_stream *stream; // it belongs to; then weight and bias come later. NULL: none
    bool seldom;              // not needed at every step: streamed before others
};
enum err op_weight_create(struct ops_device *dev, const struct op_weight_params *p,
                          struct op_weight **out);
void op_weight_destroy(struct op_weight **w);
size_t op_weight_bytes(const struct op_weight *w);

// ---- streams --------------------------------------------------------------------------------

// The products of a network, each a unit with a size that is read from its file on its own, so that
// they need not all be in device memory at once. Those that do not fit take turns in two buffers of
// the size of the largest. A recording with such products consists of parts, whose products fit in
// one buffer. While a part runs, the products of the next are read: into the other buffer where the
// CPU sees device memory; elsewhere the second buffer is the CPU's, and is copied when the part
// has finished. A recording uses at most one stream.
struct op_stream;

enum err op_stream_create(struct ops_device *dev, struct op_stream **out);
// Destroy its weights and their recordings first.
void op_stream_destroy(struct op_stream **s);

struct op_stream_params {
    size_t room; // bytes for all products
    // Calls op_weight_fill for each product that is wanted.
    enum err (*fill)(void *ctx);
    void *ctx;
};
// Decides once, when all products are there, which of them are kept in memory, and fills those.
// Errors: NO_DEVICE_MEMORY, also if two of the largest take more than the room; those of fill.
enum err op_stream_place(struct op_stream *s, const struct op_stream_params *p);
bool op_weight_wanted(const struct op_weight *w);
// Reads a product into its present place. p: as at its creation, with weight and bias.
enum err op_weight_fill(struct op_weight *w, const struct op_weight_params *p);

// ---- matrix products ------------------------------------------------------------------------

// y = (act(x W + bias) * mul + residual) * scale, each part optional.
struct op_epilogue {
    enum op_act act;
    const struct tensor *mul;      // same shape as y
    const struct tensor *residual; // same shape as y; may be y itself
    float scale;                   // 0 means 1
};

// Shape: x [N, H, W, in] -> y [N, H, W, out], over every pixel or token. e may be NULL.
void op_linear(struct ops *o, const struct tensor *x, const struct op_weight *w,
               const struct op_epilogue *e, const struct tensor *y);
// Stride 1, zero padding kernel/2. Shape: x [N, H, W, in] -> y [N, H, W, out].
void op_conv2d(struct ops *o, const struct tensor *x, const struct op_weight *w,
               const struct op_epilogue *e, const struct tensor *y);

// One softmax over up to two key segments (IF: text first, then image). Online softmax: memory is
// linear in the sequence. q [N, Lq, heads*d], k and v [N, L, heads*d] -> y [N, Lq, heads*d].
struct op_attention_params {
    const struct tensor *q;
    struct {
        const struct tensor *k, *v;
        const struct tensor *index; // u32 [N]: sample n reads k[index[n]]; NULL: k[n]
    } segment[2];
    int segments;
    uint32_t heads;
    float scale;                // on q k^T
    const struct tensor *bias;  // f32 h=Lq, w=Lk, c=heads, n=1; NULL: none
    const struct tensor *valid; // u32 [N, Lk] of segment 0: 0 = masked out; NULL: all valid
    const struct tensor *y;
};
void op_attention(struct ops *o, const struct op_attention_params *p);

// ---- norms ----------------------------------------------------------------------------------

// y = act(GroupNorm(x) * (1 + scale) + shift). Groups are runs of c/groups channels, which need not
// be a multiple of 4. Statistics over the group's channels and all pixels of a sample.
struct op_group_norm_params {
    const struct tensor *x, *y;        // [N, H, W, C]
    const struct tensor *gamma, *beta; // f32, c = C
    uint32_t groups;
    float eps;
    const struct tensor *scale_shift; // [N, 1, 1, 2C]: scale first, then shift; NULL: none
    enum op_act act;
};
void op_group_norm(struct ops *o, const struct op_group_norm_params *p);
// GroupNorm of a map that is computed in pieces: the statistics of each piece are read after its
// run, merged by the caller, and applied as lines. x [1, H, W, C].
struct op_moments {
    struct tensor parts; // belongs to the recording
    uint32_t runs, stride, run, pixels, c;
};
struct op_moments op_measure(struct ops *o, const struct tensor *x);
// mean, squares [C]: each channel's mean, and sum of squares about it. Errors: as tensor_download,
// NO_MEMORY.
enum err op_moments_read(const struct op_moments *m, double *mean, double *squares);
// y = act((x - mean) * gain + offset) with lines f32 [1, 1, 1, 3 C4]: mean, gain, offset of each
// channel, C4 = C rounded up to a multiple of 4.
void op_group_norm_lines(struct ops *o, const struct tensor *x, const struct tensor *lines,
                         enum op_act act, const struct tensor *y);
// Over the channels of each token. beta may be NULL.
void op_layer_norm(struct ops *o, const struct tensor *x, const struct tensor *gamma,
                   const struct tensor *beta, float eps, const struct tensor *y);
// T5's: no mean, no shift.
void op_rms_norm(struct ops *o, const struct tensor *x, const struct tensor *gamma, float eps,
                 const struct tensor *y);

// ---- elementwise, shapes ----------------------------------------------------------------------

void op_act(struct ops *o, enum op_act act, const struct tensor *x, const struct tensor *y);
// y = (a + b) * scale; y may be a or b. A b with n=N, h=w=1 is broadcast over pixels.
void op_add(struct ops *o, const struct tensor *a, const struct tensor *b, float scale,
            const struct tensor *y);
void op_copy(struct ops *o, const struct tensor *x, const struct tensor *y); // converts dtype
// y[n] = mean over h*w of x[n]. Shape: x [N, H, W, C] -> y [N, 1, 1, C].
void op_mean_pixels(struct ops *o, const struct tensor *x, const struct tensor *y);
void op_avg_pool2(struct ops *o, const struct tensor *x, const struct tensor *y);
void op_upsample_nearest2(struct ops *o, const struct tensor *x, const struct tensor *y);
// align_corners: the corners of both are the same points; else the edges are, and pixels are
// squares between them. Source: torch.nn.functional.interpolate.
void op_upsample_bilinear(struct ops *o, bool align_corners, const struct tensor *x,
                          const struct tensor *y);
// Source: torch.nn.functional.pixel_unshuffle / pixel_shuffle channel order (c*p*p + dy*p + dx).
void op_pixel_unshuffle(struct ops *o, uint32_t p, const struct tensor *x, const struct tensor *y);
void op_pixel_shuffle(struct ops *o, uint32_t p, const struct tensor *x, const struct tensor *y);

// ---- embeddings -------------------------------------------------------------------------------

// y[n, l] = table[ids[n, l]]. ids u32 [N, L], table [1, V, C] (h = 1, w = V).
void op_embed(struct ops *o, const struct tensor *ids, const struct tensor *table,
              const struct tensor *y);
// T5 bidirectional buckets. table f32 [buckets, heads] (w = buckets, c = heads) -> bias as
// op_attention takes it (h = w = L, c = heads, f32). Source: transformers T5Attention.
void op_relative_bias(struct ops *o, const struct tensor *table, uint32_t max_distance,
                      const struct tensor *bias);
// Sinusoidal features, cos first when flip. t f32 [N] (n = N, c = 1) -> y [N, 1, 1, dim].
// Source: diffusers get_timestep_embedding, max_period 10000.
void op_time_embed(struct ops *o, const struct tensor *t, bool flip, float freq_shift,
                   const struct tensor *y);

// ---- sampling ---------------------------------------------------------------------------------
// Slot tensors have 3 channels, and in x and original, behind them, the mark of kept pixels: a view
// of the first 3 channels of a tensor of 4. Latents have 4 channels and no marks.

// z ~ N(0, 1): Philox4x32-10 keyed by the lane's seed, counter (element/4, step, stage, picture),
// Box-Muller. Writes dst[lane.slot]; element = (h*W + w)*C + c.
// Lanes are a mapped u32 tensor [lanes, 1, 1, 32] here and below.
void op_noise(struct ops *o, const struct tensor *lanes, const struct tensor *dst);

// Gather the U-Net's input batch: for lane i, samples i (and lanes + i when guided, so the batch is
// all negative-prompt samples first, as diffusers orders them) get the channels of x[slot] and,
// when low is given, the 3 of low[slot]; then pixel_unshuffle by patch, which is 1 for latents.
void op_gather_input(struct ops *o, const struct tensor *lanes, const struct tensor *x,
                     const struct tensor *low, uint32_t patch, bool guided, const struct tensor *y);

// One sampler step for every lane. m: U-Net output [B, H, W, 3, 6 or 4] at full resolution, B =
// lanes or 2*lanes; 6: with a variance; 4: latents, without a dynamic threshold. Guides, predicts
// x0, thresholds, writes history and x. noise: z as op_noise wrote it (or as a test gives it). x0
// and the new x must be finite, or the lane's not_finite is set: a threshold would turn them into
// numbers again. Source: the diffusers schedulers' step functions, see samplers. A kept pixel stays
// as it is, and x0 is then the pixel itself.
struct op_sampler_params {
    const struct tensor *lanes; // mapped u32, n = lanes, c = 32
    const struct tensor *m;
    bool guided;
    bool dynamic;                    // a dynamic threshold is wanted by some lane
    const struct tensor *x;          // [slots, H, W, C] f32
    const struct tensor *history[3]; // x0 of this and the last two steps, [slots, H, W, C] f32
    const struct tensor *noise;      // [slots, H, W, C] f32
};
void op_sampler_step(struct ops *o, const struct op_sampler_params *p);

// y[slot] = a x[slot] + b noise[slot] for every lane (image_noising_scheduler): a = lane.cx,
// b = lane.noise. All three are slot tensors; y may be x. Kept pixels of x are copied.
void op_add_noise(struct ops *o, const struct tensor *lanes, const struct tensor *x,
                  const struct tensor *noise, const struct tensor *y);

// Pixels that original marks as kept take their place in x, as noisy as the rest of it: x[slot] =
// kept_signal original[slot] + kept_noise z, with a z of their own that is the same in every step.
// Both are slot tensors.
void op_keep(struct ops *o, const struct tensor *lanes, const struct tensor *original,
             const struct tensor *x);

// [-1, 1] -> 0..255, rounded to nearest even: y u8 dense [N, H, W, 3] in mapped memory.
void op_to_rgb8(struct ops *o, const struct tensor *x, const struct tensor *y);

#endif
