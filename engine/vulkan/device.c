// Opens and closes a device with its queue and timeline, and waits for it. Called by engine/ops on
// the engine's thread. Knows nothing about computations. Uses features by capability, not by device
// name.
#include "vk_internal.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool vk_reserve(void *array, int *cap, int need, size_t size)
{
    void *old, *grown;
    if (need <= *cap)
        return true;
    int n = need > 2 * *cap ? need : 2 * *cap;
    memcpy(&old, array, sizeof old);
    if (!(grown = realloc(old, (size_t)n * size)))
        return false;
    memcpy(array, &grown, sizeof grown);
    *cap = n;
    return true;
}

void vk_fault_inject(struct vk_device *dev, enum vk_fault kind, int countdown)
{
    atomic_store(&dev->fault[kind], countdown);
}

bool vk_fault_due(struct vk_device *dev, enum vk_fault kind)
{
    return atomic_load(&dev->fault[kind]) > 0 && atomic_fetch_sub(&dev->fault[kind], 1) == 1;
}

// ---- choice ---------------------------------------------------------------------------------

static bool contains(const char *text, const char *part)
{
    size_t n = strlen(part);
    for (; *text; text++) {
        size_t i = 0;
        while (i < n && text[i] &&
               tolower((unsigned char)text[i]) == tolower((unsigned char)part[i]))
            i++;
        if (i == n)
            return true;
    }
    return false;
}

static bool is_index(const char *s)
{
    size_t n = strspn(s, "0123456789");
    return n > 0 && n < 5 && !s[n];
}

static int choose(const struct vk_physical *list, int n, const char *device, struct fault *why)
{
    char names[200] = "";
    size_t used = 0;
    if (!device || !*device)
        return 0;
    for (int i = 0; i < n; i++)
        if (is_index(device) ? atoi(device) == i : contains(list[i].caps.name, device))
            return i;
    for (int i = 0; i < n && used < sizeof names; i++) {
        int k = snprintf(names + used, sizeof names - used, "%s%d: %s", i ? ", " : "", i,
                         list[i].caps.name);
        used += k > 0 ? (size_t)k : 0;
    }
    fault_set(why, ERR_NO_DEVICE, "device", "no Vulkan device matches \"%.60s\"; available: %s",
              device, names);
    return -1;
}

enum err vk_device_list(struct vk_caps *caps, int max, int *count, struct fault *why)
{
    struct vk_instance inst;
    struct vk_physical list[VK_MAX_PHYSICAL];
    int n = 0;
    *count = 0;
    enum err e = vk_instance_open(&inst, false, why);
    if (!e)
        e = vk_physical_find(&inst, list, VK_MAX_PHYSICAL, &n, why);
    for (int i = 0; i < n && i < max; i++)
        caps[(*count)++] = list[i].caps;
    vk_instance_close(&inst);
    return e;
}

// ---- open and close -------------------------------------------------------------------------

struct feature_chain {
    VkPhysicalDeviceFeatures2 core;
    VkPhysicalDeviceVulkan12Features f12;
    VkPhysicalDeviceMaintenance4Features m4;
    VkPhysicalDeviceSubgroupSizeControlFeatures size;
    VkPhysicalDeviceRobustness2FeaturesEXT robust;
    struct vk_matrix_features matrix;
    const char *extensions[5];
    uint32_t extension_count;
};

// Requests the features that the shaders use and the device offers, and no others: f16 values are
// packed in words.
static void want_features(struct feature_chain *c, const struct vk_physical *ph)
{
    VkPhysicalDeviceFeatures has;
    vkGetPhysicalDeviceFeatures(ph->handle, &has);
    c->core.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2;
    c->core.pNext = &c->f12;
    c->core.features.robustBufferAccess = has.robustBufferAccess;
    c->f12.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES;
    c->f12.timelineSemaphore = VK_TRUE;
    c->f12.shaderFloat16 = c->f12.vulkanMemoryModel = ph->caps.matrix.m > 0;
}

