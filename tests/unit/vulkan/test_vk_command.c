// Commands: chains of dependent dispatches and copies give the results of sequential execution, on
// every replay; wrong bindings are refused; timings name the pipelines. With the validation setup,
// this test shows missing barriers.
#include "vk_fixture.h"
#include "vk_internal.h"

enum { N = 256 };

struct bench {
    struct vk_device *dev;
    bool timed;
    struct vk_pipeline *copy, *twice; // y = x + add, y = 2 * x + add
    struct vk_buffer *a, *b;
};

static void read_words(struct vk_buffer *buf, size_t offset, uint32_t *out)
{
    CHECK_INT(vk_download(buf, offset, out, N * sizeof *out), ERR_OK);
}

static void write_words(struct vk_buffer *buf, size_t offset, uint32_t first)
{
    uint32_t w[N];
    for (uint32_t i = 0; i < N; i++)
        w[i] = first + i;
    CHECK_INT(vk_upload(buf, offset, w, sizeof w), ERR_OK);
}

// a -> b -> a -> ...: read after write and write after read at every step.
static void test_chain(struct bench *t)
{
    enum { STEPS = 300 };
    uint32_t y[N];
    struct vk_cmd *cmd;
    struct range a = {t->a, 0}, b = {t->b, 0};
    CHECK_INT(vk_cmd_create(t->dev, &cmd), ERR_OK);
    for (int i = 0; i < STEPS; i++)
        record_add(cmd, t->copy, i % 2 ? b : a, i % 2 ? a : b, N, 1);
    CHECK_INT(vk_cmd_end(cmd), ERR_OK);
    write_words(t->a, 0, 5);
    for (uint32_t replay = 1; replay <= 3; replay++) {
        CHECK_INT(run(t->dev, cmd), ERR_OK);
        read_words(t->a, 0, y);
        CHECK_INT(y[0], 5 + replay * STEPS);
        CHECK_INT(y[N - 1], 5 + N - 1 + replay * STEPS);
    }
    // Again, without waiting in between: replays follow each other in order.
    uint64_t ticket = 0, last = 0;
    for (int i = 0; i < 5; i++) {
        last = ticket;
        CHECK_INT(vk_submit(cmd, &ticket), ERR_OK);
        CHECK(ticket > last);
    }
    CHECK_INT(vk_wait(t->dev, ticket, 30), ERR_OK);
    CHECK_INT(vk_wait(t->dev, last, 0), ERR_OK);
    read_words(t->a, 0, y);
    CHECK_INT(y[0], 5 + 8 * STEPS);
    vk_cmd_destroy(&cmd);
}

// Ranges of one buffer: disjoint ones are independent, overlapping ones ordered, also with copies.
static void test_ranges(struct bench *t)
{
    const size_t row = N * sizeof(uint32_t);
    uint32_t y[N];
    struct vk_cmd *cmd;
    CHECK_INT(vk_cmd_create(t->dev, &cmd), ERR_OK);
    record_add(cmd, t->copy, (struct range){t->a, 0}, (struct range){t->b, 0}, N, 1);
    record_add(cmd, t->copy, (struct range){t->a, 0}, (struct range){t->b, row}, N, 2);
    record_add(cmd, t->twice, (struct range){t->b, row}, (struct range){t->b, 2 * row}, N, 0);
    vk_cmd_copy(cmd, t->b, 2 * row, t->a, row, row);
    vk_cmd_copy(cmd, t->b, 0, t->b, 2 * row, row);
    record_add(cmd, t->copy, (struct range){t->a, row}, (struct range){t->b, 0}, N, 3);
    record_add(cmd, t->copy, (struct range){t->a, 0}, (struct range){t->b, 0}, N, 9);
    record_add(cmd, t->copy, (struct range){t->a, row}, (struct range){t->a, row}, N, 1);
    CHECK_INT(vk_cmd_end(cmd), ERR_OK);
    write_words(t->a, 0, 100);
    CHECK_INT(run(t->dev, cmd), ERR_OK);
    read_words(t->a, row, y);
    CHECK_INT(y[7], 2 * (107 + 2) + 1);
    read_words(t->b, 0, y);
    CHECK_INT(y[7], 107 + 9);
    read_words(t->b, row, y);
    CHECK_INT(y[7], 107 + 2);
    read_words(t->b, 2 * row, y);
    CHECK_INT(y[7], 107 + 1);
    vk_cmd_destroy(&cmd);
}

