// Any bytes as a prompt: cleaned, normalized and encoded in both modes.
#include "buf.h"
#include "fuzz.h"
#include "tokenizer.h"
#include "utf8.h"

#include <stdio.h>

static struct tokenizer *tokenizers[2];

static void open_once(void)
{
    struct fault why;

    for (int legacy = 0; legacy < 2; legacy++) {
        if (!tokenizers[legacy] &&
            tokenizer_open_legacy(GOLDEN "/t5-tiny/tokenizer", legacy, &tokenizers[legacy], &why)) {
            fprintf(stderr, "%s\n", why.msg);
            abort();
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = data ? (const char *)data : "";
    uint32_t ids[77], mask[77];
    struct buf b = {0};
    bool valid = utf8_valid(text, size, NULL);
    enum err want = valid ? ERR_OK : ERR_INVALID;
    int n;

    open_once();
    FUZZ_REQUIRE(tokenizer_prompt(text, size, &b) == want);
    FUZZ_REQUIRE(utf8_valid(b.data ? b.data : "", b.len, NULL));
    buf_clear(&b);
    FUZZ_REQUIRE(tokenizer_normalize(tokenizers[1], text, size, &b) == want);
    buf_deinit(&b);
    for (int legacy = 0; legacy < 2; legacy++) {
        FUZZ_REQUIRE(tokenizer_encode(tokenizers[legacy], text, size, 77, ids, mask, &n) == want);
        if (!valid)
            continue;
        FUZZ_REQUIRE(n >= 1 && n <= 77 && ids[n - 1] == 1);
        for (int i = 0; i < 77; i++)
            FUZZ_REQUIRE(ids[i] < 800 && mask[i] == (i < n) && (i < n || ids[i] == 0));
    }
    return 0;
}
