// Reads the texts in an image file's metadata, without decoding its pixels. Called by
// picture_info.c on any thread.
#include "codec_priv.h"

#include "utf8.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { PNG_SIGNATURE = 8, PNG_CHUNK = 12, MAX_KEY = 79 };

void codec_put_text(struct buf *b, const uint8_t *p, size_t n, bool utf8)
{
    const char *s = (const char *)p;

    while (n && !s[n - 1])
        n--;
    utf8 = utf8 && utf8_valid(s, n, NULL);
    for (size_t at = 0; at < n;) {
        uint32_t c = p[at];
        at += utf8 ? utf8_decode(s + at, n - at, &c) : 1;
        utf8_put(b, c);
    }
}

// ---- what was found -----------------------------------------------------------------------------

// Takes ownership of key and value. Empty texts are skipped.
static enum err add(struct codec_reader *r, struct codec_texts *t, struct buf *key,
                    struct buf *value)
{
    enum err e = ERR_OK;

    if (key->failed || value->failed)
        e = fault_set(r->why, ERR_NO_MEMORY, r->limits.name, "%s", err_text(ERR_NO_MEMORY));
    else if (value->len > CODEC_MAX_TEXT_BYTES - t->bytes || t->count == CODEC_MAX_TEXTS)
        e = codec_refuse(r, "has more than %d texts or %d kB of text in its metadata",
                         CODEC_MAX_TEXTS, CODEC_MAX_TEXT_BYTES >> 10);
    if (!e && key->len && value->len) {
        t->bytes += value->len;
        t->text[t->count++] = (struct codec_text){buf_take(key), buf_take(value)};
    }
    buf_deinit(key);
    buf_deinit(value);
    return e;
}

static enum err add_comment(struct codec_reader *r, struct codec_texts *t, const uint8_t *data,
                            size_t n)
{
    struct buf key = {0}, value = {0};

    codec_exif_comment(data, n, &value);
    buf_puts(&key, CODEC_TEXT_COMMENT);
    return add(r, t, &key, &value);
}

void codec_texts_deinit(struct codec_texts *t)
{
    for (int i = 0; i < t->count; i++) {
        free((char *)(uintptr_t)t->text[i].key);
        free((char *)(uintptr_t)t->text[i].value);
    }
    memset(t, 0, sizeof *t);
}

const char *codec_texts_find(const struct codec_texts *t, const char *key)
{
    for (int i = 0; i < t->count; i++)
        if (!strcmp(t->text[i].key, key))
            return t->text[i].value;
    return NULL;
}

// ---- PNG ----------------------------------------------------------------------------------------

// Stops at the size limit, in case of a decompression bomb; add() then refuses the text.
static bool inflate_text(const uint8_t *data, size_t n, struct buf *out)
{
    uint8_t piece[4096];
    z_stream z = {.next_in = (Bytef *)(uintptr_t)data, .avail_in = (uInt)n};
    int state = inflateInit(&z);

    while (state == Z_OK && out->len <= CODEC_MAX_TEXT_BYTES && !out->failed) {
        z.next_out = piece;
        z.avail_out = sizeof piece;
        state = inflate(&z, Z_NO_FLUSH);
        if (state == Z_OK || state == Z_STREAM_END)
            buf_add(out, piece, sizeof piece - z.avail_out);
    }
    inflateEnd(&z);
    return state == Z_STREAM_END || state == Z_OK;
}

// Splits off the part up to the next NUL. False if there is none.
static bool split(const uint8_t **data, size_t *n, const uint8_t **part, size_t *length)
{
    const uint8_t *end = *n ? memchr(*data, 0, *n) : NULL;

    if (!end)
        return false;
    *part = *data;
    *length = (size_t)(end - *data);
    *data += *length + 1;
    *n -= *length + 1;
    return true;
}

// Malformed texts are skipped, as libpng does. Source: the PNG specification, 11.3.3.
static enum err read_text(struct codec_reader *r, struct codec_texts *t, const uint8_t *type,
                          const uint8_t *data, size_t n)
{
    const bool international = type[0] == 'i';
    bool packed = type[0] == 'z';
    struct buf key = {0}, value = {0}, plain = {0};
    const uint8_t *name, *skipped;
    size_t length, ignored;

    if (!split(&data, &n, &name, &length) || !length || length > MAX_KEY || n < (size_t)packed)
        return ERR_OK;
    if (packed) {
        data++; // the method, of which there is one
        n--;
    }
    if (international) {
        if (n < 2)
            return ERR_OK;
        packed = data[0];
        data += 2;
        n -= 2;
        if (!split(&data, &n, &skipped, &ignored) || !split(&data, &n, &skipped, &ignored))
            return ERR_OK;
    }
    if (!packed || inflate_text(data, n, &plain)) {
        codec_put_text(&key, name, length, false);
        codec_put_text(&value, packed ? (const uint8_t *)(plain.data ? plain.data : "") : data,
                       packed ? plain.len : n, international);
    }
    value.failed |= plain.failed;
    buf_deinit(&plain);
    return add(r, t, &key, &value);
}

