// Any bytes as the XML of an S3-compatible store.
#include "fuzz.h"
#include "s3_xml.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum { KEY = 40 };
    char code[S3_CODE], key[KEY + 8]; // the compiler believes no text longer than its array
    // Exactly as long as the input, so that a read beyond its end is found.
    char *text = malloc(size ? size : 1);
    FUZZ_REQUIRE(text);
    if (size)
        memcpy(text, data, size);
    s3_xml_code(text, size, code);
    FUZZ_REQUIRE(strlen(code) < S3_CODE && !strpbrk(code, "<>&\r\n \""));
    for (size_t at = 0, before = 0; s3_xml_key(text, size, &at, key, KEY); before = at) {
        FUZZ_REQUIRE(at > before && at <= size && strlen(key) < KEY && !strpbrk(key, "<&"));
        FUZZ_REQUIRE(!memcmp(text + at - strlen(key), key, strlen(key)));
    }
    free(text);
    return 0;
}
