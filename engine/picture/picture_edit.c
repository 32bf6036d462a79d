// Input images of edits, see picture_edit.h. Called by the command line, the server's thread pool
// and the engine.
#include "picture_edit.h"

#include "codec.h"
#include "picture.h"
#include "picture_resize.h"

#include <stdlib.h>
#include <string.h>

enum { HALF = 128 };

static int longer(int w, int h)
{
    return w > h ? w : h;
}

static enum err no_memory(struct fault *why)
{
    return fault_set(why, ERR_NO_MEMORY, "image", "out of memory for the image to edit");
}

// ---- input files ------------------------------------------------------------------------------

static uint8_t luma(const uint8_t *p)
{
    return (uint8_t)((19595u * p[0] + 38470u * p[1] + 7471u * p[2] + 32768) >> 16);
}

// Copies the colors; puts transparent pixels on white unless they will be regenerated anyway.
static void fill_rgb(const struct codec_image *i, bool on_white, uint8_t *rgb)
{
    const size_t pixels = (size_t)i->width * (size_t)i->height;

    for (size_t k = 0; k < pixels; k++) {
        const unsigned alpha = on_white ? i->rgba[4 * k + 3] : 255;
        if (alpha == 255)
            memcpy(rgb + 3 * k, i->rgba + 4 * k, 3);
        for (size_t c = 0; alpha < 255 && c < 3; c++)
            rgb[3 * k + c] =
                (uint8_t)((i->rgba[4 * k + c] * alpha + 255 * (255 - alpha) + 127) / 255);
    }
}

// 255 where pixels are regenerated; as smooth as the mask itself.
static void fill_mask(const struct codec_image *m, enum picture_mask kind, bool invert,
                      uint8_t *out)
{
    const size_t pixels = (size_t)m->width * (size_t)m->height;

    for (size_t k = 0; k < pixels; k++) {
        const uint8_t *p = m->rgba + 4 * k;
        const uint8_t v = kind == PICTURE_MASK_LIGHT ? luma(p) : (uint8_t)(255 - p[3]);
        out[k] = invert ? (uint8_t)(255 - v) : v;
    }
}

struct picture_box picture_edit_middle(int w, int h, const struct check_size *size)
{
    struct picture_box b = {0, 0, w, h};

    if ((int64_t)w * size->height > (int64_t)h * size->width) {
        b.width = (double)h * size->width / size->height;
        b.x = (w - b.width) / 2;
    } else {
        b.height = (double)w * size->height / size->width;
        b.y = (h - b.height) / 2;
    }
    return b;
}

struct canvas {
    const uint8_t *px;
    int w, h, channels;
};

// The whole image in the middle, its outermost pixels repeated around it.
static enum err pad(const struct canvas *in, const struct check_size *size, uint8_t *out)
{
    const bool wide = (int64_t)in->w * size->height > (int64_t)in->h * size->width;
    int w = wide ? size->width : (int)((int64_t)in->w * size->height / in->h);
    int h = wide ? (int)((int64_t)in->h * size->width / in->w) : size->height;
    const size_t c = (size_t)in->channels;
    enum err e = ERR_NO_MEMORY;

    w += !w;
    h += !h;
    uint8_t *inner = malloc((size_t)w * (size_t)h * c);
    if (inner)
        e = picture_resize(in->px, in->w, in->h, in->channels, NULL, w, h, inner);
    for (int y = 0; !e && y < size->height; y++)
        for (int x = 0; x < size->width; x++, out += c) {
            const int from_x = x - (size->width - w) / 2, from_y = y - (size->height - h) / 2;
            const size_t column = (size_t)(from_x < 0 ? 0 : from_x < w ? from_x : w - 1);
            const size_t row = (size_t)(from_y < 0 ? 0 : from_y < h ? from_y : h - 1);
            memcpy(out, inner + (row * (size_t)w + column) * c, c);
        }
    free(inner);
    return e;
}

// Scales *px, w x h pixels, to the size of the result. Takes ownership of *px, even on error.
static enum err fit(uint8_t **px, const struct canvas *of, const struct check_size *size,
                    enum picture_fit how)
{
    const struct canvas in = {*px, of->w, of->h, of->channels};
    const struct picture_box b = picture_edit_middle(in.w, in.h, size);
    const size_t pixels = (size_t)size->width * (size_t)size->height;
    uint8_t *out;
    enum err e = ERR_NO_MEMORY;

