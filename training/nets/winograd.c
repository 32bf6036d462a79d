/* 3x3 convolutions for training on a CPU with AVX2: stride 1, one pixel of zeros around, float32,
 * NCHW.
 *
 * Winograd's minimal filtering F(4x4, 3x3) (Lavin and Gray, Fast Algorithms for Convolutional
 * Neural Networks): a tile of 4x4 outputs needs 36 products per pair of channels instead of 144.
 * Each of the 36 positions of a transformed tile is a matrix product over channels.
 * nets/kernels.py calls this file; one thread, no state.
 *
 * Layouts in the transformed domain, p = 0..35 the position, in panels of 16 tiles (PANEL):
 *   tiles    [p][panel][channel][16]
 *   weights  [p][output/4][input][4]
 *   gradient [p][output/4][input/2][8], where lane = (input % 2) * 4 + output % 4
 */

#include <immintrin.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum { PANEL = 16, POSITIONS = 36, LANES = 8, LEAST_TILES = 64 };

typedef __m256 v8;

static inline v8 times(float k, v8 x)
{
    return _mm256_mul_ps(_mm256_set1_ps(k), x);
}

static inline v8 plus_times(v8 sum, float k, v8 x)
{
    return _mm256_fmadd_ps(_mm256_set1_ps(k), x, sum);
}

/* The transforms of one dimension, and adjoints for gradients; each is applied along columns, then
 * along rows. */

static inline void of_input(const v8 d[6], v8 out[6])
{
    v8 even = plus_times(d[4], -4, d[2]), odd = plus_times(d[3], -4, d[1]);
    v8 far = d[4] - d[2], near = times(2, d[3] - d[1]);
    out[0] = plus_times(plus_times(d[4], 4, d[0]), -5, d[2]);
    out[1] = even + odd;
    out[2] = even - odd;
    out[3] = far + near;
    out[4] = far - near;
    out[5] = plus_times(plus_times(d[5], 4, d[1]), -5, d[3]);
}

static inline void to_output(const v8 m[6], v8 out[4])
{
    v8 sum = m[1] + m[2], difference = m[1] - m[2], sum2 = m[3] + m[4], difference2 = m[3] - m[4];
    out[0] = m[0] + sum + sum2;
    out[1] = plus_times(difference, 2, difference2);
    out[2] = plus_times(sum, 4, sum2);
    out[3] = plus_times(difference, 8, difference2) + m[5];
}

/* The adjoint of to_output. */
static inline void of_output_gradient(const v8 g[4], v8 out[6])
{
    v8 even = g[0] + g[2], odd = g[1] + g[3];
    v8 even2 = plus_times(g[0], 4, g[2]), odd2 = plus_times(times(2, g[1]), 8, g[3]);
    out[0] = g[0];
    out[1] = even + odd;
    out[2] = even - odd;
    out[3] = even2 + odd2;
    out[4] = even2 - odd2;
    out[5] = g[3];
}

static inline void of_weights(const v8 w[3], v8 out[6])
{
    v8 ends = w[0] + w[2], far = plus_times(times(1 / 24.f, w[0]), 1 / 6.f, w[2]);
    out[0] = times(1 / 4.f, w[0]);
    out[1] = times(-1 / 6.f, ends + w[1]);
    out[2] = times(-1 / 6.f, ends - w[1]);
    out[3] = plus_times(far, 1 / 12.f, w[1]);
    out[4] = plus_times(far, -1 / 12.f, w[1]);
    out[5] = w[2];
}

/* The adjoint of of_weights. */
static inline void to_weight_gradient(const v8 u[6], v8 out[3])
{
    v8 sum = u[1] + u[2], sum2 = u[3] + u[4];
    out[0] = plus_times(plus_times(times(1 / 4.f, u[0]), -1 / 6.f, sum), 1 / 24.f, sum2);
    out[1] = plus_times(times(1 / 6.f, u[2] - u[1]), 1 / 12.f, u[3] - u[4]);
    out[2] = plus_times(plus_times(u[5], -1 / 6.f, sum), 1 / 6.f, sum2);
}

/* 8 rows of 4 numbers from 8 places, as 4 vectors over the places. */
static inline void load_rows(const float *const from[LANES], ptrdiff_t offset, v8 out[4])
{
    v8 r[4];
    for (int l = 0; l < 4; l++)
        r[l] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(from[l] + offset)),
                                    _mm_loadu_ps(from[l + 4] + offset), 1);
    v8 a = _mm256_unpacklo_ps(r[0], r[1]), b = _mm256_unpackhi_ps(r[0], r[1]);
    v8 c = _mm256_unpacklo_ps(r[2], r[3]), d = _mm256_unpackhi_ps(r[2], r[3]);
    out[0] = _mm256_shuffle_ps(a, c, 0x44);
    out[1] = _mm256_shuffle_ps(a, c, 0xee);
    out[2] = _mm256_shuffle_ps(b, d, 0x44);
    out[3] = _mm256_shuffle_ps(b, d, 0xee);
}

