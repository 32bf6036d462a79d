// Device memory: buffers never overlap and start as zeros, freed spans are merged, the limit is
// enforced, and a failed allocation changes nothing.
#include "vk_fixture.h"
#include "vk_internal.h"

enum { SLOTS = 64, ROUNDS = 3000 };

struct slot {
    struct vk_buffer *buf;
    uint8_t mark;
};

static uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

static bool is_all(const uint8_t *p, size_t n, uint8_t value)
{
    return n == 0 || (p[0] == value && !memcmp(p, p + 1, n - 1));
}

// Random creates and destroys; every buffer keeps the bytes written to it.
static void test_churn(struct vk_device *dev)
{
    struct slot slots[SLOTS] = {0};
    struct vk_memory_stats before, after;
    uint8_t *bytes = malloc(1 << 20);
    uint32_t seed = 7;
    int wrong = 0;
    vk_memory_stats(dev, &before);
    for (int round = 0; round < ROUNDS; round++) {
        struct slot *s = &slots[next_random(&seed) % SLOTS];
        if (s->buf) {
            size_t n = vk_buffer_bytes(s->buf);
            wrong += vk_download(s->buf, 0, bytes, n) || !is_all(bytes, n, s->mark);
            vk_buffer_destroy(&s->buf);
            continue;
        }
        size_t n = 1 + next_random(&seed) % (next_random(&seed) % 8 ? 5000 : 1 << 20);
        wrong += vk_buffer_create(dev, VK_DEVICE, n, &s->buf) != ERR_OK;
        wrong += vk_download(s->buf, 0, bytes, n) || !is_all(bytes, n, 0);
        s->mark = (uint8_t)(1 + round % 255);
        memset(bytes, s->mark, n);
        wrong += vk_upload(s->buf, 0, bytes, n) != ERR_OK;
    }
    CHECK_INT(wrong, 0);
    for (int i = 0; i < SLOTS; i++)
        vk_buffer_destroy(&slots[i].buf);
    vk_memory_stats(dev, &after);
    CHECK_INT(after.buffers, before.buffers);
    CHECK_INT(after.used, before.used);
    CHECK_INT(after.reserved, before.reserved);
    CHECK(after.peak > 0);
    free(bytes);
}

// Neighbours freed in any order make one span again: the slab can be filled by one buffer.
static void test_joining(struct vk_device *dev)
{
    enum { MOST = 4096, PIECE = 1 << 16 };
    static const int order[3] = {2, 0, 1};
    static struct vk_buffer *buf[MOST];
    struct vk_buffer *first, *keep, *big;
    struct vk_memory_stats stats;
    int n = 0;
    // Slabs grow with what there is; the next ones are as large as this one.
    CHECK_INT(vk_buffer_create(dev, VK_UPLOAD, VK_SLAB_BYTES, &first), ERR_OK);
    CHECK_INT(vk_buffer_create(dev, VK_UPLOAD, 100, &keep), ERR_OK);
    vk_memory_stats(dev, &stats);
    const unsigned slabs = stats.slabs;
    for (; n < MOST && stats.slabs == slabs; n++) {
        CHECK_INT(vk_buffer_create(dev, VK_UPLOAD, PIECE, &buf[n]), ERR_OK);
        vk_memory_stats(dev, &stats);
    }
    CHECK(n > 3 && n < MOST - 1);
    // The last one and this one stay in the next slab, which has no room for all others.
    CHECK_INT(vk_buffer_create(dev, VK_UPLOAD, PIECE, &buf[n]), ERR_OK);
    for (int o = 0; o < 3; o++)
        for (int i = order[o]; i < n - 1; i += 3)
            vk_buffer_destroy(&buf[i]);
    CHECK_INT(vk_buffer_create(dev, VK_UPLOAD, (size_t)(n - 1) * PIECE, &big), ERR_OK);
    vk_memory_stats(dev, &stats);
    CHECK_INT(stats.slabs, slabs + 1);
    vk_buffer_destroy(&buf[n - 1]);
    vk_buffer_destroy(&buf[n]);
    vk_buffer_destroy(&big);
    vk_buffer_destroy(&keep);
    vk_buffer_destroy(&first);
}

// A buffer that would leave a large hole in a slab gets one of its own size.
static void test_large(struct vk_device *dev)
{
    enum { N = 3, BYTES = 40 << 20 };
    struct vk_buffer *buf[N];
    struct vk_memory_stats before, after;
    for (int i = 0; i < N; i++) {
        vk_memory_stats(dev, &before); // the first ones may find room
        CHECK_INT(vk_buffer_create(dev, VK_UPLOAD, BYTES, &buf[i]), ERR_OK);
    }
    vk_memory_stats(dev, &after);
    CHECK_INT(after.slabs, before.slabs + 1);
    CHECK(after.reserved - before.reserved < BYTES + (1 << 20));
    for (int i = 0; i < N; i++)
        vk_buffer_destroy(&buf[i]);
}

