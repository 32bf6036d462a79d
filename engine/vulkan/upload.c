// Copies between the CPU and device memory that is not mapped, through a ring of staging segments.
// Uploads are recorded, submitted when a segment is full or something else is submitted, and waited
// for only when the ring comes round: a network is loaded with one wait at its end. Called by
// engine/ops and memory.c on the engine's thread. Handles bytes only.
#include "vk_internal.h"

#include <string.h>

enum { SEGMENT_BYTES = 4 << 20, PIECE_ALIGN = 256 };
static const double wait_seconds = 60;

// Orders all transfers, and the shaders that ran before, in front of the next transfer: pieces may
// meet in one buffer.
static void order_transfers(VkCommandBuffer cb, VkPipelineStageFlags from)
{
    VkMemoryBarrier barrier = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
        .srcAccessMask =
            VK_ACCESS_TRANSFER_WRITE_BIT |
            (from & VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT ? VK_ACCESS_SHADER_WRITE_BIT : 0),
        .dstAccessMask = VK_ACCESS_TRANSFER_READ_BIT | VK_ACCESS_TRANSFER_WRITE_BIT,
    };
    vkCmdPipelineBarrier(cb, from, VK_PIPELINE_STAGE_TRANSFER_BIT, 0, 1, &barrier, 0, NULL, 0,
                         NULL);
}

static enum err wait_for(struct vk_device *dev, struct vk_segment *s)
{
    if (!s->ticket)
        return ERR_OK;
    dev->stats.transfer_waits++;
    enum err e = vk_wait(dev, s->ticket, wait_seconds);
    if (!e) // after a timeout the copies may still run
        s->ticket = 0;
    return e;
}

// Begins the current segment's commands, unless they are being recorded.
static enum err open_segment(struct vk_device *dev, struct vk_segment *s)
{
    if (s->open)
        return ERR_OK;
    enum err e = wait_for(dev, s);
    if (!e)
        e = vk_commands_begin(dev, VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT, &s->commands);
    if (e)
        return e;
    s->open = true;
    s->used = 0;
    VK_NAME(dev, COMMAND_BUFFER, s->commands, "staging");
    order_transfers(s->commands,
                    VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT);
    return ERR_OK;
}

enum err vk_ring_submit(struct vk_device *dev)
{
    struct vk_segment *s = &dev->ring.segment[dev->ring.at];
    VkMemoryBarrier barrier = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
        .srcAccessMask = VK_ACCESS_TRANSFER_WRITE_BIT,
        .dstAccessMask = VK_ACCESS_HOST_READ_BIT,
    };
    if (!s->open)
        return ERR_OK;
    s->open = false;
    vkCmdPipelineBarrier(s->commands, VK_PIPELINE_STAGE_TRANSFER_BIT, VK_PIPELINE_STAGE_HOST_BIT, 0,
                         1, &barrier, 0, NULL, 0, NULL);
    enum err e = VK_CALL(dev, vkEndCommandBuffer, s->commands);
    if (!e)
        e = vk_queue_submit(dev, s->commands, &s->ticket);
    dev->ring.at = (dev->ring.at + 1) % VK_RING_SEGMENTS;
    dev->stats.transfers++;
    return e;
}

// Room for a piece in a segment whose commands are being recorded.
static enum err take(struct vk_device *dev, size_t bytes, struct vk_segment **out, size_t *offset)
{
    enum err e = ERR_OK;
    if (dev->ring.segment[dev->ring.at].used + bytes > SEGMENT_BYTES)
        e = vk_ring_submit(dev);
    struct vk_segment *s = &dev->ring.segment[dev->ring.at];
    if (!e && bytes && !s->buf)
        e = vk_buffer_create(dev, VK_READBACK, SEGMENT_BYTES, &s->buf);
    if (!e)
        e = open_segment(dev, s);
    if (e)
        return e;
    *offset = s->used;
    s->used += vk_align(bytes, PIECE_ALIGN);
    *out = s;
    return ERR_OK;
}

enum err vk_ring_clear(struct vk_buffer *buf)
{
    struct vk_segment *s;
    size_t at;
    if (buf->map) {
        memset(buf->map, 0, buf->span);
        return ERR_OK;
    }
    enum err e = take(buf->dev, 0, &s, &at);
    if (e)
        return e;
    vkCmdFillBuffer(s->commands, buf->handle, buf->offset, buf->span, 0);
    order_transfers(s->commands, VK_PIPELINE_STAGE_TRANSFER_BIT);
    return ERR_OK;
}

static enum err check_copy(const struct vk_buffer *buf, size_t offset, size_t bytes)
{
    if (atomic_load(&buf->dev->lost))
        return ERR_DEVICE_LOST;
    return offset > buf->bytes || bytes > buf->bytes - offset ? ERR_INVALID : ERR_OK;
}

static size_t piece_of(size_t left)
{
    return left < SEGMENT_BYTES ? left : SEGMENT_BYTES;
}

enum err vk_upload(struct vk_buffer *buf, size_t offset, const void *src, size_t bytes)
{
    enum err e = check_copy(buf, offset, bytes);
    if (!e && !buf->slab) // only counted
        return ERR_OK;
    if (e || !bytes)
        return e;
    if (buf->map) {
        memcpy(buf->map + offset, src, bytes);
        return ERR_OK;
    }
    for (size_t done = 0, n; !e && done < bytes; done += n) {
        struct vk_segment *s;
        size_t at;
        n = piece_of(bytes - done);
        if ((e = take(buf->dev, n, &s, &at)))
            break;
        memcpy(s->buf->map + at, (const uint8_t *)src + done, n);
        VkBufferCopy region = {s->buf->offset + at, buf->offset + offset + done, n};
        vkCmdCopyBuffer(s->commands, s->buf->handle, buf->handle, 1, &region);
        order_transfers(s->commands, VK_PIPELINE_STAGE_TRANSFER_BIT);
    }
    return e;
}

enum err vk_upload_finish(struct vk_device *dev)
{
    enum err e = vk_ring_submit(dev);
    for (int i = 0; i < VK_RING_SEGMENTS; i++) {
        enum err one = wait_for(dev, &dev->ring.segment[i]);
        e = e ? e : one;
    }
    return e;
}

enum err vk_download(struct vk_buffer *buf, size_t offset, void *dst, size_t bytes)
{
    enum err e = check_copy(buf, offset, bytes);
    if (!e && !buf->slab) { // only counted
        memset(dst, 0, bytes);
        return ERR_OK;
    }
    if (e || !bytes)
        return e;
    if (buf->map) {
        memcpy(dst, buf->map + offset, bytes);
        return ERR_OK;
    }
    for (size_t done = 0, n; !e && done < bytes; done += n) {
        struct vk_segment *s;
        size_t at;
        n = piece_of(bytes - done);
        if ((e = take(buf->dev, n, &s, &at)))
            break;
        VkBufferCopy region = {buf->offset + offset + done, s->buf->offset + at, n};
        vkCmdCopyBuffer(s->commands, buf->handle, s->buf->handle, 1, &region);
        e = vk_ring_submit(buf->dev);
        if (!e)
            e = wait_for(buf->dev, s);
        if (!e)
            memcpy((uint8_t *)dst + done, s->buf->map + at, n);
    }
    return e;
}

void vk_ring_close(struct vk_device *dev)
{
    for (int i = 0; i < VK_RING_SEGMENTS; i++)
        vk_buffer_destroy(&dev->ring.segment[i].buf);
}

void vk_unmap_device_memory(struct vk_device *dev, bool on)
{
    (void)vk_upload_finish(dev);
    dev->unmapped = on;
}
