// Lists the rows of the kernel table, one a line: the name, the number of its builds, and "yes" or
// why this device cannot run it. Called by driver.sh and bench/gpu.py.
#include "ops_internal.h"

#include <stdio.h>

int main(void)
{
    struct ops_device *dev = NULL;
    struct fault why = {0};

    if (ops_device_open(&(struct ops_open_params){.dtype = NULL}, &dev, &why)) {
        fprintf(stderr, "kernels: %s\n", why.msg);
        return 1;
    }
    for (int row = 0; row < kernel_count(); row++) {
        const struct kernel *k = kernel_at(row);
        struct kernel_wish wish;
        char text[KERNEL_WHY] = "";
        const bool can = kernel_wish(dev, k->name, &wish, text) == ERR_OK;
        printf("%s %d %s\n", k->name, k->builds, can ? "yes" : text);
    }
    ops_device_close(&dev);
    return 0;
}
