// CLIP's tokenizer: the golden strings from its own files and from a tokenizer.json, the rules of
// cleaning one by one, long words, and errors for broken folders.
#include "buf.h"
#include "clip_text.h"
#include "json.h"
#include "test.h"
#include "tokenizer.h"

#include <stdlib.h>
#include <unistd.h>

enum { L = TOKENIZER_IF_LENGTH, BOS = 898, EOS = 899, PAD = 0 };

static const char *golden;
static char dir[64];

static void write_file(const char *name, const void *data, size_t n)
{
    char path[128];

    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    CHECK(f && (!n || fwrite(data, n, 1, f) == 1) && !fclose(f));
}

static void remove_file(const char *name)
{
    char path[128];

    snprintf(path, sizeof path, "%s/%s", dir, name);
    unlink(path);
}

static void copy_file(const char *name)
{
    char path[512];
    struct buf b = {0};

    snprintf(path, sizeof path, "%s/x4-tiny/tokenizer/%s", golden, name);
    CHECK(!buf_read_file(&b, path, 1 << 20, NULL));
    write_file(name, b.data, b.len);
    buf_deinit(&b);
}

static struct tokenizer *open_dir(const char *path)
{
    struct tokenizer *t = NULL;
    struct fault why = {0};

    CHECK_MSG(!tokenizer_open(path, &t, &why), "%s", why.msg);
    return t;
}

static size_t from_hex(const char *hex, char *out)
{
    const size_t n = strlen(hex) / 2;

    for (size_t i = 0; i < n; i++) {
        unsigned v;
        sscanf(hex + 2 * i, "%2x", &v);
        out[i] = (char)v;
    }
    return n;
}

// every: also strings with characters that only the slow tokenizer replaces.
static int check_golden(const struct tokenizer *t, bool every)
{
    char path[512];
    static char text[65536];
    struct json_t *doc = NULL;
    struct buf slow = {0}, fast = {0};
    int checked = 0;

    snprintf(path, sizeof path, "%s/x4-tiny/token_ids.json", golden);
    CHECK(!json_parse_file(path, 16 << 20, &doc, NULL));
    for (size_t i = 0; i < json_count(doc); i++) {
        const struct json_t *row = json_item(doc, i), *want = json_find(row, "ids_77");
        const char *hex = json_text(json_find(row, "utf8_hex"), NULL);
        const size_t n = from_hex(hex, text);
        uint32_t ids[L], mask[L];
        int count = 0, same = 1;
        buf_clear(&slow);
        buf_clear(&fast);
        CHECK(!clip_text_clean(text, n, true, &slow) && !clip_text_clean(text, n, false, &fast));
        if (!every &&
            (slow.len != fast.len || (slow.len && memcmp(slow.data, fast.data, slow.len))))
            continue;
        CHECK(!tokenizer_encode(t, text, n, L, ids, mask, &count));
        CHECK_MSG(count == json_int(json_find(row, "n")), "%s", hex);
        for (size_t k = 0; k < L; k++)
            same = same && json_int(json_item(want, k)) == ids[k] && mask[k] == ((int)k < count);
        CHECK_MSG(same, "%s", hex);
        checked++;
    }
    buf_deinit(&slow);
    buf_deinit(&fast);
    json_destroy(&doc);
    return checked;
}

// ---- cleaning ---------------------------------------------------------------------------------

