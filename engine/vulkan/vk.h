// The whole Vulkan layer on one page: a device, memory, commands that are recorded once and
// replayed, pipelines, timing. It knows nothing of tensors or models; engine/ops is its only user.
// Thread: unless said otherwise every call on one device comes from one thread at a time.
#ifndef IMAGEND_VK_H
#define IMAGEND_VK_H

#include "err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct vk_device;
struct vk_buffer;
struct vk_pipeline;
struct vk_cmd;

// ---- device ---------------------------------------------------------------------------------

struct vk_open_params {
    const char *device; // index or part of a name; NULL: best (discrete, integrated, CPU)
    // Pipeline cache, and Mesa's shader cache unless the environment's MESA_SHADER_CACHE_DIR says
    // otherwise: it is set here, so open before there are threads. NULL: no cache of ours.
    const char *cache_dir;
    size_t memory_limit; // 0: what the device reports
    bool validation;     // core and synchronization validation; any message is an error
    bool profile;        // timestamps around every dispatch
};

struct vk_caps {
    char name[256];
    char driver[256];
    uint32_t api_version, vendor_id, device_id, driver_version;
    uint8_t uuid[16];
    bool cpu;         // a software device: launch cost and caches weigh differently
    bool storage_f16; // 16-bit storage buffers
    bool arithmetic_f16;
    bool buffer_address;
    bool subgroup_shuffle;     // shuffle and arithmetic in compute shaders
    bool texel_f32, texel_f16; // uniform texel buffers of RGBA32F, RGBA16F
    bool timestamps;
    uint32_t subgroup_size;
    uint32_t max_shared_bytes, max_workgroup_invocations, max_push_bytes;
    uint32_t max_groups[3];
    uint32_t max_storage_bindings, max_texel_bindings, max_bindings; // of one pipeline
    size_t max_storage_range; // bytes one storage binding can span
    size_t max_texel_elements;
    size_t offset_alignment; // of every binding's offset, bytes
    size_t memory_bytes;     // budget for this process
};

// Errors: NO_DEVICE (none, or `device` matches none: *why lists them), NO_MEMORY, UNSUPPORTED
// (validation is asked for and its layer is not installed, or reports nothing).
enum err vk_device_open(const struct vk_open_params *p, struct vk_device **out, struct fault *why);
void vk_device_close(struct vk_device **dev);
const struct vk_caps *vk_device_caps(const struct vk_device *dev);

