// Reads a command's input image and its mask from files. Called by generate.c on the only thread.
#include "generate.h"

#include "codec.h"

#include <string.h>

static enum err read_image(const char *path, const char *name, struct codec_image *out,
                           struct fault *why)
{
    const bool standard = !strcmp(path, "-");
    struct buf file = {0};
    struct fault wrong = {0};
    enum err e = buf_read_file(&file, standard ? "/dev/stdin" : path, CODEC_MAX_BYTES, why);

    if (!e) {
        e = codec_decode(file.data ? file.data : "", file.len, &(struct codec_limits){.name = name},
                         out, &wrong);
        if (e)
            fault_set(why, e, name, "%s: %.200s", standard ? "standard input" : fault_path(path),
                      wrong.msg);
    } else if (e == ERR_FORMAT) {
        fault_set(why, ERR_INVALID, name, "%s is larger than %d MB, the maximum for an image",
                  standard ? "standard input" : fault_path(path), CODEC_MAX_BYTES >> 20);
    }
    buf_deinit(&file);
    return e == ERR_FORMAT ? ERR_INVALID : e;
}

enum err generate_read_input(struct generate_options *o, struct fault *why)
{
    struct codec_image image = {0}, mask = {0};
    struct picture_edit_params p = {
        .image = &image, .size = o->request.size, .feather = PICTURE_FEATHER_AUTO};
    enum err e;

    if (!o->image)
        return ERR_OK;
    p.enlarge = o->request.scale;
    if (p.enlarge)
        p.size = (struct check_size){0, 0};
    e = read_image(o->image, "image", &image, why);
    if (!e && o->mask)
        e = read_image(o->mask, "mask", &mask, why);
    if (o->mask)
        p.mask = &mask;
    if (mask.alpha)
        p.kind = PICTURE_MASK_TRANSPARENT;
    if (!e)
        e = picture_edit_create(&p, &o->edit, why);
    o->request.edit = o->edit;
    codec_image_deinit(&image);
    codec_image_deinit(&mask);
    return e;
}
