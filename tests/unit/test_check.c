// Field tables: the values that each field type accepts and refuses, in strict, open and lax
// tables, from JSON and from text, and that values are written back unchanged.
#include "buf.h"
#include "check.h"
#include "json.h"
#include "test.h"

#include <stdlib.h>

struct all {
    const char *text, *longer;
    int number, word, ints[CHECK_LIST];
    float real, zero, reals[CHECK_LIST];
    bool flag, hidden;
    uint64_t seed;
    struct check_size size;
    char chars[9];
    int64_t time;
    struct check_scales scales;
};

#define A(field) offsetof(struct all, field)
static const char *const words[] = {"red", "green", NULL};
#define ROWS                                                                                       \
    {"text", CHECK_TEXT, CHECK_NULL, A(text), 1, 8}, {"longer", CHECK_TEXT, 0, A(longer), 0, 20},  \
        {"number", CHECK_INT, CHECK_NULL, A(number), 1, 10, .def = "3"},                           \
        {"word", CHECK_ENUM, CHECK_NULL, A(word), .choices = words, .def = "green"},               \
        {"ints", CHECK_INTS, CHECK_NULL, A(ints), -1, 9, .def = "-1"},                             \
        {"real", CHECK_NUMBER, 0, A(real), 0.5, 2},                                                \
        {"zero", CHECK_NUMBER, 0, A(zero), 1, 9, .zero = 1},                                       \
        {"reals", CHECK_NUMBERS, 0, A(reals), 0.25, 100}, {"flag", CHECK_BOOL, 0, A(flag)},        \
        {"hidden", CHECK_BOOL, CHECK_HIDDEN, A(hidden), .def = "true"},                            \
        {"seed", CHECK_SEED, CHECK_NULL, A(seed)},                                                 \
        {"size", CHECK_SIZE, CHECK_NULL, A(size), 1, 65536},                                       \
        {"chars", CHECK_CHARS, 0, A(chars), 0, 8}, {"time", CHECK_TIME, 0, A(time)},               \
        {"scales", CHECK_SCALES, CHECK_NULL, A(scales), -2, 2}, {"nothing", CHECK_ANY, 0, 0}
static const struct check_field rows[] = {ROWS};
static const struct check_table strict = CHECK_TABLE("Strict", rows, true),
                                open = CHECK_TABLE("Open", rows, false),
                                lax = CHECK_TABLE_LAX("Lax", rows);

static enum err read(const struct check_table *t, const char *json, struct all *out,
                     struct fault *why)
{
    struct json_t *doc = NULL;
    enum err e = json_parse(json, strlen(json), "test", ERR_INVALID, &doc, why);

    CHECK_MSG(!e, "%s: %s", json, why->msg);
    memset(out, 0, sizeof *out);
    e = check_object(t, doc, out, why);
    // Texts are borrowed from the document, which this test does not look at any more.
    out->text = out->text ? "set" : NULL;
    out->longer = out->longer ? "set" : NULL;
    json_destroy(&doc);
    return e;
}

static void write_back(const struct all *a, struct buf *b)
{
    buf_clear(b);
    check_write(&open, a, b);
}

// ---- what is taken ----------------------------------------------------------------------------

