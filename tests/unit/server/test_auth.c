// API keys: the whole hash is compared, each key has its own scopes and owner, rates are enforced
// at their limit and across a reload.
#include "auth.h"
#include "buf.h"
#include "router.h"
#include "sha256.h"
#include "test.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { HASH = 64 };

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

static struct auth *parse(const char *text)
{
    struct fault why = {0};
    struct auth *a = NULL;
    CHECK_MSG(!auth_parse(text, strlen(text), &a, &why), "%s", why.msg);
    return a;
}

// A new key and its line in the file.
static void new_key(const char *name, const char *scopes, char key[100], char line[200])
{
    struct buf k = {0}, l = {0};
    struct fault why = {0};
    CHECK_INT(auth_new_key(&(struct auth_key_params){name, scopes, NULL}, &k, &l, &why), ERR_OK);
    snprintf(key, 100, "%s", k.data);
    snprintf(line, 200, "%s", l.data);
    buf_deinit(&k);
    buf_deinit(&l);
}

static enum err check(struct auth *a, const char *key)
{
    const char *owner;
    unsigned scopes;
    double retry;
    return auth_check(a, key, &owner, &scopes, &retry);
}

static void test_the_whole_hash_counts(void)
{
    char key[100], line[200];
    new_key("a", "read", key, line);
    char *hash = strchr(line, ' ') + 1;
    struct auth *a = parse(line);
    CHECK_INT(check(a, key), ERR_OK);
    CHECK_INT(check(a, NULL), ERR_INVALID);
    CHECK_INT(check(a, ""), ERR_INVALID);
    auth_destroy(&a);
    for (int i = 0; i < HASH; i++) {
        const char was = hash[i];
        hash[i] = was == '0' ? '1' : '0';
        a = parse(line);
        CHECK_MSG(check(a, key) == ERR_INVALID, "digit %d", i);
        auth_destroy(&a);
        hash[i] = was;
    }
    // And so does the whole key.
    a = parse(line);
    const size_t n = strlen(key);
    for (size_t i = 0; i < n; i++) {
        const char was = key[i];
        key[i] ^= 1;
        CHECK_MSG(check(a, key) == ERR_INVALID, "character %zu", i);
        key[i] = was;
    }
    key[n - 1] = 0;
    CHECK_INT(check(a, key), ERR_INVALID);
    auth_destroy(&a);
}

static void test_owner_and_scopes_are_the_keys(void)
{
    static const struct {
        const char *name, *scopes;
        unsigned bits;
    } rows[] = {{"a", "read", SCOPE_READ},
                {"b", "generate", SCOPE_GENERATE},
                {"c", "admin", SCOPE_ADMIN},
                {"d", "generate,read", SCOPE_GENERATE | SCOPE_READ},
                {"e", "admin,read", SCOPE_ADMIN | SCOPE_READ}};
    enum { ROWS = sizeof rows / sizeof rows[0] };
    char keys[ROWS][100], line[200];
    struct buf file = {0};
    for (int i = 0; i < ROWS; i++) {
        new_key(rows[i].name, rows[i].scopes, keys[i], line);
        buf_printf(&file, "%s\n", line);
    }
    struct auth *a = parse(file.data);
    CHECK_INT(auth_count(a), ROWS);
    for (int i = 0; i < ROWS; i++) {
        const char *owner = NULL;
        unsigned scopes = 0;
        double retry;
        CHECK_INT(auth_check(a, keys[i], &owner, &scopes, &retry), ERR_OK);
        CHECK_STR(owner, rows[i].name);
        CHECK_INT(scopes, rows[i].bits);
    }
    const char *owner = "x";
    unsigned scopes = 7;
    double retry;
    CHECK_INT(auth_check(a, "sk-imagend-wrong", &owner, &scopes, &retry), ERR_INVALID);
    CHECK_STR(owner, "");
    CHECK_INT(scopes, 0);
    auth_destroy(&a);
    buf_deinit(&file);
}

// How many requests in a row get through, and how long the next has to wait.
static int burst(struct auth *a, const char *key, double *retry)
{
    const char *owner;
    unsigned scopes;
    int n = 0;
    while (n < 1000 && !auth_check(a, key, &owner, &scopes, retry))
        n++;
    return n;
}