/* The inverse of load_rows. */
static inline void store_rows(float *const to[LANES], ptrdiff_t offset, const v8 in[4])
{
    v8 a = _mm256_unpacklo_ps(in[0], in[1]), b = _mm256_unpackhi_ps(in[0], in[1]);
    v8 c = _mm256_unpacklo_ps(in[2], in[3]), d = _mm256_unpackhi_ps(in[2], in[3]);
    v8 r[4] = {_mm256_shuffle_ps(a, c, 0x44), _mm256_shuffle_ps(a, c, 0xee),
               _mm256_shuffle_ps(b, d, 0x44), _mm256_shuffle_ps(b, d, 0xee)};
    for (int l = 0; l < 4; l++) {
        _mm_storeu_ps(to[l] + offset, _mm256_castps256_ps128(r[l]));
        _mm_storeu_ps(to[l + 4] + offset, _mm256_extractf128_ps(r[l], 1));
    }
}

/* Some images of a batch that are transformed together, and scratch memory for one channel of them.
 */
struct Chunk {
    ptrdiff_t images, height, width;
    ptrdiff_t tiles, panels;
    float *padded; /* [images][height + 2][width + 4] with zeros around, then zeros for tiles that
                      do not exist */
    float *spare;  /* where tiles that do not exist store */
    const float **sources; /* of each tile in `padded` */
    ptrdiff_t *places; /* of each tile in a channel of one image, and of the image's first tile */
};

static ptrdiff_t padded_size(const struct Chunk *c)
{
    return c->images * (c->height + 2) * (c->width + 4) + 64;
}

/* Ends the program without memory, as torch would. */
static void *allocate(ptrdiff_t count, size_t size)
{
    void *p = aligned_alloc(64, ((size_t)count * size + 63) / 64 * 64);
    if (!p)
        abort();
    return p;
}

/* How far apart positions lie that have so many numbers each: a cache line more, or all 36 would
 * compete for the same few lines of the cache, since most sizes are powers of two. */
static ptrdiff_t apart(ptrdiff_t count)
{
    return count + 64 / (ptrdiff_t)sizeof(float);
}

static struct Chunk chunk_new(ptrdiff_t images, ptrdiff_t height, ptrdiff_t width)
{
    struct Chunk c = {.height = height, .width = width};
    ptrdiff_t tiles = height / 4 * (width / 4);
    c.images = (LEAST_TILES + tiles - 1) / tiles;
    c.images = c.images < images ? c.images : images;
    c.tiles = c.images * tiles;
    c.panels = (c.tiles + PANEL - 1) / PANEL;
    ptrdiff_t size = padded_size(&c) + 6 * (width + 4) + 64;
    c.padded = allocate(size, sizeof(float));
    memset(c.padded, 0, size * sizeof(float));
    c.spare = allocate(4 * width + 64, sizeof(float));
    c.sources = allocate(c.panels * PANEL, sizeof(*c.sources));
    c.places = allocate(c.panels * PANEL, sizeof(*c.places));
    const float *none = c.padded + padded_size(&c);
    for (int t = 0; t < c.panels * PANEL; t++) {
        ptrdiff_t image = t / tiles, y = t % tiles / (width / 4), x = t % (width / 4);
        c.sources[t] =
            t < c.tiles ? c.padded + (image * (height + 2) + 4 * y) * (width + 4) + 4 * x : none;
        c.places[t] = 4 * y * width + 4 * x;
    }
    return c;
}

static void chunk_free(struct Chunk *c)
{
    free(c->padded);
    free(c->spare);
    free(c->sources);
    free(c->places);
}

/* Images of one channel, `stride` floats apart, into c->padded; those from `count` on are zeros. */
static void pad(struct Chunk *c, const float *from, ptrdiff_t stride, ptrdiff_t count)
{
    ptrdiff_t line = c->width + 4;
    for (int n = 0; n < c->images; n++) {
        float *to = c->padded + n * (c->height + 2) * line + line + 1;
        for (int y = 0; y < c->height; y++, to += line) {
            if (n < count)
                memcpy(to, from + n * stride + y * c->width, c->width * sizeof(float));
            else
                memset(to, 0, c->width * sizeof(float));
        }
    }
}

