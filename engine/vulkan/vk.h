// The interface of the Vulkan layer: a device, memory, commands that are recorded once and
// replayed, pipelines, timing. Knows nothing about tensors or models; only engine/ops uses it.
// Thread: calls on one device must not overlap, unless noted otherwise.
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
    // Folder of the pipeline cache and of Mesa's shader cache, unless MESA_SHADER_CACHE_DIR is set.
    // Sets that variable, so open the device before starting threads. NULL: no cache.
    const char *cache_dir;
    size_t memory_limit; // 0: the budget that the device reports
    bool validation;     // core and synchronization validation; any message is an error
    bool profile;        // timestamps around every dispatch
};

struct vk_caps {
    char name[256];
    char driver[256];
    uint32_t api_version, vendor_id, device_id, driver_version;
    uint8_t uuid[16];          // of what is compiled: equal for devices of one kind and driver
    bool cpu;                  // a software device: launch cost and caches weigh differently
    bool subgroup_shuffle;     // shuffle and arithmetic in compute shaders
    bool texel_f32, texel_f16; // uniform texel buffers of RGBA32F, RGBA16F
    bool timestamps;
    uint32_t subgroup_size;
    // Shape of the matrices f16 x f16 -> f32 that a subgroup multiplies: [m, k] x [k, n]; 0: none.
    struct {
        uint32_t m, n, k;
    } matrix;
    uint32_t max_shared_bytes, max_workgroup_invocations, max_push_bytes;
    uint32_t max_groups[3];
    uint32_t max_storage_bindings, max_texel_bindings, max_bindings; // per pipeline
    size_t max_storage_range; // maximum bytes of a storage binding
    size_t max_texel_elements;
    size_t offset_alignment; // bytes, of every binding's offset
    size_t memory_bytes;     // budget for this process
};

// Errors: NO_DEVICE (none, or none matches `device`: *why lists them), NO_MEMORY, UNSUPPORTED
// (validation is requested but its layer is not installed or reports nothing).
enum err vk_device_open(const struct vk_open_params *p, struct vk_device **out, struct fault *why);
void vk_device_close(struct vk_device **dev);
const struct vk_caps *vk_device_caps(const struct vk_device *dev);

