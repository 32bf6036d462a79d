// Reads the orientation from EXIF data, the only entry used here. Called by the decoders.
#include "codec_priv.h"

#include <stdlib.h>
#include <string.h>

enum { TAG_ORIENTATION = 0x112, TYPE_SHORT = 3, ENTRY = 12 };

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

int codec_exif_orientation(const uint8_t *data, size_t size)
{
    if (size >= 6 && !memcmp(data, "Exif\0\0", 6)) {
        data += 6;
        size -= 6;
    }
    if (size < 8 || (memcmp(data, "II*\0", 4) && memcmp(data, "MM\0*", 4)))
        return 1;
    const struct tiff t = {data, size, data[0] == 'M'};
    const size_t at = read_u32(&t, 4);
    if (at > size - 2)
        return 1;
    const uint32_t entries = read_u16(&t, at);
    for (size_t i = 0, e = at + 2; i < entries && e + ENTRY <= size; i++, e += ENTRY) {
        if (read_u16(&t, e) != TAG_ORIENTATION || read_u16(&t, e + 2) != TYPE_SHORT)
            continue;
        const uint32_t v = read_u16(&t, e + 8);
        return v >= 1 && v <= 8 ? (int)v : 1;
    }
    return 1;
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
