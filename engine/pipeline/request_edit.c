// Resolves a request with an input image: how many steps of each stage are run, or which stages
// enlarge it. Called by request.c, on any thread.
#include "enlarge.h"
#include "picture_edit.h"
#include "request.h"

#include <stdio.h>
#include <stdlib.h>

enum { MAX_EDGE = 16384, MAX_PIXELS = 64 << 20 };
// Defaults of the first stage, as in diffusers' pipelines.
static const float image_strength = 0.7F, mask_strength = 1;

double request_decimal(float v)
{
    char text[32];

    // A float preserves six decimal digits.
    snprintf(text, sizeof text, "%.6g", (double)v);
    return strtod(text, NULL);
}

static bool is_given(const struct picture_request *r)
{
    return r->strength[0] != 0 || r->strength[1] != 0 || r->strength[2] != 0;
}

static enum err resolve_strength(const struct cascade *c, const struct picture_request *r,
                                 struct picture_used *out, struct fault *why)
{
    for (int i = 0; i < out->stages; i++) {
        const float first = r->edit->masked ? mask_strength : image_strength;
        // NaN fails every comparison.
        if (r->strength[i] != 0 && !(r->strength[i] > 0 && r->strength[i] <= 1))
            return fault_set(why, ERR_INVALID, "strength",
                             "strength must be above 0 and at most 1, not %g",
                             (double)r->strength[i]);
        if (cascade_is_latent(c, i) && r->strength[i] != 0 && r->strength[i] < 1)
            return fault_set(why, ERR_UNSUPPORTED, "strength",
                             "strength of stage %d (%s) must be 1, not %g: it works on latents and "
                             "enlarges the image of the stage before",
                             i + 1, c->network[i].name, (double)r->strength[i]);
        // Runs as without an edit.
        if (cascade_is_latent(c, i))
            continue;
        out->strength[i] = r->strength[i] != 0 ? r->strength[i] : i ? 1 : first;
    }
    return ERR_OK;
}

static enum err resolve_image(const struct cascade *c, const struct picture_request *r,
                              struct picture_used *out, struct fault *why)
{
    const struct check_size own = {r->edit->width, r->edit->height};
    const int largest = c->size[c->stages - 1];
    // Only an edit with a mask, or one whose size was not requested, may be larger than the model's
    // images.
    const bool asked = r->size.width && !r->edit->masked;
    const bool larger = !asked && (own.width > largest || own.height > largest);
    const struct check_size any = {0, 0};
    const struct picture_sizes sizes = request_sizes(c);
    enum err e;

    if (r->size.width && (r->size.width != own.width || r->size.height != own.height))
        return fault_set(why, ERR_INVALID, "size",
                         "\"size\" is %dx%d, but the input image was prepared in %dx%d",
                         r->size.width, r->size.height, own.width, own.height);
    e = picture_choose(&sizes, &own, out, larger ? NULL : why);
    if (e && larger)
        e = picture_choose(&sizes, &any, out, why);
    if (e)
        return e;
    out->size = own;
    // Without a mask nothing of the input is kept, so its size does not matter.
    if (!r->edit->masked)
        out->size = picture_fit_size(out, &out->drawn);
    return resolve_strength(c, r, out, why);
}

// ---- enlarging --------------------------------------------------------------------------------

// The factor by which the stages first .. last enlarge; 0: not an integer.
static int factor_of(const struct cascade *c, int first, int last)
{
    for (int i = first; i <= last; i++)
        if (c->size[i] % c->size[i - 1])
            return 0;
    return c->size[last] / c->size[first - 1];
}

void request_scales(const struct cascade *c, int out[2])
{
    out[0] = c->stages > 1 ? factor_of(c, c->stages - 1, c->stages - 1) : 0;
    out[1] = c->stages > 2 ? factor_of(c, 1, c->stages - 1) : 0;
}

static enum err refuse_scale(const struct cascade *c, int scale, struct fault *why)
{
    int scales[2];