/* Inputs [images][channels][height][width] to tiles. */
static void transform_inputs(struct Chunk *c, const float *from, ptrdiff_t channels,
                             ptrdiff_t count, float *tiles)
{
    ptrdiff_t area = c->height * c->width, panel = channels * PANEL;
    ptrdiff_t position = apart(c->panels * panel);
    ptrdiff_t line = c->width + 4;
    for (int channel = 0; channel < channels; channel++) {
        pad(c, from + channel * area, channels * area, count);
        for (int t = 0; t < c->panels * PANEL; t += LANES) {
            v8 half[6][6];
            for (int i = 0; i < 6; i++) {
                v8 d[8];
                load_rows(c->sources + t, i * line, d);
                load_rows(c->sources + t, i * line + 4, d + 4);
                of_input(d, half[i]);
            }
            float *to = tiles + (t / PANEL) * panel + channel * PANEL + t % PANEL;
            for (int j = 0; j < 6; j++) {
                v8 column[6] = {half[0][j], half[1][j], half[2][j],
                                half[3][j], half[4][j], half[5][j]},
                   out[6];
                of_input(column, out);
                for (int i = 0; i < 6; i++)
                    _mm256_store_ps(to + (6 * i + j) * position, out[i]);
            }
        }
    }
}

/* Gradients of the output, in its layout, to tiles. */
static void transform_gradients(struct Chunk *c, const float *from, ptrdiff_t channels,
                                ptrdiff_t count, float *tiles)
{
    ptrdiff_t area = c->height * c->width, panel = channels * PANEL;
    ptrdiff_t position = apart(c->panels * panel);
    ptrdiff_t per_image = c->tiles / c->images;
    memset(c->spare, 0, (4 * c->width + 64) * sizeof(float));
    for (int channel = 0; channel < channels; channel++) {
        for (int t = 0; t < c->panels * PANEL; t += LANES) {
            const float *sources[LANES];
            for (int l = 0; l < LANES; l++) {
                ptrdiff_t image = (t + l) / per_image;
                sources[l] = image < count
                                 ? from + (image * channels + channel) * area + c->places[t + l]
                                 : c->spare;
            }
            v8 half[4][6];
            for (int i = 0; i < 4; i++) {
                v8 d[4];
                load_rows(sources, i * c->width, d);
                of_output_gradient(d, half[i]);
            }
            float *to = tiles + (t / PANEL) * panel + channel * PANEL + t % PANEL;
            for (int j = 0; j < 6; j++) {
                v8 column[4] = {half[0][j], half[1][j], half[2][j], half[3][j]}, out[6];
                of_output_gradient(column, out);
                for (int i = 0; i < 6; i++)
                    _mm256_store_ps(to + (6 * i + j) * position, out[i]);
            }
        }
    }
}

/* Tiles to outputs, plus the bias if there is one. */
static void transform_outputs(struct Chunk *c, const float *tiles, const float *bias,
                              ptrdiff_t channels, ptrdiff_t count, float *out)
{
    ptrdiff_t area = c->height * c->width, panel = channels * PANEL;
    ptrdiff_t position = apart(c->panels * panel);
    ptrdiff_t per_image = c->tiles / c->images;
    for (int channel = 0; channel < channels; channel++) {
        v8 b = _mm256_set1_ps(bias ? bias[channel] : 0);
        for (int t = 0; t < c->panels * PANEL; t += LANES) {
            const float *from = tiles + (t / PANEL) * panel + channel * PANEL + t % PANEL;
            float *to[LANES];
            for (int l = 0; l < LANES; l++) {
                ptrdiff_t image = (t + l) / per_image;
                to[l] = image < count ? out + (image * channels + channel) * area + c->places[t + l]
                                      : c->spare;
            }
            v8 half[6][4];
            for (int i = 0; i < 6; i++) {
                v8 m[6];
                for (int j = 0; j < 6; j++)
                    m[j] = _mm256_load_ps(from + (6 * i + j) * position);
                to_output(m, half[i]);
            }
            v8 rows[4][4];
            for (int j = 0; j < 4; j++) {
                v8 column[6] = {half[0][j], half[1][j], half[2][j],
                                half[3][j], half[4][j], half[5][j]},
                   y[4];
                to_output(column, y);
                for (int i = 0; i < 4; i++)
                    rows[i][j] = y[i] + b;
            }
            for (int i = 0; i < 4; i++)
                store_rows(to, i * c->width, rows[i]);
        }
    }
}

