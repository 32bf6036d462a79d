// Any bytes as a multipart/form-data body; the first line is its Content-Type.
#include "fuzz.h"
#include "multipart.h"
#include "utf8.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *line = size ? memchr(data, '\n', size) : NULL;
    const size_t n = line ? (size_t)(line - data) : size;
    char *type = malloc(n + 1);
    struct multipart m;
    struct fault why = {0};
    if (!type)
        return 0;
    memcpy(type, size ? (const char *)data : "", n);
    type[n] = 0;
    const uint8_t *body = line ? line + 1 : NULL;
    const size_t left = line ? size - n - 1 : 0;
    const enum err e = multipart_parse(type, body, left, &m, &why);
    free(type);
    if (e) {
        FUZZ_REQUIRE(e == why.code && *why.msg && !m.parts && !m.text);
        return 0;
    }
    FUZZ_REQUIRE(m.parts <= MULTIPART_MAX_PARTS);
    for (int i = 0; i < m.parts; i++) {
        const struct multipart_part *p = &m.part[i];
        FUZZ_REQUIRE(*p->name && strlen(p->name) <= MULTIPART_MAX_NAME);
        FUZZ_REQUIRE(utf8_valid(p->name, strlen(p->name), NULL));
        FUZZ_REQUIRE(!p->filename || utf8_valid(p->filename, strlen(p->filename), NULL));
        FUZZ_REQUIRE(p->data >= body && p->data + p->size <= body + left);
        FUZZ_REQUIRE(!i || p->data >= m.part[i - 1].data + m.part[i - 1].size);
        FUZZ_REQUIRE(multipart_find(&m, p->name, 0));
    }
    multipart_deinit(&m);
    return 0;
}
