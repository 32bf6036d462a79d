// Every error code has a text and a name, and a fault carries what it was given.
#include "err.h"
#include "test.h"

int main(void)
{
    struct fault f = {0};
    CHECK_STR(err_name(ERR_DEVICE_LOST), "device_lost");
    CHECK_STR(err_text(ERR_OK), "success");
    CHECK_INT(fault_set(&f, ERR_INVALID, "size", "size is %d", 3), ERR_INVALID);
    CHECK_STR(f.param, "size");
    CHECK_STR(f.msg, "size is 3");
    CHECK_INT(fault_set(NULL, ERR_IO, NULL, "x"), ERR_IO);
    return test_end();
}
