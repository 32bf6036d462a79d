// Selecting a device, losing it, waiting for it, and pipelines created by several threads at once.
#include "vk_fixture.h"
#include "vk_internal.h"

#include <pthread.h>

static void test_choice(const struct vk_caps *first, int count)
{
    char upper[256], index[16];
    struct fault why = {0};
    struct vk_device *dev;
    struct vk_open_params p = {.device = "0"};
    CHECK_INT(vk_device_open(&p, &dev, &why), ERR_OK);
    CHECK_STR(vk_device_caps(dev)->name, first->name);
    vk_device_close(&dev);
    vk_device_close(&dev);

    // Its whole name, with every letter in the other case.
    snprintf(upper, sizeof upper, "%s", first->name);
    for (char *c = upper; *c; c++)
        *c = (char)((*c | 32) >= 'a' && (*c | 32) <= 'z' ? *c ^ 32 : *c);
    p.device = upper;
    CHECK_INT(vk_device_open(&p, &dev, &why), ERR_OK);
    vk_device_close(&dev);

    snprintf(index, sizeof index, "%d", count);
    const char *wrong[] = {index, "no such device", "99999999999999999999", "-1"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        p.device = wrong[i];
        why = (struct fault){0};
        CHECK_INT(vk_device_open(&p, &dev, &why), ERR_NO_DEVICE);
        CHECK(!dev);
        CHECK_INT(why.code, ERR_NO_DEVICE);
        CHECK_STR(why.param, "device");
        CHECK_MSG(strstr(why.msg, first->name), "%s", why.msg);
        CHECK_INT(vk_device_open(&p, &dev, NULL), ERR_NO_DEVICE);
    }
}

static void test_caps(const struct vk_caps *c)
{
    CHECK(c->name[0] && c->api_version >= (1u << 22 | 2u << 12));
    CHECK(c->offset_alignment >= 16 && !(c->offset_alignment & (c->offset_alignment - 1)));
    CHECK(c->subgroup_size >= 1 && c->max_groups[0] >= 65535 && c->max_push_bytes >= 128);
    CHECK(c->max_storage_range >= 1 << 27 && c->memory_bytes > 0);
}

// From the injected fault on, everything says DEVICE_LOST and nothing hangs or aborts.
static void test_loss(enum vk_fault kind)
{
    struct vk_open_params p = {0};
    struct vk_device *dev = open_device(&p);
    struct vk_pipeline *pipe;
    struct vk_buffer *buf, *more;
    struct vk_cmd *cmd;
    uint64_t ticket;
    uint32_t word = 1;
    CHECK(dev);
    if (!dev)
        return;
    CHECK_INT(make_add(dev, 1, &pipe), ERR_OK);
    CHECK_INT(vk_buffer_create(dev, VK_DEVICE, 64, &buf), ERR_OK);
    CHECK_INT(vk_cmd_create(dev, &cmd), ERR_OK);
    record_add(cmd, pipe, (struct range){buf, 0}, (struct range){buf, 0}, 16, 1);
    CHECK_INT(vk_cmd_end(cmd), ERR_OK);
    vk_fault_inject(dev, kind, 3);
    CHECK_INT(run(dev, cmd), ERR_OK);
    CHECK_INT(run(dev, cmd), ERR_OK);
    CHECK_INT(run(dev, cmd), ERR_DEVICE_LOST);
    CHECK_INT(vk_submit(cmd, &ticket), ERR_DEVICE_LOST);
    CHECK_INT(vk_wait(dev, 1, 1), ERR_DEVICE_LOST);
    CHECK_INT(vk_upload(buf, 0, &word, 4), ERR_DEVICE_LOST);
    CHECK_INT(vk_download(buf, 0, &word, 4), ERR_DEVICE_LOST);
    CHECK_INT(vk_buffer_create(dev, VK_DEVICE, 64, &more), ERR_DEVICE_LOST);
    CHECK_STR(vk_device_why(dev, ERR_DEVICE_LOST), kind == VK_FAULT_SUBMIT
                                                       ? "vkQueueSubmit: VK_ERROR_DEVICE_LOST"
                                                       : "vkWaitSemaphores: VK_ERROR_DEVICE_LOST");
    CHECK_STR(vk_device_why(dev, ERR_TIMEOUT), "timed out");
    vk_cmd_destroy(&cmd);
    vk_buffer_destroy(&buf);
    vk_pipeline_destroy(&pipe);
    vk_device_close(&dev);
}

