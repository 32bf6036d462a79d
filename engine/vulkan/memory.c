// Device memory: slabs, each one allocation with one VkBuffer, divided into buffers by a sorted
// list of free spans. Called by engine/ops and command.c on the engine's thread. Handles bytes
// only.
#include "vk_internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct vk_span {
    size_t offset, bytes;
};

struct vk_slab {
    struct vk_slab *next;
    VkDeviceMemory memory;
    VkBuffer handle;
    uint8_t *map;
    size_t bytes;
    uint32_t type;
    int live;             // number of buffers
    struct vk_span *free; // sorted by offset, never adjacent
    int spans, cap_spans;
};

// ---- memory types ---------------------------------------------------------------------------

static bool find_type(const struct vk_device *dev, uint32_t bits, VkMemoryPropertyFlags need,
                      VkMemoryPropertyFlags avoid, uint32_t *type)
{
    const VkPhysicalDeviceMemoryProperties *mem = &dev->ph.memory;
    VkDeviceSize best = 0;
    for (uint32_t i = 0; i < mem->memoryTypeCount; i++) {
        VkMemoryPropertyFlags flags = mem->memoryTypes[i].propertyFlags;
        VkDeviceSize heap = mem->memoryHeaps[mem->memoryTypes[i].heapIndex].size;
        if ((bits >> i & 1) && (flags & need) == need && !(flags & avoid) && heap > best) {
            best = heap;
            *type = i;
        }
    }
    return best > 0;
}

static bool shares_memory(const struct vk_device *dev)
{
    return dev->ph.type == VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU ||
           dev->ph.type == VK_PHYSICAL_DEVICE_TYPE_CPU;
}

static bool choose_types(struct vk_device *dev, uint32_t bits)
{
    const VkMemoryPropertyFlags local = VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT;
    const VkMemoryPropertyFlags seen =
        VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
    const VkMemoryPropertyFlags cached = VK_MEMORY_PROPERTY_HOST_CACHED_BIT;
    const VkMemoryPropertyFlags odd = VK_MEMORY_PROPERTY_LAZILY_ALLOCATED_BIT |
                                      VK_MEMORY_PROPERTY_PROTECTED_BIT |
                                      VK_MEMORY_PROPERTY_DEVICE_COHERENT_BIT_AMD;
    uint32_t *t = dev->heap_type;
    bool shared = shares_memory(dev);
    // On a discrete device, mapped device memory is slow to read and often small.
    bool device = (shared && (find_type(dev, bits, local | seen | cached, odd, &t[VK_DEVICE]) ||
                              find_type(dev, bits, local | seen, odd, &t[VK_DEVICE]))) ||
                  find_type(dev, bits, local, odd, &t[VK_DEVICE]);
    bool upload = find_type(dev, bits, seen, odd | cached | (shared ? 0 : local), &t[VK_UPLOAD]) ||
                  find_type(dev, bits, seen, odd, &t[VK_UPLOAD]);
    bool readback = find_type(dev, bits, seen | cached, odd, &t[VK_READBACK]) ||
                    find_type(dev, bits, seen, odd, &t[VK_READBACK]);
    return device && upload && readback;
}

static VkBufferCreateInfo buffer_info(size_t bytes)
{
    return (VkBufferCreateInfo){
        .sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
        .size = bytes,
        .usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_UNIFORM_TEXEL_BUFFER_BIT |
                 VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT,
        .sharingMode = VK_SHARING_MODE_EXCLUSIVE,
    };
}

enum err vk_memory_init(struct vk_device *dev, size_t limit)
{
    VkBufferCreateInfo info = buffer_info(VK_SUBALLOC_ALIGN);
    VkMemoryRequirements need;
    VkBuffer probe;
    enum err e = VK_CALL(dev, vkCreateBuffer, dev->handle, &info, NULL, &probe);
    if (e)
        return e;
    vkGetBufferMemoryRequirements(dev->handle, probe, &need);
    vkDestroyBuffer(dev->handle, probe, NULL);
    if (!choose_types(dev, need.memoryTypeBits))
        return vk_fail(dev, ERR_UNSUPPORTED,
                       "no memory type is accessible to both shaders and the CPU");
    uint32_t heap = dev->ph.memory.memoryTypes[dev->heap_type[VK_DEVICE]].heapIndex;
    dev->ph.caps.memory_bytes = vk_physical_budget(&dev->ph, heap);
    dev->slab_bytes = VK_SLAB_BYTES;
    vk_memory_set_limit(dev, limit ? limit : dev->ph.caps.memory_bytes);
    return ERR_OK;
}