// Of two holes the tighter one is taken, so that the larger one stays for what needs it; the peak
// is what was in use at once, not what is now.
static void test_holes(struct vk_device *dev)
{
    enum { SMALL = 4000, LARGE = 64000 };
    struct vk_buffer *buf[5], *again;
    struct vk_memory_stats before, after;
    uint64_t offset;

    for (int i = 0; i < 5; i++)
        CHECK_INT(vk_buffer_create(dev, VK_UPLOAD, i == 1 ? LARGE : SMALL, &buf[i]), ERR_OK);
    vk_memory_stats(dev, &before);
    offset = buf[3]->offset;
    CHECK(buf[1]->offset < offset);
    vk_buffer_destroy(&buf[1]);
    vk_buffer_destroy(&buf[3]);
    CHECK_INT(vk_buffer_create(dev, VK_UPLOAD, SMALL, &again), ERR_OK);
    CHECK_INT(again->offset, offset);
    vk_memory_stats(dev, &after);
    CHECK(after.used < before.used && after.peak == before.peak && after.peak >= before.used);
    vk_buffer_destroy(&again);
    for (int i = 0; i < 5; i += 2)
        vk_buffer_destroy(&buf[i]);
}

// A copy that does not lie within its buffer touches nothing.
static void test_bounds(struct vk_device *dev)
{
    static const size_t rows[][2] = {{0, 65}, {1, 64}, {64, 1}, {65, 0}, {63, 2}, {1, SIZE_MAX}};
    uint8_t bytes[65], seen[64];
    struct vk_buffer *buf;

    memset(bytes, 9, sizeof bytes);
    CHECK_INT(vk_buffer_create(dev, VK_UPLOAD, 64, &buf), ERR_OK);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        CHECK_INT(vk_upload(buf, rows[i][0], bytes, rows[i][1]), ERR_INVALID);
        CHECK_INT(vk_download(buf, rows[i][0], bytes, rows[i][1]), ERR_INVALID);
    }
    CHECK_INT(vk_download(buf, 0, seen, 64), ERR_OK);
    CHECK(is_all(seen, 64, 0) && is_all(bytes, 65, 9));
    CHECK_INT(vk_upload(buf, 63, bytes, 1), ERR_OK);
    CHECK_INT(vk_upload(buf, 64, bytes, 0), ERR_OK);
    vk_buffer_destroy(&buf);
}

static void test_limit(void)
{
    enum { LIMIT = 8 << 20, PIECE = 1 << 20 };
    struct vk_open_params p = {.memory_limit = LIMIT};
    struct vk_device *dev = open_device(&p);
    struct vk_buffer *buf[16] = {0}, *none;
    struct vk_memory_stats stats;
    enum err e = ERR_OK;
    int n = 0;
    CHECK(dev);
    if (!dev)
        return;
    while (n < 16 && !(e = vk_buffer_create(dev, VK_DEVICE, PIECE, &buf[n])))
        n++;
    CHECK_INT(e, ERR_NO_DEVICE_MEMORY);
    CHECK_MSG(strstr(vk_device_why(dev, e), " more bytes would exceed the limit of "), "%s",
              vk_device_why(dev, e));
    CHECK(n >= 6 && n < 8);
    CHECK(!buf[n]);
    vk_memory_stats(dev, &stats);
    CHECK(stats.reserved <= LIMIT);
    CHECK_INT(stats.limit, LIMIT);
    CHECK_INT(stats.buffers, n);
    vk_buffer_destroy(&buf[0]);
    CHECK_INT(vk_buffer_create(dev, VK_DEVICE, PIECE, &buf[0]), ERR_OK);
    CHECK_INT(vk_buffer_create(dev, VK_DEVICE, (size_t)1 << 40, &none), ERR_NO_DEVICE_MEMORY);
    CHECK_INT(vk_buffer_create(dev, VK_DEVICE, SIZE_MAX - 1, &none), ERR_NO_DEVICE_MEMORY);
    CHECK_INT(vk_buffer_create(dev, VK_DEVICE, 0, &none), ERR_INVALID);
    for (int i = 0; i < n; i++)
        vk_buffer_destroy(&buf[i]);
    vk_device_close(&dev);
}

