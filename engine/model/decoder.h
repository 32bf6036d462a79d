// A decoder turns latents into pixels. There is one class for each vae in model_index.json: a new
// one is a file and a row in classes.c. Thread: the engine's worker; a config is plain data.
#ifndef IMAGEND_DECODER_H
#define IMAGEND_DECODER_H

#include "hfconfig.h"
#include "layers.h"

struct decoder_class;

struct decoder_config {
    const struct decoder_class *cls;
    int channels; // of the latents
    int factor;   // pixels per latent along an edge
    // The decoder takes (latents) / scaling + shift.
    float scaling, shift;
    union {
        struct vae_config vae;
    };
};

// The first member of every decoder.
struct decoder {
    const struct decoder_class *cls;
    struct decoder_config config;
    uint64_t parameters;
};

// cls: the name in model_index.json. Errors: UNSUPPORTED, as hfconfig.h.
enum err decoder_read(const char *cls, const char *path, struct decoder_config *out,
                      struct fault *why);
// The network's dimensions in words, for inspect.
void decoder_describe(const struct decoder_config *c, char *out, size_t n);

// Errors: FORMAT (missing, surplus or misshapen tensors, named in *why), UNSUPPORTED,
// NO_DEVICE_MEMORY. dev NULL: only counts the tensors. Owner: the caller destroys *out.
enum err decoder_load(struct ops_device *dev, const struct decoder_config *c, struct weights *w,
                      enum dtype dtype, struct decoder **out, struct fault *why);
void decoder_destroy(struct decoder **d);
// Records the decoder. z [N, H, W, channels], scaled and shifted. Returns [N, H factor, W factor,
// 3], about in [-1, 1]; its memory belongs to the recording.
struct tensor decoder_record(const struct decoder *d, struct ops *o, const struct tensor *z,
                             const struct tap *tap);

// The same in parts: the head, and segments behind it, where pixels become many. A segment begins
// with a norm; given that norm's lines, it can run on bands of rows.
struct decoder_segment {
    const struct tensor *gamma, *beta; // of its norm: f32, [C]
    uint32_t groups;
    float eps;
    uint32_t in, out; // channels
    uint32_t added;   // channels of the map before its input, which it adds; 0: it does not
    uint32_t scale;   // rows of its input per row of latents
    uint32_t up;      // rows of its output per row of its input
    uint32_t halo;    // how many rows of input beyond its own an output depends on
};
struct decoder_input {
    const struct tensor *x;     // [1, rows, W scale, in]
    const struct tensor *added; // [1, rows, W scale, added]; NULL: none
    const struct tensor *lines; // as op_group_norm_lines takes them; NULL: the statistics of x
};
// z [1, H, W, channels] -> [1, H, W, C], the input of segment 0. Each segment's output is the input
// of the next; the last one's is the image. Inputs that no later segment needs are released.
struct tensor decoder_record_head(const struct decoder *d, struct ops *o, const struct tensor *z);
struct tensor decoder_record_segment(const struct decoder *d, struct ops *o, int index,
                                     const struct decoder_input *in);
int decoder_segments(const struct decoder *d);
struct decoder_segment decoder_segment(const struct decoder *d, int index);

// ---- for the classes --------------------------------------------------------------------------

struct decoder_class {
    const char *name;
    enum err (*read)(const char *path, struct decoder_config *out, struct fault *why);
    void (*describe)(const struct decoder_config *c, char *out, size_t n);
    size_t bytes; // of the decoder, which is allocated and zeroed before load
    enum err (*load)(struct decoder *d, struct loader *l, struct fault *why);
    void (*deinit)(struct decoder *d);
    struct tensor (*head)(const struct decoder *d, struct ops *o, const struct tensor *z,
                          const struct tap *tap);
    int (*segments)(const struct decoder *d);
    struct decoder_segment (*segment)(const struct decoder *d, int index);
    struct tensor (*record_segment)(const struct decoder *d, struct ops *o, int index,
                                    const struct decoder_input *in, const struct tap *tap);
};
extern const struct decoder_class vae_decoder;

#endif
