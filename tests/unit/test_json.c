// JSON: refused texts and their errors, Python's extensions to the standard, and readers.
#include "buf.h"
#include "json.h"
#include "test.h"

#include <stdlib.h>
#include <unistd.h>

static enum err parse(const char *text, enum err code, struct json_t **doc, struct fault *why)
{
    return json_parse(text, strlen(text), "x.json", code, doc, why);
}

static void check_refused(void)
{
    static const char *const bad[] = {
        "",           " ",         "{",           "{\"a\":1,\"a\":2}",
        "{\"a\":1}x", "[1,]",      "\"\xff\"",    "NaN",
        "{a:1}",      "01",        "\"\\ud800\"", "tru",
        "--Infinity", "Infinity5", "1Infinity",   "[\"Infinity",
    };
    struct json_t *doc;
    struct fault why = {0};
    char deep[200] = "";

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        memset(&why, 0, sizeof why);
        CHECK_MSG(parse(bad[i], ERR_FORMAT, &doc, &why) == ERR_FORMAT, "%s", bad[i]);
        CHECK_MSG(!doc && strstr(why.msg, "x.json") && why.code == ERR_FORMAT, "%s", why.msg);
    }
    CHECK_INT(parse("Infinity", ERR_INVALID, &doc, &why), ERR_INVALID);
    CHECK_INT(parse("12345678901234567890", ERR_INVALID, &doc, &why), ERR_INVALID);
    for (int i = 0; i < JSON_MAX_DEPTH + 1; i++)
        strcat(deep, "[");
    CHECK_INT(parse(deep, ERR_FORMAT, &doc, &why), ERR_FORMAT);
    CHECK(strstr(why.msg, "deeper"));
}

static void check_python_numbers(void)
{
    struct json_t *doc;
    struct fault why;
    struct json_reader r;

    CHECK_INT(parse("{\"a\":-Infinity,\"b\":[Infinity,1],\"c\":\"a\\\"-Infinity\",\"d\":"
                    "1000000000000000019884624838656,\"e\":-123456789012345678,\"f\":"
                    "0.1234567890123456789012}",
                    ERR_FORMAT, &doc, &why),
              ERR_OK);
    r = json_reader(doc, "x.json", ERR_FORMAT, &why);
    CHECK(json_read_number(&r, "a", 0, -INFINITY, INFINITY) == -INFINITY);
    CHECK(json_number(json_item(json_find(doc, "b"), 0)) == INFINITY);
    CHECK_STR(json_read_text(&r, "c", NULL), "a\"-Infinity");
    CHECK(json_read_number(&r, "d", 0, 0, 1e40) == 1e30);
    CHECK_INT(json_read_int(&r, "e", 0, INT64_MIN, INT64_MAX), -123456789012345678);
    CHECK(json_read_number(&r, "f", 0, 0, 1) == 0.1234567890123456789012);
    CHECK_INT(r.err, ERR_OK);
    json_destroy(&doc);
    CHECK(!doc);
}

static void check_reader(void)
{
    static const char *const names[] = {"red", "green", NULL};
    struct json_t *doc;
    struct fault why;
    struct json_reader r;
    int v[3];

    CHECK_INT(parse("{\"i\":7,\"n\":0.5,\"b\":true,\"s\":\"green\",\"l\":[1,2,3],\"z\":null,"
                    "\"nul\":\"a\\u0000b\"}",
                    ERR_INVALID, &doc, &why),
              ERR_OK);
    r = json_reader(doc, "request", ERR_INVALID, &why);
    CHECK_INT(json_read_int(&r, "i", 0, 0, 7), 7);
    CHECK_INT(json_read_int(&r, "absent", 5, 0, 7), 5);
    CHECK_NEAR(json_read_number(&r, "i", 0, 0, 10), 7, 0);
    CHECK_INT(json_read_enum(&r, "s", 0, names), 1);
    CHECK_INT(json_read_bool(&r, "b", false), 1);
    json_read_ints(&r, "l", 0, 1, 3, 3, v);
    CHECK(v[0] == 1 && v[1] == 2 && v[2] == 3);
    json_read_ints(&r, "i", 0, 1, 9, 3, v);
    CHECK(v[0] == 7 && v[2] == 7);
    CHECK_INT(json_key(&r, "z"), JSON_NONE);
    CHECK_INT(json_key(&r, "y"), JSON_ABSENT);
    CHECK_INT(r.err, ERR_OK);

    CHECK_INT(json_read_int(&r, "i", 3, 0, 6), 3);
    CHECK_INT(r.err, ERR_INVALID);
    CHECK_STR(why.param, "i");
    CHECK_STR(why.msg, "i must be an integer from 0 to 6, not 7");
    CHECK_INT(json_read_int(&r, "i", 3, 0, 9), 3); // the first error sticks

    r = json_reader(doc, "request", ERR_INVALID, &why);
    json_read_text(&r, "nul", NULL);
    CHECK_STR(why.msg, "nul must not contain a NUL character");
    r = json_reader(doc, "a.json", ERR_FORMAT, &why);
    json_read_ints(&r, "l", 0, 1, 3, 2, v);
    CHECK_STR(why.msg, "a.json: l must have 2 entries, not 3");
    r = json_reader(doc, "a.json", ERR_FORMAT, &why);
    CHECK_INT(json_read_enum(&r, "s", 0, names + 2), 0);
    CHECK_INT(r.err, ERR_UNSUPPORTED);
    CHECK_STR(why.msg, "a.json: s \"green\" is not supported");
    r = json_reader(json_find(doc, "l"), "request", ERR_INVALID, &why);
    CHECK_INT(r.err, ERR_INVALID);
    json_destroy(&doc);
}

