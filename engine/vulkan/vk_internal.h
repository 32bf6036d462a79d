// Shared by the files of this layer: the device's state and helpers. Private to engine/vulkan.
#ifndef IMAGEND_VK_INTERNAL_H
#define IMAGEND_VK_INTERNAL_H

#include "quirks.h"
#include "vk.h"

#include <pthread.h>
#include <stdatomic.h>
#include <vulkan/vulkan.h>

enum { VK_MAX_PHYSICAL = 16, VK_FAULT_KINDS = 3, VK_RING_SEGMENTS = 4 };

#define VK_SLAB_BYTES ((size_t)64 << 20)
#define VK_SLAB_LEAST ((size_t)64 << 10)
#define VK_SUBALLOC_ALIGN ((size_t)256)
#define VK_GUARD_BYTES ((size_t)QUIRK_TEXEL_STEP) // zeros behind every buffer, for longer views

// ---- instance.c: the loader and physical devices ----------------------------------------------

struct vk_instance {
    VkInstance handle;
    bool labels; // VK_EXT_debug_utils is enabled
    bool kept;   // others share it, and closing leaves it open
    VkDebugUtilsMessengerCreateInfoEXT messenger_info;
    VkDebugUtilsMessengerEXT messenger; // of the validation layer, or NULL
    atomic_uint messages;               // number of validation warnings and errors
    atomic_bool proving;                // expect messages: count them in proofs without printing
    atomic_uint proofs;
    bool fatal; // IMAGEND_VALIDATION=fatal: after a message the next call fails
};

struct vk_physical {
    VkPhysicalDevice handle;
    VkPhysicalDeviceType type;
    struct vk_caps caps;
    uint32_t family, timestamp_bits;
    uint32_t subgroup_min, subgroup_max;
    VkDeviceSize max_allocation, max_buffer;
    double timestamp_seconds; // duration of one tick
    bool matrix_ext;
    bool budget, size_control, size_control_ext, robustness2, maintenance4, maintenance4_ext;
    VkPhysicalDeviceMemoryProperties memory;
};

// Owner: the caller closes *inst with vk_instance_close; it must not move while open. Instances
// without validation are one, which stays open until the process ends. Thread: any.
enum err vk_instance_open(struct vk_instance *inst, bool validation, struct fault *why);
void vk_instance_close(struct vk_instance *inst);
// Finds the usable devices, best first. Errors: NO_DEVICE with the reason in *why.
enum err vk_physical_find(struct vk_instance *inst, struct vk_physical *out, int max, int *count,
                          struct fault *why);
VkDeviceSize vk_physical_budget(const struct vk_physical *ph, uint32_t heap);

// ---- result.c -------------------------------------------------------------------------------

// "VK_ERROR_DEVICE_LOST"; never NULL.
const char *vk_result_name(VkResult r);
// Converts the result of the Vulkan function `call` to an enum err; keeps both for vk_device_why
// and remembers a lost device.
enum err vk_error(struct vk_device *dev, const char *call, VkResult r);
#define VK_CALL(dev, call, ...) vk_error((dev), #call, call(__VA_ARGS__))

// ---- device.c -------------------------------------------------------------------------------

struct vk_slab;

struct vk_labels { // NULL: not available
    PFN_vkSetDebugUtilsObjectNameEXT name;
    PFN_vkCmdBeginDebugUtilsLabelEXT begin;
    PFN_vkCmdEndDebugUtilsLabelEXT end;
};

struct vk_device {
    struct vk_instance instance;
    struct vk_physical ph;
    VkDevice handle;
    VkQueue queue;
    VkSemaphore timeline;
    uint64_t submitted; // the timeline value of the last submission
    VkCommandPool commands;
    VkPipelineCache cache;
    char *cache_path;
    bool profile;
    atomic_bool lost;
    pthread_mutex_t why_lock;
    struct fault why;                 // the last failure; param is unused
    atomic_int fault[VK_FAULT_KINDS]; // countdowns of vk_fault_inject; 0: off

    // memory.c
    uint32_t heap_type[3]; // memory type of each enum vk_heap
    struct vk_slab *slabs;
    struct vk_memory_stats stats;
    bool unmapped; // a test hook
    bool dry;      // buffers are only counted
    size_t slab_bytes;
    struct vk_labels labels;

    struct {
        struct vk_segment {
            struct vk_buffer *buf; // created when first needed
            VkCommandBuffer commands;
            uint64_t ticket; // of its last submission; 0: waited for
            size_t used;
            bool open; // commands are being recorded
        } segment[VK_RING_SEGMENTS];
        int at;
    } ring; // upload.c
};

// True if an injected fault of this kind is due now.
bool vk_fault_due(struct vk_device *dev, enum vk_fault kind);
// Begins *cb, which is allocated if it is NULL; freed with the device's pool at the latest.
enum err vk_commands_begin(struct vk_device *dev, VkCommandBufferUsageFlags usage,
                           VkCommandBuffer *cb);
// Submits cb and advances the timeline.
enum err vk_queue_submit(struct vk_device *dev, VkCommandBuffer cb, uint64_t *ticket);

// ---- matrix.c -------------------------------------------------------------------------------

// VK_KHR_cooperative_matrix, which Debian 12's headers do not have yet.
#define VK_MATRIX_EXTENSION "VK_KHR_cooperative_matrix"
struct vk_matrix_features {
    VkStructureType type;
    void *next;
    VkBool32 matrix, robust;
};
#define VK_MATRIX_FEATURES ((VkStructureType)1000506000)

