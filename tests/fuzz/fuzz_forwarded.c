// Any bytes as forwarded headers, as the list of trusted proxies, and as a web address.
#include "address.h"
#include "buf.h"
#include "fuzz.h"
#include "proxy.h"

#include <string.h>

// Every part of a URL must be valid.
static void check_said(const struct proxy_said *s)
{
    struct address a;
    char prefix[ADDRESS_PREFIX];
    FUZZ_REQUIRE(!*s->scheme || !strcmp(s->scheme, "http") || !strcmp(s->scheme, "https"));
    FUZZ_REQUIRE(!*s->host || address_parse_host(s->host, "", &a));
    FUZZ_REQUIRE(s->port >= 0 && s->port <= 65535);
    FUZZ_REQUIRE(address_prefix(s->prefix, strlen(s->prefix), prefix) &&
                 !strcmp(prefix, s->prefix));
    FUZZ_REQUIRE(!strpbrk(s->prefix, " \"<>\\\r\n?#") && strncmp(s->prefix, "//", 2));
    FUZZ_REQUIRE(strspn(s->client, "0123456789abcdef:.") == strlen(s->client));
}

static void try_address(const char *text)
{
    struct address a, again;
    struct buf b = {0};
    const char *rest;
    if (!address_parse(text, &a, &rest))
        return;
    buf_printf(&b, "%s://", a.scheme);
    address_write_host(&a, &b);
    FUZZ_REQUIRE(address_parse(b.data, &again, NULL) && address_same_host(&a, &again));
    FUZZ_REQUIRE(!*rest || strchr("/?#", *rest));
    buf_deinit(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const known[] = {"loopback,private", "::/0"};
    char *text = calloc(1, size + 1);
    FUZZ_REQUIRE(text);
    if (size)
        memcpy(text, data, size);
    for (int i = 0; i < 2; i++) {
        struct proxy_trust trust;
        struct proxy_said said;
        struct fault why;
        FUZZ_REQUIRE(!proxy_parse(known[i], &trust, &why));
        proxy_read(&trust, &(struct proxy_headers){.forwarded = text}, &said);
        check_said(&said);
        proxy_read(&trust,
                   &(struct proxy_headers){
                       .client = text, .scheme = text, .host = text, .port = text, .prefix = text},
                   &said);
        check_said(&said);
        if (proxy_parse(text, &trust, &why))
            FUZZ_REQUIRE(why.code == ERR_INVALID && *why.msg);
        else
            FUZZ_REQUIRE(trust.count <= PROXY_MAX_NETS);
    }
    try_address(text);
    address_clean_path(text);
    FUZZ_REQUIRE(!strstr(text, "//") && strlen(text) <= size);
    free(text);
    return 0;
}
