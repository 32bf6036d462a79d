// Any bytes as a safetensors file; if it opens, every tensor can be read.
#include "fuzz.h"
#include "hash.h"
#include "safetensors.h"

#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

static void read_tensor(const struct safetensors *s, const struct safetensor *t)
{
    static float out[256];

    (void)hash_bytes(t->data, t->bytes, 0); // every byte can be read
    FUZZ_REQUIRE(t->bytes == t->elements * safetensors_dtype_bytes(t->dtype));
    FUZZ_REQUIRE(safetensors_find(s, t->name) == t);
    for (uint64_t at = 0; safetensors_is_float(t->dtype) && at < t->elements; at += 256)
        safetensors_f32(t, at, t->elements - at < 256 ? t->elements - at : 256, out);
    safetensors_release(s, t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct safetensors *s;
    struct fault why = {0};
    char path[64];
    int fd = memfd_create("fuzz", MFD_CLOEXEC);

    if (fd < 0 || write(fd, data ? data : (const uint8_t *)"", size) != (ssize_t)size)
        abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (safetensors_open_file(path, &s, &why) == ERR_OK)
        for (size_t i = 0; i < safetensors_count(s); i++)
            read_tensor(s, safetensors_at(s, i));
    else
        FUZZ_REQUIRE(!s && why.msg[0]);
    safetensors_close(&s);
    close(fd);
    return 0;
}
