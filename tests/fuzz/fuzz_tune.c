// Any bytes as a tuned table: as the whole file, and between a head and an end that fit.
#include "fuzz.h"
#include "kernels.h"
#include "tune.h"

#include <stdio.h>
#include <string.h>

static struct tune_table table, again;

static void try_text(const char *text, size_t n, const struct tune_id *id)
{
    struct buf back = {0};
    const enum err e = tune_parse(text, n, id, &table);
    FUZZ_REQUIRE(e == ERR_OK || e == ERR_FORMAT || e == ERR_UNSUPPORTED);
    FUZZ_REQUIRE(!e || !table.count);
    for (int i = 0; i < table.count; i++) {
        const struct tune_choice *c = &table.choice[i];
        FUZZ_REQUIRE(c->of[0] < OP_COUNT);
        FUZZ_REQUIRE((c->row == -1 && !c->build) ||
                     (c->row >= 0 && c->row < kernel_count() && c->build >= 0 &&
                      c->build < kernel_at(c->row)->builds &&
                      (kernel_at(c->row)->ops >> c->of[0] & 1)));
        for (int k = 0; k < i; k++)
            FUZZ_REQUIRE(memcmp(table.choice[k].of, c->of, sizeof c->of) != 0);
    }
    if (e)
        return;
    tune_write(&table, id, &back);
    FUZZ_REQUIRE(!tune_parse(back.data, back.len, id, &again) && again.count == table.count &&
                 !memcmp(again.choice, table.choice, (size_t)table.count * sizeof again.choice[0]));
    buf_deinit(&back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct tune_id id = {.driver = 7, .program = "1.0.0"};
    struct buf text = {0};
    char hash[33];
    int lines = 0;
    try_text((const char *)data, size, &id);
    table.count = 0;
    tune_write(&table, &id, &text);
    text.len = (size_t)(strstr(text.data, "\nend ") + 1 - text.data);
    buf_add(&text, data, size);
    for (size_t i = 0; i < size; i++)
        lines += data[i] == '\n';
    hash_hex(hash_bytes(text.data, text.len, 0), hash);
    buf_printf(&text, "end %d %s\n", lines, hash);
    try_text(text.data, text.len, &id);
    FUZZ_REQUIRE(size || !tune_parse(text.data, text.len, &id, &table)); // the head and the end fit
    buf_deinit(&text);
    return 0;
}
