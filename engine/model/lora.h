// Low-rank adapters (LoRA) for a denoiser, as diffusers and PEFT write them: for some weights W,
// two small tensors A and B and a number alpha, that make W + scale * alpha / rank * B A. Called by
// weights.c, which adds them while it reads W. Knows names and shapes, not networks. Thread: one at
// a time.
#ifndef IMAGEND_LORA_H
#define IMAGEND_LORA_H

#include "safetensors.h"

struct lora;

struct lora_params {
    const char *path; // a .safetensors file
    double scale;
};

// Names are those of PEFT ("unet.mid_block.attentions.0.to_q.lora_A.weight"), of diffusers' layers
// ("...to_q.lora.down.weight") and of its attention processors
// ("...processor.to_q_lora.down.weight"), each with or without "unet." in front. Errors: NOT_FOUND,
// IO, FORMAT, UNSUPPORTED (text encoders, DoRA, biases, other formats), NO_MEMORY; *why names the
// tensor. Owner: the caller closes *out. Source: diffusers loaders/lora_pipeline.py,
// utils/state_dict_utils.py.
enum err lora_open(const struct lora_params *p, struct lora **out, struct fault *why);
void lora_close(struct lora **l);

// The number of weights that it changes, and their names in the network.
int lora_count(const struct lora *l);
const char *lora_name(const struct lora *l, int index);
int lora_find(const struct lora *l, const char *name); // -1: it does not change this weight
// w: the weight, NULL: the network has none. Errors: FORMAT, naming the LoRA's tensor that does not
// fit.
enum err lora_check(const struct lora *l, int index, const struct safetensor *w, struct fault *why);
// Adds it to the values of a weight that lora_check has accepted; the sum over ranks is computed in
// double and rounded once. Errors: NO_MEMORY.
enum err lora_add(const struct lora *l, int index, uint64_t elements, float *w);

#endif
