// Any bytes as a SentencePiece model; if it loads, it must also encode.
#include "fuzz.h"
#include "tokenizer_priv.h"

#include <string.h>

static void take_piece(void *ctx, const char *piece, size_t n, int id)
{
    const struct sp_model *m = ctx;
    (void)piece;
    (void)n;
    FUZZ_REQUIRE(id < sp_pieces(m));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const texts[] = {
        "", "a cat", " \xef\xbd\xb6\xef\xbe\x9e \xf0\x9f\x98\x80 e\xcc\x81", "the </s> cat"};
    char says[160];
    struct sp_model *m;

    for (int prefix = 0; prefix < 2 && !spiece_check(data, size); prefix++) {
        if (sp_load(data ? (const void *)data : "", size, prefix, &m, says, sizeof says) != SP_OK)
            continue;
        for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
            sp_encode(m, texts[i], strlen(texts[i]), take_piece, m);
        sp_piece_id(m, "</s>", 4);
        sp_free(&m);
    }
    return 0;
}
