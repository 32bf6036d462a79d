// Proves a device before its kernels are trusted: which loads and subgroups of a software device
// work, by a probe, and whether a GPU's matrix units do, by a product and an attention whose
// results are exact. Called when a device opens. Thread: the engine's worker.
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

static enum err prove_product(struct ops_device *dev, bool *good)
{
    float *x = malloc(PIXELS * IN * sizeof *x), *w = malloc(OUT * IN * sizeof *w);
    float *y = malloc(PIXELS * OUT * sizeof *y);
    enum err e = x && w && y ? ERR_OK : ERR_NO_MEMORY;
    for (uint32_t i = 0; !e && i < PIXELS * IN; i++)
        x[i] = x_at(i / IN, i % IN);
    for (uint32_t i = 0; !e && i < OUT * IN; i++)
        w[i] = w_at(i / IN, i % IN);
    if (!e)
        e = run(dev, x, w, y);
    *good = !e && is_right(y);
    free(x);
    free(w);
    free(y);
    return e;
}

// Each query points along one of D axes, and so do the keys. Those of the first block of a query's
// axis score 512, those of the second 1024: far enough for the others to count nothing, so that the
// result is the mean of the second block's four values on that axis.
enum { QUERIES = 70, KEYS = 64, D = 8, ON_AXIS = KEYS / 2 / D };

static float v_at(uint32_t key, uint32_t c)
{
    return (float)((int)(key * 5 + c * 3) % 9 - 4);
}

static bool attends_right(const float *y)
{
    for (uint32_t query = 0; query < QUERIES; query++)
        for (uint32_t c = 0; c < D; c++) {
            float sum = 0;
            for (uint32_t i = 0; i < ON_AXIS; i++)
                sum += v_at(KEYS / 2 + i * D + query % D, c);
            if (y[query * D + c] != sum / ON_AXIS)
                return false;
        }
    return true;
}

// v: room for QUERIES * D values, the result.
static enum err prove_attention(struct ops_device *dev, float *v, bool *good)
{
    struct tensor q = {0}, keys = {0}, values = {0}, y = {0};
    struct ops *o = NULL;
    enum err e = tensor_create(dev, DT_F16, 1, 1, QUERIES, D, &q);
    if (!e)
        e = tensor_create(dev, DT_F16, 1, 1, KEYS, D, &keys);
    if (!e)
        e = tensor_create(dev, DT_F16, 1, 1, KEYS, D, &values);
    if (!e)
        e = tensor_create(dev, DT_F16, 1, 1, QUERIES, D, &y);
    for (uint32_t i = 0; i < QUERIES * D; i++)
        v[i] = i % D == i / D % D ? 32 : 0;
    if (!e)
        e = tensor_upload(&q, v);
    for (uint32_t i = 0; i < KEYS * D; i++)
        v[i] = i % D != i / D % D ? 0 : i / D < KEYS / 2 ? 16 : 32;
    if (!e)
        e = tensor_upload(&keys, v);
    for (uint32_t i = 0; i < KEYS * D; i++)
        v[i] = v_at(i / D, i % D);
    if (!e)
        e = tensor_upload(&values, v);
    if (!e)
        e = ops_begin(dev, DT_F16, &o);
    if (!e) {
        op_attention(o, &(struct op_attention_params){.q = &q,
                                                      .segment = {{&keys, &values, NULL}},
                                                      .segments = 1,
                                                      .heads = 1,
                                                      .scale = 1,
                                                      .y = &y});
        e = ops_end(o);
    }
    if (!e)
        e = ops_run(o);
    if (!e)
        e = tensor_download(&y, v);
    *good = !e && attends_right(v);
    ops_destroy(&o);
    tensor_destroy(&q);
    tensor_destroy(&keys);
    tensor_destroy(&values);
    tensor_destroy(&y);
    return e;
}

enum err ops_prove_matrix(struct ops_device *dev, bool *good)
{
    const struct kernel_wish own = dev->wish;
    const enum dtype dtype = dev->info.dtype;
    char why[KERNEL_WHY];
    float v[QUERIES * D];
    enum err e = ERR_OK;
    *good = false;
    if (kernel_wish(dev, "matmul_matrix,attention_matrix", &dev->wish, why))
        return ERR_OK;
    dev->info.dtype = DT_F16;
    e = prove_product(dev, good);
    if (!e && *good)
        e = prove_attention(dev, v, good);
    dev->info.dtype = dtype;
    dev->wish = own;
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
