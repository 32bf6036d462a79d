// Any text as each of the tokenizer's JSON files, with a valid SentencePiece model. The input's
// first byte selects the file.
#include "buf.h"
#include "fuzz.h"
#include "fuzz_files.h"
#include "tokenizer.h"

#include <string.h>

static void write_model(void)
{
    static bool written;
    struct buf b = {0};
    struct fault why;

    if (written)
        return;
    FUZZ_REQUIRE(!buf_read_file(&b, GOLDEN "/t5-tiny/tokenizer/spiece.model", 1 << 22, &why));
    fuzz_write("spiece.model", b.data, b.len);
    buf_deinit(&b);
    written = true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = {"tokenizer_config.json", "special_tokens_map.json",
                                        "added_tokens.json"};
    static const char text[] = " a <extra_id_0> cat </s> <one>";
    size_t which = size ? data[0] % 3u : 0;
    struct tokenizer *t;
    struct fault why = {0};
    uint32_t ids[77], mask[77];
    int n;

    write_model();
    for (size_t i = 0; i < 3; i++)
        fuzz_write(names[i], "{}", 2);
    if (size)
        fuzz_write(names[which], data + 1, size - 1);
    if (tokenizer_open(fuzz_folder(), &t, &why) == ERR_OK) {
        FUZZ_REQUIRE(!tokenizer_encode(t, text, strlen(text), 77, ids, mask, &n));
        for (int i = 0; i < n; i++)
            FUZZ_REQUIRE(ids[i] < (uint32_t)tokenizer_vocab(t));
    } else {
        FUZZ_REQUIRE(!t && why.msg[0]);
    }
    tokenizer_close(&t);
    return 0;
}
