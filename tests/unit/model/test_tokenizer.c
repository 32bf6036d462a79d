// The tokenizer compared with the reference tokenizer's ids, in both modes; SentencePiece's
// normalization, Python's lower().strip(), and errors for broken folders.
#include "buf.h"
#include "json.h"
#include "test.h"
#include "tokenizer.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *golden;
enum { L = TOKENIZER_IF_LENGTH };

static struct json_t *load(const char *name)
{
    char path[512];
    struct json_t *doc;
    struct fault why = {0};

    snprintf(path, sizeof path, "%s/t5-tiny/%s", golden, name);
    CHECK_MSG(json_parse_file(path, 16 << 20, &doc, &why) == ERR_OK, "%s", why.msg);
    return doc;
}

static struct tokenizer *open_golden(int legacy)
{
    char dir[512];
    struct tokenizer *t;
    struct fault why = {0};

    snprintf(dir, sizeof dir, "%s/t5-tiny/tokenizer", golden);
    CHECK_MSG(tokenizer_open_legacy(dir, legacy, &t, &why) == ERR_OK, "%s", why.msg);
    return t;
}

static size_t from_hex(const struct json_t *row, char *out, size_t cap)
{
    const char *hex = json_text(json_find(row, "utf8_hex"), NULL);
    size_t n = strlen(hex) / 2;

    CHECK(n < cap);
    for (size_t i = 0; i < n && i < cap; i++) {
        unsigned v;
        sscanf(hex + 2 * i, "%2x", &v);
        out[i] = (char)v;
    }
    return n;
}

static bool same_ids(const struct json_t *want, const uint32_t *ids, int n)
{
    bool same = json_count(want) == (size_t)n;
    for (int i = 0; i < n && same; i++)
        same = json_int(json_item(want, (size_t)i)) == ids[i];
    return same;
}

static void check_row(const struct tokenizer *t, const struct json_t *row, bool legacy)
{
    const struct json_t *want = json_find(row, "t5_ids_77");
    static char text[65536];
    uint32_t ids[L], mask[L];
    size_t len = from_hex(row, text, sizeof text);
    int n = 0;

    if (!legacy && json_find(row, "t5_ids_77_legacy_false"))
        want = json_find(row, "t5_ids_77_legacy_false");
    CHECK_INT(tokenizer_encode(t, text, len, L, ids, mask, &n), ERR_OK);
    CHECK_MSG(same_ids(want, ids, n), "legacy %d: %s", legacy,
              json_text(json_find(row, "text"), NULL));
    for (int i = 0; i < L; i++)
        CHECK(mask[i] == (i < n) && (i < n || ids[i] == 0));
}

static void check_sentencepiece(const struct tokenizer *t, const struct json_t *row)
{
    static char text[65536];
    size_t len = from_hex(row, text, sizeof text), want_len;
    const char *want = json_text(json_find(row, "sp_normalized"), &want_len);
    struct buf b = {0};
    int *ids, n;

    CHECK_INT(tokenizer_pieces(t, text, len, &ids, &n), ERR_OK);
    CHECK_MSG(same_ids(json_find(row, "sp_ids"), (const uint32_t *)ids, n), "%s", want);
    free(ids);
    CHECK_INT(tokenizer_normalize(t, text, len, &b), ERR_OK);
    CHECK_MSG(b.len == want_len && !memcmp(b.data ? b.data : "", want, want_len), "%s: %s", want,
              b.data);
    buf_deinit(&b);
}

static void check_table(void)
{
    struct json_t *rows = load("token_ids.json");
    struct tokenizer *t = open_golden(-1), *modern = open_golden(0);

    CHECK(json_count(rows) > 200);
    CHECK_INT(tokenizer_vocab(t), 800);
    CHECK_INT(tokenizer_max_length(t), 77);
    for (size_t i = 0; i < json_count(rows); i++) {
        check_row(t, json_item(rows, i), true);
        check_row(modern, json_item(rows, i), false);
        check_sentencepiece(t, json_item(rows, i));
    }
    tokenizer_close(&t);
    tokenizer_close(&modern);
    json_destroy(&rows);
}