// The last failure on this device, when its code is e, as a phrase that names the Vulkan call and
// its result ("vkAllocateMemory: VK_ERROR_OUT_OF_DEVICE_MEMORY") or what exceeded which limit; else
// err_text(e). Never NULL. Owner: the device's, until its next failure.
const char *vk_device_why(const struct vk_device *dev, enum err e);
// Record that phrase; returns e. Thread: any.
enum err vk_fail(struct vk_device *dev, enum err e, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

// The devices there are, best first. Returns how many caps were written, at most max.
// Errors: NO_DEVICE when there is no Vulkan loader or no device.
enum err vk_device_list(struct vk_caps *caps, int max, int *count, struct fault *why);

// Messages that the validation layers have printed since the device was opened; NULL: of all
// devices this process had, closed ones included. Thread: any. The environment's
// IMAGEND_VALIDATION=1 asks for validation of every device, and =fatal makes vk_cmd_end,
// vk_submit and vk_wait return INTERNAL from the first message on.
unsigned vk_validation_messages(const struct vk_device *dev);

// A test hook: the countdown-th call from now (1: the next; 0: never) of this kind fails as the
// driver's would. A failed SUBMIT or WAIT loses the device for good; a failed MEMORY is one
// vk_buffer_create only.
enum vk_fault { VK_FAULT_SUBMIT, VK_FAULT_WAIT, VK_FAULT_MEMORY };
void vk_fault_inject(struct vk_device *dev, enum vk_fault kind, int countdown);

// ---- memory ---------------------------------------------------------------------------------

enum vk_heap {
    VK_DEVICE,   // fastest for shaders; mapped where the device's memory allows
    VK_UPLOAD,   // mapped and coherent: small parameters written by the CPU at every step
    VK_READBACK, // mapped, cached: results read by the CPU
};

// A range of a slab, aligned to 256 bytes or more. Contents are zero. Errors: NO_DEVICE_MEMORY
// (limit or driver), NO_MEMORY.
enum err vk_buffer_create(struct vk_device *dev, enum vk_heap heap, size_t bytes,
                          struct vk_buffer **out);
void vk_buffer_destroy(struct vk_buffer **buf);
size_t vk_buffer_bytes(const struct vk_buffer *buf);
void *vk_buffer_map(struct vk_buffer *buf); // NULL when the CPU cannot see it

// Copy through persistent staging and wait; a plain memcpy where the buffer is mapped.
enum err vk_upload(struct vk_buffer *buf, size_t offset, const void *src, size_t bytes);
enum err vk_download(struct vk_buffer *buf, size_t offset, void *dst, size_t bytes);

struct vk_memory_stats {
    size_t used, peak, reserved, limit; // bytes
    unsigned slabs, buffers;
};
void vk_memory_stats(const struct vk_device *dev, struct vk_memory_stats *out);

// ---- pipelines ------------------------------------------------------------------------------

enum { VK_MAX_BINDINGS = 10, VK_MAX_SPEC = 12 };

// Texels are RGBA and read only; those outside of the binding read as zero.
enum vk_binding_type { VK_STORAGE, VK_TEXEL_F32, VK_TEXEL_F16 };

struct vk_pipeline_params {
    const char *name; // for timing and messages; not copied, static storage
    const uint32_t *spirv;
    size_t spirv_bytes;
    int bindings;
    enum vk_binding_type binding[VK_MAX_BINDINGS];
    uint32_t push_bytes;
    int specs;
    uint32_t spec[VK_MAX_SPEC]; // constant_id 0, 1, ...
    uint32_t subgroup_size;     // required size; 0: the device's own
};

// Thread: any; several may be created at once. Errors: NO_MEMORY, DEVICE_LOST, UNSUPPORTED.
enum err vk_pipeline_create(struct vk_device *dev, const struct vk_pipeline_params *p,
                            struct vk_pipeline **out);
void vk_pipeline_destroy(struct vk_pipeline **pipe);

// Write what the driver's pipeline cache holds to cache_dir; done by vk_device_close too.
enum err vk_cache_save(struct vk_device *dev);

// ---- commands -------------------------------------------------------------------------------

enum vk_access { VK_READ = 1, VK_WRITE = 2, VK_READ_WRITE = 3 };

struct vk_binding {
    struct vk_buffer *buf;
    size_t offset, bytes;
    enum vk_access access; // what the shader does with it: barriers follow from this
};

struct vk_dispatch {
    struct vk_pipeline *pipe;
    struct vk_binding binding[VK_MAX_BINDINGS];
    const void *push;
    uint32_t groups[3]; // zeros: nothing runs, but a driver that compiles late compiles now
};

// A list of dispatches, recorded once and run any number of times. Recording calls keep the first
// error, which vk_cmd_end returns, so that they need no check one by one. Buffers and pipelines
// must outlive the command. Owner: the caller destroys it when it is not running.
enum err vk_cmd_create(struct vk_device *dev, struct vk_cmd **out);
void vk_cmd_destroy(struct vk_cmd **cmd);
void vk_cmd_dispatch(struct vk_cmd *cmd, const struct vk_dispatch *d);
void vk_cmd_copy(struct vk_cmd *cmd, struct vk_buffer *src, size_t src_offset,
                 struct vk_buffer *dst, size_t dst_offset, size_t bytes);
enum err vk_cmd_end(struct vk_cmd *cmd);

// Submit in order; *ticket (timeline value) is reached when all of it has run.
// Host writes to mapped buffers before the call are seen by it. Errors: DEVICE_LOST, ...
enum err vk_submit(struct vk_cmd *cmd, uint64_t *ticket);
// Errors: TIMEOUT, DEVICE_LOST. After OK the CPU sees what the commands wrote to mapped buffers.
enum err vk_wait(struct vk_device *dev, uint64_t ticket, double seconds);

// ---- timing ---------------------------------------------------------------------------------

struct vk_timing {
    const char *name; // the pipeline's
    uint64_t calls;
    double seconds;
};
// Sum the timestamps of a finished command's last run per pipeline name; the device must have been
// opened with profile, which keeps dispatches apart and so costs some tens of microseconds for each
// on a software device. Returns the number written, at most max; 0 when it has not run.
int vk_cmd_timings(struct vk_cmd *cmd, struct vk_timing *out, int max);

#endif