static void test_wait(struct vk_device *dev)
{
    CHECK_INT(vk_wait(dev, 0, 0), ERR_OK);
    CHECK_INT(vk_wait(dev, 1000000, 0), ERR_INVALID);
    CHECK_INT(vk_wait(dev, 0, -1), ERR_INVALID);
    CHECK_INT(vk_wait(dev, 0, NAN), ERR_INVALID);
    CHECK_INT(vk_wait(dev, 0, INFINITY), ERR_OK);
}

static void test_pipeline_refusals(struct vk_device *dev)
{
    struct vk_pipeline *pipe;
    const struct vk_pipeline_params good = {.name = "add",
                                            .spirv = add_spirv,
                                            .spirv_bytes = sizeof add_spirv,
                                            .bindings = 2,
                                            .push_bytes = 8,
                                            .specs = 2,
                                            .spec = {ADD_LOCAL, 1}};
    struct vk_pipeline_params p = good;
    p.bindings = VK_MAX_BINDINGS + 1;
    CHECK_INT(vk_pipeline_create(dev, &p, &pipe), ERR_INVALID);
    CHECK(!pipe);
    p = good, p.specs = VK_MAX_SPEC + 1;
    CHECK_INT(vk_pipeline_create(dev, &p, &pipe), ERR_INVALID);
    p = good, p.spirv_bytes = 7;
    CHECK_INT(vk_pipeline_create(dev, &p, &pipe), ERR_INVALID);
    p = good, p.spirv = NULL;
    CHECK_INT(vk_pipeline_create(dev, &p, &pipe), ERR_INVALID);
    p = good, p.push_bytes = 1 << 20;
    CHECK_INT(vk_pipeline_create(dev, &p, &pipe), ERR_UNSUPPORTED);
    p = good, p.subgroup_size = 1024;
    CHECK_INT(vk_pipeline_create(dev, &p, &pipe), ERR_UNSUPPORTED);
    p = good, p.subgroup_size = vk_device_caps(dev)->subgroup_size;
    CHECK_INT(vk_pipeline_create(dev, &p, &pipe), ERR_OK);
    vk_pipeline_destroy(&pipe);
    vk_pipeline_destroy(&pipe);
}

struct maker {
    pthread_t thread;
    struct vk_device *dev;
    uint32_t first;
    int failed;
};

static void *make_some(void *arg)
{
    struct maker *m = arg;
    for (uint32_t i = 0; i < 8; i++) {
        struct vk_pipeline *pipe;
        m->failed += make_add(m->dev, m->first + i % 4, &pipe) != ERR_OK;
        vk_pipeline_destroy(&pipe);
    }
    return NULL;
}

