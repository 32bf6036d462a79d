// Commands: lists of dispatches and copies, recorded once into a VkCommandBuffer and replayed.
// Descriptor sets and texel views are created while recording and live as long as the command;
// barriers are derived from the byte ranges that the bindings read and write. Called by engine/ops
// on the engine's thread. Knows nothing about the shaders' computations.
#include "vk_internal.h"

#include <stdlib.h>
#include <string.h>

enum { SETS_PER_POOL = 128, VIEW_BUCKETS = 256 };

static const uint64_t LAST_WAIT_NS = 10000000000;

struct view {
    VkBuffer buf;
    VkDeviceSize offset, bytes;
    VkFormat format;
    VkBufferView handle;
    int next; // next in its bucket, -1: none
};

// A range of bytes accessed since the last barrier.
struct touched {
    VkBuffer buf;
    size_t begin, end;
    bool write;
};

struct vk_cmd {
    struct vk_device *dev;
    VkCommandBuffer handle;
    enum err err;
    bool ended;
    uint64_t ticket; // of the last submission
    VkPipeline bound;

    VkDescriptorPool *pools;
    int npools, cap_pools;
    uint32_t left_sets, left_storage, left_texel; // free in the newest pool

    struct view *views;
    int nviews, cap_views, bucket[VIEW_BUCKETS];

    struct touched *touched;
    int ntouched, cap_touched;

    struct vk_marks marks;
};

static const VkPipelineStageFlags work_stages =
    VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT;
static const VkAccessFlags work_writes = VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_WRITE_BIT;
static const VkAccessFlags work_access = VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT |
                                         VK_ACCESS_TRANSFER_READ_BIT | VK_ACCESS_TRANSFER_WRITE_BIT;

static void barrier(struct vk_cmd *cmd, VkPipelineStageFlags extra_from, VkAccessFlags extra_writes,
                    VkPipelineStageFlags to, VkAccessFlags access)
{
    VkMemoryBarrier b = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
        .srcAccessMask = work_writes | extra_writes,
        .dstAccessMask = access,
    };
    vkCmdPipelineBarrier(cmd->handle, work_stages | extra_from, to, 0, 1, &b, 0, NULL, 0, NULL);
}

// ---- life -----------------------------------------------------------------------------------

enum err vk_cmd_create(struct vk_device *dev, struct vk_cmd **out)
{
    *out = NULL;
    struct vk_cmd *cmd = calloc(1, sizeof *cmd);
    if (!cmd)
        return ERR_NO_MEMORY;
    cmd->dev = dev;
    for (int i = 0; i < VIEW_BUCKETS; i++)
        cmd->bucket[i] = -1;
    enum err e = vk_commands_begin(dev, VK_COMMAND_BUFFER_USAGE_SIMULTANEOUS_USE_BIT, &cmd->handle);
    if (e) {
        vk_cmd_destroy(&cmd);
        return e;
    }
    // Waits for earlier submissions, earlier runs of this command, and host writes.
    barrier(cmd, VK_PIPELINE_STAGE_HOST_BIT, VK_ACCESS_HOST_WRITE_BIT, work_stages, work_access);
    *out = cmd;
    return ERR_OK;
}

// A caller may destroy a command after its wait timed out; the driver must finish it first.
static void wait_until_idle(struct vk_cmd *cmd)
{
    VkSemaphoreWaitInfo info = {
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO,
        .semaphoreCount = 1,
        .pSemaphores = &cmd->dev->timeline,
        .pValues = &cmd->ticket,
    };
    if (cmd->ticket)
        vkWaitSemaphores(cmd->dev->handle, &info, LAST_WAIT_NS);
}

void vk_cmd_destroy(struct vk_cmd **pcmd)
{
    struct vk_cmd *cmd = *pcmd;
    if (!cmd)
        return;
    *pcmd = NULL;
    VkDevice dev = cmd->dev->handle;
    wait_until_idle(cmd);
    if (cmd->handle)
        vkFreeCommandBuffers(dev, cmd->dev->commands, 1, &cmd->handle);
    for (int i = 0; i < cmd->npools; i++)
        vkDestroyDescriptorPool(dev, cmd->pools[i], NULL);
    for (int i = 0; i < cmd->nviews; i++)
        vkDestroyBufferView(dev, cmd->views[i].handle, NULL);
    vk_marks_deinit(cmd->dev, &cmd->marks);
    free(cmd->pools);
    free(cmd->views);
    free(cmd->touched);
    free(cmd);
}

// ---- hazards --------------------------------------------------------------------------------

