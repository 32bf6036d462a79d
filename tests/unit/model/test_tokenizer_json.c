// tokenizer.json: the golden spiece.model, converted to the fast tokenizer's file, must give the
// golden token ids; unsupported settings of fast tokenizers are refused by name.
#include "buf.h"
#include "json.h"
#include "test.h"
#include "text.h"
#include "tokenizer.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *golden;
static char dir[64];

// ---- spiece.model, in as much as it is rewritten ----------------------------------------------

struct piece {
    char text[64];
    double score;
    int type;
};

struct model {
    struct piece piece[2000];
    int pieces;
    struct buf charsmap;
};

static uint64_t varint(const unsigned char **p)
{
    uint64_t v = 0;
    for (int shift = 0;; shift += 7) {
        v |= (uint64_t)(**p & 0x7f) << shift;
        if (*(*p)++ < 0x80)
            return v;
    }
}

static void read_piece(const unsigned char *p, const unsigned char *end, struct piece *out)
{
    out->type = 1;
    while (p < end) {
        const uint64_t tag = varint(&p);
        float score;
        if (tag == (1 << 3 | 2)) {
            const uint64_t n = varint(&p);
            snprintf(out->text, sizeof out->text, "%.*s", (int)n, (const char *)p);
            p += n;
        } else if (tag == (2 << 3 | 5)) {
            memcpy(&score, p, 4);
            out->score = (double)score;
            p += 4;
        } else {
            out->type = (int)varint(&p);
        }
    }
}

static void read_normalizer(const unsigned char *p, const unsigned char *end, struct buf *charsmap)
{
    while (p < end) {
        const uint64_t tag = varint(&p), n = varint(&p);
        if ((tag & 7) != 2)
            continue;
        if (tag >> 3 == 2)
            buf_add(charsmap, p, n);
        p += n;
    }
}

static void read_model(const char *path, struct model *m)
{
    struct buf b = {0};
    struct fault why;
    CHECK_INT(buf_read_file(&b, path, 1 << 22, &why), ERR_OK);
    const unsigned char *p = (const unsigned char *)b.data, *end = p + b.len;
    while (p < end) {
        const uint64_t tag = varint(&p), n = varint(&p);
        if (tag == (1 << 3 | 2))
            read_piece(p, p + n, &m->piece[m->pieces++]);
        else if (tag == (3 << 3 | 2))
            read_normalizer(p, p + n, &m->charsmap);
        p += n;
    }
    buf_deinit(&b);
}

// ---- tokenizer.json, as transformers' T5Converter writes it ------------------------------------

enum { SENTINELS = 100 };

// How the file is written: the two ways in which it comes.
enum form { NOW, THEN };
static const char *const normalizers[] = {
    [NOW] = "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Precompiled\","
            "\"precompiled_charsmap\":\"%s\"},{\"type\":\"Strip\",\"strip_left\":false,"
            "\"strip_right\":true},{\"type\":\"Replace\",\"pattern\":{\"Regex\":\" {2,}\"},"
            "\"content\":\"\xe2\x96\x81\"}]}",
    [THEN] = "{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"%s\"}",
};
static const char *const spaces[] = {
    [NOW] = "{\"type\":\"Metaspace\",\"replacement\":\"\xe2\x96\x81\",\"prepend_scheme\":\"%s\","
            "\"split\":true}",
    [THEN] = "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"WhitespaceSplit\"},{\"type\":"
             "\"Metaspace\",\"replacement\":\"\xe2\x96\x81\",\"str_rep\":\"\xe2\x96\x81\","
             "\"add_prefix_space\":true}]}",
};

static void add_added(struct buf *b, const char *text, int id, bool strip)
{
    buf_printf(b,
               "%s{\"id\":%d,\"content\":\"%s\",\"single_word\":false,\"lstrip\":%s,\"rstrip\":%s,"
               "\"normalized\":false,\"special\":true}",
               b->data[b->len - 1] == '[' ? "" : ",", id, text, strip ? "true" : "false",
               strip ? "true" : "false");
}

