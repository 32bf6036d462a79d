// Results of Vulkan calls as error codes and text, and the last failure of a device. Called by all
// files of this layer, and by engine/ops for its own limits. Any thread.
#include "vk_internal.h"

#include <stdio.h>
#include <string.h>

const char *vk_result_name(VkResult r)
{
    switch (r) {
#define NAME(result)                                                                               \
    case result: return #result;
        NAME(VK_SUCCESS)
        NAME(VK_NOT_READY)
        NAME(VK_TIMEOUT)
        NAME(VK_INCOMPLETE)
        NAME(VK_ERROR_OUT_OF_HOST_MEMORY)
        NAME(VK_ERROR_OUT_OF_DEVICE_MEMORY)
        NAME(VK_ERROR_INITIALIZATION_FAILED)
        NAME(VK_ERROR_DEVICE_LOST)
        NAME(VK_ERROR_MEMORY_MAP_FAILED)
        NAME(VK_ERROR_LAYER_NOT_PRESENT)
        NAME(VK_ERROR_EXTENSION_NOT_PRESENT)
        NAME(VK_ERROR_FEATURE_NOT_PRESENT)
        NAME(VK_ERROR_INCOMPATIBLE_DRIVER)
        NAME(VK_ERROR_TOO_MANY_OBJECTS)
        NAME(VK_ERROR_FORMAT_NOT_SUPPORTED)
        NAME(VK_ERROR_FRAGMENTED_POOL)
        NAME(VK_ERROR_OUT_OF_POOL_MEMORY)
        NAME(VK_ERROR_INVALID_EXTERNAL_HANDLE)
        NAME(VK_ERROR_FRAGMENTATION)
        NAME(VK_ERROR_INVALID_OPAQUE_CAPTURE_ADDRESS)
        NAME(VK_ERROR_VALIDATION_FAILED_EXT)
        NAME(VK_ERROR_INVALID_SHADER_NV)
#undef NAME
    case VK_ERROR_UNKNOWN:
    default: return "VK_ERROR_UNKNOWN";
    }
}

static enum err code_of(VkResult r)
{
    switch (r) {
    case VK_SUCCESS: return ERR_OK;
    case VK_TIMEOUT: return ERR_TIMEOUT;
    case VK_ERROR_OUT_OF_HOST_MEMORY: return ERR_NO_MEMORY;
    case VK_ERROR_OUT_OF_DEVICE_MEMORY:
    case VK_ERROR_OUT_OF_POOL_MEMORY:
    case VK_ERROR_FRAGMENTED_POOL: return ERR_NO_DEVICE_MEMORY;
    case VK_ERROR_DEVICE_LOST: return ERR_DEVICE_LOST;
    case VK_ERROR_FEATURE_NOT_PRESENT:
    case VK_ERROR_EXTENSION_NOT_PRESENT:
    case VK_ERROR_FORMAT_NOT_SUPPORTED: return ERR_UNSUPPORTED;
    default: return ERR_INTERNAL;
    }
}

enum err vk_error(struct vk_device *dev, const char *call, VkResult r)
{
    enum err e = code_of(r);
    if (!e)
        return e;
    if (e == ERR_DEVICE_LOST)
        atomic_store(&dev->lost, true);
    const char *name = vk_result_name(r);
    // A result newer than the table is shown as a number.
    return strcmp(name, "VK_ERROR_UNKNOWN") != 0 || r == VK_ERROR_UNKNOWN
               ? vk_fail(dev, e, "%s: %s", call, name)
               : vk_fail(dev, e, "%s: VkResult %d", call, (int)r);
}

enum err vk_fail(struct vk_device *dev, enum err e, const char *fmt, ...)
{
    char text[sizeof dev->why.msg];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    pthread_mutex_lock(&dev->why_lock);
    fault_set(&dev->why, e, NULL, "%s", text);
    pthread_mutex_unlock(&dev->why_lock);
    return e;
}

const char *vk_device_why(const struct vk_device *dev, enum err e)
{
    return dev->why.code == e && dev->why.msg[0] ? dev->why.msg : err_text(e);
}
