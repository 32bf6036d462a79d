// multipart/form-data: bodies as clients write them, and named errors.
#include "multipart.h"
#include "test.h"

#include <stdlib.h>

#define TYPE "multipart/form-data; boundary=XX"
#define HEAD "--XX\r\nContent-Disposition: form-data; "

struct part {
    const char *name, *filename, *type, *data;
};

static void accepted(void)
{
    static const struct {
        const char *type, *body;
        struct part part[3];
    } rows[] = {
        // curl -F, Python requests, a browser.
        {TYPE, HEAD "name=\"prompt\"\r\n\r\na cat\r\n--XX--\r\n", {{"prompt", NULL, "", "a cat"}}},
        {TYPE,
         HEAD "name=\"image\"; filename=\"a.png\"\r\nContent-Type: Image/PNG\r\n\r\n\x89PNG\r\n"
              "--XX\r\nContent-Disposition: form-data; name=\"n\"\r\n\r\n2\r\n--XX--",
         {{"image", "a.png", "image/png", "\x89PNG"}, {"n", NULL, "", "2"}}},
        {"Multipart/Form-Data;  Boundary=\"XX\"; charset=utf-8",
         HEAD "name=a\r\n\r\n\r\n--XX--",
         {{"a", NULL, "", ""}}},
        // Text before and after the form is ignored.
        {TYPE,
         "preamble\r\n--XX \t\r\ncontent-disposition:form-data;name=a\r\n\r\n1\r\n--XX--\r\nend",
         {{"a", NULL, "", "1"}}},
        // One name twice, an empty part without a line break of its own.
        {TYPE,
         HEAD "name=\"image[]\"\r\n\r\n1\r\n" HEAD "name=\"image[]\"\r\n\r\n--XX--",
         {{"image[]", NULL, "", "1"}, {"image[]", NULL, "", ""}}},
        // Text that resembles a delimiter; line breaks within.
        {TYPE,
         HEAD "name=a\r\n\r\n--X\r\n--X\r\n --XX\r\n-XX\r\n--XX--",
         {{"a", NULL, "", "--X\r\n--X\r\n --XX\r\n-XX"}}},
        // Names with quotes, as browsers and as curl escape them; other parameters and headers.
        {TYPE,
         HEAD "name=\"a%22b\"; filename=\"c\\\"d\\\\e.png\"; filename*=UTF-8''x\r\n"
              "X-Other: 1\r\nContent-Transfer-Encoding: binary\r\n"
              "Content-Type: text/plain; charset=utf-8\r\n\r\n1\r\n--XX--",
         {{"a\"b", "c\"d\\e.png", "text/plain", "1"}}},
        {TYPE,
         HEAD "name=\"\xc3\xa4%0D%0a%41\"; filename=\"\"\r\n\r\n1\r\n--XX--",
         {{"\xc3\xa4\r\n%41", "", "", "1"}}},
        {"multipart/form-data; boundary=----WebKitFormBoundary7MA4YWxkTrZu0gW",
         "------WebKitFormBoundary7MA4YWxkTrZu0gW\r\nContent-Disposition: form-data; name=\"a\"\r\n"
         "\r\n1\r\n------WebKitFormBoundary7MA4YWxkTrZu0gW--\r\n",
         {{"a", NULL, "", "1"}}},
        {TYPE, "--XX--", {{0}}},
    };
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        struct multipart m;
        struct fault why = {0};
        int n = 0;
        CHECK_MSG(!multipart_parse(rows[r].type, rows[r].body, strlen(rows[r].body), &m, &why),
                  "row %zu: %s", r, why.msg);
        for (; n < 3 && rows[r].part[n].name && n < m.parts; n++) {
            const struct part *want = &rows[r].part[n];
            const struct multipart_part *got = &m.part[n];
            CHECK_STR(got->name, want->name);
            CHECK_STR(got->type, want->type);
            CHECK(!got->filename == !want->filename);
            if (got->filename && want->filename)
                CHECK_STR(got->filename, want->filename);
            CHECK_INT(got->size, strlen(want->data));
            CHECK(!memcmp(got->data, want->data, got->size));
        }
        CHECK_INT(m.parts, n);
        CHECK(n == 3 || !rows[r].part[n].name);
        multipart_deinit(&m);
    }
}

