// The Vulkan instance: the loader, and the capabilities of each physical device. Called by
// device.c, which selects a device, on the thread that opens it.
#include "vk_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// The instance that every device without validation shares, until the process ends. The loader
// unloads a driver with its last instance, and with NVIDIA's driver 580 no device could be opened
// after some dozens of instances in one process. One that found no device is not kept, because a
// driver may become ready later.
static pthread_mutex_t kept_lock = PTHREAD_MUTEX_INITIALIZER;
static struct vk_instance kept;

static bool take_kept(struct vk_instance *inst)
{
    pthread_mutex_lock(&kept_lock);
    inst->handle = kept.handle;
    inst->labels = kept.labels;
    inst->kept = kept.handle != NULL;
    pthread_mutex_unlock(&kept_lock);
    return inst->kept;
}

static void keep(struct vk_instance *inst)
{
    pthread_mutex_lock(&kept_lock);
    if (!kept.handle && !inst->messenger) {
        kept.handle = inst->handle;
        kept.labels = inst->labels;
        inst->kept = true;
    }
    pthread_mutex_unlock(&kept_lock);
}

enum err vk_instance_open(struct vk_instance *inst, bool validation, struct fault *why)
{
    const char *env = getenv("IMAGEND_VALIDATION");
    uint32_t version = VK_API_VERSION_1_0;
    struct vk_validation setup;

    vk_sanitize();
    *inst = (struct vk_instance){0};
    if (env && *env && strcmp(env, "0")) {
        validation = true;
        inst->fatal = !strcmp(env, "fatal");
    }
    if (!validation && take_kept(inst))
        return ERR_OK;
    vkEnumerateInstanceVersion(&version);
    VkApplicationInfo app = {
        .sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
        .pApplicationName = "imagend",
        .apiVersion = version < VK_API_VERSION_1_3 ? version : VK_API_VERSION_1_3,
    };
    VkInstanceCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
        .pApplicationInfo = &app,
    };
    static const char *const debug_utils = VK_EXT_DEBUG_UTILS_EXTENSION_NAME;
    if (!validation && vk_labels_available()) {
        info.enabledExtensionCount = 1;
        info.ppEnabledExtensionNames = &debug_utils;
    }
    enum err e = validation ? vk_validation_want(inst, &setup, &info, why) : ERR_OK;
    if (e)
        return e;
    VkResult r = vkCreateInstance(&info, NULL, &inst->handle);
    if (r == VK_ERROR_OUT_OF_HOST_MEMORY)
        return fault_set(why, ERR_NO_MEMORY, "device", "out of memory opening Vulkan");
    if (r != VK_SUCCESS)
        return fault_set(
            why, ERR_NO_DEVICE, "device",
            "no Vulkan driver could be opened (vkCreateInstance: %s); is one installed?",
            vk_result_name(r));
    inst->labels = info.enabledExtensionCount > 0; // validation requests it too
    e = validation ? vk_validation_open(inst, why) : ERR_OK;
    if (e)
        vk_instance_close(inst);
    return e;
}

void vk_instance_close(struct vk_instance *inst)
{
    if (!inst->handle)
        return;
    vk_validation_close(inst);
    if (!inst->kept)
        vkDestroyInstance(inst->handle, NULL);
    inst->handle = NULL;
}

// ---- physical devices -----------------------------------------------------------------------

