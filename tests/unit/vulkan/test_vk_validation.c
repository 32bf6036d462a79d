// Validation works: synchronization validation detects a dispatch that hides a write from the
// barriers, the message is counted, and it is an error if messages are fatal; a layer that reports
// nothing is refused. The printed messages are expected.
#include "vk_fixture.h"
#include "vk_internal.h"

// Labels around the dispatches, as a debugger sees them.
static char labels[200];

static VKAPI_ATTR void VKAPI_CALL on_begin(VkCommandBuffer cb, const VkDebugUtilsLabelEXT *label)
{
    strcat(strcat(labels, "<"), label->pLabelName);
}

static VKAPI_ATTR void VKAPI_CALL on_end(VkCommandBuffer cb)
{
    strcat(labels, ">");
}

// a -> b, b -> a, where the first says that it only reads b.
static void record_hidden_write(struct vk_cmd *cmd, struct vk_pipeline *pipe, struct vk_buffer *a,
                                struct vk_buffer *b)
{
    uint32_t push[2] = {16, 1};
    struct vk_dispatch d = {
        .pipe = pipe,
        .binding = {{a, 0, 64, VK_READ}, {b, 0, 64, VK_READ}},
        .push = push,
        .groups = {2, 1, 1},
    };
    vk_cmd_dispatch(cmd, &d);
    d.binding[0].buf = b;
    d.binding[1].buf = a;
    vk_cmd_dispatch(cmd, &d);
}

static unsigned test_messages(struct vk_device *dev, enum err want)
{
    struct vk_pipeline *pipe;
    struct vk_buffer *a, *b;
    struct vk_cmd *cmd;
    CHECK_INT(vk_validation_messages(dev), 0);
    fflush(stderr);
    const int real = dup(STDERR_FILENO);
    FILE *file = tmpfile();
    CHECK(real >= 0 && file && dup2(fileno(file), STDERR_FILENO) >= 0);
    CHECK_INT(make_add(dev, 1, &pipe), ERR_OK);
    CHECK_INT(vk_buffer_create(dev, VK_DEVICE, 64, &a), ERR_OK);
    CHECK_INT(vk_buffer_create(dev, VK_DEVICE, 64, &b), ERR_OK);
    CHECK_INT(vk_cmd_create(dev, &cmd), ERR_OK);
    CHECK(dev->labels.begin && dev->labels.end);
    dev->labels.begin = on_begin;
    dev->labels.end = on_end;
    labels[0] = 0;
    record_hidden_write(cmd, pipe, a, b);
    CHECK_STR(labels, "<add><add>");
    CHECK_INT(vk_cmd_end(cmd), want);
    vk_cmd_destroy(&cmd);
    vk_buffer_destroy(&a);
    vk_buffer_destroy(&b);
    vk_pipeline_destroy(&pipe);
    char text[8192] = "";
    fflush(stderr);
    rewind(file);
    text[fread(text, 1, sizeof text - 1, file)] = 0;
    dup2(real, STDERR_FILENO);
    close(real);
    fclose(file);
    fputs(text, stderr);
    // The messages name the buffer and the pipeline.
    CHECK_MSG(strstr(text, "device memory") && strstr(text, "[add]"), "no names: %s", text);
    return vk_validation_messages(dev);
}

// A layer that is installed and keeps what it sees to itself.
static void test_silence(void)
{
    struct vk_open_params p = {.validation = true};
    struct fault why = {0};
    struct vk_device *dev;
    setenv("VK_LAYER_MESSAGE_ID_FILTER",
           "SYNC-HAZARD-WRITE-AFTER-READ:SYNC-HAZARD-READ-AFTER-WRITE", 1);
    CHECK_INT(vk_device_open(&p, &dev, &why), ERR_UNSUPPORTED);
    CHECK(!dev);
    CHECK_STR(why.param, "validation");
    CHECK_MSG(strstr(why.msg, "does not report"), "the error is: %s", why.msg);
    unsetenv("VK_LAYER_MESSAGE_ID_FILTER");
}

int main(void)
{
    struct vk_open_params p = {.validation = true};
    struct fault why = {0};
    struct vk_device *dev;
    unsigned seen = 0, n;
    setenv("IMAGEND_VALIDATION", "0", 1);
    enum err e = vk_device_open(&p, &dev, &why);
    if (e == ERR_NO_DEVICE || (e == ERR_UNSUPPORTED && strstr(why.msg, "not installed")))
        return test_skip(why.msg);
    CHECK_MSG(e == ERR_OK, "cannot open a device: %s", why.msg);
    if (e)
        return test_end();
    seen += n = test_messages(dev, ERR_OK);
    CHECK(n > 0);
    vk_device_close(&dev);
    CHECK_INT(vk_validation_messages(NULL), seen);

    p.validation = false;
    setenv("IMAGEND_VALIDATION", "fatal", 1);
    CHECK_INT(vk_device_open(&p, &dev, &why), ERR_OK);
    seen += n = test_messages(dev, ERR_INTERNAL);
    CHECK(n > 0);
    vk_device_close(&dev);
    CHECK_INT(vk_validation_messages(NULL), seen);

    test_silence();
    return test_end();
}
