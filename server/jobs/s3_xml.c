// Two elements are needed from the answers of an S3-compatible store, so this looks for them and
// ignores the rest. Called by s3.c. Any thread.
#include "s3_xml.h"

#include <string.h>

// The text of the next <name> from *at, which moves behind it; NULL: none.
static const char *element(const char *text, size_t n, const char *name, size_t *at, size_t *length)
{
    const size_t tag = strlen(name);
    while (*at + tag <= n) {
        const char *begin = memmem(text + *at, n - *at, name, tag);
        if (!begin)
            return NULL;
        begin += tag;
        const char *end = memchr(begin, '<', n - (size_t)(begin - text));
        *at = (size_t)(begin - text);
        if (!end)
            return NULL;
        *length = (size_t)(end - begin);
        *at += *length;
        return begin;
    }
    return NULL;
}

void s3_xml_code(const char *text, size_t n, char code[S3_CODE])
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    size_t at = 0, length = 0, kept = 0;
    const char *s = element(text, n, "<Code>", &at, &length);
    for (; s && kept < length && kept < S3_CODE - 1 && s[kept] && strchr(letters, s[kept]); kept++)
        code[kept] = s[kept];
    code[kept] = 0;
}

bool s3_xml_key(const char *text, size_t n, size_t *at, char *key, size_t size)
{
    size_t length = 0;
    for (const char *s; (s = element(text, n, "<Key>", at, &length));) {
        if (length >= size || memchr(s, '&', length) || memchr(s, 0, length))
            continue;
        memcpy(key, s, length);
        key[length] = 0;
        return true;
    }
    return false;
}
