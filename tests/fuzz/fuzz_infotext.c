// Any text as an infotext; the fields form a JSON object without duplicate keys.
#include "buf.h"
#include "fuzz.h"
#include "json.h"
#include "picture.h"
#include "utf8.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf text = {0}, out = {0};
    struct json_t *doc;
    struct fault why;

    buf_add(&text, data, size);
    buf_putc(&text, 0);
    if (text.data && utf8_valid(text.data, strlen(text.data), NULL)) {
        picture_infotext_fields(&out, text.data);
        FUZZ_REQUIRE(!json_parse(out.data, out.len, "fields", ERR_INVALID, &doc, &why));
        FUZZ_REQUIRE(json_text(json_find(doc, "Negative prompt"), NULL));
        json_destroy(&doc);
    }
    buf_deinit(&text);
    buf_deinit(&out);
    return 0;
}
