// The pipeline cache on disk: one file per kind of device and driver version, with our own header,
// which is checked before the driver sees the data; and texts of other layers beside it. Called
// when a device opens and closes, and by engine/ops.
#include "buf.h"
#include "hash.h"
#include "vk_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CACHE_VERSION = 2, CACHE_MAX_BYTES = 256 << 20 };

struct cache_header {
    char magic[8];
    uint32_t version, header_bytes;
    uint32_t vendor_id, device_id, driver_version, reserved;
    uint8_t uuid[VK_UUID_SIZE];
    uint64_t data_bytes;
    struct hash data_hash;
};

static struct cache_header make_header(const struct vk_device *dev, const void *data, size_t bytes)
{
    const struct vk_caps *caps = &dev->ph.caps;
    struct cache_header h = {
        .magic = {'i', 'm', 'g', 'd', 'p', 'i', 'p', 'e'},
        .version = CACHE_VERSION,
        .header_bytes = sizeof h,
        .vendor_id = caps->vendor_id,
        .device_id = caps->device_id,
        .driver_version = caps->driver_version,
        .data_bytes = bytes,
        .data_hash = hash_bytes(data, bytes, CACHE_VERSION),
    };
    memcpy(h.uuid, caps->uuid, sizeof h.uuid);
    return h;
}

// Also checks the driver's own header: drivers may crash on foreign data.
static bool is_ours(const struct vk_device *dev, const void *data, size_t bytes)
{
    VkPipelineCacheHeaderVersionOne v;
    if (bytes < sizeof v)
        return false;
    memcpy(&v, data, sizeof v);
    return v.headerSize >= sizeof v && v.headerSize <= bytes &&
           v.headerVersion == VK_PIPELINE_CACHE_HEADER_VERSION_ONE &&
           v.vendorID == dev->ph.caps.vendor_id && v.deviceID == dev->ph.caps.device_id &&
           !memcmp(v.pipelineCacheUUID, dev->ph.caps.uuid, VK_UUID_SIZE);
}

void *vk_cache_load(const struct vk_device *dev, size_t *bytes)
{
    struct cache_header h;
    struct stat st;
    uint8_t *data = NULL;
    FILE *f = fopen(dev->cache_path, "rb");
    if (!f)
        return NULL;
    if (fstat(fileno(f), &st) || st.st_size < (off_t)sizeof h || st.st_size > CACHE_MAX_BYTES ||
        fread(&h, sizeof h, 1, f) != 1 || h.data_bytes != (uint64_t)st.st_size - sizeof h ||
        !h.data_bytes || !(data = malloc(h.data_bytes)))
        goto fail;
    if (fread(data, h.data_bytes, 1, f) != 1)
        goto fail;
    struct cache_header want = make_header(dev, data, h.data_bytes);
    if (memcmp(&h, &want, sizeof h) || !is_ours(dev, data, h.data_bytes))
        goto fail;
    fclose(f);
    *bytes = h.data_bytes;
    return data;
fail:
    fclose(f);
    free(data);
    return NULL;
}

enum err vk_make_dirs(const char *dir)
{
    char path[4096];
    size_t n = strlen(dir);
    if (!n || n >= sizeof path)
        return ERR_IO;
    memcpy(path, dir, n + 1);
    for (size_t i = 1; i <= n; i++) {
        if (path[i] != '/' && path[i])
            continue;
        char keep = path[i];
        path[i] = 0;
        if (mkdir(path, 0755) && errno != EEXIST)
            return ERR_IO;
        path[i] = keep;
    }
    return ERR_OK;
}

static char *make_path(const struct vk_device *dev, const char *cache_dir)
{
    const uint8_t *u = dev->ph.caps.uuid;
    size_t room = strlen(cache_dir) + 96;
    char *path = malloc(room), uuid[2 * VK_UUID_SIZE + 1];
    for (size_t i = 0; i < VK_UUID_SIZE; i++)
        snprintf(uuid + 2 * i, 3, "%02x", u[i]);
    if (path)
        snprintf(path, room, "%s/pipelines-%s-%08x.bin", cache_dir, uuid,
                 dev->ph.caps.driver_version);
    return path;
}

