// UTF-8 validation, see utf8.h. Called for prompts and file contents, on any thread.
#include "utf8.h"

#include "buf.h"

#include <string.h>

size_t utf8_decode(const char *s, size_t n, uint32_t *c)
{
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    unsigned char b = n ? (unsigned char)s[0] : 0xff;
    size_t len = b < 0x80 ? 1 : b < 0xc2 ? 0 : b < 0xe0 ? 2 : b < 0xf0 ? 3 : b < 0xf5 ? 4 : 0;
    uint32_t v = len == 1 ? b : b & (0x7fu >> len);

    if (!len || len > n)
        return 0;
    for (size_t i = 1; i < len; i++) {
        unsigned char x = (unsigned char)s[i];
        if ((x & 0xc0) != 0x80)
            return 0;
        v = v << 6 | (x & 0x3f);
    }
    if (v < least[len] || v > 0x10ffff || (v >= 0xd800 && v < 0xe000))
        return 0;
    *c = v;
    return len;
}

bool utf8_valid(const char *s, size_t n, size_t *bad)
{
    size_t i = 0, len;
    uint32_t c;

    while (i < n) {
        // Most texts are ASCII, and some are an image in base64.
        for (uint64_t eight; n - i >= sizeof eight; i += sizeof eight) {
            memcpy(&eight, s + i, sizeof eight);
            if (eight & 0x8080808080808080u)
                break;
        }
        if (i == n)
            break;
        len = utf8_decode(s + i, n - i, &c);
        if (!len) {
            if (bad)
                *bad = i;
            return false;
        }
        i += len;
    }
    return true;
}

bool utf8_is_space(uint32_t c)
{
    return (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 ||
           c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
           c == 0x202f || c == 0x205f || c == 0x3000;
}

void utf8_put(struct buf *b, uint32_t c)
{
    if (c == 0 || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
        c = 0xfffd;
    if (c < 0x80) {
        buf_putc(b, (char)c);
    } else if (c < 0x800) {
        buf_putc(b, (char)(0xc0 | c >> 6));
    } else if (c < 0x10000) {
        buf_putc(b, (char)(0xe0 | c >> 12));
        buf_putc(b, (char)(0x80 | (c >> 6 & 0x3f)));
    } else {
        buf_putc(b, (char)(0xf0 | c >> 18));
        buf_putc(b, (char)(0x80 | (c >> 12 & 0x3f)));
        buf_putc(b, (char)(0x80 | (c >> 6 & 0x3f)));
    }
    if (c >= 0x80)
        buf_putc(b, (char)(0x80 | (c & 0x3f)));
}