static void check_cleaning(void)
{
    static const struct {
        const char *text, *slow, *fast;
    } rows[] = {
        {"  A  Cat\t\nDog ", "a cat dog", "a cat dog"},
        {"", "", ""},
        {" \n ", "", ""},
        {"e\xcc\x81", "\xc3\xa9", "\xc3\xa9"},
        {"\xef\xac\x81sh", "fish", "\xef\xac\x81sh"},
        {"\xe2\x80\x98q\xe2\x80\x99 \xe2\x80\x9cr\xe2\x80\x9d", "'q' \"r\"",
         "\xe2\x80\x98q\xe2\x80\x99 \xe2\x80\x9cr\xe2\x80\x9d"},
        {"\xef\xbc\xa1\xef\xbd\xb6\xef\xbe\x9e", "a\xe3\x82\xac",
         "\xef\xbd\x81\xef\xbd\xb6\xef\xbe\x9e"},
        {"a &amp; b &lt;c&gt;", "a & b <c>", "a &amp; b &lt;c&gt;"},
        {"a &amp;lt; b", "a < b", "a &amp;lt; b"},
        {"<b> &amp;", "<b> &amp;", "<b> &amp;"},
        {"&amp; <b> &amp;\n&amp;", "&amp; <b> &amp; &amp;", "&amp; <b> &amp;\n&amp;"},
        {"&amp;\n<b> &amp;\n&amp;", "& <b> &amp; &amp;", NULL},
        {"&#39;&#x41;&#65;", "'aa", NULL},
        {"&#39 &nosuch; &; &#; &#x; &amp", "&#39 &nosuch; &; &#; &#x; &amp", NULL},
        {"&EACUTE;&Eacute;&eacute;", "\xc3\xa9\xc3\xa9\xc3\xa9", NULL},
        {"a\x01\x1f"
         "b\x7f\xef\xbb\xbf"
         "c",
         "abc", NULL},
        {"\x1b[31;1mred\x1b[0m \x1b[x", "red", NULL},
        {"\xc2\x93x\xc2\x94 \xc2\x80", "\"x\" \xe2\x82\xac", NULL},
        {"\xce\x9f\xce\xa3", "\xce\xbf\xcf\x82", "\xce\xbf\xcf\x82"},
        {"\xe3\x80\x80x\xc2\xa0y", "x y", "x y"},
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct buf b = {0};
        CHECK(!clip_text_clean(rows[i].text, strlen(rows[i].text), true, &b));
        CHECK_STR(b.data ? b.data : "", rows[i].slow);
        buf_clear(&b);
        CHECK(!clip_text_clean(rows[i].text, strlen(rows[i].text), false, &b));
        if (rows[i].fast && !strchr(rows[i].fast, '\n'))
            CHECK_STR(b.len ? b.data : "", rows[i].fast);
        buf_deinit(&b);
    }
}

static enum err add_word(void *ctx, const char *word, size_t n)
{
    struct buf *b = ctx;

    buf_add(b, word, n);
    buf_putc(b, '_');
    return ERR_OK;
}

static void check_words(void)
{
    static const char *const rows[][2] = {
        {"it's a cat", "it_'s_a_cat_"},
        {"they'll've", "they_'ll_'ve_"},
        {"x'y ''s", "x_'_y_''_s_"},
        {"12 3.14", "1_2_3_._1_4_"},
        {"a...b!?", "a_..._b_!?_"},
        {"<|endoftext|>x", "<|endoftext|>_x_"},
        {".<|endoftext|>", ".<|_endoftext_|>_"},
        {"\xc3\xa9\xe4\xb8\xad\xc2\xb2", "\xc3\xa9\xe4\xb8\xad_\xc2\xb2_"},
        {"it'\xc5\xbf", "it_'\xc5\xbf_"},
        {"", ""},
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct buf b = {0};
        CHECK(!clip_text_split(rows[i][0], strlen(rows[i][0]), add_word, &b));
        CHECK_STR(b.data ? b.data : "", rows[i][1]);
        buf_deinit(&b);
    }
}

// ---- ids --------------------------------------------------------------------------------------

static void check_lengths(const struct tokenizer *t)
{
    static char word[32000];
    uint32_t ids[L], mask[L];
    int count, total;

    CHECK_INT(tokenizer_kind(t), TOKENIZER_CLIP);
    CHECK_INT(tokenizer_vocab(t), 900);
    CHECK_INT(tokenizer_max_length(t), L);
    CHECK(!tokenizer_encode(t, "", 0, L, ids, mask, &count) && count == 2);
    CHECK(ids[0] == BOS && ids[1] == EOS && ids[2] == PAD && mask[1] && !mask[2]);
    CHECK(!tokenizer_count(t, "", 0, &total) && total == 2);
    // A prompt that ends with the end token gets another one, as in the library.
    CHECK(!tokenizer_encode(t, "<|endoftext|>", 13, L, ids, mask, &count) && count == 3);
    CHECK(ids[1] == EOS && ids[2] == EOS);
    CHECK(!tokenizer_encode(t, "<|ENDOFTEXT|>", 13, L, ids, mask, &count) && count == 3);
    CHECK_INT(tokenizer_encode(t, "a\xff", 2, L, ids, mask, &count), ERR_INVALID);
    CHECK_INT(tokenizer_encode(t, "a", 1, 1, ids, mask, &count), ERR_INVALID);
    // Long words take no more than a moment.
    const double began = test_seconds();
    for (size_t i = 0; i < sizeof word; i++)
        word[i] = (char)('a' + (i * i + i / 7) % 26);
    CHECK(!tokenizer_encode(t, word, sizeof word, L, ids, mask, &count) && count == L);
    CHECK(ids[L - 1] == EOS);
    CHECK(!tokenizer_count(t, word, sizeof word, &total) && total > 5000);
    memset(word, '&', sizeof word);
    CHECK(!tokenizer_count(t, word, sizeof word, &total) && total > 2);
    CHECK(test_seconds() - began < 5);
    struct buf b = {0};
    CHECK(!tokenizer_prepare(t, " A ", 3, &b));
    CHECK_STR(b.data, " A ");
    CHECK_INT(tokenizer_prepare(t, "\xff", 1, &b), ERR_INVALID);
    buf_deinit(&b);
    int *pieces = NULL;
    CHECK_INT(tokenizer_pieces(t, "a", 1, &pieces, &count), ERR_INVALID);
}

