// Layers that are joined into one product come out the same whether their tensors have one type or
// several in the file. Needs a Vulkan device.
#include "layers.h"
#include "ops_internal.h"
#include "test.h"

#include <stdlib.h>
#include <unistd.h>

enum { PARTS = 3, ROWS = 8, IN = 16, NUMBERS = ROWS * IN };

static size_t put(uint8_t *to, const char *type, const uint16_t *halves)
{
    float wide[NUMBERS];
    floats_from(halves, DT_F16, NUMBERS, wide);
    if (!strcmp(type, "F16")) {
        memcpy(to, halves, NUMBERS * 2);
        return NUMBERS * 2;
    }
    if (!strcmp(type, "F32")) {
        memcpy(to, wide, sizeof wide);
        return sizeof wide;
    }
    for (size_t i = 0; i < NUMBERS; i++)
        memcpy(to + 2 * i, (const uint8_t *)&wide[i] + 2, 2); // the upper half, which is exact here
    return NUMBERS * 2;
}

// A file of three layers, "a.weight" to "c.weight", of the given types and the same numbers.
static void write_file(const char *path, const char *const type[PARTS])
{
    static uint8_t data[PARTS * NUMBERS * 4];
    char head[512];
    size_t at = 0, n = 0;
    head[n++] = '{';
    for (int k = 0; k < PARTS; k++) {
        uint16_t halves[NUMBERS];
        for (int i = 0; i < NUMBERS; i++)
            halves[i] = (uint16_t)(0x3c00 + (i * 8 + k * 256) % 1024); // 3 bits of mantissa
        size_t bytes = put(data + at, type[k], halves);
        n += (size_t)snprintf(head + n, sizeof head - n,
                              "%s\"%c.weight\":{\"dtype\":\"%s\",\"shape\":[%d,%d],"
                              "\"data_offsets\":[%zu,%zu]}",
                              k ? "," : "", 'a' + k, type[k], ROWS, IN, at, at + bytes);
        at += bytes;
    }
    head[n++] = '}';
    while (n % 8)
        head[n++] = ' ';
    const uint64_t length = n;
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(&length, 8, 1, f) == 1 && fwrite(head, n, 1, f) == 1 &&
          fwrite(data, at, 1, f) == 1 && !fclose(f));
}

// Owner: the caller frees it.
static uint8_t *load(struct ops_device *dev, const char *const type[PARTS], size_t *bytes)
{
    char dir[] = "/tmp/imagend-layers-XXXXXX", path[64];
    struct weights *w = NULL;
    struct op_weight *joined = NULL;
    struct fault why = {0};
    struct joined j;
    uint8_t *data = NULL;
    CHECK(mkdtemp(dir) != NULL);
    snprintf(path, sizeof path, "%s/m.safetensors", dir);
    write_file(path, type);
    CHECK_MSG(!weights_open(&(struct weights_params){.dir = dir, .base = "m"}, &w, &why), "%s",
              why.msg);
    if (w) {
        struct loader l = load_begin(dev, w, DT_F32);
        joined_begin(&j, &l, &joined, PARTS * ROWS, IN, false);
        for (int k = 0; k < PARTS; k++)
            joined_add(&j, ROWS, "%c", 'a' + k);
        joined_end(&j);
        CHECK_INT(l.err, ERR_OK);
    }
    if (joined) {
        *bytes = tensor_span(&joined->packed) * tensor_dtype_bytes(joined->packed.dtype);
        data = malloc(*bytes);
        CHECK(data && !vk_download(joined->packed.buf, 0, data, *bytes));
    }
    op_weight_destroy(&joined);
    weights_close(&w);
    unlink(path);
    rmdir(dir);
    return data;
}

int main(void)
{
    static const char *const types[][PARTS] = {{"F32", "F32", "F32"},  {"F16", "F16", "F16"},
                                               {"F16", "F32", "F16"},  {"BF16", "F16", "F32"},
                                               {"F32", "BF16", "F16"}, {"BF16", "BF16", "F16"}};
    struct ops_device *dev = NULL;
    struct fault why = {0};
    uint8_t *want = NULL;
    size_t expected = 0;
    if (ops_device_open(&(struct ops_open_params){.dtype = "f32"}, &dev, &why))
        return test_skip(why.msg);
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        size_t n = 0;
        uint8_t *got = load(dev, types[i], &n);
        if (!i) {
            want = got;
            expected = n;
            continue;
        }
        CHECK_MSG(want && got && n == expected && !memcmp(got, want, n), "%s, %s and %s",
                  types[i][0], types[i][1], types[i][2]);
        free(got);
    }
    free(want);
    ops_device_close(&dev);
    return test_end();
}
