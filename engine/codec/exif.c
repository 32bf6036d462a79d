// Reads the orientation and the user comment from EXIF data, and writes EXIF data with a comment:
// A1111 stores an image's settings there. Called by the decoders, texts.c and the encoders.
#include "codec_priv.h"
#include "utf8.h"

#include <stdlib.h>
#include <string.h>

enum {
    TAG_ORIENTATION = 0x112,
    TAG_EXIF = 0x8769, // offset of the directory with EXIF's own entries
    TAG_COMMENT = 0x9286,
    TYPE_SHORT = 3,
    TYPE_LONG = 4,
    TYPE_BYTES = 7,
    ENTRY = 12,
    CHARSET = 8, // bytes before a comment that name its encoding
};

// EXIF data is a TIFF file.
struct tiff {
    const uint8_t *data;
    size_t size;
    bool big; // big-endian
};

static uint32_t read_u16(const struct tiff *t, size_t at)
{
    const uint8_t *p = t->data + at;
    return t->big ? (uint32_t)(p[0] << 8 | p[1]) : (uint32_t)(p[1] << 8 | p[0]);
}

static uint32_t read_u32(const struct tiff *t, size_t at)
{
    const uint32_t a = read_u16(t, at), b = read_u16(t, at + 2);
    return t->big ? a << 16 | b : b << 16 | a;
}

// The data may have the "Exif" prefix.
static bool open_tiff(const uint8_t *data, size_t size, struct tiff *out)
{
    if (size >= 6 && !memcmp(data, "Exif\0\0", 6)) {
        data += 6;
        size -= 6;
    }
    if (size < 8 || (memcmp(data, "II*\0", 4) && memcmp(data, "MM\0*", 4)))
        return false;
    *out = (struct tiff){data, size, data[0] == 'M'};
    return true;
}

// Offset of an entry in a directory; 0: there is none.
static size_t find_entry(const struct tiff *t, size_t directory, uint32_t tag, uint32_t type)
{
    if (directory > t->size - 2)
        return 0;
    const uint32_t entries = read_u16(t, directory);
    for (size_t i = 0, e = directory + 2; i < entries && e + ENTRY <= t->size; i++, e += ENTRY)
        if (read_u16(t, e) == tag && read_u16(t, e + 2) == type)
            return e;
    return 0;
}

int codec_exif_orientation(const uint8_t *data, size_t size)
{
    struct tiff t;
    const size_t e = open_tiff(data, size, &t)
                         ? find_entry(&t, read_u32(&t, 4), TAG_ORIENTATION, TYPE_SHORT)
                         : 0;
    const uint32_t v = e ? read_u16(&t, e + 8) : 1;

    return v >= 1 && v <= 8 ? (int)v : 1;
}

// ---- comments -----------------------------------------------------------------------------------

// The standard leaves the byte order open. piexif, which A1111 uses, always writes big-endian;
// others follow the file's byte order. In most text the zero bytes show which it is.
static bool is_big(const uint8_t *p, size_t n)
{
    size_t even = 0, odd = 0;

    if (n >= 2 && ((p[0] == 0xfe && p[1] == 0xff) || (p[0] == 0xff && p[1] == 0xfe)))
        return p[0] == 0xfe;
    for (size_t i = 0; i + 1 < n; i += 2) {
        even += !p[i];
        odd += !p[i + 1];
    }
    return even >= odd;
}

static void put_utf16(struct buf *b, const uint8_t *p, size_t n)
{
    const struct tiff t = {p, n, is_big(p, n)};

    for (size_t i = 0; i + 1 < n; i += 2) {
        uint32_t c = read_u16(&t, i);
        const uint32_t low = i + 3 < n ? read_u16(&t, i + 2) : 0;
        if (c >= 0xd800 && c < 0xdc00 && low >= 0xdc00 && low < 0xe000) {
            c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
            i += 2;
        }
        if (c != 0xfeff && c)
            utf8_put(b, c);
    }
}

