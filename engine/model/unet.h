// UNet2DConditionModel as in DeepFloyd IF and Stable Diffusion: text-conditioned diffusion of
// pixels or latents, base and super-resolution, as configured by config.json. The text-dependent
// part is computed once per prompt into a `struct unet_text`; the rest is recorded once per batch
// size and replayed at every step. Thread: the engine's worker. Source: diffusers
// UNet2DConditionModel, unet_2d_blocks, resnet, attention_processor, embeddings.
#ifndef IMAGEND_UNET_H
#define IMAGEND_UNET_H

#include "hfconfig.h"
#include "layers.h"

struct unet;

// Reads and repacks every weight. Errors: FORMAT (missing, surplus or misshapen tensors, named in
// *why), UNSUPPORTED, NO_DEVICE_MEMORY. Owner: the caller destroys *out.
enum err unet_load(struct ops_device *dev, const struct unet_config *config, struct weights *w,
                   enum dtype dtype, struct unet **out, struct fault *why);
void unet_destroy(struct unet **u);
const struct unet_config *unet_get_config(const struct unet *u);
uint64_t unet_parameters(const struct unet *u);

// The text-dependent tensors of `entries` prompts of L tokens: keys and values of every attention,
// and the pooled embedding. Owner: the caller, who destroys it after the recordings that use it.
struct unet_text;
enum err unet_text_create(const struct unet *u, uint32_t entries, uint32_t length,
                          struct unet_text **out);
void unet_text_destroy(struct unet_text **t);

// Records the text part: states [n, L, encoder_hid_dim] -> entries first .. first + n of text.
void unet_record_text(const struct unet *u, struct ops *o, const struct tensor *states,
                      struct unet_text *text, uint32_t first, const struct tap *tap);

struct unet_inputs {
    const struct tensor *sample;      // [N, H/p, W/p, in_channels*p*p]: pixel-unshuffled by p
    const struct tensor *timestep;    // f32 [N]
    const struct tensor *noise_level; // f32 [N]; class_embed_type "timestep" only
    const struct tensor *noise_index; // u32 [N]: the noise level; num_class_embeds only
    const struct tensor *text_index;  // u32 [N]: each sample's entry in text
    const struct unet_text *text;
};

// Records one forward pass. Returns [N, H, W, out_channels]; its memory belongs to the recording.
// H/p and W/p must be multiples of 2^(levels-1), otherwise the recording fails with INVALID.
struct tensor unet_record(const struct unet *u, struct ops *o, const struct unet_inputs *in,
                          const struct tap *tap);

#endif
