/* Vectors of float32 for winograd.c, as wide as the processor has them: 8 numbers with AVX2, 16
 * with AVX-512. Most shuffles work within quarters of 4 numbers, QUARTER of them (2 or 4) in a
 * vector. No state. */
#ifndef IMAGEND_TRAINING_VECTORS_H
#define IMAGEND_TRAINING_VECTORS_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __AVX512F__
typedef __m512 vec;
#define SET1 _mm512_set1_ps
#define MULTIPLY_ADD _mm512_fmadd_ps
#define LOAD _mm512_load_ps
#define STORE _mm512_store_ps
#define UNPACK_LOW _mm512_unpacklo_ps
#define UNPACK_HIGH _mm512_unpackhi_ps
#define SHUFFLE _mm512_shuffle_ps
#else
typedef __m256 vec;
#define SET1 _mm256_set1_ps
#define MULTIPLY_ADD _mm256_fmadd_ps
#define LOAD _mm256_load_ps
#define STORE _mm256_store_ps
#define UNPACK_LOW _mm256_unpacklo_ps
#define UNPACK_HIGH _mm256_unpackhi_ps
#define SHUFFLE _mm256_shuffle_ps
#endif

enum { LANES = sizeof(vec) / sizeof(float), QUARTER = LANES / 4 };

static inline vec times(float k, vec x)
{
    return SET1(k) * x;
}

static inline vec plus_times(vec sum, float k, vec x)
{
    return MULTIPLY_ADD(SET1(k), x, sum);
}

/* The numbers whose products the gradients are made of, WIDE of them in a register. */
#ifdef __AVX512BF16__
enum { WIDE = 32 };
typedef uint16_t narrow; /* bfloat16 */
typedef __m512bh narrow_vec;

static inline __m256i narrowed(vec x)
{
    return (__m256i)_mm512_cvtneps_pbh(x);
}

static inline void store_narrow(narrow *to, vec x)
{
    _mm256_store_si256((__m256i *)to, narrowed(x));
}

static inline narrow_vec load_narrow(const narrow *from)
{
    return (narrow_vec)_mm512_load_si512(from);
}

static inline vec plus_products(vec sums, narrow_vec a, narrow_vec b)
{
    return _mm512_dpbf16_ps(sums, a, b);
}
#else
enum { WIDE = LANES };
typedef float narrow;
typedef vec narrow_vec;
#define store_narrow STORE
#define load_narrow LOAD

static inline vec plus_products(vec sums, vec a, vec b)
{
    return MULTIPLY_ADD(a, b, sums);
}
#endif

/* Lane 4j + k of four vectors in turn: four numbers from from[4j + k], for j = 0 .. QUARTER - 1. */
static inline vec load_quarters(const float *const from[LANES], int k, ptrdiff_t offset)
{
#ifdef __AVX512F__
    vec r = _mm512_castps128_ps512(_mm_loadu_ps(from[k] + offset));
    r = _mm512_insertf32x4(r, _mm_loadu_ps(from[k + 4] + offset), 1);
    r = _mm512_insertf32x4(r, _mm_loadu_ps(from[k + 8] + offset), 2);
    return _mm512_insertf32x4(r, _mm_loadu_ps(from[k + 12] + offset), 3);
#else
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(from[k] + offset)),
                                _mm_loadu_ps(from[k + 4] + offset), 1);
#endif
}

/* The inverse of load_quarters. */
static inline void store_quarters(float *const to[LANES], int k, ptrdiff_t offset, vec r)
{
#ifdef __AVX512F__
    _mm_storeu_ps(to[k] + offset, _mm512_castps512_ps128(r));
    _mm_storeu_ps(to[k + 4] + offset, _mm512_extractf32x4_ps(r, 1));
    _mm_storeu_ps(to[k + 8] + offset, _mm512_extractf32x4_ps(r, 2));
    _mm_storeu_ps(to[k + 12] + offset, _mm512_extractf32x4_ps(r, 3));
#else
    _mm_storeu_ps(to[k] + offset, _mm256_castps256_ps128(r));
    _mm_storeu_ps(to[k + 4] + offset, _mm256_extractf128_ps(r, 1));
#endif
}

/* Transposes 4x4 numbers in every quarter. */
static inline void transpose(const vec in[4], vec out[4])
{
    vec a = UNPACK_LOW(in[0], in[1]), b = UNPACK_HIGH(in[0], in[1]);
    vec c = UNPACK_LOW(in[2], in[3]), d = UNPACK_HIGH(in[2], in[3]);
    out[0] = SHUFFLE(a, c, 0x44);
    out[1] = SHUFFLE(a, c, 0xee);
    out[2] = SHUFFLE(b, d, 0x44);
    out[3] = SHUFFLE(b, d, 0xee);
}

/* LANES rows of 4 numbers from as many places, as 4 vectors over the places. */
static inline void load_rows(const float *const from[LANES], ptrdiff_t offset, vec out[4])
{
    vec r[4];
    for (int k = 0; k < 4; k++)
        r[k] = load_quarters(from, k, offset);
    transpose(r, out);
}

/* The inverse of load_rows. */
static inline void store_rows(float *const to[LANES], ptrdiff_t offset, const vec in[4])
{
    vec r[4];
    transpose(in, r);
    for (int k = 0; k < 4; k++)
        store_quarters(to, k, offset, r[k]);
}

/* LANES numbers at these distances from `from`. */
static inline vec gather(const float *from, const int distances[LANES])
{
#ifdef __AVX512F__
    return _mm512_i32gather_ps(_mm512_loadu_si512(distances), from, 4);
#else
    return _mm256_i32gather_ps(from, _mm256_loadu_si256((const __m256i *)distances), 4);
#endif
}

/* Sums of each of LANES vectors. */
static inline vec sums_of(const vec v[LANES])
{
#ifdef __AVX512F__
    vec r[8];
    for (int k = 0; k < 8; k++)
        r[k] =
            _mm512_shuffle_f32x4(v[k], v[k + 8], 0x44) + _mm512_shuffle_f32x4(v[k], v[k + 8], 0xee);
    for (int k = 0; k < 4; k++)
        r[k] =
            _mm512_shuffle_f32x4(r[k], r[k + 4], 0x88) + _mm512_shuffle_f32x4(r[k], r[k + 4], 0xdd);
    vec a = UNPACK_LOW(r[0], r[1]) + UNPACK_HIGH(r[0], r[1]);
    vec b = UNPACK_LOW(r[2], r[3]) + UNPACK_HIGH(r[2], r[3]);
    vec sums = SHUFFLE(a, b, 0x44) + SHUFFLE(a, b, 0xee); /* of v 0-3, 8-11, 4-7, 12-15 */
    return _mm512_shuffle_f32x4(sums, sums, 0xd8);
#else
    vec low = _mm256_hadd_ps(_mm256_hadd_ps(v[0], v[1]), _mm256_hadd_ps(v[2], v[3]));
    vec high = _mm256_hadd_ps(_mm256_hadd_ps(v[4], v[5]), _mm256_hadd_ps(v[6], v[7]));
    return _mm256_permute2f128_ps(low, high, 0x20) + _mm256_permute2f128_ps(low, high, 0x31);
#endif
}

#endif
