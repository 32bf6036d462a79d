// Vocabularies: which prompts name something that the model knows, which names are nearest to the
// others, what is refused, and how long a vocabulary lives.
#include "test.h"
#include "vocabulary.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char good[] =
    "{\"format\": 1, \"categories\": [\"animals\"], \"nouns\": ["
    "{\"name\": \"cat\", \"words\": [\"cat\", \"cats\", \"kitten\"], \"languages\": {\"de\": "
    "[\"Katze\", \"K\u00e4tzchen\"], \"ja\": [\"\u732b\"], \"fr\": [\"l'\u0153il-de-chat\"]}},"
    "{\"name\": \"hot dog\", \"words\": [\"hot dog\"]},"
    "{\"name\": \"T-shirt\", \"words\": [\"T-shirt\"]}],"
    "\"shapes\": [{\"name\": \"star\", \"words\": [\"star\", \"stars\", \"Strau\u00df\"]}, "
    "{\"name\": \"fox\"}],"
    "\"other_words\": [\"a\", \"the\", \"on\", \"red\", \"hot\", \"beach\", \"stars\", "
    "\"\u6d77\u306e\u4e0a\", \"\u306e\"]}";

static const struct vocabulary *words_of(const char *text, struct fault *why)
{
    const struct vocabulary *v = NULL;
    *why = (struct fault){0};
    CHECK_INT(vocabulary_parse(text, strlen(text), "vocabulary.json", &v, why), why->code);
    CHECK(!v == (why->code != ERR_OK));
    return v;
}

static void test_prompts(void)
{
    static const struct {
        const char *prompt, *nearest;
    } rows[] = {
        {"", ""},
        {"a cat on the beach", ""},
        {"CATS!", ""},
        {"a kitten, red", ""},
        {"eine Katze", ""},
        {"ein K\u00c4TZCHEN", ""},
        {"L'\u0152il de chat", ""},
        {"eine kleine Ka\u0308tzchen", ""}, // composed of two
        {"\uff43\uff41\uff54", ""},         // wide letters
        {"ein Strau\u1e9e", ""},            // capital sharp s
        {"\u8d64\u3044\u732b\u306e\u5199\u771f", ""},
        {"my t shirt", ""},
        {"a (hot  dog:1.2)", ""},
        {"the stars", ""},
        {"dog stars", ""},
        {"red on the beach", ""}, // names nothing, and describes a place
        {"\u6d77\u306e\u4e0a", ""},
        {"...", ""},
        {"zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz",
         "cat, hot dog or T-shirt"},
        {"a fox", ""},                    // a name is a word, too
        {"a dog", "hot dog, fox or cat"}, // a hot dog is no dog
        {"a catt and a fish", "cat, T-shirt or star"},
        {"concatenate", "cat, hot dog or star"}, // words, not parts of them
        {"stair", "star, T-shirt or cat"},
        {"\u72ac", "cat, hot dog or T-shirt"}, // nothing is near: the first
        {"\xf0\x9f\x90\xb6\xf0\x9f\x90\xb6", "cat, hot dog or T-shirt"},
    };
    struct fault why;
    const struct vocabulary *v = words_of(good, &why);
    CHECK_MSG(v, "%s", why.msg);
    if (!v)
        return;
    CHECK_INT(vocabulary_things(v), 5);
    CHECK(strstr(vocabulary_json(v), "\"categories\":[\"animals\"]"));
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char nearest[VOCABULARY_NEAREST];
        vocabulary_miss(v, rows[i].prompt, nearest);
        CHECK_MSG(!strcmp(nearest, rows[i].nearest), "%s: \"%s\"", rows[i].prompt, nearest);
    }
    vocabulary_unref(&v);
    CHECK(!v);
}