static void find_extensions(struct vk_physical *ph)
{
    uint32_t n = 0;
    if (vkEnumerateDeviceExtensionProperties(ph->handle, NULL, &n, NULL) != VK_SUCCESS || !n)
        return;
    VkExtensionProperties *list = calloc(n, sizeof *list);
    VkResult r = list ? vkEnumerateDeviceExtensionProperties(ph->handle, NULL, &n, list)
                      : VK_ERROR_OUT_OF_HOST_MEMORY;
    for (uint32_t i = 0; (r == VK_SUCCESS || r == VK_INCOMPLETE) && i < n; i++) {
        const char *name = list[i].extensionName;
        if (!strcmp(name, VK_EXT_MEMORY_BUDGET_EXTENSION_NAME))
            ph->budget = true;
        else if (!strcmp(name, VK_EXT_SUBGROUP_SIZE_CONTROL_EXTENSION_NAME))
            ph->size_control_ext = true;
        else if (!strcmp(name, VK_EXT_ROBUSTNESS_2_EXTENSION_NAME))
            ph->robustness2 = true;
        else if (!strcmp(name, VK_MATRIX_EXTENSION))
            ph->matrix_ext = true;
        else if (!strcmp(name, VK_KHR_MAINTENANCE_4_EXTENSION_NAME))
            ph->maintenance4_ext = true;
    }
    free(list);
}

static bool find_family(struct vk_physical *ph)
{
    VkQueueFamilyProperties families[32];
    uint32_t n = 32;
    vkGetPhysicalDeviceQueueFamilyProperties(ph->handle, &n, families);
    for (uint32_t i = 0; i < n; i++)
        if (families[i].queueFlags & VK_QUEUE_COMPUTE_BIT) {
            ph->family = i;
            ph->timestamp_bits = families[i].timestampValidBits;
            return true;
        }
    return false;
}

static bool is_texel_format(VkPhysicalDevice handle, VkFormat format)
{
    VkFormatProperties props;
    vkGetPhysicalDeviceFormatProperties(handle, format, &props);
    return props.bufferFeatures & VK_FORMAT_FEATURE_UNIFORM_TEXEL_BUFFER_BIT;
}

static bool has_subgroup_ops(const VkPhysicalDeviceSubgroupProperties *sub)
{
    VkSubgroupFeatureFlags need = VK_SUBGROUP_FEATURE_BASIC_BIT | VK_SUBGROUP_FEATURE_SHUFFLE_BIT |
                                  VK_SUBGROUP_FEATURE_BALLOT_BIT |
                                  VK_SUBGROUP_FEATURE_ARITHMETIC_BIT;
    return (sub->supportedStages & VK_SHADER_STAGE_COMPUTE_BIT) &&
           (sub->supportedOperations & need) == need;
}

static size_t max_of(size_t a, size_t b)
{
    return a > b ? a : b;
}

static void fill_limits(struct vk_physical *ph, const VkPhysicalDeviceProperties *p)
{
    struct vk_caps *caps = &ph->caps;
    const VkPhysicalDeviceLimits *lim = &p->limits;

    caps->api_version = p->apiVersion;
    caps->vendor_id = p->vendorID;
    caps->device_id = p->deviceID;
    caps->driver_version = p->driverVersion;
    caps->cpu = p->deviceType == VK_PHYSICAL_DEVICE_TYPE_CPU;
    caps->timestamps = ph->timestamp_bits > 0 && lim->timestampPeriod > 0;
    ph->timestamp_seconds = lim->timestampPeriod * 1e-9;
    caps->max_shared_bytes = lim->maxComputeSharedMemorySize;
    caps->max_workgroup_invocations = lim->maxComputeWorkGroupInvocations;
    caps->max_push_bytes = lim->maxPushConstantsSize;
    if (lim->maxComputeWorkGroupSize[0] < caps->max_workgroup_invocations)
        caps->max_workgroup_invocations = lim->maxComputeWorkGroupSize[0]; // all are along x
    memcpy(caps->max_groups, lim->maxComputeWorkGroupCount, sizeof caps->max_groups);
    caps->max_storage_bindings = lim->maxPerStageDescriptorStorageBuffers;
    caps->max_texel_bindings = lim->maxPerStageDescriptorSampledImages;
    caps->max_bindings = lim->maxPerStageResources;
    caps->max_storage_range = lim->maxStorageBufferRange;
    caps->max_texel_elements = lim->maxTexelBufferElements;
    // 16: shaders may read a vec4 at the start of any binding.
    caps->offset_alignment = max_of(
        16, max_of(lim->minStorageBufferOffsetAlignment, lim->minTexelBufferOffsetAlignment));
    memcpy(caps->uuid, p->pipelineCacheUUID, sizeof caps->uuid);
}