static enum err read_png(struct codec_reader *r, struct codec_texts *t)
{
    for (size_t at = PNG_SIGNATURE; r->size - at >= PNG_CHUNK;) {
        const uint8_t *chunk = r->data + at, *type = chunk + 4, *data = chunk + 8;
        const size_t n = codec_big_u32(chunk);
        enum err e = ERR_OK;
        if (n > r->size - at - PNG_CHUNK)
            break;
        if (at == PNG_SIGNATURE && (memcmp(type, "IHDR", 4) || n != 13))
            return codec_refuse(r, "is a damaged PNG file: it does not begin with a header");
        if (!memcmp(type, "IEND", 4))
            return ERR_OK;
        if (!memcmp(type, "tEXt", 4) || !memcmp(type, "zTXt", 4) || !memcmp(type, "iTXt", 4))
            e = read_text(r, t, type, data, n);
        else if (!memcmp(type, "eXIf", 4))
            e = add_comment(r, t, data, n);
        if (e)
            return e;
        at += PNG_CHUNK + n;
    }
    return codec_refuse(r, "is truncated: its PNG data ends early");
}

// ---- JPEG and WebP --------------------------------------------------------------------------

bool codec_next_segment(const struct codec_reader *r, struct codec_segment *s)
{
    enum { TEM = 0x01, RST0 = 0xd0, SOI = 0xd8, EOI = 0xd9, SOS = 0xda };
    const uint8_t *end = r->data + r->size;

    for (const uint8_t *p = s->next; end - p >= 4;) {
        const size_t n = (size_t)p[2] << 8 | p[3];
        s->marker = p[1];
        s->next = p;
        // Garbage between segments, padding, and markers without a length are skipped.
        if (p[0] != 0xff || !s->marker || s->marker == 0xff || s->marker == TEM ||
            (s->marker >= RST0 && s->marker <= SOI)) {
            p++;
            continue;
        }
        s->pixels = s->marker == SOS;
        s->damaged = s->marker == EOI;
        if (s->pixels || s->damaged || n > (size_t)(end - p) - 2)
            return false;
        // libjpeg reads a length of less than its own two bytes as no data.
        s->data = p + 4;
        s->n = n < 2 ? 0 : n - 2;
        s->next = s->data + s->n;
        return true;
    }
    return false;
}

// Of the pixels, only the end marker is searched for.
static enum err read_jpeg(struct codec_reader *r, struct codec_texts *t)
{
    enum { EOI = 0xd9, COM = 0xfe };
    struct codec_segment s = {.next = r->data + 2};
    const uint8_t *end = r->data + r->size;

    while (codec_next_segment(r, &s)) {
        struct buf key = {0}, value = {0};
        enum err e = ERR_OK;
        if (s.marker == CODEC_JPEG_APP1 && s.n > 6 && !memcmp(s.data, "Exif\0\0", 6)) {
            e = add_comment(r, t, s.data, s.n);
        } else if (s.marker == COM) {
            buf_puts(&key, "comment");
            codec_put_text(&value, s.data, s.n, true);
            e = add(r, t, &key, &value);
        }
        if (e)
            return e;
    }
    if (s.damaged)
        return codec_refuse(r, "is a damaged JPEG file");
    for (const uint8_t *p = s.pixels ? s.next : end;
         (p = end - p > 1 ? memchr(p, 0xff, (size_t)(end - p) - 1) : NULL); p++)
        if (p[1] == EOI)
            return ERR_OK;
    return codec_refuse(r, "is truncated: its JPEG data ends early");
}

static enum err read_webp(struct codec_reader *r, struct codec_texts *t)
{
    enum { CHUNK = 8, FIRST_CHUNK = 12 };

    if (r->size < FIRST_CHUNK + CHUNK || codec_little_u32(r->data + 4) > r->size - CHUNK)
        return codec_refuse(r, "is truncated: its WebP data ends early");
    for (size_t at = FIRST_CHUNK; r->size - at >= CHUNK;) {
        const uint8_t *chunk = r->data + at;
        const size_t n = codec_little_u32(chunk + 4), left = r->size - at - CHUNK;
        if (n > left)
            return codec_refuse(r, "is truncated: its WebP data ends early");
        if (!memcmp(chunk, "EXIF", 4)) {
            const enum err e = add_comment(r, t, chunk + CHUNK, n);
            if (e)
                return e;
        }
        at += CHUNK + n + (n % 2 && n < left);
    }
    return ERR_OK;
}

enum err codec_read_texts(const void *data, size_t size, const struct codec_limits *l,
                          struct codec_texts *out, struct fault *why)
{
    static enum err (*const readers[CODEC_FORMATS])(struct codec_reader *, struct codec_texts *) = {
        [CODEC_PNG] = read_png,
        [CODEC_JPEG] = read_jpeg,
        [CODEC_WEBP] = read_webp,
    };
    struct codec_reader r;
    enum codec_format format;
    enum err e;

    memset(out, 0, sizeof *out);
    codec_open(&r, data, size, l, why);
    e = codec_recognize(&r, &format);
    if (!e)
        e = readers[format](&r, out);
    if (e)
        codec_texts_deinit(out);
    return e;
}
