// Safetensors files: errors for malformed ones, number conversions, variants, sharded sets.
#include "safetensors.h"
#include "test.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[64];

static const char *in_dir(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static void write_file(const char *name, const void *data, size_t n)
{
    FILE *f = fopen(in_dir(name), "wb");
    CHECK(f && (!n || fwrite(data, n, 1, f) == 1));
    if (f)
        fclose(f);
}

// length < 0: the header's own
static void write_tensors(const char *name, long long length, const char *header, const void *data,
                          size_t n)
{
    unsigned char file[4096];
    uint64_t len = length < 0 ? strlen(header) : (uint64_t)length;

    memcpy(file, &len, 8);
    memcpy(file + 8, header, strlen(header));
    if (n)
        memcpy(file + 8 + strlen(header), data, n);
    write_file(name, file, 8 + strlen(header) + n);
}

#define T(dtype, shape, a, b)                                                                      \
    "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #a "," #b "]}"

static void check_malformed(void)
{
    static const struct {
        const char *header;
        long long length;
        size_t data;
        enum err e;
        const char *says;
    } rows[] = {
        {"{\"a\":" T("F32", "[2]", 0, 8) "}", -1, 8, ERR_OK, ""},
        {"{\"a\":" T("F32", "[]", 0, 4) "}", -1, 4, ERR_OK, ""},
        {"{\"a\":" T("F32", "[0,7]", 0, 0) "}", -1, 0, ERR_OK, ""},
        {"{}", -1, 0, ERR_OK, ""},
        {"{\"__metadata__\":{\"format\":\"pt\"},\"a\":" T("F16", "[1]", 0, 2) "}  ", -1, 2, ERR_OK,
         ""},
        {"{\"b\":" T("F32", "[1]", 4, 8) ",\"a\":" T("F32", "[1]", 0, 4) "}", -1, 8, ERR_OK, ""},
        {"{}", 3, 0, ERR_FORMAT, "is truncated: its header has 3 bytes, the file 10"},
        {"[]", 3, 0, ERR_FORMAT, "length of 3 is impossible"},
        {"{}", INT64_MAX, 0, ERR_FORMAT, "is impossible"},
        {"{}", 1, 0, ERR_FORMAT, "line 1"},
        {"[]", -1, 0, ERR_FORMAT, "not a JSON object"},
        {"", -1, 0, ERR_FORMAT, "filled with zeros"},
        {"{}", -1, 1, ERR_FORMAT, "1 bytes after the last tensor"},
        {"{\"a\":" T("F32", "[2]", 0, 8) ",\"a\":" T("F32", "[2]", 0, 8) "}", -1, 8, ERR_FORMAT,
         "duplicate"},
        {"{\"a\":" T("F32", "[3]", 0, 8) "}", -1, 8, ERR_FORMAT, "tensor a: its shape and dtype"},
        {"{\"a\":" T("F16", "[2]", 0, 8) "}", -1, 8, ERR_FORMAT, "tensor a: its shape and dtype"},
        {"{\"a\":" T("F8_E4M3", "[8]", 0, 8) "}", -1, 8, ERR_UNSUPPORTED, "dtype F8_E4M3"},
        {"{\"a\":{\"dtype\":7,\"shape\":[1],\"data_offsets\":[0,4]}}", -1, 4, ERR_FORMAT,
         "dtype must be a string"},
        {"{\"a\":" T("F32", "[2]", 0, 9) "}", -1, 8, ERR_FORMAT,
         "is truncated: it has 70 of 71 bytes; download it again"},
        {"{\"a\":" T("F32", "[1]", 0, 4) ",\"b\":" T("F32", "[2]", 4, 12) "}", -1, 8, ERR_FORMAT,
         "is truncated"},
        {"{\"a\":" T("F32", "[1]", 0, 4) ",\"b\":" T("F32", "[1]", 8, 12) "}", -1, 8, ERR_FORMAT,
         "tensor b: data_offsets lie outside the file"},
        {"{\"a\":" T("F32", "[2]", 8, 0) "}", -1, 8, ERR_FORMAT, "not in order"},
        {"{\"a\":" T("F32", "[2]", -8, 0) "}", -1, 8, ERR_FORMAT, "not in order"},
        {"{\"a\":" T("F32", "[2]", 0, 8.0) "}", -1, 8, ERR_FORMAT, "two integers"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,4]}}", -1, 4, ERR_FORMAT,
         "two integers"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":7}}", -1, 4, ERR_FORMAT,
         "two integers"},
        {"{\"a\":" T("F32", "[2]", 0, 18446744073709551624) "}", -1, 8, ERR_FORMAT, "two integers"},
        {"{\"a\":" T("F32", "[-2]", 0, 8) "}", -1, 8, ERR_FORMAT, "not negative"},
        {"{\"a\":" T("F32", "[2.0]", 0, 8) "}", -1, 8, ERR_FORMAT, "not negative"},
        {"{\"a\":" T("F32", "2", 0, 8) "}", -1, 8, ERR_FORMAT, "shape must be a list"},
        {"{\"a\":" T("F32", "[1,1,1,1,1,1,1,1,2]", 0, 8) "}", -1, 8, ERR_FORMAT, "8 dimensions"},
        {"{\"a\":" T("F32", "[4294967296,4294967296]", 0, 0) "}", -1, 0, ERR_FORMAT, "overflows"},
        {"{\"a\":" T("F32", "[4294967296,1073741825]", 0, 4) "}", -1, 4, ERR_FORMAT, "overflows"},
        {"{\"a\":" T("F32", "[1]", 0, 4) ",\"b\":" T("F32", "[1]", 2, 6) "}", -1, 6, ERR_FORMAT,
         "tensor b: its data overlaps"},
        {"{\"a\":" T("F32", "[1]", 0, 4) ",\"b\":" T("F32", "[1]", 8, 12) "}", -1, 12, ERR_FORMAT,
         "tensor b: there is a gap"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", -1, 4, ERR_FORMAT, "must have exactly"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":1}}", -1, 4,
         ERR_FORMAT, "must have exactly"},
        {"{\"a\":[]}", -1, 0, ERR_FORMAT, "must have exactly"},
        {"{\"__metadata__\":{\"n\":1}}", -1, 0, ERR_FORMAT, "strings only"},
        {"{\"__metadata__\":[]}", -1, 0, ERR_FORMAT, "must be an object"},
        {"{\"\\u0000\":" T("F32", "[1]", 0, 4) "}", -1, 4, ERR_FORMAT, "NUL"},
    };
    static const unsigned char zero[64];

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct safetensors *s;
        struct fault why = {0};
        write_tensors("m.safetensors", rows[i].length, rows[i].header, zero, rows[i].data);
        CHECK_MSG(safetensors_open_file(in_dir("m.safetensors"), &s, &why) == rows[i].e,
                  "row %zu: %s", i, why.msg);
        CHECK_MSG(!rows[i].e == !!s, "row %zu", i);
        CHECK_MSG(strstr(why.msg, rows[i].says), "row %zu: %s", i, why.msg);
        CHECK_MSG(!rows[i].e || strstr(why.msg, "m.safetensors"), "row %zu: %s", i, why.msg);
        safetensors_close(&s);
    }
}