// Code points the table leaves out are unchanged; the ranges are those of the manifest.
static void check_nmt_nfkc(void)
{
    static const uint32_t range[][2] = {
        {0, 0x30ff}, {0xf900, 0xffff}, {0x1d400, 0x1d47f}, {0x1f100, 0x1f1ff}};
    struct json_t *rows = load("nmt_nfkc_codepoints.json");
    struct tokenizer *t = open_golden(-1);
    int wrong = 0;

    for (size_t r = 0; r < 4; r++) {
        for (uint32_t c = range[r][0]; c <= range[r][1]; c++) {
            char key[16], text[16], want[24];
            size_t n = 0, want_len;
            const struct json_t *v;
            struct buf b = {0};
            text[n++] = 'a';
            if (c >= 0x10000)
                text[n++] = (char)(0xf0 | c >> 18);
            if (c >= 0x800)
                text[n++] = (char)(c >= 0x10000 ? 0x80 | (c >> 12 & 63) : 0xe0 | c >> 12);
            if (c >= 0x80)
                text[n++] = (char)(c >= 0x800 ? 0x80 | (c >> 6 & 63) : 0xc0 | c >> 6);
            text[n++] = (char)(c >= 0x80 ? 0x80 | (c & 63) : c);
            text[n++] = 'b';
            snprintf(key, sizeof key, "%04X", c);
            v = json_find(rows, key);
            want_len = (size_t)snprintf(want, sizeof want, "\xe2\x96\x81");
            memcpy(want + want_len, text, n);
            want_len += n;
            CHECK_INT(tokenizer_normalize(t, text, n, &b), ERR_OK);
            if (v ? strcmp(json_text(v, NULL), b.data) != 0
                  : b.len != want_len || memcmp(b.data, want, want_len) != 0)
                wrong++;
            buf_deinit(&b);
        }
    }
    CHECK_INT(wrong, 0);
    tokenizer_close(&t);
    json_destroy(&rows);
}

static void check_prompts(void)
{
    static const char *const rows[][2] = {
        {"\xc4\xb0", "i\xcc\x87"},                                  // I with dot above
        {"\xce\x91\xce\xa3", "\xce\xb1\xcf\x82"},                   // final sigma
        {"\xce\xa3\xce\xa3 \xce\xa3", "\xcf\x83\xcf\x82 \xcf\x83"}, // and not final
        {"A'\xce\xa3", "a'\xcf\x82"},                               // behind an apostrophe
        {"\xcd\x85\xce\xa3", "\xcd\x85\xcf\x83"},                   // nothing cased before
        {"A\xce\xa3\xe2\x80\x99"
         "B",
         "a\xcf\x83\xe2\x80\x99"
         "b"}, // looking past an apostrophe
        {"\x1c\xc2\x85 \xe2\x80\xa8 A\xe2\x80\x8b \xe3\x80\x80", "a\xe2\x80\x8b"},
        {"\xe1\xba\x9e", "\xc3\x9f"},
        {" \t\r\n", ""},
    };
    struct json_t *doc = load("caption_preprocessing.json");
    static char text[65536];

    CHECK(json_count(doc) > 200);
    for (size_t i = 0; i < json_count(doc); i++) {
        const struct json_t *row = json_item(doc, i);
        size_t n = from_hex(row, text, sizeof text), want_len;
        const char *want = json_text(json_find(row, "plain"), &want_len);
        struct buf b = {0};
        CHECK_INT(tokenizer_prompt(text, n, &b), ERR_OK);
        CHECK_MSG(b.len == want_len && !memcmp(b.data ? b.data : "", want, want_len), "%s", want);
        buf_deinit(&b);
    }
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct buf b = {0};
        CHECK_INT(tokenizer_prompt(rows[i][0], strlen(rows[i][0]), &b), ERR_OK);
        CHECK_STR(b.data ? b.data : "", rows[i][1]);
        buf_deinit(&b);
    }
    json_destroy(&doc);
}