// The last failure on this device, if its code is e, as a phrase that names the Vulkan call and its
// result ("vkAllocateMemory: VK_ERROR_OUT_OF_DEVICE_MEMORY") or the exceeded limit; otherwise
// err_text(e). Never NULL. Owner: the device, until its next failure.
const char *vk_device_why(const struct vk_device *dev, enum err e);
// Records that phrase; returns e. Thread: any.
enum err vk_fail(struct vk_device *dev, enum err e, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

// Lists the available devices, best first. Writes at most max caps and their number to *count.
// Errors: NO_DEVICE if there is no Vulkan loader or no device.
enum err vk_device_list(struct vk_caps *caps, int max, int *count, struct fault *why);

// The number of validation messages since the device was opened; NULL: of all devices of this
// process, including closed ones. IMAGEND_VALIDATION=1 in the environment turns on validation for
// every device; with =fatal, vk_cmd_end, vk_submit and vk_wait also return INTERNAL after the first
// message. Thread: any.
unsigned vk_validation_messages(const struct vk_device *dev);

// For tests: makes the countdown-th call of this kind from now (1: the next; 0: never) fail like
// the driver's. A failed SUBMIT or WAIT loses the device permanently; a failed MEMORY affects only
// one vk_buffer_create.
enum vk_fault { VK_FAULT_SUBMIT, VK_FAULT_WAIT, VK_FAULT_MEMORY };
void vk_fault_inject(struct vk_device *dev, enum vk_fault kind, int countdown);

// ---- memory ---------------------------------------------------------------------------------

enum vk_heap {
    VK_DEVICE,   // fastest for shaders; mapped if the device's memory allows it
    VK_UPLOAD,   // mapped and coherent: small parameters that the CPU writes at every step
    VK_READBACK, // mapped and cached: results that the CPU reads
};

// Allocates a range of a slab, aligned to at least 256 bytes and filled with zeros. Errors:
// NO_DEVICE_MEMORY (limit or driver), NO_MEMORY.
enum err vk_buffer_create(struct vk_device *dev, enum vk_heap heap, size_t bytes,
                          struct vk_buffer **out);
void vk_buffer_destroy(struct vk_buffer **buf);
size_t vk_buffer_bytes(const struct vk_buffer *buf);
// The bytes that a buffer of this size takes from a slab, a multiple of every alignment.
size_t vk_buffer_span(const struct vk_device *dev, size_t bytes);
void *vk_buffer_map(struct vk_buffer *buf); // NULL if not mapped

// Copy to a buffer; what is submitted later sees it. A plain memcpy if the buffer is mapped, else
// through a ring of staging segments, without waiting; src may be reused at once.
enum err vk_upload(struct vk_buffer *buf, size_t offset, const void *src, size_t bytes);
// Wait until all uploads have arrived. Errors: DEVICE_LOST, TIMEOUT.
enum err vk_upload_finish(struct vk_device *dev);
// Copy from a buffer, and wait.
enum err vk_download(struct vk_buffer *buf, size_t offset, void *dst, size_t bytes);
// A test hook: buffers of VK_DEVICE that are created from now on are not mapped, as on a GPU.
void vk_unmap_device_memory(struct vk_device *dev, bool on);
// Buffers that are created from now on take no memory and cannot be read or run, but are counted:
// in dry_used and dry_peak, which begin at 0. Destroy them before turning it off.
void vk_count_only(struct vk_device *dev, bool on);

struct vk_memory_stats {
    size_t used, peak, reserved, limit; // bytes of the device's memory
    size_t dry_used, dry_peak;          // see vk_count_only
    unsigned slabs, buffers;
    unsigned transfers, transfer_waits; // submissions of the staging ring, and waits for them
};
// Replaces the memory limit. Memory that is reserved already stays, also beyond a smaller limit.
void vk_memory_set_limit(struct vk_device *dev, size_t limit);
void vk_memory_stats(const struct vk_device *dev, struct vk_memory_stats *out);

// ---- pipelines ------------------------------------------------------------------------------

enum { VK_MAX_BINDINGS = 10, VK_MAX_SPEC = 18 };

// Texel buffers are RGBA and read-only; texels beyond the binding read as zero.
enum vk_binding_type { VK_STORAGE, VK_TEXEL_F32, VK_TEXEL_F16 };

struct vk_pipeline_params {
    const char *name; // for timing and messages; not copied, must be static
    const uint32_t *spirv;
    size_t spirv_bytes;
    int bindings;
    enum vk_binding_type binding[VK_MAX_BINDINGS];
    uint32_t push_bytes;
    int specs;
    uint32_t spec[VK_MAX_SPEC]; // constant_id 0, 1, ...
    uint32_t subgroup_size;     // required size; 0: the device's default
};

// Thread: any; several pipelines may be created at once. Errors: NO_MEMORY, DEVICE_LOST,
// UNSUPPORTED.
enum err vk_pipeline_create(struct vk_device *dev, const struct vk_pipeline_params *p,
                            struct vk_pipeline **out);
void vk_pipeline_destroy(struct vk_pipeline **pipe);

// Writes the driver's pipeline cache to cache_dir; vk_device_close does this too.
enum err vk_cache_save(struct vk_device *dev);

// Other text beside the pipeline cache: one file per kind and device, written completely or not at
// all. Errors: NOT_FOUND (no file, no cache_dir), FORMAT (larger than 1 MiB), IO, NO_MEMORY.
enum err vk_cache_read(const struct vk_device *dev, const char *kind, char **text, size_t *bytes);
enum err vk_cache_write(const struct vk_device *dev, const char *kind, const void *text,
                        size_t bytes);

// ---- commands -------------------------------------------------------------------------------

enum vk_access { VK_READ = 1, VK_WRITE = 2, VK_READ_WRITE = 3 };

struct vk_binding {
    struct vk_buffer *buf;
    size_t offset, bytes;
    enum vk_access access; // the shader's access; barriers are derived from it
};

struct vk_dispatch {
    struct vk_pipeline *pipe;
    struct vk_binding binding[VK_MAX_BINDINGS];
    const void *push;
    uint32_t groups[3]; // zeros: nothing runs, but drivers that compile late compile now
};

// A list of dispatches, recorded once and run any number of times. Recording calls keep the first
// error for vk_cmd_end, so they need no checks. Buffers and pipelines must outlive the command.
// Owner: the caller, who destroys it when it is not running.
enum err vk_cmd_create(struct vk_device *dev, struct vk_cmd **out);
void vk_cmd_destroy(struct vk_cmd **cmd);
void vk_cmd_dispatch(struct vk_cmd *cmd, const struct vk_dispatch *d);
void vk_cmd_copy(struct vk_cmd *cmd, struct vk_buffer *src, size_t src_offset,
                 struct vk_buffer *dst, size_t dst_offset, size_t bytes);
enum err vk_cmd_end(struct vk_cmd *cmd);

// Submits in order; *ticket (a timeline value) is reached when everything has run. The command sees
// earlier host writes to mapped buffers. Errors: DEVICE_LOST, ...
enum err vk_submit(struct vk_cmd *cmd, uint64_t *ticket);
// Errors: TIMEOUT, DEVICE_LOST. After OK the CPU sees the commands' writes to mapped buffers.
enum err vk_wait(struct vk_device *dev, uint64_t ticket, double seconds);

// ---- timing ---------------------------------------------------------------------------------

struct vk_timing {
    const char *name; // the pipeline's name
    uint64_t calls;
    double seconds;
};
// Sums the timestamps of a finished command's last run by pipeline name. Requires a device opened
// with profile, which separates dispatches and costs some tens of microseconds for each on a
// software device. Returns the number written, at most max; 0 if it has not run.
int vk_cmd_timings(struct vk_cmd *cmd, struct vk_timing *out, int max);

#endif