// VkCooperativeMatrixPropertiesKHR: a, b, c and result are component types.
enum { VK_MATRIX_F16 = 0, VK_MATRIX_F32 = 1, VK_MATRIX_SUBGROUP = 3 };
struct vk_matrix_properties {
    VkStructureType type;
    void *next;
    uint32_t m, n, k;
    int a, b, c, result;
    VkBool32 saturates;
    int scope;
};
// The best of these for f16 x f16 -> f32 by a subgroup; NULL: none.
const struct vk_matrix_properties *vk_matrix_best(const struct vk_matrix_properties *list,
                                                  uint32_t count);
// Fills caps.matrix of a device that has the extension and its features.
void vk_matrix_find(const struct vk_instance *inst, struct vk_physical *ph);

// ---- labels.c -------------------------------------------------------------------------------

bool vk_labels_available(void);
void vk_labels_open(struct vk_device *dev);
// name: for debuggers; copied. NULL: none.
void vk_name(struct vk_device *dev, VkObjectType type, uint64_t handle, const char *name);
#define VK_NAME(dev, type, handle, name)                                                           \
    vk_name((dev), VK_OBJECT_TYPE_##type, (uint64_t)(uintptr_t)(handle), (name))
// A range of commands, up to vk_label_end.
void vk_label_begin(struct vk_device *dev, VkCommandBuffer cb, const char *name);
void vk_label_end(struct vk_device *dev, VkCommandBuffer cb);

// ---- validation.c -----------------------------------------------------------------------------

// VK_EXT_layer_settings, which Debian 12's headers lack.
#define VK_SETTINGS_EXTENSION "VK_EXT_layer_settings"
enum { VK_SETTINGS_STRUCTURE = 1000496000, VK_SETTING_BOOL = 0, VK_SETTINGS = 2 };
struct vk_layer_setting {
    const char *layer, *name;
    int type;
    uint32_t count;
    const void *value;
};
struct vk_layer_settings {
    int type;
    const void *next;
    uint32_t count;
    const struct vk_layer_setting *setting;
};

// The creation parameters of an instance with validation.
struct vk_validation {
    VkDebugUtilsMessengerCreateInfoEXT messages;
    VkValidationFeaturesEXT features;
    struct vk_layer_setting setting[VK_SETTINGS];
    struct vk_layer_settings settings;
};

// Adds the layer to *info, which then points into *v. Errors: UNSUPPORTED if it is not installed.
enum err vk_validation_want(struct vk_instance *inst, struct vk_validation *v,
                            VkInstanceCreateInfo *info, struct fault *why);
enum err vk_validation_open(struct vk_instance *inst, struct fault *why);
void vk_validation_close(struct vk_instance *inst);
// Records a synchronization hazard (never run) and checks that it was reported; OK immediately
// without validation. Errors: UNSUPPORTED if it was not reported.
enum err vk_validation_prove(struct vk_device *dev, struct fault *why);
// ERR_INTERNAL if validation messages are fatal and there were any, else OK.
enum err vk_validation_check(struct vk_device *dev);

// ---- memory.c -------------------------------------------------------------------------------

struct vk_buffer {
    struct vk_device *dev;
    struct vk_slab *slab;
    VkBuffer handle;      // the slab's handle
    size_t offset, bytes; // within the slab
    size_t span;          // bytes taken from the slab
    uint8_t *map;         // NULL if not mapped
};

enum err vk_memory_init(struct vk_device *dev, size_t limit);
void vk_memory_deinit(struct vk_device *dev);

// ---- upload.c -------------------------------------------------------------------------------

// Zeros buf; pending, like an upload, if it is not mapped.
enum err vk_ring_clear(struct vk_buffer *buf);
// Submits what is pending, so that later submissions see it.
enum err vk_ring_submit(struct vk_device *dev);
void vk_ring_close(struct vk_device *dev);

// ---- pipeline.c, cache.c ----------------------------------------------------------------------

struct vk_pipeline {
    struct vk_device *dev;
    const char *name;
    VkDescriptorSetLayout set_layout;
    VkPipelineLayout layout;
    VkPipeline handle;
    int bindings;
    enum vk_binding_type binding[VK_MAX_BINDINGS];
    uint32_t push_bytes;
};

// Opens the driver's cache with the contents of cache_dir; a bad cache file is not an error.
enum err vk_cache_open(struct vk_device *dev, const char *cache_dir);
// The driver's data from the cache file; NULL if missing or not trustworthy. Owner: the caller
// frees it.
void *vk_cache_load(const struct vk_device *dev, size_t *bytes);
// Creates dir and its parents. Errors: IO.
enum err vk_make_dirs(const char *dir);

// ---- profile.c ------------------------------------------------------------------------------

struct vk_marks {
    VkQueryPool *pools;
    const char **names; // one per dispatch
    int npools, cap_pools, count, cap_names;
};

// Write timestamps before and after a dispatch; both belong to the mark that begin opened.
enum err vk_marks_begin(struct vk_device *dev, struct vk_marks *m, VkCommandBuffer cb,
                        const char *name);
void vk_marks_end(struct vk_device *dev, struct vk_marks *m, VkCommandBuffer cb);
int vk_marks_sum(struct vk_device *dev, const struct vk_marks *m, struct vk_timing *out, int max);
void vk_marks_deinit(struct vk_device *dev, struct vk_marks *m);

// ---- sanitize.c -----------------------------------------------------------------------------

void vk_sanitize(void);

// ---- helpers --------------------------------------------------------------------------------

// Makes room for `need` elements of `size` bytes in *array. Returns false if out of memory.
bool vk_reserve(void *array, int *cap, int need, size_t size);

static inline size_t vk_align(size_t n, size_t a)
{
    return (n + a - 1) / a * a;
}

#endif