// The whole text's ids, whatever fits: as many as encoding into enough room gives.
static void check_count(const struct tokenizer *t)
{
    static const char *const texts[] = {"",      "cat",  "cat cat cat cat cat",
                                        "a</s>", "</s>", "a b </s> c"};
    uint32_t ids[64], mask[64];

    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        int want = 0, n = 0;
        CHECK_INT(tokenizer_encode(t, texts[i], strlen(texts[i]), 64, ids, mask, &want), ERR_OK);
        CHECK_INT(tokenizer_count(t, texts[i], strlen(texts[i]), &n), ERR_OK);
        CHECK_INT(n, want);
    }
    int n;
    CHECK_INT(tokenizer_count(t, "a\xff", 2, &n), ERR_INVALID);
}

static void check_edges(void)
{
    struct tokenizer *t = open_golden(-1);
    uint32_t ids[4], mask[4];
    struct buf b = {0};
    int n, *pieces;

    CHECK_INT(tokenizer_encode(t, "cat cat cat cat cat", 19, 4, ids, mask, &n), ERR_OK);
    CHECK(n == 4 && ids[3] == 1 && mask[3] == 1);
    check_count(t);
    CHECK_INT(tokenizer_encode(t, "", 0, 1, ids, mask, NULL), ERR_OK);
    CHECK(ids[0] == 1 && mask[0] == 1);
    CHECK_INT(tokenizer_encode(t, "a", 1, 0, ids, mask, &n), ERR_INVALID);
    CHECK_INT(tokenizer_encode(t, "a\xff", 2, 4, ids, mask, &n), ERR_INVALID);
    CHECK_INT(tokenizer_pieces(t, "\xc3", 1, &pieces, &n), ERR_INVALID);
    CHECK_INT(tokenizer_normalize(t, "\xc3", 1, &b), ERR_INVALID);
    CHECK_INT(tokenizer_prompt("\xed\xa0\x80", 3, &b), ERR_INVALID);
    CHECK(!b.data);
    tokenizer_close(&t);
    tokenizer_close(&t);
}

// ---- folders --------------------------------------------------------------------------------

static char dir[64];

static void put(const char *name, const char *text)
{
    char path[160];
    FILE *f;

    snprintf(path, sizeof path, "%s/%s", dir, name);
    f = fopen(path, "wb");
    CHECK(f && fputs(text, f) >= 0);
    if (f)
        fclose(f);
}

static struct tokenizer *expect(const char *config, enum err want, const char *says)
{
    struct tokenizer *t;
    struct fault why = {0};

    put("tokenizer_config.json", config);
    CHECK_MSG(tokenizer_open(dir, &t, &why) == want, "%s: %s", config, why.msg);
    CHECK_MSG(strstr(why.msg, says), "%s: %s", config, why.msg);
    CHECK(!want == !!t);
    return t;
}

static void encodes(struct tokenizer *t, const char *text, const char *want)
{
    uint32_t ids[16], mask[16];
    char got[256] = "";
    int n = 0;

    CHECK_INT(t ? tokenizer_encode(t, text, strlen(text), 16, ids, mask, &n) : -1, ERR_OK);
    for (int i = 0; i < n; i++)
        sprintf(got + strlen(got), "%s%u", i ? " " : "", ids[i]);
    CHECK_STR(got, want);
    tokenizer_close(&t);
}

