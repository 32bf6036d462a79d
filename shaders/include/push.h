// Push constants and buffer records, read by C and by GLSL so that they exist once. Only uint,
// float and `VIEW` members: both sides then agree on the layout. At most 128 bytes per struct.
// Source of the records: engine/ops/ops.h says what the fields mean.
#ifndef PUSH_H
#define PUSH_H

#ifdef VULKAN  // GLSL
#define VIEW view
#else
#include <sys/types.h>
#define VIEW struct view
#endif

// Where a tensor lies in its binding, in vec4s: pixel p, channels 4c..4c+3 at base + p * cs + c.
struct view {
    uint base, cs;
};

// struct op_lane of ops.h.
struct lane {
    uint slot;
    uint seed_lo, seed_hi;
    uint picture, stage, step;
    uint history;
    uint threshold;
    float guidance;
    float px, pm;
    float cx, cm, c0;
    float c1, c2;
    float noise;
    float learned;
    float logvar_min, logvar_max;
    float max_value;
    float quantile;
    float timestep, noise_level;
    uint pad[8];
};

struct push_probe {
    uint count;
};

// Linear and convolution. k4, m4: vec4s of input and output channels. h, w: of one sample.
struct push_matmul {
    VIEW x, mul, residual, y;
    uint pixels, n, h, w;
    uint k4, m4;
    float scale;
};

#endif
