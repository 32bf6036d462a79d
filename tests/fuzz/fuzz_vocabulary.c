// Any text as a vocabulary.json, and, behind a line that is "---", a prompt for it.
#include "fuzz.h"
#include "utf8.h"
#include "vocabulary.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char mark[] = "\n---\n";
    const struct vocabulary *v;
    struct fault why = {0};
    char nearest[VOCABULARY_NEAREST], *text = malloc(size + 1);
    if (!text)
        return 0;
    if (size)
        memcpy(text, data, size);
    text[size] = 0;
    char *split = strlen(text) == size ? strstr(text, mark) : NULL;
    const char *prompt = split ? split + strlen(mark) : "a dog";
    const size_t n = split ? (size_t)(split - text) : size;
    const enum err e = vocabulary_parse(text, n, "vocabulary.json", &v, &why);
    FUZZ_REQUIRE(!e == (v != NULL) && e == why.code);
    if (v && utf8_valid(prompt, strlen(prompt), NULL)) {
        FUZZ_REQUIRE(vocabulary_things(v) > 0 && *vocabulary_json(v) == '{');
        vocabulary_miss(v, prompt, nearest);
        FUZZ_REQUIRE(strlen(nearest) < sizeof nearest &&
                     utf8_valid(nearest, strlen(nearest), NULL));
    }
    vocabulary_unref(&v);
    free(text);
    return 0;
}