// ---- tokenizer.json -----------------------------------------------------------------------------

#define NORMAL                                                                                     \
    "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},{\"type\":"         \
    "\"Replace\",\"pattern\":{\"Regex\":\"\\\\s+\"},\"content\":\" \"},{\"type\":\"Lowercase\"}]}"
#define WORDS "'s|'t|'re|'ve|'m|'ll|'d|[\\\\p{L}]+|[\\\\p{N}]|[^\\\\s\\\\p{L}\\\\p{N}]+"
#define SPLIT(pattern)                                                                             \
    "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\","             \
    "\"pattern\":{\"Regex\":\"" pattern "\"},\"behavior\":\"Removed\",\"invert\":true},"           \
    "{\"type\":\"ByteLevel\",\"add_prefix_space\":false}]}"
#define ADDED                                                                                      \
    "\"added_tokens\":[{\"id\":0,\"content\":\"!\",\"special\":true},{\"id\":898,\"content\":"     \
    "\"<|startoftext|>\",\"normalized\":true,\"special\":true},{\"id\":899,\"content\":"           \
    "\"<|endoftext|>\",\"normalized\":true,\"special\":true}]"

// The golden vocabulary as a tokenizer.json; pairs: merges as lists of two.
static void write_json(const char *pattern, bool pairs)
{
    struct buf b = {0}, vocab = {0}, merges = {0};
    char path[512];
    bool first = true;

    snprintf(path, sizeof path, "%s/x4-tiny/tokenizer/vocab.json", golden);
    CHECK(!buf_read_file(&vocab, path, 1 << 20, NULL));
    snprintf(path, sizeof path, "%s/x4-tiny/tokenizer/merges.txt", golden);
    CHECK(!buf_read_file(&merges, path, 1 << 20, NULL));
    buf_printf(&b, "{" ADDED "," NORMAL ",%s,\"model\":{\"type\":\"BPE\",\"dropout\":null,",
               pattern);
    buf_printf(&b, "\"end_of_word_suffix\":\"</w>\",\"vocab\":%s,\"merges\":[", vocab.data);
    strtok(merges.data, "\n");
    for (char *line; (line = strtok(NULL, "\n"));) {
        char *space = strchr(line, ' ');
        // The golden merges have neither quotes nor backslashes.
        *space = 0;
        buf_printf(&b, pairs ? "%s[\"%s\",\"%s\"]" : "%s\"%s %s\"", first ? "" : ",", line,
                   space + 1);
        first = false;
    }
    buf_puts(&b, "]}}");
    write_file("tokenizer.json", b.data, b.len);
    buf_deinit(&b);
    buf_deinit(&vocab);
    buf_deinit(&merges);
}

static void check_json(void)
{
    static const char *const patterns[] = {
        SPLIT(WORDS), SPLIT("<\\\\|startoftext\\\\|>|<\\\\|endoftext\\\\|>|" WORDS)};

    remove_file("vocab.json");
    remove_file("merges.txt");
    for (int i = 0; i < 2; i++) {
        write_json(patterns[i], i);
        struct tokenizer *t = open_dir(dir);
        if (t)
            CHECK(check_golden(t, false) > 100);
        tokenizer_close(&t);
    }
}

// ---- errors -----------------------------------------------------------------------------------

static void refuse(enum err e, const char *says)
{
    struct tokenizer *t = NULL;
    struct fault why = {0};

    CHECK_MSG(tokenizer_open(dir, &t, &why) == e, "%s: %s", says, why.msg);
    CHECK_MSG(strstr(why.msg, says) != NULL, "%s: %s", says, why.msg);
    CHECK(!t);
    tokenizer_close(&t);
}

