// Any text as the index of a sharded checkpoint, with two valid shards.
#include "fuzz.h"
#include "fuzz_files.h"
#include "safetensors.h"

#include <stdbool.h>
#include <string.h>

static void write_shard(const char *name, const char *header)
{
    unsigned char file[256];
    uint64_t n = strlen(header);

    memcpy(file, &n, 8);
    memcpy(file + 8, header, n);
    memset(file + 8 + n, 0, 4);
    fuzz_write(name, file, 8 + n + 4);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool written;
    struct safetensors *s;
    struct fault why = {0};
    enum err e;

    if (!written) {
        write_shard("1.safetensors",
                    "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}");
        write_shard("2.safetensors",
                    "{\"b\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[0,4]}}");
        written = true;
    }
    fuzz_write("m.safetensors.index.json", data, size);
    e = safetensors_open(&(struct safetensors_params){.dir = fuzz_folder(), .base = "m"}, &s, &why);
    if (e == ERR_OK)
        FUZZ_REQUIRE(safetensors_count(s) >= 1 && safetensors_count(s) <= 2);
    else
        FUZZ_REQUIRE(!s && why.msg[0]);
    safetensors_close(&s);
    return 0;
}
