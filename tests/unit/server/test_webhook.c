// The addresses that webhooks may call: host names by the list, their resolved addresses by range.
#include "test.h"
#include "webhook.h"

#include <arpa/inet.h>
#include <string.h>
#include <sys/socket.h>

static bool is_private(const char *text)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
    if (inet_pton(AF_INET, text, &v4.sin_addr) == 1)
        return webhook_is_private((const struct sockaddr *)(const void *)&v4);
    CHECK_MSG(inet_pton(AF_INET6, text, &v6.sin6_addr) == 1, "%s", text);
    return webhook_is_private((const struct sockaddr *)(const void *)&v6);
}

// The first and the last address of each network, and its neighbours outside.
static void test_networks(void)
{
    static const char *const inside[] = {"0.0.0.0",
                                         "0.255.255.255",
                                         "10.0.0.0",
                                         "10.255.255.255",
                                         "100.64.0.0",
                                         "100.127.255.255",
                                         "127.0.0.0",
                                         "127.255.255.255",
                                         "169.254.0.0",
                                         "169.254.169.254",
                                         "169.254.255.255",
                                         "172.16.0.0",
                                         "172.31.255.255",
                                         "192.168.0.0",
                                         "192.168.255.255",
                                         "224.0.0.0",
                                         "239.1.2.3",
                                         "240.0.0.1",
                                         "255.255.255.255",
                                         "::",
                                         "::1",
                                         "fe80::",
                                         "fe80::1",
                                         "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                                         "fc00::",
                                         "fd00::1",
                                         "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                                         "ff00::",
                                         "ff02::1",
                                         "ffff::",
                                         "::ffff:127.0.0.1",
                                         "::ffff:10.1.2.3",
                                         "::ffff:169.254.169.254",
                                         "::ffff:192.168.0.1"};
    static const char *const outside[] = {
        "1.0.0.0",        "9.255.255.255",    "11.0.0.0",   "100.63.255.255",
        "100.128.0.0",    "126.255.255.255",  "128.0.0.0",  "169.253.255.255",
        "169.255.0.0",    "172.15.255.255",   "172.32.0.0", "192.167.255.255",
        "192.169.0.0",    "223.255.255.255",  "8.8.8.8",    "2001:db8::1",
        "fbff::1",        "fe00::1",          "fe7f::1",    "::2",
        "::ffff:8.8.8.8", "::ffff:172.32.0.0"};
    for (size_t i = 0; i < sizeof inside / sizeof inside[0]; i++)
        CHECK_MSG(is_private(inside[i]), "%s", inside[i]);
    for (size_t i = 0; i < sizeof outside / sizeof outside[0]; i++)
        CHECK_MSG(!is_private(outside[i]), "%s", outside[i]);
    const struct sockaddr other = {.sa_family = AF_UNIX};
    CHECK(webhook_is_private(&other));
}

static void test_hosts(void)
{
    static const char allow[] = "hooks.example.com, *.example.org,*.a.test, 10.0.0.1, *.9";
    static const struct {
        const char *url;
        bool allowed;
    } rows[] = {
        {"http://hooks.example.com/", true},
        {"https://HOOKS.example.com:8443/x?y", true},
        {"http://x.example.org/", true},
        {"http://x.y.example.org/", true},
        {"http://10.0.0.1/", true},
        {"http://192.0.2.9/", true}, // called unless its address is private
        {"http://hooks.example.com.evil.test/", false},
        {"http://xhooks.example.com/", false},
        {"http://x.hooks.example.com/", false},
        {"http://hooks.example.co/", false},
        {"http://example.org/", false},
        {"http://.example.org/", false},
        {"http://evilexample.org/", false},
        {"http://x.example.org.evil.test/", false},
        {"http://a.test/", false},
        {"http://10.0.0.11/", false},
        {"http://10.0.0.1@evil.test/", false},
        {"http://evil.test/?hooks.example.com", false},
        {"http://evil.test#hooks.example.com", false},
        {"ftp://hooks.example.com/", false},
        {"file:///etc/passwd", false},
        {"hooks.example.com", false},
        {"", false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct fault why = {0};
        const enum err err = webhook_check(allow, rows[i].url, &why);
        CHECK_MSG(err == (rows[i].allowed ? ERR_OK : ERR_INVALID), "%s: %s", rows[i].url, why.msg);
        if (err)
            CHECK_STR(why.param, "webhook_url");
        CHECK_INT(webhook_check("", rows[i].url, &why), ERR_INVALID);
        CHECK_INT(webhook_check(NULL, rows[i].url, &why), ERR_INVALID);
    }
}

int main(void)
{
    test_networks();
    test_hosts();
    return test_end();
}