#define REST "\"word\":\"green\",\"ints\":[-1,-1,-1]"
static const struct {
    const char *json, *written; // written: without the defaults that follow
} taken[] = {
    {"{}", "{\"number\":3,\"word\":\"green\",\"ints\":[-1,-1,-1],\"flag\":false,\"seed\":0}"},
    {"{\"number\":1,\"word\":\"red\",\"ints\":[9,-1,0],\"real\":0.5,\"flag\":true,\"seed\":1}",
     "{\"number\":1,\"word\":\"red\",\"ints\":[9,-1,0],\"real\":0.5,\"flag\":true,\"seed\":1}"},
    {"{\"number\":10,\"real\":2}", "{\"number\":10," REST ",\"real\":2,\"flag\":false,\"seed\":0}"},
    {"{\"number\":null,\"word\":null,\"ints\":null,\"seed\":null,\"size\":null,\"nothing\":[1]}",
     "{\"number\":3," REST ",\"flag\":false,\"seed\":0}"},
    // A single number is the first stage's; null in a list leaves the default.
    {"{\"ints\":5,\"reals\":2.5}", "{\"number\":3,\"word\":\"green\",\"ints\":[5,-1,-1],"
                                   "\"reals\":[2.5,null,null],\"flag\":false,\"seed\":0}"},
    {"{\"ints\":[null,4],\"reals\":[null,null,7]}",
     "{\"number\":3,\"word\":\"green\",\"ints\":[-1,4,-1],"
     "\"reals\":[null,null,7],\"flag\":false,\"seed\":0}"},
    // Zero stands for what the row says.
    {"{\"zero\":0}", "{\"number\":3," REST ",\"zero\":1,\"flag\":false,\"seed\":0}"},
    // Nine digits where six would be another float.
    {"{\"real\":1.2345678}",
     "{\"number\":3," REST ",\"real\":1.23456776,\"flag\":false,\"seed\":0}"},
    {"{\"seed\":9223372036854775807}",
     "{\"number\":3," REST ",\"flag\":false,\"seed\":9223372036854775807}"},
    {"{\"size\":64,\"chars\":\"12345678\"}",
     "{\"number\":3," REST ",\"flag\":false,\"seed\":0,\"size\":64,\"chars\":\"12345678\"}"},
    {"{\"size\":\"48x64\",\"chars\":\"\"}",
     "{\"number\":3," REST ",\"flag\":false,\"seed\":0,\"size\":\"48x64\"}"},
    {"{\"size\":\"65536\"}", "{\"number\":3," REST ",\"flag\":false,\"seed\":0,\"size\":65536}"},
    {"{\"size\":\"auto\"}", "{\"number\":3," REST ",\"flag\":false,\"seed\":0}"},
    {"{\"time\":1893456000}", "{\"number\":3," REST ",\"flag\":false,\"seed\":0,"
                              "\"time\":\"2030-01-01T00:00:00.000Z\"}"},
    {"{\"time\":\"2030-01-01T00:00:01.25Z\"}", "{\"number\":3," REST ",\"flag\":false,\"seed\":0,"
                                               "\"time\":\"2030-01-01T00:00:01.250Z\"}"},
    // An empty list is a value.
    {"{\"scales\":null}", "{\"number\":3," REST ",\"flag\":false,\"seed\":0}"},
    {"{\"scales\":[]}", "{\"number\":3," REST ",\"flag\":false,\"seed\":0,\"scales\":[]}"},
    {"{\"scales\":[{\"name\":\"a\"},\"b.c:-2\",{\"scale\":0.1,\"name\":\"d-_\"}]}",
     "{\"number\":3," REST
     ",\"flag\":false,\"seed\":0,\"scales\":[{\"name\":\"a\"},{\"name\":\"b.c\","
     "\"scale\":-2},{\"name\":\"d-_\",\"scale\":0.1}]}"},
    {"{\"scales\":\"a, b:1e-1 \"}", "{\"number\":3," REST ",\"flag\":false,\"seed\":0,\"scales\":"
                                    "[{\"name\":\"a\"},{\"name\":\"b\",\"scale\":0.1}]}"},
    {"{\"text\":\"12345678\"}",
     "{\"text\":\"set\",\"number\":3," REST ",\"flag\":false,\"seed\":0}"},
    {"{\"text\":\"\xe2\x82\xac\",\"longer\":\"\"}",
     "{\"text\":\"set\",\"longer\":\"set\",\"number\":3," REST ",\"flag\":false,\"seed\":0}"},
};

static void test_taken(void)
{
    for (size_t i = 0; i < sizeof taken / sizeof *taken; i++) {
        struct all a, again;
        struct fault why = {0};
        struct buf b = {0}, c = {0};
        CHECK_MSG(!read(&strict, taken[i].json, &a, &why), "%s: %s", taken[i].json, why.msg);
        CHECK(a.hidden);
        write_back(&a, &b);
        CHECK_STR(b.data, taken[i].written);
        // A written value parses to the same value.
        CHECK_MSG(!read(&strict, b.data, &again, &why), "%s: %s", b.data, why.msg);
        write_back(&again, &c);
        CHECK_STR(c.data, b.data);
        buf_deinit(&b);
        buf_deinit(&c);
    }
}

// ---- what is refused --------------------------------------------------------------------------

