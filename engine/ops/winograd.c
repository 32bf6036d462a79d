// The weights of conv3_winograd: transformed and packed for F(4x4, 3x3), see the shader. Called by
// weight.c when a network loads. Thread: the engine's worker.
#include "winograd.h"

#include <stdlib.h>
#include <string.h>

enum { SIDE = 6, TAPS = 9 };

// Source: Lavin and Gray 2016, for the points 0, 1, -1, 2, -2 and infinity.
static const double G[SIDE][3] = {{1. / 4, 0, 0},
                                  {-1. / 6, -1. / 6, -1. / 6},
                                  {-1. / 6, 1. / 6, -1. / 6},
                                  {1. / 24, 1. / 12, 1. / 6},
                                  {1. / 24, -1. / 12, 1. / 6},
                                  {0, 0, 1}};

// u[6 column + row] = (G g G^T)[row][column]; g: the nine taps.
static void transform(const float *g, float *u, size_t step)
{
    double half[SIDE][3];
    for (int r = 0; r < SIDE; r++)
        for (int x = 0; x < 3; x++)
            half[r][x] =
                G[r][0] * (double)g[x] + G[r][1] * (double)g[3 + x] + G[r][2] * (double)g[6 + x];
    for (int r = 0; r < SIDE; r++)
        for (int c = 0; c < SIDE; c++)
            u[(size_t)(SIDE * c + r) * step] =
                (float)(half[r][0] * G[c][0] + half[r][1] * G[c][1] + half[r][2] * G[c][2]);
}

enum err winograd_pack(const struct op_weight_params *p, uint32_t sg, const struct tensor *packed)
{
    const size_t at = packed->offset * sizeof(float);
    const size_t group = (size_t)WINOGRAD_POSITIONS * vec4s(p->in) * sg * 4;
    const size_t row = (size_t)p->in * TAPS, rows = tensor_span(packed) * sg / group;
    float *to = malloc(group * sizeof *to), *taps = malloc(row * sizeof *taps);
    enum err e = to && taps ? ERR_OK : ERR_NO_MEMORY;

    for (uint32_t first = 0; !e && first < rows; first += sg) {
        memset(to, 0, group * sizeof *to);
        for (uint32_t lane = 0; lane < sg && first + lane < p->out; lane++) {
            floats_from((const char *)p->weight +
                            (first + lane) * row * tensor_dtype_bytes(p->from),
                        p->from, row, taps);
            for (uint32_t in = 0; in < p->in; in++)
                transform(taps + (size_t)in * TAPS, to + ((size_t)in / 4 * sg + lane) * 4 + in % 4,
                          (size_t)vec4s(p->in) * sg * 4);
        }
        e = vk_upload(packed->buf, at + first / sg * group * sizeof *to, to, group * sizeof *to);
    }
    free(to);
    free(taps);
    return e;
}