static void write_json(const struct model *m, enum form form, const char *scheme, struct buf *b)
{
    struct buf base64 = {0};
    text_base64(&base64, m->charsmap.data, m->charsmap.len);
    buf_puts(b, "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":[");
    for (int i = 0; i < m->pieces; i++)
        if (m->piece[i].type == 2 || m->piece[i].type == 3)
            add_added(b, m->piece[i].text, i, false);
    for (int i = SENTINELS - 1; i >= 0; i--) {
        char text[32];
        snprintf(text, sizeof text, "<extra_id_%d>", i);
        add_added(b, text, m->pieces + SENTINELS - 1 - i, true);
    }
    buf_puts(b, "],\"normalizer\":");
    const char *mark = strstr(normalizers[form], "%s");
    buf_add(b, normalizers[form], (size_t)(mark - normalizers[form]));
    buf_puts(b, base64.data);
    buf_puts(b, mark + 2);
    buf_puts(b, ",\"pre_tokenizer\":");
    mark = strstr(spaces[form], "%s");
    buf_add(b, spaces[form], mark ? (size_t)(mark - spaces[form]) : strlen(spaces[form]));
    if (mark)
        buf_printf(b, "%s%s", scheme, mark + 2);
    buf_puts(b,
             ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"Sequence\":"
             "{\"id\":\"A\",\"type_id\":0}},{\"SpecialToken\":{\"id\":\"</s>\",\"type_id\":0}}],"
             "\"pair\":[],\"special_tokens\":{}},\"decoder\":null,\"model\":{\"type\":\"Unigram\","
             "\"unk_id\":2,\"vocab\":[");
    for (int i = 0; i < m->pieces; i++) {
        buf_puts(b, i ? ",[" : "[");
        text_json(b, m->piece[i].text);
        buf_printf(b, ",%.17g]", m->piece[i].score);
    }
    for (int i = SENTINELS - 1; i >= 0; i--)
        buf_printf(b, ",[\"<extra_id_%d>\",0.0]", i);
    buf_puts(b, "],\"byte_fallback\":false}}");
    buf_deinit(&base64);
}

static void write_file(const char *name, const char *data, size_t n)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    CHECK(f && (!n || fwrite(data, n, 1, f) == 1));
    if (f)
        fclose(f);
}

// The tokenizer_config.json that transformers 5 writes.
static const char config[] =
    "{\"add_prefix_space\":null,\"backend\":\"tokenizers\",\"eos_token\":\"</"
    "s>\",\"extra_ids\":100,"
    "\"is_local\":true,\"model_max_length\":512,\"pad_token\":\"<pad>\",\"tokenizer_class\":"
    "\"T5Tokenizer\",\"unk_token\":\"<unk>\",\"extra_special_tokens\":[\"<extra_id_0>\"]}";

// ---- the golden ids ---------------------------------------------------------------------------

static char *unhex(const char *hex, size_t *len)
{
    char *s = malloc(strlen(hex) / 2 + 1);
    *len = strlen(hex) / 2;
    for (size_t i = 0; s && i < *len; i++) {
        unsigned v;
        sscanf(hex + 2 * i, "%2x", &v);
        s[i] = (char)v;
    }
    return s;
}

static int compare(const struct tokenizer *t, const struct json_t *row, const char *key)
{
    const struct json_t *want = json_find(row, key);
    uint32_t ids[77], mask[77];
    size_t len;
    int count = 0, wrong = 0;
    char *text = unhex(json_text(json_find(row, "utf8_hex"), NULL), &len);

    if (!want)
        want = json_find(row, "t5_ids_77");
    CHECK_INT(tokenizer_encode(t, text, len, 77, ids, mask, &count), ERR_OK);
    wrong = (size_t)count != json_count(want);
    for (int i = 0; !wrong && i < count; i++)
        wrong = json_int(json_item(want, (size_t)i)) != (int64_t)ids[i];
    CHECK_MSG(!wrong, "%s: \"%s\"", key, json_text(json_find(row, "text"), NULL));
    free(text);
    return wrong;
}

static void check_ids(const struct model *m)
{
    static const struct {
        enum form form;
        const char *scheme, *key;
    } rows[] = {
        {NOW, "always", "t5_ids_77"},
        {THEN, "", "t5_ids_77"},
        {NOW, "first", "t5_ids_77_legacy_false"},
    };
    char path[512];
    struct json_t *doc = NULL;
    struct fault why = {0};

    snprintf(path, sizeof path, "%s/t5-tiny/token_ids.json", golden);
    CHECK_INT(json_parse_file(path, 16 << 20, &doc, &why), ERR_OK);
    CHECK(json_count(doc) > 100);
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        struct buf b = {0};
        struct tokenizer *t = NULL;
        write_json(m, rows[r].form, rows[r].scheme, &b);
        write_file("tokenizer.json", b.data, b.len);
        CHECK_MSG(tokenizer_open(dir, &t, &why) == ERR_OK, "%s", why.msg);
        if (t)
            CHECK_INT(tokenizer_vocab(t), m->pieces + SENTINELS);
        for (size_t i = 0; t && i < json_count(doc); i++)
            compare(t, json_item(doc, i), rows[r].key);
        tokenizer_close(&t);
        buf_deinit(&b);
    }
    json_destroy(&doc);
}

