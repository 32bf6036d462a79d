// Opens a device for operators: its settings, and the kernels that are proven and preferred. Called
// by the engine. Thread: the engine's worker.
#include "tune.h"
#include "weight_format.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum err ops_device_prefer(struct ops_device *dev, const char *kernels)
{
    struct kernel_wish wish;
    char text[KERNEL_WHY];
    enum err e = kernel_wish(dev, kernels, &wish, text);
    if (!e && !kernels_suffice(dev, text))
        e = ERR_UNSUPPORTED;
    if (e)
        return vk_fail(dev->vk, e, "%s", text);
    dev->wish = wish;
    return ERR_OK;
}

// By the device's proofs and limits, and the environment's IMAGEND_KERNEL.
static enum err choose_kernels(struct ops_device *dev, struct fault *why)
{
    enum err e = ops_prove(dev, why);
    if (e)
        return e;
    if ((e = ops_device_prefer(dev, NULL)))
        return fault_set(why, e, "device", "%.60s cannot be used: %s", dev->caps->name,
                         ops_device_why(dev, e));
    const char *kernels = getenv("IMAGEND_KERNEL");
    if (kernels && (e = ops_device_prefer(dev, kernels)))
        return fault_set(why, e, "device", "IMAGEND_KERNEL: %s", ops_device_why(dev, e));
    return ERR_OK;
}

static enum err choose_weights(struct ops_device *dev, const char *weights, struct fault *why)
{
    const struct weight_format *f = weights ? weight_format_find(weights) : NULL;
    if (weights && !f)
        return fault_set(why, ERR_INVALID, "weights", "\"%.60s\" is not f32, f16, bf16, q8 or q4",
                         weights);
    dev->info.weights = f ? f->dtype : dev->info.dtype;
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

static enum err choose_tuning(struct ops_device *dev, const char *tune, struct fault *why)
{
    const bool automatic = !tune || !*tune || !strcmp(tune, "auto");
    if (!automatic && strcmp(tune, "on") != 0 && strcmp(tune, "off") != 0)
        return fault_set(why, ERR_INVALID, "tune", "\"%.60s\" is not auto, on or off", tune);
    if (automatic ? dev->caps->cpu : !strcmp(tune, "off"))
        return ERR_OK;
    const enum err e = tune_open(dev, !automatic);
    return e ? fault_set(why, e, "device", "%s", err_text(e)) : ERR_OK;
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
        e = choose_weights(dev, p->weights, why);
    if (!e)
        e = choose_kernels(dev, why);
    if (!e)
        e = choose_tuning(dev, p->tune, why);
    if (e)
        goto fail;
    *out = dev;
    return ERR_OK;
fail:
    ops_device_close(&dev);
    return e;
}

// Appends "ROW BUILD" of each program that this device has run to the file that IMAGEND_KERNEL_LOG
// names: the coverage of the kernel table, for tests.
static void log_kernels(const struct ops_device *dev)
{
    const char *path = getenv("IMAGEND_KERNEL_LOG");
    FILE *f = path && *path ? fopen(path, "a") : NULL;
    for (int i = 0; f && i < dev->pipeline_count; i++) {
        const struct kernel_choice *c = &dev->pipelines[i].key.choice;
        if (dev->pipelines[i].vk)
            fprintf(f, "%s %s\n", c->kernel->name, c->build->name);
    }
    if (f)
        fclose(f);
}

void ops_device_close(struct ops_device **dp)
{
    struct ops_device *dev = *dp;
    if (!dev)
        return;
    if (dev->vk) {
        log_kernels(dev);
        tune_close(dev);
        pipelines_destroy(dev);
        activations_destroy(&dev->activations);
        vk_buffer_destroy(&dev->absent);
        vk_device_close(&dev->vk);
    }
    free(dev);
    *dp = NULL;
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

void ops_device_set_memory_limit(struct ops_device *dev, size_t limit)
{
    vk_memory_set_limit(dev->vk, limit);
}

enum err ops_device_count(struct ops_device *dev, bool on)
{
    struct activations *fresh = NULL;
    enum err e = on && !dev->real ? activations_create(dev, &fresh) : ERR_OK;
    if (e || on == (dev->real != NULL))
        return e;
    if (on) {
        dev->real = dev->activations;
        dev->activations = fresh;
    } else {
        activations_destroy(&dev->activations);
        dev->activations = dev->real;
        dev->real = NULL;
    }
    dev->products = dev->largest = 0;
    vk_count_only(dev->vk, on);
    return ERR_OK;
}

void ops_device_counted(const struct ops_device *dev, struct ops_counted *out)
{
    struct vk_memory_stats s;
    vk_memory_stats(dev->vk, &s);
    *out = (struct ops_counted){s.dry_used, s.dry_peak, activations_bytes(dev->activations),
                                dev->products, dev->largest};
}

enum err ops_device_settle(struct ops_device *dev)
{
    return vk_upload_finish(dev->vk);
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
    for (int i = 0; !e && i < count; i++) {
        fprintf(f, "%d  %s  (%s, %s, %zu MiB)\n", i, caps[i].name, caps[i].driver,
                caps[i].cpu ? "software" : "GPU", caps[i].memory_bytes >> 20);
        if (caps[i].matrix.m)
            fprintf(f, "   matrix units %ux%ux%u f16%s\n", caps[i].matrix.m, caps[i].matrix.n,
                    caps[i].matrix.k,
                    kernels_have_matrix_units()
                        ? ""
                        : ", not used: this program was built by a glslc without "
                          "GL_KHR_cooperative_matrix");
    }
    if (f && fclose(f) && !e)
        e = fault_set(why, ERR_NO_MEMORY, "device", "out of memory");
    free(caps);
    if (e)
        free(list);
    else
        *text = list;
    return e;
}
