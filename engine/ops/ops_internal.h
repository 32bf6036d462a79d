// Shared by the files of engine/ops: the device, the recorder, and ops_dispatch, through which
// every operator runs. Not for other layers. Thread: the engine's worker.
#ifndef IMAGEND_OPS_INTERNAL_H
#define IMAGEND_OPS_INTERNAL_H

#include "kernels.h"
#include "ops.h"
#include "quirks.h"

struct pipeline_key {
    struct kernel_choice choice;
    bool act_f16, weight_f16; // what texel views of operands hold
    int specs;
    uint32_t spec[VK_MAX_SPEC];
};

struct pipeline {
    struct pipeline_key key;
    struct vk_pipeline *vk;
    bool warm; // has run once, with no workgroups: its machine code exists
};

struct ops_device {
    struct vk_device *vk;
    const struct vk_caps *caps;
    struct ops_device_info info;
    struct kernel_wish wish;
    struct kernel_broken broken;
    struct tuner *tuner;      // NULL: estimates choose
    struct vk_buffer *absent; // stands for operands that are not there
    struct pipeline *pipelines;
    int pipeline_count, pipeline_room;
    struct activations *activations; // shared by all recordings, which run one at a time
    int recording;                   // recordings between begin and end
    size_t products, largest;        // as ops_counted
    struct activations *real;        // set aside while memory is only counted; NULL: it is not
};

// Prefers these kernels (a list for kernel_wish; NULL: none) wherever they can run, for tests, the
// benchmark and the environment's IMAGEND_KERNEL. Weights keep the order that they were packed in.
// A test may also point dev->caps at limits that are lower than the device's. Errors: INVALID for
// an unknown name; UNSUPPORTED when the device, with these limits, cannot run what is named, or
// some operator at all.
enum err ops_device_prefer(struct ops_device *dev, const char *kernels);

// Fills dev->broken. Errors: those of a device that cannot run a shader, with the reason in *why.
enum err ops_prove(struct ops_device *dev, struct fault *why);
// Tries the loads of a software device, the cheaper one first: drivers of these have been wrong. A
// load that is right proves the subgroups too. try_load: the probe, or a test's.
typedef enum err ops_probe_fn(struct ops_device *dev, enum operand_load load, bool *good);
enum err ops_prove_loads(struct ops_device *dev, ops_probe_fn *try_load);
// *good: the device has matrix units, and a product and an attention of integers are exact.
enum err ops_prove_matrix(struct ops_device *dev, bool *good);

// The place of the pipeline with this key in dev->pipelines, made on demand (still without its
// Vulkan object); -1 when out of memory.
int pipeline_find(struct ops_device *dev, const struct pipeline_key *key);
// Creates every missing Vulkan object, in parallel.
enum err pipelines_create(struct ops_device *dev);
void pipelines_destroy(struct ops_device *dev);

// ---- recording --------------------------------------------------------------------------------

struct ops_call {
    enum op op;
    enum dtype dtype;              // of the activations: picks the build; f16 or anything else
    enum dtype weight_dtype;       // format of the weights, kernels with an `m` binding
    const struct problem *problem; // planned operators: the row fills what follows but arg and push
    int specs;
    uint32_t spec[VK_MAX_SPEC];                // the first is the workgroup's size
    const struct tensor *arg[VK_MAX_BINDINGS]; // binding order; NULL: absent
    const void *push;                          // the kernel's push struct
    uint32_t groups[3];
    size_t shared_bytes; // of one workgroup, where a kernel has arrays that are worth counting
    size_t trips;        // of one invocation's loops
    double work;         // flops with those of idle lanes
    double flops;
};
// Records one dispatch. Does nothing once the recording has failed. Operands that are too large for
// a texel buffer are read from storage buffers, by the same arithmetic. Errors are kept:
// UNSUPPORTED for what the device's limits do not allow.
void ops_dispatch(struct ops *o, const struct ops_call *call);

// More than a device allows, in words for a fault.
struct excess {
    const char *what;
    size_t need, most;
};
// "f16 [1, 64, 64, 320]"; "absent" for NULL.
enum { OPS_SHAPE_TEXT = 64 };
void ops_shape_text(const struct tensor *t, char text[OPS_SHAPE_TEXT]);
void ops_exceeds_text(const struct ops_device *dev, const char *op, const struct tensor *t,
                      const struct excess *x, char text[KERNEL_WHY]);
// Bytes that t's binding spans.
size_t ops_bound_bytes(const struct ops_device *dev, const struct tensor *t);

// Where t lies in its binding, for push structs. All zero when t is NULL.
struct view ops_view(const struct ops *o, const struct tensor *t);
// A grid of `count` invocations in workgroups of `local`; the shader's linear_id() numbers them.
void ops_groups(const struct vk_caps *caps, size_t count, uint32_t local, uint32_t groups[3]);
struct ops_device *ops_recorder_device(const struct ops *o);
// Where one binding cannot span all samples of one of these tensors (NULL: absent), calls `one` for
// each sample, with the tensors cut down to it, and returns true.
typedef void ops_part_fn(struct ops *o, const struct tensor *const t[], const void *params);
enum { OPS_MAX_SPLIT = 4 };
bool ops_by_sample(struct ops *o, const struct tensor *const t[], int count, ops_part_fn *one,
                   const void *params);
