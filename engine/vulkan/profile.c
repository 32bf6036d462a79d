// Timestamps around dispatches, summed by pipeline name. Called by command.c while recording and by
// engine/ops after a command has run. Measures device time only.
#include "vk_internal.h"

#include <stdlib.h>
#include <string.h>

enum { MARKS_PER_POOL = 256 }; // two queries each

static VkQueryPool pool_of(const struct vk_marks *m, int mark)
{
    return m->pools[mark / MARKS_PER_POOL];
}

static enum err add_pool(struct vk_device *dev, struct vk_marks *m, VkCommandBuffer cb)
{
    VkQueryPoolCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO,
        .queryType = VK_QUERY_TYPE_TIMESTAMP,
        .queryCount = 2 * MARKS_PER_POOL,
    };
    if (!vk_reserve(&m->pools, &m->cap_pools, m->npools + 1, sizeof *m->pools) ||
        !vk_reserve(&m->names, &m->cap_names, (m->npools + 1) * MARKS_PER_POOL, sizeof *m->names))
        return ERR_NO_MEMORY;
    enum err e = VK_CALL(dev, vkCreateQueryPool, dev->handle, &info, NULL, &m->pools[m->npools]);
    if (e)
        return e;
    vkCmdResetQueryPool(cb, m->pools[m->npools++], 0, 2 * MARKS_PER_POOL);
    return ERR_OK;
}

enum err vk_marks_begin(struct vk_device *dev, struct vk_marks *m, VkCommandBuffer cb,
                        const char *name)
{
    enum err e = m->count == m->npools * MARKS_PER_POOL ? add_pool(dev, m, cb) : ERR_OK;
    if (e)
        return e;
    m->names[m->count] = name ? name : "";
    vkCmdWriteTimestamp(cb, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, pool_of(m, m->count),
                        2 * (uint32_t)(m->count % MARKS_PER_POOL));
    return ERR_OK;
}

void vk_marks_end(struct vk_device *dev, struct vk_marks *m, VkCommandBuffer cb)
{
    vkCmdWriteTimestamp(cb, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, pool_of(m, m->count),
                        2 * (uint32_t)(m->count % MARKS_PER_POOL) + 1);
    m->count++;
}

static void add(struct vk_timing *out, int *n, int max, const char *name, double seconds)
{
    int i = 0;
    while (i < *n && strcmp(out[i].name, name))
        i++;
    if (i == max)
        return;
    if (i == *n)
        out[(*n)++] = (struct vk_timing){.name = name};
    out[i].calls++;
    out[i].seconds += seconds;
}

int vk_marks_sum(struct vk_device *dev, const struct vk_marks *m, struct vk_timing *out, int max)
{
    uint64_t t[2 * MARKS_PER_POOL];
    uint32_t bits = dev->ph.timestamp_bits;
    uint64_t mask = bits < 64 ? ((uint64_t)1 << bits) - 1 : UINT64_MAX;
    int n = 0;
    for (int first = 0; first < m->count; first += MARKS_PER_POOL) {
        int marks = m->count - first < MARKS_PER_POOL ? m->count - first : MARKS_PER_POOL;
        if (vkGetQueryPoolResults(dev->handle, pool_of(m, first), 0, 2 * (uint32_t)marks, sizeof t,
                                  t, sizeof t[0], VK_QUERY_RESULT_64_BIT) != VK_SUCCESS)
            return n; // has not run yet
        for (int i = 0; i < marks; i++)
            add(out, &n, max, m->names[first + i],
                (double)((t[2 * i + 1] - t[2 * i]) & mask) * dev->ph.timestamp_seconds);
    }
    return n;
}

void vk_marks_deinit(struct vk_device *dev, struct vk_marks *m)
{
    for (int i = 0; i < m->npools; i++)
        vkDestroyQueryPool(dev->handle, m->pools[i], NULL);
    free(m->pools);
    free(m->names);
    *m = (struct vk_marks){0};
}
