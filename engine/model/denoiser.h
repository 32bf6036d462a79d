// A denoiser predicts the noise in a state: of pixels, or of the latents that a decoder turns into
// pixels. There is one class for each denoiser in model_index.json: a new one is a file and a row
// in classes.c. The text-dependent part is computed once per prompt; the rest is recorded once per
// batch size and replayed at every step. Thread: the engine's worker; a config is plain data.
#ifndef IMAGEND_DENOISER_H
#define IMAGEND_DENOISER_H

#include "hfconfig.h"
#include "layers.h"

struct denoiser;
struct denoiser_class;
struct denoiser_text;

struct denoiser_config {
    const struct denoiser_class *cls;
    int in_channels;    // of the state and, behind them, of the low-res image
    int out_channels;   // of the state and, behind them, of its variance if it predicts one
    int size;           // edge of the state that it was trained with; 0: not given
    int multiple;       // the state's height and width must be multiples of it
    int patch;          // the input is pixel-unshuffled by it
    int text_width;     // of a text vector
    int noise_levels;   // number of noise levels; 0: any, or none
    bool align_corners; // for enlarging the low-res image; see op_upsample_bilinear
    union {
        struct unet_config unet;
    };
};

// cls: the name in model_index.json. Errors: UNSUPPORTED, as hfconfig.h.
enum err denoiser_read(const char *cls, const char *path, struct denoiser_config *out,
                       struct fault *why);
// The network's dimensions in words, for inspect.
void denoiser_describe(const struct denoiser_config *c, char *out, size_t n);

// Reads and repacks every weight. Errors: FORMAT (missing, surplus or misshapen tensors, named in
// *why), UNSUPPORTED, NO_DEVICE_MEMORY. dev NULL: only counts the tensors. Owner: the caller
// destroys *out.
enum err denoiser_load(struct ops_device *dev, const struct denoiser_config *c, struct weights *w,
                       enum dtype dtype, struct denoiser **out, struct fault *why);
void denoiser_destroy(struct denoiser **d);
const struct denoiser_config *denoiser_get_config(const struct denoiser *d);
uint64_t denoiser_parameters(const struct denoiser *d);

// The text-dependent tensors of `entries` prompts of L tokens. Owner: the caller, who destroys it
// after the recordings that use it; the denoiser may be gone then.
enum err denoiser_text_create(const struct denoiser *d, uint32_t entries, uint32_t length,
                              struct denoiser_text **out);
void denoiser_text_destroy(struct denoiser_text **t);
// Records the text part: states [n, L, text_width] -> entries first .. first + n of text.
void denoiser_record_text(const struct denoiser *d, struct ops *o, const struct tensor *states,
                          struct denoiser_text *text, uint32_t first);

struct denoiser_inputs {
    const struct tensor *sample;      // [N, H/p, W/p, in_channels*p*p]: pixel-unshuffled by p
    const struct tensor *timestep;    // f32 [N]
    const struct tensor *noise_level; // f32 [N]
    const struct tensor *noise_index; // u32 [N]: the same number
    const struct tensor *text_index;  // u32 [N]: each sample's entry in text
    const struct denoiser_text *text;
};
// Records one forward pass. Returns [N, H, W, out_channels]; its memory belongs to the recording.
struct tensor denoiser_record(const struct denoiser *d, struct ops *o,
                              const struct denoiser_inputs *in);

// ---- for the classes --------------------------------------------------------------------------

struct denoiser_class {
    const char *name;
    enum err (*read)(const char *path, struct denoiser_config *out, struct fault *why);
    void (*describe)(const struct denoiser_config *c, char *out, size_t n);
    enum err (*load)(struct ops_device *dev, const struct denoiser_config *c, struct weights *w,
                     enum dtype dtype, void **network, struct fault *why);
    void (*destroy)(void *network);
    uint64_t (*parameters)(const void *network);
    enum err (*text_create)(const void *network, uint32_t entries, uint32_t length, void **text);
    void (*text_destroy)(void *text);
    void (*record_text)(const void *network, struct ops *o, const struct tensor *states, void *text,
                        uint32_t first);
    struct tensor (*record)(const void *network, struct ops *o, const struct denoiser_inputs *in,
                            const void *text);
};
extern const struct denoiser_class unet_denoiser;

#endif