static void check_folders(void)
{
    struct tokenizer *t;
    struct fault why;
    char command[768];

    CHECK_INT(tokenizer_open("/nonexistent", &t, &why), ERR_NOT_FOUND);
    strcpy(dir, "/tmp/imagend-tok-XXXXXX");
    if (!mkdtemp(dir))
        return;
    expect("{}", ERR_NOT_FOUND, "spiece.model");
    put("spiece.model", "not a model");
    expect("{}", ERR_FORMAT, "spiece.model: not a usable model: it is not a protocol buffer");
    put("spiece.model", "");
    expect("{}", ERR_FORMAT, "spiece.model is empty");
    put("spiece.model", "\x1a\x05\x12\x03zzz"); // normalizer_spec { precompiled_charsmap: "zzz" }
    expect("{}", ERR_FORMAT, "its normalization rules are truncated");
    put("spiece.model", "\x12\x02\x18\x02"); // trainer_spec { model_type: BPE }
    expect("{}", ERR_FORMAT, "only unigram models are supported");
    put("spiece.model", "\x12\x02\x18\x01");
    expect("{}", ERR_FORMAT, "not a SentencePiece model");
    snprintf(command, sizeof command, "cp '%s/t5-tiny/tokenizer/spiece.model' '%s/'", golden, dir);
    CHECK_INT(system(command), 0);

    encodes(expect("{}", ERR_OK, ""), "a <extra_id_0> b", "4 799 3 696 1");
    encodes(expect("{\"legacy\":false}", ERR_OK, ""), "a <extra_id_0> b", "4 799 696 1");
    encodes(expect("{\"legacy\":null}", ERR_OK, ""), "a <extra_id_0> b", "4 799 3 696 1");
    encodes(expect("{\"extra_ids\":1}", ERR_OK, ""), "<extra_id_0>", "700 1");
    t = expect("{\"extra_ids\":0,\"model_max_length\":16}", ERR_OK, "");
    CHECK(t && tokenizer_vocab(t) == 700 && tokenizer_max_length(t) == 16);
    tokenizer_close(&t);
    t = expect("{\"model_max_length\":1000000000000000019884624838656}", ERR_OK, "");
    CHECK(t && tokenizer_max_length(t) == 77);
    tokenizer_close(&t);
    // a list of added tokens speaks for itself: no flags, no white space eaten
    encodes(expect("{\"added_tokens_decoder\":{\"799\":{\"content\":\"<extra_id_0>\",\"lstrip\":"
                   "false,\"rstrip\":false,\"special\":true}}}",
                   ERR_OK, ""),
            "a<extra_id_0>b", "4 799 3 696 1");
    put("added_tokens.json", "{\"<one>\":800}");
    t = expect("{}", ERR_OK, "");
    CHECK(t && tokenizer_vocab(t) == 801);
    encodes(t, "<one> a", "800 4 1");
    // of two that begin alike the longer one, in either order
    put("added_tokens.json", "{\"<one>\":800,\"<one><two>\":801}");
    encodes(expect("{}", ERR_OK, ""), "<one> <one><two> <one><one>", "800 801 800 800 1");
    put("added_tokens.json", "{\"<one><two>\":801,\"<one>\":800}");
    encodes(expect("{}", ERR_OK, ""), "<one> <one><two> <one><one>", "800 801 800 800 1");
    put("added_tokens.json", "{\"<one>\":-1}");
    expect("{}", ERR_FORMAT, "no id for <one>");
    put("added_tokens.json", "{}");
    put("special_tokens_map.json", "{\"eos_token\":{\"content\":\"<pad>\"}}");
    encodes(expect("{\"eos_token\":\"</s>\"}", ERR_OK, ""), "a", "4 0");
    put("special_tokens_map.json", "{}");

    expect("[]", ERR_FORMAT, "must be a JSON object");
    expect("{\"eos_token\":\"<eos>\"}", ERR_UNSUPPORTED,
           "eos_token <eos> is not in the vocabulary");
    expect("{\"pad_token\":null}", ERR_FORMAT, "pad_token must be a token's text");
    expect("{\"extra_ids\":5,\"additional_special_tokens\":[\"<extra_id_0>\"]}", ERR_UNSUPPORTED,
           "extra_ids is 5 but additional_special_tokens has 1");
    expect("{\"sp_model_kwargs\":{\"alpha\":1}}", ERR_UNSUPPORTED, "sp_model_kwargs must be empty");
    expect("{\"padding_side\":\"left\"}", ERR_UNSUPPORTED, "padding_side must be right");
    expect("{\"model_max_length\":1}", ERR_FORMAT, "model_max_length must be a number");
    expect("{\"added_tokens_decoder\":{\"x\":{}}}", ERR_FORMAT, "has the invalid entry x");
    expect("{\"added_tokens_decoder\":{\"7\":{\"content\":\"a\",\"single_word\":true}}}",
           ERR_UNSUPPORTED, "single_word true");
    snprintf(command, sizeof command, "rm -r '%s'", dir);
    CHECK_INT(system(command), 0);
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return test_skip("needs the golden folder");
    golden = argv[1];
    check_table();
    check_nmt_nfkc();
    check_prompts();
    check_edges();
    check_folders();
    return test_end();
}