// More dispatches than one pool of descriptors or timestamps holds.
static void test_many(struct bench *t)
{
    enum { STEPS = 700 };
    uint32_t y[N];
    struct vk_timing timing[4];
    struct vk_cmd *cmd;
    struct range a = {t->a, 0};
    CHECK_INT(vk_cmd_create(t->dev, &cmd), ERR_OK);
    for (int i = 0; i < STEPS; i++)
        record_add(cmd, i % 7 ? t->copy : t->twice, a, a, N, i % 7 ? 3 : 0);
    CHECK_INT(vk_cmd_end(cmd), ERR_OK);
    CHECK_INT(vk_cmd_timings(cmd, timing, 4), 0);
    write_words(t->a, 0, 0);
    CHECK_INT(run(t->dev, cmd), ERR_OK);
    uint32_t want = 1;
    for (int i = 0; i < STEPS; i++)
        want = i % 7 ? want + 3 : 2 * want;
    read_words(t->a, 0, y);
    CHECK_INT(y[1], want);
    int n = vk_cmd_timings(cmd, timing, 4);
    CHECK_INT(n, t->timed ? 2 : 0);
    for (int i = 0; i < n; i++) {
        bool twice = !strcmp(timing[i].name, "twice");
        CHECK_INT(timing[i].calls, twice ? STEPS / 7 : STEPS - STEPS / 7);
        CHECK_MSG(timing[i].seconds > 0 && timing[i].seconds < 10, "%g s", timing[i].seconds);
    }
    CHECK_INT(vk_cmd_timings(cmd, timing, 1), n ? 1 : 0);
    vk_cmd_destroy(&cmd);
}

static enum err try_dispatch(struct bench *t, struct vk_dispatch d)
{
    struct vk_cmd *cmd;
    uint64_t ticket = 0;
    CHECK_INT(vk_cmd_create(t->dev, &cmd), ERR_OK);
    CHECK_INT(vk_submit(cmd, &ticket), ERR_INVALID); // not ended
    vk_cmd_dispatch(cmd, &d);
    record_add(cmd, t->copy, (struct range){t->a, 0}, (struct range){t->b, 0}, N, 1);
    enum err e = vk_cmd_end(cmd);
    CHECK_INT(vk_submit(cmd, &ticket), e);
    CHECK_INT(vk_wait(t->dev, ticket, 30), ERR_OK);
    vk_cmd_destroy(&cmd);
    return e;
}

static void test_refusals(struct bench *t)
{
    uint32_t push[2] = {N, 1};
    const struct vk_dispatch good = {
        .pipe = t->copy,
        .binding = {{t->a, 0, 1024, VK_READ}, {t->b, 0, 1024, VK_WRITE}},
        .push = push,
        .groups = {N / ADD_LOCAL, 1, 1},
    };
    struct vk_dispatch d = good;
    CHECK_INT(try_dispatch(t, d), ERR_OK);
    d.groups[0] = 0;
    CHECK_INT(try_dispatch(t, d), ERR_OK);
    d = good, d.pipe = NULL;
    CHECK_INT(try_dispatch(t, d), ERR_INVALID);
    d = good, d.push = NULL;
    CHECK_INT(try_dispatch(t, d), ERR_INVALID);
    d = good, d.binding[0].buf = NULL;
    CHECK_INT(try_dispatch(t, d), ERR_INVALID);
    d = good, d.binding[0].offset = 4;
    CHECK_INT(try_dispatch(t, d), ERR_INVALID);
    d = good, d.binding[0].bytes = vk_buffer_bytes(t->a) + 1;
    CHECK_INT(try_dispatch(t, d), ERR_INVALID);
    d = good, d.binding[0].offset = vk_buffer_bytes(t->a);
    CHECK_INT(try_dispatch(t, d), ERR_INVALID);
    d = good, d.binding[1].bytes = 0;
    CHECK_INT(try_dispatch(t, d), ERR_INVALID);
    d = good, d.binding[1].access = 0;
    CHECK_INT(try_dispatch(t, d), ERR_INVALID);
    if (vk_device_caps(t->dev)->max_groups[1] < UINT32_MAX) {
        d = good, d.groups[1] = UINT32_MAX;
        CHECK_INT(try_dispatch(t, d), ERR_UNSUPPORTED);
    }
}

// A binding that is larger than the device allows is refused by the limit's name.
static void test_ranges_allowed(struct bench *t)
{
    uint32_t push[2] = {N, 1};
    const struct vk_dispatch d = {
        .pipe = t->copy,
        .binding = {{t->a, 0, 1024, VK_READ}, {t->b, 0, 1024, VK_WRITE}},
        .push = push,
        .groups = {N / ADD_LOCAL, 1, 1},
    };
    size_t *range = &t->dev->ph.caps.max_storage_range;
    const size_t real = *range;

    *range = 1024;
    CHECK_INT(try_dispatch(t, d), ERR_OK);
    *range = 1023;
    CHECK_INT(try_dispatch(t, d), ERR_UNSUPPORTED);
    CHECK(strstr(vk_device_why(t->dev, ERR_UNSUPPORTED), "1024 exceeds maxStorageBufferRange"));
    *range = real;
}

