// Cleans text for CLIP and splits it into words, see clip_text.h. Works on code points: each rule
// replaces, removes or joins them. Knows nothing about vocabularies.
#include "clip_text.h"

#include "html_entities.h"
#include "tokenizer.h"
#include "utf8.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unicase.h>
#include <unictype.h>
#include <uninorm.h>
#include <unistr.h>

struct points {
    uint32_t *c;
    size_t n, cap;
    bool failed;
};

static void put(struct points *p, uint32_t c)
{
    if (p->n == p->cap) {
        const size_t cap = p->cap ? 2 * p->cap : 256;
        uint32_t *more = realloc(p->c, cap * sizeof *more);
        if (!more) {
            p->failed = true;
            return;
        }
        p->c = more;
        p->cap = cap;
    }
    p->c[p->n++] = c;
}

// ---- HTML -------------------------------------------------------------------------------------

static bool is_letter(uint32_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_digit(uint32_t c)
{
    return c >= '0' && c <= '9';
}

// A numeric reference, "#39" or "#x27", as html.unescape reads it; 0: none.
static uint32_t number_of(const char *name)
{
    const bool hex = name[1] == 'x' || name[1] == 'X';
    const char *digits = name + (hex ? 2 : 1);
    char *end;
    unsigned long v;

    if (!*digits || digits[strspn(digits, hex ? "0123456789abcdefABCDEF" : "0123456789")])
        return 0;
    v = strtoul(digits, &end, hex ? 16 : 10);
    if (v == 0 || v > 0x10ffff || (v >= 0xd800 && v < 0xe000))
        return 0xfffd;
    return (uint32_t)v;
}

// Names in capitals stand for the capital letter.
static uint32_t named(const char *name)
{
    char lower[32];
    size_t i = 0;
    uint32_t c = html_entity(name);

    for (; name[i] && i < sizeof lower - 1; i++) {
        if (name[i] >= 'a' && name[i] <= 'z')
            return c;
        lower[i] = (char)(name[i] >= 'A' && name[i] <= 'Z' ? name[i] + 32 : name[i]);
    }
    lower[i] = 0;
    return c ? c : uc_toupper(html_entity(lower));
}

// The reference that begins at the '&' in c[0]; its length, or 0 if it is none.
static size_t entity_at(const uint32_t *c, size_t n, uint32_t *value)
{
    enum { LONGEST = 24 };
    char name[LONGEST + 2];
    size_t i = 1, length = 0;

    if (i < n && c[i] == '#')
        name[length++] = '#', i++;
    const size_t start = i;
    for (; i < n && i - start < LONGEST && (is_letter(c[i]) || is_digit(c[i])); i++)
        name[length++] = (char)c[i];
    name[length] = 0;
    if (i == start || i == n || c[i] != ';')
        return 0;
    const uint32_t found = name[0] == '#' ? number_of(name) : named(name);
    *value = found ? found : *value;
    return found ? i + 1 : 0;
}

// ---- single characters ------------------------------------------------------------------------

// A C1 control character is a byte of Windows-1252.
static uint32_t from_windows(uint32_t c)
{
    static const uint16_t high[32] = {
        0x20ac, 0x81,   0x201a, 0x0192, 0x201e, 0x2026, 0x2020, 0x2021, 0x02c6, 0x2030, 0x0160,
        0x2039, 0x0152, 0x8d,   0x017d, 0x8f,   0x90,   0x2018, 0x2019, 0x201c, 0x201d, 0x2022,
        0x2013, 0x2014, 0x02dc, 0x2122, 0x0161, 0x203a, 0x0153, 0x9d,   0x017e, 0x0178,
    };

    return c >= 0x80 && c < 0xa0 ? high[c - 0x80] : c;
}

static const char *ligature(uint32_t c)
{
    static const struct {
        uint32_t c;
        const char *letters;
    } rows[] = {
        {0x132, "IJ"},         {0x133, "ij"},  {0x149, "\xca\xbcn"}, {0x1f1, "DZ"},
        {0x1f2, "Dz"},         {0x1f3, "dz"},  {0x1c4, "D\xc5\xbd"}, {0x1c5, "D\xc5\xbe"},
        {0x1c6, "d\xc5\xbe"},  {0x1c7, "LJ"},  {0x1c8, "Lj"},        {0x1c9, "lj"},
        {0x1ca, "NJ"},         {0x1cb, "Nj"},  {0x1cc, "nj"},        {0xfb00, "ff"},
        {0xfb01, "fi"},        {0xfb02, "fl"}, {0xfb03, "ffi"},      {0xfb04, "ffl"},
        {0xfb05, "\xc5\xbft"}, {0xfb06, "st"},
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].c == c)
            return rows[i].letters;
    return NULL;
}

