// Push constants and buffer records, read by C and by GLSL so that they exist once. Only uint,
// float and `VIEW` members: both sides then agree on the layout. At most 128 bytes per struct.
#ifndef PUSH_H
#define PUSH_H

#include "shared.h"

#ifdef VULKAN  // GLSL
#define VIEW view
#define WALK walk
#else
#define VIEW struct view
#define WALK struct walk
#endif

// Where a tensor lies in its binding, in vec4s: pixel p, channels 4c..4c+3 at base + p * cs + c.
struct view {
    uint base, cs;
};

// The step in the counter of the noise of kept pixels, which is one noise for all steps.
#define LANE_STEP_KEPT 0x7ffffffdu

struct push_probe {
    uint count;
};

SHARED_ENUM(matmul_part) // of the epilogue
    SHARED_VALUE(MATMUL_MUL, 1)
    SHARED_VALUE(MATMUL_RESIDUAL, 2)
    SHARED_VALUE(MATMUL_SCALE, 4)
SHARED_END

// Linear and convolution. k4, m4: vec4s of input and output channels. h, w: of one sample.
struct push_matmul {
    VIEW x, mul, residual, y;
    uint pixels;        // of x; conv3_winograd: tiles
    uint n, h, w;
    uint k4, m4;
    float scale;
    uint scales;        // words of the weights before their scales, for formats that have them
};

// The tiles of 4 x 4 pixels of n samples, or of `rows` rows of one from `top` on. w, h: of a sample.
struct push_winograd {
    VIEW x, y;
    uint w, h, k4;
    uint top, rows;
    uint tiles;
};

SHARED_ENUM(attention_part)
    SHARED_VALUE(ATTENTION_INDEX0, 1)
    SHARED_VALUE(ATTENTION_INDEX1, 2)
    SHARED_VALUE(ATTENTION_BIAS, 4)
    SHARED_VALUE(ATTENTION_VALID, 8)
    SHARED_VALUE(ATTENTION_SECOND, 16)
SHARED_END

// Attention. Vec4 units except: bias, valid and index are scalars (valid_*: element steps).
struct push_attention {
    VIEW q, k0, v0, k1, v1, y;
    VIEW index0, index1, bias;
    uint valid, valid_n, valid_key;
    uint queries, keys0, keys1;
    uint heads, d, n;
    float scale;
};

// How walk.glsl covers a map: 1 << lanes invocations side by side along the channels, `run` pixels
// for each.
struct walk {
    uint lanes, run;
};

// Operators that treat every vec4 alike (map, copy, norms). c: channels. Pixels of one sample.
struct push_map {
    VIEW a, b, y;
    WALK walk;
    uint pixels, c;
    float scale;
};

// GroupNorm of one workgroup per block of c4 vec4s that holds whole groups.
struct push_group_norm {
    VIEW x, y, gamma, beta, ss;
    WALK walk;          // run is not used
    uint pixels, c;
    uint group;         // channels of a group
    uint c4;            // vec4s of a block
    float eps;
};

// GroupNorm of large maps: statistics of runs of pixels, folded into one line per channel, applied.
struct push_group_norm_parts {
    VIEW x, y, gamma, beta, ss;
    WALK walk;
    uint stride;        // pixels from one of a run to the next
    uint pixels, c;
    uint group;
    uint parts;         // runs per sample
    float eps;
};

struct push_row_norm {
    VIEW x, y, gamma, beta;
    uint pixels, c;
    float eps;
};

// Operators that move pixels. h, w, c: of the smaller map, or of x. cb: channel blocks of a sample.
struct push_shape {
    VIEW x, y;
    WALK walk;
    uint h, w, c;
    uint oh, ow;
    float sy, sx, first_y, first_x;
};

struct push_embed {
    VIEW ids, y;
    uint base[4], cs;   // of the table's parts
    WALK walk;
    uint pixels, c;
    uint rows, part_rows;
};

struct push_relative_bias {
    VIEW table, y;
    uint tokens, c4;
    uint half_buckets, exact, limits;
    uint limit[16];     // the smallest distance of bucket exact + 1 + i
};

struct push_time_embed {
    VIEW t, y;
    uint dim, flip;
    float exponent, divisor;
};

// The sampling operators. pixels: of one slot.
struct push_noise {
    VIEW lanes, y;
    uint pixels, run;
};

struct push_gather {
    VIEW lanes, x, low, y;
    uint count;         // lanes
    uint w, h, c;       // of y; c: channels taken, 3 or 6
};

struct push_sampler {
    VIEW lanes, m, x, h0, h1, h2, noise, limit;
    uint count;
    uint pixels, run;
};

struct push_rgb8 {
    VIEW x;
    uint y;             // in words of four bytes
    uint pixels, run;
};

#endif
