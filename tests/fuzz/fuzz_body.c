// Any bytes as a request body, plain and compressed, and as the headers that describe it.
#include "body.h"
#include "buf.h"
#include "fuzz.h"
#include "json.h"
#include "utf8.h"

#include <string.h>

enum { MAX_BODY = 1 << 16 };

static void try_text(const struct buf *body)
{
    struct json_t *doc = NULL;
    struct fault why = {0};
    size_t begin;
    if (body_text(body, &begin, &why)) {
        FUZZ_REQUIRE(why.code == ERR_INVALID && *why.msg);
        return;
    }
    FUZZ_REQUIRE(begin <= body->len);
    FUZZ_REQUIRE(!begin || utf8_valid(body->data + begin, body->len - begin, NULL));
    if (!json_parse(body->data ? body->data + begin : "", body->len - begin, "request body",
                    ERR_INVALID, &doc, &why))
        json_destroy(&doc);
}

static void try_headers(const char *text)
{
    struct fault why = {0};
    bool gzip;
    if (body_check_headers(text, text, &gzip, &why))
        FUZZ_REQUIRE(why.code == ERR_UNSUPPORTED && *why.msg && !(gzip && !strchr(text, ';')));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf body = {0};
    struct fault why = {0};
    buf_add(&body, data, size);
    buf_putc(&body, 0);
    FUZZ_REQUIRE(!body.failed);
    body.len--;
    try_headers(body.data);
    try_text(&body);
    const enum err err = body_gunzip(&body, MAX_BODY, &why);
    if (err)
        FUZZ_REQUIRE(err == why.code && *why.msg && !body.data && !body.len);
    else
        FUZZ_REQUIRE(body.len <= MAX_BODY && !body.failed);
    try_text(&body);
    buf_deinit(&body);
    return 0;
}
