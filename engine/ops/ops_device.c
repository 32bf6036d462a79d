// Opening a device for operators: which kernels suit it, proven by a probe before they are
// trusted. Called by the engine. Thread: the engine's worker. Knows no operator but the probe.
#include "ops_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *path_names[PATH_COUNT] = {"texel", "buffer", "tile"};

static enum load_path load_of(enum ops_path path)
{
    return path == PATH_TEXEL ? LOAD_TEXEL : LOAD_BUFFER;
}

// Every kernel that the path may choose must find what it needs; else says what is missing.
static bool path_possible(const struct vk_caps *caps, enum ops_path path, char lacks[KERNEL_LACK])
{
    const unsigned others = path == PATH_TILE ? NEED_SUBGROUP : NEED_SHARED;
    for (int i = 0; i < KERNEL_COUNT; i++) {
        const struct kernel *k = kernel_get((enum kernel_id)i);
        if (!(k->needs & others) && kernel_lacks(k, caps, load_of(path), lacks))
            return false;
    }
    return true;
}

static void use_path(struct ops_device *dev, enum ops_path path)
{
    dev->path = path;
    dev->load = load_of(path);
    dev->info.load = path_names[path];
}

static enum err record_probe(struct ops *o, const struct tensor *x, const struct tensor *y)
{
    uint32_t sg = ops_recorder_device(o)->caps->subgroup_size;
    struct push_probe push = {.count = sg};
    ops_dispatch(o, &(struct ops_call){
                        .kernel = K_PROBE,
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

// *good: the device does what the lane kernels of its path and this dtype rely on.
static enum err probe(struct ops_device *dev, enum dtype dtype, bool *good)
{
    uint32_t sg = dev->caps->subgroup_size;
    struct tensor x = {0}, y = {0};
    struct ops *o = NULL;
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
    return e;
}

// Software devices: lanes, by the cheapest load that the driver has and gets right. Others: tiles.
static enum err choose_path(struct ops_device *dev, struct fault *why)
{
    char lacks[KERNEL_LACK];
    for (enum ops_path path = PATH_TEXEL; dev->caps->cpu && path < PATH_TILE; path++) {
        if (!path_possible(dev->caps, path, lacks))
            continue;
        use_path(dev, path);
        bool good;
        enum err e = probe(dev, dev->info.dtype, &good);
        if (e)
            return fault_set(why, e, "device", "%.60s cannot run a compute shader: %s",
                             dev->caps->name, ops_device_why(dev, e));
        if (good)
            return ERR_OK;
    }
    if (!path_possible(dev->caps, PATH_TILE, lacks))
        return fault_set(why, ERR_UNSUPPORTED, "device", "%.60s cannot be used: %s",
                         dev->caps->name, lacks);
    use_path(dev, PATH_TILE);
    return ERR_OK;
}

static enum err choose_dtype(struct ops_device *dev, const char *dtype, struct fault *why)
{
    if (dtype && strcmp(dtype, "f32") != 0 && strcmp(dtype, "f16") != 0)
        return fault_set(why, ERR_INVALID, "dtype", "\"%s\" is neither f32 nor f16", dtype);
    bool f16 = dtype ? !strcmp(dtype, "f16") : !dev->caps->cpu;
    dev->info.dtype = f16 ? DT_F16 : DT_F32;
    return ERR_OK;
}

enum err ops_device_open(const struct ops_open_params *p, struct ops_device **out,
                         struct fault *why)
{
    *out = NULL;
    struct ops_device *dev = calloc(1, sizeof *dev);
    if (!dev)
        return fault_set(why, ERR_NO_MEMORY, "device", "out of memory");
    struct vk_open_params vk = {
        .device = p->device,
        .cache_dir = p->cache_dir,
        .memory_limit = p->memory_limit,
        .validation = p->validation,
        .profile = p->profile,
    };
    enum err e = vk_device_open(&vk, &dev->vk, why);
    if (e)
        goto fail;
    dev->caps = vk_device_caps(dev->vk);
    snprintf(dev->info.name, sizeof dev->info.name, "%s", dev->caps->name);
    snprintf(dev->info.driver, sizeof dev->info.driver, "%s", dev->caps->driver);
    dev->info.cpu = dev->caps->cpu;
    dev->info.memory_bytes = dev->caps->memory_bytes;
    e = vk_buffer_create(dev->vk, VK_DEVICE, 256, &dev->absent);
    if (e) {
        fault_set(why, e, "device", "%.60s: %s", dev->caps->name, ops_device_why(dev, e));
        goto fail;
    }
    e = activations_create(dev, &dev->activations);
    if (e) {
        fault_set(why, e, "device", "%s", err_text(e));
        goto fail;
    }
    e = choose_dtype(dev, p->dtype, why);
    if (!e)
        e = choose_path(dev, why);
    if (e)
        goto fail;
    *out = dev;
    return ERR_OK;
fail:
    ops_device_close(&dev);
    return e;
}

void ops_device_close(struct ops_device **dp)
{
    struct ops_device *dev = *dp;
    if (!dev)
        return;
    if (dev->vk) {
        pipelines_destroy(dev);
        activations_destroy(&dev->activations);
        vk_buffer_destroy(&dev->absent);
        vk_device_close(&dev->vk);
    }
    free(dev);
    *dp = NULL;
}

enum err ops_device_set_path(struct ops_device *dev, enum ops_path path)
{
    char lacks[KERNEL_LACK];
    if (!path_possible(dev->caps, path, lacks))
        return vk_fail(dev->vk, ERR_UNSUPPORTED, "%s", lacks);
    use_path(dev, path);
    return ERR_OK;
}

const struct ops_device_info *ops_device_info(const struct ops_device *dev)
{
    return &dev->info;
}

void ops_device_memory(const struct ops_device *dev, struct ops_memory *out)
{
    struct vk_memory_stats s;
    vk_memory_stats(dev->vk, &s);
    *out = (struct ops_memory){s.used, s.peak, s.reserved, s.limit};
}

const char *ops_device_why(const struct ops_device *dev, enum err e)
{
    return vk_device_why(dev->vk, e);
}

unsigned ops_device_validation_messages(const struct ops_device *dev)
{
    return vk_validation_messages(dev->vk);
}

enum err ops_device_list(char **text, struct fault *why)
{
    enum { MOST = 16 };
    *text = NULL;
    int count = 0;
    size_t bytes = 0;
    char *list = NULL;
    struct vk_caps *caps = calloc(MOST, sizeof *caps);
    FILE *f = open_memstream(&list, &bytes);
    enum err e = caps && f ? vk_device_list(caps, MOST, &count, why)
                           : fault_set(why, ERR_NO_MEMORY, "device", "out of memory");
    for (int i = 0; !e && i < count; i++)
        fprintf(f, "%d  %s  (%s, %s, %zu MiB)\n", i, caps[i].name, caps[i].driver,
                caps[i].cpu ? "software" : "GPU", caps[i].memory_bytes >> 20);
    if (f && fclose(f) && !e)
        e = fault_set(why, ERR_NO_MEMORY, "device", "out of memory");
    free(caps);
    if (e)
        free(list);
    else
        *text = list;
    return e;
}
