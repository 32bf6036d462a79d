// Signatures for S3: the examples that AWS publishes in "Signature Calculations for the
// Authorization Header".
#include "sigv4.h"

#include "buf.h"
#include "sha256.h"
#include "test.h"

#define EMPTY "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define DATE "20130524T000000Z"
#define HOST {"host", "examplebucket.s3.amazonaws.com"}

static const struct sigv4_key key = {
    .id = "AKIAIOSFODNN7EXAMPLE",
    .secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    .region = "us-east-1",
    .sha256 = sha256_hex,
    .hmac = sha256_hmac_hex,
};

static void test_headers(void)
{
    static const char welcome[] =
        "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072";
    static const char *const get[][2] = {
        HOST, {"range", "bytes=0-9"}, {"x-amz-content-sha256", EMPTY}, {"x-amz-date", DATE}};
    static const char *const put[][2] = {{"date", "Fri, 24 May 2013 00:00:00 GMT"},
                                         HOST,
                                         {"x-amz-content-sha256", welcome},
                                         {"x-amz-date", DATE},
                                         {"x-amz-storage-class", "REDUCED_REDUNDANCY"}};
    static const char *const plain[][2] = {
        HOST, {"x-amz-content-sha256", EMPTY}, {"x-amz-date", DATE}};
    static const struct {
        struct sigv4_request r;
        const char *names, *signature;
    } cases[] = {
        {{"GET", "/test.txt", "", get, 4, EMPTY},
         "host;range;x-amz-content-sha256;x-amz-date",
         "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"},
        {{"PUT", "/test%24file.text", "", put, 5, welcome},
         "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
         "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"},
        {{"GET", "/", "lifecycle=", plain, 3, EMPTY},
         "host;x-amz-content-sha256;x-amz-date",
         "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"},
        {{"GET", "/", "max-keys=2&prefix=J", plain, 3, EMPTY},
         "host;x-amz-content-sha256;x-amz-date",
         "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buf out = {0}, want = {0};
        sigv4_authorize(&key, &cases[i].r, DATE, &out);
        buf_printf(&want,
                   "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/"
                   "aws4_request,SignedHeaders=%s,Signature=%s",
                   cases[i].names, cases[i].signature);
        CHECK_STR(out.data, want.data);
        buf_deinit(&out);
        buf_deinit(&want);
    }
}

static void test_texts(void)
{
    char date[SIGV4_DATE];
    struct buf out = {0};
    sigv4_date(1369353600123, date);
    CHECK_STR(date, DATE);
    sigv4_date(1369353599999, date);
    CHECK_STR(date, "20130523T235959Z");
    sigv4_encode(&out, "a/b c$~\xc3\xa9+", true);
    CHECK_STR(out.data, "a/b%20c%24~%C3%A9%2B");
    buf_clear(&out);
    sigv4_encode(&out, "a/b=&", false);
    CHECK_STR(out.data, "a%2Fb%3D%26");
    buf_deinit(&out);
}

int main(void)
{
    test_headers();
    test_texts();
    return test_end();
}
