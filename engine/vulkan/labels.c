// Names of Vulkan objects and labels of command ranges, which debuggers (RenderDoc, Nsight) and the
// validation layer show. Called by the files of this layer wherever they create an object or record
// a dispatch; nothing happens where the loader lacks VK_EXT_debug_utils.
#include "vk_internal.h"

#include <string.h>

bool vk_labels_available(void)
{
    VkExtensionProperties list[64];
    uint32_t n = 64;
    VkResult r = vkEnumerateInstanceExtensionProperties(NULL, &n, list);
    for (uint32_t i = 0; (r == VK_SUCCESS || r == VK_INCOMPLETE) && i < n; i++)
        if (!strcmp(list[i].extensionName, VK_EXT_DEBUG_UTILS_EXTENSION_NAME))
            return true;
    return false;
}

static void (*find(const struct vk_device *dev, const char *name))(void)
{
    return dev->instance.labels ? vkGetInstanceProcAddr(dev->instance.handle, name) : NULL;
}

void vk_labels_open(struct vk_device *dev)
{
    struct vk_labels *l = &dev->labels;
    l->name = (PFN_vkSetDebugUtilsObjectNameEXT)find(dev, "vkSetDebugUtilsObjectNameEXT");
    l->begin = (PFN_vkCmdBeginDebugUtilsLabelEXT)find(dev, "vkCmdBeginDebugUtilsLabelEXT");
    l->end = (PFN_vkCmdEndDebugUtilsLabelEXT)find(dev, "vkCmdEndDebugUtilsLabelEXT");
}

void vk_name(struct vk_device *dev, VkObjectType type, uint64_t handle, const char *name)
{
    VkDebugUtilsObjectNameInfoEXT info = {
        .sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_OBJECT_NAME_INFO_EXT,
        .objectType = type,
        .objectHandle = handle,
        .pObjectName = name,
    };
    if (dev->labels.name && name)
        dev->labels.name(dev->handle, &info); // failure costs a name
}

void vk_label_begin(struct vk_device *dev, VkCommandBuffer cb, const char *name)
{
    VkDebugUtilsLabelEXT label = {.sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_LABEL_EXT,
                                  .pLabelName = name ? name : "dispatch"};
    if (dev->labels.begin)
        dev->labels.begin(cb, &label);
}

void vk_label_end(struct vk_device *dev, VkCommandBuffer cb)
{
    if (dev->labels.end)
        dev->labels.end(cb);
}
