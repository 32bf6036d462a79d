// Reads JPEG with libjpeg. Called by decode.c.
#include "codec_priv.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

#include <jerror.h>

enum {
    EXIF = JPEG_APP0 + 1,
    // Each scan of a progressive file visits the whole image. Real encoders need at most twenty;
    // small images may have more, up to a total number of pixels.
    SCANS = 20,
};
static const uint64_t scanned_pixels = 1000000000;

struct input {
    struct jpeg_error_mgr mgr;
    struct jpeg_progress_mgr progress;
    jmp_buf back;
    struct codec_reader *r;
    uint8_t *row;
    const char *cut; // the missing part, once known
    bool scans;      // too many scans
};

static void on_error(j_common_ptr c)
{
    longjmp(((struct input *)c->err)->back, 1);
}

// libjpeg fills missing data with gray; treat that as an error.
static void on_message(j_common_ptr c, int level)
{
    struct input *in = (struct input *)c->err;

    if (level >= 0)
        return;
    switch (c->err->msg_code) {
    case JWRN_JPEG_EOF: in->cut = "is truncated: its JPEG data ends early"; break;
    case JWRN_HIT_MARKER:
    case JWRN_HUFF_BAD_CODE: in->cut = "is a damaged JPEG file"; break;
    }
    if (in->cut)
        longjmp(in->back, 1);
}

static void on_progress(j_common_ptr c)
{
    struct input *in = (struct input *)c->err;
    const j_decompress_ptr d = (j_decompress_ptr)c;
    const uint64_t pixels = (uint64_t)d->image_width * d->image_height;

    in->scans =
        d->input_scan_number > SCANS && (uint64_t)d->input_scan_number * pixels > scanned_pixels;
    if (in->scans)
        longjmp(in->back, 1);
}

static void read_orientation(const struct jpeg_decompress_struct *d, struct codec_reader *r)
{
    for (jpeg_saved_marker_ptr m = d->marker_list; m; m = m->next)
        if (m->marker == EXIF && m->data_length > 6 && !memcmp(m->data, "Exif\0\0", 6)) {
            r->orientation = codec_exif_orientation(m->data, m->data_length);
            return;
        }
}

// Bytes of coefficients that libjpeg holds when the file has several scans.
static uint64_t coefficient_bytes(struct jpeg_decompress_struct *d)
{
    uint64_t blocks = 0;

    for (int i = 0; jpeg_has_multiple_scans(d) && i < d->num_components; i++)
        blocks += (uint64_t)d->comp_info[i].width_in_blocks * d->comp_info[i].height_in_blocks;
    return blocks * sizeof(JBLOCK);
}

// Adobe's files store inverted values (255 - ink); standard files store ink.
static void put_cmyk(const uint8_t *row, size_t n, bool inverted, uint8_t *rgba)
{
    for (size_t i = 0; i < n; i++, row += 4, rgba += 4) {
        const unsigned black = inverted ? row[3] : 255u - row[3];
        for (int c = 0; c < 3; c++)
            rgba[c] = (uint8_t)(((inverted ? row[c] : 255u - row[c]) * black + 127) / 255);
        rgba[3] = 255;
    }
}

static void put_rgb(const uint8_t *row, size_t n, uint8_t *rgba)
{
    for (size_t i = 0; i < n; i++, row += 3, rgba += 4) {
        memcpy(rgba, row, 3);
        rgba[3] = 255;
    }
}

static enum err start(struct jpeg_decompress_struct *d, struct input *in)
{
    struct codec_reader *r = in->r;
    enum err e;

    jpeg_mem_src(d, (unsigned char *)(uintptr_t)r->data, r->size);
    jpeg_save_markers(d, EXIF, 0xffff);
    jpeg_read_header(d, TRUE);
    if (d->num_components != 1 && d->num_components != 3 && d->num_components != 4)
        return codec_refuse(r, "is a JPEG file of %d components, which is not supported",
                            d->num_components);
    e = codec_begin(r, d->image_width, d->image_height, coefficient_bytes(d));
    if (e)
        return e;
    d->out_color_space = d->num_components == 4 ? JCS_CMYK : JCS_RGB;
    in->row = malloc(4 * (size_t)d->image_width);
    return in->row
               ? ERR_OK
               : fault_set(r->why, ERR_NO_MEMORY, r->limits.name, "%s", err_text(ERR_NO_MEMORY));
}

// Separate from its caller, so that no local variable changes between setjmp and longjmp.
static enum err read_jpeg(struct jpeg_decompress_struct *d, struct input *in)
{
    struct codec_reader *r = in->r;
    char text[JMSG_LENGTH_MAX];
    enum err e;

    if (setjmp(in->back)) {
        if (in->scans)
            return codec_refuse(r, "is a JPEG file of more than %d scans",
                                d->input_scan_number - 1);
        if (in->cut)
            return codec_refuse(r, "%s", in->cut);
        d->err->format_message((j_common_ptr)d, text);
        return codec_refuse(r, "is a damaged JPEG file: %.120s", text);
    }
    jpeg_create_decompress(d);
    d->progress = &in->progress;
    e = start(d, in);
    if (e)
        return e;
    jpeg_start_decompress(d);
    while (d->output_scanline < d->output_height) {
        uint8_t *rgba = r->out->rgba + 4 * (size_t)d->output_scanline * d->output_width;
        jpeg_read_scanlines(d, &in->row, 1);
        if (d->num_components == 4)
            put_cmyk(in->row, d->output_width, d->saw_Adobe_marker, rgba);
        else
            put_rgb(in->row, d->output_width, rgba);
    }
    read_orientation(d, r); // before finishing, which discards the markers
    jpeg_finish_decompress(d);
    return ERR_OK;
}

enum err codec_read_jpeg(struct codec_reader *r)
{
    struct jpeg_decompress_struct d = {0};
    struct input in = {.r = r, .progress.progress_monitor = on_progress};

    d.err = jpeg_std_error(&in.mgr);
    in.mgr.error_exit = on_error;
    in.mgr.emit_message = on_message;
    const enum err e = read_jpeg(&d, &in);
    jpeg_destroy_decompress(&d);
    free(in.row);
    return e;
}
