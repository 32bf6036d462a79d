// The table of image formats and the checks that they share, see codec.h. Callers: the engine, the
// command line and the server's thread pool.
#include "codec.h"

#include "codec_priv.h"
#include "utf8.h"

#include <string.h>
#include <strings.h>

enum { MAX_KEY = 79 };

static const struct format {
    const char *name, *mime;
    const char *extension[2];
    int max_edge;
    enum err (*encode)(const struct codec_params *p, struct buf *out);
} formats[CODEC_FORMATS] = {
    [CODEC_PNG] = {"png", "image/png", {"png"}, 1 << 16, codec_encode_png},
    // JPEG_MAX_DIMENSION and WEBP_MAX_DIMENSION
    [CODEC_JPEG] = {"jpeg", "image/jpeg", {"jpg", "jpeg"}, 65500, codec_encode_jpeg},
    [CODEC_WEBP] = {"webp", "image/webp", {"webp"}, 16383, codec_encode_webp},
};

const char *codec_name(enum codec_format f)
{
    return formats[f].name;
}

const char *codec_mime(enum codec_format f)
{
    return formats[f].mime;
}

bool codec_format_of(const char *path, enum codec_format *out)
{
    const char *slash = strrchr(path, '/'), *file = slash ? slash + 1 : path;
    const char *dot = strrchr(file, '.');

    for (int i = 0; dot && i < CODEC_FORMATS; i++)
        for (int k = 0; k < 2; k++)
            if (formats[i].extension[k] && !strcasecmp(dot + 1, formats[i].extension[k])) {
                *out = (enum codec_format)i;
                return true;
            }
    return false;
}

static bool is_text(const struct codec_text *t)
{
    const size_t n = t->key ? strlen(t->key) : 0;

    return n >= 1 && n <= MAX_KEY && t->value && utf8_valid(t->value, strlen(t->value), NULL);
}

enum err codec_encode(const struct codec_params *p, struct buf *out, struct fault *why)
{
    const struct format *f = &formats[p->format];
    enum err e;

    if (!p->rgb || p->width < 1 || p->height < 1 || p->width > f->max_edge ||
        p->height > f->max_edge)
        return fault_set(why, ERR_INVALID, "size", "%dx%d is not a valid size for %s", p->width,
                         p->height, f->name);
    if (p->quality < 0 || p->quality > CODEC_LOSSLESS)
        return fault_set(why, ERR_INVALID, "quality", "quality %d is out of range 0..100",
                         p->quality);
    if (p->texts < 0 || p->texts > CODEC_MAX_TEXTS)
        return fault_set(why, ERR_INVALID, "text", "too many metadata entries: %d", p->texts);
    if (p->comment && !utf8_valid(p->comment, strlen(p->comment), NULL))
        return fault_set(why, ERR_INVALID, "comment", "the comment is not valid UTF-8");
    if (p->xmp && strlen(p->xmp) > CODEC_MAX_XMP)
        return fault_set(why, ERR_INVALID, "xmp", "the XMP metadata is larger than %d bytes",
                         CODEC_MAX_XMP);
    for (int i = 0; i < p->texts; i++)
        if (!is_text(&p->text[i]))
            return fault_set(why, ERR_INVALID, p->text[i].key,
                             "the image's metadata contains text that is not valid UTF-8");
    e = f->encode(p, out);
    return e ? fault_set(why, e, NULL, "encoding the %s image: %s", f->name, err_text(e)) : ERR_OK;
}
