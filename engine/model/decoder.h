// A decoder turns latents into pixels. There is one class for each vae in model_index.json: a new
// one is a file and a row in classes.c. Thread: the engine's worker; a config is plain data.
#ifndef IMAGEND_DECODER_H
#define IMAGEND_DECODER_H

#include "hfconfig.h"
#include "layers.h"

enum { DECODER_MAX_NORMS = 2 * VAE_MAX_LEVELS * (VAE_MAX_LAYERS + 1) + 1 };

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

// The same in two parts, of which the second, where pixels become many, can run on bands of rows:
// an output depends on the rows within `halo` of it, and on statistics of the whole map.
struct decoder_norm {
    const struct tensor *gamma, *beta; // f32, [C]
    uint32_t groups;
    float eps;
};
struct decoder_bands {
    uint32_t first, rows;        // of the band that are measured, in latents
    bool own;                    // norms take the band's own statistics; else lines
    const struct tensor *lines;  // per norm, as op_group_norm_lines takes them
    struct op_moments *measured; // per norm: receives its input's statistics
};
// z [1, H, W, channels] -> features [1, H, W, C].
struct tensor decoder_record_head(const struct decoder *d, struct ops *o, const struct tensor *z);
struct tensor decoder_record_tail(const struct decoder *d, struct ops *o,
                                  const struct tensor *features, const struct decoder_bands *b);
uint32_t decoder_halo(const struct decoder *d);
uint32_t decoder_features(const struct decoder *d); // channels C
int decoder_norms(const struct decoder *d);         // of the tail, at most DECODER_MAX_NORMS
struct decoder_norm decoder_norm(const struct decoder *d, int index);

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
    // b NULL: of the whole map. Releases features that belong to the recording.
    struct tensor (*tail)(const struct decoder *d, struct ops *o, struct tensor features,
                          const struct decoder_bands *b, const struct tap *tap);
    uint32_t (*halo)(const struct decoder *d);
    uint32_t (*features)(const struct decoder *d);
    int (*norms)(const struct decoder *d);
    struct decoder_norm (*norm)(const struct decoder *d, int index);
};
extern const struct decoder_class vae_decoder;

#endif
