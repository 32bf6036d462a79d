// AutoencoderKL's decoder: latents to pixels, as configured by config.json. No pipeline uses it
// yet; tests compare it with diffusers. Thread: the engine's worker. Source: diffusers
// AutoencoderKL, Decoder, UpDecoderBlock2D.
#ifndef IMAGEND_VAE_H
#define IMAGEND_VAE_H

#include "hfconfig.h"
#include "layers.h"

struct vae;

// Reads the decoder's weights; those of the encoder are ignored. Errors: FORMAT (missing, surplus
// or misshapen tensors, named in *why), UNSUPPORTED, NO_DEVICE_MEMORY. dev NULL: only counts the
// tensors. Owner: the caller destroys *out.
enum err vae_load(struct ops_device *dev, const struct vae_config *config, struct weights *w,
                  enum dtype dtype, struct vae **out, struct fault *why);
void vae_destroy(struct vae **v);
uint64_t vae_parameters(const struct vae *v);

// Records the decoder. latents [N, H, W, latent_channels], divided by scaling_factor. Returns
// [N, H s, W s, out_channels], s = 2^(levels - 1), about in [-1, 1]; its memory belongs to the
// recording.
struct tensor vae_record(const struct vae *v, struct ops *o, const struct tensor *latents,
                         const struct tap *tap);

#endif