static bool conflicts(const struct vk_cmd *cmd, const struct touched *t)
{
    for (int i = 0; i < cmd->ntouched; i++) {
        const struct touched *o = &cmd->touched[i];
        if (o->buf == t->buf && (o->write || t->write) && o->begin < t->end && t->begin < o->end)
            return true;
    }
    return false;
}

// Adds one barrier before this work if one of its ranges conflicts with an earlier one; then
// remembers the ranges.
static enum err order(struct vk_cmd *cmd, const struct touched *t, int n)
{
    bool wait = cmd->dev->profile && cmd->ntouched; // timestamp pairs measure only their own work
    for (int i = 0; i < n && !wait; i++)
        wait = conflicts(cmd, &t[i]);
    if (wait) {
        barrier(cmd, 0, 0, work_stages, work_access);
        cmd->ntouched = 0;
    }
    if (!vk_reserve(&cmd->touched, &cmd->cap_touched, cmd->ntouched + n, sizeof *cmd->touched))
        return ERR_NO_MEMORY;
    memcpy(cmd->touched + cmd->ntouched, t, (size_t)n * sizeof *t);
    cmd->ntouched += n;
    return ERR_OK;
}

// ---- descriptors ----------------------------------------------------------------------------

static enum err add_pool(struct vk_cmd *cmd)
{
    VkDescriptorPoolSize sizes[] = {
        {VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, 4 * SETS_PER_POOL},
        {VK_DESCRIPTOR_TYPE_UNIFORM_TEXEL_BUFFER, 2 * SETS_PER_POOL},
    };
    VkDescriptorPoolCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO,
        .maxSets = SETS_PER_POOL,
        .poolSizeCount = 2,
        .pPoolSizes = sizes,
    };
    if (!vk_reserve(&cmd->pools, &cmd->cap_pools, cmd->npools + 1, sizeof *cmd->pools))
        return ERR_NO_MEMORY;
    enum err e = VK_CALL(cmd->dev, vkCreateDescriptorPool, cmd->dev->handle, &info, NULL,
                         &cmd->pools[cmd->npools]);
    if (e)
        return e;
    cmd->npools++;
    cmd->left_sets = SETS_PER_POOL;
    cmd->left_storage = sizes[0].descriptorCount;
    cmd->left_texel = sizes[1].descriptorCount;
    return ERR_OK;
}

static enum err allocate_set(struct vk_cmd *cmd, const struct vk_pipeline *pipe,
                             VkDescriptorSet *set)
{
    uint32_t texel = 0;
    enum err e = ERR_OK;
    for (int i = 0; i < pipe->bindings; i++)
        texel += pipe->binding[i] != VK_STORAGE;
    uint32_t storage = (uint32_t)pipe->bindings - texel;
    if (!cmd->left_sets || storage > cmd->left_storage || texel > cmd->left_texel)
        e = add_pool(cmd);
    if (e)
        return e;
    VkDescriptorSetAllocateInfo info = {
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO,
        .descriptorPool = cmd->pools[cmd->npools - 1],
        .descriptorSetCount = 1,
        .pSetLayouts = &pipe->set_layout,
    };
    cmd->left_sets--;
    cmd->left_storage -= storage;
    cmd->left_texel -= texel;
    return VK_CALL(cmd->dev, vkAllocateDescriptorSets, cmd->dev->handle, &info, set);
}

// The bytes that a view of this binding spans: the zeros kept behind each buffer lengthen a size
// that drivers are bad at, without changing what an out-of-range read returns.
static size_t view_bytes(const struct vk_binding *b)
{
    bool at_end = b->offset + b->bytes == b->buf->bytes;
    return at_end && quirk_texel_size(b->bytes) ? b->bytes + VK_GUARD_BYTES : b->bytes;
}

static enum err find_view(struct vk_cmd *cmd, const struct vk_binding *b, VkFormat format,
                          VkBufferView *out)
{
    size_t offset = b->buf->offset + b->offset, bytes = view_bytes(b);
    size_t hash = (offset / VK_SUBALLOC_ALIGN * 31 + bytes / 16) % VIEW_BUCKETS;
    for (int i = cmd->bucket[hash]; i >= 0; i = cmd->views[i].next) {
        const struct view *v = &cmd->views[i];
        if (v->buf == b->buf->handle && v->offset == offset && v->bytes == bytes &&
            v->format == format) {
            *out = v->handle;
            return ERR_OK;
        }
    }
    if (!vk_reserve(&cmd->views, &cmd->cap_views, cmd->nviews + 1, sizeof *cmd->views))
        return ERR_NO_MEMORY;
    VkBufferViewCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_BUFFER_VIEW_CREATE_INFO,
        .buffer = b->buf->handle,
        .format = format,
        .offset = offset,
        .range = bytes,
    };
    enum err e = VK_CALL(cmd->dev, vkCreateBufferView, cmd->dev->handle, &info, NULL, out);
    if (e)
        return e;
    cmd->views[cmd->nviews] =
        (struct view){b->buf->handle, offset, bytes, format, *out, cmd->bucket[hash]};
    cmd->bucket[hash] = cmd->nviews++;
    return ERR_OK;
}