void vk_memory_set_limit(struct vk_device *dev, size_t limit)
{
    dev->stats.limit = limit;
    // Slabs are small against the limit, so that little of it lies unused in them: one that a small
    // buffer of a network keeps alive has no room for the matrices of the next network.
    while (dev->slab_bytes > VK_SLAB_LEAST && dev->slab_bytes > limit / 512)
        dev->slab_bytes /= 2;
}

// Staging on a discrete device lies in the CPU's memory, which the limit is not about.
static bool is_counted(const struct vk_device *dev, uint32_t type)
{
    const VkMemoryType *list = dev->ph.memory.memoryTypes;
    return list[type].heapIndex == list[dev->heap_type[VK_DEVICE]].heapIndex;
}

// ---- slabs ----------------------------------------------------------------------------------

static void slab_destroy(struct vk_device *dev, struct vk_slab *slab)
{
    if (!slab)
        return;
    vkDestroyBuffer(dev->handle, slab->handle, NULL);
    vkFreeMemory(dev->handle, slab->memory, NULL);
    free(slab->free);
    free(slab);
}

void vk_memory_deinit(struct vk_device *dev)
{
    vk_ring_close(dev);
    for (struct vk_slab *s = dev->slabs, *next; s; s = next) {
        next = s->next;
        slab_destroy(dev, s);
    }
    dev->slabs = NULL;
}

static enum err too_large(struct vk_device *dev, VkDeviceSize bytes)
{
    const struct vk_physical *ph = &dev->ph;
    return vk_fail(dev, ERR_NO_DEVICE_MEMORY,
                   "a buffer needs %llu bytes, but the device allows %llu (maxBufferSize) and %llu "
                   "(maxMemoryAllocationSize)",
                   (unsigned long long)bytes, (unsigned long long)ph->max_buffer,
                   (unsigned long long)ph->max_allocation);
}

static enum err slab_allocate(struct vk_device *dev, struct vk_slab *slab)
{
    VkMemoryPropertyFlags flags = dev->ph.memory.memoryTypes[slab->type].propertyFlags;
    bool for_host =
        slab->type == dev->heap_type[VK_UPLOAD] || slab->type == dev->heap_type[VK_READBACK];
    bool mapped = (flags & VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT) &&
                  (flags & VK_MEMORY_PROPERTY_HOST_COHERENT_BIT) &&
                  (shares_memory(dev) || for_host);
    VkMemoryRequirements need;
    void *map = NULL;
    if (slab->bytes > dev->ph.max_buffer || slab->bytes > dev->ph.max_allocation)
        return too_large(dev, slab->bytes);
    VkBufferCreateInfo info = buffer_info(slab->bytes);
    enum err e = VK_CALL(dev, vkCreateBuffer, dev->handle, &info, NULL, &slab->handle);
    if (e)
        return e;
    vkGetBufferMemoryRequirements(dev->handle, slab->handle, &need);
    VkMemoryAllocateInfo memory = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
        .allocationSize = need.size,
        .memoryTypeIndex = slab->type,
    };
    if (need.size > dev->ph.max_allocation)
        return too_large(dev, need.size);
    e = VK_CALL(dev, vkAllocateMemory, dev->handle, &memory, NULL, &slab->memory);
    if (!e)
        e = VK_CALL(dev, vkBindBufferMemory, dev->handle, slab->handle, slab->memory, 0);
    if (!e && mapped)
        e = VK_CALL(dev, vkMapMemory, dev->handle, slab->memory, 0, VK_WHOLE_SIZE, 0, &map);
    slab->map = map;
    if (!e) {
        const char *name = for_host && !shares_memory(dev) ? "host memory" : "device memory";
        VK_NAME(dev, BUFFER, slab->handle, name);
        VK_NAME(dev, DEVICE_MEMORY, slab->memory, name);
    }
    // Report a driver that is out of host memory as out of device memory.
    return e == ERR_NO_MEMORY ? vk_fail(dev, ERR_NO_DEVICE_MEMORY, "%s", vk_device_why(dev, e)) : e;
}