    if (size->width == in.w && size->height == in.h)
        return ERR_OK;
    out = malloc(pixels * (size_t)in.channels);
    if (out && how == PICTURE_FIT_PAD)
        e = pad(&in, size, out);
    else if (out)
        e = picture_resize(in.px, in.w, in.h, in.channels, how == PICTURE_FIT_CROP ? &b : NULL,
                           size->width, size->height, out);
    free(*px);
    *px = out;
    return e;
}

static enum err cut(uint8_t *mask, size_t pixels, struct fault *why)
{
    bool some = false;

    for (size_t k = 0; k < pixels; k++) {
        mask[k] = mask[k] >= HALF ? 255 : 0;
        some |= mask[k] != 0;
    }
    return some ? ERR_OK
                : fault_set(why, ERR_INVALID, "mask",
                            "the mask marks no pixel to repaint; mark some, or omit the mask");
}

static enum err check(const struct picture_edit_params *p, struct fault *why)
{
    const struct codec_image *i = p->image, *m = p->mask;

    if (m && (m->width != i->width || m->height != i->height))
        return fault_set(why, ERR_INVALID, "mask",
                         "the mask has %dx%d pixels but the image has %dx%d%s; use a mask of the "
                         "same size",
                         m->width, m->height, i->width, i->height,
                         m->width == i->height && m->height == i->width
                             ? " (as its EXIF orientation may rotate it)"
                             : "");
    if (m && p->kind == PICTURE_MASK_TRANSPARENT && !m->alpha)
        return fault_set(
            why, ERR_INVALID, "mask",
            "the mask has no transparent pixel; make the pixels to repaint transparent");
    if (p->feather < PICTURE_FEATHER_AUTO || p->feather > PICTURE_MAX_FEATHER)
        return fault_set(why, ERR_INVALID, "feather", "feather must be 0 to %d, not %d",
                         PICTURE_MAX_FEATHER, p->feather);
    if (p->options.padding < 0 || p->options.padding > PICTURE_MAX_PADDING)
        return fault_set(why, ERR_INVALID, "padding", "padding must be 0 to %d, not %d",
                         PICTURE_MAX_PADDING, p->options.padding);
    if (longer(p->size.width, p->size.height) > PICTURE_MAX_EDIT_EDGE)
        return fault_set(why, ERR_INVALID, "size",
                         "\"size\": %dx%d is too large for an edit; the maximum is %d pixels on "
                         "each side",
                         p->size.width, p->size.height, PICTURE_MAX_EDIT_EDGE);
    if (!p->size.width && longer(i->width, i->height) > PICTURE_MAX_EDIT_EDGE)
        return fault_set(why, ERR_INVALID, "image",
                         "the image has %dx%d pixels; at most %d on each side can be %s", i->width,
                         i->height, PICTURE_MAX_EDIT_EDGE,
                         p->enlarge ? "enlarged; scale it down first"
                                    : "edited; scale it down, or request a smaller size");
    return ERR_OK;
}

static enum err fill(struct picture_edit *e, const struct picture_edit_params *p, struct fault *why)
{
    const struct codec_image *i = p->image, *mask = p->mask;
    const size_t pixels = (size_t)i->width * (size_t)i->height;
    const bool own = !mask && i->alpha && !p->options.opaque;
    const struct canvas rgb = {NULL, i->width, i->height, 3}, one = {NULL, i->width, i->height, 1};
    const struct check_size size = {e->width, e->height};

    e->rgb = malloc(3 * pixels);
    if (mask || own)
        e->drawn = malloc(pixels);
    if (!e->rgb || ((mask || own) && !e->drawn))
        return no_memory(why);
    fill_rgb(i, !own, e->rgb);
    if (fit(&e->rgb, &rgb, &size, p->options.fit))
        return no_memory(why);
    e->masked = e->drawn;
    if (!e->drawn)
        return ERR_OK;
    if (own)
        fill_mask(i, PICTURE_MASK_TRANSPARENT, p->invert, e->drawn);
    else
        fill_mask(mask, p->kind, p->invert, e->drawn);
    if (fit(&e->drawn, &one, &size, p->options.fit))
        return no_memory(why);
    return cut(e->drawn, (size_t)e->width * (size_t)e->height, why);
}