// Of a long prompt only the beginning is read.
static void test_length(void)
{
    enum { N = 32000 };
    static char prompt[N + 8];
    char nearest[VOCABULARY_NEAREST];
    struct fault why;
    const struct vocabulary *v = words_of(good, &why);
    for (int i = 0; i < N; i += 2)
        memcpy(prompt + i, "a ", 3);
    memcpy(prompt, "dog", 3);
    memcpy(prompt + N, "cat", 4);
    vocabulary_miss(v, prompt, nearest);
    CHECK_STR(nearest, "hot dog, fox or cat");
    memcpy(prompt + 1000, "cat", 3);
    vocabulary_miss(v, prompt, nearest);
    CHECK_STR(nearest, "");
    vocabulary_unref(&v);
}

static void test_refused(void)
{
    static const struct {
        const char *text, *says;
        enum err code;
    } rows[] = {
        {"{", "vocabulary.json", ERR_FORMAT},
        {"[]", "vocabulary.json", ERR_FORMAT},
        {"{\"nouns\": []}", "format", ERR_UNSUPPORTED},
        {"{\"format\": 2}", "format", ERR_UNSUPPORTED},
        {"{\"format\": 1}", "neither nouns nor shapes", ERR_FORMAT},
        {"{\"format\": 1, \"nouns\": {}}", "nouns", ERR_FORMAT},
        {"{\"format\": 1, \"nouns\": [3]}", "vocabulary.json: nouns[0]", ERR_FORMAT},
        {"{\"format\": 1, \"nouns\": [{\"name\": \"a\"}, {\"name\": \"b\", \"example\": 7}]}",
         "nouns[1]", ERR_FORMAT},
        {"{\"format\": 1, \"nouns\": [{}]}", "name", ERR_FORMAT},
        {"{\"format\": 1, \"nouns\": [{\"name\": \"\"}]}", "name", ERR_FORMAT},
        {"{\"format\": 1, \"nouns\": [{\"name\": \"a\\nb\"}]}", "control character", ERR_FORMAT},
        {"{\"format\": 1, \"nouns\": [{\"name\": \"a\", \"words\": \"a\"}]}", "words", ERR_FORMAT},
        {"{\"format\": 1, \"nouns\": [{\"name\": \"a\", \"words\": [1]}]}", "words", ERR_FORMAT},
        {"{\"format\": 1, \"nouns\": [{\"name\": \"a\", \"languages\": []}]}", "languages",
         ERR_FORMAT},
        {"{\"format\": 1, \"nouns\": [{\"name\": \"a\", \"languages\": {\"de\": {}}}]}",
         "languages", ERR_FORMAT},
        {"{\"format\": 1, \"shapes\": [{\"name\": \"a\"}], \"other_words\": [[]]}", "other_words",
         ERR_FORMAT},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct fault why;
        const struct vocabulary *v = words_of(rows[i].text, &why);
        CHECK_MSG(why.code == rows[i].code && strstr(why.msg, rows[i].says), "%s: %s %s",
                  rows[i].text, err_name(why.code), why.msg);
        vocabulary_unref(&v);
    }
}

static void test_folder(void)
{
    char dir[] = "/tmp/imagend-vocabulary-XXXXXX", path[64];
    const struct vocabulary *v = NULL, *other;
    struct fault why = {0};
    CHECK(mkdtemp(dir));
    CHECK_INT(vocabulary_read(dir, &v, &why), ERR_OK);
    CHECK(!v && !why.code); // it is no fault to have none
    snprintf(path, sizeof path, "%s/vocabulary.json", dir);
    FILE *f = fopen(path, "w");
    CHECK(f && fputs(good, f) >= 0 && !fclose(f));
    CHECK_INT(vocabulary_read(dir, &v, &why), ERR_OK);
    other = vocabulary_ref(v);
    vocabulary_unref(&v);
    CHECK_INT(vocabulary_things(other), 5);
    vocabulary_unref(&other);
    vocabulary_unref(&other);
    f = fopen(path, "w");
    CHECK(f && fputs("{]", f) >= 0 && !fclose(f));
    CHECK_INT(vocabulary_read(dir, &v, &why), ERR_FORMAT);
    CHECK_MSG(strstr(why.msg, "vocabulary.json"), "%s", why.msg);
    unlink(path);
    rmdir(dir);
}

int main(void)
{
    test_prompts();
    test_length();
    test_refused();
    test_folder();
    return test_end();
}