static enum err slab_create(struct vk_device *dev, uint32_t type, size_t bytes,
                            struct vk_slab **out)
{
    if (quirk_slab_size(bytes))
        bytes += VK_SUBALLOC_ALIGN;
    const bool counted = is_counted(dev, type);
    if (counted &&
        (dev->stats.reserved > dev->stats.limit || bytes > dev->stats.limit - dev->stats.reserved))
        return vk_fail(dev, ERR_NO_DEVICE_MEMORY,
                       "out of device memory: %zu more bytes would exceed the limit of %zu bytes, "
                       "of which %zu are reserved",
                       bytes, dev->stats.limit, dev->stats.reserved);
    struct vk_slab *slab = calloc(1, sizeof *slab);
    if (!slab)
        return ERR_NO_MEMORY;
    slab->type = type;
    slab->bytes = bytes;
    enum err e = vk_reserve(&slab->free, &slab->cap_spans, 16, sizeof *slab->free)
                     ? slab_allocate(dev, slab)
                     : ERR_NO_MEMORY;
    if (e) {
        slab_destroy(dev, slab);
        return e;
    }
    slab->free[0] = (struct vk_span){0, bytes};
    slab->spans = 1;
    slab->next = dev->slabs;
    dev->slabs = slab;
    dev->stats.reserved += counted ? bytes : 0;
    dev->stats.slabs++;
    *out = slab;
    return ERR_OK;
}

static void slab_remove(struct vk_device *dev, struct vk_slab *slab)
{
    if (vk_upload_finish(dev)) // copies into it may be pending, also after a failure
        vkDeviceWaitIdle(dev->handle);
    struct vk_slab **at = &dev->slabs;
    while (*at != slab)
        at = &(*at)->next;
    *at = slab->next;
    dev->stats.reserved -= is_counted(dev, slab->type) ? slab->bytes : 0;
    dev->stats.slabs--;
    slab_destroy(dev, slab);
}

// The index of the smallest span of at least `bytes`, or -1.
static int find_span(const struct vk_slab *slab, size_t bytes)
{
    int best = -1;
    for (int i = 0; i < slab->spans; i++)
        if (slab->free[i].bytes >= bytes &&
            (best < 0 || slab->free[i].bytes < slab->free[best].bytes))
            best = i;
    return best;
}

static size_t take_span(struct vk_slab *slab, int i, size_t bytes)
{
    size_t offset = slab->free[i].offset;
    slab->free[i].offset += bytes;
    slab->free[i].bytes -= bytes;
    if (!slab->free[i].bytes) {
        slab->spans--;
        memmove(&slab->free[i], &slab->free[i + 1], (size_t)(slab->spans - i) * sizeof *slab->free);
    }
    return offset;
}

// Cannot fail: every live buffer has reserved the entry that its span may need.
static void give_span(struct vk_slab *slab, size_t offset, size_t bytes)
{
    int i = 0;
    assert(offset + bytes <= slab->bytes && slab->spans < slab->cap_spans);
    while (i < slab->spans && slab->free[i].offset < offset)
        i++;
    bool left = i > 0 && slab->free[i - 1].offset + slab->free[i - 1].bytes == offset;
    bool right = i < slab->spans && offset + bytes == slab->free[i].offset;
    if (left && right) {
        slab->free[i - 1].bytes += bytes + slab->free[i].bytes;
        slab->spans--;
        memmove(&slab->free[i], &slab->free[i + 1], (size_t)(slab->spans - i) * sizeof *slab->free);
    } else if (left) {
        slab->free[i - 1].bytes += bytes;
    } else if (right) {
        slab->free[i].offset = offset;
        slab->free[i].bytes += bytes;
    } else {
        memmove(&slab->free[i + 1], &slab->free[i], (size_t)(slab->spans - i) * sizeof *slab->free);
        slab->free[i] = (struct vk_span){offset, bytes};
        slab->spans++;
    }
}

// ---- buffers --------------------------------------------------------------------------------