// Where a square begins that has the center of first .. last, inside 0 .. n if possible.
static int place(int first, int last, int edge, int n)
{
    const int at = (first + last + 1 - edge) / 2;

    if (edge >= n)
        return (n - edge) / 2;
    return at < 0 ? 0 : at > n - edge ? n - edge : at;
}

static void zoom(struct picture_edit *e, int padding)
{
    int left = e->width, right = -1, top = e->height, bottom = -1;

    for (int y = 0; y < e->height; y++)
        for (int x = 0; x < e->width; x++) {
            if (!e->drawn[(size_t)y * (size_t)e->width + (size_t)x])
                continue;
            left = x < left ? x : left;
            right = x > right ? x : right;
            top = y < top ? y : top;
            bottom = y;
        }
    const int edge = longer(right - left + 1, bottom - top + 1) + 2 * padding;
    if (edge >= longer(e->width, e->height))
        return;
    e->zoom = edge;
    e->left = place(left, right, edge, e->width);
    e->top = place(top, bottom, edge, e->height);
}

enum err picture_edit_create(const struct picture_edit_params *p, struct picture_edit **out,
                             struct fault *why)
{
    struct picture_edit *e;
    enum err err = check(p, why);

    *out = NULL;
    if (err)
        return err;
    e = calloc(1, sizeof *e);
    if (!e)
        return no_memory(why);
    e->width = p->size.width ? p->size.width : p->image->width;
    e->height = p->size.height ? p->size.height : p->image->height;
    e->feather = p->feather;
    if (p->feather == PICTURE_FEATHER_AUTO)
        e->feather = longer(e->width, e->height) / 256 + (longer(e->width, e->height) < 256);
    e->fill = p->options.fill;
    err = fill(e, p, why);
    if (err)
        picture_edit_destroy(&e);
    else if (e->masked && p->options.zoom)
        zoom(e, p->options.padding);
    *out = e;
    return err;
}

void picture_edit_destroy(struct picture_edit **e)
{
    if (!*e)
        return;
    free((*e)->rgb);
    free((*e)->drawn);
    free(*e);
    *e = NULL;
}

// ---- stages -----------------------------------------------------------------------------------

struct picture_box picture_edit_around(const struct picture_box *part,
                                       const struct check_size *size)
{
    struct picture_box b = *part;

    if (b.width * size->height > b.height * size->width)
        b.height = b.width * size->height / size->width;
    else
        b.width = b.height * size->width / size->height;
    b.x -= (b.width - part->width) / 2;
    b.y -= (b.height - part->height) / 2;
    return b;
}

// The part of the image that the model sees.
static struct picture_box part_of(const struct picture_edit *e)
{
    return e->zoom ? (struct picture_box){e->left, e->top, e->zoom, e->zoom}
                   : (struct picture_box){0, 0, e->width, e->height};
}

enum err picture_edit_stage(const struct picture_edit *e, const struct check_size *size, float *out)
{
    const struct picture_box part = part_of(e), box = picture_edit_around(&part, size);
    const size_t pixels = (size_t)size->width * (size_t)size->height;
    uint8_t *px = malloc(4 * pixels), *mask = px + 3 * pixels;
    enum err err = ERR_NO_MEMORY;

    if (px)
        err = picture_resize(e->rgb, e->width, e->height, 3, &box, size->width, size->height, px);
    if (!err && e->drawn)
        err =
            picture_resize(e->drawn, e->width, e->height, 1, &box, size->width, size->height, mask);
    for (size_t k = 0; !err && k < pixels; k++) {
        for (size_t c = 0; c < 3; c++)
            out[4 * k + c] = (float)px[3 * k + c] / 127.5f - 1;
        out[4 * k + 3] = e->drawn && mask[k] < HALF;
    }
    free(px);
    if (!err && e->drawn && e->fill != PICTURE_FILL_IMAGE)
        err = picture_fill(e->fill, size, out);
    return err;
}

