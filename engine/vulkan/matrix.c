// Matrix units: whether a device has them, and the shape that kernels are specialized for. Called
// by instance.c on the thread that opens a device. Knows nothing about kernels.
#include "vk_internal.h"

#include <stdlib.h>

// Of VkCooperativeMatrixPropertiesKHR.
enum { PROPERTIES = 1000506001, FLOAT16 = 0, FLOAT32 = 1, SUBGROUP = 3 };
struct properties {
    VkStructureType type;
    void *next;
    uint32_t m, n, k;
    int a, b, c, result;
    VkBool32 saturates;
    int scope;
};
typedef VkResult VKAPI_PTR query(VkPhysicalDevice handle, uint32_t *count, struct properties *list);

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

// Larger shapes need fewer loads for each product; kernels have no room for more than these.
static bool is_better(const struct properties *p, const struct vk_caps *caps)
{
    return p->m * p->n > caps->matrix.m * caps->matrix.n && p->m <= 16 && p->n <= 16 && p->k <= 32;
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
    struct properties *list = calloc(count, sizeof *list);
    for (uint32_t i = 0; list && i < count; i++)
        list[i].type = (VkStructureType)PROPERTIES;
    VkResult r = list ? get(ph->handle, &count, list) : VK_ERROR_OUT_OF_HOST_MEMORY;
    for (uint32_t i = 0; (r == VK_SUCCESS || r == VK_INCOMPLETE) && i < count; i++) {
        const struct properties *p = &list[i];
        if (p->a == FLOAT16 && p->b == FLOAT16 && p->c == FLOAT32 && p->result == FLOAT32 &&
            p->scope == SUBGROUP && is_better(p, &ph->caps)) {
            ph->caps.matrix.m = p->m;
            ph->caps.matrix.n = p->n;
            ph->caps.matrix.k = p->k;
        }
    }
    free(list);
}
