// Any bytes as a GGUF file; if it opens, every tensor and value can be read, and its configuration
// and its tokenizer are accepted or refused.
#include "buf.h"
#include "fuzz.h"
#include "gguf_t5.h"
#include "hash.h"
#include "tokenizer_priv.h"

#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

static void read_tensor(const struct safetensors *s, const struct safetensor *t)
{
    static float out[256];
    const uint64_t block = safetensors_dtype_block(t->dtype);

    (void)hash_bytes(t->data, t->bytes, 0); // every byte can be read
    FUZZ_REQUIRE(t->bytes == t->elements / block * safetensors_dtype_bytes(t->dtype));
    FUZZ_REQUIRE(safetensors_find(s, t->name) == t);
    for (uint64_t at = 0; safetensors_is_float(t->dtype) && at < t->elements; at += 256)
        safetensors_f32(t, at, t->elements - at < 256 ? t->elements - at : 256, out);
    safetensors_release(s, t);
}

static void read_values(struct gguf *g)
{
    static const char *const lists[] = {"tokenizer.ggml.tokens", "tokenizer.ggml.scores"};
    size_t len = 0;

    for (size_t k = 0; k < 2; k++)
        for (size_t i = 0; i < gguf_count(g, lists[k]) && i < 4096; i++) {
            const char *text = gguf_text_at(g, lists[k], i, &len);
            if (text)
                (void)hash_bytes(text, len, 0);
            (void)gguf_number_at(g, lists[k], i, 0);
        }
    const void *map = gguf_bytes(g, "tokenizer.ggml.precompiled_charsmap", &len);
    if (map)
        (void)hash_bytes(map, len, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gguf *g;
    struct t5_config config;
    struct buf model = {0};
    struct fault why = {0};
    char path[64];
    int sentinels, fd = memfd_create("fuzz", MFD_CLOEXEC);

    if (fd < 0 || write(fd, data ? data : (const uint8_t *)"", size) != (ssize_t)size)
        abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (gguf_open(path, &g, &why) == ERR_OK) {
        for (size_t i = 0; i < safetensors_count(gguf_tensors(g)); i++)
            read_tensor(gguf_tensors(g), safetensors_at(gguf_tensors(g), i));
        read_values(g);
        FUZZ_REQUIRE(gguf_t5_config(g, &config, &why) == ERR_OK || why.msg[0]);
        if (!tokenizer_gguf_read(path, &model, &sentinels, &why))
            (void)spiece_check(model.data, model.len);
        buf_deinit(&model);
    } else {
        FUZZ_REQUIRE(!g && why.msg[0]);
    }
    gguf_close(&g);
    close(fd);
    return 0;
}