/* Weights [outputs][inputs][3][3] to the transformed domain. adjoint: of the convolution that takes
 * gradients of the output to those of the input, whose outputs are the inputs of w. */
static void transform_weights(const float *w, ptrdiff_t outputs, ptrdiff_t inputs, int adjoint,
                              float *to)
{
    ptrdiff_t of_output = adjoint ? 9 : inputs * 9, of_input_channel = adjoint ? outputs * 9 : 9;
    ptrdiff_t position = apart(outputs * inputs);
    int lanes[LANES];
    for (int l = 0; l < LANES; l++)
        lanes[l] = (int)(l % 4 * of_output + l / 4 * of_input_channel);
    __m256i index = _mm256_loadu_si256((const __m256i *)lanes);
    for (int o = 0; o < outputs; o += 4) {
        for (int i = 0; i < inputs; i += 2) {
            const float *from = w + o * of_output + i * of_input_channel;
            v8 half[3][6];
            for (int y = 0; y < 3; y++) {
                v8 g[3];
                for (int x = 0; x < 3; x++)
                    g[x] =
                        _mm256_i32gather_ps(from + (adjoint ? 8 - 3 * y - x : 3 * y + x), index, 4);
                of_weights(g, half[y]);
            }
            float *place = to + o * inputs + i * 4;
            for (int j = 0; j < 6; j++) {
                v8 column[3] = {half[0][j], half[1][j], half[2][j]}, out[6];
                of_weights(column, out);
                for (int k = 0; k < 6; k++)
                    _mm256_store_ps(place + (6 * k + j) * position, out[k]);
            }
        }
    }
}

/* products[o][16] of one panel and one position. */
static void multiply(const float *weights, const float *tiles, ptrdiff_t outputs, ptrdiff_t inputs,
                     float *products)
{
    for (int o = 0; o < outputs; o += 4, weights += 4 * inputs, products += 4 * PANEL) {
        v8 sums[4][2];
        for (int k = 0; k < 4; k++)
            sums[k][0] = sums[k][1] = _mm256_setzero_ps();
        for (int i = 0; i < inputs; i++) {
            v8 a = _mm256_load_ps(tiles + i * PANEL), b = _mm256_load_ps(tiles + i * PANEL + LANES);
            for (int k = 0; k < 4; k++) {
                v8 weight = _mm256_broadcast_ss(weights + 4 * i + k);
                sums[k][0] = _mm256_fmadd_ps(weight, a, sums[k][0]);
                sums[k][1] = _mm256_fmadd_ps(weight, b, sums[k][1]);
            }
        }
        for (int k = 0; k < 4; k++) {
            _mm256_store_ps(products + k * PANEL, sums[k][0]);
            _mm256_store_ps(products + k * PANEL + LANES, sums[k][1]);
        }
    }
}

/* Sums of each of 8 vectors. */
static inline v8 sums_of(const v8 v[8])
{
    v8 low = _mm256_hadd_ps(_mm256_hadd_ps(v[0], v[1]), _mm256_hadd_ps(v[2], v[3]));
    v8 high = _mm256_hadd_ps(_mm256_hadd_ps(v[4], v[5]), _mm256_hadd_ps(v[6], v[7]));
    return _mm256_permute2f128_ps(low, high, 0x20) + _mm256_permute2f128_ps(low, high, 0x31);
}

/* Adds the products of gradients and inputs, summed over all tiles of one position. */
static void multiply_gradients(const float *gradients, const float *tiles, ptrdiff_t outputs,
                               ptrdiff_t inputs, ptrdiff_t panels, float *to)
{
    for (int o = 0; o < outputs; o += 4) {
        for (int i = 0; i < inputs; i += 2, to += LANES) {
            v8 sums[LANES];
            for (int k = 0; k < LANES; k++)
                sums[k] = _mm256_setzero_ps();
            const float *g = gradients + o * PANEL, *x = tiles + i * PANEL;
            for (int panel = 0; panel < panels;
                 panel++, g += outputs * PANEL, x += inputs * PANEL) {
                for (int half = 0; half < PANEL; half += LANES) {
                    v8 a = _mm256_load_ps(x + half), b = _mm256_load_ps(x + PANEL + half);
                    for (int k = 0; k < 4; k++) {
                        v8 gradient = _mm256_load_ps(g + k * PANEL + half);
                        sums[k] = _mm256_fmadd_ps(gradient, a, sums[k]);
                        sums[4 + k] = _mm256_fmadd_ps(gradient, b, sums[4 + k]);
                    }
                }
            }
            _mm256_store_ps(to, _mm256_load_ps(to) + sums_of(sums));
        }
    }
}