void codec_exif_comment(const uint8_t *data, size_t size, struct buf *out)
{
    struct tiff t;

    if (!open_tiff(data, size, &t))
        return;
    const size_t own = find_entry(&t, read_u32(&t, 4), TAG_EXIF, TYPE_LONG);
    const size_t e = own ? find_entry(&t, read_u32(&t, own + 8), TAG_COMMENT, TYPE_BYTES) : 0;
    const size_t n = e ? read_u32(&t, e + 4) : 0, at = e ? read_u32(&t, e + 8) : 0;
    if (n <= CHARSET || at > t.size || n > t.size - at)
        return;
    const uint8_t *text = t.data + at;
    if (!memcmp(text, "UNICODE", CHARSET))
        put_utf16(out, text + CHARSET, n - CHARSET);
    else if (memcmp(text, "JIS\0", 4))
        codec_put_text(out, text + CHARSET, n - CHARSET, true);
}

static void put_u16(struct buf *b, uint32_t v)
{
    buf_putc(b, (char)(v >> 8));
    buf_putc(b, (char)v);
}

static void put_entry(struct buf *b, uint32_t tag, uint32_t type, uint32_t count, uint32_t value)
{
    put_u16(b, 1); // the only one of its directory
    put_u16(b, tag);
    put_u16(b, type);
    put_u16(b, count >> 16);
    put_u16(b, count);
    put_u16(b, value >> 16);
    put_u16(b, value);
    put_u16(b, 0); // no further directory
    put_u16(b, 0);
}

void codec_put_exif(struct buf *b, const char *comment)
{
    enum { HEAD = 8, DIRECTORY = 2 + ENTRY + 4 };
    struct buf text = {0};
    const size_t n = strlen(comment);
    uint32_t c;

    for (size_t at = 0, step; at < n && (step = utf8_decode(comment + at, n - at, &c));
         at += step) {
        if (c >= 0x10000)
            put_u16(&text, 0xd800 + ((c - 0x10000) >> 10));
        put_u16(&text, c >= 0x10000 ? 0xdc00 + (c & 0x3ff) : c);
    }
    buf_add(b, "MM\0*\0\0\0\x08", HEAD);
    put_entry(b, TAG_EXIF, TYPE_LONG, 1, HEAD + DIRECTORY);
    put_entry(b, TAG_COMMENT, TYPE_BYTES, (uint32_t)(CHARSET + text.len), HEAD + 2 * DIRECTORY);
    buf_add(b, "UNICODE", CHARSET);
    buf_add(b, text.data, text.len);
    b->failed |= text.failed;
    buf_deinit(&text);
}

enum err codec_turn(struct codec_image *i, int orientation)
{
    // Maps a pixel to its stored position: axes swapped first, then mirrored.
    static const struct {
        bool swap, mirror_x, mirror_y;
    } turns[9] = {{0},
                  {0},
                  {.mirror_x = true},
                  {.mirror_x = true, .mirror_y = true},
                  {.mirror_y = true},
                  {.swap = true},
                  {.swap = true, .mirror_y = true},
                  {.swap = true, .mirror_x = true, .mirror_y = true},
                  {.swap = true, .mirror_x = true}};
    const bool swap = turns[orientation].swap;
    const int w = i->width, h = i->height;

    if (orientation == 1)
        return ERR_OK;
    uint8_t *turned = malloc((size_t)w * (size_t)h * 4);
    if (!turned)
        return ERR_NO_MEMORY;
    i->width = swap ? h : w;
    i->height = swap ? w : h;
    for (int y = 0; y < i->height; y++)
        for (int x = 0; x < i->width; x++) {
            int from_x = swap ? y : x, from_y = swap ? x : y;
            from_x = turns[orientation].mirror_x ? w - 1 - from_x : from_x;
            from_y = turns[orientation].mirror_y ? h - 1 - from_y : from_y;
            memcpy(turned + 4 * ((size_t)y * (size_t)i->width + (size_t)x),
                   i->rgba + 4 * ((size_t)from_y * (size_t)w + (size_t)from_x), 4);
        }
    free(i->rgba);
    i->rgba = turned;
    return ERR_OK;
}