static void check_not_files(void)
{
    struct safetensors *s;
    struct fault why;

    write_file("short.safetensors", "1234567", 7);
    CHECK_INT(safetensors_open_file(in_dir("short.safetensors"), &s, &why), ERR_FORMAT);
    CHECK(strstr(why.msg, "too short"));
    static const char pointer[] =
        "version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 8610000000\n";
    write_file("pointer.safetensors", pointer, strlen(pointer));
    CHECK_INT(safetensors_open_file(in_dir("pointer.safetensors"), &s, &why), ERR_FORMAT);
    CHECK(strstr(why.msg, "pointer.safetensors is a Git LFS pointer to a file of 8610000000"));
    write_file("page.safetensors", "<!DOCTYPE html><html>", 21);
    CHECK_INT(safetensors_open_file(in_dir("page.safetensors"), &s, &why), ERR_FORMAT);
    CHECK(strstr(why.msg, "page.safetensors is a web page"));
    write_file("empty.safetensors", "", 0);
    CHECK_INT(safetensors_open_file(in_dir("empty.safetensors"), &s, &why), ERR_FORMAT);
    CHECK(strstr(why.msg, "empty.safetensors is empty"));
    CHECK_INT(safetensors_open_file(in_dir("none.safetensors"), &s, &why), ERR_NOT_FOUND);
    CHECK_INT(safetensors_open_file(dir, &s, &why), ERR_IO);
    mkfifo(in_dir("fifo.safetensors"), 0600);
    CHECK_INT(safetensors_open_file(in_dir("fifo.safetensors"), &s, &why), ERR_IO);
    unlink(in_dir("fifo.safetensors"));
}

