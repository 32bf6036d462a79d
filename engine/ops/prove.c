// Proves a device before its kernels are trusted: which loads and subgroups of a software device
// work, by a probe, and whether a GPU's matrix units do, by a product of integers. Called when a
// device opens. Thread: the engine's worker.
#include "ops_internal.h"

#include <stdlib.h>

// ---- loads and subgroups ----------------------------------------------------------------------

static enum err record_probe(struct ops *o, const struct tensor *x, const struct tensor *y)
{
    uint32_t sg = ops_recorder_device(o)->caps->subgroup_size;
    struct push_probe push = {.count = sg};
    ops_dispatch(o, &(struct ops_call){
                        .op = OP_PROBE,
                        .dtype = x->dtype,
                        .specs = 1,
                        .spec = {sg},
                        .arg = {x, y},
                        .push = &push,
                        .groups = {1, 1, 1},
                    });
    enum err e = ops_end(o);
    return e ? e : ops_run(o);
}

// *good: the device does what the lane kernels rely on, with operands of this load.
static enum err probe(struct ops_device *dev, enum operand_load load, bool *good)
{
    const enum dtype dtype = dev->info.dtype;
    uint32_t sg = dev->caps->subgroup_size;
    struct tensor x = {0}, y = {0};
    struct ops *o = NULL;
    dev->wish.loads = 1u << load;
    float *v = calloc(sg, 4 * sizeof *v);
    enum err e = v ? ERR_OK : ERR_NO_MEMORY;
    for (uint32_t i = 0; !e && i < 4 * sg; i++)
        v[i] = (float)(i + 1);
    if (!e)
        e = tensor_create(dev, dtype, 1, 1, sg, 4, &x);
    if (!e)
        e = tensor_create(dev, DT_F32, 1, 1, sg, 4, &y);
    if (!e)
        e = tensor_upload(&x, v);
    if (!e)
        e = ops_begin(dev, dtype, &o);
    if (!e)
        e = record_probe(o, &x, &y);
    if (!e)
        e = tensor_download(&y, v);
    *good = !e;
    for (uint32_t i = 0; !e && i < sg; i++)
        *good = *good && v[i] == 1;
    ops_destroy(&o);
    tensor_destroy(&x);
    tensor_destroy(&y);
    free(v);
    dev->wish.loads = 0;
    return e;
}

enum err ops_prove_loads(struct ops_device *dev, ops_probe_fn *try_load)
{
    const struct vk_caps *caps = dev->caps;
    bool good = false;
    if (!caps->cpu || !caps->subgroup_shuffle)
        return ERR_OK;
    for (int load = LOAD_TEXEL; !good && load >= LOAD_BUFFER; load--) {
        if (load == LOAD_TEXEL && !(caps->texel_f32 && caps->texel_f16))
            continue;
        enum err e = try_load(dev, (enum operand_load)load, &good);
        if (e)
            return e;
        // The tiles load from buffers, too: not tried here, and never given up.
        dev->broken.texels = dev->broken.texels || (load == LOAD_TEXEL && !good);
    }
    dev->broken.shuffles = !good;
    return ERR_OK;
}

// ---- matrix units -----------------------------------------------------------------------------

// Small integers, whose sums halves and floats hold exactly, in shapes that leave tiles partly
// empty.
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

// ---- both -------------------------------------------------------------------------------------

enum err ops_prove(struct ops_device *dev, struct fault *why)
{
    bool good;
    enum err e = ops_prove_loads(dev, probe);
    if (e)
        return fault_set(why, e, "device", "%.60s cannot run a compute shader: %s", dev->caps->name,
                         ops_device_why(dev, e));
    // Software devices have matrix units only for tests: what costs seconds of compilation there is
    // not tried at every start.
    if (dev->caps->cpu || !dev->caps->matrix.m || !kernels_have_matrix_units())
        return ERR_OK;
    e = ops_prove_matrix(dev, &good);
    dev->broken.matrix = !good;
    if (e == ERR_DEVICE_LOST)
        return fault_set(why, e, "device", "%.60s: %s", dev->caps->name, ops_device_why(dev, e));
    return ERR_OK;
}
