// Opens a device, copies bytes to it and back, runs a shader once and many times, reads texels.
#include "vk_fixture.h"

static void test_copy(struct vk_device *dev)
{
    enum { N = 5 << 20 }; // more than the staging buffer
    for (int heap = VK_DEVICE; heap <= VK_READBACK; heap++) {
        struct vk_buffer *buf;
        uint8_t *a = malloc(N), *b = calloc(1, N);
        for (int i = 0; i < N; i++)
            a[i] = (uint8_t)(i * 31 + i / 256);
        CHECK_INT(vk_buffer_create(dev, heap, N, &buf), ERR_OK);
        CHECK_INT(vk_buffer_bytes(buf), N);
        CHECK_INT(vk_download(buf, 0, b, N), ERR_OK);
        CHECK(!b[0] && !memcmp(b, b + 1, N - 1));
        CHECK_INT(vk_upload(buf, 0, a, N), ERR_OK);
        CHECK_INT(vk_download(buf, 0, b, N), ERR_OK);
        CHECK(!memcmp(a, b, N));
        CHECK_INT(vk_upload(buf, N - 1, a, 2), ERR_INVALID);
        CHECK_INT(vk_download(buf, N + 1, b, 0), ERR_INVALID);
        CHECK(heap == VK_DEVICE || vk_buffer_map(buf));
        vk_buffer_destroy(&buf);
        CHECK(!buf);
        free(a);
        free(b);
    }
}

static void test_dispatch(struct vk_device *dev)
{
    enum { N = 1000 };
    uint32_t x[N], y[N];
    struct vk_buffer *bx, *by;
    struct vk_pipeline *pipe;
    struct vk_cmd *cmd;
    CHECK_INT(vk_buffer_create(dev, VK_DEVICE, sizeof x, &bx), ERR_OK);
    CHECK_INT(vk_buffer_create(dev, VK_DEVICE, sizeof y, &by), ERR_OK);
    CHECK_INT(make_add(dev, 3, &pipe), ERR_OK);
    CHECK_INT(vk_cmd_create(dev, &cmd), ERR_OK);
    record_add(cmd, pipe, (struct range){bx, 0}, (struct range){by, 0}, N, 7);
    CHECK_INT(vk_cmd_end(cmd), ERR_OK);
    for (uint32_t round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < N; i++)
            x[i] = i + 100 * round;
        CHECK_INT(vk_upload(bx, 0, x, sizeof x), ERR_OK);
        CHECK_INT(run(dev, cmd), ERR_OK);
        CHECK_INT(vk_download(by, 0, y, sizeof y), ERR_OK);
        int wrong = 0;
        for (uint32_t i = 0; i < N; i++)
            wrong += y[i] != 3 * x[i] + 7;
        CHECK_INT(wrong, 0);
    }
    vk_cmd_destroy(&cmd);
    vk_pipeline_destroy(&pipe);
    vk_buffer_destroy(&bx);
    vk_buffer_destroy(&by);
}

// A buffer of `total` bytes, all ones, of which a view sees `texels` from byte `offset` on.
struct texel_case {
    size_t total, offset;
    int texels;
};

// Texels outside of the view are zero, whatever lies beside it in the same slab.
static void test_texel(struct vk_device *dev, enum vk_binding_type type, struct texel_case c)
{
    enum { PAD = 40 };
    const size_t texel = type == VK_TEXEL_F32 ? 16 : 8;
    const float one_f32 = 1.0f;
    const uint16_t one_f16 = 0x3c00;
    int n = c.texels + 2 * PAD, wrong = 0;
    size_t bytes = (size_t)n * 16;
    float *y = malloc(bytes);
    uint8_t *ones = malloc(c.total);
    struct vk_buffer *bx, *by;
    struct vk_pipeline *pipe;
    struct vk_cmd *cmd;
    for (size_t i = 0; i < c.total; i += texel / 4)
        memcpy(ones + i, type == VK_TEXEL_F32 ? (const void *)&one_f32 : &one_f16, texel / 4);
    CHECK_INT(vk_buffer_create(dev, VK_DEVICE, c.total, &bx), ERR_OK);
    CHECK_INT(vk_buffer_create(dev, VK_DEVICE, bytes, &by), ERR_OK);
    CHECK_INT(vk_upload(bx, 0, ones, c.total), ERR_OK);
    CHECK_INT(make_texel(dev, type, &pipe), ERR_OK);
    CHECK_INT(vk_cmd_create(dev, &cmd), ERR_OK);
    int32_t push[2] = {n, -PAD};
    struct vk_dispatch d = {
        .pipe = pipe,
        .binding = {{bx, c.offset, (size_t)c.texels * texel, VK_READ}, {by, 0, bytes, VK_WRITE}},
        .push = push,
        .groups = {((uint32_t)n + 7) / 8, 1, 1},
    };
    vk_cmd_dispatch(cmd, &d);
    CHECK_INT(vk_cmd_end(cmd), ERR_OK);
    CHECK_INT(run(dev, cmd), ERR_OK);
    CHECK_INT(vk_download(by, 0, y, bytes), ERR_OK);
    for (int i = 0; i < n; i++)
        for (int k = 0; k < 4; k++)
            wrong += y[4 * i + k] != (i >= PAD && i < PAD + c.texels ? 1.0f : 0.0f);
    CHECK_MSG(!wrong, "%d of %d at %zu", wrong, 4 * n, c.offset);
    vk_cmd_destroy(&cmd);
    vk_pipeline_destroy(&pipe);
    vk_buffer_destroy(&bx);
    vk_buffer_destroy(&by);
    free(ones);
    free(y);
}

static void test_texels(struct vk_device *dev, enum vk_binding_type type)
{
    const int full = type == VK_TEXEL_F32 ? 4096 : 8192; // 64 KiB
    test_texel(dev, type, (struct texel_case){4096, 1024, 21});
    test_texel(dev, type, (struct texel_case){65536, 0, full});
    test_texel(dev, type, (struct texel_case){2 * 65536, 65536, full});
    test_texel(dev, type, (struct texel_case){2 * 65536, 0, full});
    test_texel(dev, type, (struct texel_case){65536 + 32, 32, full});
}

int main(void)
{
    struct vk_open_params p = {0};
    struct vk_device *dev = open_device(&p);
    if (!dev)
        return test_skip("no Vulkan device");
    const struct vk_caps *caps = vk_device_caps(dev);
    printf("%s, %s\n", caps->name, caps->driver);
    test_copy(dev);
    test_dispatch(dev);
    if (caps->texel_f32)
        test_texels(dev, VK_TEXEL_F32);
    if (caps->texel_f16)
        test_texels(dev, VK_TEXEL_F16);
    struct vk_memory_stats stats;
    vk_memory_stats(dev, &stats);
    CHECK(stats.peak > 0 && stats.reserved <= stats.limit);
    vk_device_close(&dev);
    CHECK(!dev);
    CHECK_INT(vk_validation_messages(NULL), 0);
    return test_end();
}