// The value of an f16, from its definition.
static double f16_defined(unsigned h)
{
    int exponent = (int)(h >> 10 & 31), mantissa = (int)(h & 1023);
    double sign = h & 0x8000 ? -1 : 1;
    if (exponent == 31)
        return mantissa ? NAN : sign * INFINITY;
    return sign * (exponent ? ldexp(1024 + mantissa, exponent - 25) : ldexp(mantissa, -24));
}

static void check_numbers(void)
{
    static uint16_t half[65536];
    static float out[65536];
    struct safetensor t = {.data = half, .elements = 65536, .bytes = sizeof half};
    uint32_t bits;
    double d[3] = {1.5, -0.0, 1e300};
    unsigned char odd[1 + 8];
    int wrong = 0;

    for (int i = 0; i < 65536; i++)
        half[i] = (uint16_t)i;
    t.dtype = ST_F16;
    safetensors_f32(&t, 0, 65536, out);
    for (unsigned i = 0; i < 65536; i++) {
        double want = f16_defined(i);
        bool same = isnan(want) ? isnan(out[i]) : out[i] == want;
        wrong += !same || !!signbit(out[i]) != (i >= 0x8000);
    }
    CHECK_INT(wrong, 0);
    t.dtype = ST_BF16;
    safetensors_f32(&t, 0, 65536, out);
    for (unsigned i = 0; i < 65536; i++) {
        memcpy(&bits, &out[i], 4);
        wrong += bits != i << 16;
    }
    CHECK_INT(wrong, 0);
    safetensors_f32(&t, 0x3f80, 1, out);
    CHECK_NEAR(out[0], 1, 0);
    t = (struct safetensor){.data = d, .dtype = ST_F64, .elements = 3, .bytes = sizeof d};
    safetensors_f32(&t, 0, 3, out);
    CHECK(out[0] == 1.5f && out[1] == 0 && signbit(out[1]) && isinf(out[2]));
    memcpy(odd + 1, &(float){2.5f}, 4);
    t = (struct safetensor){.data = odd + 1, .dtype = ST_F32, .elements = 1, .bytes = 4};
    safetensors_f32(&t, 0, 1, out);
    CHECK_NEAR(out[0], 2.5, 0);
}

static enum err open_set(const char *base, const char *variant, struct safetensors **s,
                         struct fault *why)
{
    memset(why, 0, sizeof *why);
    return safetensors_open(
        &(struct safetensors_params){.dir = dir, .base = base, .variant = variant}, s, why);
}

static void index_says(const char *name, const char *map, const char *base, enum err want,
                       const char *says)
{
    struct safetensors *s;
    struct fault why;

    write_file(name, map, strlen(map));
    CHECK_MSG(open_set(base, NULL, &s, &why) == want, "%s: %s", map, why.msg);
    CHECK_MSG(strstr(why.msg, says), "%s: %s", map, why.msg);
    safetensors_close(&s);
}