static void check_refused(void)
{
    static const struct {
        const char *name, *text;
        enum err e;
        const char *says;
    } rows[] = {
        {"vocab.json", "[]", ERR_FORMAT, "the vocabulary must be an object"},
        {"vocab.json", "{}", ERR_FORMAT, "the vocabulary must be an object"},
        {"vocab.json", "{\"a\":\"b\"}", ERR_FORMAT, "token \"a\" has no usable id"},
        {"vocab.json", "{\"a\":-1}", ERR_FORMAT, "token \"a\" has no usable id"},
        {"vocab.json", "{\"\":1}", ERR_FORMAT, "token \"\" has no usable id"},
        {"vocab.json", "version https://git-lfs.github.com/spec/v1\noid", ERR_FORMAT, "vocab.json"},
        {"merges.txt", "", ERR_FORMAT, "is empty"},
        {"merges.txt", "a b\nc d\n", ERR_FORMAT, "must begin with a line that has #version"},
        {"merges.txt", "version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 8\n",
         ERR_FORMAT, "merges.txt is a Git LFS pointer"},
        {"merges.txt", "#version: 0.2\nab\n", ERR_FORMAT, "merge 1 must be two texts"},
        {"merges.txt", "#version: 0.2\na b\na b c\n", ERR_FORMAT, "merge 2 must be two texts"},
        {"merges.txt", "#version: 0.2\na b\n\nc d\n", ERR_FORMAT, "merge 2 must be two texts"},
        {"tokenizer_config.json", "{\"model_max_length\":1}", ERR_FORMAT, "model_max_length"},
        {"tokenizer_config.json", "{\"pad_token\":\"<pad>\",\"added_tokens_decoder\":{}}",
         ERR_UNSUPPORTED, "pad_token <pad> is not in the vocabulary"},
    };
    static const char *const names[] = {"vocab.json", "merges.txt", "tokenizer_config.json"};

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        for (size_t k = 0; k < sizeof names / sizeof *names; k++)
            copy_file(names[k]);
        write_file(rows[i].name, rows[i].text, strlen(rows[i].text));
        refuse(rows[i].e, rows[i].says);
    }
    for (size_t k = 0; k < sizeof names / sizeof *names; k++)
        copy_file(names[k]);
    remove_file("merges.txt");
    refuse(ERR_NOT_FOUND, "merges.txt");
    remove_file("vocab.json");
    remove_file("tokenizer.json");
    refuse(ERR_NOT_FOUND, "neither a spiece.model (T5), nor vocab.json and merges.txt (CLIP)");
    write_json("\"pre_tokenizer\":null", false);
    refuse(ERR_UNSUPPORTED, "pre_tokenizer null is not supported");
    write_json(SPLIT("[a-z]+"), false);
    refuse(ERR_UNSUPPORTED, "pre_tokenizer");
}

// Folders of older libraries list no added tokens: the special tokens are those of the files.
static void check_old_folder(void)
{
    static const char map[] = "{\"bos_token\":\"<|startoftext|>\",\"eos_token\":\"<|endoftext|>\","
                              "\"unk_token\":\"<|endoftext|>\",\"pad_token\":\"!\"}";

    for (int i = 0; i < 2; i++)
        copy_file(i ? "vocab.json" : "merges.txt");
    write_file("tokenizer_config.json", "{\"pad_token\":\"<|endoftext|>\"}", 29);
    write_file("special_tokens_map.json", map, strlen(map));
    struct tokenizer *t = open_dir(dir);
    if (t)
        CHECK_INT(check_golden(t, true), 224);
    tokenizer_close(&t);
    remove_file("special_tokens_map.json");
    t = open_dir(dir);
    uint32_t ids[L], mask[L];
    CHECK(t && !tokenizer_encode(t, "hi!", 3, L, ids, mask, NULL));
    CHECK(ids[L - 1] == EOS); // CLIP's own default
    tokenizer_close(&t);
}

int main(int argc, char **argv)
{
    char path[512], command[128];

    if (argc < 2)
        return test_skip("needs the golden folder");
    golden = argv[1];
    strcpy(dir, "/tmp/imagend-tc-XXXXXX");
    if (!mkdtemp(dir))
        return test_skip("no temporary folder");
    snprintf(path, sizeof path, "%s/x4-tiny/tokenizer", golden);
    struct tokenizer *t = open_dir(path);
    if (t) {
        CHECK_INT(check_golden(t, true), 224);
        check_lengths(t);
    }
    tokenizer_close(&t);
    check_cleaning();
    check_words();
    copy_file("tokenizer_config.json");
    check_json();
    check_old_folder();
    check_refused();
    snprintf(command, sizeof command, "rm -r '%s'", dir);
    CHECK_INT(system(command), 0);
    return test_end();
}