static void refused(void)
{
    static const struct {
        const char *type, *body, *says;
    } rows[] = {
        {NULL, "", "must be multipart/form-data"},
        {"application/json", "{}", "must be multipart/form-data"},
        {"multipart/form-dataX; boundary=XX", "", "must be multipart/form-data"},
        {"multipart/form-data", "", "no valid boundary"},
        {"multipart/form-data; boundary=", "", "no valid boundary"},
        {"multipart/form-data; boundary=\"XX", "", "no valid boundary"},
        {"multipart/form-data; boundary=X@X", "", "no valid boundary"},
        {"multipart/form-data; boundary="
         "12345678901234567890123456789012345678901234567890123456789012345678901",
         "", "no valid boundary"},
        {TYPE, "", "does not contain the boundary"},
        {TYPE, "{\"prompt\": \"x\"}", "does not contain the boundary"},
        {TYPE, "x--XX\r\n", "does not contain the boundary"},
        {TYPE, "--XX", "part 1 of the form is truncated"},
        {TYPE, "--XXX\r\n", "part 1 of the form does not begin on a new line"},
        {TYPE, "--XX\nContent-Disposition: form-data; name=a\n\n1\n--XX--", "on a new line"},
        {TYPE, "--XX\r\n", "truncated"},
        {TYPE, HEAD "name=a", "truncated"},
        {TYPE, HEAD "name=a\r\n\r\n1", "part 1 of the form is truncated"},
        {TYPE, HEAD "name=a\r\n\r\n1\r\n--XX\r\n", "part 2 of the form is truncated"},
        {TYPE, "--XX\r\n\r\n1\r\n--XX--", "has no name"},
        {TYPE, HEAD "filename=a\r\n\r\n1\r\n--XX--", "has no name"},
        {TYPE, HEAD "name=\"\"\r\n\r\n1\r\n--XX--", "has an empty name"},
        {TYPE, HEAD "name=a; name=b\r\n\r\n1\r\n--XX--", "has two names"},
        {TYPE, HEAD "name=\"a\r\n\r\n1\r\n--XX--", "cannot be read"},
        {TYPE, HEAD "name\r\n\r\n1\r\n--XX--", "cannot be read"},
        {TYPE, HEAD "name=\"\xff\"\r\n\r\n1\r\n--XX--", "not UTF-8"},
        {TYPE, "--XX\r\nContent-Disposition: attachment; name=a\r\n\r\n1\r\n--XX--", "other than"},
        {TYPE, HEAD "name=a\r\nContent-Transfer-Encoding: base64\r\n\r\n1\r\n--XX--",
         "Content-Transfer-Encoding"},
    };
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        struct multipart m;
        struct fault why = {0};
        CHECK_INT(multipart_parse(rows[r].type, rows[r].body, strlen(rows[r].body), &m, &why),
                  ERR_INVALID);
        CHECK_MSG(strstr(why.msg, rows[r].says) != NULL, "row %zu: %s", r, why.msg);
        CHECK(!m.parts && !m.text);
    }
}

// As many parts, and as long names and headers, as there may be; and one more.
static void limits(void)
{
    for (int more = 0; more < 2; more++) {
        static const char one[] = HEAD "name=a\r\n\r\n1\r\n";
        char *body = malloc(sizeof one * (MULTIPART_MAX_PARTS + 1) + 2 * MULTIPART_MAX_HEADER), *at;
        struct multipart m;
        struct fault why = {0};
        at = body;
        for (int i = 0; i < MULTIPART_MAX_PARTS + more; i++)
            at = stpcpy(at, one);
        stpcpy(at, "--XX--");
        CHECK_INT(multipart_parse(TYPE, body, strlen(body), &m, &why), more ? ERR_INVALID : ERR_OK);
        CHECK_INT(m.parts, more ? 0 : MULTIPART_MAX_PARTS);
        CHECK(!more || strstr(why.msg, "more than 64 parts"));
        CHECK(more || multipart_find(&m, "a", MULTIPART_MAX_PARTS - 1));
        CHECK(more || !multipart_find(&m, "a", MULTIPART_MAX_PARTS));
        multipart_deinit(&m);

        at = stpcpy(body, HEAD "name=");
        memset(at, 'n', MULTIPART_MAX_NAME + more);
        stpcpy(at + MULTIPART_MAX_NAME + more, "\r\n\r\n1\r\n--XX--");
        CHECK_INT(multipart_parse(TYPE, body, strlen(body), &m, &why), more ? ERR_INVALID : ERR_OK);
        multipart_deinit(&m);

        static const char disposition[] = "Content-Disposition: form-data; name=a\r\nX: ";
        const size_t fill = MULTIPART_MAX_HEADER - (sizeof disposition - 1) + more;
        at = stpcpy(stpcpy(body, "--XX\r\n"), disposition);
        memset(at, 'x', fill);
        stpcpy(at + fill, "\r\n\r\n1\r\n--XX--");
        CHECK_INT(multipart_parse(TYPE, body, strlen(body), &m, &why), more ? ERR_INVALID : ERR_OK);
        CHECK(!more || strstr(why.msg, "4096 bytes"));
        multipart_deinit(&m);
        free(body);
    }
}

int main(void)
{
    accepted();
    refused();
    limits();
    return test_end();
}