static bool is_removed(uint32_t c)
{
    return c < 9 || c == 0x0b || (c >= 0x0e && c < 0x20) || c == 0x7f ||
           (c >= 0x206a && c <= 0x206f) || c == 0xfeff || (c >= 0xfff9 && c <= 0xfffc);
}

// Half-width and full-width forms become what they are compatible with.
static void put_width(struct points *out, uint32_t c)
{
    uint32_t *plain = NULL;
    size_t n = 0;

    if (c == 0x3000)
        c = ' ';
    if (c > 0xff00 && c < 0xfff0)
        plain = u32_normalize(UNINORM_NFKC, &c, 1, NULL, &n);
    if (!plain)
        put(out, c);
    for (size_t i = 0; i < n; i++)
        put(out, plain[i]);
    free(plain);
}

static void put_fixed(struct points *out, uint32_t c)
{
    const char *letters;

    c = from_windows(c);
    letters = ligature(c);
    if (letters) {
        uint32_t letter;
        for (size_t n = strlen(letters), k; n; letters += k, n -= k) {
            k = utf8_decode(letters, n, &letter);
            put_fixed(out, letter);
        }
    } else if (c == 0x2bc || (c >= 0x2018 && c <= 0x201b)) {
        put(out, '\'');
    } else if (c >= 0x201c && c <= 0x201f) {
        put(out, '"');
    } else if (c == 0x2028 || c == 0x2029 || c == '\r') {
        put(out, '\n');
    } else if (!is_removed(c)) {
        put_width(out, c);
    }
}

// The length of a terminal's escape sequence, ESC [ digits letter; 0: none.
static size_t escape_at(const uint32_t *c, size_t n)
{
    size_t i = 2;

    if (n < 3 || c[0] != 0x1b || c[1] != '[')
        return 0;
    while (i < n && (is_digit(c[i]) || c[i] == ';'))
        i++;
    return i < n && is_letter(c[i]) ? i + 1 : 0;
}

// ---- lines ------------------------------------------------------------------------------------

// NFC, in place.
static void compose(struct points *p)
{
    size_t n = 0;
    uint32_t *c = u32_normalize(UNINORM_NFC, p->c, p->n, NULL, &n);

    if (!p->n || !c) {
        p->failed = p->failed || (p->n && !c);
        free(c);
        return;
    }
    free(p->c);
    *p = (struct points){.c = c, .n = n, .cap = n, .failed = p->failed};
}

static struct points fix_once(const struct points *from, bool html)
{
    struct points out = {0};

    for (size_t i = 0; i < from->n;) {
        uint32_t c = from->c[i];
        size_t used = html && c == '&' ? entity_at(from->c + i, from->n - i, &c) : 0;
        if (!used && (used = escape_at(from->c + i, from->n - i)) != 0) {
            i += used;
            continue;
        }
        put_fixed(&out, c);
        i += used ? used : 1;
    }
    compose(&out);
    return out;
}