static enum err bind(struct vk_cmd *cmd, const struct vk_dispatch *d)
{
    const struct vk_pipeline *pipe = d->pipe;
    VkDescriptorSet set;
    VkDescriptorBufferInfo buffers[VK_MAX_BINDINGS];
    VkBufferView views[VK_MAX_BINDINGS];
    VkWriteDescriptorSet writes[VK_MAX_BINDINGS];
    enum err e = allocate_set(cmd, pipe, &set);
    for (int i = 0; !e && i < pipe->bindings; i++) {
        const struct vk_binding *b = &d->binding[i];
        bool storage = pipe->binding[i] == VK_STORAGE;
        writes[i] = (VkWriteDescriptorSet){
            .sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET,
            .dstSet = set,
            .dstBinding = (uint32_t)i,
            .descriptorCount = 1,
            .descriptorType = storage ? VK_DESCRIPTOR_TYPE_STORAGE_BUFFER
                                      : VK_DESCRIPTOR_TYPE_UNIFORM_TEXEL_BUFFER,
            .pBufferInfo = storage ? &buffers[i] : NULL,
            .pTexelBufferView = storage ? NULL : &views[i],
        };
        buffers[i] = (VkDescriptorBufferInfo){b->buf->handle, b->buf->offset + b->offset, b->bytes};
        if (!storage)
            e = find_view(cmd, b,
                          pipe->binding[i] == VK_TEXEL_F32 ? VK_FORMAT_R32G32B32A32_SFLOAT
                                                           : VK_FORMAT_R16G16B16A16_SFLOAT,
                          &views[i]);
    }
    if (e)
        return e;
    vkUpdateDescriptorSets(cmd->dev->handle, (uint32_t)pipe->bindings, writes, 0, NULL);
    if (cmd->bound != pipe->handle)
        vkCmdBindPipeline(cmd->handle, VK_PIPELINE_BIND_POINT_COMPUTE, pipe->handle);
    cmd->bound = pipe->handle;
    vkCmdBindDescriptorSets(cmd->handle, VK_PIPELINE_BIND_POINT_COMPUTE, pipe->layout, 0, 1, &set,
                            0, NULL);
    if (pipe->push_bytes)
        vkCmdPushConstants(cmd->handle, pipe->layout, VK_SHADER_STAGE_COMPUTE_BIT, 0,
                           pipe->push_bytes, d->push);
    return ERR_OK;
}

// ---- recording ------------------------------------------------------------------------------

static enum err exceeds(struct vk_device *dev, const char *name, size_t need, const char *limit,
                        size_t most)
{
    return vk_fail(dev, ERR_UNSUPPORTED, "%s: %zu exceeds %s of %.60s, which is %zu", name, need,
                   limit, dev->ph.caps.name, most);
}

static enum err check_binding(struct vk_device *dev, const struct vk_pipeline *pipe, int i,
                              const struct vk_binding *b)
{
    const struct vk_caps *caps = &dev->ph.caps;
    if (!b->buf || b->buf->dev != dev || !b->bytes || b->offset > b->buf->bytes ||
        b->bytes > b->buf->bytes - b->offset || b->offset % caps->offset_alignment ||
        !(b->access & VK_READ_WRITE))
        return ERR_INVALID;
    if (pipe->binding[i] == VK_STORAGE)
        return b->bytes > caps->max_storage_range
                   ? exceeds(dev, pipe->name, b->bytes, "maxStorageBufferRange",
                             caps->max_storage_range)
                   : ERR_OK;
    size_t texel = pipe->binding[i] == VK_TEXEL_F32 ? 16 : 8;
    if (b->bytes % texel || (b->access & VK_WRITE))
        return ERR_INVALID;
    return view_bytes(b) / texel > caps->max_texel_elements
               ? exceeds(dev, pipe->name, view_bytes(b) / texel, "maxTexelBufferElements",
                         caps->max_texel_elements)
               : ERR_OK;
}

