// Reads a vocabulary and looks for its words in prompts, see vocabulary.h.
#include "vocabulary.h"

#include "buf.h"
#include "json.h"
#include "text.h"
#include "utf8.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unicase.h>
#include <unictype.h>

enum {
    FORMAT = 1,
    PHRASE = 64, // bytes of the longest phrase that is looked for
    // Bytes that are read of a prompt; text encoders read fewer.
    PROMPT = 4096,
    UNKNOWN = 4,  // words of a prompt for which near names are looked for
    SUGGESTED = 3 // names of a suggestion
};

// Words as put_words makes them, as they are looked for in prompts.
struct phrase {
    char *text;
    int thing; // -1: names none
    bool own;  // of a thing, in the model's first language
};

struct vocabulary {
    atomic_int owners;
    struct buf json;
    int count, room;
    struct phrase *phrase; // sorted by text
    int things;
    char **name;
};

// ---- words ----------------------------------------------------------------------------------

// Written without spaces: words may begin and end anywhere.
static bool is_joint(uint32_t c)
{
    return (c >= 0x3040 && c <= 0x30ff) || (c >= 0x3400 && c <= 0x9fff) ||
           (c >= 0xf900 && c <= 0xfaff) || c == 0x3005;
}

// Letters, digits and signs of words; emoji are words, too.
static bool is_letter(uint32_t c)
{
    return uc_is_general_category_withtable(c, UC_CATEGORY_MASK_L | UC_CATEGORY_MASK_M |
                                                   UC_CATEGORY_MASK_N | UC_CATEGORY_MASK_So);
}

// Appends the words of at most n bytes, with single spaces between them. Letters that differ only
// in case, width or how Unicode composes them become the same (NFKC after case folding).
static void put_words(struct buf *b, const char *s, size_t n)
{
    const size_t begin = b->len;
    bool gap = false;
    uint32_t c;
    size_t folded_n = 0;
    (void)utf8_valid(s, n, &n); // the rest is left out
    if (!n)
        return;
    uint8_t *folded = u8_casefold((const uint8_t *)s, n, NULL, UNINORM_NFKC, NULL, &folded_n);
    if (!folded) {
        b->failed = true;
        return;
    }
    const char *text = (const char *)folded;
    for (size_t i = 0, len; i < folded_n && (len = utf8_decode(text + i, folded_n - i, &c));
         i += len) {
        if (!is_letter(c)) {
            gap = b->len > begin;
            continue;
        }
        if (gap)
            buf_putc(b, ' ');
        gap = false;
        utf8_put(b, c);
    }
    free(folded);
}

// ---- reading --------------------------------------------------------------------------------

static int compare_phrases(const void *a, const void *b)
{
    const struct phrase *x = a, *y = b;
    const int order = strcmp(x->text, y->text);
    // Names of things come first: of equal texts, the first is found.
    return order ? order : (x->thing < 0) - (y->thing < 0);
}

// Takes one text; one without words, or that is too long for a phrase, is of no use here.
static enum err add_phrase(struct vocabulary *v, const char *text, int thing, bool own)
{
    struct buf words = {0};
    put_words(&words, text, strlen(text));
    if (words.failed || !words.len || words.len >= PHRASE) {
        const enum err e = words.failed ? ERR_NO_MEMORY : ERR_OK;
        buf_deinit(&words);
        return e;
    }
    if (v->count == v->room) {
        const int room = v->room ? 2 * v->room : 256;
        struct phrase *more = realloc(v->phrase, (size_t)room * sizeof *more);
        if (!more) {
            buf_deinit(&words);
            return ERR_NO_MEMORY;
        }
        v->phrase = more;
        v->room = room;
    }
    v->phrase[v->count++] = (struct phrase){buf_take(&words), thing, own};
    return ERR_OK;
}

// A list of texts; absent is empty.
static enum err add_list(struct vocabulary *v, const struct json_t *list, const char *what,
                         const char *key, int thing, bool own, struct fault *why)
{
    if (list && json_kind(list) != JSON_LIST)
        return fault_set(why, ERR_FORMAT, what, "%s: \"%s\" must be a list", what, key);
    for (size_t i = 0; i < json_count(list); i++) {
        size_t n = 0;
        const char *text = json_text(json_item(list, i), &n);
        if (!text || strlen(text) != n)
            return fault_set(why, ERR_FORMAT, what, "%s: \"%s\" must be a list of texts", what,
                             key);
        if (add_phrase(v, text, thing, own))
            return fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    }
    return ERR_OK;
}

