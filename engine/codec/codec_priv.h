// The encoders behind codec_encode, which checks their parameters, and the decoders behind
// codec_decode, which recognizes the format.
#ifndef IMAGEND_CODEC_PRIV_H
#define IMAGEND_CODEC_PRIV_H

#include "buf.h"
#include "codec.h"

// Append the file to *out. Errors: NO_MEMORY, INTERNAL.
static inline uint32_t codec_big_u32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline uint32_t codec_little_u32(const uint8_t *p)
{
    return (uint32_t)p[3] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[1] << 8 | p[0];
}

enum err codec_encode_png(const struct codec_params *p, struct buf *out);
enum err codec_encode_jpeg(const struct codec_params *p, struct buf *out);
enum err codec_encode_webp(const struct codec_params *p, struct buf *out);

// The state of decoding one file.
struct codec_reader {
    const uint8_t *data;
    size_t size;
    struct codec_limits limits; // no field is zero
    struct codec_image *out;
    int orientation; // EXIF orientation, 1..8
    struct fault *why;
};

// Fills *r, with default limits where l has none.
void codec_open(struct codec_reader *r, const void *data, size_t size, const struct codec_limits *l,
                struct fault *why);
// Recognizes the format by its first bytes. Errors: INVALID (empty, too large, another format).
enum err codec_recognize(struct codec_reader *r, enum codec_format *out);
// Checks the size of an image against the limits. extra: bytes that decoding needs besides the
// result. Errors: INVALID.
enum err codec_check_size(struct codec_reader *r, uint32_t width, uint32_t height, uint64_t extra);
// Checks the size against the limits, then allocates out->rgba. extra: other bytes that decoding
// needs. Errors: INVALID, NO_MEMORY, with *r->why filled.
enum err codec_begin(struct codec_reader *r, uint32_t width, uint32_t height, uint64_t extra);
// Fills *r->why with a sentence such as "the image is truncated". Returns INVALID.
enum err codec_refuse(struct codec_reader *r, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

// Fill out->rgba. Errors: INVALID, NO_MEMORY, with *r->why filled.
enum err codec_read_png(struct codec_reader *r);
enum err codec_read_jpeg(struct codec_reader *r);
enum err codec_read_webp(struct codec_reader *r);

// A segment of a JPEG file.
struct codec_segment {
    const uint8_t *next; // where to go on: at first, behind the file's first marker
    int marker;
    const uint8_t *data;
    size_t n;
    bool pixels, damaged; // at the end: the pixels follow, or the file ends without any
};
enum { CODEC_JPEG_APP1 = 0xe1 };
// Walks the segments before the pixels; false at their end.
bool codec_next_segment(const struct codec_reader *r, struct codec_segment *s);

// The orientation in EXIF data, with or without the "Exif" prefix; 1 if not stated.
int codec_exif_orientation(const uint8_t *data, size_t size);
// Appends the user comment of EXIF data as UTF-8; nothing if there is none.
void codec_exif_comment(const uint8_t *data, size_t size, struct buf *out);
// Appends EXIF data, without the "Exif" prefix, that contains only a user comment.
void codec_put_exif(struct buf *b, const char *comment);
// Appends text as UTF-8, without trailing NULs. utf8: it may be UTF-8; otherwise it is Latin-1.
void codec_put_text(struct buf *b, const uint8_t *p, size_t n, bool utf8);
// Set r->orientation if the file states one.
void codec_orient_png(struct codec_reader *r);
void codec_orient_webp(struct codec_reader *r);
// Rotates and mirrors the image as the orientation says. Errors: NO_MEMORY.
enum err codec_turn(struct codec_image *i, int orientation);

#endif