// A limit that becomes small when little is in use leaves most of itself to be used.
static void test_smaller_limit(void)
{
    enum { LIMIT = 8 << 20 };
    struct vk_device *dev = open_device(&(struct vk_open_params){0});
    struct vk_memory_stats stats;
    struct vk_buffer *buf[3];
    CHECK(dev);
    if (!dev)
        return;
    CHECK_INT(vk_buffer_create(dev, VK_DEVICE, 256, &buf[0]), ERR_OK);
    CHECK_INT(vk_buffer_create(dev, VK_READBACK, 4096, &buf[1]), ERR_OK);
    vk_memory_set_limit(dev, LIMIT);
    CHECK_INT(vk_buffer_create(dev, VK_DEVICE, LIMIT - (1 << 20), &buf[2]), ERR_OK);
    vk_memory_stats(dev, &stats);
    CHECK(stats.reserved <= LIMIT);
    for (int i = 0; i < 3; i++)
        vk_buffer_destroy(&buf[i]);
    vk_device_close(&dev);
}

// Staging in another memory than the device's is not what the limit is about.
static void test_staging(void)
{
    struct vk_device *dev = open_device(&(struct vk_open_params){0});
    struct vk_memory_stats before, after;
    struct vk_buffer *buf;
    CHECK(dev);
    if (!dev)
        return;
    const VkMemoryType *list = dev->ph.memory.memoryTypes;
    const bool same =
        list[dev->heap_type[VK_READBACK]].heapIndex == list[dev->heap_type[VK_DEVICE]].heapIndex;
    vk_memory_stats(dev, &before);
    CHECK_INT(vk_buffer_create(dev, VK_READBACK, 4096, &buf), ERR_OK);
    vk_memory_stats(dev, &after);
    CHECK((after.used > before.used) == same && (after.peak > before.peak) == same);
    CHECK((after.reserved > before.reserved) == same);
    vk_buffer_destroy(&buf);
    vk_memory_stats(dev, &after);
    CHECK(after.used == before.used && after.reserved == before.reserved);
    vk_device_close(&dev);
}

// More than the driver gives, with no limit of our own in the way.
static void test_driver_limit(void)
{
    struct vk_open_params p = {.memory_limit = SIZE_MAX};
    struct vk_device *dev = open_device(&p);
    struct vk_buffer *buf;
    CHECK(dev);
    if (!dev)
        return;
    CHECK_INT(vk_buffer_create(dev, VK_DEVICE, (size_t)1 << 46, &buf), ERR_NO_DEVICE_MEMORY);
    CHECK_MSG(strstr(vk_device_why(dev, ERR_NO_DEVICE_MEMORY), "70368744177"), "%s",
              vk_device_why(dev, ERR_NO_DEVICE_MEMORY));
    CHECK(!buf);
    CHECK_INT(vk_buffer_create(dev, VK_DEVICE, 4096, &buf), ERR_OK);
    vk_buffer_destroy(&buf);
    vk_device_close(&dev);
}

// Memory that the CPU cannot see, as on a discrete device: cleared by a command, filled and read
// through staging in several pieces.
static void test_unmapped(void)
{
    enum { BYTES = (33 << 20) + 12, STEP = 4099 };
    struct vk_open_params p = {0};
    struct vk_device *dev = open_device(&p);
    struct vk_buffer *buf;
    uint8_t *a = malloc(BYTES), *b = malloc(BYTES);
    CHECK(dev && a && b);
    if (!dev || !a || !b)
        return;
    vk_unmap_device_memory(dev, true);
    CHECK_INT(vk_buffer_create(dev, VK_DEVICE, BYTES, &buf), ERR_OK);
    CHECK(!vk_buffer_map(buf));
    CHECK_INT(vk_download(buf, 0, b, BYTES), ERR_OK);
    CHECK(is_all(b, BYTES, 0));
    for (size_t i = 0; i < BYTES; i++)
        a[i] = (uint8_t)(i % 251);
    CHECK_INT(vk_upload(buf, 0, a, BYTES), ERR_OK);
    CHECK_INT(vk_download(buf, 0, b, BYTES), ERR_OK);
    CHECK(!memcmp(a, b, BYTES));
    memset(a + STEP, 7, STEP);
    CHECK_INT(vk_upload(buf, STEP, a + STEP, STEP), ERR_OK);
    CHECK_INT(vk_download(buf, STEP - 1, b, STEP + 2), ERR_OK);
    CHECK(!memcmp(a + STEP - 1, b, STEP + 2));
    vk_fault_inject(dev, VK_FAULT_SUBMIT, 2);
    CHECK_INT(vk_upload(buf, 0, a, BYTES), ERR_DEVICE_LOST);
    vk_buffer_destroy(&buf);
    vk_device_close(&dev);
    free(a);
    free(b);
}