static enum err find_place(struct vk_device *dev, uint32_t type, size_t span, struct vk_slab **slab,
                           int *at)
{
    size_t there = 0, fresh = VK_SLAB_LEAST;
    enum err e;
    for (struct vk_slab *s = dev->slabs; s; s = s->next) {
        if (s->type != type)
            continue;
        if ((*at = find_span(s, span)) >= 0) {
            *slab = s;
            return ERR_OK;
        }
        there += s->bytes;
    }
    *at = 0;
    // They grow with what there is: the limit may become small when little is in use.
    while (2 * fresh <= there && 2 * fresh <= dev->slab_bytes)
        fresh *= 2;
    // Buffers larger than half a slab get their own slab, so that they leave no large hole.
    e = span > fresh / 2 ? ERR_NO_DEVICE_MEMORY : slab_create(dev, type, fresh, slab);
    return e == ERR_NO_DEVICE_MEMORY ? slab_create(dev, type, span, slab) : e;
}

enum err vk_buffer_create(struct vk_device *dev, enum vk_heap heap, size_t bytes,
                          struct vk_buffer **out)
{
    struct vk_slab *slab = NULL;
    int at = 0;
    *out = NULL;
    if (!bytes)
        return ERR_INVALID;
    if (vk_fault_due(dev, VK_FAULT_MEMORY))
        return vk_error(dev, "vkAllocateMemory", VK_ERROR_OUT_OF_DEVICE_MEMORY);
    if (bytes > SIZE_MAX / 2)
        return too_large(dev, bytes);
    if (atomic_load(&dev->lost))
        return ERR_DEVICE_LOST;
    size_t span = vk_buffer_span(dev, bytes);
    struct vk_buffer *buf = calloc(1, sizeof *buf);
    if (!buf)
        return ERR_NO_MEMORY;
    if (dev->dry) {
        *buf = (struct vk_buffer){.dev = dev, .bytes = bytes, .span = span};
        dev->stats.dry_used += span;
        if (dev->stats.dry_used > dev->stats.dry_peak)
            dev->stats.dry_peak = dev->stats.dry_used;
        *out = buf;
        return ERR_OK;
    }
    enum err e = find_place(dev, dev->heap_type[heap], span, &slab, &at);
    if (!e && !vk_reserve(&slab->free, &slab->cap_spans, slab->live + 3, sizeof *slab->free))
        e = ERR_NO_MEMORY;
    if (e) {
        free(buf);
        return e;
    }
    *buf = (struct vk_buffer){
        .dev = dev, .slab = slab, .handle = slab->handle, .bytes = bytes, .span = span};
    buf->offset = take_span(slab, at, span);
    if (slab->map && !(heap == VK_DEVICE && dev->unmapped))
        buf->map = slab->map + buf->offset;
    slab->live++;
    dev->stats.buffers++;
    dev->stats.used += is_counted(dev, slab->type) ? span : 0;
    if (dev->stats.used > dev->stats.peak)
        dev->stats.peak = dev->stats.used;
    if ((e = vk_ring_clear(buf)))
        vk_buffer_destroy(&buf);
    *out = buf;
    return e;
}

void vk_buffer_destroy(struct vk_buffer **pbuf)
{
    struct vk_buffer *buf = *pbuf;
    if (!buf)
        return;
    *pbuf = NULL;
    struct vk_device *dev = buf->dev;
    struct vk_slab *slab = buf->slab;
    if (!slab) {
        dev->stats.dry_used -= buf->span;
        free(buf);
        return;
    }
    assert(slab->live > 0);
    give_span(slab, buf->offset, buf->span);
    dev->stats.buffers--;
    dev->stats.used -= is_counted(dev, slab->type) ? buf->span : 0;
    if (--slab->live == 0)
        slab_remove(dev, slab);
    free(buf);
}

size_t vk_buffer_bytes(const struct vk_buffer *buf)
{
    return buf->bytes;
}

size_t vk_buffer_span(const struct vk_device *dev, size_t bytes)
{
    size_t align = dev->ph.caps.offset_alignment;
    return vk_align(bytes + VK_GUARD_BYTES, align > VK_SUBALLOC_ALIGN ? align : VK_SUBALLOC_ALIGN);
}

void *vk_buffer_map(struct vk_buffer *buf)
{
    return buf->map;
}

void vk_count_only(struct vk_device *dev, bool on)
{
    dev->dry = on;
    dev->stats.dry_used = dev->stats.dry_peak = 0;
}

void vk_memory_stats(const struct vk_device *dev, struct vk_memory_stats *out)
{
    *out = dev->stats;
}