    request_scales(c, scales);
    if (!scales[0])
        return fault_set(why, ERR_UNSUPPORTED, "scale",
                         "this model cannot enlarge images: it has no super-resolution stage");
    if (!scales[1])
        return fault_set(why, ERR_INVALID, "scale",
                         "scale %d must be %d, the only factor of this model", scale, scales[0]);
    return fault_set(why, ERR_INVALID, "scale",
                     "scale %d must be %d or %d, the factors of this model", scale, scales[0],
                     scales[1]);
}

// Selects the last stages that enlarge by the requested factor; among single stages, the last one
// whose input is not larger than the image.
static enum err choose_stages(const struct cascade *c, const struct picture_request *r,
                              struct picture_used *out, struct fault *why)
{
    const int longer = r->edit->width > r->edit->height ? r->edit->width : r->edit->height;
    int found = 0;

    for (int first = 1; first < c->stages; first++)
        for (int last = first; last < c->stages; last++) {
            if (factor_of(c, first, last) != r->scale)
                continue;
            if (found && c->size[first - 1] > longer)
                continue;
            found = 1;
            out->first = first;
            out->stages = last + 1;
        }
    return found ? ERR_OK : refuse_scale(c, r->scale, why);
}

static enum err resolve_scale(const struct cascade *c, const struct picture_request *r,
                              struct picture_used *out, struct fault *why)
{
    const int64_t width = (int64_t)r->edit->width * r->scale;
    const int64_t height = (int64_t)r->edit->height * r->scale;
    enum err e = choose_stages(c, r, out, why);

    if (e)
        return e;
    if (is_given(r))
        return fault_set(why, ERR_INVALID, "strength",
                         "strength does not apply to enlarging an image; omit it");
    if (r->edit->masked)
        return fault_set(why, ERR_INVALID, "mask",
                         "a mask does not apply to enlarging an image; omit it");
    if (r->sampler || r->timesteps)
        return fault_set(
            why, ERR_INVALID, r->sampler ? "sampler" : "timesteps",
            "%s applies to the first stage, which does not run to enlarge an image; omit it",
            r->sampler ? "sampler" : "timesteps");
    if (r->size.width > width || r->size.height > height)
        return fault_set(why, ERR_INVALID, "size",
                         "\"size\" is %dx%d, but %d times the input image is only %lldx%lld",
                         r->size.width, r->size.height, r->scale, (long long)width,
                         (long long)height);
    if (width > MAX_EDGE || height > MAX_EDGE || width * height > MAX_PIXELS)
        return fault_set(
            why, ERR_INVALID, "scale",
            "%d times the input image is %lldx%lld; the maximum is %d pixels on each side "
            "and %d in total",
            r->scale, (long long)width, (long long)height, MAX_EDGE, MAX_PIXELS);
    out->scale = r->scale;
    out->drawn = (struct check_size){(int)width, (int)height};
    out->size = r->size.width ? r->size : out->drawn;
    return ERR_OK;
}

void request_count_tiles(const struct cascade *c, const struct picture_request *r,
                         struct picture_used *used)
{
    int width = r->edit->width, height = r->edit->height;

    for (int i = used->first; i < used->stages; i++) {
        const int factor = c->size[i] / c->size[i - 1];
        used->run[i] *= enlarge_count(width, height, c->size[i - 1]);
        width *= factor;
        height *= factor;
    }
}

enum err request_resolve_edit(const struct cascade *c, const struct picture_request *r,
                              struct picture_used *out, struct fault *why)
{
    if (r->edit)
        return r->scale ? resolve_scale(c, r, out, why) : resolve_image(c, r, out, why);
    if (r->scale || is_given(r))
        return fault_set(why, ERR_INVALID, r->scale ? "scale" : "strength",
                         "%s needs an input image", r->scale ? "scale" : "strength");
    const struct picture_sizes sizes = request_sizes(c);
    return picture_choose(&sizes, &r->size, out, why);
}
