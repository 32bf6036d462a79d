// Any bytes as an input image of a request: as a JSON value, as the text of one, and as a form with
// parts of that name. What is accepted is bytes or an earlier result, and never both.
#include "buf.h"
#include "fuzz.h"
#include "input.h"
#include "json.h"
#include "multipart.h"

#include <string.h>

static void check_one(enum err err, struct input_file *f, const struct fault *why)
{
    if (err) {
        FUZZ_REQUIRE(!f->blob && *why->msg && err == why->code);
        FUZZ_REQUIRE(err == ERR_INVALID && !strcmp(why->param, "image"));
        return;
    }
    FUZZ_REQUIRE(!f->blob != !*f->job);
    FUZZ_REQUIRE(strlen(f->job) < sizeof f->job && f->index >= 0 && f->index < JOB_MAX_PICTURES);
    FUZZ_REQUIRE(!f->blob || f->blob->data);
    blob_unref(&f->blob);
}

static void try_value(const struct json_t *v)
{
    struct input_file f = {0};
    struct fault why = {0};
    check_one(input_read("image", v, &f, &why), &f, &why);
}

// As a route sees it, in a list too; reading it once removes it.
static void try_call(struct json_t *body, struct multipart *form)
{
    struct call c = {.body = body, .form = form};
    struct input_file f = {0};
    struct fault why = {0};
    const enum err err = input_take(&c, "image", &f, &why);
    if (err || input_given(&f))
        check_one(err, &f, &why);
    if (!err && body && !form)
        FUZZ_REQUIRE(!json_given(body, "image"));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char type[] = "multipart/form-data; boundary=x";
    struct json_t *doc = NULL, *map = json_map_create();
    struct multipart form;
    struct fault why = {0};
    const char *text = data ? (const char *)data : "";
    FUZZ_REQUIRE(map);
    if (!json_parse(text, size, "request body", ERR_INVALID, &doc, &why)) {
        if (json_kind(doc) == JSON_TEXT || json_kind(doc) == JSON_MAP)
            try_value(doc);
        if (json_kind(doc) == JSON_MAP)
            try_call(doc, NULL);
    }
    if (json_put_text(map, "image", text, size)) {
        try_value(json_find(map, "image"));
        try_call(map, NULL);
    }
    if (!multipart_parse(type, text, size, &form, &why))
        try_call(map, &form);
    multipart_deinit(&form);
    json_destroy(&doc);
    json_destroy(&map);
    return 0;
}