#define ADDED                                                                                      \
    "\"added_tokens\":[{\"id\":0,\"content\":\"<pad>\",\"special\":true},{\"id\":1,\"content\":"   \
    "\"</s>\",\"special\":true},{\"id\":2,\"content\":\"<unk>\",\"special\":true}]"
#define SPACE "\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"\xe2\x96\x81\"}"
#define SPLIT                                                                                      \
    "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"WhitespaceSplit\"},"  \
    "{\"type\":\"Metaspace\",\"replacement\":\"\xe2\x96\x81\",\"add_prefix_space\":true}]}"
#define END                                                                                        \
    "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"Sequence\":{\"id\":\"A\"}" \
    "},"                                                                                           \
    "{\"SpecialToken\":{\"id\":\"</s>\"}}]}"
#define VOCAB                                                                                      \
    "[[\"<pad>\",0],[\"</s>\",0],[\"<unk>\",0],[\"\xe2\x96\x81\",-2.5],[\"\xe2\x96\x81"            \
    "a\",-3],[\"b\",-4.5]]"
#define MODEL "\"model\":{\"type\":\"Unigram\",\"unk_id\":2,\"vocab\":" VOCAB "}"

// Without rules of normalization, a tokenizer that splits at white space does so at all of it.
static void check_white_space(void)
{
    static const char text[] = "a\ta\xc2\xa0\nb";
    static const uint32_t want[2][6] = {{4, 2, 5, 1}, {4, 4, 3, 5, 1}};
    uint32_t ids[77], mask[77];
    struct fault why;

    for (int split = 0; split < 2; split++) {
        struct buf b = {0};
        struct tokenizer *t = NULL;
        int count = 0;
        buf_printf(&b, "{" ADDED ",%s," END "," MODEL "}", split ? SPLIT : SPACE);
        write_file("tokenizer.json", b.data, b.len);
        CHECK_INT(tokenizer_open(dir, &t, &why), ERR_OK);
        CHECK_INT(tokenizer_encode(t, text, strlen(text), 77, ids, mask, &count), ERR_OK);
        CHECK_INT(count, split ? 5 : 4);
        CHECK(!memcmp(ids, want[split], (size_t)count * sizeof *ids));
        tokenizer_close(&t);
        buf_deinit(&b);
    }
}

// ---- refusals ---------------------------------------------------------------------------------