// Applies the rules to a line until nothing changes: an entity may name an ampersand.
static void fix_line(struct points *line, bool html, struct points *out)
{
    for (;;) {
        struct points next = fix_once(line, html);
        const bool same = next.n == line->n && !next.failed &&
                          (!next.n || !memcmp(next.c, line->c, next.n * sizeof *next.c));
        free(line->c);
        *line = next;
        if (same || next.failed)
            break;
    }
    for (size_t i = 0; i < line->n; i++)
        put(out, line->c[i]);
    out->failed = out->failed || line->failed;
}

// Text that contains a tag is HTML, whose entities are meant: they stay from there on.
static void fix(const struct points *from, struct points *out)
{
    bool html = true;

    for (size_t i = 0; i < from->n;) {
        struct points line = {0};
        bool end = false;
        for (; i < from->n && !end; i++) {
            html = html && from->c[i] != '<';
            end = from->c[i] == '\n';
            put(&line, from->c[i]);
        }
        out->failed = out->failed || line.failed;
        fix_line(&line, html, out);
        free(line.c);
    }
}

// Appends the points with single spaces for white space.
static void write_words(const struct points *p, struct buf *out)
{
    bool space = false;

    for (size_t i = 0; i < p->n; i++) {
        uint8_t bytes[6];
        const uint32_t c = p->c[i];
        if (utf8_is_space(c)) {
            space = true;
            continue;
        }
        if (space)
            buf_putc(out, ' ');
        space = false;
        buf_add(out, bytes, (size_t)u8_uctomb(bytes, c, sizeof bytes));
    }
}

enum err clip_text_clean(const char *text, size_t n, bool fixed, struct buf *out)
{
    struct points in = {0}, clean = {0};
    struct buf words = {0};
    enum err e = ERR_NO_MEMORY;
    uint32_t c;

    for (size_t k; n && (k = utf8_decode(text, n, &c)); text += k, n -= k)
        put(&in, c);
    if (fixed)
        fix(&in, &clean);
    else
        compose(&in);
    write_words(fixed ? &clean : &in, &words);
    if (!in.failed && !clean.failed && !words.failed)
        e = words.len ? tokenizer_prompt(words.data, words.len, out) : ERR_OK;
    free(in.c);
    free(clean.c);
    buf_deinit(&words);
    return e;
}

// ---- words ------------------------------------------------------------------------------------

enum kind { SPACE, LETTER, NUMBER, OTHER };

static enum kind kind_of(uint32_t c)
{
    if (uc_is_general_category(c, UC_LETTER))
        return LETTER;
    if (uc_is_general_category(c, UC_NUMBER))
        return NUMBER;
    return utf8_is_space(c) ? SPACE : OTHER;
}

// The length of a special token or of an English ending at s; 0: none. A long s is an s.
static size_t literal_at(const char *s, size_t n)
{
    static const char *const literals[] = {
        "<|startoftext|>", "<|endoftext|>", "'s", "'t", "'re", "'ve", "'m", "'ll", "'d",
        "'\xc5\xbf"};

    for (size_t i = 0; i < sizeof literals / sizeof *literals; i++) {
        const size_t length = strlen(literals[i]);
        if (length <= n && !memcmp(s, literals[i], length))
            return length;
    }
    return 0;
}

enum err clip_text_split(const char *text, size_t n,
                         enum err (*word)(void *ctx, const char *word, size_t n), void *ctx)
{
    enum err e = ERR_OK;

    for (size_t i = 0; i < n && !e;) {
        size_t end = literal_at(text + i, n - i), k;
        uint32_t c;
        if (!end) {
            k = utf8_decode(text + i, n - i, &c);
            if (!k)
                return ERR_INVALID;
            const enum kind kind = kind_of(c);
            end = k;
            while (kind != NUMBER && i + end < n &&
                   (k = utf8_decode(text + i + end, n - i - end, &c)) && kind_of(c) == kind)
                end += k;
            if (kind == SPACE) {
                i += end;
                continue;
            }
        }
        e = word(ctx, text + i, end);
        i += end;
    }
    return e;
}