static void check_marks(void)
{
    static const char with_bom[] = "\xef\xbb\xbf{\"a\": 1}", utf16[] = "\xff\xfe{\0}\0";
    struct json_t *doc;
    struct fault why;

    for (int code = 0; code < 2; code++) {
        const enum err e = code ? ERR_INVALID : ERR_FORMAT;
        CHECK_INT(json_parse(with_bom, sizeof with_bom - 1, "x", e, &doc, &why), ERR_OK);
        CHECK_INT(json_int(json_find(doc, "a")), 1);
        json_destroy(&doc);
        CHECK_INT(json_parse(utf16, sizeof utf16 - 1, "x", e, &doc, &why), e);
        CHECK_STR(why.msg, "x: JSON must be encoded as UTF-8, not UTF-16");
        CHECK_INT(json_parse(with_bom, 3, "x", e, &doc, &why), e);
        CHECK_INT(json_parse(with_bom, 2, "x", e, &doc, &why), e);
    }
}

static void check_files(void)
{
    char path[] = "/tmp/imagend-json-XXXXXX";
    struct json_t *doc;
    struct fault why;
    struct buf b = {0};
    int fd = mkstemp(path);

    CHECK(fd >= 0 && write(fd, "{\"a\": [1]}", 10) == 10);
    close(fd);
    CHECK_INT(json_parse_file(path, 10, &doc, &why), ERR_OK);
    CHECK_INT(json_count(json_find(doc, "a")), 1);
    json_destroy(&doc);
    CHECK_INT(json_parse_file(path, 9, &doc, &why), ERR_FORMAT);
    unlink(path);
    CHECK_INT(json_parse_file(path, 9, &doc, &why), ERR_NOT_FOUND);
    CHECK_INT(json_parse_file("/tmp", 9, &doc, &why), ERR_IO);

    for (int i = 0; i < 1000; i++)
        buf_printf(&b, "%03d ", i);
    CHECK_INT(b.len, 4000);
    CHECK(!memcmp(b.data + 3996, "999 ", 5));
    CHECK(!buf_reserve(&b, SIZE_MAX / 2) && b.failed);
    CHECK(!buf_take(&b) && !b.data);
}

// Long strings take another way through the parser; the document is the same.
static void check_long_strings(void)
{
    enum { LONG = 100000 };
    // @: a long text; the others as they are.
    static const struct {
        const char *json;
        int longs;
    } rows[] = {
        {"\"@\"", 1},
        {"{\"a\":\"@\",\"b\":[1,\"@\",{\"c\":\"@\"}],\"d\":\"x\"}", 3},
        {"{\"@\":\"@\"}", 2},
        {"{\"@\" : 1, \"a\": \"@\"}", 2},
        {"[\"@\\n\",\"\\\"@\",\"\\\\\",\"@\\\\\"]", 3},
        {"[\"\\u000000000000\",\"@\"]", 1},
        {"[\"\xe2\x82\xac@\",\"@\"]", 2},
        {"[\"a\",\"@\",\"\"]  ", 1},
        {"[\"@\\/+\\/\",\"\\/@\\n\\r\",\"@\\t\"]", 3},
    };
    static const char *const bad[] = {"\"@",        "[\"@\",",       "{\"@\"}",
                                      "[\"@\n\"]",  "[\"@\" \"@\"]", "{\"a\":\"@\",\"a\":\"@\"}",
                                      "[\"@\\q\"]", "[\"@\xff\"]"};
    char *filler = malloc(LONG + 1);

    CHECK(filler);
    memset(filler, 'A', LONG);
    filler[LONG] = 0;
    for (size_t i = 0; i < sizeof rows / sizeof *rows + sizeof bad / sizeof *bad; i++) {
        const bool good = i < sizeof rows / sizeof *rows;
        const char *json = good ? rows[i].json : bad[i - sizeof rows / sizeof *rows];
        struct buf text = {0};
        struct json_t *doc, *small;
        struct fault why = {0};
        for (const char *s = json; *s; s++) {
            if (*s == '@')
                buf_puts(&text, filler);
            else
                buf_putc(&text, *s);
        }
        const enum err err = json_parse(text.data, text.len, "x", ERR_INVALID, &doc, &why);
        CHECK_MSG(!err == good, "%s: %s", json, why.msg);
        if (!err) {
            // As the same document with a short text, written out.
            char *want = malloc(text.len + 1), *got = malloc(text.len + LONG);
            CHECK(want && got && !parse(json, ERR_INVALID, &small, &why));
            json_show(doc, got, text.len + LONG);
            json_show(small, want, text.len + 1);
            int found = 0;
            for (char *at = strstr(got, filler); at; at = strstr(at, filler), found++) {
                *at = '@';
                memmove(at + 1, at + LONG, strlen(at + LONG) + 1);
            }
            CHECK_MSG(!strcmp(got, want) && found == rows[i].longs, "%s: %.200s", json, got);
            free(want);
            free(got);
            json_destroy(&small);
            json_destroy(&doc);
        }
        buf_deinit(&text);
    }
    free(filler);
}

int main(void)
{
    check_long_strings();
    check_refused();
    check_python_numbers();
    check_reader();
    check_marks();
    check_files();
    return test_end();
}