enum err vk_cache_open(struct vk_device *dev, const char *cache_dir)
{
    VkPipelineCacheCreateInfo info = {.sType = VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO};
    void *data = NULL;
    if (cache_dir) {
        if (!(dev->cache_path = make_path(dev, cache_dir)))
            return ERR_NO_MEMORY;
        data = vk_cache_load(dev, &info.initialDataSize);
        info.pInitialData = data;
    }
    enum err e = VK_CALL(dev, vkCreatePipelineCache, dev->handle, &info, NULL, &dev->cache);
    free(data);
    return e;
}

// One or two parts of a file.
struct part {
    const void *data;
    size_t bytes;
};

static bool write_file(const char *path, const struct part part[2])
{
    FILE *f = fopen(path, "wb");
    bool ok = f != NULL;
    for (int i = 0; ok && i < 2; i++)
        ok = !part[i].bytes || fwrite(part[i].data, part[i].bytes, 1, f) == 1;
    return f && !fclose(f) && ok;
}

// Two processes may save at once: each renames its own complete file into place.
static enum err replace_file(char *path, const struct part part[2])
{
    char tmp[4200];
    char *slash = strrchr(path, '/');
    *slash = 0;
    (void)vk_make_dirs(path); // the write below reports failure
    *slash = '/';
    int n = snprintf(tmp, sizeof tmp, "%s.%ld", path, (long)getpid());
    if (n <= 0 || (size_t)n >= sizeof tmp)
        return ERR_IO;
    if (write_file(tmp, part) && !rename(tmp, path))
        return ERR_OK;
    unlink(tmp);
    return ERR_IO;
}

enum err vk_cache_save(struct vk_device *dev)
{
    size_t bytes = 0;
    void *data = NULL;
    if (!dev->cache_path)
        return ERR_OK;
    if (vkGetPipelineCacheData(dev->handle, dev->cache, &bytes, NULL) != VK_SUCCESS || !bytes)
        return ERR_OK; // the driver has nothing to keep
    if (!(data = malloc(bytes)))
        return ERR_NO_MEMORY;
    if (vkGetPipelineCacheData(dev->handle, dev->cache, &bytes, data) != VK_SUCCESS || !bytes) {
        free(data);
        return ERR_OK;
    }
    struct cache_header h = make_header(dev, data, bytes);
    enum err e = replace_file(dev->cache_path, (struct part[2]){{&h, sizeof h}, {data, bytes}});
    free(data);
    return e;
}

// Named after the device alone: that of an older driver is replaced.
static char *other_path(const struct vk_device *dev, const char *kind)
{
    const uint8_t *u = dev->ph.caps.uuid;
    size_t room = strlen(dev->cache_path) + strlen(kind) + 2 * VK_UUID_SIZE + 8;
    char *path = malloc(room), uuid[2 * VK_UUID_SIZE + 1];
    for (size_t i = 0; i < VK_UUID_SIZE; i++)
        snprintf(uuid + 2 * i, 3, "%02x", u[i]);
    if (path)
        snprintf(path, room, "%.*s/%s-%s.txt",
                 (int)(strrchr(dev->cache_path, '/') - dev->cache_path), dev->cache_path, kind,
                 uuid);
    return path;
}

enum err vk_cache_read(const struct vk_device *dev, const char *kind, char **text, size_t *bytes)
{
    enum { MOST = 1 << 20 };
    struct buf b = {0};
    struct fault why;
    *text = NULL;
    *bytes = 0;
    if (!dev->cache_path)
        return ERR_NOT_FOUND;
    char *path = other_path(dev, kind);
    enum err e = path ? buf_read_file(&b, path, MOST, &why) : ERR_NO_MEMORY;
    free(path);
    if (!e) {
        *bytes = b.len;
        *text = buf_take(&b);
        e = *text || !*bytes ? ERR_OK : ERR_NO_MEMORY;
    }
    buf_deinit(&b);
    return e;
}

enum err vk_cache_write(const struct vk_device *dev, const char *kind, const void *text,
                        size_t bytes)
{
    if (!dev->cache_path)
        return ERR_NOT_FOUND;
    char *path = other_path(dev, kind);
    enum err e = path ? replace_file(path, (struct part[2]){{text, bytes}}) : ERR_NO_MEMORY;
    free(path);
    return e;
}
