// The storage formats of a matrix product's weights. Not for other layers. Thread: the engine's
// worker.
#ifndef IMAGEND_WEIGHT_FORMAT_H
#define IMAGEND_WEIGHT_FORMAT_H

#include "ops_internal.h"

enum { WEIGHT_BLOCK = 32 }; // weights that share a scale

// A run of packed vec4s, a multiple of the inputs of `lanes` outputs: rows of a tap column, then
// lanes, lie between an output's neighbouring inputs.
struct weight_run {
    size_t vectors;
    uint32_t lanes, rows;
    bool exact; // see op_weight_params
};

struct weight_format {
    const char *name;
    enum dtype dtype;
    size_t bytes; // of four weights
    bool scaled;  // has a scale for every WEIGHT_BLOCK weights
    // to: bytes * vectors; scale: one for each block, in the order of types.glsl.
    void (*pack)(const float *from, const struct weight_run *r, uint8_t *to, uint16_t *scale);
};

// NULL: no such format.
const struct weight_format *weight_format_find(const char *name);
const struct weight_format *weight_format_get(enum dtype dtype);

#endif
