// The pipeline cache file: written completely, read back, and ignored without an error if a byte
// differs from what this device wrote.
#include "hash.h"
#include "vk_fixture.h"
#include "vk_internal.h"

#include <dirent.h>
#include <sys/stat.h>

static char dir[] = "/tmp/imagend-cache-XXXXXX";
static char cache[300];

static struct vk_device *open_cached(void)
{
    struct vk_open_params p = {.cache_dir = cache};
    return open_device(&p);
}

static size_t read_all(const char *path, uint8_t *out, size_t max)
{
    FILE *f = fopen(path, "rb");
    size_t n = f ? fread(out, 1, max, f) : 0;
    if (f)
        fclose(f);
    return n;
}

static void write_all(const char *path, const uint8_t *data, size_t n)
{
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(data, 1, n, f) == n);
    if (f)
        fclose(f);
}

static bool trusted(const struct vk_device *dev)
{
    size_t bytes = 0;
    void *data = vk_cache_load(dev, &bytes);
    bool ok = data && bytes > 0;
    free(data);
    return ok;
}

static int count_files(const char *path, const char *kind)
{
    int n = 0;
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d));)
        n += !strncmp(e->d_name, kind, strlen(kind));
    if (d)
        closedir(d);
    return n;
}

// Every byte of the header and of the driver's header matters; so does the length.
static void test_damage(struct vk_device *dev, uint8_t *file, size_t n)
{
    int believed = 0;
    for (size_t i = 0; i < n && i < 160; i++) {
        file[i] ^= 0x40;
        write_all(dev->cache_path, file, n);
        believed += trusted(dev);
        file[i] ^= 0x40;
    }
    CHECK_INT(believed, 0);
    for (size_t cut = 0; cut < n; cut += 1 + n / 50) {
        write_all(dev->cache_path, file, cut);
        believed += trusted(dev);
    }
    CHECK_INT(believed, 0);
    file[n] = 0;
    write_all(dev->cache_path, file, n + 1);
    CHECK(!trusted(dev));
    write_all(dev->cache_path, file, n);
    CHECK(trusted(dev));
}

// The file of another kind of device, and of another version of this one's driver, under our name.
static void test_others(struct vk_device *dev, const uint8_t *file, size_t n)
{
    struct vk_physical keep = dev->ph;
    write_all(dev->cache_path, file, n);
    dev->ph.caps.uuid[3] ^= 1;
    CHECK(!trusted(dev));
    dev->ph = keep;
    dev->ph.caps.driver_version++;
    CHECK(!trusted(dev));
    dev->ph = keep;
    CHECK(trusted(dev));
}

// A driver's data may be as short as its header; a byte of any more of it matters too. The file's
// own header ends with the length of the data and with their hash.
static void test_longer(struct vk_device *dev, const uint8_t *file, size_t n)
{
    enum { MORE = 100 };
    uint8_t *longer = calloc(1, n + MORE);
    uint64_t bytes;
    size_t head = 0;

    memcpy(longer, file, n);
    memset(longer + n, 7, MORE);
    for (size_t at = 24; !head && at < n; at++) {
        memcpy(&bytes, longer + at - 24, sizeof bytes);
        if (bytes == n - at)
            head = at;
    }
    CHECK(head > 0);
    bytes = n - head + MORE;
    memcpy(longer + head - 24, &bytes, sizeof bytes);
    const struct hash hash = hash_bytes(longer + head, bytes, 2);
    memcpy(longer + head - 16, &hash, sizeof hash);
    write_all(dev->cache_path, longer, n + MORE);
    CHECK(trusted(dev));
    longer[n + MORE / 2] ^= 1;
    write_all(dev->cache_path, longer, n + MORE);
    CHECK(!trusted(dev));
    write_all(dev->cache_path, file, n);
    free(longer);
}