static void test_rates(void)
{
    char key[100], other[100], line[200], line2[200], text[600];
    double retry = 0;
    new_key("a", "read", key, line);
    new_key("b", "read", other, line2);
    static const struct {
        const char *rate;
        int burst;
        double retry;
    } rows[] = {{"0.001/3", 3, 1000}, {"0.5/1", 1, 2}, {"0.01", 1, 100}, {"0.004/7", 7, 250}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        snprintf(text, sizeof text, "%s %s\n%s\n", line, rows[i].rate, line2);
        struct auth *a = parse(text);
        CHECK_INT(burst(a, key, &retry), rows[i].burst);
        CHECK_NEAR(retry, rows[i].retry, rows[i].retry * 0.05);
        // A key without a rate, and beside one that is used up.
        CHECK_INT(burst(a, other, &retry), 1000);
        auth_destroy(&a);
    }
    // It fills again at its rate, and never over its burst.
    snprintf(text, sizeof text, "%s 4/2\n", line);
    struct auth *a = parse(text);
    sleep_ms(300);
    CHECK_INT(burst(a, key, &retry), 2);
    sleep_ms(300);
    CHECK(burst(a, key, &retry) >= 1);
    auth_destroy(&a);
}

static void test_a_reload_refills_nothing(void)
{
    char key[100], line[200], text[300];
    double retry = 0;
    new_key("a", "read", key, line);
    snprintf(text, sizeof text, "%s 0.001/5\n", line);
    struct auth *a = parse(text), *fresh = parse(text);
    const char *owner;
    unsigned scopes;
    for (int i = 0; i < 3; i++)
        CHECK_INT(auth_check(a, key, &owner, &scopes, &retry), ERR_OK);
    auth_replace(a, &fresh);
    CHECK(!fresh);
    CHECK_INT(burst(a, key, &retry), 2);
    // A smaller burst counts at once, a larger one is filled from where it was.
    static const char *const rates[] = {"0.001/2", "0.001/100"};
    for (int i = 0; i < 2; i++) {
        snprintf(text, sizeof text, "%s %s\n", line, rates[i]);
        fresh = parse(text);
        auth_replace(a, &fresh);
        CHECK_INT(burst(a, key, &retry), 0);
    }
    CHECK_STR(owner, "a"); // a request in progress still holds it
    auth_destroy(&a);
    // The new burst is a limit for what was saved under the old one.
    snprintf(text, sizeof text, "%s 0.001/50\n", line);
    a = parse(text);
    snprintf(text, sizeof text, "%s 0.001/4\n", line);
    fresh = parse(text);
    auth_replace(a, &fresh);
    CHECK_INT(burst(a, key, &retry), 4);
    auth_destroy(&a);
}

static void test_files(void)
{
    char key[100], line[200], text[700];
    new_key("a", "read", key, line);
    // Defects around the first `take` characters of a valid line.
    static const struct {
        const char *before;
        int take;
        const char *after;
    } bad[] = {
        {"", 0, ""},
        {"# a comment only\n", 0, ""},
        {"", 0, "a read\n"},
        {"", 0, "a 1234 read\n"},
        {"", 200, " more words than four here\n"},
        {"", 200, " 5/20 word\n"},
        {"", 200, " 0/5\n"},
        {"", 200, " 5/0\n"},
        {"", 200, " -1/5\n"},
        {"", 200, " 5/\n"},
        {"", 200, " 5/5x\n"},
        {"", 200, " nan/5\n"},
        {"a 0000000000000000000000000000000000000000000000000000000000000000 read\n", 200, ""},
        {"", 66, "\n"},
        {"", 66, " reads\n"},
        {"", 66, " read,writes\n"},
        {"x/", 200, "\n"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct fault why = {0};
        struct auth *a = NULL;
        snprintf(text, sizeof text, "%s%.*s%s", bad[i].before, bad[i].take, line, bad[i].after);
        CHECK_MSG(auth_parse(text, strlen(text), &a, &why) == ERR_INVALID, "%s", text);
        CHECK(!a && *why.msg);
        auth_destroy(&a);
    }
    // Capital digits are another spelling, not the same hash.
    snprintf(text, sizeof text, "%s", line);
    for (char *s = strchr(text, ' '); s < text + 66; s++)
        if (*s >= 'a' && *s <= 'f')
            *s = (char)(*s - 'a' + 'A');
    struct fault why = {0};
    struct auth *a = NULL;
    CHECK_INT(auth_parse(text, strlen(text), &a, &why), ERR_INVALID);
}

// FIPS 180-4 and RFC 4231.
static void test_digests(void)
{
    char hex[65];
    sha256_hex("abc", 3, hex);
    CHECK_STR(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    sha256_hmac_hex("Jefe", 4, "what do ya want for nothing?", 28, hex);
    CHECK_STR(hex, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    CHECK(sha256_same("abc", "abc"));
    CHECK(!sha256_same("abc", "abd") && !sha256_same("abc", "ab") && !sha256_same("ab", "abc"));
}

int main(void)
{
    test_digests();
    test_the_whole_hash_counts();
    test_owner_and_scopes_are_the_keys();
    test_rates();
    test_a_reload_refills_nothing();
    test_files();
    return test_end();
}
