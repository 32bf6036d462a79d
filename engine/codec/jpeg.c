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

// XMP goes into a separate APP1 segment. Source: the XMP specification, part 3.
static void write_xmp(struct jpeg_compress_struct *c, const char *xmp)
{
    static const char name[] = "http://ns.adobe.com/xap/1.0/"; // the NUL is part of the header
    const size_t n = strlen(xmp);
    jpeg_write_m_header(c, JPEG_APP0 + 1, (unsigned)(sizeof name + n));
    for (size_t i = 0; i < sizeof name + n; i++)
        jpeg_write_m_byte(c, (unsigned char)(i < sizeof name ? name[i] : xmp[i - sizeof name]));
}

enum err codec_encode_jpeg(const struct codec_params *p, struct buf *out)
{
    struct jpeg_compress_struct c;
    struct failure failure;
    unsigned char *volatile mem = NULL;
    unsigned long n = 0;

    c.err = jpeg_std_error(&failure.mgr);
    failure.mgr.error_exit = on_error;
    if (setjmp(failure.back)) {
        jpeg_destroy_compress(&c);
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
    if (p->xmp)
        write_xmp(&c, p->xmp);
    while (c.next_scanline < c.image_height) {
        JSAMPROW row = (JSAMPROW)(p->rgb + (size_t)c.next_scanline * (size_t)p->width * 3);
        jpeg_write_scanlines(&c, &row, 1);
    }
    jpeg_finish_compress(&c);
    jpeg_destroy_compress(&c);
    buf_add(out, mem, n);
    free(mem);
    return out->failed ? ERR_NO_MEMORY : ERR_OK;
}
