// The block formats of ggml, in which GGUF files store quantized weights. Called by safetensors.c.
// Thread: any. Source: the block structures and dequantize_row functions of ggml.
#ifndef IMAGEND_GGML_BLOCKS_H
#define IMAGEND_GGML_BLOCKS_H

#include "safetensors.h"

// Converts whole blocks (dtype: ST_Q4_0 and those after it) to f32, bit for bit as ggml does.
void ggml_blocks_f32(enum safetensors_dtype dtype, const unsigned char *src, uint64_t blocks,
                     float *out);

#endif
