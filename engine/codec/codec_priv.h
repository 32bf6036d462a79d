// The encoders behind codec_encode, which has checked their parameters.
#ifndef IMAGEND_CODEC_PRIV_H
#define IMAGEND_CODEC_PRIV_H

#include "buf.h"
#include "codec.h"

// Append the file to *out. Errors: NO_MEMORY, INTERNAL.
enum err codec_encode_png(const struct codec_params *p, struct buf *out);
enum err codec_encode_jpeg(const struct codec_params *p, struct buf *out);
enum err codec_encode_webp(const struct codec_params *p, struct buf *out);

#endif
