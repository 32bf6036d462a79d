// Matrix units: whether a device has them, and the shape that kernels are specialized for. Called
// by instance.c on the thread that opens a device. Knows nothing about kernels.
#include "vk_internal.h"

#include <stdlib.h>

// Of VkCooperativeMatrixPropertiesKHR.
enum { PROPERTIES = 1000506001 };
typedef VkResult VKAPI_PTR query(VkPhysicalDevice handle, uint32_t *count,
                                 struct vk_matrix_properties *list);

static bool has_features(const struct vk_physical *ph)
{
    struct vk_matrix_features matrix = {.type = VK_MATRIX_FEATURES};
    VkPhysicalDeviceVulkan12Features f12 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES, .pNext = &matrix};
    VkPhysicalDeviceFeatures2 features = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2,
                                          .pNext = &f12};
    vkGetPhysicalDeviceFeatures2(ph->handle, &features);
    return matrix.matrix && f12.shaderFloat16 && f12.vulkanMemoryModel;
}

// The tiles of the kernels are powers of two, and have no room for larger matrices than these.
static bool fits(uint32_t side, uint32_t most)
{
    return side >= 4 && side <= most && !(side & (side - 1));
}

static bool is_usable(const struct vk_matrix_properties *p)
{
    return p->a == VK_MATRIX_F16 && p->b == VK_MATRIX_F16 && p->c == VK_MATRIX_F32 &&
           p->result == VK_MATRIX_F32 && !p->saturates && p->scope == VK_MATRIX_SUBGROUP &&
           fits(p->m, 16) && fits(p->n, 16) && fits(p->k, 16);
}

const struct vk_matrix_properties *vk_matrix_best(const struct vk_matrix_properties *list,
                                                  uint32_t count)
{
    const struct vk_matrix_properties *best = NULL;
    for (uint32_t i = 0; i < count; i++) {
        const struct vk_matrix_properties *p = &list[i];
        // Larger results need fewer loads for each product, then longer sums fewer calls.
        if (is_usable(p) && (!best || p->m * p->n > best->m * best->n ||
                             (p->m * p->n == best->m * best->n && p->k > best->k)))
            best = p;
    }
    return best;
}

void vk_matrix_find(const struct vk_instance *inst, struct vk_physical *ph)
{
    PFN_vkVoidFunction found =
        vkGetInstanceProcAddr(inst->handle, "vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR");
    query *get = (query *)(void (*)(void))found;
    uint32_t count = 0;
    if (!ph->matrix_ext || !get || !has_features(ph) ||
        get(ph->handle, &count, NULL) != VK_SUCCESS || !count)
        return;
    struct vk_matrix_properties *list = calloc(count, sizeof *list);
    for (uint32_t i = 0; list && i < count; i++)
        list[i].type = (VkStructureType)PROPERTIES;
    VkResult r = list ? get(ph->handle, &count, list) : VK_ERROR_OUT_OF_HOST_MEMORY;
    const struct vk_matrix_properties *best =
        r == VK_SUCCESS || r == VK_INCOMPLETE ? vk_matrix_best(list, count) : NULL;
    if (best) {
        ph->caps.matrix.m = best->m;
        ph->caps.matrix.n = best->n;
        ph->caps.matrix.k = best->k;
    }
    free(list);
}
