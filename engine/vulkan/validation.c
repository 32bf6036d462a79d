// The validation layer: requests it, counts its messages, and proves that it reports hazards before
// its silence is trusted. Called by instance.c and device.c on the thread that opens a device;
// messages may come from any thread. Tests: vk_validation.
#include "vk_internal.h"

#include <stdio.h>
#include <string.h>

static const char layer_name[] = "VK_LAYER_KHRONOS_validation";
static const char *const layer_names[] = {layer_name};

// Counts the messages of closed devices too, because vkDestroyDevice can still cause some. The only
// global variable of this layer.
static atomic_uint all_messages;

static VKAPI_ATTR VkBool32 VKAPI_CALL on_message(VkDebugUtilsMessageSeverityFlagBitsEXT severity,
                                                 VkDebugUtilsMessageTypeFlagsEXT types,
                                                 const VkDebugUtilsMessengerCallbackDataEXT *data,
                                                 void *user)
{
    struct vk_instance *inst = user;
    bool error = severity & VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT;
    if (atomic_load(&inst->proving)) {
        atomic_fetch_add(&inst->proofs, 1);
        return VK_FALSE;
    }
    atomic_fetch_add(&inst->messages, 1);
    atomic_fetch_add(&all_messages, 1);
    fprintf(stderr, "vulkan validation %s: %s\n", error ? "error" : "warning", data->pMessage);
    return VK_FALSE;
}

unsigned vk_validation_messages(const struct vk_device *dev)
{
    return dev ? atomic_load(&dev->instance.messages) : atomic_load(&all_messages);
}

enum err vk_validation_check(struct vk_device *dev)
{
    unsigned n = atomic_load(&dev->instance.messages);
    return dev->instance.fatal && n
               ? vk_fail(dev, ERR_INTERNAL, "the validation layer reported %u messages", n)
               : ERR_OK;
}

// ---- the layer ----------------------------------------------------------------------------------

static const VkLayerProperties *find_layer(const VkLayerProperties *list, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (!strcmp(list[i].layerName, layer_name))
            return &list[i];
    return NULL;
}

static bool has_layer(void)
{
    VkLayerProperties list[64];
    uint32_t n = 64;
    VkResult r = vkEnumerateInstanceLayerProperties(&n, list);
    return (r == VK_SUCCESS || r == VK_INCOMPLETE) && find_layer(list, n);
}

static bool layer_takes_settings(void)
{
    VkExtensionProperties list[32];
    uint32_t n = 32;
    VkResult r = vkEnumerateInstanceExtensionProperties(layer_name, &n, list);
    for (uint32_t i = 0; (r == VK_SUCCESS || r == VK_INCOMPLETE) && i < n; i++)
        if (!strcmp(list[i].extensionName, VK_SETTINGS_EXTENSION))
            return true;
    return false;
}

// Layers since 1.3.272 take settings by name. Those since 1.3.296 check the memory accesses of
// shaders only if told to.
static void want_settings(struct vk_validation *v)
{
    static const char *const names[] = {"validate_sync", "syncval_shader_accesses_heuristic"};
    static const VkBool32 on = VK_TRUE;
    for (int i = 0; i < VK_SETTINGS; i++)
        v->setting[i] = (struct vk_layer_setting){.layer = layer_name,
                                                  .name = names[i],
                                                  .type = VK_SETTING_BOOL,
                                                  .count = 1,
                                                  .value = &on};
    v->settings = (struct vk_layer_settings){
        .type = VK_SETTINGS_STRUCTURE, .count = VK_SETTINGS, .setting = v->setting};
}