static enum err add_thing(struct vocabulary *v, const struct json_t *thing, const char *what,
                          struct fault *why)
{
    struct json_reader r = json_reader(thing, what, ERR_FORMAT, why);
    const char *name = json_read_text(&r, "name", NULL), *language;
    const struct json_t *others = r.err ? NULL : json_find(thing, "languages"), *list;
    char **more;
    (void)json_read_text(&r, "category", NULL); // for clients, which rely on texts
    (void)json_read_text(&r, "example", NULL);
    if (!r.err && (!name || !*name || strlen(name) >= PHRASE))
        (void)json_fail(&r, ERR_FORMAT, "name", "must be a text of 1 to %d bytes", PHRASE - 1);
    for (const char *c = name; !r.err && c && *c; c++)
        if ((unsigned char)*c < ' ')
            (void)json_fail(&r, ERR_FORMAT, "name", "has a control character");
    if (!r.err && others && json_kind(others) != JSON_MAP)
        (void)json_fail(&r, ERR_FORMAT, "languages", "must be an object");
    if (r.err)
        return r.err;
    if (!(more = realloc(v->name, (size_t)(v->things + 1) * sizeof *more)))
        return fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    v->name = more;
    if (!(v->name[v->things] = strdup(name)))
        return fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    const int number = v->things++;
    enum err e = ERR_OK;
    if (add_phrase(v, name, number, true))
        e = fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    if (!e)
        e = add_list(v, json_find(thing, "words"), what, "words", number, true, why);
    for (void *at = NULL; !e && json_next(others, &at, &language, &list);)
        e = add_list(v, list, what, "languages", number, false, why);
    return e;
}

// Errors say which entry of which list is wrong.
static enum err add_entry(struct vocabulary *v, const struct json_t *thing, const char *what,
                          const char *list, size_t i, struct fault *why)
{
    char where[128];
    snprintf(where, sizeof where, "%.80s: %s[%zu]", what, list, i);
    return add_thing(v, thing, where, why);
}

static enum err read_map(struct vocabulary *v, const struct json_t *map, const char *what,
                         struct fault *why)
{
    static const char *const keys[] = {"nouns", "shapes"};
    struct json_reader r = json_reader(map, what, ERR_FORMAT, why);
    const int64_t format = json_read_int(&r, "format", 0, 0, INT32_MAX);
    if (!r.err && format != FORMAT)
        return json_fail(&r, ERR_UNSUPPORTED, "format", "is %d, but this version reads %d",
                         (int)format, FORMAT);
    enum err e = r.err;
    for (int k = 0; !e && k < 2; k++) {
        const struct json_t *things = json_find(map, keys[k]);
        if (things && json_kind(things) != JSON_LIST)
            return json_fail(&r, ERR_FORMAT, keys[k], "must be a list");
        for (size_t i = 0; !e && i < json_count(things); i++)
            e = add_entry(v, json_item(things, i), what, keys[k], i, why);
    }
    if (!e && !v->things)
        return json_fail(&r, ERR_FORMAT, NULL, "has neither nouns nor shapes");
    if (!e)
        e = add_list(v, json_find(map, "other_words"), what, "other_words", -1, false, why);
    return e;
}

static void destroy(struct vocabulary *v)
{
    for (int i = 0; i < v->count; i++)
        free(v->phrase[i].text);
    for (int i = 0; i < v->things; i++)
        free(v->name[i]);
    free(v->phrase);
    free(v->name);
    buf_deinit(&v->json);
    free(v);
}

static enum err from_json(const struct json_t *map, const char *what, const struct vocabulary **out,
                          struct fault *why)
{
    struct vocabulary *v = calloc(1, sizeof *v);
    if (!v)
        return fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    atomic_init(&v->owners, 1);
    enum err e = read_map(v, map, what, why);
    if (!e)
        json_write(map, &v->json);
    if (!e && v->json.failed)
        e = fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    if (e) {
        destroy(v);
        return e;
    }
    qsort(v->phrase, (size_t)v->count, sizeof *v->phrase, compare_phrases);
    *out = v;
    return ERR_OK;
}

enum err vocabulary_parse(const char *text, size_t n, const char *what,
                          const struct vocabulary **out, struct fault *why)
{
    struct json_t *doc = NULL;
    *out = NULL;
    enum err e = json_parse(text, n, what, ERR_FORMAT, &doc, why);
    if (!e)
        e = from_json(doc, what, out, why);
    json_destroy(&doc);
    return e;
}

enum err vocabulary_read(const char *folder, const struct vocabulary **out, struct fault *why)
{
    struct json_t *doc = NULL;
    struct buf path = {0};
    struct fault missing = {0}; // kept from *why: most folders have no vocabulary
    enum err e = ERR_NO_MEMORY;
    *out = NULL;
    buf_printf(&path, "%s/vocabulary.json", folder);
    if (!path.failed)
        e = json_parse_file(path.data, VOCABULARY_MAX_BYTES, &doc, &missing);
    if (!e)
        e = from_json(doc, fault_path(path.data), out, why);
    else if (e == ERR_NOT_FOUND)
        e = ERR_OK;
    else if (why)
        *why = missing;
    json_destroy(&doc);
    buf_deinit(&path);
    return e;
}

const struct vocabulary *vocabulary_ref(const struct vocabulary *v)
{
    if (v)
        atomic_fetch_add(&((struct vocabulary *)v)->owners, 1);
    return v;
}