static void check_shards(void)
{
    static const char ok[] = "{\"metadata\":{\"total_size\":8},\"weight_map\":{"
                             "\"a\":\"s-00001-of-00002.safetensors\","
                             "\"b\":\"s-00002-of-00002.safetensors\"}}";
    const char *index = "s.safetensors.index.json";
    struct safetensors *s;
    struct fault why;

    write_tensors("s-00001-of-00002.safetensors", -1, "{\"a\":" T("F32", "[1]", 0, 4) "}",
                  &(float){1}, 4);
    write_tensors("s-00002-of-00002.safetensors", -1, "{\"b\":" T("F16", "[2]", 0, 4) "}",
                  &(float){2}, 4);
    write_file(index, ok, strlen(ok));
    CHECK_INT(open_set("s", NULL, &s, &why), ERR_OK);
    if (s) {
        CHECK_INT(safetensors_count(s), 2);
        CHECK_INT(safetensors_files(s), 2);
        CHECK(safetensors_find(s, "a") && !safetensors_find(s, "c"));
        CHECK_INT(safetensors_find(s, "b")->dtype, ST_F16);
        CHECK_STR(safetensors_at(s, 1)->name, "b");
        CHECK(!safetensors_at(s, 2));
    }
    safetensors_close(&s);
    index_says(index,
               "{\"weight_map\":{\"a\":\"s-00001-of-00002.safetensors\","
               "\"b\":\"s-00001-of-00002.safetensors\"}}",
               "s", ERR_FORMAT, "tensor b is not in s-00001");
    index_says(index,
               "{\"weight_map\":{\"a\":\"s-00001-of-00002.safetensors\","
               "\"b\":\"s-00003-of-00002.safetensors\"}}",
               "s", ERR_NOT_FOUND, "s-00003-of-00002");
    index_says(index,
               "{\"weight_map\":{\"b\":\"s-00002-of-00002.safetensors\","
               "\"c\":\"s-00001-of-00002.safetensors\"}}",
               "s", ERR_FORMAT, "tensor c is not in");
    // A tensor that the index puts into the other file, and one that it does not name.
    index_says(index,
               "{\"weight_map\":{\"a\":\"s-00002-of-00002.safetensors\","
               "\"b\":\"s-00001-of-00002.safetensors\"}}",
               "s", ERR_FORMAT, "is not in s-0000");
    index_says(index, "{\"weight_map\":{\"b\":\"both.safetensors\"}}", "s", ERR_NOT_FOUND, "both");
    write_tensors("both.safetensors", -1,
                  "{\"b\":" T("F16", "[2]", 0, 4) ",\"c\":" T("F16", "[2]", 4, 8) "}", &(double){2},
                  8);
    index_says(index, "{\"weight_map\":{\"b\":\"both.safetensors\"}}", "s", ERR_FORMAT,
               "tensor c of a shard is not in the index");
    unlink(in_dir("both.safetensors"));
    mkdir(in_dir("in"), 0700);
    write_tensors("in/s.safetensors", -1, "{\"a\":" T("F16", "[2]", 0, 4) "}", &(float){1}, 4);
    index_says(index, "{\"weight_map\":{\"a\":\"in/s.safetensors\"}}", "s", ERR_FORMAT, "plain");
    unlink(in_dir("in/s.safetensors"));
    rmdir(in_dir("in"));
    write_tensors("s-00002-of-00002.safetensors", -1, "{\"a\":" T("F16", "[2]", 0, 4) "}",
                  &(float){2}, 4);
    index_says(index, ok, "s", ERR_FORMAT, "tensor a is in two files");
    index_says(index, "{\"weight_map\":{\"a\":\"../x.safetensors\"}}", "s", ERR_FORMAT, "plain");
    index_says(index, "{\"weight_map\":{\"a\":7}}", "s", ERR_FORMAT, "plain");
    index_says(index, "{\"weight_map\":{\"a\":\"x.safetensors\\u0000\"}}", "s", ERR_FORMAT,
               "plain");
    index_says(index, "{\"weight_map\":{}}", "s", ERR_FORMAT, "no weight_map");
    index_says(index, "{\"weight_map\":[]}", "s", ERR_FORMAT, "no weight_map");
    index_says(index, "[]", "s", ERR_FORMAT, "no weight_map");
}

// A folder without the weights that are wanted: what it has instead.
static void check_missing(void)
{
    static const struct {
        const char *file, *says;
    } rows[] = {
        {"w.bin", "w.bin, a PyTorch checkpoint"},
        {"pytorch_model.bin", "pytorch_model.bin, a PyTorch checkpoint"},
        {"w.ckpt", "w.ckpt, a PyTorch checkpoint"},
        {"flax_model.msgpack", "flax_model.msgpack, a Flax checkpoint"},
        {"tf_model.h5", "tf_model.h5, a TensorFlow checkpoint"},
        {"w.onnx", "w.onnx, an ONNX model"},
        {"w.gguf", "w.gguf, a GGUF file"},
        {"w.safetensors.incomplete", "w.safetensors.incomplete, an unfinished download"},
        {"w.safetensors.crdownload", "w.safetensors.crdownload, an unfinished download"},
        {"w.safetensors.aria2", "w.safetensors.aria2, an unfinished download"},
        {"w-00001-of-00002.safetensors", "but not the index w.safetensors.index.json"},
        {"other.safetensors", "no w.safetensors; it has other.safetensors"},
        {"config.json", "no w.safetensors"},
    };
    struct safetensors *s;
    struct fault why;

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        mkdir(in_dir("sub"), 0700);
        char name[80];
        snprintf(name, sizeof name, "sub/%s", rows[i].file);
        write_file(name, "x", 1);
        const struct safetensors_params p = {.dir = in_dir("sub"), .base = "w"};
        CHECK_INT(safetensors_open(&p, &s, &why), ERR_NOT_FOUND);
        CHECK_MSG(strstr(why.msg, rows[i].says) != NULL, "%s", why.msg);
        unlink(in_dir(name));
    }
    CHECK(!symlink("gone", in_dir("sub/w.safetensors")));
    struct safetensors_params p = {.dir = in_dir("sub"), .base = "w"};
    CHECK(safetensors_has(&p));
    CHECK_INT(safetensors_open(&p, &s, &why), ERR_NOT_FOUND);
    CHECK(strstr(why.msg, "w.safetensors is a symbolic link to gone, which does not exist"));
    unlink(in_dir("sub/w.safetensors"));
    p.dir = in_dir("sub");
    CHECK(!safetensors_has(&p));
    rmdir(in_dir("sub"));
    p.dir = in_dir("sub");
    CHECK_INT(safetensors_open(&p, &s, &why), ERR_NOT_FOUND);
    CHECK(strstr(why.msg, "sub: No such file or directory"));
}

