// Shared by the files of the OpenAI API. Loop thread.
#ifndef IMAGEND_OPENAI_H
#define IMAGEND_OPENAI_H

#include "input.h"

// The fields that all image endpoints of this API share; first in the struct of each endpoint.
struct images_fields {
    struct picture_request picture;
    const char *model;
    int n, quality, response_format, output_format, compression, partial_images, background;
    bool stream;
    unsigned unused; // which of unused_names the request has, bit by bit
    const char *const *unused_names;
};
struct edits_fields {
    struct images_fields images;
    int fidelity;
};
enum { RESPONSE_URL = 1 };      // of response_format
enum { IMAGES_MAX_UNUSED = 8 }; // names of fields without effect
extern const struct check_table openai_images_table;
// Submits what the fields and the settings of a spec say, and responds as these endpoints do.
// take: fills in the spec and reads the images, once it is certain that a new job is needed; NULL:
// there are none. unused: NULL-terminated names of at most IMAGES_MAX_UNUSED fields of edits that
// have no effect here; the response warns about them. Errors of take: INVALID, NO_MEMORY.
typedef enum err openai_take_fn(struct call *c, struct job_spec *spec, struct input *in,
                                struct fault *why);
void openai_images_run(struct call *c, openai_take_fn *take, const char *const *unused);
void openai_edits_post(struct call *c);
void openai_variations_post(struct call *c);
extern const struct check_table openai_edits_check, openai_variations_check;

void openai_models_list(struct call *c);
void openai_models_get(struct call *c);
// As draw_find_model, for OpenAI's clients: an alias from model-aliases or one of OpenAI's names,
// with or without a date, selects the default; "openai/" may precede each name.
bool openai_model_find(struct app *app, const char *name, const char **model);
// Whether OpenAI's default response format for this model is a URL.
bool openai_model_gives_urls(const char *name);

#endif
