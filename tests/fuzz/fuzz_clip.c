// Any text for a CLIP tokenizer, or any bytes as one of its files: if it loads, it must also
// encode, with ids in its own vocabulary. The input's first byte selects which.
#include "buf.h"
#include "fuzz.h"
#include "fuzz_files.h"
#include "tokenizer.h"
#include "utf8.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LENGTH = 77 };

static void encode(const struct tokenizer *t, const char *text, size_t n)
{
    uint32_t ids[LENGTH], mask[LENGTH];
    int count, total;
    const enum err e = tokenizer_encode(t, text, n, LENGTH, ids, mask, &count);

    FUZZ_REQUIRE(!e == utf8_valid(text, n, NULL));
    if (e)
        return;
    FUZZ_REQUIRE(!tokenizer_count(t, text, n, &total));
    FUZZ_REQUIRE(count >= 2 && count <= LENGTH && total >= count);
    for (int i = 0; i < LENGTH; i++)
        FUZZ_REQUIRE(ids[i] < (uint32_t)tokenizer_vocab(t));
}

static void fuzz_prompt(const uint8_t *data, size_t size)
{
    static struct tokenizer *t;
    struct fault why;

    if (!t)
        FUZZ_REQUIRE(!tokenizer_open(GOLDEN "/x4-tiny/tokenizer", &t, &why));
    encode(t, (const char *)data, size);
}

static void write_golden(const char *name)
{
    struct buf b = {0};
    struct fault why;
    char path[512];

    snprintf(path, sizeof path, GOLDEN "/x4-tiny/tokenizer/%s", name);
    FUZZ_REQUIRE(!buf_read_file(&b, path, 1 << 22, &why));
    fuzz_write(name, b.data, b.len);
    buf_deinit(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = {"vocab.json", "merges.txt", "tokenizer.json"};
    static const char text[] = "A photo of 12 cats' <|endoftext|>\xc3\xa9!";
    const size_t which = size ? data[0] % 4u : 0;
    struct tokenizer *t;
    struct fault why = {0};
    char path[512];

    if (!which) {
        fuzz_prompt(data + (size > 0), size - (size > 0));
        return 0;
    }
    fuzz_write("tokenizer_config.json", "{}", 2);
    write_golden("vocab.json");
    write_golden("merges.txt");
    fuzz_write(names[which - 1], data + 1, size - 1);
    snprintf(path, sizeof path, "%s/vocab.json", fuzz_folder());
    if (which == 3)
        unlink(path); // it would be preferred
    if (tokenizer_open(fuzz_folder(), &t, &why) == ERR_OK)
        encode(t, text, strlen(text));
    else
        FUZZ_REQUIRE(!t && why.msg[0]);
    tokenizer_close(&t);
    return 0;
}
