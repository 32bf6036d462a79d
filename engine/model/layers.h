// The part that the loaders and recordings of all networks share: tensors requested by name and
// shape and repacked into device memory, matrix products joined from layers with the same input,
// and the tap that shows a recording's named points. Thread: the engine's worker.
#ifndef IMAGEND_LAYERS_H
#define IMAGEND_LAYERS_H

#include "ops.h"
#include "weights.h"

enum { LAYER_NAME = 128 };

// ---- loading ----------------------------------------------------------------------------------

// One network being loaded. The first error is kept, and what follows it is skipped.
struct loader {
    struct ops_device *dev; // NULL: only count the tensors
    bool dry;               // make tensors without values, for ops_device_count
    struct weights *w;
    enum dtype dtype;   // of other tensors than matrix products and norms
    enum dtype weights; // of matrix products: the device's
    uint32_t side;      // of the maps that the layers to come have usually, in pixels; 0: unknown
    enum err err;
    struct op_stream *stream; // of the matrix products; NULL: each is loaded at once
    bool again;               // the products are there: fill those that are wanted
    bool seldom;              // what follows is not needed at every step
};

struct loader load_begin(struct ops_device *dev, struct weights *w, enum dtype dtype);

// A network whose products may be streamed.
struct load_stream;
struct load_params {
    struct ops_device *dev; // NULL: only count the tensors
    struct weights *w;
    enum dtype dtype;
    const char *what; // "text encoder"
    // Loads every layer of the network. It is called again for products that come later; the
    // layers must then be found where they were, and what is loaded is skipped.
    enum err (*load)(void *network, struct loader *l, struct fault *why);
    void *network;
};
// Loads a network and checks that the checkpoint has no other tensors. stream: NULL, or receives
// what is needed to stream products, which then take no more than weights_room; NULL if they need
// not be. Owner: the caller destroys *stream after the network's layers, also on error. Errors: the
// first one met, FORMAT as weights_finish, NO_DEVICE_MEMORY.
enum err load_checkpoint(const struct load_params *p, uint64_t *parameters,
                         struct load_stream **stream, struct fault *why);
void load_stream_destroy(struct load_stream **s);

struct norm {
    struct tensor gamma, beta; // f32; beta.buf NULL: none
};

// Shape: [rows, c] -> out [1, 1, rows, c].
void load_table(struct loader *l, struct tensor *out, enum dtype dtype, uint32_t rows, uint32_t c,
                const char *fmt, ...) __attribute__((format(printf, 6, 7)));
void load_norm(struct loader *l, struct norm *n, uint32_t c, bool beta, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
void load_linear(struct loader *l, struct op_weight **out, uint32_t rows, uint32_t in, bool bias,
                 const char *fmt, ...) __attribute__((format(printf, 6, 7)));
void load_conv(struct loader *l, struct op_weight **out, uint32_t rows, uint32_t in,
               uint32_t kernel, const char *fmt, ...) __attribute__((format(printf, 6, 7)));
// A linear layer of 2 * rows outputs as two products: out[0] is its first half.
void load_halves(struct loader *l, struct op_weight *out[2], uint32_t rows, uint32_t in,
                 const char *fmt, ...) __attribute__((format(printf, 5, 6)));
// A 3x3 convolution with stride 2 and a padding of 1, for input that was unshuffled by 2: a pixel
// and its three neighbors are one pixel of 4 * in channels.
void load_conv_down(struct loader *l, struct op_weight **out, uint32_t rows, uint32_t in,
                    const char *fmt, ...) __attribute__((format(printf, 5, 6)));
void norm_deinit(struct norm *n);

// Linear layers with the same input as one product; the rows of each follow those before it. The
// parts must add up to `rows`. joined_end frees what joined_begin allocated, also after an error.
struct joined {
    struct loader *l;
    struct op_weight **out;
    uint32_t rows, in, row;
    bool has_bias, exact, skip;
    enum dtype dtype; // of the product: a format that holds all parts
    enum dtype from;  // of weight: the parts', or f32 when they differ
    void *weight;
    float *bias;
};
void joined_begin(struct joined *j, struct loader *l, struct op_weight **out, uint32_t rows,
                  uint32_t in, bool bias);
void joined_add(struct joined *j, uint32_t rows, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void joined_end(struct joined *j);

// ---- taps -------------------------------------------------------------------------------------

// Called with each named point while recording (names as in named_modules of diffusers and
// transformers); fn may record a copy of t. The recording is otherwise the same with and without a
// tap: a value that exists only inside a fused dispatch has no point.
struct tap {
    void (*fn)(void *ctx, struct ops *o, const char *name, const struct tensor *t);
    void *ctx;
};
// tap NULL: does nothing.
void tap_point(const struct tap *tap, struct ops *o, const struct tensor *t, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

#endif