static const struct {
    const char *field, *values; // values: separated by ';'
} refused[] = {
    {"text", "\"\";\"123456789\";7;true;[];\"a\\u0000b\""},
    {"longer", "null;\"123456789012345678901\""},
    {"number", "0;11;1.5;2.0;\"3\";true;[3];9999999999"},
    {"word", "\"blue\";\"RED\";0;\"red\\u0000\";[\"red\"]"},
    {"ints", "[];[1,2,3,4];-2;10;[1.5];\"1\";[\"1\"];{};true"},
    {"real", "0.49;2.01;\"1\";null;[1];0"},
    {"zero", "0.5;-1;10"},
    {"reals", "[];[1,2,3,4];0.1;101;[[1]];\"1\""},
    {"flag", "0;1;\"true\";null"},
    {"hidden", "true;false"},
    {"seed", "-2;-9223372036854775808;1.0;\"1\""},
    {"size", "0;65537;-1;1.5;\"0x1\";\"1x0\";\"x1\";\"1x\";\"1x2x3\";\" 1\";\"+1\";\"1 x 2\";\"\";"
             "\"Auto\";\"65537x1\";\"1x65537\";\"64\\u0000\";true"},
    {"chars", "\"123456789\";null;1"},
    {"time", "0;-1;253402300800;\"2030-01-01\";\"2030-01-01T00:00:00\";"
             "\"2030-01-01T00:00:00+01:00\";\"1969-12-31T23:59:59Z\";\"\";true"},
    {"scales",
     "1;true;{};[1];[null];[[]];[\"a,b\"];\"a,\";\"a:\";\"a:x\";\"a:nan\";\"a:2.1\";\"a:0x1\";"
     "\"a:1:1\";\"a b\";\"\\u20ac\";\"a,a\";[\"a\",{\"name\":\"a\"}];[{}];[{\"name\":\"\"}];"
     "[{\"name\":\"a:1\"}];[{\"name\":\"a\",\"scale\":\"1\"}];[{\"name\":\"a\",\"x\":1}];"
     "[{\"name\":\"a\",\"scale\":-2.1}];\"a\\u0000\";\"a,b,c,d,e,f,g,h,i\";"
     "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\""},
    {"unknown", "1"},
};

static void test_refused(void)
{
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        for (const char *v = refused[i].values; *v; v += strcspn(v, ";"), v += *v == ';') {
            struct all a;
            struct fault why = {0};
            struct buf json = {0};
            buf_puts(&json, "{\"");
            buf_puts(&json, refused[i].field); // %s: gcc 14 takes it for NULL
            buf_printf(&json, "\":%.*s}", (int)strcspn(v, ";"), v);
            CHECK_MSG(read(&strict, json.data, &a, &why) == ERR_INVALID, "%s", json.data);
            buf_deinit(&json);
            CHECK_STR(why.param, refused[i].field);
            CHECK(why.msg[0]);
        }
}

// Unknown fields are nobody's business in an open table, and "" is what a form was left with.
static void test_open(void)
{
    struct all a;
    struct fault why = {0};

    CHECK(!read(&open, "{\"unknown\":1,\"text\":\"\",\"word\":\"\",\"size\":\"\",\"scales\":\"\"}",
                &a, &why));
    CHECK(!a.text && a.word == 1 && a.size.width == 0 && !a.scales.given);
    CHECK_INT(read(&open, "{\"number\":\"\"}", &a, &why), ERR_INVALID);
    CHECK_INT(read(&open, "{\"hidden\":false}", &a, &why), ERR_OK);
    CHECK(a.hidden);
}

