// POST /v1/images/edits and /v1/images/variations as used by OpenAI's clients: a form with files,
// or JSON with data URLs. openai_images.c runs them and responds. Loop thread.
#include "openai.h"

#include "json.h"

// ---- edits --------------------------------------------------------------------------------------

static const char *const fidelities[] = {"low", "high", NULL};
enum { FIDELITY_HIGH = 1 };
// The strength for high fidelity without a mask; low fidelity uses the default.
static const float faithful_strength = 0.4F;

enum { MAX_FILES = 16 };

#define SIZE_ROW                                                                                   \
    {"size",                                                                                       \
     CHECK_SIZE,                                                                                   \
     CHECK_NULL,                                                                                   \
     offsetof(struct images_fields, picture.size),                                                 \
     1,                                                                                            \
     65536,                                                                                        \
     .live = "sizes",                                                                              \
     .def = "auto",                                                                                \
     .help = "edge in pixels, WIDTHxHEIGHT, or auto for the size of the image, which is cropped "  \
             "around its center and scaled to any other size"}

static const struct check_field edits_fields[] = {
    {"image", CHECK_FILE, CHECK_NULL, 0, .max = MAX_FILES,
     .help = "the image to edit: PNG, JPEG or WebP, as a file of a form, base64, a data URL, or "
             "{\"job\": id, \"index\": i} for an earlier result; one image per request"},
    {"images", CHECK_FILE, CHECK_NULL, 0, .max = MAX_FILES,
     .help = "instead of image, as a list with one {\"image_url\": data URL}; file_id is not "
             "supported"},
    {"mask", CHECK_FILE, CHECK_NULL, 0, .max = 1,
     .help = "an image of the same size that is transparent where the image is repainted; "
             "every other pixel remains as it is"},
    SIZE_ROW,
    {"input_fidelity", CHECK_ENUM, CHECK_NULL, offsetof(struct edits_fields, fidelity),
     .choices = fidelities, .def = "low",
     .help = "high sets strength to 0.4 for an edit without a mask; strength overrides it"},
};
static const char *const edits_without[] = {"scale", NULL};
const struct check_table openai_edits_check = {
    CHECK_ROWS("CreateImageEditRequest", edits_fields),
    .more = &openai_images_table,
    .without = edits_without,
};

static enum err take_image(struct call *c, struct input *in, struct fault *why)
{
    struct input_file other;
    enum err err = input_take(c, "image", &in->image, why);
    if (!err)
        err = input_take(c, "images", &other, why);
    if (err)
        return err;
    if (!input_given(&in->image)) {
        in->image = other;
        return input_given(&in->image)
                   ? ERR_OK
                   : fault_set(why, ERR_INVALID, "image", "\"image\" is required");
    }
    if (!input_given(&other))
        return ERR_OK;
    blob_unref(&other.blob);
    return fault_set(why, ERR_INVALID, "images",
                     "\"images\" and \"image\" are both given; this server takes one image per "
                     "request");
}

static enum err take_edit(struct call *c, struct job_spec *spec, struct input *in,
                          struct fault *why)
{
    const struct edits_fields *f = c->fields;
    enum err err = take_image(c, in, why);
    if (!err)
        err = input_take(c, "mask", &in->mask, why);
    spec->input.mask_kind = PICTURE_MASK_TRANSPARENT;
    spec->input.feather = PICTURE_FEATHER_AUTO;
    if (f->fidelity == FIDELITY_HIGH && !json_given(c->body, "strength") && !input_given(&in->mask))
        spec->request.strength[0] = faithful_strength;
    return err;
}

void openai_edits_post(struct call *c)
{
    openai_images_run(c, take_edit, NULL);
}

// ---- variations ---------------------------------------------------------------------------------

static const struct check_field variations_fields[] = {
    {"image", CHECK_FILE, CHECK_NULL, 0, .max = 1, .help = "the image to vary, as in an edit"},
    SIZE_ROW,
};
static const char *const variations_without[] = {"prompt", "negative_prompt", "scale",
                                                 "stream", "partial_images",  NULL};
const struct check_table openai_variations_check = {
    CHECK_ROWS("CreateImageVariationRequest", variations_fields),
    .more = &openai_images_table,
    .without = variations_without,
};

static enum err take_variation(struct call *c, struct job_spec *spec, struct input *in,
                               struct fault *why)
{
    const enum err err = input_take(c, "image", &in->image, why);
    spec->request.prompt = "";
    spec->input.feather = PICTURE_FEATHER_AUTO;
    if (err || input_given(&in->image))
        return err;
    return fault_set(why, ERR_INVALID, "image", "\"image\" is required");
}

void openai_variations_post(struct call *c)
{
    static const char *const unused[] = {"prompt", "negative_prompt", "mask", "input_fidelity",
                                         NULL};
    struct images_fields *f = c->fields;
    const char *format = json_text(json_find(c->body, "response_format"), NULL);
    // The only model of OpenAI that varies images gives URLs unless told otherwise.
    if (!format || !*format)
        f->response_format = RESPONSE_URL;
    openai_images_run(c, take_variation, unused);
}
