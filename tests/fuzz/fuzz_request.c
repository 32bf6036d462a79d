// Any bytes as the body of each route that takes one, with the server's parser and field tables;
// accepted values must be within the table's limits.
#include "app.h"
#include "buf.h"
#include "fuzz.h"
#include "json.h"

#include <string.h>

static const struct route *const tables[] = {routes_openai, routes_native, routes_a1111};

static void check_field(const struct check_field *f, const char *at)
{
    switch (f->type) {
    case CHECK_INT: {
        const int v = *(const int *)(const void *)at;
        FUZZ_REQUIRE(!v || (v >= f->min && v <= f->max));
        break;
    }
    case CHECK_NUMBER: {
        const float v = *(const float *)(const void *)at;
        FUZZ_REQUIRE(v == 0 || ((double)v >= f->min && (double)v <= f->max));
        break;
    }
    case CHECK_SEED: {
        FUZZ_REQUIRE(*(const uint64_t *)(const void *)at <= INT64_MAX);
        break;
    }
    case CHECK_TEXT: {
        const char *s = *(const char *const *)(const void *)at;
        FUZZ_REQUIRE(!s || strlen(s) <= f->max);
        break;
    }
    case CHECK_ENUM: {
        const int v = *(const int *)(const void *)at;
        FUZZ_REQUIRE(v >= 0);
        for (int i = 0; i <= v; i++)
            FUZZ_REQUIRE(f->choices[i]);
        break;
    }
    default: break;
    }
}

// Written fields parse to the same values.
static void check_round_trip(const struct route *r, const void *fields)
{
    struct buf once = {0}, twice = {0};
    struct json_t *doc = NULL;
    struct fault why = {0};
    char *again = calloc(1, r->fields_size);
    FUZZ_REQUIRE(again);
    check_write(r->body, fields, &once);
    FUZZ_REQUIRE(!json_parse(once.data, once.len, "fields", ERR_INVALID, &doc, &why));
    FUZZ_REQUIRE(!check_object(r->body, doc, again, &why));
    check_write(r->body, again, &twice);
    FUZZ_REQUIRE(!strcmp(once.data, twice.data));
    json_destroy(&doc);
    buf_deinit(&once);
    buf_deinit(&twice);
    free(again);
}

static void check_route(const struct route *r, const struct json_t *doc)
{
    struct fault why = {0};
    const struct check_field *f;
    size_t offset = 0;
    char *fields = calloc(1, r->fields_size);
    FUZZ_REQUIRE(fields);
    if (check_object(r->body, doc, fields, &why)) {
        FUZZ_REQUIRE(why.code == ERR_INVALID && *why.msg);
    } else {
        for (int row = 0; (f = check_next(r->body, &row, &offset));)
            check_field(f, fields + offset);
        check_round_trip(r, fields);
    }
    free(fields);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct json_t *doc = NULL;
    struct fault why = {0};
    if (json_parse(data ? (const char *)data : "", size, "request body", ERR_INVALID, &doc, &why)) {
        FUZZ_REQUIRE(!doc && *why.msg);
        return 0;
    }
    for (size_t t = 0; t < sizeof tables / sizeof tables[0]; t++)
        for (const struct route *r = tables[t]; r->path; r++)
            if (r->body)
                check_route(r, doc);
    json_destroy(&doc);
    return 0;
}