void vocabulary_unref(const struct vocabulary **v)
{
    struct vocabulary *own = (struct vocabulary *)*v;
    *v = NULL;
    if (own && atomic_fetch_sub(&own->owners, 1) == 1)
        destroy(own);
}

const char *vocabulary_json(const struct vocabulary *v)
{
    return v->json.data;
}

int vocabulary_things(const struct vocabulary *v)
{
    return v->things;
}

// ---- prompts --------------------------------------------------------------------------------

// The phrase of n bytes at s; NULL: there is none. Of several, the first names a thing.
static const struct phrase *find(const struct vocabulary *v, const char *s, size_t n)
{
    int low = 0, high = v->count;
    while (low < high) {
        const int middle = (low + high) / 2;
        const char *text = v->phrase[middle].text;
        const int order = strncmp(text, s, n);
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low < v->count && !strncmp(v->phrase[low].text, s, n) && !v->phrase[low].text[n]
               ? &v->phrase[low]
               : NULL;
}

static size_t decode(const char *s, uint32_t *c)
{
    return utf8_decode(s, strnlen(s, 4), c);
}

// The longest phrase that the text begins with, and its length; NULL: none. It ends where a word
// does. The longest phrase wins, so that a "hot dog" is no dog.
static const struct phrase *longest(const struct vocabulary *v, const char *text, size_t *n)
{
    const struct phrase *best = NULL;
    const size_t all = strnlen(text, PHRASE);
    uint32_t c = 0, next = 0;
    for (size_t i = 0, len; i < all && (len = decode(text + i, &c));) {
        i += len;
        const bool ends = !text[i] || text[i] == ' ' || is_joint(c) ||
                          (decode(text + i, &next) && is_joint(next));
        const struct phrase *p = ends && i < PHRASE ? find(v, text, i) : NULL;
        if (p) {
            best = p;
            *n = i;
        }
    }
    return best;
}

// Where the word at s ends.
static const char *word_end(const char *s)
{
    uint32_t c = 0;
    size_t len = decode(s, &c);
    if (is_joint(c))
        return s + len;
    for (; *s && *s != ' ' && len && !is_joint(c); len = decode(s, &c))
        s += len;
    return s;
}

struct unknown {
    int count;
    char word[UNKNOWN][PHRASE];
};

// False: the text names something that is known. Otherwise the words that are not known.
static bool misses(const struct vocabulary *v, const char *text, struct unknown *out)
{
    out->count = 0;
    while (*text) {
        size_t n = 0;
        const struct phrase *p = longest(v, text, &n);
        const char *end = p ? text + n : word_end(text);
        if (p && p->thing >= 0)
            return false;
        const size_t length = (size_t)(end - text);
        if (!p && out->count < UNKNOWN && length > 1)
            snprintf(out->word[out->count++], PHRASE, "%.*s", (int)length, text);
        text = end + (*end == ' ');
    }
    return true;
}

// How different a name is: 0 the same, 1 nothing in common.
static double difference(const char *word, const char *phrase)
{
    const size_t n = strlen(word), m = strlen(phrase);
    return text_distance(word, phrase) / (double)(n > m ? n : m);
}

// The thing that is nearest to one of the words, without those that are taken; of several, the one
// that the file has first.
static int nearest_thing(const struct vocabulary *v, const struct unknown *u, const int *taken,
                         int count)
{
    double least = 2;
    int best = -1;
    for (int i = 0; i < v->count; i++) {
        const struct phrase *p = &v->phrase[i];
        bool again = !p->own;
        for (int k = 0; k < count; k++)
            again |= taken[k] == p->thing;
        for (int k = 0; !again && k < u->count; k++) {
            const double d = difference(u->word[k], p->text);
            if (d < least || (d <= least && p->thing < best)) {
                least = d;
                best = p->thing;
            }
        }
    }
    return best;
}

void vocabulary_miss(const struct vocabulary *v, const char *prompt,
                     char nearest[static VOCABULARY_NEAREST])
{
    struct unknown u;
    struct buf text = {0};
    int taken[SUGGESTED], count = 0;
    size_t n = 0;
    nearest[0] = 0;
    put_words(&text, prompt, strnlen(prompt, PROMPT));
    if (text.failed || !text.len || !misses(v, text.data, &u) || !u.count) {
        buf_deinit(&text);
        return;
    }
    buf_deinit(&text);
    while (count < SUGGESTED && (taken[count] = nearest_thing(v, &u, taken, count)) >= 0)
        count++;
    for (int i = 0; i < count; i++) {
        const char *name = v->name[taken[i]], *before = !i ? "" : i == count - 1 ? " or " : ", ";
        if (n + strlen(before) + strlen(name) >= VOCABULARY_NEAREST)
            break;
        n += (size_t)snprintf(nearest + n, VOCABULARY_NEAREST - n, "%s%s", before, name);
    }
}
