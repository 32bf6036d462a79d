// UTF-8 validity, Python's white space, the cache hash, mistyped names, and JSON, base64 and
// hexadecimal output.
#include "buf.h"
#include "hash.h"
#include "test.h"
#include "text.h"
#include "utf8.h"

static void check_utf8(void)
{
    static const struct {
        const char *s;
        size_t n, bad;
    } rows[] = {
        {"\xc0\x80", 2, 0},
        {"a\xc1\xbf", 3, 1},
        {"\xe0\x9f\xbf", 3, 0},
        {"\xed\xa0\x80", 3, 0},
        {"\xf0\x8f\xbf\xbf", 4, 0},
        {"\xf4\x90\x80\x80", 4, 0},
        {"ab\xff", 3, 2},
        {"\xe2\x82", 2, 0},
        {"\x80", 1, 0},
        {"\xf5\x80\x80\x80", 4, 0},
        {"x\xc3y", 3, 1},
        {"abcdefgh\xff", 9, 8},
        {"abcdefghijk\xc3y", 13, 11},
        {"abcdefghijklmno\x80", 16, 15},
    };
    static const char good[] = "a\0\x7f\xc2\x80\xdf\xbf\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf"
                               "\xbf\xf0\x90\x80\x80\xf4\x8f\xbf\xbf";
    size_t bad;
    uint32_t c;

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        bad = 99;
        CHECK_MSG(!utf8_valid(rows[i].s, rows[i].n, &bad), "row %zu", i);
        CHECK_INT(bad, rows[i].bad);
    }
    CHECK(utf8_valid(good, sizeof good - 1, NULL));
    CHECK(utf8_valid("", 0, NULL));
    CHECK_INT(utf8_decode("\xf0\x9f\x98\x80", 4, &c), 4);
    CHECK_INT(c, 0x1f600);
    CHECK_INT(utf8_decode("\xf0\x9f\x98\x80", 3, &c), 0);
}

static void check_space(void)
{
    int count = 0;
    for (uint32_t c = 0; c < 0x110000; c++)
        count += utf8_is_space(c);
    CHECK_INT(count, 29); // of Unicode 15, as Python counts them
    CHECK(utf8_is_space(0x1f) && utf8_is_space(0x3000) && !utf8_is_space(0x200b));
}

static void check_hash(void)
{
    unsigned char d[40] = {0};
    struct hash h[41];
    char hex[33];

    for (size_t n = 0; n <= 40; n++) {
        h[n] = hash_bytes(d, n, 0);
        for (size_t m = 0; m < n; m++)
            CHECK_MSG(!hash_equal(h[n], h[m]) && h[n].lo != h[m].lo, "zeros %zu %zu", n, m);
    }
    // one flipped bit changes about half of either word
    for (int bit = 0; bit < 320; bit++) {
        struct hash f;
        d[bit / 8] = (unsigned char)(1 << bit % 8);
        f = hash_bytes(d, 40, 0);
        d[bit / 8] = 0;
        int lo = __builtin_popcountll(f.lo ^ h[40].lo), hi = __builtin_popcountll(f.hi ^ h[40].hi);
        CHECK_MSG(lo > 10 && lo < 54 && hi > 10 && hi < 54, "bit %d: %d %d", bit, lo, hi);
    }
    // also in the bytes after the last whole word
    for (int i = 32; i < 39; i++) {
        const struct hash zero = hash_bytes(d, 39, 0);
        d[i] = 1;
        CHECK_MSG(!hash_equal(hash_bytes(d, 39, 0), zero), "byte %d", i);
        d[i] = 0;
    }
    CHECK(!hash_equal(hash_bytes(d, 40, 0), hash_bytes(d, 40, 1)));
    CHECK(!hash_equal(hash_join(h[1], h[2]), hash_join(h[2], h[1])));
    CHECK(hash_equal(hash_text("abc"), hash_bytes("abc", 3, 0)));
    hash_hex((struct hash){.hi = 1, .lo = 0xabcdef}, hex);
    CHECK_STR(hex, "00000000000000010000000000abcdef");
}