static void test_file(void)
{
    static uint8_t file[1 << 20];
    struct vk_pipeline *pipe;
    struct vk_device *dev = open_cached();
    CHECK(dev);
    if (!dev)
        return;
    CHECK(!trusted(dev));
    CHECK_INT(make_add(dev, 1, &pipe), ERR_OK);
    CHECK_INT(vk_cache_save(dev), ERR_OK);
    CHECK_INT(vk_cache_save(dev), ERR_OK);
    CHECK_INT(count_files(cache, "pipelines-"), 1); // no temporary one is left
    CHECK(trusted(dev));
    size_t n = read_all(dev->cache_path, file, sizeof file - 1);
    CHECK(n > 0 && n < sizeof file - 1);
    test_damage(dev, file, n);
    test_others(dev, file, n);
    test_longer(dev, file, n);
    write_all(dev->cache_path, file, n / 2);
    vk_pipeline_destroy(&pipe);
    vk_device_close(&dev);
}

// A damaged file is replaced at close and never stops a start.
static void test_reopen(void)
{
    struct vk_device *dev = open_cached();
    CHECK(dev);
    if (!dev)
        return;
    CHECK(trusted(dev));
    write_all(dev->cache_path, (const uint8_t *)"garbage", 7);
    struct vk_device *second = open_cached();
    CHECK(second);
    CHECK(second && !trusted(second));
    vk_device_close(&second);
    CHECK(trusted(dev));
    vk_device_close(&dev);
}

// Other files beside it, replaced as a whole.
static void test_other_kinds(void)
{
    static const char *const texts[] = {"a long text\n", "short", ""};
    struct vk_device *dev = open_cached(), *bare = open_device(&(struct vk_open_params){0});
    char *text;
    size_t n;
    CHECK(dev && bare);
    if (!dev || !bare)
        return;
    CHECK_INT(vk_cache_read(dev, "kind", &text, &n), ERR_NOT_FOUND);
    CHECK(!text && !n);
    for (int i = 0; i < 3; i++) {
        CHECK_INT(vk_cache_write(dev, "kind", texts[i], strlen(texts[i])), ERR_OK);
        CHECK_INT(count_files(cache, "kind-"), 1); // no temporary one is left
        CHECK_INT(vk_cache_read(dev, "kind", &text, &n), ERR_OK);
        CHECK(n == strlen(texts[i]) && (!n || !memcmp(text, texts[i], n)));
        free(text);
    }
    CHECK_INT(vk_cache_read(dev, "other", &text, &n), ERR_NOT_FOUND);
    CHECK_INT(vk_cache_read(bare, "kind", &text, &n), ERR_NOT_FOUND);
    CHECK_INT(vk_cache_write(bare, "kind", "x", 1), ERR_NOT_FOUND);
    vk_device_close(&dev);
    vk_device_close(&bare);
}

// A folder that cannot be made costs the cache, nothing else.
static void test_no_folder(void)
{
    char path[400];
    snprintf(path, sizeof path, "%s/file", dir);
    write_all(path, (const uint8_t *)"x", 1);
    snprintf(path, sizeof path, "%s/file/below", dir);
    struct vk_open_params p = {.cache_dir = path};
    struct vk_device *dev = open_device(&p);
    CHECK(dev);
    if (!dev)
        return;
    CHECK_INT(vk_cache_save(dev), ERR_IO);
    vk_device_close(&dev);
}

int main(void)
{
    struct vk_open_params none = {0};
    struct vk_device *dev = open_device(&none);
    if (!dev)
        return test_skip("no Vulkan device");
    CHECK_INT(vk_cache_save(dev), ERR_OK);
    vk_device_close(&dev);
    CHECK(mkdtemp(dir));
    snprintf(cache, sizeof cache, "%s/a/b", dir);
    unsetenv("MESA_SHADER_CACHE_DIR");
    test_file();
    test_reopen();
    test_other_kinds();
    test_no_folder();
    const char *mesa = getenv("MESA_SHADER_CACHE_DIR");
    CHECK(mesa && !strncmp(mesa, cache, strlen(cache)));
    CHECK_INT(vk_validation_messages(NULL), 0);
    snprintf(cache, sizeof cache, "rm -rf '%s'", dir);
    CHECK_INT(system(cache), 0);
    return test_end();
}
