// Every error code has a text and a name, and a fault keeps its values.
#include "err.h"
#include "test.h"

static void test_hide_paths(void)
{
    static const struct {
        const char *msg, *shown;
    } cases[] = {
        {"/srv/a/unet/config.json: line 3: x", "config.json: line 3: x"},
        {"/srv/my models/unet/config.json: too short", "config.json: too short"},
        {"there is no model in /srv/my models/x/", "there is no model in x"},
        {"cannot read \"/a b/c\", or /d", "cannot read \"c\", or d"},
        {"open(/a/b/c) failed", "open(c) failed"},
        {"the end/of a/long/path.json: x", "the end/of path.json: x"},
        {"models/default/unet/config.json: x", "config.json: x"},
        {"dir=/a/b, x", "dir=b, x"},
        {"open:/a/b", "open:b"},
        {"/", ""},
        {"// /a", "a"},
        {"input/output error", "input/output error"},
        {"unet/config.json: x", "unet/config.json: x"},
        {"3 / 4 of it", "3  4 of it"},
        {"", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct fault f = {0};
        fault_set(&f, ERR_IO, "x", "%s", cases[i].msg);
        CHECK_INT(fault_hide_paths(&f), strcmp(cases[i].msg, cases[i].shown) != 0);
        CHECK_STR(f.msg, cases[i].shown);
        CHECK_STR(f.param, "x");
    }
    struct fault f = {ERR_IO, "/srv/x.png", "gone"};
    CHECK(fault_hide_paths(&f) && !*f.param);
    // A full message does not become longer, whatever it contains.
    memset(f.msg, '/', sizeof f.msg - 1);
    f.msg[sizeof f.msg - 1] = 0;
    CHECK(fault_hide_paths(&f) && !*f.msg);
}

int main(void)
{
    test_hide_paths();
    struct fault f = {0};
    CHECK_STR(err_name(ERR_DEVICE_LOST), "device_lost");
    CHECK_STR(err_text(ERR_OK), "success");
    CHECK_INT(fault_set(&f, ERR_INVALID, "size", "size is %d", 3), ERR_INVALID);
    CHECK_STR(f.param, "size");
    CHECK_STR(f.msg, "size is 3");
    CHECK_INT(fault_set(NULL, ERR_IO, NULL, "x"), ERR_IO);
    return test_end();
}