static bool fill_features(struct vk_physical *ph)
{
    bool is13 = ph->caps.api_version >= VK_API_VERSION_1_3;
    VkPhysicalDeviceMaintenance4Features m4 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_4_FEATURES};
    VkPhysicalDeviceSubgroupSizeControlFeatures size = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES};
    VkPhysicalDeviceRobustness2FeaturesEXT robust = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_ROBUSTNESS_2_FEATURES_EXT};
    VkPhysicalDeviceVulkan12Features f12 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES};
    VkPhysicalDeviceFeatures2 features = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2,
                                          .pNext = &f12};
    void **tail = &f12.pNext;
    if (is13 || ph->maintenance4_ext) {
        *tail = &m4;
        tail = &m4.pNext;
    }
    if (is13 || ph->size_control_ext) {
        *tail = &size;
        tail = &size.pNext;
    }
    if (ph->robustness2)
        *tail = &robust;
    vkGetPhysicalDeviceFeatures2(ph->handle, &features);
    ph->maintenance4 = m4.maintenance4;
    ph->size_control = size.subgroupSizeControl;
    ph->robustness2 = robust.robustBufferAccess2;
    return f12.timelineSemaphore;
}

// Replaces what the device reports, for tests: IMAGEND_DEVICE_MEMORY in bytes; 0: not set.
static VkDeviceSize pretended_budget(void)
{
    const char *bytes = getenv("IMAGEND_DEVICE_MEMORY");
    return bytes ? strtoull(bytes, NULL, 10) : 0;
}

// Memory available without swapping, minus a reserve for the rest of this process; 0: unknown.
static VkDeviceSize host_budget(void)
{
    FILE *f = fopen("/proc/meminfo", "r");
    unsigned long long kib = 0;
    char line[128];
    while (f && fgets(line, sizeof line, f) && sscanf(line, "MemAvailable: %llu kB", &kib) != 1)
        continue;
    if (f)
        fclose(f);
    return kib * 1024 / 8 * 7;
}

VkDeviceSize vk_physical_budget(const struct vk_physical *ph, uint32_t heap)
{
    VkPhysicalDeviceMemoryBudgetPropertiesEXT budget = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_BUDGET_PROPERTIES_EXT};
    VkPhysicalDeviceMemoryProperties2 props = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2,
        .pNext = ph->budget ? &budget : NULL};
    vkGetPhysicalDeviceMemoryProperties2(ph->handle, &props);
    VkDeviceSize size = props.memoryProperties.memoryHeaps[heap].size;
    if (pretended_budget())
        return pretended_budget();
    VkDeviceSize free = budget.heapBudget[heap];
    // A software device uses system memory, regardless of the size that its driver reports.
    const VkDeviceSize host = ph->type == VK_PHYSICAL_DEVICE_TYPE_CPU ? host_budget() : 0;
    if (host)
        return host;
    return free && free < size ? free : size;
}

static void fill_memory(struct vk_physical *ph)
{
    VkDeviceSize best = 0;
    vkGetPhysicalDeviceMemoryProperties(ph->handle, &ph->memory);
    for (uint32_t i = 0; i < ph->memory.memoryHeapCount; i++) {
        VkDeviceSize size = vk_physical_budget(ph, i);
        if ((ph->memory.memoryHeaps[i].flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT) && size > best)
            best = size;
    }
    ph->caps.memory_bytes = best;
}

