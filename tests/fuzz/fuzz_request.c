// Any bytes as the body of each route that takes one, through the same parser and field tables as
// the server's; what is accepted must be within what the table says.
#include "app.h"
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
        const struct check_seed *v = (const void *)at;
        FUZZ_REQUIRE(v->set ? v->value <= INT64_MAX : !v->value);
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

static void check_route(const struct route *r, const struct json_t *doc)
{
    struct fault why = {0};
    char *fields = calloc(1, r->fields_size);
    FUZZ_REQUIRE(fields);
    if (check_object(r->body, doc, fields, &why)) {
        FUZZ_REQUIRE(why.code == ERR_INVALID && *why.msg);
    } else {
        for (int i = 0; i < r->body->count; i++)
            check_field(&r->body->fields[i], fields + r->body->fields[i].offset);
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
