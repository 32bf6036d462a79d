/* 3x3 convolutions for training on a CPU with AVX2 or AVX-512: stride 1, one pixel of zeros around,
 * float32, NCHW.
 *
 * Winograd's minimal filtering F(4x4, 3x3) (Lavin and Gray, Fast Algorithms for Convolutional
 * Neural Networks): a tile of 4x4 outputs needs 36 products per pair of channels instead of 144.
 * Each of the 36 positions of a transformed tile is a matrix product over channels.
 * nets/kernels.py calls this file; one thread, no state. vectors.h: LANES, QUARTER, narrow.
 *
 * Layouts in the transformed domain, p = 0..35 the position, in panels of PANEL tiles:
 *   tiles    [p][panel][channel][PANEL]
 *   weights  [p][output/4][input][4]
 *   gradient [p][output/4][input/QUARTER][LANES], where lane = (input % QUARTER) * 4 + output % 4
 *
 * Where the processor multiplies bfloat16, the gradients are products of that, summed in float32;
 * outputs are not. The tiles and weights for the gradient of the input are then in pairs of
 * channels:
 *   tiles    [p][panel][channel/2][PANEL][2]
 *   weights  [p][output/4][input/2][4][2]
 */

#include "vectors.h"

#include <stdlib.h>
#include <string.h>

enum {
    PANEL = 2 * LANES,
    POSITIONS = 36,
    LEAST_TILES = 32, /* that are transformed together, while there are images */
};

/* The transforms of one dimension, and adjoints for gradients; each is applied along columns, then
 * along rows. */

static inline void of_input(const vec d[6], vec out[6])
{
    vec even = plus_times(d[4], -4, d[2]), odd = plus_times(d[3], -4, d[1]);
    vec far = d[4] - d[2], near = times(2, d[3] - d[1]);
    out[0] = plus_times(plus_times(d[4], 4, d[0]), -5, d[2]);
    out[1] = even + odd;
    out[2] = even - odd;
    out[3] = far + near;
    out[4] = far - near;
    out[5] = plus_times(plus_times(d[5], 4, d[1]), -5, d[3]);
}

static inline void to_output(const vec m[6], vec out[4])
{
    vec sum = m[1] + m[2], difference = m[1] - m[2], sum2 = m[3] + m[4], difference2 = m[3] - m[4];
    out[0] = m[0] + sum + sum2;
    out[1] = plus_times(difference, 2, difference2);
    out[2] = plus_times(sum, 4, sum2);
    out[3] = plus_times(difference, 8, difference2) + m[5];
}

/* The adjoint of to_output. */
static inline void of_output_gradient(const vec g[4], vec out[6])
{
    vec even = g[0] + g[2], odd = g[1] + g[3];
    vec even2 = plus_times(g[0], 4, g[2]), odd2 = plus_times(times(2, g[1]), 8, g[3]);
    out[0] = g[0];
    out[1] = even + odd;
    out[2] = even - odd;
    out[3] = even2 + odd2;
    out[4] = even2 - odd2;
    out[5] = g[3];
}

static inline void of_weights(const vec w[3], vec out[6])
{
    vec ends = w[0] + w[2], far = plus_times(times(1 / 24.f, w[0]), 1 / 6.f, w[2]);
    out[0] = times(1 / 4.f, w[0]);
    out[1] = times(-1 / 6.f, ends + w[1]);
    out[2] = times(-1 / 6.f, ends - w[1]);
    out[3] = plus_times(far, 1 / 12.f, w[1]);
    out[4] = plus_times(far, -1 / 12.f, w[1]);
    out[5] = w[2];
}

/* The adjoint of of_weights. */
static inline void to_weight_gradient(const vec u[6], vec out[3])
{
    vec sum = u[1] + u[2], sum2 = u[3] + u[4];
    out[0] = plus_times(plus_times(times(1 / 4.f, u[0]), -1 / 6.f, sum), 1 / 24.f, sum2);
    out[1] = plus_times(times(1 / 6.f, u[2] - u[1]), 1 / 12.f, u[3] - u[4]);
    out[2] = plus_times(plus_times(u[5], -1 / 6.f, sum), 1 / 6.f, sum2);
}

/* Some images of a batch that are transformed together, and scratch memory for one channel of them.
 */