// Returns false for an unusable device: older than Vulkan 1.2, no compute queue, no timeline
// semaphores.
static bool inspect(struct vk_physical *ph)
{
    VkPhysicalDeviceProperties base;
    vkGetPhysicalDeviceProperties(ph->handle, &base);
    if (base.apiVersion < VK_API_VERSION_1_2 || !find_family(ph))
        return false;
    find_extensions(ph);
    bool has_m4 = base.apiVersion >= VK_API_VERSION_1_3 || ph->maintenance4_ext;
    bool can_size = base.apiVersion >= VK_API_VERSION_1_3 || ph->size_control_ext;
    VkPhysicalDeviceSubgroupSizeControlProperties size = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_PROPERTIES};
    VkPhysicalDeviceMaintenance4Properties m4 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_4_PROPERTIES,
        .pNext = can_size ? &size : NULL};
    VkPhysicalDeviceMaintenance3Properties m3 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_3_PROPERTIES,
        .pNext = has_m4 ? (void *)&m4 : m4.pNext};
    VkPhysicalDeviceDriverProperties driver = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_DRIVER_PROPERTIES, .pNext = &m3};
    VkPhysicalDeviceSubgroupProperties sub = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_PROPERTIES, .pNext = &driver};
    VkPhysicalDeviceProperties2 props = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2,
                                         .pNext = &sub};
    vkGetPhysicalDeviceProperties2(ph->handle, &props);
    struct vk_caps *caps = &ph->caps;
    snprintf(caps->name, sizeof caps->name, "%s", base.deviceName);
    snprintf(caps->driver, sizeof caps->driver, "%.120s %.120s", driver.driverName,
             driver.driverInfo);
    ph->type = base.deviceType;
    ph->max_allocation = m3.maxMemoryAllocationSize;
    ph->max_buffer = has_m4 ? m4.maxBufferSize : UINT64_MAX;
    fill_limits(ph, &base);
    caps->subgroup_size = sub.subgroupSize;
    caps->subgroup_shuffle = has_subgroup_ops(&sub);
    caps->texel_f32 = is_texel_format(ph->handle, VK_FORMAT_R32G32B32A32_SFLOAT);
    caps->texel_f16 = is_texel_format(ph->handle, VK_FORMAT_R16G16B16A16_SFLOAT);
    if (!fill_features(ph))
        return false;
    ph->size_control =
        ph->size_control && (size.requiredSubgroupSizeStages & VK_SHADER_STAGE_COMPUTE_BIT);
    ph->subgroup_min = ph->size_control ? size.minSubgroupSize : sub.subgroupSize;
    ph->subgroup_max = ph->size_control ? size.maxSubgroupSize : sub.subgroupSize;
    fill_memory(ph);
    return true;
}

static int rank(VkPhysicalDeviceType type)
{
    switch (type) {
    case VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU: return 0;
    case VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU: return 1;
    case VK_PHYSICAL_DEVICE_TYPE_VIRTUAL_GPU: return 2;
    case VK_PHYSICAL_DEVICE_TYPE_CPU: return 3;
    default: return 4;
    }
}

enum err vk_physical_find(struct vk_instance *inst, struct vk_physical *out, int max, int *count,
                          struct fault *why)
{
    VkPhysicalDevice handles[VK_MAX_PHYSICAL];
    uint32_t n = VK_MAX_PHYSICAL;
    VkResult r = vkEnumeratePhysicalDevices(inst->handle, &n, handles);
    *count = 0;
    if (r != VK_SUCCESS && r != VK_INCOMPLETE)
        return fault_set(why, ERR_NO_DEVICE, "device", "vkEnumeratePhysicalDevices: %s",
                         vk_result_name(r));
    for (uint32_t i = 0; i < n && *count < max; i++) {
        struct vk_physical ph = {.handle = handles[i]};
        if (!inspect(&ph))
            continue;
        vk_matrix_find(inst, &ph);
        int at = (*count)++;
        for (; at > 0 && rank(ph.type) < rank(out[at - 1].type); at--)
            out[at] = out[at - 1];
        out[at] = ph;
    }
    if (*count) {
        keep(inst);
        return ERR_OK;
    }
    if (!n)
        return fault_set(why, ERR_NO_DEVICE, "device", "no Vulkan device was found");
    return fault_set(why, ERR_NO_DEVICE, "device",
                     "none of the %u Vulkan devices supports Vulkan 1.2, compute and timeline "
                     "semaphores",
                     n);
}
