// Proves a device's matrix units before they are trusted: a product of small integers, whose sums
// halves and floats hold exactly, over shapes that leave tiles partly empty. Called when a device
// opens. Thread: the engine's worker.
#include "ops_internal.h"

#include <stdlib.h>

enum { PIXELS = 70, IN = 36, OUT = 68 };

static float x_at(uint32_t pixel, uint32_t k)
{
    return (float)((int)(pixel * 7 + k * 5) % 7 - 3);
}

static float w_at(uint32_t out, uint32_t k)
{
    return (float)((int)(out * 3 + k * 11) % 5 - 2);
}

static enum err run(struct ops_device *dev, const float *x, const float *w, float *y)
{
    const struct op_weight_params p = {
        .weight = w, .out = OUT, .in = IN, .kernel = 1, .dtype = DT_F16};
    struct tensor tx = {0}, ty = {0};
    struct op_weight *weight = NULL;
    struct ops *o = NULL;
    enum err e = tensor_create(dev, DT_F16, 1, 1, PIXELS, IN, &tx);
    if (!e)
        e = tensor_create(dev, DT_F16, 1, 1, PIXELS, OUT, &ty);
    if (!e)
        e = tensor_upload(&tx, x);
    if (!e)
        e = op_weight_create(dev, &p, &weight);
    if (!e)
        e = ops_begin(dev, DT_F16, &o);
    if (!e) {
        op_linear(o, &tx, weight, NULL, &ty);
        e = ops_end(o);
    }
    if (!e)
        e = ops_run(o);
    if (!e)
        e = tensor_download(&ty, y);
    ops_destroy(&o);
    op_weight_destroy(&weight);
    tensor_destroy(&tx);
    tensor_destroy(&ty);
    return e;
}

static bool is_right(const float *y)
{
    for (uint32_t pixel = 0; pixel < PIXELS; pixel++)
        for (uint32_t out = 0; out < OUT; out++) {
            float sum = 0;
            for (uint32_t k = 0; k < IN; k++)
                sum += x_at(pixel, k) * w_at(out, k);
            if (y[pixel * OUT + out] != sum)
                return false;
        }
    return true;
}

enum err ops_prove_matrix(struct ops_device *dev, bool *good)
{
    const struct kernel_wish own = dev->wish;
    const enum dtype dtype = dev->info.dtype;
    char why[KERNEL_WHY];
    float *x = malloc(PIXELS * IN * sizeof *x), *w = malloc(OUT * IN * sizeof *w);
    float *y = malloc(PIXELS * OUT * sizeof *y);
    enum err e = x && w && y ? ERR_OK : ERR_NO_MEMORY;
    *good = false;
    for (uint32_t i = 0; !e && i < PIXELS * IN; i++)
        x[i] = x_at(i / IN, i % IN);
    for (uint32_t i = 0; !e && i < OUT * IN; i++)
        w[i] = w_at(i / IN, i % IN);
    if (!e && !kernel_wish(dev, "matmul_matrix", &dev->wish, why)) {
        dev->info.dtype = DT_F16;
        e = run(dev, x, w, y);
        *good = !e && is_right(y);
        dev->info.dtype = dtype;
        dev->wish = own;
    }
    free(x);
    free(w);
    free(y);
    return e;
}