static void want_extensions(struct feature_chain *c, const struct vk_physical *ph)
{
    void **tail = &c->f12.pNext;
    if (ph->maintenance4) {
        c->m4.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_4_FEATURES;
        c->m4.maintenance4 = VK_TRUE;
        *tail = &c->m4;
        tail = &c->m4.pNext;
        if (ph->maintenance4_ext)
            c->extensions[c->extension_count++] = VK_KHR_MAINTENANCE_4_EXTENSION_NAME;
    }
    if (ph->size_control) {
        c->size.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES;
        c->size.subgroupSizeControl = VK_TRUE;
        *tail = &c->size;
        tail = &c->size.pNext;
        if (ph->size_control_ext)
            c->extensions[c->extension_count++] = VK_EXT_SUBGROUP_SIZE_CONTROL_EXTENSION_NAME;
    }
    // Kernels use texel reads past the end as zero padding. robustBufferAccess alone may return any
    // value in the buffer.
    if (ph->robustness2 && c->core.features.robustBufferAccess) {
        c->robust.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_ROBUSTNESS_2_FEATURES_EXT;
        c->robust.robustBufferAccess2 = VK_TRUE;
        *tail = &c->robust;
        tail = &c->robust.pNext;
        c->extensions[c->extension_count++] = VK_EXT_ROBUSTNESS_2_EXTENSION_NAME;
    }
    if (ph->caps.matrix.m) {
        c->matrix.type = VK_MATRIX_FEATURES;
        c->matrix.matrix = VK_TRUE;
        *tail = &c->matrix;
        tail = &c->matrix.next;
        c->extensions[c->extension_count++] = VK_MATRIX_EXTENSION;
    }
    if (ph->budget)
        c->extensions[c->extension_count++] = VK_EXT_MEMORY_BUDGET_EXTENSION_NAME;
}

static enum err open_handle(struct vk_device *dev)
{
    struct feature_chain chain = {0};
    float priority = 1.0f;
    want_features(&chain, &dev->ph);
    want_extensions(&chain, &dev->ph);
    VkDeviceQueueCreateInfo queue = {
        .sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
        .queueFamilyIndex = dev->ph.family,
        .queueCount = 1,
        .pQueuePriorities = &priority,
    };
    VkDeviceCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
        .pNext = &chain.core,
        .queueCreateInfoCount = 1,
        .pQueueCreateInfos = &queue,
        .enabledExtensionCount = chain.extension_count,
        .ppEnabledExtensionNames = chain.extensions,
    };
    enum err e = VK_CALL(dev, vkCreateDevice, dev->ph.handle, &info, NULL, &dev->handle);
    if (!e)
        vkGetDeviceQueue(dev->handle, dev->ph.family, 0, &dev->queue);
    return e;
}

static enum err open_queue(struct vk_device *dev)
{
    VkSemaphoreTypeCreateInfo type = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO,
                                      .semaphoreType = VK_SEMAPHORE_TYPE_TIMELINE};
    VkSemaphoreCreateInfo sem = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO, .pNext = &type};
    VkCommandPoolCreateInfo pool = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
        .flags = VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT,
        .queueFamilyIndex = dev->ph.family,
    };
    vk_labels_open(dev);
    VK_NAME(dev, QUEUE, dev->queue, "imagend");
    enum err e = VK_CALL(dev, vkCreateSemaphore, dev->handle, &sem, NULL, &dev->timeline);
    return e ? e : VK_CALL(dev, vkCreateCommandPool, dev->handle, &pool, NULL, &dev->commands);
}

// Mesa keeps the compiled code of software devices on disk, because the pipeline cache does not
// contain it. The location must be in the environment before the driver is loaded.
static void place_driver_cache(const char *cache_dir)
{
    char dir[4096];
    int n = snprintf(dir, sizeof dir, "%s/mesa", cache_dir);
    if (n > 0 && (size_t)n < sizeof dir && !vk_make_dirs(dir))
        setenv("MESA_SHADER_CACHE_DIR", dir, 0);
}