static void test_lax(void)
{
    struct all a;
    struct fault why = {0};

    CHECK(
        !read(&lax, "{\"number\":\" 7 \",\"flag\":\"on\",\"real\":true,\"seed\":12.0}", &a, &why));
    CHECK(a.number == 7 && a.flag && a.real == 1 && a.seed == 12);
    CHECK(!read(&lax,
                "{\"number\":4.0,\"flag\":0,\"real\":\"1.5\","
                "\"seed\":\"9007199254740993\"}",
                &a, &why));
    CHECK(a.number == 4 && !a.flag && a.real == 1.5f && a.seed == 9007199254740993);
    CHECK(!read(&lax, "{\"scales\":\"[{\\\"name\\\":\\\"a\\\",\\\"scale\\\":2}]\"}", &a, &why));
    CHECK(a.scales.count == 1 && a.scales.item[0].scale == 2);
    static const char *const bad[] = {
        "{\"number\":\"7.5\"}", "{\"number\":\"0x7\"}", "{\"number\":\"\"}",
        "{\"number\":[7]}",     "{\"flag\":\"maybe\"}", "{\"flag\":2}",
        "{\"real\":\"nan\"}",   "{\"seed\":1e30}",      "{\"scales\":\"[1\"}"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK_MSG(read(&lax, bad[i], &a, &why) == ERR_INVALID, "%s", bad[i]);
}

// ---- required fields, seeds, text -------------------------------------------------------------

static void test_required(void)
{
    static const struct check_field needed[] = {
        {"seed", CHECK_SEED, CHECK_REQUIRED, A(seed)},
        {"number", CHECK_INT, CHECK_REQUIRED | CHECK_NULL, A(number), 0, 9}};
    static const struct check_table t = CHECK_TABLE("Needed", needed, true);
    struct all a;
    struct fault why = {0};

    CHECK_INT(read(&t, "{\"seed\":1,\"number\":2}", &a, &why), ERR_OK);
    CHECK_INT(read(&t, "{\"seed\":1}", &a, &why), ERR_INVALID);
    CHECK_STR(why.param, "number");
    CHECK_INT(read(&t, "{\"number\":1}", &a, &why), ERR_INVALID);
    CHECK_STR(why.param, "seed");
    CHECK_INT(read(&t, "[1]", &a, &why), ERR_INVALID);
}

static void test_random_seeds(void)
{
    uint64_t seen[8], all = 0;

    for (int i = 0; i < 8; i++) {
        struct all a;
        struct fault why = {0};
        CHECK(!read(&strict, "{\"seed\":-1}", &a, &why));
        CHECK(a.seed <= UINT32_MAX);
        for (int k = 0; k < i; k++)
            CHECK(a.seed != seen[k]);
        seen[i] = a.seed;
        all |= a.seed;
    }
    CHECK(all >> 24); // more than a few of the 32 bits
}

// The same values as a query or a command line has them, and as metadata shows them.
static void test_text(void)
{
    static const struct {
        const char *field, *value, *shown; // shown NULL: refused
    } lines[] = {
        {"text", "abc", "abc"},
        {"text", "", NULL},
        {"number", "7", "7"},
        {"number", "7x", NULL},
        {"number", "11", NULL},
        {"number", "", NULL},
        {"word", "red", "red"},
        {"word", "reddish", NULL},
        {"ints", "1,2,3", "1,2,3"},
        {"ints", "1,3,-1", "1,3"},      // a negative value says that the stage has none
        {"ints", "1,-1,3", "[1,-1,3]"}, // 3 keeps its place
        {"ints", "1,2,3,4", NULL},
        {"ints", "1,,3", NULL},
        {"reals", "1.5,2", "1.5,2"},
        {"real", "1e0", "1"},
        {"real", "nan", NULL},
        {"flag", "true", "true"},
        {"flag", "1", NULL},
        {"seed", "18446744073709551615", NULL},
        {"seed", "9223372036854775807", "9223372036854775807"},
        {"size", "48x64", "48x64"},
        {"size", "64", "64x64"},
        {"chars", "12345678", "12345678"},
        {"chars", "123456789", NULL},
        {"time", "2030-01-01T00:00:00Z", "\"2030-01-01T00:00:00.000Z\""},
        {"scales", "a:0.1,b", "a:0.1, b"},
        {"scales", " a : 1", NULL},
        {"scales", "a:0.12345678901234568", "a:0.12345678901234568"},
        {"scales", "[{\"name\":\"a\",\"scale\":1}]", "a:1"},
        {"scales", "[", NULL},
        {"unknown", "1", NULL},
        {"hidden", "true", NULL},
    };

    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        struct all a = {0};
        struct fault why = {0};
        struct buf b = {0};
        size_t offset;
        const enum err e = check_query(&strict, lines[i].field, lines[i].value, &a, &why);
        CHECK_MSG(!e == (lines[i].shown != NULL), "%s=%s", lines[i].field, lines[i].value);
        if (e) {
            CHECK_STR(why.param, lines[i].field);
            continue;
        }
        const struct check_field *f = check_find(&strict, lines[i].field, &offset);
        check_write_text(f, (const char *)&a + offset, CHECK_LIST, &b);
        CHECK_STR(b.data, lines[i].shown);
        buf_deinit(&b);
    }
}

// A table with another one before it, of which it replaces a row and leaves one out.
static void test_more(void)
{
    struct both {
        int before;
        struct all all;
        int number;
    };
    static const struct check_field own[] = {
        {"number", CHECK_INT, 0, offsetof(struct both, number), 0, 99}};
    static const char *const without[] = {"seed", NULL};
    static const struct check_table t = {CHECK_ROWS("Both", own), .strict = true, .more = &strict,
                                         .more_at = offsetof(struct both, all), .without = without};
    struct both b = {.before = 7};
    size_t offset;
    int at = 0, count = 0;

    check_defaults(&t, &b);
    CHECK(b.before == 7 && b.number == 0 && b.all.number == 0 && b.all.word == 1);
    CHECK(!check_query(&t, "number", "99", &b, NULL) && b.number == 99 && b.all.number == 0);
    CHECK(!check_query(&t, "real", "2", &b, NULL) && b.all.real == 2);
    CHECK(!check_find(&t, "seed", &offset) && !check_find(&t, "hidden", &offset));
    while (check_next(&t, &at, NULL))
        count++;
    CHECK_INT(count, (int)(sizeof rows / sizeof *rows) - 1);
}

int main(void)
{
    test_taken();
    test_refused();
    test_open();
    test_lax();
    test_required();
    test_random_seeds();
    test_text();
    test_more();
    return test_end();
}
