// Any text as a prompt with A1111's tags: what remains is a prompt without tags, and the names are
// such as a request may have.
#include "buf.h"
#include "fuzz.h"
#include "picture.h"
#include "utf8.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct check_field *f = check_find(&picture_table, "loras", NULL);
    struct check_scales found = {0};
    struct picture_request again = {0};
    struct buf text = {0}, written = {0};
    struct fault why = {0};
    char *rest = NULL;

    buf_add(&text, data, size);
    buf_putc(&text, 0);
    if (!text.data || !utf8_valid(text.data, strlen(text.data), NULL)) {
        // The server refuses such text before.
    } else if (picture_take_tags(text.data, &rest, &found, &why)) {
        FUZZ_REQUIRE(why.code == ERR_INVALID);
    } else if (rest) {
        FUZZ_REQUIRE(found.count > 0 && strlen(rest) < strlen(text.data));
        FUZZ_REQUIRE(utf8_valid(rest, strlen(rest), NULL));
        // The list is read back from its text.
        check_write_text(f, &found, 0, &written);
        FUZZ_REQUIRE(!check_query(&picture_table, "loras", written.data, &again, &why));
        FUZZ_REQUIRE(again.loras.count == found.count);
        for (int i = 0; i < found.count; i++)
            FUZZ_REQUIRE(!strcmp(again.loras.item[i].name, found.item[i].name) &&
                         again.loras.item[i].scale == found.item[i].scale);
    } else {
        FUZZ_REQUIRE(!found.count);
    }
    free(rest);
    buf_deinit(&text);
    buf_deinit(&written);
    return 0;
}