// The same where it cannot span one sample, in pieces of whole rows, for operators whose pixels do
// not depend on each other. The maps have the same size; what has one pixel stays whole.
bool ops_by_rows(struct ops *o, const struct tensor *const t[], int count, ops_part_fn *one,
                 const void *params);
// Rows of a piece; 0: none is needed, or a row is too long for one.
uint32_t ops_piece_rows(const struct ops *o, const struct tensor *const t[], int count);
// Rows of one sample.
struct tensor ops_rows(const struct tensor *t, uint32_t first, uint32_t rows);
// The tensors of a product in the memory where the next dispatch finds them.
void ops_place(struct ops *o, const struct op_weight *w, struct tensor *packed,
               struct tensor *bias);
// Fails the recording with UNSUPPORTED: op on t needs `need` of `what`, and there are `most`.
void ops_exceeds(struct ops *o, const char *op, const struct tensor *t, const char *what,
                 size_t need, size_t most);
// Fails the recording with UNSUPPORTED when an invocation's loops are longer than drivers can.
void ops_require_trips(struct ops *o, const char *op, const struct tensor *t, size_t trips);
// Fails the recording with INVALID, which names the calling function and the operands (NULL:
// absent), unless ok. Returns ok and that nothing failed before.
bool ops_require_at(struct ops *o, bool ok, const char *function, const struct tensor *const t[],
                    size_t count);
#define ops_require(o, ok, ...)                                                                    \
    ops_require_at((o), (ok), __func__, (const struct tensor *const[]){__VA_ARGS__},               \
                   sizeof((const struct tensor *const[]){__VA_ARGS__}) / sizeof(struct tensor *))

// vec4s of c channels.
static inline uint32_t vec4s(uint32_t c)
{
    return (c + 3) / 4;
}

// ---- activation memory --------------------------------------------------------------------------

// First fit over a growing set of buffers; released ranges are used again.
struct activations;
enum err activations_create(struct ops_device *dev, struct activations **out);
void activations_destroy(struct activations **a);
size_t activations_bytes(const struct activations *a);
void activations_reset(struct activations *a); // takes everything back
// Sets t->buf and t->offset for t's dtype and shape.
enum err activations_take(struct activations *a, struct tensor *t);
// True when t is a whole tensor that was taken and not released.
bool activations_release(struct activations *a, const struct tensor *t);

// ---- weights ------------------------------------------------------------------------------------

struct op_weight {
    struct tensor packed, bias; // bias f32, zeros when the layer has none
    uint32_t out, in, kernel;
    enum weight_layout layout; // of packed
    enum dtype format;         // a row of weight_format.c
    uint32_t scales;           // words of packed before its scales
    uint32_t lanes;            // that other layouts than rows are packed for
    // Of one in a stream, whose buffers are its own only if kept.
    struct op_stream *stream;
    size_t bytes; // on the device
    bool kept, seldom, wanted;
};

// Gives it memory of its own.
enum err op_weight_allocate(struct ops_device *dev, struct op_weight *w);
// A tensor without memory, and the bytes of its buffer.
struct tensor tensor_shaped(enum dtype dtype, const uint32_t shape[4]);
size_t tensor_buffer_bytes(const struct tensor *t);

// ---- streams ------------------------------------------------------------------------------------

enum err stream_add(struct op_stream *s, struct op_weight *w);
void stream_remove(struct op_stream *s, struct op_weight *w);

// The parts of one recording, by the products that are in memory.
struct stream_parts;
// Finds the memory of a product for dispatch number `at` of a recording: where it is in the last
// part, or in a new part, if it does not fit. *parts: NULL at first. Errors: NO_MEMORY; INVALID if
// the recording uses another stream, too.
enum err stream_use(struct stream_parts **parts, const struct op_weight *w, int at,
                    struct tensor *packed, struct tensor *bias);
void stream_parts_destroy(struct stream_parts **parts);
int stream_parts_count(const struct stream_parts *parts);
int stream_part_first(const struct stream_parts *parts, int part); // dispatch; the count: the end
// The command of a part, which the caller creates and fills; freed with the parts.
struct vk_cmd **stream_part_cmd(struct stream_parts *parts, int part);
// Runs the parts in order, each when its products are there, and waits. Errors: as ops_run; those
// of reading the products.
enum err stream_run(struct stream_parts *parts, double seconds);

uint16_t half_from_float(float f);
// The same for n values, some ten times faster each.
void halves_from_floats(const float *restrict from, size_t n, uint16_t *restrict to);
float float_from_half(uint16_t h);

#endif
