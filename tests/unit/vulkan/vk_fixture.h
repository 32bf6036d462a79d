// Shared by the tests of the Vulkan layer: a device, two small pipelines, and dispatches of them.
#ifndef IMAGEND_VK_FIXTURE_H
#define IMAGEND_VK_FIXTURE_H

#include "test.h"
#include "vk.h"

#include <stdlib.h>
#include <unistd.h>

static const uint32_t add_spirv[] = {
#include "vk_add.inc"
};
static const uint32_t texel_spirv[] = {
#include "vk_texel.inc"
};

enum { ADD_LOCAL = 8 };

// y[i] = scale * x[i] + add
static inline enum err make_add(struct vk_device *dev, uint32_t scale, struct vk_pipeline **out)
{
    struct vk_pipeline_params p = {
        .name = scale == 2 ? "twice" : "add",
        .spirv = add_spirv,
        .spirv_bytes = sizeof add_spirv,
        .bindings = 2,
        .binding = {VK_STORAGE, VK_STORAGE},
        .push_bytes = 8,
        .specs = 2,
        .spec = {ADD_LOCAL, scale},
    };
    return vk_pipeline_create(dev, &p, out);
}

// y[i] = texel first + i of x
static inline enum err make_texel(struct vk_device *dev, enum vk_binding_type type,
                                  struct vk_pipeline **out)
{
    struct vk_pipeline_params p = {
        .name = "texel",
        .spirv = texel_spirv,
        .spirv_bytes = sizeof texel_spirv,
        .bindings = 2,
        .binding = {type, VK_STORAGE},
        .push_bytes = 8,
    };
    return vk_pipeline_create(dev, &p, out);
}

struct range {
    struct vk_buffer *buf;
    size_t offset;
};

static inline void record_add(struct vk_cmd *cmd, struct vk_pipeline *pipe, struct range x,
                              struct range y, uint32_t n, uint32_t add)
{
    uint32_t push[2] = {n, add};
    struct vk_dispatch d = {
        .pipe = pipe,
        .binding = {{x.buf, x.offset, n * sizeof(uint32_t), VK_READ},
                    {y.buf, y.offset, n * sizeof(uint32_t), VK_WRITE}},
        .push = push,
        .groups = {(n + ADD_LOCAL - 1) / ADD_LOCAL, 1, 1},
    };
    vk_cmd_dispatch(cmd, &d);
}

static inline enum err run(struct vk_device *dev, struct vk_cmd *cmd)
{
    uint64_t ticket;
    enum err e = vk_submit(cmd, &ticket);
    return e ? e : vk_wait(dev, ticket, 30);
}

// NULL when this machine has no Vulkan device.
static inline struct vk_device *open_device(const struct vk_open_params *p)
{
    struct fault why = {0};
    struct vk_device *dev;
    if (vk_device_open(p, &dev, &why))
        printf("%s\n", why.msg);
    return dev;
}

#endif