// Texels of several places of one buffer, among them some whose views fall into one bucket.
static void test_views(struct bench *t)
{
    enum { PLACES = 4, FAR = 256 * VK_SUBALLOC_ALIGN };
    struct vk_pipeline *pipe;
    struct vk_buffer *from, *to;
    struct vk_cmd *cmd;
    float word[4] = {0}, seen[PLACES][4];

    CHECK_INT(make_texel(t->dev, VK_TEXEL_F32, &pipe), ERR_OK);
    CHECK_INT(vk_buffer_create(t->dev, VK_DEVICE, PLACES * (size_t)FAR, &from), ERR_OK);
    CHECK_INT(vk_buffer_create(t->dev, VK_DEVICE, PLACES * (size_t)VK_SUBALLOC_ALIGN, &to), ERR_OK);
    CHECK_INT(vk_cmd_create(t->dev, &cmd), ERR_OK);
    for (int i = 0; i < PLACES; i++) {
        int push[2] = {1, 0};
        struct vk_dispatch d = {
            .pipe = pipe,
            .binding = {{from, (size_t)i * FAR, 64, VK_READ},
                        {to, (size_t)i * VK_SUBALLOC_ALIGN, 16, VK_WRITE}},
            .push = push,
            .groups = {1, 1, 1},
        };
        word[1] = (float)(i + 1);
        CHECK_INT(vk_upload(from, (size_t)i * FAR, word, sizeof word), ERR_OK);
        vk_cmd_dispatch(cmd, &d);
    }
    CHECK_INT(vk_cmd_end(cmd), ERR_OK);
    CHECK_INT(run(t->dev, cmd), ERR_OK);
    for (int i = 0; i < PLACES; i++) {
        CHECK_INT(vk_download(to, (size_t)i * VK_SUBALLOC_ALIGN, seen[i], sizeof seen[i]), ERR_OK);
        CHECK_NEAR(seen[i][1], i + 1, 0);
    }
    vk_cmd_destroy(&cmd);
    vk_buffer_destroy(&from);
    vk_buffer_destroy(&to);
    vk_pipeline_destroy(&pipe);
}

static void test_copy_refusals(struct bench *t)
{
    size_t bytes = vk_buffer_bytes(t->a);
    const size_t args[][3] = {{bytes, 0, 1}, {0, bytes - 4, 8}, {0, 0, 0}, {1, 0, SIZE_MAX}};
    struct vk_cmd *cmd;
    for (size_t i = 0; i < sizeof args / sizeof *args; i++) {
        CHECK_INT(vk_cmd_create(t->dev, &cmd), ERR_OK);
        vk_cmd_copy(cmd, t->a, args[i][0], t->b, args[i][1], args[i][2]);
        CHECK_INT(vk_cmd_end(cmd), ERR_INVALID);
        vk_cmd_destroy(&cmd);
    }
    CHECK_INT(vk_cmd_create(t->dev, &cmd), ERR_OK);
    vk_cmd_copy(cmd, t->a, 0, t->a, 16, 32); // overlaps itself
    CHECK_INT(vk_cmd_end(cmd), ERR_INVALID);
    CHECK_INT(vk_cmd_end(cmd), ERR_INVALID);
    vk_cmd_destroy(&cmd);
}

static void test_all(bool profile)
{
    struct vk_open_params p = {.profile = profile};
    struct bench t = {.dev = open_device(&p)};
    CHECK(t.dev);
    if (!t.dev)
        return;
    t.timed = profile && vk_device_caps(t.dev)->timestamps;
    CHECK_INT(make_add(t.dev, 1, &t.copy), ERR_OK);
    CHECK_INT(make_add(t.dev, 2, &t.twice), ERR_OK);
    CHECK_INT(vk_buffer_create(t.dev, VK_DEVICE, 4 * N * sizeof(uint32_t), &t.a), ERR_OK);
    CHECK_INT(vk_buffer_create(t.dev, VK_DEVICE, 4 * N * sizeof(uint32_t), &t.b), ERR_OK);
    test_chain(&t);
    test_ranges(&t);
    test_many(&t);
    test_refusals(&t);
    test_ranges_allowed(&t);
    test_views(&t);
    test_copy_refusals(&t);
    vk_buffer_destroy(&t.a);
    vk_buffer_destroy(&t.b);
    vk_pipeline_destroy(&t.copy);
    vk_pipeline_destroy(&t.twice);
    vk_device_close(&t.dev);
}

int main(void)
{
    struct vk_open_params p = {0};
    struct vk_device *dev = open_device(&p);
    if (!dev)
        return test_skip("no Vulkan device");
    vk_device_close(&dev);
    test_all(false);
    test_all(true);
    CHECK_INT(vk_validation_messages(NULL), 0);
    return test_end();
}
