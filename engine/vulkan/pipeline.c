// Compute pipelines: creates a VkPipeline and its layout from SPIR-V, specialization constants and
// binding types. Called by engine/ops, on several threads at once. Knows no shader by name.
#include "vk_internal.h"

#include <stdlib.h>

static enum err check(struct vk_device *dev, const struct vk_pipeline_params *p)
{
    const struct vk_physical *ph = &dev->ph;
    if (!p->spirv || p->spirv_bytes < 20 || p->spirv_bytes % 4 || p->bindings < 0 ||
        p->bindings > VK_MAX_BINDINGS || p->specs < 0 || p->specs > VK_MAX_SPEC ||
        p->push_bytes % 4)
        return ERR_INVALID;
    if (p->push_bytes > ph->caps.max_push_bytes)
        return vk_fail(dev, ERR_UNSUPPORTED,
                       "%s needs %u bytes of push constants, but the device allows only %u",
                       p->name, p->push_bytes, ph->caps.max_push_bytes);
    for (int i = 0; i < p->bindings; i++)
        if ((p->binding[i] == VK_TEXEL_F32 && !ph->caps.texel_f32) ||
            (p->binding[i] == VK_TEXEL_F16 && !ph->caps.texel_f16))
            return vk_fail(dev, ERR_UNSUPPORTED,
                           "%s needs uniform texel buffers, which the device does not support",
                           p->name);
    if (p->subgroup_size &&
        (p->subgroup_size < ph->subgroup_min || p->subgroup_size > ph->subgroup_max))
        return vk_fail(dev, ERR_UNSUPPORTED,
                       "%s needs subgroups of %u, but the device supports %u to %u", p->name,
                       p->subgroup_size, ph->subgroup_min, ph->subgroup_max);
    return ERR_OK;
}

static enum err make_layout(struct vk_pipeline *pipe)
{
    VkDescriptorSetLayoutBinding bind[VK_MAX_BINDINGS] = {0};
    for (int i = 0; i < pipe->bindings; i++)
        bind[i] = (VkDescriptorSetLayoutBinding){
            .binding = (uint32_t)i,
            .descriptorType = pipe->binding[i] == VK_STORAGE
                                  ? VK_DESCRIPTOR_TYPE_STORAGE_BUFFER
                                  : VK_DESCRIPTOR_TYPE_UNIFORM_TEXEL_BUFFER,
            .descriptorCount = 1,
            .stageFlags = VK_SHADER_STAGE_COMPUTE_BIT,
        };
    VkDescriptorSetLayoutCreateInfo set = {
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO,
        .bindingCount = (uint32_t)pipe->bindings,
        .pBindings = bind,
    };
    VkPushConstantRange push = {.stageFlags = VK_SHADER_STAGE_COMPUTE_BIT,
                                .size = pipe->push_bytes};
    VkPipelineLayoutCreateInfo layout = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO,
        .setLayoutCount = 1,
        .pSetLayouts = &pipe->set_layout,
        .pushConstantRangeCount = pipe->push_bytes ? 1 : 0,
        .pPushConstantRanges = &push,
    };
    struct vk_device *dev = pipe->dev;
    enum err e =
        VK_CALL(dev, vkCreateDescriptorSetLayout, dev->handle, &set, NULL, &pipe->set_layout);
    return e ? e : VK_CALL(dev, vkCreatePipelineLayout, dev->handle, &layout, NULL, &pipe->layout);
}

static enum err make_pipeline(struct vk_pipeline *pipe, const struct vk_pipeline_params *p)
{
    VkSpecializationMapEntry map[VK_MAX_SPEC] = {0};
    VkShaderModule module;
    for (int i = 0; i < p->specs; i++)
        map[i] = (VkSpecializationMapEntry){.constantID = (uint32_t)i,
                                            .offset = (uint32_t)i * sizeof p->spec[0],
                                            .size = sizeof p->spec[0]};
    VkSpecializationInfo spec = {.mapEntryCount = (uint32_t)p->specs,
                                 .pMapEntries = map,
                                 .dataSize = (size_t)p->specs * sizeof p->spec[0],
                                 .pData = p->spec};
    VkPipelineShaderStageRequiredSubgroupSizeCreateInfo size = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_REQUIRED_SUBGROUP_SIZE_CREATE_INFO,
        .requiredSubgroupSize = p->subgroup_size,
    };
    VkShaderModuleCreateInfo code = {
        .sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO,
        .codeSize = p->spirv_bytes,
        .pCode = p->spirv,
    };
    struct vk_device *dev = pipe->dev;
    enum err e = VK_CALL(dev, vkCreateShaderModule, dev->handle, &code, NULL, &module);
    if (e)
        return e;
    VkComputePipelineCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO,
        .stage = {.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
                  .pNext = p->subgroup_size && dev->ph.size_control ? &size : NULL,
                  .stage = VK_SHADER_STAGE_COMPUTE_BIT,
                  .module = module,
                  .pName = "main",
                  .pSpecializationInfo = p->specs ? &spec : NULL},
        .layout = pipe->layout,
    };
    e = VK_CALL(dev, vkCreateComputePipelines, dev->handle, dev->cache, 1, &info, NULL,
                &pipe->handle);
    vkDestroyShaderModule(dev->handle, module, NULL);
    if (!e)
        VK_NAME(dev, PIPELINE, pipe->handle, p->name);
    return e;
}

enum err vk_pipeline_create(struct vk_device *dev, const struct vk_pipeline_params *p,
                            struct vk_pipeline **out)
{
    *out = NULL;
    enum err e = check(dev, p);
    if (e)
        return e;
    struct vk_pipeline *pipe = calloc(1, sizeof *pipe);
    if (!pipe)
        return ERR_NO_MEMORY;
    pipe->dev = dev;
    pipe->name = p->name;
    pipe->bindings = p->bindings;
    pipe->push_bytes = p->push_bytes;
    for (int i = 0; i < p->bindings; i++)
        pipe->binding[i] = p->binding[i];
    e = make_layout(pipe);
    if (!e)
        e = make_pipeline(pipe, p);
    if (e)
        vk_pipeline_destroy(&pipe);
    *out = pipe;
    return e;
}

void vk_pipeline_destroy(struct vk_pipeline **ppipe)
{
    struct vk_pipeline *pipe = *ppipe;
    if (!pipe)
        return;
    *ppipe = NULL;
    VkDevice dev = pipe->dev->handle;
    vkDestroyPipeline(dev, pipe->handle, NULL);
    vkDestroyPipelineLayout(dev, pipe->layout, NULL);
    vkDestroyDescriptorSetLayout(dev, pipe->set_layout, NULL);
    free(pipe);
}