static void check_distance(void)
{
    static const struct {
        const char *a, *b;
        int distance;
        bool near;
    } rows[] = {
        {"", "", 0, true},
        {"", "abc", 3, false},
        {"abc", "", 3, false},
        {"guidance", "guidance", 0, true},
        {"guidence", "guidance", 1, true},
        {"GUIDANCE", "guidance", 0, true},
        {"genrate", "generate", 1, true},
        {"serev", "serve", 1, true}, // swapped neighbours
        {"sev", "serve", 2, false},
        {"kitten", "sitting", 3, false},
        {"memory-limt", "memory-limit", 1, true},
        {"queue-limit", "keep-bytes", 9, false},
    };
    char a[200], b[200];

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        CHECK_INT(text_distance(rows[i].a, rows[i].b), rows[i].distance);
        CHECK_INT(text_distance(rows[i].b, rows[i].a), rows[i].distance);
        const char *nearer = text_nearer(rows[i].a, rows[i].b, NULL);
        CHECK_MSG(nearer == (rows[i].near ? rows[i].b : NULL), "%s %s", rows[i].a, rows[i].b);
    }
    CHECK_STR(text_nearer("shw", "show", "shaw"), "shaw"); // the first of equals
    CHECK_STR(text_nearer("show", "show", "shaw"), "show");
    CHECK_STR(text_nearer("show", "configure", "shaw"), "shaw");
    // longer than what counts
    memset(a, 'x', sizeof a - 1);
    memset(b, 'y', sizeof b - 1);
    a[sizeof a - 1] = b[sizeof b - 1] = 0;
    CHECK_INT(text_distance(a, b), 63);
}

static void check_numbers(void)
{
    static const struct {
        const char *text;
        bool good;
        double value;
    } rows[] = {
        {"0", true, 0},      {"-1.5", true, -1.5}, {"+2", true, 2},   {".5", true, .5},
        {"1e3", true, 1000}, {"1E-2", true, .01},  {"", false, 0},    {" 1", false, 0},
        {"1 ", false, 0},    {"0x10", false, 0},   {"inf", false, 0}, {"nan", false, 0},
        {"1e", false, 0},    {"1.2.3", false, 0},  {"--1", false, 0}, {"e", false, 0},
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        double v = 0;
        CHECK_MSG(text_number(rows[i].text, &v) == rows[i].good, "\"%s\"", rows[i].text);
        CHECK_MSG(!rows[i].good || v == rows[i].value, "\"%s\": %g", rows[i].text, v);
    }
}

static void check_written(void)
{
    static const struct {
        const char *bytes;
        size_t n;
        const char *base64;
    } rows[] = {{"", 0, ""},
                {"f", 1, "Zg=="},
                {"fo", 2, "Zm8="},
                {"foo", 3, "Zm9v"},
                {"foob", 4, "Zm9vYg=="},
                {"fooba", 5, "Zm9vYmE="},
                {"foobar", 6, "Zm9vYmFy"},
                {"\xff\xfe\0", 3, "//4A"},
                {"\xfb\xef", 2, "++8="}};
    static const char *const not_base64[] = {"Zg==Zg", "Z", "Zm9vY", "Zm 9v", "Zm-v", "Z=g="};

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct buf b = {0}, back = {0};
        text_base64(&b, rows[i].bytes, rows[i].n);
        CHECK_STR(b.data ? b.data : "", rows[i].base64);
        CHECK(text_unbase64(&back, rows[i].base64) && back.len == rows[i].n);
        CHECK(!back.len || !memcmp(back.data, rows[i].bytes, back.len));
        buf_deinit(&b);
        buf_deinit(&back);
    }
    // Padding may be missing, and lines may be broken anywhere.
    static const char *const same[] = {"Zm9vYmE=", "Zm9vYmE",
                                       "Zm9v\nYmE=", "\r\nZ\nm9\r\nvYmE\n=", "Zm9vYm\nE"};
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        struct buf back = {0};
        CHECK_MSG(text_unbase64(&back, same[i]) && back.len == 5, "%s", same[i]);
        CHECK_STR(back.data, "fooba");
        buf_deinit(&back);
    }
    for (size_t i = 0; i < sizeof not_base64 / sizeof *not_base64; i++) {
        struct buf b = {0};
        CHECK_MSG(!text_unbase64(&b, not_base64[i]), "%s", not_base64[i]);
        buf_deinit(&b);
    }
    struct buf b = {0};
    text_json(&b, "a \"b\" \\ \n \t \x01 \x1f \x7f \xe2\x82\xac");
    CHECK_STR(b.data, "\"a \\\"b\\\" \\\\ \\n \\u0009 \\u0001 \\u001f \x7f \xe2\x82\xac\"");
    buf_clear(&b);
    text_json(&b, NULL);
    text_hex(&b, "\x00\xff\x1a", 3);
    CHECK_STR(b.data, "null00ff1a");
    buf_deinit(&b);
}

int main(void)
{
    check_written();
    check_distance();
    check_numbers();
    check_utf8();
    check_space();
    check_hash();
    return test_end();
}