static void check_refused(void)
{
    static const struct {
        const char *json;
        enum err e;
        const char *says;
    } rows[] = {
        {"{" ADDED "," SPACE "," END "," MODEL "}", ERR_OK, ""},
        {"{" ADDED "," SPACE "," END ",\"normalizer\":null," MODEL "}", ERR_OK, ""},
        {"{" ADDED "," SPACE "," END ",\"model\":{\"unk_id\":2,\"vocab\":" VOCAB "}}", ERR_OK, ""},
        {"[]", ERR_FORMAT, "must be a JSON object"},
        {"{", ERR_FORMAT, "tokenizer.json: line 1"},
        {"<!DOCTYPE html>", ERR_FORMAT, "tokenizer.json is a web page"},
        {"{}", ERR_UNSUPPORTED, "pre_tokenizer nothing is not supported"},
        {"{" ADDED ",\"pre_tokenizer\":{\"type\":\"ByteLevel\"}," END "," MODEL "}",
         ERR_UNSUPPORTED, "pre_tokenizer {\"type\":\"ByteLevel\"} is not supported"},
        {"{" ADDED ",\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"_\"}," END
         "," MODEL "}",
         ERR_UNSUPPORTED, "pre_tokenizer"},
        {"{" ADDED ",\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":"
         "\"WhitespaceSplit\"},{\"type\":\"Metaspace\",\"replacement\":\"\xe2\x96\x81\","
         "\"prepend_scheme\":\"first\"}]}," END "," MODEL "}",
         ERR_UNSUPPORTED, "pre_tokenizer"},
        {"{" ADDED ",\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"\xe2\x96\x81\","
         "\"prepend_scheme\":\"last\"}," END "," MODEL "}",
         ERR_UNSUPPORTED, "pre_tokenizer"},
        {"{" ADDED "," SPACE ",\"normalizer\":{\"type\":\"Lowercase\"}," END "," MODEL "}",
         ERR_UNSUPPORTED, "normalizer {\"type\":\"Lowercase\"}"},
        {"{" ADDED "," SPACE ",\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":"
         "\"NFKC\"}]}," END "," MODEL "}",
         ERR_UNSUPPORTED, "normalizer {\"type\":\"NFKC\"}"},
        {"{" ADDED "," SPACE ",\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":"
         "\"!\"}," END "," MODEL "}",
         ERR_FORMAT, "is not base64"},
        {"{" ADDED "," SPACE ",\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":"
         "\"AAAA/w==\"}," END "," MODEL "}",
         ERR_FORMAT, "normalization rules"},
        {"{" ADDED "," SPACE "," MODEL "}", ERR_UNSUPPORTED, "post_processor nothing"},
        {"{" ADDED "," SPACE ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":["
         "{\"Sequence\":{\"id\":\"A\"}}]}," MODEL "}",
         ERR_UNSUPPORTED, "post_processor"},
        {"{" ADDED "," SPACE ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":["
         "{\"Sequence\":{\"id\":\"A\"}},{\"SpecialToken\":{\"id\":\"<pad>\"}}]}," MODEL "}",
         ERR_FORMAT, "disagree about the end token"},
        {"{" ADDED "," SPACE ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":["
         "{\"Sequence\":{\"id\":\"A\"}},{\"SpecialToken\":{\"id\":\"</s>\"}},"
         "{\"SpecialToken\":{\"id\":\"</s>\"}}]}," MODEL "}",
         ERR_UNSUPPORTED, "post_processor"},
        {"{" ADDED "," SPACE "," END "}", ERR_FORMAT, "model.vocab must be a list"},
        {"{" ADDED "," SPACE "," END ",\"model\":{\"type\":\"BPE\",\"vocab\":{}}}", ERR_UNSUPPORTED,
         "normalizer nothing is not supported"},
        {"{" ADDED "," SPACE "," END ",\"model\":{\"type\":\"WordPiece\",\"vocab\":{}}}",
         ERR_UNSUPPORTED, "model type \"WordPiece\" is not supported, only Unigram"},
        {"{" ADDED "," SPACE "," END ",\"model\":{\"type\":\"Unigram\",\"byte_fallback\":true}}",
         ERR_UNSUPPORTED, "byte_fallback true"},
        {"{" ADDED "," SPACE "," END ",\"model\":{\"type\":\"Unigram\",\"vocab\":" VOCAB "}}",
         ERR_FORMAT, "unk_id is not in the vocabulary"},
        {"{" ADDED "," SPACE "," END ",\"model\":{\"unk_id\":9,\"vocab\":" VOCAB "}}", ERR_FORMAT,
         "unk_id is not in the vocabulary"},
        {"{" ADDED "," SPACE "," END ",\"model\":{\"unk_id\":0,\"vocab\":" VOCAB "}}", ERR_FORMAT,
         "disagree about the unknown token"},
        {"{" ADDED "," SPACE "," END ",\"model\":{\"unk_id\":0,\"vocab\":[[\"a\"]]}}", ERR_FORMAT,
         "entry 0 of model.vocab"},
        {"{" ADDED "," SPACE "," END ",\"model\":{\"unk_id\":0,\"vocab\":[[\"\",0]]}}", ERR_FORMAT,
         "entry 0 of model.vocab"},
        {"{" ADDED "," SPACE "," END ",\"model\":{\"unk_id\":0,\"vocab\":[[\"a\",Infinity]]}}",
         ERR_FORMAT, "entry 0 of model.vocab"},
        {"{" ADDED "," SPACE "," END
         ",\"model\":{\"unk_id\":2,\"vocab\":[[\"<pad>\",0],[\"</s>\",0],"
         "[\"<unk>\",0],[\"a\",-1],[\"a\",-2]]}}",
         ERR_FORMAT, "not a SentencePiece model"},
        {"{\"added_tokens\":[{\"id\":4,\"content\":\"<pad>\",\"special\":true}]," SPACE "," END
         "," MODEL "}",
         ERR_FORMAT, "added token <pad> has id 4, which belongs to another piece"},
        {"{\"added_tokens\":[{\"id\":-4,\"content\":\"x\"}]," SPACE "," END "," MODEL "}",
         ERR_FORMAT, "entry 0 of added_tokens"},
        {"{\"added_tokens\":[{\"id\":9,\"content\":\"x\",\"normalized\":true}]," SPACE "," END
         "," MODEL "}",
         ERR_UNSUPPORTED, "x: normalized added tokens"},
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct tokenizer *t = NULL;
        struct fault why = {0};
        write_file("tokenizer.json", rows[i].json, strlen(rows[i].json));
        CHECK_MSG(tokenizer_open(dir, &t, &why) == rows[i].e, "row %zu: %s", i, why.msg);
        CHECK_MSG(strstr(why.msg, rows[i].says) != NULL, "row %zu: %s", i, why.msg);
        tokenizer_close(&t);
    }
}

int main(int argc, char **argv)
{
    static struct model m;
    char path[512], command[128];

    if (argc < 2)
        return test_skip("needs the golden folder");
    golden = argv[1];
    strcpy(dir, "/tmp/imagend-tj-XXXXXX");
    if (!mkdtemp(dir))
        return test_skip("no temporary folder");
    write_file("tokenizer_config.json", config, strlen(config));
    snprintf(path, sizeof path, "%s/t5-tiny/tokenizer/spiece.model", golden);
    read_model(path, &m);
    CHECK(m.pieces > 100 && m.charsmap.len > 1000);
    check_ids(&m);
    check_white_space();
    check_refused();
    buf_deinit(&m.charsmap);
    snprintf(command, sizeof command, "rm -r '%s'", dir);
    CHECK_INT(system(command), 0);
    return test_end();
}