static enum err record_dispatch(struct vk_cmd *cmd, const struct vk_dispatch *d)
{
    struct touched t[VK_MAX_BINDINGS];
    struct vk_device *dev = cmd->dev;
    if (cmd->ended || !d->pipe || (d->pipe->push_bytes && !d->push))
        return ERR_INVALID;
    for (int i = 0; i < 3; i++)
        if (d->groups[i] > dev->ph.caps.max_groups[i])
            return exceeds(dev, d->pipe->name, d->groups[i], "maxComputeWorkGroupCount",
                           dev->ph.caps.max_groups[i]);
    enum err e = ERR_OK;
    for (int i = 0; !e && i < d->pipe->bindings; i++) {
        const struct vk_binding *b = &d->binding[i];
        if ((e = check_binding(dev, d->pipe, i, b)))
            return e;
        size_t begin = b->buf->offset + b->offset;
        t[i] = (struct touched){b->buf->handle, begin, begin + b->bytes, b->access & VK_WRITE};
    }
    if ((e = order(cmd, t, d->pipe->bindings)) || (e = bind(cmd, d)) ||
        (dev->profile && (e = vk_marks_begin(dev, &cmd->marks, cmd->handle, d->pipe->name))))
        return e;
    vk_label_begin(dev, cmd->handle, d->pipe->name);
    vkCmdDispatch(cmd->handle, d->groups[0], d->groups[1], d->groups[2]);
    vk_label_end(dev, cmd->handle);
    if (dev->profile)
        vk_marks_end(dev, &cmd->marks, cmd->handle);
    return ERR_OK;
}

void vk_cmd_dispatch(struct vk_cmd *cmd, const struct vk_dispatch *d)
{
    if (!cmd->err)
        cmd->err = record_dispatch(cmd, d);
}

static enum err record_copy(struct vk_cmd *cmd, const struct vk_buffer *src, size_t src_offset,
                            const struct vk_buffer *dst, size_t dst_offset, size_t bytes)
{
    if (cmd->ended || !src || !dst || src->dev != cmd->dev || dst->dev != cmd->dev || !bytes ||
        src_offset > src->bytes || bytes > src->bytes - src_offset || dst_offset > dst->bytes ||
        bytes > dst->bytes - dst_offset)
        return ERR_INVALID;
    VkBufferCopy region = {src->offset + src_offset, dst->offset + dst_offset, bytes};
    struct touched t[2] = {
        {src->handle, region.srcOffset, region.srcOffset + bytes, false},
        {dst->handle, region.dstOffset, region.dstOffset + bytes, true},
    };
    if (t[0].buf == t[1].buf && t[0].begin < t[1].end && t[1].begin < t[0].end)
        return ERR_INVALID;
    enum err e = order(cmd, t, 2);
    if (!e)
        vkCmdCopyBuffer(cmd->handle, src->handle, dst->handle, 1, &region);
    return e;
}

void vk_cmd_copy(struct vk_cmd *cmd, struct vk_buffer *src, size_t src_offset,
                 struct vk_buffer *dst, size_t dst_offset, size_t bytes)
{
    if (!cmd->err)
        cmd->err = record_copy(cmd, src, src_offset, dst, dst_offset, bytes);
}

enum err vk_cmd_end(struct vk_cmd *cmd)
{
    if (cmd->ended)
        return cmd->err ? cmd->err : ERR_INVALID;
    cmd->ended = true;
    if (cmd->err)
        return cmd->err;
    barrier(cmd, 0, 0, VK_PIPELINE_STAGE_HOST_BIT, VK_ACCESS_HOST_READ_BIT);
    cmd->err = VK_CALL(cmd->dev, vkEndCommandBuffer, cmd->handle);
    free(cmd->touched);
    cmd->touched = NULL;
    cmd->ntouched = cmd->cap_touched = 0;
    if (!cmd->err)
        cmd->err = vk_validation_check(cmd->dev);
    return cmd->err;
}

// ---- running --------------------------------------------------------------------------------

enum err vk_submit(struct vk_cmd *cmd, uint64_t *ticket)
{
    if (cmd->err || !cmd->ended)
        return cmd->err ? cmd->err : ERR_INVALID;
    enum err e = vk_ring_submit(cmd->dev);
    if (!e)
        e = vk_queue_submit(cmd->dev, cmd->handle, ticket);
    if (e)
        return e;
    cmd->ticket = *ticket;
    return vk_validation_check(cmd->dev);
}

int vk_cmd_timings(struct vk_cmd *cmd, struct vk_timing *out, int max)
{
    return cmd->ticket ? vk_marks_sum(cmd->dev, &cmd->marks, out, max) : 0;
}