static void check_variants(void)
{
    static const char one[] = "{\"a\":" T("F16", "[1]", 0, 2) "}";
    static const char map[] = "{\"weight_map\":{\"a\":\"v.fp16-00001-of-00001.safetensors\"}}";
    struct safetensors *s;
    struct fault why;

    CHECK_INT(open_set("v", NULL, &s, &why), ERR_NOT_FOUND);
    CHECK(strstr(why.msg, "no v.safetensors"));
    write_tensors("v.fp16-00001-of-00001.safetensors", -1, one, "\0", 2);
    CHECK_INT(open_set("v", NULL, &s, &why), ERR_NOT_FOUND);
    CHECK(strstr(why.msg, "v.fp16-00001-of-00001.safetensors but not the index"));
    write_file("v.safetensors.index.fp16.json", map, strlen(map));
    CHECK_INT(open_set("v", "fp16", &s, &why), ERR_OK);
    safetensors_close(&s);
    CHECK_INT(open_set("v", NULL, &s, &why), ERR_OK);
    safetensors_close(&s);
    CHECK_INT(open_set("v", "bf16", &s, &why), ERR_NOT_FOUND);
    CHECK(strstr(why.msg, "v.bf16.safetensors"));
    write_tensors("v.bf16.safetensors", -1, one, "\0", 2);
    CHECK_INT(open_set("v", NULL, &s, &why), ERR_NOT_FOUND);
    CHECK(strstr(why.msg, "fp16") && strstr(why.msg, "bf16"));
    CHECK_INT(open_set("v", "bf16", &s, &why), ERR_OK);
    CHECK(s && strstr(safetensors_path(s, 0), "/v.bf16.safetensors"));
    safetensors_close(&s);
    write_tensors("v.safetensors", -1, one, "\0", 2);
    CHECK_INT(open_set("v", NULL, &s, &why), ERR_OK);
    CHECK(s && strstr(safetensors_path(s, 0), "/v.safetensors"));
    safetensors_close(&s);
    CHECK_INT(open_set("v", "../x", &s, &why), ERR_INVALID);
    CHECK_INT(open_set("v", "", &s, &why), ERR_INVALID);
}

static void check_golden(const char *golden)
{
    char path[512];
    struct safetensors *s;
    const struct safetensor *t;
    struct fault why = {0};
    float x;

    snprintf(path, sizeof path, "%s/if-tiny-I/text_encoder", golden);
    CHECK_MSG(safetensors_open(&(struct safetensors_params){.dir = path, .base = "model"}, &s,
                               &why) == ERR_OK,
              "%s", why.msg);
    if (s) {
        CHECK_INT(safetensors_count(s), 30);
        t = safetensors_find(s, "shared.weight");
        CHECK(t && t->dims == 2 && t->shape[1] == 64 && t->dtype == ST_F16);
        t = safetensors_find(s, "encoder.block.1.layer.1.DenseReluDense.wo.weight");
        CHECK(t && t->file == 1);
        safetensors_f32(t, 5, 1, &x);
        CHECK(isfinite(x) && x != 0);
        safetensors_release(s, t);
        safetensors_f32(t, 5, 1, &x);
        CHECK(isfinite(x) && x != 0);
    }
    safetensors_close(&s);
}

int main(int argc, char **argv)
{
    char command[128];

    strcpy(dir, "/tmp/imagend-st-XXXXXX");
    if (!mkdtemp(dir))
        return test_skip("no temporary folder");
    check_malformed();
    check_not_files();
    check_numbers();
    check_shards();
    check_missing();
    check_variants();
    if (argc > 1)
        check_golden(argv[1]);
    snprintf(command, sizeof command, "rm -r '%s'", dir);
    CHECK_INT(system(command), 0);
    return test_end();
}