enum err vk_device_open(const struct vk_open_params *p, struct vk_device **out, struct fault *why)
{
    struct vk_physical list[VK_MAX_PHYSICAL];
    int n = 0, at;
    enum err e;
    *out = NULL;
    struct vk_device *dev = calloc(1, sizeof *dev);
    if (!dev)
        return fault_set(why, ERR_NO_MEMORY, "device", "out of memory");
    pthread_mutex_init(&dev->why_lock, NULL);
    if (p->cache_dir)
        place_driver_cache(p->cache_dir);
    if ((e = vk_instance_open(&dev->instance, p->validation, why)) ||
        (e = vk_physical_find(&dev->instance, list, VK_MAX_PHYSICAL, &n, why)))
        goto fail;
    if ((at = choose(list, n, p->device, why)) < 0) {
        e = ERR_NO_DEVICE;
        goto fail;
    }
    dev->ph = list[at];
    dev->profile = p->profile && dev->ph.caps.timestamps;
    e = open_handle(dev);
    if (!e)
        e = open_queue(dev);
    if (!e)
        e = vk_memory_init(dev, p->memory_limit);
    if (!e)
        e = vk_cache_open(dev, p->cache_dir);
    if (e) {
        fault_set(why, e, "device", "cannot open %.100s: %s", dev->ph.caps.name,
                  vk_device_why(dev, e));
        goto fail;
    }
    if ((e = vk_validation_prove(dev, why)))
        goto fail;
    *out = dev;
    return ERR_OK;
fail:
    vk_device_close(&dev);
    return e;
}

void vk_device_close(struct vk_device **pdev)
{
    struct vk_device *dev = *pdev;
    if (!dev)
        return;
    *pdev = NULL;
    if (dev->handle) {
        vkDeviceWaitIdle(dev->handle);
        if (dev->cache)
            (void)vk_cache_save(dev); // failure only slows the next start
        vkDestroyPipelineCache(dev->handle, dev->cache, NULL);
        vk_memory_deinit(dev);
        vkDestroyCommandPool(dev->handle, dev->commands, NULL);
        vkDestroySemaphore(dev->handle, dev->timeline, NULL);
        vkDestroyDevice(dev->handle, NULL);
    }
    vk_instance_close(&dev->instance);
    free(dev->cache_path);
    pthread_mutex_destroy(&dev->why_lock);
    free(dev);
}

const struct vk_caps *vk_device_caps(const struct vk_device *dev)
{
    return &dev->ph.caps;
}

// ---- queue ----------------------------------------------------------------------------------

enum err vk_commands_begin(struct vk_device *dev, VkCommandBufferUsageFlags usage,
                           VkCommandBuffer *cb)
{
    VkCommandBufferAllocateInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
        .commandPool = dev->commands,
        .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
        .commandBufferCount = 1,
    };
    VkCommandBufferBeginInfo begin = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
        .flags = usage,
    };
    enum err e = *cb ? ERR_OK : VK_CALL(dev, vkAllocateCommandBuffers, dev->handle, &info, cb);
    return e ? e : VK_CALL(dev, vkBeginCommandBuffer, *cb, &begin);
}

enum err vk_queue_submit(struct vk_device *dev, VkCommandBuffer cb, uint64_t *ticket)
{
    if (vk_fault_due(dev, VK_FAULT_SUBMIT))
        return vk_error(dev, "vkQueueSubmit", VK_ERROR_DEVICE_LOST);
    if (atomic_load(&dev->lost))
        return ERR_DEVICE_LOST;
    uint64_t value = dev->submitted + 1;
    VkTimelineSemaphoreSubmitInfo timeline = {
        .sType = VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO,
        .signalSemaphoreValueCount = 1,
        .pSignalSemaphoreValues = &value,
    };
    VkSubmitInfo info = {
        .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
        .pNext = &timeline,
        .commandBufferCount = 1,
        .pCommandBuffers = &cb,
        .signalSemaphoreCount = 1,
        .pSignalSemaphores = &dev->timeline,
    };
    enum err e = VK_CALL(dev, vkQueueSubmit, dev->queue, 1, &info, VK_NULL_HANDLE);
    if (e)
        return e;
    *ticket = dev->submitted = value;
    return ERR_OK;
}

enum err vk_wait(struct vk_device *dev, uint64_t ticket, double seconds)
{
    if (vk_fault_due(dev, VK_FAULT_WAIT))
        return vk_error(dev, "vkWaitSemaphores", VK_ERROR_DEVICE_LOST);
    if (atomic_load(&dev->lost))
        return ERR_DEVICE_LOST;
    if (ticket > dev->submitted || !(seconds >= 0))
        return ERR_INVALID;
    VkSemaphoreWaitInfo info = {
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO,
        .semaphoreCount = 1,
        .pSemaphores = &dev->timeline,
        .pValues = &ticket,
    };
    uint64_t ns = seconds < 1e9 ? (uint64_t)(seconds * 1e9) : UINT64_MAX;
    enum err e = VK_CALL(dev, vkWaitSemaphores, dev->handle, &info, ns);
    return e ? e : vk_validation_check(dev);
}
