// Writes JPEG with libjpeg. Called by codec.c.
#include "codec_priv.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

struct failure {
    struct jpeg_error_mgr mgr;
    jmp_buf back;
};

static void on_error(j_common_ptr c)
{
    longjmp(((struct failure *)c->err)->back, 1);
}

#define XMP "http://ns.adobe.com/xap/1.0/" // the NUL is part of the header

enum { SEGMENT = 65533 };

// XMP and EXIF each go into a separate APP1 segment, after a name. Source: the XMP specification,
// part 3, and EXIF, 4.7.2.
static void write_segment(struct jpeg_compress_struct *c, const char *name, size_t length,
                          const char *data, size_t n)
{
    if (length + n > SEGMENT)
        return;
    jpeg_write_m_header(c, JPEG_APP0 + 1, (unsigned)(length + n));
    for (size_t i = 0; i < length + n; i++)
        jpeg_write_m_byte(c, (unsigned char)(i < length ? name[i] : data[i - length]));
}

enum err codec_encode_jpeg(const struct codec_params *p, struct buf *out)
{
    struct jpeg_compress_struct c;
    struct failure failure;
    unsigned char *volatile mem = NULL;
    struct buf exif = {0};
    unsigned long n = 0;

    if (p->comment)
        codec_put_exif(&exif, p->comment);
    c.err = jpeg_std_error(&failure.mgr);
    failure.mgr.error_exit = on_error;
    if (setjmp(failure.back)) {
        jpeg_destroy_compress(&c);
        buf_deinit(&exif);
        free(mem);
        return ERR_INTERNAL;
    }
    jpeg_create_compress(&c);
    jpeg_mem_dest(&c, (unsigned char **)&mem, &n);
    c.image_width = (JDIMENSION)p->width;
    c.image_height = (JDIMENSION)p->height;
    c.input_components = 3;
    c.in_color_space = JCS_RGB;
    jpeg_set_defaults(&c);
    jpeg_set_quality(&c, p->quality, TRUE);
    jpeg_start_compress(&c, TRUE);
    if (exif.len)
        write_segment(&c, "Exif\0", 6, exif.data, exif.len);
    if (p->xmp)
        write_segment(&c, XMP, sizeof XMP, p->xmp, strlen(p->xmp));
    while (c.next_scanline < c.image_height) {
        JSAMPROW row = (JSAMPROW)(p->rgb + (size_t)c.next_scanline * (size_t)p->width * 3);
        jpeg_write_scanlines(&c, &row, 1);
    }
    jpeg_finish_compress(&c);
    jpeg_destroy_compress(&c);
    buf_add(out, mem, n);
    free(mem);
    out->failed |= exif.failed;
    buf_deinit(&exif);
    return out->failed ? ERR_NO_MEMORY : ERR_OK;
}
