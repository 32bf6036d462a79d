// The block formats of ggml, see ggml_blocks.h. Every product and every sum is a statement of its
// own: a compiler that fuses them would round differently from ggml's reference.
#include "ggml_blocks.h"

#include <string.h>

enum { SMALL = 32, LARGE = 256 }; // elements of a block: Q8_0 and its kind, and the k-quants

static float half_at(const unsigned char *p)
{
    const struct safetensor t = {.dtype = ST_F16, .data = p};
    float f;

    safetensors_f32(&t, 0, 1, &f);
    return f;
}

// q * d + m, where m is the smallest value of the block.
static float above(int q, float d, float m)
{
    const float product = (float)q * d;

    return product + m;
}

// d * q - m.
static float below(float d, int q, float m)
{
    const float product = d * (float)q;

    return product - m;
}

// ---- blocks of 32 -------------------------------------------------------------------------------

// Four bits of weight i: the low halves of 16 bytes, then the high ones.
static int nibble(const unsigned char *q, int i)
{
    return i < SMALL / 2 ? q[i] & 15 : q[i - SMALL / 2] >> 4;
}

// The same with a fifth bit from four bytes of bits.
static int five_bits(const unsigned char *high, const unsigned char *q, int i)
{
    return nibble(q, i) | (high[i / 8] >> i % 8 & 1) << 4;
}

static void q4_0(const unsigned char *b, float *out)
{
    const float d = half_at(b);

    for (int i = 0; i < SMALL; i++)
        out[i] = (float)(nibble(b + 2, i) - 8) * d;
}

static void q4_1(const unsigned char *b, float *out)
{
    const float d = half_at(b), m = half_at(b + 2);

    for (int i = 0; i < SMALL; i++)
        out[i] = above(nibble(b + 4, i), d, m);
}

static void q5_0(const unsigned char *b, float *out)
{
    const float d = half_at(b);

    for (int i = 0; i < SMALL; i++)
        out[i] = (float)(five_bits(b + 2, b + 6, i) - 16) * d;
}

static void q5_1(const unsigned char *b, float *out)
{
    const float d = half_at(b), m = half_at(b + 2);

    for (int i = 0; i < SMALL; i++)
        out[i] = above(five_bits(b + 4, b + 8, i), d, m);
}

static void q8_0(const unsigned char *b, float *out)
{
    const float d = half_at(b);

    for (int i = 0; i < SMALL; i++)
        out[i] = (float)(int8_t)b[2 + i] * d;
}

// ---- blocks of 256 ------------------------------------------------------------------------------

// Two bits of weight i: 32 bytes hold 128 weights, one pair of bits after the other.
static int two_bits(const unsigned char *q, int i)
{
    return q[i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3;
}

static void q2_k(const unsigned char *b, float *out)
{
    const unsigned char *scales = b, *q = b + 16;
    const float d = half_at(b + 80), dmin = half_at(b + 82);

    for (int s = 0; s < 16; s++) {
        const float scale = d * (float)(scales[s] & 15), m = dmin * (float)(scales[s] >> 4);
        for (int i = 16 * s; i < 16 * s + 16; i++)
            out[i] = below(scale, two_bits(q, i), m);
    }
}

static void q3_k(const unsigned char *b, float *out)
{
    const unsigned char *high = b, *q = b + 32, *scales = b + 96;
    const float d = half_at(b + 108);

    for (int s = 0; s < 16; s++) {
        const int low = s < 8 ? scales[s] & 15 : scales[s - 8] >> 4;
        const int top = scales[8 + s % 4] >> s / 4 * 2 & 3;
        const float scale = d * (float)((low | top << 4) - 32);
        for (int i = 16 * s; i < 16 * s + 16; i++) {
            const int third = high[i % 32] >> i / 32 & 1;
            out[i] = scale * (float)(two_bits(q, i) - (third ? 0 : 4));
        }
    }
}

// The six bits of scale and minimum of sub-block s, from twelve bytes.
static void scale_and_min(const unsigned char *p, int s, int *scale, int *min)
{
    if (s < 4) {
        *scale = p[s] & 63;
        *min = p[s + 4] & 63;
    } else {
        *scale = (p[s + 4] & 15) | p[s - 4] >> 6 << 4;
        *min = p[s + 4] >> 4 | p[s] >> 6 << 4;
    }
}

// Q4_K and Q5_K: high NULL or the fifth bits.
static void k45(const unsigned char *b, const unsigned char *high, const unsigned char *q,
                float *out)
{
    const float d = half_at(b), dmin = half_at(b + 2);

    for (int s = 0; s < 8; s++) {
        int scale, min;
        scale_and_min(b + 4, s, &scale, &min);
        const float ds = d * (float)scale, m = dmin * (float)min;
        for (int i = 0; i < 32; i++) {
            const int low = q[s / 2 * 32 + i] >> s % 2 * 4 & 15;
            out[32 * s + i] = below(ds, low + (high ? (high[i] >> s & 1) * 16 : 0), m);
        }
    }
}

static void q4_k(const unsigned char *b, float *out)
{
    k45(b, NULL, b + 16, out);
}

static void q5_k(const unsigned char *b, float *out)
{
    k45(b, b + 16, b + 48, out);
}

static void q6_k(const unsigned char *b, float *out)
{
    const unsigned char *low = b, *high = b + 128, *scales = b + 192;
    const float d = half_at(b + 208);

    for (int s = 0; s < 16; s++) {
        const float scale = d * (float)(int8_t)scales[s];
        for (int i = 16 * s; i < 16 * s + 16; i++) {
            const int half = i / 128, at = i % 128;
            const int four = low[64 * half + at % 64] >> at / 64 * 4 & 15;
            const int two = high[32 * half + at % 32] >> at / 32 * 2 & 3;
            out[i] = scale * (float)((four | two << 4) - 32);
        }
    }
}

static const struct {
    void (*convert)(const unsigned char *block, float *out);
    int elements, bytes;
} formats[ST_DTYPES] = {
    [ST_Q4_0] = {q4_0, SMALL, 18},  [ST_Q4_1] = {q4_1, SMALL, 20},  [ST_Q5_0] = {q5_0, SMALL, 22},
    [ST_Q5_1] = {q5_1, SMALL, 24},  [ST_Q8_0] = {q8_0, SMALL, 34},  [ST_Q2_K] = {q2_k, LARGE, 84},
    [ST_Q3_K] = {q3_k, LARGE, 110}, [ST_Q4_K] = {q4_k, LARGE, 144}, [ST_Q5_K] = {q5_k, LARGE, 176},
    [ST_Q6_K] = {q6_k, LARGE, 210},
};

void ggml_blocks_f32(enum safetensors_dtype dtype, const unsigned char *src, uint64_t blocks,
                     float *out)
{
    for (uint64_t i = 0; i < blocks; i++)
        formats[dtype].convert(src + i * (uint64_t)formats[dtype].bytes,
                               out + i * (uint64_t)formats[dtype].elements);
}