// Extracts the part of the image that the model saw from a generated image, in the part's size.
static enum err take_part(const struct picture_edit *e, const uint8_t *rgb,
                          const struct check_size *from, uint8_t *out)
{
    const struct picture_box part = part_of(e);
    const struct check_size size = {(int)part.width, (int)part.height};
    const struct picture_box middle = picture_edit_middle(from->width, from->height, &size);

    if (middle.width < size.width)
        return picture_resize(rgb, from->width, from->height, 3, &middle, size.width, size.height,
                              out);
    picture_fit(rgb, from, &size, out);
    return ERR_OK;
}

// Places the square that the model saw into the image.
static enum err unzoom(const struct picture_edit *e, const uint8_t *rgb,
                       const struct check_size *from, uint8_t *out)
{
    const size_t width = (size_t)e->width;
    uint8_t *part = malloc((size_t)e->zoom * (size_t)e->zoom * 3);
    enum err err = part ? take_part(e, rgb, from, part) : ERR_NO_MEMORY;

    memcpy(out, e->rgb, width * (size_t)e->height * 3);
    for (int y = 0; !err && y < e->zoom; y++)
        for (int x = 0; x < e->zoom; x++) {
            const int to_x = e->left + x, to_y = e->top + y;
            if (to_x >= 0 && to_x < e->width && to_y >= 0 && to_y < e->height)
                memcpy(out + 3 * ((size_t)to_y * width + (size_t)to_x),
                       part + 3 * ((size_t)y * (size_t)e->zoom + (size_t)x), 3);
        }
    free(part);
    return err;
}

static uint16_t nearer(uint16_t a, uint16_t b, int by)
{
    return a < b + by ? a : (uint16_t)(b + by);
}

// The distance of the pixel at d from its already visited neighbors. before: the same column in the
// previously visited row; step: the direction towards the visited neighbors.
static uint16_t nearest(const uint16_t *d, const uint16_t *before, int step, bool first, bool last)
{
    uint16_t v = *d;

    if (!first)
        v = nearer(v, d[-step], 3);
    if (!before)
        return v;
    v = nearer(v, *before, 3);
    if (!first)
        v = nearer(v, before[-step], 4);
    return last ? v : nearer(v, before[step], 4);
}

// The distance of each regenerated pixel from the nearest kept one, in thirds of a pixel: 3 to a
// neighbor, 4 diagonally, so diagonals are slightly too short. Two passes, from opposite corners.
// Source: Borgefors 1986, chamfer distance 3-4.
static void fill_distance(const struct picture_edit *e, uint16_t *d)
{
    const int w = e->width, h = e->height;

    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++) {
            uint16_t *at = d + (size_t)y * (size_t)w + x;
            *at = e->drawn[(size_t)y * (size_t)w + (size_t)x] ? 0xfff0 : 0;
            if (*at)
                *at = nearest(at, y ? at - w : NULL, 1, x == 0, x + 1 == w);
        }
    for (int y = h - 1; y >= 0; y--)
        for (int x = w - 1; x >= 0; x--) {
            uint16_t *at = d + (size_t)y * (size_t)w + x;
            if (*at)
                *at = nearest(at, y + 1 < h ? at + w : NULL, -1, x + 1 == w, x == 0);
        }
}

enum err picture_edit_compose(const struct picture_edit *e, const uint8_t *rgb,
                              const struct check_size *from, uint8_t *out)
{
    const size_t pixels = (size_t)e->width * (size_t)e->height;
    const int full = 3 * (e->feather + 1);
    uint16_t *distance;
    enum err err = e->zoom ? unzoom(e, rgb, from, out) : take_part(e, rgb, from, out);

    if (err || !e->drawn)
        return err;
    distance = malloc(pixels * sizeof *distance);
    if (!distance)
        return ERR_NO_MEMORY;
    fill_distance(e, distance);
    for (size_t k = 0; k < pixels; k++) {
        const int weight = distance[k] < full ? distance[k] : full;
        if (weight == full)
            continue;
        for (size_t c = 3 * k; c < 3 * k + 3; c++)
            out[c] = (uint8_t)((out[c] * weight + e->rgb[c] * (full - weight) + full / 2) / full);
    }
    free(distance);
    return ERR_OK;
}