// Many small uploads cost few submissions and one wait, arrive in order, and are seen by what is
// submitted after them.
static void test_ring(void)
{
    enum { N = 3000, WORDS = 512, TAIL = 100 };
    struct vk_open_params p = {0};
    struct vk_device *dev = open_device(&p);
    struct vk_memory_stats before, after;
    struct vk_buffer *buf, *sum;
    struct vk_pipeline *pipe;
    struct vk_cmd *cmd;
    uint32_t v[WORDS], got[WORDS];
    int wrong = 0;
    CHECK(dev);
    if (!dev)
        return;
    vk_unmap_device_memory(dev, true);
    CHECK_INT(vk_buffer_create(dev, VK_DEVICE, (size_t)N * sizeof v, &buf), ERR_OK);
    CHECK_INT(vk_buffer_create(dev, VK_DEVICE, sizeof v, &sum), ERR_OK);
    CHECK_INT(make_add(dev, 2, &pipe), ERR_OK);
    CHECK_INT(vk_upload_finish(dev), ERR_OK);
    vk_memory_stats(dev, &before);
    for (uint32_t i = 0; i < N; i++) {
        for (uint32_t k = 0; k < WORDS; k++)
            v[k] = i + k;
        wrong += vk_upload(buf, i * sizeof v, v, sizeof v) != ERR_OK;
        v[0] = 7 * i; // over the last one
        wrong += vk_upload(buf, i * sizeof v, v, sizeof v[0]) != ERR_OK;
    }
    CHECK_INT(vk_upload_finish(dev), ERR_OK);
    vk_memory_stats(dev, &after);
    CHECK(after.transfers - before.transfers <= 3 &&
          after.transfer_waits - before.transfer_waits <= 3);
    for (uint32_t i = 0; i < N; i++) {
        wrong += vk_download(buf, i * sizeof v, got, sizeof got) != ERR_OK;
        wrong += got[0] != 7 * i || got[1] != i + 1 || got[WORDS - 1] != i + WORDS - 1;
    }
    CHECK_INT(wrong, 0);
    CHECK_INT(vk_cmd_create(dev, &cmd), ERR_OK);
    record_add(cmd, pipe, (struct range){buf, 0}, (struct range){sum, 0}, TAIL, 1);
    CHECK_INT(vk_cmd_end(cmd), ERR_OK);
    for (uint32_t k = 0; k < WORDS; k++)
        v[k] = 10 * k;
    CHECK_INT(vk_upload(buf, 0, v, sizeof v), ERR_OK); // pending while cmd is submitted
    CHECK_INT(run(dev, cmd), ERR_OK);
    CHECK_INT(vk_download(sum, 0, got, sizeof got), ERR_OK);
    for (uint32_t k = 0; k < WORDS; k++)
        wrong += got[k] != (k < TAIL ? 20 * k + 1 : 0);
    CHECK_INT(wrong, 0);
    CHECK_INT(vk_upload(buf, 0, v, sizeof v), ERR_OK); // pending while its memory goes
    vk_buffer_destroy(&buf);
    vk_buffer_destroy(&sum);
    vk_cmd_destroy(&cmd);
    vk_pipeline_destroy(&pipe);
    vk_device_close(&dev);
}

static void test_fault(struct vk_device *dev)
{
    struct vk_buffer *a, *b;
    vk_fault_inject(dev, VK_FAULT_MEMORY, 2);
    CHECK_INT(vk_buffer_create(dev, VK_DEVICE, 64, &a), ERR_OK);
    CHECK_INT(vk_buffer_create(dev, VK_DEVICE, 64, &b), ERR_NO_DEVICE_MEMORY);
    CHECK(!b);
    CHECK_INT(vk_buffer_create(dev, VK_DEVICE, 64, &b), ERR_OK);
    vk_buffer_destroy(&a);
    vk_buffer_destroy(&b);
    vk_buffer_destroy(&b);
}

int main(void)
{
    struct vk_open_params p = {0};
    struct vk_device *dev = open_device(&p);
    if (!dev)
        return test_skip("no Vulkan device");
    test_churn(dev);
    test_joining(dev);
    test_large(dev);
    test_holes(dev);
    test_bounds(dev);
    test_fault(dev);
    vk_device_close(&dev);
    test_limit();
    test_smaller_limit();
    test_staging();
    test_driver_limit();
    test_unmapped();
    test_ring();
    CHECK_INT(vk_validation_messages(NULL), 0);
    return test_end();
}