static void test_threads(struct vk_device *dev)
{
    struct maker makers[4];
    for (uint32_t i = 0; i < 4; i++) {
        makers[i] = (struct maker){.dev = dev, .first = i};
        CHECK_INT(pthread_create(&makers[i].thread, NULL, make_some, &makers[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(makers[i].thread, NULL);
        CHECK_INT(makers[i].failed, 0);
    }
}

// Matrix units: of the right types, the largest result, then the longest sum.
static void test_matrix(void)
{
    enum { F16 = VK_MATRIX_F16, F32 = VK_MATRIX_F32, SG = VK_MATRIX_SUBGROUP, WG = 2, BF16 = 99 };
    static const struct {
        struct vk_matrix_properties list[4];
        int best; // -1: none
    } devices[] = {
        {{{0, 0, 8, 8, 8, F16, F16, F16, F16, 0, SG}, {0, 0, 8, 8, 8, F16, F16, F32, F32, 0, SG}},
         1},
        {{{0, 0, 16, 8, 8, F16, F16, F32, F32, 0, SG},
          {0, 0, 16, 8, 16, F16, F16, F32, F32, 0, SG},
          {0, 0, 8, 16, 8, F16, F16, F32, F32, 0, SG}},
         1},
        {{{0, 0, 16, 8, 16, F16, F16, F32, F32, 0, SG},
          {0, 0, 16, 16, 16, F16, F16, F32, F32, 0, SG},
          {0, 0, 16, 16, 16, F16, F16, F16, F16, 0, SG},
          {0, 0, 16, 16, 16, BF16, BF16, F32, F32, 0, SG}},
         1},
        // Too large, not for a subgroup, saturating, sums in another type, no power of two.
        {{{0, 0, 32, 32, 16, F16, F16, F32, F32, 0, SG},
          {0, 0, 16, 16, 16, F16, F16, F32, F32, 0, WG},
          {0, 0, 16, 16, 16, F16, F16, F32, F32, 1, SG},
          {0, 0, 8, 8, 8, F16, F16, F32, F32, 0, SG}},
         3},
        {{{0, 0, 16, 16, 16, F16, F16, F16, F32, 0, SG},
          {0, 0, 16, 16, 16, F16, BF16, F32, F32, 0, SG},
          {0, 0, 16, 16, 32, F16, F16, F32, F32, 0, SG},
          {0, 0, 12, 16, 16, F16, F16, F32, F32, 0, SG}},
         -1},
        {{{0}}, -1},
    };
    for (size_t i = 0; i < sizeof devices / sizeof devices[0]; i++) {
        const struct vk_matrix_properties *best = vk_matrix_best(devices[i].list, 4);
        const int at = best ? (int)(best - devices[i].list) : -1;
        CHECK_MSG(at == devices[i].best, "device %zu: shape %d", i, at);
    }
    CHECK(!vk_matrix_best(NULL, 0));
}

// Without validation no instance is created again, however often a device is opened.
static void test_instance(void)
{
    struct vk_device *dev[2], *validated;
    struct fault why = {0};
    VkInstance first = NULL;
    for (int i = 0; i < 3; i++) {
        for (int k = 0; k < 2; k++)
            dev[k] = open_device(&(struct vk_open_params){0});
        CHECK(dev[0] && dev[1]);
        if (!dev[0] || !dev[1])
            return;
        const bool own = dev[0]->instance.messenger != NULL; // IMAGEND_VALIDATION
        first = first ? first : dev[0]->instance.handle;
        for (int k = 0; k < 2; k++)
            CHECK(own || dev[k]->instance.handle == first);
        if (i == 0 && !own &&
            !vk_device_open(&(struct vk_open_params){.validation = true}, &validated, &why)) {
            CHECK(validated->instance.handle != first);
            vk_device_close(&validated);
        }
        vk_device_close(&dev[0]);
        vk_device_close(&dev[1]);
    }
}

int main(void)
{
    struct vk_caps caps[8];
    test_matrix();
    struct fault why = {0};
    int count = -1;
    if (vk_device_list(caps, 8, &count, &why)) {
        CHECK_INT(count, 0);
        return test_skip(why.msg);
    }
    CHECK(count >= 1);
    for (int i = 0; i < count; i++)
        test_caps(&caps[i]);
    CHECK_INT(vk_device_list(caps, 0, &count, &why), ERR_OK);
    CHECK_INT(count, 0);
    CHECK_INT(vk_device_list(caps, 8, &count, NULL), ERR_OK);
    test_choice(&caps[0], count);
    test_instance();
    test_loss(VK_FAULT_SUBMIT);
    test_loss(VK_FAULT_WAIT);
    struct vk_open_params p = {0};
    struct vk_device *dev = open_device(&p);
    test_wait(dev);
    test_pipeline_refusals(dev);
    test_threads(dev);
    vk_device_close(&dev);
    CHECK_INT(vk_validation_messages(NULL), 0);
    return test_end();
}
