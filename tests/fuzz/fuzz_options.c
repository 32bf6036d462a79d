// Any bytes as a configuration file, as a keys file, and as the small texts in requests: base64,
// sizes, webhook URLs.
#include "app.h"
#include "auth.h"
#include "buf.h"
#include "conf.h"
#include "fuzz.h"
#include "text.h"
#include "webhook.h"

#include <string.h>

static void try_conf(const char *text, size_t size)
{
    struct conf c;
    struct fault why = {0};
    struct buf shown = {0};
    char host[256];
    int port;
    bool help;
    FUZZ_REQUIRE(!conf_load(&c, 0, NULL, &help, &why));
    if (conf_parse(&c, text, size, &why)) {
        FUZZ_REQUIRE(why.code == ERR_INVALID && strstr(why.msg, "line"));
    } else {
        // The printed configuration parses to the same values.
        struct buf again = {0};
        conf_listen(&c, host, sizeof host, &port, &why);
        conf_show(&c, &shown);
        FUZZ_REQUIRE(!conf_parse(&c, shown.data, shown.len, &why));
        conf_show(&c, &again);
        FUZZ_REQUIRE(!strcmp(shown.data, again.data));
        buf_deinit(&again);
    }
    buf_deinit(&shown);
    conf_deinit(&c);
}

static void try_texts(const char *text)
{
    struct buf b = {0}, back = {0};
    struct fault why;
    struct picture_request r = {0};
    if (!check_query(&picture_table, "size", text, &r, &why))
        FUZZ_REQUIRE(r.size.width >= 0 && r.size.width <= 65536 && r.size.height <= 65536 &&
                     !r.size.width == !r.size.height);
    if (text_unbase64(&b, text) && b.len) {
        text_base64(&back, b.data, b.len);
        buf_clear(&b);
        FUZZ_REQUIRE(text_unbase64(&b, back.data));
    }
    webhook_check("hooks.example.com,*.example.org", text, &why);
    text_json(&back, text);
    buf_deinit(&b);
    buf_deinit(&back);
}

static void try_keys(const char *text, size_t size)
{
    struct auth *auth, *in_force;
    struct fault why = {0};
    const char *owner;
    unsigned scopes;
    double retry;
    if (auth_parse(text, size, &auth, &why)) {
        FUZZ_REQUIRE(why.code == ERR_INVALID && *why.msg && !auth);
        return;
    }
    // A file that is accepted has keys, and with keys nobody comes in without one.
    FUZZ_REQUIRE(auth_count(auth) > 0);
    FUZZ_REQUIRE(!auth_create("", &in_force, &why));
    auth_replace(in_force, &auth);
    FUZZ_REQUIRE(!auth && auth_count(in_force) > 0);
    FUZZ_REQUIRE(auth_check(in_force, NULL, &owner, &scopes, &retry) == ERR_INVALID && !scopes);
    auth_destroy(&in_force);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = calloc(1, size + 1);
    FUZZ_REQUIRE(text);
    if (size)
        memcpy(text, data, size);
    try_conf(text, size);
    try_keys(text, size);
    try_texts(text);
    free(text);
    return 0;
}
