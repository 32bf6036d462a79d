// Any bytes as a LoRA; one that is accepted is added to weights of the shape that it asks for.
#include "fuzz.h"
#include "fuzz_files.h"
#include "lora.h"

#include <stdio.h>
#include <stdlib.h>

enum { MOST = 1 << 14 };

// Tries each shape [rows, columns] on the layer.
static void try_shapes(const struct lora *l, int index)
{
    for (uint64_t rows = 1; rows <= 8; rows++)
        for (uint64_t columns = 1; columns <= 8; columns++) {
            const uint64_t elements = rows * columns;
            const struct safetensor w = {.name = lora_name(l, index),
                                         .dtype = ST_F32,
                                         .dims = 2,
                                         .shape = {rows, columns},
                                         .elements = elements};
            float *values = calloc(elements, sizeof *values);
            struct fault why = {0};
            if (lora_check(l, index, &w, &why))
                FUZZ_REQUIRE(why.msg[0]);
            else
                FUZZ_REQUIRE(!values || !lora_add(l, index, elements, values));
            free(values);
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct lora *l;
    struct fault why = {0};
    char path[600];

    if (size > MOST)
        return 0;
    fuzz_write("l.safetensors", data, size);
    snprintf(path, sizeof path, "%s/l.safetensors", fuzz_folder());
    const enum err e = lora_open(&(struct lora_params){path, 0.5}, &l, &why);
    FUZZ_REQUIRE(e ? !l && why.msg[0] : lora_count(l) > 0);
    for (int i = 0; !e && i < lora_count(l); i++) {
        FUZZ_REQUIRE(lora_find(l, lora_name(l, i)) == i && lora_check(l, i, NULL, &why));
        try_shapes(l, i);
    }
    lora_close(&l);
    return 0;
}
