// Any text as a tokenizer.json; if it loads, it must also encode, with ids in its own vocabulary.
#include "fuzz.h"
#include "fuzz_files.h"
#include "tokenizer.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const texts[] = {"", "a b", " a <extra_id_0> cat </s>\t<unk>",
                                        "\xe2\x96\x81\xf0\x9f\x98\x80 e\xcc\x81\xc2\xa0"};
    uint32_t ids[77], mask[77];
    struct tokenizer *t;
    struct fault why = {0};
    int n;

    fuzz_write("tokenizer_config.json", "{}", 2);
    fuzz_write("tokenizer.json", data, size);
    if (tokenizer_open(fuzz_folder(), &t, &why)) {
        FUZZ_REQUIRE(!t && why.msg[0]);
        return 0;
    }
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        FUZZ_REQUIRE(!tokenizer_encode(t, texts[i], strlen(texts[i]), 77, ids, mask, &n));
        for (int k = 0; k < n; k++)
            FUZZ_REQUIRE(ids[k] < (uint32_t)tokenizer_vocab(t));
    }
    tokenizer_close(&t);
    return 0;
}
