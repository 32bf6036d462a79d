// T5EncoderModel (v1.1): maps token ids to a sequence of text vectors, as configured by its
// config.json. Thread: the engine's worker. Source: transformers T5EncoderModel, T5Stack.
#ifndef IMAGEND_T5_H
#define IMAGEND_T5_H

#include "hfconfig.h"
#include "layers.h"

struct t5;

// Errors: FORMAT (missing, surplus or misshapen tensors, named in *why), UNSUPPORTED,
// NO_DEVICE_MEMORY. Owner: the caller destroys *out.
enum err t5_load(struct ops_device *dev, const struct t5_config *config, struct weights *w,
                 enum dtype dtype, struct t5 **out, struct fault *why);
void t5_destroy(struct t5 **t);
const struct t5_config *t5_get_config(const struct t5 *t);
uint64_t t5_parameters(const struct t5 *t);

// Records the encoder. ids u32 [N, L]; valid u32 [N, L], 0 = padding; both are mapped tensors with
// one element per token (c = 1). Returns [N, L, d_model] f32, the output of final_layer_norm.
struct tensor t5_record(const struct t5 *t, struct ops *o, const struct tensor *ids,
                        const struct tensor *valid, const struct tap *tap);

#endif
