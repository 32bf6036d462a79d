// Content coding, charset and byte order marks of request bodies, see body.h. Called by the router;
// knows nothing about routes or JSON.
#include "body.h"

#include "buf.h"
#include "utf8.h"

#include <string.h>
#include <strings.h>
#include <zlib.h>

enum {
    GUNZIP_CHUNK = 64 << 10,
    GUNZIP_WINDOW = 16 + MAX_WBITS, // zlib's flag for gzip
};

// ---- what the headers say -----------------------------------------------------------------------

static bool is_word(const char *s, size_t n, const char *word)
{
    return strlen(word) == n && !strncasecmp(s, word, n);
}

// Finds the value of "; charset=" without quotes; false if there is none.
static bool find_charset(const char *type, const char **value, size_t *n)
{
    static const char name[] = "charset=";
    for (const char *at = type; at && (at = strchr(at, ';'));) {
        at += 1 + strspn(at + 1, " \t");
        if (strncasecmp(at, name, sizeof name - 1))
            continue;
        at += sizeof name - 1;
        at += *at == '"';
        *value = at;
        *n = strcspn(at, "\"; \t");
        return true;
    }
    return false;
}

enum err body_check_headers(const char *encoding, const char *type, bool *gzip, struct fault *why)
{
    const char *s = encoding ? encoding + strspn(encoding, " \t") : "", *charset;
    size_t n = strcspn(s, " \t");
    *gzip = is_word(s, n, "gzip") || is_word(s, n, "x-gzip");
    if (!*gzip && n && !is_word(s, n, "identity"))
        return fault_set(why, ERR_UNSUPPORTED, "Content-Encoding",
                         "Content-Encoding \"%.40s\" is not supported; use gzip or none", s);
    if (find_charset(type, &charset, &n) && !is_word(charset, n, "utf-8") &&
        !is_word(charset, n, "utf8") && !is_word(charset, n, "us-ascii"))
        return fault_set(why, ERR_UNSUPPORTED, "Content-Type",
                         "charset \"%.*s\" is not supported; send the body as UTF-8",
                         n < 40 ? (int)n : 40, charset);
    return ERR_OK;
}

// ---- gzip ---------------------------------------------------------------------------------------

static enum err gunzip_fault(int code, size_t max, const struct buf *out, struct fault *why)
{
    if (code == Z_MEM_ERROR || out->failed)
        return fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    if (out->len > max)
        return fault_set(why, ERR_FORMAT, "",
                         "the decompressed request body is larger than %zu bytes", max);
    return fault_set(why, ERR_INVALID, "",
                     code == Z_BUF_ERROR
                         ? "the gzip request body is truncated"
                         : "Content-Encoding is gzip, but the request body is not valid gzip data");
}

// A gzip file may consist of several members.
static int gunzip_members(z_stream *z, size_t max, struct buf *out)
{
    int code = Z_OK;
    while (code == Z_OK && out->len <= max) {
        if (!buf_reserve(out, GUNZIP_CHUNK))
            return Z_MEM_ERROR;
        z->next_out = (Bytef *)out->data + out->len;
        z->avail_out = GUNZIP_CHUNK;
        code = inflate(z, Z_NO_FLUSH);
        out->len += GUNZIP_CHUNK - z->avail_out;
        if (code == Z_STREAM_END && z->avail_in)
            code = inflateReset(z);
        else if (code == Z_OK && !z->avail_in && z->avail_out)
            code = Z_BUF_ERROR;
    }
    return code;
}

enum err body_gunzip(struct buf *body, size_t max, struct fault *why)
{
    struct buf out = {0};
    z_stream z = {.next_in = (Bytef *)body->data, .avail_in = (uInt)body->len};
    enum err err = ERR_OK;
    if (!body->len)
        return ERR_OK;
    int code = inflateInit2(&z, GUNZIP_WINDOW);
    if (code == Z_OK)
        code = gunzip_members(&z, max, &out);
    if (code != Z_STREAM_END || out.len > max)
        err = gunzip_fault(code, max, &out, why);
    inflateEnd(&z);
    buf_deinit(body);
    if (err)
        buf_deinit(&out);
    else if (out.len)
        out.data[out.len] = 0;
    *body = out;
    return err;
}

// ---- text ---------------------------------------------------------------------------------------

// Recognizes UTF-16 and UTF-32 by a byte order mark, or by zeros around an ASCII character, as in
// JSON.
static const char *wide_encoding(const unsigned char *s, size_t n)
{
    if (n >= 4 && s[0] == 0xff && s[1] == 0xfe && !s[2] && !s[3])
        return "UTF-32";
    if (n >= 4 && !s[0] && !s[1] && ((s[2] == 0xfe && s[3] == 0xff) || (!s[2] && s[3])))
        return "UTF-32";
    if (n >= 4 && s[0] && !s[1] && !s[2] && !s[3])
        return "UTF-32";
    if (n >= 2 && ((s[0] == 0xff && s[1] == 0xfe) || (s[0] == 0xfe && s[1] == 0xff)))
        return "UTF-16";
    if (n >= 2 && !s[0] != !s[1])
        return "UTF-16";
    return NULL;
}

enum err body_text(const struct buf *body, size_t *begin, struct fault *why)
{
    const unsigned char *s = (const unsigned char *)body->data;
    const size_t n = body->len;
    size_t bad;
    *begin = n >= 3 && !memcmp(s, "\xef\xbb\xbf", 3) ? 3 : 0;
    if (!n)
        return ERR_OK;
    const char *name = wide_encoding(s, n);
    if (name)
        return fault_set(why, ERR_INVALID, "",
                         "the request body is encoded as %s; send it as UTF-8", name);
    if (n >= 2 && s[0] == 0x1f && s[1] == 0x8b)
        return fault_set(why, ERR_INVALID, "",
                         "the request body is gzip data; add the header Content-Encoding: gzip");
    if (!utf8_valid(body->data, n, &bad))
        return fault_set(why, ERR_INVALID, "",
                         "the request body is not valid UTF-8 (byte 0x%02X at offset %zu, as in "
                         "ISO-8859-1 or Windows-1252); send it as UTF-8",
                         s[bad], bad);
    return ERR_OK;
}