struct Chunk {
    ptrdiff_t images, height, width;
    ptrdiff_t tiles, panels;
    float *padded;  /* [images][height + 2][width + 4] with zeros around, then zeros for tiles that
                       do not exist; all of it twice, for two channels */
    ptrdiff_t twin; /* from the first of these to the second */
    float *spare;   /* where tiles that do not exist store */
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

/* How far apart positions lie that have so many numbers each: some cache lines more, or all 36
 * would compete for the same few lines of the cache, since most sizes are powers of two. */
static ptrdiff_t apart(ptrdiff_t count)
{
    return count + 32;
}

static struct Chunk chunk_new(ptrdiff_t images, ptrdiff_t height, ptrdiff_t width, ptrdiff_t least)
{
    struct Chunk c = {.height = height, .width = width};
    ptrdiff_t tiles = height / 4 * (width / 4);
    c.images = (least + tiles - 1) / tiles;
    c.images = c.images < images ? c.images : images;
    c.tiles = c.images * tiles;
    c.panels = (c.tiles + PANEL - 1) / PANEL;
    c.twin = padded_size(&c) + 6 * (width + 4) + 64;
    c.padded = allocate(2 * c.twin, sizeof(float));
    memset(c.padded, 0, 2 * c.twin * sizeof(float));
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

/* Images of one channel, `stride` floats apart, into c->padded + place; those from `count` on are
 * zeros. */
static void pad(struct Chunk *c, const float *from, ptrdiff_t stride, ptrdiff_t count,
                ptrdiff_t place)
{
    ptrdiff_t line = c->width + 4;
    for (int n = 0; n < c->images; n++) {
        float *to = c->padded + place + n * (c->height + 2) * line + line + 1;
        for (int y = 0; y < c->height; y++, to += line) {
            if (n < count)
                memcpy(to, from + n * stride + y * c->width, c->width * sizeof(float));
            else
                memset(to, 0, c->width * sizeof(float));
        }
    }
}

/* The rows of the tiles t .. t + LANES - 1 of the channel at c->padded + place, transformed. */
static inline void input_rows(const struct Chunk *c, ptrdiff_t t, ptrdiff_t place, vec half[6][6])
{
    for (int i = 0; i < 6; i++) {
        vec d[8];
        load_rows(c->sources + t, place + i * (c->width + 4), d);
        load_rows(c->sources + t, place + i * (c->width + 4) + 4, d + 4);
        of_input(d, half[i]);
    }
}

/* Column j of the tiles with these rows. */
static inline void input_column(const vec half[6][6], int j, vec out[6])
{
    vec column[6] = {half[0][j], half[1][j], half[2][j], half[3][j], half[4][j], half[5][j]};
    of_input(column, out);
}

/* Inputs [images][channels][height][width] to tiles of float, or of narrow. */
static inline void transform_inputs(struct Chunk *c, const float *from, ptrdiff_t channels,
                                    ptrdiff_t count, void *tiles, int to_narrow)
{
    ptrdiff_t area = c->height * c->width, panel = channels * PANEL;
    ptrdiff_t position = apart(c->panels * panel);
    for (int channel = 0; channel < channels; channel++) {
        pad(c, from + channel * area, channels * area, count, 0);
        for (int t = 0; t < c->panels * PANEL; t += LANES) {
            vec half[6][6], out[6];
            input_rows(c, t, 0, half);
            ptrdiff_t place = (t / PANEL) * panel + channel * PANEL + t % PANEL;
            for (int j = 0; j < 6; j++) {
                input_column(half, j, out);
                for (int i = 0; i < 6; i++) {
                    ptrdiff_t at = place + (6 * i + j) * position;
                    if (to_narrow)
                        store_narrow((narrow *)tiles + at, out[i]);
                    else
                        STORE((float *)tiles + at, out[i]);
                }
            }
        }
    }
}

/* Gradients of the output, in its layout, to tiles. */
static void transform_gradients(struct Chunk *c, const float *from, ptrdiff_t channels,
                                ptrdiff_t count, narrow *tiles)
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
            vec half[4][6];
            for (int i = 0; i < 4; i++) {
                vec d[4];
                load_rows(sources, i * c->width, d);
                of_output_gradient(d, half[i]);
            }
            narrow *to = tiles + (t / PANEL) * panel + channel * PANEL + t % PANEL;
            for (int j = 0; j < 6; j++) {
                vec column[4] = {half[0][j], half[1][j], half[2][j], half[3][j]}, out[6];
                of_output_gradient(column, out);
                for (int i = 0; i < 6; i++)
                    store_narrow(to + (6 * i + j) * position, out[i]);
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
        vec b = SET1(bias ? bias[channel] : 0);
        for (int t = 0; t < c->panels * PANEL; t += LANES) {
            const float *from = tiles + (t / PANEL) * panel + channel * PANEL + t % PANEL;
            float *to[LANES];
            for (int l = 0; l < LANES; l++) {
                ptrdiff_t image = (t + l) / per_image;
                to[l] = image < count ? out + (image * channels + channel) * area + c->places[t + l]
                                      : c->spare;
            }
            vec half[6][4];
            for (int i = 0; i < 6; i++) {
                vec m[6];
                for (int j = 0; j < 6; j++)
                    m[j] = LOAD(from + (6 * i + j) * position);
                to_output(m, half[i]);
            }
            vec rows[4][4];
            for (int j = 0; j < 4; j++) {
                vec column[6] = {half[0][j], half[1][j], half[2][j],
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
    for (int o = 0; o < outputs; o += 4) {
        for (int i = 0; i < inputs; i += QUARTER) {
            const float *from = w + o * of_output + i * of_input_channel;
            vec half[3][6];
            for (int y = 0; y < 3; y++) {
                vec g[3];
                for (int x = 0; x < 3; x++)
                    g[x] = gather(from + (adjoint ? 8 - 3 * y - x : 3 * y + x), lanes);
                of_weights(g, half[y]);
            }
            float *place = to + o * inputs + i * 4;
            for (int j = 0; j < 6; j++) {
                vec column[3] = {half[0][j], half[1][j], half[2][j]}, out[6];
                of_weights(column, out);
                for (int k = 0; k < 6; k++)
                    STORE(place + (6 * k + j) * position, out[k]);
            }
        }
    }
}

/* products[o][PANEL] of one panel and one position. */
static void multiply(const float *weights, const float *tiles, ptrdiff_t outputs, ptrdiff_t inputs,
                     float *products)
{
    for (int o = 0; o < outputs; o += 4, weights += 4 * inputs, products += 4 * PANEL) {
        vec sums[4][2];
        for (int k = 0; k < 4; k++)
            sums[k][0] = sums[k][1] = SET1(0);
        for (int i = 0; i < inputs; i++) {
            vec a = LOAD(tiles + i * PANEL), b = LOAD(tiles + i * PANEL + LANES);
            for (int k = 0; k < 4; k++) {
                vec weight = SET1(weights[4 * i + k]);
                sums[k][0] = MULTIPLY_ADD(weight, a, sums[k][0]);
                sums[k][1] = MULTIPLY_ADD(weight, b, sums[k][1]);
            }
        }
        for (int k = 0; k < 4; k++) {
            STORE(products + k * PANEL, sums[k][0]);
            STORE(products + k * PANEL + LANES, sums[k][1]);
        }
    }
}

/* Adds the products of gradients and inputs, summed over all tiles of one position. */
static void multiply_gradients(const narrow *gradients, const narrow *tiles, ptrdiff_t outputs,
                               ptrdiff_t inputs, ptrdiff_t panels, float *to)
{
    for (int o = 0; o < outputs; o += 4) {
        for (int i = 0; i < inputs; i += QUARTER, to += LANES) {
            vec sums[LANES];
            for (int k = 0; k < LANES; k++)
                sums[k] = SET1(0);
            const narrow *g = gradients + o * PANEL, *x = tiles + i * PANEL;
            for (int panel = 0; panel < panels;
                 panel++, g += outputs * PANEL, x += inputs * PANEL) {
                for (int t = 0; t < PANEL; t += WIDE) {
                    narrow_vec gradient[4];
                    for (int k = 0; k < 4; k++)
                        gradient[k] = load_narrow(g + k * PANEL + t);
                    for (int j = 0; j < QUARTER; j++) {
                        narrow_vec input = load_narrow(x + j * PANEL + t);
                        for (int k = 0; k < 4; k++)
                            sums[4 * j + k] = plus_products(sums[4 * j + k], gradient[k], input);
                    }
                }
            }
            STORE(to, LOAD(to) + sums_of(sums));
        }
    }
}

/* Sums of multiply_gradients to dw [outputs][inputs][3][3]. */
static void transform_weight_gradient(const float *sums, ptrdiff_t outputs, ptrdiff_t inputs,
                                      float *dw)
{
    ptrdiff_t position = apart(outputs * inputs);
    for (int o = 0; o < outputs; o += 4) {
        for (int i = 0; i < inputs; i += QUARTER, sums += LANES) {
            vec half[6][3];
            for (int k = 0; k < 6; k++) {
                vec u[6];
                for (int j = 0; j < 6; j++)
                    u[j] = LOAD(sums + (6 * k + j) * position);
                to_weight_gradient(u, half[k]);
            }
            for (int j = 0; j < 3; j++) {
                vec column[6] = {half[0][j], half[1][j], half[2][j],
                                 half[3][j], half[4][j], half[5][j]},
                    out[3];
                to_weight_gradient(column, out);
                for (int k = 0; k < 3; k++) {
                    _Alignas(vec) float lanes[LANES];
                    STORE(lanes, out[k]);
                    for (int l = 0; l < LANES; l++)
                        dw[((o + l % 4) * inputs + i + l / 4) * 9 + 3 * k + j] = lanes[l];
                }
            }
        }
    }
}

#ifdef __AVX512BF16__
/* transform_inputs, in pairs. */
static void transform_input_pairs(struct Chunk *c, const float *from, ptrdiff_t channels,
                                  ptrdiff_t count, narrow *tiles)
{
    ptrdiff_t area = c->height * c->width, panel = channels * PANEL;
    ptrdiff_t position = apart(c->panels * panel);
    narrow turns[2 * LANES];
    for (int l = 0; l < LANES; l++) {
        turns[2 * l] = (narrow)l;
        turns[2 * l + 1] = (narrow)(LANES + l);
    }
    __m512i index = _mm512_loadu_si512(turns);
    for (int channel = 0; channel < channels; channel += 2) {
        pad(c, from + channel * area, channels * area, count, 0);
        pad(c, from + (channel + 1) * area, channels * area, count, c->twin);
        for (int t = 0; t < c->panels * PANEL; t += LANES) {
            vec half[2][6][6], a[6], b[6];
            input_rows(c, t, 0, half[0]);
            input_rows(c, t, c->twin, half[1]);
            narrow *to = tiles + (t / PANEL) * panel + channel * PANEL + t % PANEL * 2;
            for (int j = 0; j < 6; j++) {
                input_column(half[0], j, a);
                input_column(half[1], j, b);
                for (int i = 0; i < 6; i++) {
                    __m512i both = (__m512i)_mm512_cvtne2ps_pbh(b[i], a[i]);
                    _mm512_store_si512(to + (6 * i + j) * position,
                                       _mm512_permutexvar_epi16(index, both));
                }
            }
        }
    }
}

/* What transform_weights made, in pairs. */
static void pair_weights(const float *weights, ptrdiff_t count, narrow *to)
{
    narrow turns[LANES];
    for (int l = 0; l < LANES; l++)
        turns[l] = (narrow)((l / 8 * 2 + l % 2) * 4 + l / 2 % 4);
    __m256i index = _mm256_loadu_si256((const __m256i *)turns);
    for (ptrdiff_t i = 0; i < count; i += LANES)
        _mm256_store_si256((__m256i *)(to + i),
                           _mm256_permutexvar_epi16(index, narrowed(LOAD(weights + i))));
}

/* multiply, in pairs. */
static void multiply_pairs(const narrow *weights, const narrow *tiles, ptrdiff_t outputs,
                           ptrdiff_t inputs, float *products)
{
    for (int o = 0; o < outputs; o += 4, weights += 4 * inputs, products += 4 * PANEL) {
        vec sums[4][2];
        for (int k = 0; k < 4; k++)
            sums[k][0] = sums[k][1] = SET1(0);
        for (int i = 0; i < inputs; i += 2) {
            narrow_vec a = load_narrow(tiles + i * PANEL);
            narrow_vec b = load_narrow(tiles + i * PANEL + WIDE);
            for (int k = 0; k < 4; k++) {
                int pair;
                memcpy(&pair, weights + 4 * i + 2 * k, sizeof(pair));
                narrow_vec weight = (narrow_vec)_mm512_set1_epi32(pair);
                sums[k][0] = plus_products(sums[k][0], weight, a);
                sums[k][1] = plus_products(sums[k][1], weight, b);
            }
        }
        for (int k = 0; k < 4; k++) {
            STORE(products + k * PANEL, sums[k][0]);
            STORE(products + k * PANEL + LANES, sums[k][1]);
        }
    }
}
#endif

/* Whether gradients are computed in bfloat16. */
int winograd_halves(void)
{
    return sizeof(narrow) < sizeof(float);
}

/* y [images][outputs][height][width] from x [images][inputs][height][width]; all sizes but the
 * number of images are multiples of 4. adjoint: w is [inputs][outputs][3][3], of the convolution
 * whose output's gradient x is. bias: may be null. */
void winograd_convolve(const float *x, const float *w, const float *bias, float *y,
                       ptrdiff_t images, ptrdiff_t inputs, ptrdiff_t outputs, ptrdiff_t height,
                       ptrdiff_t width, int adjoint)
{
    struct Chunk c = chunk_new(images, height, width, LEAST_TILES);
    ptrdiff_t area = height * width, pairs = apart(outputs * inputs);
    ptrdiff_t in_panel = inputs * PANEL, out_panel = outputs * PANEL;
    ptrdiff_t in_size = apart(c.panels * in_panel), out_size = apart(c.panels * out_panel);
    float *weights = allocate(POSITIONS * pairs, sizeof(float));
    float *tiles = allocate(POSITIONS * in_size, sizeof(float));
    float *products = allocate(POSITIONS * out_size, sizeof(float));
    transform_weights(w, outputs, inputs, adjoint, weights);
#ifdef __AVX512BF16__
    narrow *weight_pairs = allocate(POSITIONS * pairs, sizeof(narrow));
    narrow *tile_pairs = (narrow *)tiles;
    if (adjoint)
        pair_weights(weights, POSITIONS * pairs, weight_pairs);
#endif
    for (ptrdiff_t n = 0; n < images; n += c.images) {
        ptrdiff_t count = images - n < c.images ? images - n : c.images;
        const float *from = x + n * inputs * area;
#ifdef __AVX512BF16__
        if (adjoint) {
            transform_input_pairs(&c, from, inputs, count, tile_pairs);
            for (int p = 0; p < POSITIONS; p++)
                for (int panel = 0; panel < c.panels; panel++)
                    multiply_pairs(weight_pairs + p * pairs,
                                   tile_pairs + p * in_size + panel * in_panel, outputs, inputs,
                                   products + p * out_size + panel * out_panel);
        } else
#endif
        {
            transform_inputs(&c, from, inputs, count, tiles, 0);
            for (int p = 0; p < POSITIONS; p++)
                for (int panel = 0; panel < c.panels; panel++)
                    multiply(weights + p * pairs, tiles + p * in_size + panel * in_panel, outputs,
                             inputs, products + p * out_size + panel * out_panel);
        }
        transform_outputs(&c, products, bias, outputs, count, y + n * outputs * area);
    }
#ifdef __AVX512BF16__
    free(weight_pairs);
#endif
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
    struct Chunk c = chunk_new(images, height, width, 256 / sizeof(narrow));
    ptrdiff_t area = height * width, pairs = apart(outputs * inputs);
    ptrdiff_t in_size = apart(c.panels * inputs * PANEL),
              out_size = apart(c.panels * outputs * PANEL);
    float *sums = allocate(POSITIONS * pairs, sizeof(float));
    narrow *tiles = allocate(POSITIONS * in_size, sizeof(narrow));
    narrow *gradients = allocate(POSITIONS * out_size, sizeof(narrow));
    memset(sums, 0, POSITIONS * pairs * sizeof(float));
    for (ptrdiff_t n = 0; n < images; n += c.images) {
        ptrdiff_t count = images - n < c.images ? images - n : c.images;
        transform_inputs(&c, x + n * inputs * area, inputs, count, tiles, 1);
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
