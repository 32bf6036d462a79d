// JSON strings, base64 and hexadecimal, and edit distance, see text.h. Called from every layer, on
// any thread.
#include "text.h"

#include "buf.h"

#include <ctype.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

void text_json(struct buf *b, const char *s)
{
    if (!s) {
        buf_puts(b, "null");
        return;
    }
    buf_add(b, "\"", 1);
    for (const char *start = s;; s++) {
        unsigned char c = (unsigned char)*s;
        if (c >= 0x20 && c != '"' && c != '\\')
            continue;
        buf_add(b, start, (size_t)(s - start));
        start = s + 1;
        if (!c)
            break;
        if (c == '"' || c == '\\')
            buf_printf(b, "\\%c", c);
        else if (c == '\n')
            buf_puts(b, "\\n");
        else
            buf_printf(b, "\\u%04x", c);
    }
    buf_add(b, "\"", 1);
}

static const char base64_set[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void text_base64(struct buf *b, const void *data, size_t n)
{
    const uint8_t *in = data;
    if (!buf_reserve(b, (n + 2) / 3 * 4 + 1))
        return;
    char *out = b->data + b->len;
    for (size_t i = 0; i < n; i += 3, out += 4) {
        size_t left = n - i;
        uint32_t v = (uint32_t)in[i] << 16 | (left > 1 ? (uint32_t)in[i + 1] << 8 : 0) |
                     (left > 2 ? in[i + 2] : 0);
        out[0] = base64_set[v >> 18];
        out[1] = base64_set[v >> 12 & 63];
        out[2] = left > 1 ? base64_set[v >> 6 & 63] : '=';
        out[3] = left > 2 ? base64_set[v & 63] : '=';
    }
    b->len += (n + 2) / 3 * 4;
    b->data[b->len] = 0;
}

// Four digits at a time, as far as nothing else comes between them. Returns how many were read.
static size_t unbase64_groups(const uint8_t value[256], const char *text, size_t n, char *out)
{
    size_t i = 0;
    for (; i + 4 <= n; i += 4, out += 3) {
        const uint8_t *s = (const uint8_t *)text + i;
        const unsigned a = value[s[0]], b = value[s[1]], c = value[s[2]], d = value[s[3]];
        if (!a || !b || !c || !d)
            break;
        const uint32_t v = (a - 1) << 18 | (b - 1) << 12 | (c - 1) << 6 | (d - 1);
        out[0] = (char)(v >> 16);
        out[1] = (char)(v >> 8);
        out[2] = (char)v;
    }
    return i;
}

bool text_unbase64(struct buf *b, const char *text)
{
    size_t n = strlen(text), digits = 0;
    uint8_t value[256] = {0}; // plus 1; 0: not a digit
    uint32_t v = 0;
    for (uint8_t i = 0; i < 64; i++)
        value[(uint8_t)base64_set[i]] = (uint8_t)(i + 1);
    while (n && text[n - 1] == '=')
        n--;
    if (!n)
        return true;
    if (!buf_reserve(b, n / 4 * 3 + 3))
        return false;
    char *out = b->data + b->len;
    for (size_t i = 0; i < n; i++) {
        if (digits % 4 == 0) {
            const size_t read = unbase64_groups(value, text + i, n - i, out);
            out += read / 4 * 3;
            i += read;
            if (i == n)
                break;
        }
        const uint8_t d = value[(uint8_t)text[i]];
        if (!d && (text[i] == '\n' || text[i] == '\r'))
            continue;
        if (!d)
            return false;
        v = v << 6 | (uint32_t)(d - 1);
        if (++digits % 4 != 1)
            *out++ = (char)(v >> (digits % 4 == 0 ? 0 : digits % 4 == 3 ? 2 : 4));
    }
    b->len = (size_t)(out - b->data);
    *out = 0;
    return digits % 4 != 1;
}

void text_hex(struct buf *b, const void *data, size_t n)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *in = data;
    for (size_t i = 0; i < n; i++) {
        buf_putc(b, digits[in[i] >> 4]);
        buf_putc(b, digits[in[i] & 15]);
    }
}

enum { LONGEST = 63 };

static int smaller(int a, int b)
{
    return a < b ? a : b;
}

bool text_number(const char *s, double *out)
{
    char *end;
    *out = strtod(s, &end);
    // strtod alone would accept spaces, "inf", "nan" and hexadecimal.
    return *s && !*end && !s[strspn(s, "+-.0123456789eE")];
}

char *text_trim(char *s)
{
    while (isspace((unsigned char)*s))
        s++;
    for (size_t n = strlen(s); n && isspace((unsigned char)s[n - 1]); n--)
        s[n - 1] = 0;
    return s;
}

int text_distance(const char *a, const char *b)
{
    const int n = (int)strnlen(a, LONGEST), m = (int)strnlen(b, LONGEST);
    int row[3][LONGEST + 1]; // distances for the first i - 2, i - 1 and i letters of a

    for (int i = 0; i <= n; i++) {
        int *now = row[i % 3], *last = row[(i + 2) % 3], *before = row[(i + 1) % 3];
        for (int k = 0; k <= m; k++) {
            if (!i || !k) {
                now[k] = i + k;
                continue;
            }
            const int x = tolower((unsigned char)a[i - 1]), y = tolower((unsigned char)b[k - 1]);
            now[k] = smaller(smaller(last[k], now[k - 1]) + 1, last[k - 1] + (x != y));
            if (i > 1 && k > 1 && x == tolower((unsigned char)b[k - 2]) &&
                y == tolower((unsigned char)a[i - 2]))
                now[k] = smaller(now[k], before[k - 2] + 1);
        }
    }
    return row[n % 3][m];
}

const char *text_nearer(const char *name, const char *candidate, const char *best)
{
    const int n = (int)strnlen(name, LONGEST), distance = text_distance(name, candidate);

    if (distance > (n < 4 ? 1 : n < 8 ? 2 : 3) || (best && distance >= text_distance(name, best)))
        return best;
    return candidate;
}
