// Reads PNG with libpng. Called by decode.c.
#include "codec_priv.h"

#include <png.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

enum { SIGNATURE = 8, CHUNK = 12 }; // CHUNK: length, type and checksum

// Chunks skipped without decompression: unused here, and possibly decompression bombs.
static const png_byte skipped[] =
    "eXIf\0iCCP\0iTXt\0tEXt\0zTXt\0sPLT\0hIST\0sCAL\0pCAL\0cHRM\0gAMA\0sRGB";

struct input {
    struct codec_reader *r;
    size_t at;
    png_bytep *rows;
    bool cut; // libpng tried to read past the end
    char message[80];
};

static void on_read(png_structp png, png_bytep out, size_t n)
{
    struct input *in = png_get_io_ptr(png);

    if (n > in->r->size - in->at) {
        in->cut = true;
        png_error(png, "truncated");
    }
    for (size_t i = 0; i < n; i++)
        out[i] = in->r->data[in->at++];
}

static void on_error(png_structp png, png_const_charp text)
{
    struct input *in = png_get_error_ptr(png);

    snprintf(in->message, sizeof in->message, "%s", text);
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp text)
{
    (void)png;
    (void)text;
}

static void transform(png_structp png)
{
    png_set_scale_16(png);
    png_set_expand(png);
    png_set_gray_to_rgb(png);
    png_set_add_alpha(png, 255, PNG_FILLER_AFTER);
    png_set_interlace_handling(png);
}

// Read without libpng, which would allocate a chunk's stated length before reading any of it.
void codec_orient_png(struct codec_reader *r)
{
    for (size_t at = SIGNATURE; r->size - at >= CHUNK;) {
        const uint8_t *chunk = r->data + at;
        const size_t n = codec_big_u32(chunk), left = r->size - at - CHUNK;
        if (n > left)
            return;
        if (!memcmp(chunk + 4, "eXIf", 4)) {
            r->orientation = codec_exif_orientation(chunk + 8, n);
            return;
        }
        at += CHUNK + n;
    }
}

// Separate from its caller, so that no local variable changes between setjmp and longjmp.
static enum err read_png(png_structp png, png_infop info, struct input *in)
{
    struct codec_reader *r = in->r;
    enum err e;

    if (setjmp(png_jmpbuf(png)))
        return in->cut ? codec_refuse(r, "is truncated: its PNG data ends early")
                       : codec_refuse(r, "is a damaged PNG file: %s", in->message);
    png_set_user_limits(png, 0x7fffffff, 0x7fffffff); // codec_begin has a better message
    png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, skipped, sizeof skipped / 5);
    png_read_info(png, info);
    const png_uint_32 width = png_get_image_width(png, info);
    const png_uint_32 height = png_get_image_height(png, info);
    // libpng keeps two rows of at most eight bytes per pixel; this function keeps a pointer to each
    // row.
    e = codec_begin(r, width, height, (uint64_t)width * 16 + (uint64_t)height * sizeof *in->rows);
    if (e)
        return e;
    transform(png);
    png_read_update_info(png, info);
    if (png_get_rowbytes(png, info) != (size_t)width * 4)
        png_error(png, "unknown pixel format");
    in->rows = malloc(height * sizeof *in->rows);
    if (!in->rows)
        return fault_set(r->why, ERR_NO_MEMORY, r->limits.name, "%s", err_text(ERR_NO_MEMORY));
    for (png_uint_32 y = 0; y < height; y++)
        in->rows[y] = r->out->rgba + (size_t)y * width * 4;
    png_read_image(png, in->rows);
    png_read_end(png, info);
    codec_orient_png(r);
    return ERR_OK;
}

enum err codec_read_png(struct codec_reader *r)
{
    struct input in = {.r = r};
    enum err e = ERR_NO_MEMORY;
    png_infop info = NULL;
    png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &in, on_error, on_warning);

    if (png)
        info = png_create_info_struct(png);
    if (info) {
        png_set_read_fn(png, &in, on_read);
        e = read_png(png, info, &in);
    } else {
        fault_set(r->why, e, r->limits.name, "%s", err_text(e));
    }
    png_destroy_read_struct(&png, &info, NULL);
    free(in.rows);
    return e;
}
