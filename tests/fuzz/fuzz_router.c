// Any bytes as a Host header, and as a path and query, against every route and query table.
#include "app.h"
#include "fuzz.h"

#include <string.h>

static const struct route *const tables[] = {
    routes_openai, routes_native, routes_a1111, routes_admin, routes_openapi, routes_page, NULL};

static void try_query(const struct route *r, const char *name, const char *value)
{
    struct fault why = {0};
    char *fields = calloc(1, r->fields_size);
    FUZZ_REQUIRE(fields);
    check_defaults(r->query, fields);
    if (check_query(r->query, name, value, fields, &why))
        FUZZ_REQUIRE(why.code == ERR_INVALID && *why.msg);
    free(fields);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = calloc(1, size + 1), *path = calloc(1, size + 1);
    FUZZ_REQUIRE(text && path);
    if (size)
        memcpy(text, data, size);
    char *query = strchr(text, '?'), *value = query ? strchr(query, '=') : NULL;
    if (query)
        *query++ = 0;
    if (value)
        *value++ = 0;
    FUZZ_REQUIRE(!router_host_known(text, (const char *const[]){"a.test", NULL}) || *text);
    for (size_t t = 0; tables[t]; t++) {
        for (const struct route *r = tables[t]; r->path; r++) {
            const char *arg[2];
            strcpy(path, text);
            const bool match = router_match(r->path, path, arg);
            // Handlers rely on these properties of path arguments.
            for (int i = 0; match && i < 2; i++)
                FUZZ_REQUIRE(!arg[i] || (*arg[i] && !strchr(arg[i], '/')));
            FUZZ_REQUIRE(match || strcmp(r->path, text) || strchr(text, '{'));
            if (r->query && query)
                try_query(r, query, value ? value : "");
        }
    }
    const struct route *near = router_nearest(tables, "GET", text);
    FUZZ_REQUIRE(!near || !(near->flags & ROUTE_HIDDEN));
    free(text);
    free(path);
    return 0;
}