enum err vk_validation_want(struct vk_instance *inst, struct vk_validation *v,
                            VkInstanceCreateInfo *info, struct fault *why)
{
    static const VkValidationFeatureEnableEXT sync[] = {
        VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT};
    static const char *const extensions[] = {VK_EXT_DEBUG_UTILS_EXTENSION_NAME,
                                             VK_SETTINGS_EXTENSION};
    if (!has_layer())
        return fault_set(why, ERR_UNSUPPORTED, "validation",
                         "validation was requested but %s is not installed", layer_name);
    v->messages = (VkDebugUtilsMessengerCreateInfoEXT){
        .sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT,
        .messageSeverity = VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT |
                           VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT,
        .messageType = VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT |
                       VK_DEBUG_UTILS_MESSAGE_TYPE_PERFORMANCE_BIT_EXT,
        .pfnUserCallback = on_message,
        .pUserData = inst,
    };
    v->features = (VkValidationFeaturesEXT){
        .sType = VK_STRUCTURE_TYPE_VALIDATION_FEATURES_EXT,
        .pNext = &v->messages,
        .enabledValidationFeatureCount = 1,
        .pEnabledValidationFeatures = sync,
    };
    want_settings(v);
    v->settings.next = &v->messages;
    bool settings = layer_takes_settings();
    info->pNext = settings ? (void *)&v->settings : &v->features;
    info->enabledLayerCount = 1;
    info->ppEnabledLayerNames = layer_names;
    info->enabledExtensionCount = settings ? 2 : 1;
    info->ppEnabledExtensionNames = extensions;
    inst->messenger_info = v->messages;
    return ERR_OK;
}

enum err vk_validation_open(struct vk_instance *inst, struct fault *why)
{
    PFN_vkCreateDebugUtilsMessengerEXT create =
        (PFN_vkCreateDebugUtilsMessengerEXT)vkGetInstanceProcAddr(inst->handle,
                                                                  "vkCreateDebugUtilsMessengerEXT");
    if (!create ||
        create(inst->handle, &inst->messenger_info, NULL, &inst->messenger) != VK_SUCCESS)
        return fault_set(why, ERR_UNSUPPORTED, "validation",
                         "the validation layer does not support debug messages");
    return ERR_OK;
}

void vk_validation_close(struct vk_instance *inst)
{
    if (!inst->messenger)
        return;
    PFN_vkDestroyDebugUtilsMessengerEXT destroy =
        (PFN_vkDestroyDebugUtilsMessengerEXT)vkGetInstanceProcAddr(
            inst->handle, "vkDestroyDebugUtilsMessengerEXT");
    destroy(inst->handle, inst->messenger, NULL);
    inst->messenger = NULL;
}

// ---- the proof --------------------------------------------------------------------------------

static const uint32_t hazard_spirv[] = {
#include "hazard.inc"
};

// Records two dispatches that copy a word onto itself but declare only a read, so no barrier is
// recorded between the first write and the second read. They are never submitted.
static enum err record_hazard(struct vk_device *dev, struct vk_pipeline *pipe,
                              struct vk_buffer *buf)
{
    struct vk_binding word = {buf, 0, sizeof(uint32_t), VK_READ};
    struct vk_dispatch d = {.pipe = pipe, .binding = {word, word}, .groups = {1, 1, 1}};
    struct vk_cmd *cmd;
    enum err e = vk_cmd_create(dev, &cmd);
    if (e)
        return e;
    vk_cmd_dispatch(cmd, &d);
    vk_cmd_dispatch(cmd, &d);
    e = vk_cmd_end(cmd);
    vk_cmd_destroy(&cmd);
    return e;
}

enum err vk_validation_prove(struct vk_device *dev, struct fault *why)
{
    struct vk_instance *inst = &dev->instance;
    struct vk_pipeline_params p = {.name = "hazard",
                                   .spirv = hazard_spirv,
                                   .spirv_bytes = sizeof hazard_spirv,
                                   .bindings = 2,
                                   .binding = {VK_STORAGE, VK_STORAGE}};
    struct vk_pipeline *pipe = NULL;
    struct vk_buffer *buf = NULL;
    const bool profile = dev->profile;
    if (!inst->messenger)
        return ERR_OK;
    enum err e = vk_pipeline_create(dev, &p, &pipe);
    if (!e)
        e = vk_buffer_create(dev, VK_DEVICE, sizeof(uint32_t), &buf);
    dev->profile = false; // it separates dispatches, which would hide the hazard
    atomic_store(&inst->proving, true);
    if (!e)
        e = record_hazard(dev, pipe, buf);
    atomic_store(&inst->proving, false);
    dev->profile = profile;
    vk_buffer_destroy(&buf);
    vk_pipeline_destroy(&pipe);
    if (!e && !atomic_load(&inst->proofs))
        e = ERR_UNSUPPORTED;
    if (e == ERR_UNSUPPORTED)
        fault_set(why, e, "validation",
                  "%s does not report a deliberate synchronization hazard, so a run without "
                  "messages would prove nothing; check its version and settings (VK_LAYER_..., "
                  "vk_layer_settings.txt)",
                  layer_name);
    return e;
}