/* Sums of multiply_gradients to dw [outputs][inputs][3][3]. */
static void transform_weight_gradient(const float *sums, ptrdiff_t outputs, ptrdiff_t inputs,
                                      float *dw)
{
    ptrdiff_t position = apart(outputs * inputs);
    for (int o = 0; o < outputs; o += 4) {
        for (int i = 0; i < inputs; i += 2, sums += LANES) {
            v8 half[6][3];
            for (int k = 0; k < 6; k++) {
                v8 u[6];
                for (int j = 0; j < 6; j++)
                    u[j] = _mm256_load_ps(sums + (6 * k + j) * position);
                to_weight_gradient(u, half[k]);
            }
            for (int j = 0; j < 3; j++) {
                v8 column[6] = {half[0][j], half[1][j], half[2][j],
                                half[3][j], half[4][j], half[5][j]},
                   out[3];
                to_weight_gradient(column, out);
                for (int k = 0; k < 3; k++) {
                    float lanes[LANES];
                    _mm256_storeu_ps(lanes, out[k]);
                    for (int l = 0; l < LANES; l++)
                        dw[((o + l % 4) * inputs + i + l / 4) * 9 + 3 * k + j] = lanes[l];
                }
            }
        }
    }
}

/* y [images][outputs][height][width] from x [images][inputs][height][width]; height and width are
 * multiples of 4, outputs of 4, inputs of 2. adjoint: w is [inputs][outputs][3][3], of the
 * convolution whose output's gradient x is. bias: may be null. */
void winograd_convolve(const float *x, const float *w, const float *bias, float *y,
                       ptrdiff_t images, ptrdiff_t inputs, ptrdiff_t outputs, ptrdiff_t height,
                       ptrdiff_t width, int adjoint)
{
    struct Chunk c = chunk_new(images, height, width);
    ptrdiff_t area = height * width, pairs = apart(outputs * inputs);
    ptrdiff_t in_panel = inputs * PANEL, out_panel = outputs * PANEL;
    ptrdiff_t in_size = apart(c.panels * in_panel), out_size = apart(c.panels * out_panel);
    float *weights = allocate(POSITIONS * pairs, sizeof(float));
    float *tiles = allocate(POSITIONS * in_size, sizeof(float));
    float *products = allocate(POSITIONS * out_size, sizeof(float));
    transform_weights(w, outputs, inputs, adjoint, weights);
    for (ptrdiff_t n = 0; n < images; n += c.images) {
        ptrdiff_t count = images - n < c.images ? images - n : c.images;
        transform_inputs(&c, x + n * inputs * area, inputs, count, tiles);
        for (int p = 0; p < POSITIONS; p++)
            for (int panel = 0; panel < c.panels; panel++)
                multiply(weights + p * pairs, tiles + p * in_size + panel * in_panel, outputs,
                         inputs, products + p * out_size + panel * out_panel);
        transform_outputs(&c, products, bias, outputs, count, y + n * outputs * area);
    }
    free(weights);
    free(tiles);
    free(products);
    chunk_free(&c);
}

/* dw [outputs][inputs][3][3] from the input x and the gradient of the output. Sizes as above. */
void winograd_weight_gradient(const float *x, const float *gradient, float *dw, ptrdiff_t images,
                              ptrdiff_t inputs, ptrdiff_t outputs, ptrdiff_t height,
                              ptrdiff_t width)
{
    struct Chunk c = chunk_new(images, height, width);
    ptrdiff_t area = height * width, pairs = apart(outputs * inputs);
    ptrdiff_t in_size = apart(c.panels * inputs * PANEL),
              out_size = apart(c.panels * outputs * PANEL);
    float *sums = allocate(POSITIONS * pairs, sizeof(float));
    float *tiles = allocate(POSITIONS * in_size, sizeof(float));
    float *gradients = allocate(POSITIONS * out_size, sizeof(float));
    memset(sums, 0, POSITIONS * pairs * sizeof(float));
    for (ptrdiff_t n = 0; n < images; n += c.images) {
        ptrdiff_t count = images - n < c.images ? images - n : c.images;
        transform_inputs(&c, x + n * inputs * area, inputs, count, tiles);
        transform_gradients(&c, gradient + n * outputs * area, outputs, count, gradients);
        for (int p = 0; p < POSITIONS; p++)
            multiply_gradients(gradients + p * out_size, tiles + p * in_size, outputs, inputs,
                               c.panels, sums + p * pairs);
    }
    transform_weight_gradient(sums, outputs, inputs, dw);
    free(sums);
    free(tiles);
    free(gradients);
    chunk_free(&c);
}
