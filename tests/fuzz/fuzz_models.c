// Any bytes as the file that names the models of a service.
#include "fuzz.h"
#include "models_file.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct models_file m;
    struct fault why = {0};
    if (models_file_parse(data ? (const char *)data : "", size, &m, &why)) {
        FUZZ_REQUIRE(why.msg[0] && !m.text && !m.n);
        return 0;
    }
    FUZZ_REQUIRE(m.n >= 1 && m.n <= MODELS_MAX);
    for (int i = 0; i < m.n; i++) {
        FUZZ_REQUIRE(*m.entry[i].name && strlen(m.entry[i].name) <= MODELS_NAME);
        FUZZ_REQUIRE(m.entry[i].value[MODELS_MODEL]);
        for (int k = 0; k < MODELS_KEYS; k++)
            FUZZ_REQUIRE(!m.entry[i].value[k] || *m.entry[i].value[k]);
        for (int k = 0; k < i; k++)
            FUZZ_REQUIRE(strcmp(m.entry[i].name, m.entry[k].name) != 0);
    }
    models_file_deinit(&m);
    return 0;
}
